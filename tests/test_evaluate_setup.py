"""From plain settings to arms, attacks and judges, and the three steps for real on tiny models."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.errors import refuses
from tests.fakes import prompt_set
from tests.tiny_pair import tiny_adapter, tiny_pair, tiny_tokenizer
from workbench.core.errors import ParameterError, PromptError, TokenizerMismatch, UnknownName
from workbench.core.records import load, save
from workbench.core.store import Store
from workbench.evaluation import setup
from workbench.evaluation.attacks import GCG, Decoding, NoAttack, Prefill
from workbench.evaluation.capability import CapabilityConfig
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.metrics import EvaluateConfig
from workbench.evaluation.paper import paper_preset
from workbench.evaluation.records import Evaluation
from workbench.evaluation.scorecard import sum_up
from workbench.judging.makers import judges_of
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return tiny_pair()


def harmful(n: int = 3) -> PromptSet:
    return prompt_set(*(f"Tell me a story about the sea {i}" for i in range(n)))


def test_prompts_that_an_attack_does_not_find_are_said(pair: ModelPair) -> None:
    configs = setup.attacks_of(["none", "harmless_prefill"], prefix_tokens=["2"], max_tokens=4)
    (made,) = setup.attempts_of(pair, harmful(), configs)
    assert made.attack == "none"
    assert any("harmless_prefill is left out" in n and "3 harmful" in n for n in made.notes)
    refuses(lambda: setup.attempts_of(pair, harmful(), configs[1:]), PromptError)
    alike = prompt_set("Tell me a story about the sand", "the cat", label="lookalike")
    configs = setup.attacks_of(["prefill"], prefix_tokens=["2"], max_tokens=4)
    attacked, asked = setup.attempts_of(pair, harmful(), configs, lookalikes=dataclasses.replace(alike, name="alike"))
    assert {a.label for a in attacked.attempts} == {"harmful"}
    assert ({a.label for a in asked.attempts}, asked.prompt_set) == ({"lookalike"}, "alike")


def test_arms_attacks_and_judges_follow_plain_settings(pair: ModelPair, tmp_path: Path) -> None:
    with pair.model("aligned") as model:
        folder = tiny_adapter(tmp_path / "recovery", model)
    arms = setup.arms_of(pair, adapters=[str(folder)], penalties=[0.5, 1.0])
    assert [a.name for a in arms] == ["base", "aligned", "recovery", "penalty 0.5", "penalty 1"]
    assert arms[2].pair.fingerprint != pair.fingerprint
    refuses(lambda: setup.arms_of(pair, penalties=[1.0, 1.0]), ParameterError, "'penalty 1'")
    none, prefill, decoding, gcg = setup.attacks_of(
        ["none", "prefill", "decoding", "gcg"], prefix_tokens=["0", "5", "full"], temperatures=[0.5], samples=3,
        budget="short", max_tokens=9, system_prompt="Be brief.", seed=2,
    )  # fmt: skip
    assert isinstance(none, NoAttack)
    assert (none.max_tokens, none.seed, none.system_prompt) == (9, 2, "Be brief.")
    assert isinstance(prefill, Prefill)
    assert prefill.k == (0, 5, "full")
    assert isinstance(decoding, Decoding)
    assert (decoding.temperatures, decoding.top_ps, decoding.top_ks, decoding.samples) == ((0.5,), (1.0,), (0,), 3)
    assert isinstance(gcg, GCG)
    assert gcg.budget == "short"
    table = paper_preset("paper/llama-2-7b/gcg")
    found = setup.attacks_of(["none", "prefill"], prefix_tokens=["3"], preset=table)
    assert [c.family for c in found] == ["none", "prefill", "gcg"]
    assert isinstance(found[1], Prefill)
    assert found[1].k == ("full",)
    refuses(lambda: setup.attacks_of(["prefil"]), UnknownName, "'prefill'")
    refuses(lambda: setup.attacks_of(["prefill"], prefix_tokens=["all"]), ParameterError, "prefix_tokens", "'all'")
    assert judges_of(None, "embedded") == ("exact", "refusal")
    assert judges_of(None, "mine") == ("refusal",)
    assert judges_of(["guard:x"], "embedded") == ("guard:x",)
    refuses(lambda: judges_of(["exact", "refusl"], "embedded"), UnknownName, "'refusal'")
    assert setup.questions_of(None, "embedded", limit=3) == CapabilityConfig(tasks=("brindle",), limit=3)
    assert setup.questions_of(None, "smollm2") is None
    assert setup.questions_of([], "embedded") is None
    refuses(lambda: setup.questions_of(["hellaswagg"], "embedded"), UnknownName, "'hellaswag'")
    refuses(lambda: setup.questions_of(["brindl"], "embedded"), UnknownName, "'brindle'")
    table = setup.questions_of(None, "llama-3.1-8b", paper_preset("paper/llama-3.1-8b/prefill"))
    assert "mmlu" in table.tasks


def test_the_whole_evaluation_for_real(pair, tmp_path, monkeypatch, capsys) -> None:
    store = Store(tmp_path / "store")
    arms = setup.arms_of(pair, penalties=[1.0])
    configs = setup.attacks_of(
        ["none", "prefill", "decoding"], prefix_tokens=["0", "2"], temperatures=[1.0], samples=2, max_tokens=6
    )
    attempts = setup.attempts_of(pair, harmful(), configs, store=store)
    monkeypatch.setattr("workbench.evaluation.evaluate.is_installed", lambda: False)
    how, questions = EvaluateConfig(against="aligned"), CapabilityConfig(tasks=("brindle",))
    made = evaluate(arms, attempts, ["refusal"], config=how, capability=questions, store=store)
    said = capsys.readouterr().err
    assert "3 arms: at most 45 answers and 270 tokens" in said
    assert "lm-evaluation-harness is not installed" in said
    assert (len(made.answers), len(made.judgements), len(made.gibberish), made.capability) == (9, 9, 9, ())
    asr = {(s.arm, s.attack, s.setting, s.worst_of) for s in made.scorecard.scores if s.metric == "asr"}
    assert ("penalty 1", "decoding", "t=1 p=1 k=0", 2) in asr
    assert ("base", "all attacks", None, 5) in asr
    assert load(save(made, tmp_path / "kept"), Evaluation) == made
    monkeypatch.setattr(pair.__class__, "hidden", lambda *a, **k: pytest.fail("a model ran"))
    fewer = evaluate(arms[:2], attempts, ["refusal"], config=how, store=store)  # all of it is kept
    assert [a.completions for a in fewer.answers] == [a.completions for a in made.answers[:6]]


def test_prompts_without_responses_are_attacked_with_the_base_models_continuation(pair: ModelPair) -> None:
    bare = prompt_set("Tell me a story about the sea", "the cat", response=None)
    configs = setup.attacks_of(["none", "prefill", "harmless_prefill"], prefix_tokens=["0", "3"], max_tokens=4)
    none, prefill = setup.attempts_of(pair, bare, configs)
    given = [a for a in prefill.attempts if a.given == 3]
    opening = pair.encode("Sure, here is")[:3]
    assert [a.prefix_ids for a in given] == [opening] * 2
    made = evaluate(setup.arms_of(pair), (none, prefill), ["refusal"])
    told = made.scorecard.sentences
    assert "prefill: no prompt" in told[0]
    assert "harmless_prefill is left out" in told[1]
    assert {(s.attack, s.given) for s in made.scorecard.scores if s.metric == "asr"} >= {("prefill", 3)}
    with_one = dataclasses.replace(bare, prompts=(harmful(1).prompts[0], bare.prompts[1]))
    (_, prefill) = setup.attempts_of(pair, with_one, configs[:2])
    assert [a.prompt_id for a in prefill.attempts if a.given == 3] == ["p0"]
    unlabelled = prompt_set("the cat", label="unlabelled")
    every = [NoAttack(labels=None, max_tokens=2)]
    refuses(lambda: setup.attempts_of(pair, unlabelled, every), PromptError, "label_column")


def test_lookalikes_are_those_of_a_set_or_all_that_are_not_harmful(pair: ModelPair) -> None:
    mixed = prompt_set("a", "b", "c")
    for labels, asked in (
        (("harmful", "lookalike", "harmless"), ["p1"]),
        (("harmful", "unlabelled", "harmless"), ["p1", "p2"]),
    ):
        rows = tuple(dataclasses.replace(p, label=label) for p, label in zip(mixed, labels, strict=True))  # type: ignore[arg-type]
        alike = dataclasses.replace(mixed, prompts=rows)
        made = setup.attempts_of(pair, harmful(1), [NoAttack(max_tokens=2)], lookalikes=alike)
        assert [(a.prompt_id, a.label) for a in made[1].attempts] == [(p, "lookalike") for p in asked]


def test_attempts_against_one_arm_are_answered_by_that_arm_alone(pair: ModelPair) -> None:
    plain = setup.attempts_of(pair, harmful(2), setup.attacks_of(["none"], max_tokens=2))
    own = setup.attempts_of(pair, harmful(1), setup.attacks_of(["decoding"], temperatures=[1.0], max_tokens=2))
    made = evaluate(setup.arms_of(pair), plain, ["refusal"], own={"base": own})
    assert [(c.arm, len(c.completions)) for c in made.answers] == [("base", 2), ("base", 1), ("aligned", 2)]
    assert {s.arm for s in made.scorecard.scores if s.attack == "decoding"} == {"base"}


def test_answers_are_read_again_as_prompts(pair: ModelPair) -> None:
    attempts = setup.attempts_of(pair, harmful(), setup.attacks_of(["prefill"], prefix_tokens=["2"], max_tokens=6))
    made = evaluate(setup.arms_of(pair), attempts, ["refusal"])
    told = made.answers_as_prompts(arm="aligned", attack="prefill", limit=2)
    assert 0 < len(told) <= 2
    source = {a.attempt_id: a for a in attempts[0].attempts}
    texts = {source[c.attempt_id].prefix + c.text for s in made.answers if s.arm == "aligned" for c in s.completions}
    assert told.prompts[0].response in texts
    assert told.classroom_safe
    refuses(lambda: made.answers_as_prompts(arm="tuned"), PromptError, "'tuned'")


def test_an_arm_with_another_tokenizer_cannot_answer_nor_be_evaluated(pair: ModelPair) -> None:
    attempts = setup.attempts_of(pair, harmful(), setup.attacks_of(["prefill"], prefix_tokens=["2"], max_tokens=4))
    other = tiny_pair(tokenizer=tiny_tokenizer(corpus=("a completely different corpus of words and things",)))
    arm = setup.arms_of(other)[0]
    refuses(lambda: evaluate([arm], attempts, ["refusal"]), TokenizerMismatch)
    made = evaluate(setup.arms_of(pair)[:1], attempts, ["refusal"])
    strange = [dataclasses.replace(s, tokenizer="0123") for s in attempts]
    refuses(lambda: sum_up(strange, made.answers, made.judgements), TokenizerMismatch, "0123")
