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
from workbench.evaluation.config import EvaluateConfig
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.paper import paper_preset
from workbench.evaluation.reading import told_prompts
from workbench.evaluation.records import CompletionSet
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
    made_up = dataclasses.replace(harmful(), name="embedded")
    assert setup.judges_of(None, made_up) == ("exact", "refusal")
    assert setup.judges_of(None, harmful()) == ("refusal",)
    assert setup.judges_of(["guard:x"], made_up) == ("guard:x",)
    refuses(lambda: setup.judges_of(["exact", "refusl"], made_up), UnknownName, "'refusal'")
    assert setup.tasks_of(None, "embedded") == ("brindle",)
    assert setup.tasks_of(None, "smollm2") == ()
    assert setup.tasks_of([], "embedded") == ()
    refuses(lambda: setup.tasks_of(["hellaswagg"], "embedded"), UnknownName, "'hellaswag'")
    refuses(lambda: setup.tasks_of(["brindl"], "embedded"), UnknownName, "'brindle'")
    assert "mmlu" in setup.tasks_of(None, "llama-3.1-8b", paper_preset("paper/llama-3.1-8b/prefill"))
    assert setup.capability_of([], None) == ()


def test_the_three_steps_for_real(pair: ModelPair, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    arms = setup.arms_of(pair, penalties=[1.0])
    configs = setup.attacks_of(
        ["none", "prefill", "decoding"], prefix_tokens=["0", "2"], temperatures=[1.0], samples=2, max_tokens=6
    )
    attempts = setup.attempts_of(pair, harmful(), configs, store=store)
    answers = setup.completions_of(arms, attempts, store=store)
    assert len(answers) == 3 * 3
    judged = setup.judgements_of(["refusal"], answers, attempts, store=store)
    babble = setup.gibberish_of(answers, attempts, pair=pair, store=store)
    card = evaluate(attempts, answers, judged, EvaluateConfig(against="aligned"), gibberish=babble)
    asr = {(s.arm, s.attack, s.setting, s.worst_of) for s in card.scores if s.metric == "asr"}
    assert ("penalty 1", "decoding", "t=1 p=1 k=0", 2) in asr
    assert ("base", "all attacks", None, 5) in asr
    again = setup.completions_of(arms, attempts, store=store)
    assert [c.completions for c in again] == [c.completions for c in answers]

    named = setup.named_records(attempts, answers, judged, babble)
    assert len(named) == len(attempts) + 3 * len(answers)
    assert {"attempts-prefill", "answers-penalty-1-none", "judged-refusal-base-decoding"} <= named.keys()
    kept = named["answers-penalty-1-none"]
    assert load(save(kept, tmp_path / "kept"), CompletionSet) == kept


def test_what_is_left_out_is_said_and_names_never_clash(pair, monkeypatch, capsys) -> None:
    monkeypatch.setattr(setup, "is_installed", lambda: False)
    assert setup.capability_of(setup.arms_of(pair), CapabilityConfig(tasks=("brindle",))) == ()
    assert "Capability is not measured: lm-evaluation-harness is not installed" in capsys.readouterr().err
    attempts = setup.attempts_of(pair, harmful(), setup.attacks_of(["none"], max_tokens=2))
    answers = setup.completions_of(setup.arms_of(pair)[:1], attempts)
    twice = (*answers, dataclasses.replace(answers[0], arm="BASE"))
    named = setup.named_records([*attempts, *attempts], twice, ())
    assert sorted(named) == ["answers-base-none", "answers-base-none--2", "attempts-none", "attempts-none--2"]


def test_answers_are_read_again_as_prompts(pair: ModelPair) -> None:
    attempts = setup.attempts_of(pair, harmful(), setup.attacks_of(["prefill"], prefix_tokens=["2"], max_tokens=6))
    answers = setup.completions_of(setup.arms_of(pair), attempts)
    judged = setup.judgements_of(["refusal"], answers, attempts)
    told = told_prompts(attempts, answers, judged, arm="aligned", attack="prefill", limit=2)
    assert 0 < len(told) <= 2
    first = told.prompts[0]
    source = {a.attempt_id: a for a in attempts[0].attempts}
    texts = {source[c.attempt_id].prefix + c.text for s in answers if s.arm == "aligned" for c in s.completions}
    assert first.response in texts
    assert told.classroom_safe
    refuses(lambda: told_prompts(attempts, answers, judged, arm="tuned"), PromptError, "'tuned'")


def test_an_arm_with_another_tokenizer_cannot_answer_nor_be_evaluated(pair: ModelPair) -> None:
    attempts = setup.attempts_of(pair, harmful(), setup.attacks_of(["prefill"], prefix_tokens=["2"], max_tokens=4))
    other = tiny_pair(tokenizer=tiny_tokenizer(corpus=("a completely different corpus of words and things",)))
    arm = setup.arms_of(other)[0]
    with pytest.raises(TokenizerMismatch):
        setup.completions_of([arm], attempts)
    done = setup.completions_of(setup.arms_of(pair)[:1], attempts)
    judged = setup.judgements_of(["refusal"], done, attempts)
    strange = [dataclasses.replace(s, tokenizer="0123") for s in attempts]
    refuses(lambda: evaluate(strange, done, judged), TokenizerMismatch, "0123")
