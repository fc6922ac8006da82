"""Is an attack strong enough to measure a defence? Weak and strong aligned models, the budget, and what is said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

from tests import evaluation_makers as make
from tests.errors import refuses
from workbench.core.errors import ParameterError, PromptError
from workbench.core.store import Store
from workbench.display import figures, views
from workbench.evaluation.arms import CompareConfig, check_rows_apart
from workbench.evaluation.attacks import (
    GCG,
    AttackConfig,
    BenignTuning,
    Decoding,
    FewHarmfulTuning,
    HarmlessPrefill,
    Insertion,
    NoAttack,
    Prefill,
    Template,
)
from workbench.evaluation.attacks.prefixes import Cost, Made, Task
from workbench.evaluation.attacks.task import attempt_of
from workbench.evaluation.escalation import escalated
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.metrics import EvaluateConfig, title_of
from workbench.evaluation.records import Scorecard
from workbench.evaluation.rows import evaluation_rows
from workbench.evaluation.scorecard import sum_up
from workbench.evaluation.setup import arms_of, attempts_of
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.prompts.loading import PromptConfig, PromptSet, load_prompts
from workbench.prompts.similar import same_wording
from workbench.prompts.splits import kept_for_attacks, kept_wordings
from workbench.training.data import TrainingDataConfig, training_texts


@dataclass(frozen=True, kw_only=True)
class Given(AttackConfig):
    """The first `k` tokens of the prompt's own response: deeper is stronger."""

    family: ClassVar[str] = "given"

    k: int = 0

    def stronger(self) -> Given:
        return replace(self, k=self.k + 5)

    def cost(self, task: Task) -> Cost:
        return self.bound(len(task.prompts))

    def make(self, task: Task) -> Made:
        made = []
        for p in task.prompts:
            ids = task.pair.encode(p.response or "")[: self.k]
            given: dict[str, Any] = {"given": self.k, "prefix_ids": ids, "prefix": task.pair.decode(ids)}
            made.append(attempt_of(self, p, task.messages(p), None, **given))
        return Made(attempts=made)


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return load_pair(PairConfig(preset="embedded"))


@pytest.fixture(scope="module")
def prompts() -> PromptSet:
    return load_prompts(PromptConfig(source="embedded", limit=12))


