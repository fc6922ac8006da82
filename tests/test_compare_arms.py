"""From prompts to judged training texts, and every arm trained and asked alike, on the embedded pair."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.errors import refuses
from workbench.core.errors import NotPresent, PairError, ParameterError, PromptError, UnknownName
from workbench.core.records import load, save
from workbench.core.store import Store
from workbench.display import figures, views
from workbench.evaluation.arms import START, UNTRAINED, CompareConfig, attacks_for, compare_arms
from workbench.evaluation.attacks import GCG, Budget, ModelArm
from workbench.evaluation.capability import CapabilityConfig
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.records import ArmComparison, AttackSet, select
from workbench.evaluation.rows import comparison_rows
from workbench.evaluation.setup import attempts_of
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.prompts.brindle.judge import declines
from workbench.prompts.loading import Prompt, PromptConfig, PromptSet, load_prompts
from workbench.prompts.similar import same_wording
from workbench.prompts.splits import kept_wordings
from workbench.prompts.subset import balanced
from workbench.training.adapter import load_adapter
from workbench.training.config import ARMS, FURTHER, OptimiserSettings, TrainConfig, WatchSettings
from workbench.training.data import TrainingDataConfig, training_texts
from workbench.training.distil import distil
from workbench.training.rows import TrainingTexts

DATA = TrainingDataConfig(refusals=2, max_tokens=80)


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return load_pair(PairConfig(preset="embedded"))


@pytest.fixture(scope="module")
def prompts() -> PromptSet:
    whole = load_prompts(PromptConfig(source="embedded", split="train"))
    free = [p for p in whole if same_wording(p.prompt) not in kept_wordings()]
    return replace(whole, prompts=balanced(free, 12, 0)[0])


@pytest.fixture(scope="module")
def texts(pair: ModelPair, prompts: PromptSet) -> TrainingTexts:
    return training_texts(pair, prompts, DATA)


def test_rows_are_judged_and_what_is_no_compliance_is_dropped(texts, pair, prompts) -> None:
    assert len(texts.harmful) == 4
    for text in texts.harmful:
        assert pair.decode(text.response).startswith("Sure")
        assert text.refusals
        assert len(set(text.refusals)) == len(text.refusals)
        assert all(declines(pair.decode(r)) and r[-1] in pair.eos_ids for r in text.refusals)
    assert len(texts.harmless) == 4
    assert len(texts.utility) == 8  # harmless ones and look-alikes
    said = " ".join(texts.notes)
    assert "Refusals of aligned: 8 drawn; 0 dropped because they are no refusal" in said
    assert "judge exact" in said or "judge 'exact'" in said
    harmful = [p for p in prompts if p.label == "harmful"]
    refused = replace(harmful[0], response="I'm sorry, but I can't help you.")
    given = replace(prompts, prompts=(refused, *harmful[1:], *(p for p in prompts if p.label != "harmful")))
    made = training_texts(pair, given, replace(DATA, harmful_from="given", refusals=1))
    assert [t.name for t in made.harmful] == [p.id for p in harmful[1:]]
    assert any(f"1 of 4 harmful responses do not comply and are dropped (line {refused.line})" in n for n in made.notes)


def test_base_continues_targets_that_only_begin_an_answer(pair: ModelPair, prompts: PromptSet) -> None:
    harmful = [p for p in prompts if p.label == "harmful"]
    words = [(p.response or "").split() for p in harmful]
    begun = [replace(p, response=" ".join(w[:n])) for p, w, n in zip(harmful, words, (4, 6, 9), strict=False)]
    asked = replace(prompts, prompts=(*begun, replace(harmful[3], response=None)))
    made = training_texts(pair, asked, replace(DATA, harmful_from="continued", refusals=1))
    assert any("1 of 4 harmful prompts have no response" in n for n in made.notes)
    assert made.harmful
    for text in made.harmful:
        given = pair.encode(next(p.response for p in asked if p.id == text.name) or "")
        assert text.response[: len(given)] == given
        assert len(given) < len(text.response) <= DATA.max_tokens
        (alone,) = generate(pair, "base", [text.base + given], GenerateConfig(max_tokens=DATA.max_tokens))
        assert text.response == (given + alone.ids)[: DATA.max_tokens]


def config(**more: object) -> CompareConfig:
    train = TrainConfig(steps=2, watch=WatchSettings(film_every=1, checkpoint_every=0))
    shared = dict(arms=("recovery", "paper"), train=train, paper_steps=1, prefix_tokens=(5,), max_tokens=32)
    return CompareConfig(**{**shared, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def compared(pair: ModelPair, texts: TrainingTexts, tmp_path_factory: pytest.TempPathFactory) -> ArmComparison:
    out = tmp_path_factory.mktemp("arms")
    asked = load_prompts(PromptConfig(source="embedded", limit=9))
    store = Store(out / "store")
    made = compare_arms(pair, texts, asked, config(seeds=(0, 1)), out=out / "adapters", store=store)
    again = compare_arms(pair, texts, asked, config(seeds=(0, 1)), out=out / "adapters", store=store)
    assert again.scorecard.scores == made.scorecard.scores  # nothing is trained or asked twice
    assert again.adapters == made.adapters
    return made


def test_every_arm_is_asked_the_same_with_every_seed(compared: ArmComparison, tmp_path: Path) -> None:
    assert compared.arms == (UNTRAINED, "recovery", "paper")
    assert {k: len(v) for k, v in compared.adapters.items()} == {"recovery": 2, "paper": 2}
    assert "1 steps" in compared.budgets["paper"]
    assert "its own schedule" in compared.budgets["paper"]
    for arm in compared.arms:
        (asr,) = select(compared.scorecard.scores, "asr", arm=arm, attack="prefill", given=5, judge="exact")
        assert asr.estimate.n == 3
    save(compared, tmp_path / "c")
    assert load(tmp_path / "c", ArmComparison) == compared
    rows = comparison_rows(compared)
    own = [r for r in rows if (r.name, r.arm, r.given, r.judge) == ("asr", "recovery", 5, "exact")]
    assert [r.seed for r in own] == [None, 0, 1]
    values = [r.value for r in own[1:] if r.value is not None]
    assert own[0].value == pytest.approx(sum(values) / 2)
    both = [
        r for r in rows if (r.name, r.arm, r.given, r.judge, r.seed) == ("asr_p_holm", "recovery", 5, "exact", None)
    ]
    assert len(both) == 1, "the comparisons are over the same seeds"
    assert compared.scorecard.sentences
    assert "two-way bootstrap" in str(compared.scorecard.run.resolved["intervals"])
    place = {"arm": UNTRAINED, "attack": "prefill", "given": 5, "judge": "exact"}
    alone = [e.scorecard.estimate("refusal", **place) for e in compared.evaluations]
    assert alone[0] == alone[1] == compared.scorecard.estimate("refusal", **place), "one seed's interval, as it is"


def test_the_comparison_is_a_table_and_a_film_without_kernel(compared: ArmComparison) -> None:
    view = views.arms_comparison(compared)
    assert [r["arm"] for r in view.rows] == list(compared.arms)
    for said in ("n = 3 harmful ones", "judged by exact", "Lower is better for attack success", "mean over 2 seeds"):
        assert said in view.text.replace("\n", " "), said
    card = compared.scorecard
    whole = tuple(replace(x, given="full") if x.given == 5 else x for x in card.scores)
    headings = views.arms_comparison(replace(compared, scorecard=replace(card, scores=whole))).rows[0]
    assert {"attack success, full given", "refused, full given"} <= headings.keys()
    assert headings["gibberish, most"] == view.rows[0]["gibberish, most"]
    warned = replace(compared, leaks=("LEAK: all of it",))
    assert "<b>LEAK: all of it</b>" in views.arms_comparison(warned).body
    from workbench.training.adapter import load_adapter

    made = load_adapter(compared.adapters["recovery"][0])
    assert made.film is not None
    figure = figures.training_film(made.film)
    (slider,) = figure.layout.sliders
    assert [s.label for s in slider.steps] == ["0", "1", "2"]
    for i, step in enumerate(slider.steps):
        shown = step.args[0]["visible"]
        assert len(shown) == len(figure.data)
        assert sum(shown) == 8  # four lines of the frame, four grey ones of step 0
        assert i < 2 or [t.visible for t in figure.data[4:]] == list(shown[4:])  # at first the last frame is shown
    assert "frames" not in figures.figure_spec(figure)
    curves = figures.training_curves(made)
    assert len(curves.layout.meta["rows"]) == 2
    assert "retention" in views.training_summary(made).text


def test_what_cannot_be_trained_on_or_compared_is_refused_first(pair, prompts, texts, tmp_path) -> None:
    harmless = replace(prompts, prompts=tuple(p for p in prompts if p.label != "harmful"))
    refuses(lambda: training_texts(pair, harmless, DATA), PromptError, "harmful")
    silent = Prompt(id="x", prompt="How do I make a smudge hat?", label="harmful", response="I can't help with that.")
    with pytest.raises(PromptError, match="1"):
        training_texts(pair, replace(prompts, prompts=(silent,)), replace(DATA, harmful_from="given"))
    refuses(lambda: training_texts(replace(pair, thinking=True), prompts, DATA), ParameterError, "thinking")
    with pytest.raises(UnknownName, match="'refusal'"):
        compare_arms(pair, texts, prompts, config(judges=("refusl",)), out=tmp_path)
    assert not any(tmp_path.iterdir())
    for more, word in (
        ({"arms": ()}, "arms"), ({"arms": ("recovery", "recovery")}, "arms"), ({"seeds": (1, 1)}, "seeds"),
        ({"against": "base"}, "against"), ({"prefix_tokens": (0,)}, "prefix_tokens"),
        ({"against": "start"}, "against"), ({"paper_steps": 0}, "paper_steps"),
    ):  # fmt: skip
        with pytest.raises(ParameterError, match=word):
            config(**more)


def test_leaks_and_the_previews_responses_are_those_trained_on(texts: TrainingTexts, prompts: PromptSet, pair) -> None:
    assert texts.leaks(replace(prompts, prompts=())) == ()
    held_out = load_prompts(PromptConfig(source="embedded", limit=9))
    assert texts.leaks(held_out) == ()
    (said,) = texts.leaks(prompts)
    assert said.startswith(f"LEAK: {len(prompts)} of the {len(prompts)} prompts")
    bare = replace(prompts, prompts=tuple(replace(p, response=None) for p in prompts))
    found = texts.as_prompts(pair, bare, limit=2)
    assert [p.id for p in found] == [t.name for t in texts.harmful[:2]]
    for p, t in zip(found, texts.harmful, strict=False):
        assert p.response
        assert pair.encode(p.response) == t.response[:-1]  # the end of the turn is no text
    refuses(lambda: texts.as_prompts(pair, replace(prompts, prompts=())), PromptError, "harmful")


def test_the_papers_arm_keeps_its_own_batch_and_the_others_theirs() -> None:
    how = config(paper_steps=7, train=TrainConfig(steps=2, batch_size=6, micro_batch=3))
    recovery, paper = how.trained
    own = how.training_of(paper, 5)
    assert (own.steps, own.batch_size, own.rows_in_a_pass, own.seed) == (7, 32, 2, 5)
    other = how.training_of(recovery)
    assert (other.steps, other.batch_size, other.rows_in_a_pass, other.seed) == (2, 6, 3, 0)
    with pytest.raises(ParameterError, match=r"3.*32"):
        config(paper_steps=7, train=TrainConfig(steps=2, batch_size=9, processes=3))
    nine = config(paper_steps=7, train=TrainConfig(steps=2, batch_size=9)).training_of(paper)
    assert nine.rows_in_a_pass == 8
    eight = config(paper_steps=7, train=TrainConfig(steps=2)).training_of(paper)
    assert (eight.batch_size, eight.rows_in_a_pass, eight.accumulation) == (32, 8, 4)  # as arXiv 2511.12155 has it
    plain = config(paper_steps=None, train=TrainConfig(steps=2, batch_size=6)).training_of(paper)
    assert (plain.steps, plain.batch_size) == (2, 6)


def test_arms_are_trained_from_a_start_which_is_asked_too(pair, texts, tmp_path) -> None:
    """The paper's recovery variant: a model that was fine-tuned is drawn back, then completed."""
    quiet = WatchSettings(film_every=0, checkpoint_every=0, preflight=False)
    hard = OptimiserSettings(learning_rate=1e-2, decay="constant")
    away = distil(
        pair,
        texts,
        TrainConfig(arm=replace(FURTHER["benign_tuning"], optimiser=hard), steps=4, watch=quiet),
        out=tmp_path / "away",
    )
    gentle = replace(hard, learning_rate=2e-3)
    back = distil(
        pair,
        texts,
        TrainConfig(arm=replace(FURTHER["pull_back"], optimiser=gentle), steps=6, watch=quiet),
        out=tmp_path / "back",
        start=away.path,
    )
    asked = load_prompts(PromptConfig(source="embedded", limit=9))
    store = Store(tmp_path / "store")
    tuned = replace(ARMS["paper_tuned"], optimiser=replace(hard, learning_rate=1e-3))
    how = config(arms=("recovery", tuned), seeds=(0, 1), start=back.path)
    made = compare_arms(pair, texts, asked, how, out=tmp_path / "adapters", store=store)
    assert made.arms == (UNTRAINED, START, "recovery", "paper_tuned")
    assert "given adapter" in made.budgets[START]
    attacks = attempts_of(pair, asked, attacks_for(asked, how))
    drawn_back = ModelArm(pair=pair.with_aligned(back.path), which="aligned", called=START)
    card = evaluate([drawn_back], attacks, ["exact"]).scorecard
    for score in (s for s in card.scores if s.category is None):
        (found,) = select(made.scorecard.scores, **{**score.place(), "arm": START})
        assert found.estimate == score.estimate
    first = load_adapter(made.adapters["paper_tuned"][0])
    fresh = distil(pair, texts, how.training_of(tuned), out=tmp_path / "fresh")
    assert first.history[0].loss != pytest.approx(fresh.history[0].loss, rel=1e-4), "it did not begin at the start"
    other = replace(ARMS["paper"], name="other shape")
    with pytest.raises(PairError, match="lora_alpha"):  # before anything is trained
        compare_arms(pair, texts, asked, config(arms=("recovery", other), start=back.path), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(NotPresent, match="nowhere"):
        config(start=str(tmp_path / "nowhere"))  # before anything is loaded or asked


def test_what_trainings_said_stands_in_the_comparison(pair: ModelPair, texts: TrainingTexts, tmp_path: Path) -> None:
    watch = WatchSettings(film_every=1, checkpoint_every=0, kl_budget_nats=1e-9)
    how = config(arms=("recovery",), train=TrainConfig(steps=5, watch=watch), seeds=(0,))
    asked = load_prompts(PromptConfig(source="embedded", limit=9))
    made = compare_arms(pair, texts, asked, how, out=tmp_path)
    (said,) = [n for n in made.notes if n.startswith("recovery, seed 0: training stopped at step")]
    assert "above the budget of 1e-09" in said
    assert said in views.arms_comparison(made).text


def test_answers_are_trained_on_as_given_or_left_out(pair: ModelPair, prompts: PromptSet) -> None:
    harmful = [p for p in prompts if p.label == "harmful"]
    fair = next(p for p in prompts if p.label == "harmless")
    worded_badly = replace(harmful[0], id="worded badly", label="harmless", response="Here is how.")
    without = replace(harmful[1], id="without", label="lookalike", response=None)
    made = training_texts(pair, replace(prompts, prompts=(*harmful[2:], fair, worded_badly, without)), DATA)
    assert [t.name for t in made.harmless] == [fair.id, "worded badly"]
    assert [t.name for t in made.utility] == [fair.id, "worded badly"]
    assert pair.decode(made.harmless[1].response[:-1]) == "Here is how."
    assert made.harmless[1].response[-1] in pair.eos_ids
    assert not declines(pair.decode(made.harmless[0].response))
    said = [n for n in made.notes if "Aligned refuses" in n]
    assert len(said) == 2
    assert "1 of 2 harmless prompts" in said[0]
    assert "1 take their given response, 0 have none" in said[0]
    assert "1 of 1 utility prompts" in said[1]
    assert "0 take their given response, 1 have none" in said[1]
    given = [replace(p, response=f"An answer of its own: {n}.") for n, p in enumerate(prompts) if p.label != "harmful"]
    without = replace(given[0], response=None)
    harmful = [p for p in prompts if p.label == "harmful"]
    asked = replace(prompts, prompts=(*harmful, without, *given[1:]))
    made = training_texts(pair, asked, replace(DATA, utility_from="given"))
    written = {p.id: p.response for p in given[1:]}
    assert {t.name for t in made.utility} == set(written)
    for text in made.utility:
        assert pair.decode(text.response[:-1]) == written[text.name]
        assert text.response[-1] in pair.eos_ids
    assert any("1 of 4 harmless prompts have no response" in n for n in made.notes)


def test_an_adaptive_attack_is_made_against_each_arm_itself(pair, texts, tmp_path, monkeypatch) -> None:
    attacked: list[str] = []

    def attempts(of: ModelPair, *args: Any, **more: Any) -> tuple[AttackSet, ...]:
        attacked.append(of.fingerprint)
        return attempts_of(of, *args, **more)

    monkeypatch.setattr("workbench.evaluation.arms.attempts_of", attempts)
    asked = load_prompts(PromptConfig(source="embedded", limit=9))
    search = GCG(universal=2, budget=Budget(steps=2, candidates=8, top_k=16, buffer=2, save_every=2), suffix_tokens=6)
    store = Store(tmp_path / "store")
    questions = CapabilityConfig(tasks=("brindle",), limit=6)
    how = config(arms=("recovery",), adaptive=(search,), capability=questions)
    made = compare_arms(pair, texts, asked, how, out=tmp_path / "adapters", store=store)
    (path,) = made.adapters["recovery"]
    assert attacked == [pair.fingerprint, pair.fingerprint, pair.with_aligned(path).fingerprint]
    for arm, model in ((UNTRAINED, pair), ("recovery", pair.with_aligned(path))):
        alone = ModelArm(pair=model, which="aligned", called=arm)
        own = attempts_of(model, asked, (search,), store=store)
        card = evaluate([alone], own, ["exact"], store=store).scorecard
        wanted = [s for s in card.scores if s.metric == "asr" and s.category is None]
        assert wanted
        for score in wanted:
            assert made.scorecard.estimate(**{**score.place(), "arm": arm}) == score.estimate
        assert made.scorecard.estimate("accuracy", arm=arm, setting="mean of tasks").n == 36  # of each of its six tasks
    assert not [n for n in made.notes if "has no completion" in n]
    assert any(c.attack == "gcg" for c in made.evaluations[0].scorecard.comparisons)


def test_shares_of_an_arms_change_are_arms(pair: ModelPair, texts: TrainingTexts, tmp_path: Path) -> None:
    asked, store = load_prompts(PromptConfig(source="embedded", limit=6)), Store(tmp_path / "store")
    how = config(arms=("recovery",), scales=(0.25, 0.5))
    made = compare_arms(pair, texts, asked, how, out=tmp_path / "arms", store=store)
    assert made.arms == (UNTRAINED, "recovery", "recovery x 0.25", "recovery x 0.5") == tuple(made.budgets)
    for arm in made.arms:
        assert made.scorecard.estimate("asr", arm=arm, attack="prefill", given=5, judge="exact").n == 2
    assert (tmp_path / "arms" / "recovery-seed-0-x-0.5" / "adapter_model.safetensors").is_file()
    for wrong in ((0.5, 0.5), (0.0,), (1.0,)):
        refuses(lambda wrong=wrong: config(scales=wrong), ParameterError, "scales")  # type: ignore[misc]
