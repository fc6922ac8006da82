"""Answers to attempts: what follows the prefix and nothing else, the same in batches, resumed, and by any arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.errors import refuses
from tests.fakes import counting_model, interrupted_after, prompt_set
from tests.test_attacks import mixed_set
from tests.test_generate import plain
from tests.tiny_pair import THINKING_TEMPLATE, sentencepiece_like_tokenizer, tiny_adapter, tiny_pair, tiny_tokenizer
from workbench.core.errors import ContextOverflow, ParameterError, TokenizerMismatch
from workbench.core.passages import Passage
from workbench.core.records import load, save
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.model import PenalisedModel
from workbench.evaluation.attacks import Arm, Decoding, Insertion, ModelArm, NoAttack, Prefill, Template, answer, attack
from workbench.evaluation.attacks.task import as_prompt
from workbench.evaluation.records import AttackSet, CompletionSet
from workbench.models.generation import GenerateConfig, Generation
from workbench.models.pair import ModelPair, Which

PREFILL = Prefill(k=(0, 1, 3, "full"), max_tokens=10)


@pytest.mark.parametrize("which", ["base", "aligned"])
@pytest.mark.parametrize("mode", ["shared", "plain", "own"])
def test_greedy_answers_are_those_of_the_plain_loop_in_the_attempts_order(which: Which, mode: Any) -> None:
    pair = tiny_pair("qwen2", template_mode=mode)
    made = attack(pair, mixed_set(), PREFILL)
    done = answer(ModelArm(pair=pair, which=which), made, batch_tokens=300)
    assert (done.arm, [c.attempt_id for c in done.completions]) == (which, [a.attempt_id for a in made.attempts])
    for a, c in zip(made.attempts, done.completions, strict=True):
        assert c.ids == plain(pair, which, pair.context(as_prompt(a), which) + a.prefix_ids, 10)


def test_the_text_follows_the_prefix_with_its_space_and_whole_characters() -> None:
    pair = ModelPair.from_models(counting_model(320), counting_model(320), tiny_tokenizer())
    made = attack(pair, prompt_set("the cat"), Prefill(k=(2, "full"), max_tokens=4))
    done = answer(ModelArm(pair=pair, which="aligned"), made)
    for a, c in zip(made.attempts, done.completions, strict=True):
        first = a.prefix_ids[-1] + 1
        assert c.ids == (first, first + 1, first + 2, first + 3)
        assert a.prefix + c.text == pair.decode((*a.prefix_ids, *c.ids))
        assert (c.stop, a.prefix not in c.text) == ("length", True)
    object.__setattr__(pair, "eos_ids", frozenset({made.attempts[0].prefix_ids[-1] + 3}))
    ended = answer(ModelArm(pair=pair, which="aligned"), made).completions[0]
    assert (ended.stop, len(ended.ids)) == ("end", 3)
    assert made.attempts[0].prefix + ended.text == pair.decode((*made.attempts[0].prefix_ids, *ended.ids[:2]))
    tokenizer = tiny_tokenizer()
    pair = tiny_pair(tokenizer=tokenizer)
    euro = pair.encode("€")
    assert len(euro) == 3, "three byte tokens"

    class Says(ModelArm):
        def continue_(self, passages: Sequence[Passage], config: GenerateConfig, **_: Any) -> Any:
            return tuple(Generation(ids=(*euro[2:], *pair.encode(" is it")), stop="length") for _ in passages)

    one = prompt_set("the cat", response="€")
    made = attack(pair, one, Prefill(k=(2,), max_tokens=8))
    assert made.attempts[0].prefix_ids == euro[:2]
    assert answer(Says(pair=pair, which="aligned"), made).completions[0].text == "€ is it"
    pair = tiny_pair(tokenizer=sentencepiece_like_tokenizer())
    made = attack(pair, prompt_set("the cat", response="sat on the mat"), Prefill(k=(0, 3), max_tokens=4))

    class Says(ModelArm):
        def continue_(self, passages: Sequence[Passage], config: GenerateConfig, **_: Any) -> Any:
            return tuple(Generation(ids=pair.encode("the mat"), stop="length") for _ in passages)

    assert [c.text for c in answer(Says(pair=pair, which="base"), made).completions] == ["the mat", " the mat"]


def test_equal_contexts_are_answered_once_and_draws_repeat_with_the_seed() -> None:
    pair = tiny_pair()
    made = attack(pair, prompt_set("the cat"), Decoding(temperatures=(1.0,), top_ps=(1.0,), top_ks=(0,), samples=3))
    arm = ModelArm(pair=pair, which="aligned")
    first = answer(arm, made)
    assert (len({c.ids for c in first.completions}), answer(arm, made).completions) == (3, first.completions)
    other = attack(
        pair, prompt_set("the cat"), Decoding(temperatures=(1.0,), top_ps=(1.0,), top_ks=(0,), samples=3, seed=1)
    )
    assert {c.ids for c in answer(arm, other).completions}.isdisjoint(c.ids for c in first.completions)
    made = attack(pair, prompt_set("the cat", "the dog"), PREFILL)
    twice = replace(made, attempts=(*made.attempts, *(replace(a, setting="again") for a in made.attempts)))
    asked: list[int] = []

    class Counts(ModelArm):
        def continue_(self, passages: Sequence[Passage], config: GenerateConfig, **kwargs: Any) -> Any:
            asked.append(len(passages))
            assert [p.response for p in passages] == [a.prefix_ids for a in made.attempts]
            return super().continue_(passages, config, **kwargs)

    seen: dict[int, list[int]] = {n: [] for n in range(len(twice.attempts))}
    done = answer(Counts(pair=pair, which="aligned"), twice, on_token=lambda n, token: seen[n].append(token))
    assert (asked, [tuple(seen[n]) for n in seen]) == ([len(made.attempts)], [c.ids for c in done.completions])


def test_a_killed_arm_resumes_and_gives_the_same(tmp_path: Path) -> None:
    pair = tiny_pair()
    made = attack(pair, prompt_set("the cat", "the dog sat", "the sea"), PREFILL)
    arm = ModelArm(pair=pair, which="aligned")
    whole = answer(arm, made)
    with pytest.raises(KeyboardInterrupt):
        answer(arm, made, store=Store(tmp_path), batch_tokens=100, on_token=interrupted_after(60))
    assert 0 < len(Store(tmp_path)) < len(made.attempts)
    resumed = answer(arm, made, store=Store(tmp_path), batch_tokens=100)
    assert resumed.completions == whole.completions
    object.__setattr__(pair, "hidden", lambda *_, **__: pytest.fail("everything was stored"))
    again = answer(arm, made, store=Store(tmp_path))
    assert again.completions == whole.completions
    save(again, tmp_path / "record")
    assert load(tmp_path / "record", CompletionSet) == again


def test_an_adapter_is_an_arm_under_its_own_name(tmp_path: Path) -> None:
    pair = tiny_pair()
    made = attack(pair, prompt_set("the cat"), PREFILL)
    with pair.model("aligned") as model:
        adapter = tiny_adapter(tmp_path, model, scale=0.5)
    arm = ModelArm(pair=pair.with_aligned(str(adapter)), which="aligned", called="recovery")
    done = answer(arm, made)
    assert (done.arm, done.run.fingerprint) == ("recovery", arm.pair.fingerprint)
    before = answer(ModelArm(pair=pair, which="aligned"), made)
    assert [c.ids for c in done.completions] != [c.ids for c in before.completions]


def drawn(made: AttackSet) -> AttackSet:
    """The same attempts, answered by draws: a small change of a distribution shows in them."""
    return replace(made, attempts=tuple(replace(a, temperature=1.0) for a in made.attempts))


def test_a_penalty_is_an_arm_whose_positions_count_the_prefix() -> None:
    pair = tiny_pair(shift=0.3)
    made = drawn(attack(pair, prompt_set("the cat", "the dog"), PREFILL))
    aligned = answer(ModelArm(pair=pair, which="aligned"), made)
    none, strong = (PenalisedModel(pair, PenaltyConfig(strength=s), name=f"penalty {s:g}") for s in (0.0, 4.0))
    assert isinstance(none, Arm)
    assert answer(none, made).completions == aligned.completions
    done = answer(strong, made)
    assert done.arm == "penalty 4"
    assert done.completions != aligned.completions
    refuses(lambda: answer(PenalisedModel(pair, PenaltyConfig.family(-0.5)), made), ParameterError)
    made = drawn(attack(pair, prompt_set("the cat", "the dog"), Prefill(k=(0, 3), max_tokens=8)))
    first_three = PenalisedModel(pair, PenaltyConfig.family(0.1, shape="first_m", m=3))
    aligned = answer(ModelArm(pair=pair, which="aligned"), made)
    done = answer(first_three, made)
    after = [n for n, a in enumerate(made.attempts) if a.prefix_ids]
    assert [done.completions[n].ids for n in after] == [aligned.completions[n].ids for n in after]
    assert done.completions != aligned.completions, "without a prefix the first three tokens are penalised"


def test_a_thinking_arm_thinks_first_and_answers_after_the_prefix() -> None:
    tokenizer = tiny_tokenizer(template=THINKING_TEMPLATE)
    end = tokenizer.get_vocab()["</think>"]
    pair = ModelPair.from_models(counting_model(320), counting_model(320), tokenizer, thinking=True)
    made = attack(pair, prompt_set("the cat"), Prefill(k=(0, 2), max_tokens=4))
    contexts: list[tuple[int, ...]] = []

    class Thinks(ModelArm):
        def continue_(self, given: Sequence[Passage], config: GenerateConfig, **kwargs: Any) -> Any:
            contexts.extend(p.whole(self.which) for p in given)
            if config.stop_ids:
                return tuple(Generation(ids=(50, 51, end), stop="stop") for _ in given)
            return super().continue_(given, config, **kwargs)

    done = answer(Thinks(pair=pair, which="aligned"), made)
    start = pair.context(as_prompt(made.attempts[0]))
    tail = (50, 51, end, *pair.encode("\n\n"))
    assert contexts == [start, start + tail, start + tail + made.attempts[1].prefix_ids]
    assert done.completions[0].ids[0] == contexts[1][-1] + 1, "only the visible answer is kept"
    assert done.notes == ()
    closed = answer(ModelArm(pair=pair, which="aligned"), made)
    assert "1 of 1 thinking blocks did not end within" in closed.notes[0]
    long = replace(made, attempts=tuple(replace(a, max_tokens=250) for a in made.attempts))
    refuses(lambda: answer(ModelArm(pair=pair, which="aligned"), long), ContextOverflow)


def test_what_does_not_match_or_fit_is_refused_before_work() -> None:
    pair = tiny_pair()
    made = attack(pair, prompt_set("the cat"), PREFILL)
    other = tiny_pair(tokenizer=tiny_tokenizer(384))
    with pytest.raises(TokenizerMismatch, match=made.tokenizer):
        answer(ModelArm(pair=other, which="aligned"), made)
    object.__setattr__(pair, "hidden", lambda *_, **__: pytest.fail("a model ran"))
    long = replace(made, attempts=(*made.attempts, replace(made.attempts[-1], max_tokens=240)))
    with pytest.raises(ContextOverflow, match=r"p0.*240.*256"):
        answer(ModelArm(pair=pair, which="aligned"), long)


def test_turns_reach_the_model_and_no_attempt_is_no_answer() -> None:
    pair, prompts = tiny_pair(max_position_embeddings=1024), mixed_set()
    made = attack(pair, prompts, NoAttack(labels=("harmful",), max_tokens=4))
    h1 = next(a for a in made.attempts if a.prompt_id == "h1")
    assert pair.context(as_prompt(h1)) == pair.context(prompts.prompts[1])
    single = replace(prompts, prompts=(prompts.prompts[0],))
    made = attack(pair, single, Template(names=("style_constraint",), system_prompt="Be kind.", max_tokens=4))
    text = pair.decode(pair.context(as_prompt(made.attempts[0])))
    assert "system\nBe kind." in text
    assert "the dog sat on the log" in text
    pair = tiny_pair()
    made: AttackSet = replace(attack(pair, prompt_set("the cat"), PREFILL), attempts=())
    assert answer(ModelArm(pair=pair, which="aligned"), made).completions == ()
    made = attack(pair, prompt_set("the cat"), Insertion(positions=(2,), lengths=(2,), tail=1, max_tokens=6))
    done = answer(ModelArm(pair=pair, which="aligned"), made)
    a = made.attempts[0]
    assert done.completions[0].ids == plain(pair, "aligned", pair.context(as_prompt(a)) + a.prefix_ids, 6)