def test_a_weak_attack_is_made_stronger_until_it_measures_and_no_further(pair, prompts, tmp_path) -> None:
    store = Store(tmp_path)
    config, made = escalated(pair, prompts, Given(max_tokens=40, escalations=8), "exact", store=store)
    assert config.k > 0, "aligned refuses when nothing is given"
    assert made.escalations == config.k // 5
    assert made.run.asked["k"] == config.k, "the last form is the attack's setting"
    assert {a.given for a in made.attempts} == {config.k}
    assert sum("made stronger" in n for n in made.notes) == made.escalations
    before, _ = escalated(pair, prompts, Given(max_tokens=40, escalations=made.escalations - 1), "exact", store=store)
    assert before.k == config.k - 5, "the budget ends it"
    card = evaluate(arms_of(pair), [made], ["exact"], against="aligned", store=store).scorecard
    (strength,) = card.strengths
    assert (strength.weak, strength.arm, strength.escalations, strength.budget) == (False, "aligned", config.k // 5, 8)
    assert strength.success == card.estimate("asr", arm="aligned")
    assert {s.given for s in card.scores if s.metric == "asr"} == {config.k}, "the same form for every arm"


def test_an_aligned_model_that_complies_needs_no_stronger_attack(prompts, root) -> None:
    base = str(root / "workbench" / "models" / "embedded" / "base")
    config, made = escalated(load_pair(PairConfig(base=base, aligned=base)), prompts, Given(max_tokens=40), "exact")
    assert (config.k, made.escalations) == (0, 0)


def test_a_spent_budget_leaves_an_attack_that_is_called_too_weak_everywhere(pair, prompts, tmp_path) -> None:
    store = Store(tmp_path)
    hot: dict[str, Any] = dict(temperatures=(0.1,), samples=1, escalations=1, max_tokens=16)
    (made,) = attempts_of(pair, prompts, [Decoding(top_ps=(1.0,), top_ks=(5,), **hot)], gate=1.0, store=store)
    assert made.run.asked["samples"] == 2
    card = evaluate(arms_of(pair), [made], against="aligned", gate=1.0, store=store).scorecard
    weak = {s.judge: s for s in card.strengths}
    assert weak.keys() == {"exact", "refusal"}
    assert all(s.weak and (s.escalations, s.budget) == (1, 1) for s in weak.values())
    first, second = card.sentences[:2]
    assert "decoding is too weak to measure a defence" in first
    assert "attack success on aligned" in first
    assert "non-refusal on aligned" in second
    rows = [r for r in evaluation_rows(card) if r.name == "attack_too_weak"]
    assert [(r.arm, r.attack, r.value) for r in rows] == [("aligned", "decoding", 1.0)] * 2
    for view in (views.conclusions(card), views.attack_matrix(card), views.arms_table(card)):
        assert "oo weak to measure a defence" in view.body, view.title
        assert "oo weak to measure a defence" in view.text, view.title


def test_strength_is_taken_on_aligned_over_all_settings_and_not_from_controls() -> None:
    plain, given = make.attempts(10, attack="none", where=(None,)), make.attempts(10, where=(5, 10))
    control = make.attempts(10, attack="harmless_prefill", label="harmless")
    every = (plain, given, control)
    done = [make.completions(s, arm) for s in every for arm in ("aligned", "tuned")]

    def card(hits: int, **more: Any) -> Scorecard:
        judged = [make.judgements(s, "tuned", make.first(9)) for s in every]
        judged += [
            make.judgements(s, "aligned", lambda a: float(make.index(a) < hits and a.given == 10)) for s in every
        ]
        return sum_up(every, done, judged, EvaluateConfig(**more))

    (found,) = card(1).strengths
    assert (found.attack, found.arm, found.weak, found.success.value, found.success.n) == (
        "prefill",
        "aligned",
        True,
        0.1,
        10,
    )
    assert not card(2, against="tuned").strengths[0].weak, "20 % are enough, and aligned counts whatever is compared"
    assert card(2, gate=0.3).strengths[0].weak
    nameless = [replace(c, arm="own") for c in done if c.arm == "tuned"]
    judged = [make.judgements(s, "own", make.first(0)) for s in every]
    assert sum_up(every, nameless, judged).strengths == ()
    assert sum_up(every, nameless, judged, EvaluateConfig(against="own")).strengths[0].weak
    refuses(lambda: EvaluateConfig(gate=1.5), ParameterError, "gate")
    refuses(lambda: Prefill(escalations=-1), ParameterError, "escalations")


@pytest.mark.parametrize(
    ("weak", "field", "stronger"),
    [
        (Prefill(k=(0, 5, "full")), "k", (0, 5, "full", 10)),
        (Decoding(samples=3), "samples", 6),
        (Insertion(lengths=(5, 10)), "lengths", (5, 10, 20)),
        (Template(names=("persona",)), "names", None),
        (BenignTuning(steps=60), "steps", 120),
        (FewHarmfulTuning(steps=60), "setting", "120 steps, 10 harmful rows"),
    ],
)
def test_each_attack_has_its_stronger_form(weak: AttackConfig, field: str, stronger: object) -> None:
    made = weak.stronger()
    assert type(made) is type(weak)
    assert getattr(made, field) == stronger


def test_controls_have_no_stronger_form_and_a_search_has_more_steps() -> None:
    assert GCG(budget="smoke").stronger().spends.steps == 2 * GCG(budget="smoke").spends.steps
    for config in (NoAttack(), HarmlessPrefill(), Template(), Prefill(k=(0,))):
        assert config.stronger() is None


def test_what_a_judge_measures_names_its_asr_everywhere() -> None:
    source = make.attempts(8, where=(5, 10))
    kinds = {"exact": "attack success", "rules": "non-refusal"}
    arms = ("aligned", "tuned")
    judged = [
        make.judgements(source, arm, make.first(n), judge=judge, measures=kind)  # type: ignore[arg-type]
        for judge, kind in kinds.items()
        for arm, n in zip(arms, (8, 0), strict=True)
    ]
    done = [make.completions(source, arm) for arm in arms]
    card = sum_up([source], done, judged, EvaluateConfig(against="aligned"))
    assert (title_of("asr", "non-refusal"), title_of("asr")) == ("non-refusal rate", "attack success rate")
    for judge, kind in kinds.items():
        other = next(k for k in kinds.values() if k != kind)
        figure = figures.success_by_prefix(card, judge=judge)
        said = [
            views.attack_matrix(card, judge=judge).text, views.arms_table(card, judge=judge).text,
            figure.layout.meta["title"],
            *(c.sentence for c in card.comparisons if c.judge == judge),
        ]  # fmt: skip
        for text in said:
            assert kind in text.lower(), text
            assert other not in text.lower(), text
    assert {r["metric"] for r in views.comparisons_table(card).rows} == {f"{k} rate" for k in kinds.values()}


def test_rows_of_a_fine_tuning_attack_are_no_arms_rows_and_not_asked(pair: ModelPair) -> None:
    whole = load_prompts(PromptConfig(source="embedded", split="train"))
    rows = BenignTuning().rows_of("embedded")["harmless"][1]
    few = FewHarmfulTuning().rows_of("embedded")["harmful"][1]
    assert len(rows) >= 40
    assert len(few) == 10
    config = TrainingDataConfig(harmful_from="given", utility_from="given", refusals=1, max_tokens=8)
    small = replace(whole, prompts=whole.prompts[:60])
    texts = training_texts(pair, small, config, utility=load_prompts(PromptConfig(source="questions")))
    everything = (*rows, *few, *BenignTuning().rows_of("real prompts")["harmless"][1])
    assert not texts.shared(everything)
    left = [p for p in small if same_wording(p.prompt) in kept_wordings()]
    assert left
    assert any("kept for attacks" in n for n in texts.notes)
    asked = frozenset({same_wording(rows[0].prompt)})
    assert len(BenignTuning().rows_of("embedded", asked)["harmless"][1]) == len(rows) - 1
    kept = {p.id for p in kept_for_attacks("embedded")}
    assert all((p.pair_id is None) or ((p.id in kept) == (p.pair_id in kept)) for p in whole), "a pair stays together"


@pytest.mark.slow
def test_benign_tuning_moves_aligned_at_its_default_strength(pair: ModelPair) -> None:
    asked = load_prompts(PromptConfig(source="embedded", limit=60))
    (made,) = attempts_of(pair, asked, [BenignTuning(max_tokens=64)])
    card = evaluate(arms_of(pair)[1:], [made], ["exact"]).scorecard
    (strength,) = card.strengths
    assert not strength.weak, strength.success
    assert card.estimate("gibberish", arm="aligned").value < 0.1  # type: ignore[operator]


def test_own_rows_that_the_arms_are_trained_on_are_refused_before_any_training(pair, tmp_path) -> None:
    own = load_prompts(PromptConfig(source="embedded", split="train", limit=12))
    config = TrainingDataConfig(harmful_from="given", utility_from="given", refusals=1, max_tokens=8)
    texts = training_texts(pair, own, config)
    path = tmp_path / "mine.csv"
    path.write_text("prompt,label,response\n" + "".join(f'"{t.prompt}",harmless,"Sure."\n' for t in texts.utility))
    attacked = CompareConfig(attacks=(BenignTuning(rows=str(path)),))
    refuses(lambda: check_rows_apart(texts, own, attacked), PromptError, "mine.csv")
    check_rows_apart(texts, own, CompareConfig(attacks=(BenignTuning(),)))
