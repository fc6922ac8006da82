"""The rank-assisted attack: the tokens of a plain loop over whole contexts, its two ends, and its proxy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.errors import refuses
from tests.fakes import interrupted_after, prompt_set
from tests.test_generate import plain
from tests.tiny_pair import tiny_pair
from workbench.core.errors import ParameterError
from workbench.core.passages import Passage
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.model import PenalisedModel
from workbench.decoding.penalised import next_token
from workbench.evaluation.attacks import ModelArm, Prefill, RankAssisted, answer, attack, attack_config
from workbench.evaluation.attacks.ranked import among_top
from workbench.evaluation.attacks.task import as_prompt
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.setup import attacks_of
from workbench.models.pair import ModelPair, Which
from workbench.tracing.reach import within_top
from workbench.tracing.traces import trace

TOKENS = 8
PROMPTS = prompt_set("the cat", "the dog sat on", "the sea")


def whole_context(pair: ModelPair, which: Which, ids: tuple[int, ...]) -> torch.Tensor:
    """One model's next-token logits, read along the whole context with no cache and no padding."""
    with torch.no_grad():
        return pair.logits(which, pair.hidden(which, torch.tensor([ids])))[0, -1].float()


def slowly(pair: ModelPair, which: Which, passage: Passage, top: int) -> tuple[int, ...]:
    """Base's favorite among one model's top tokens, a whole pass of both models for every token."""
    made: list[int] = []
    while len(made) < TOKENS:
        own, base = (whole_context(pair, w, passage.whole(w) + tuple(made)) for w in (which, "base"))
        best = sorted(range(len(own)), key=lambda i: (-own[i].item(), i))[:top]
        made.append(max(best, key=lambda i: (base[i].item(), -i)))
        if made[-1] in pair.eos_ids:
            break
    return tuple(made)


@pytest.mark.parametrize("mode", ["shared", "own"])
def test_answers_are_those_of_a_plain_loop_over_whole_contexts(mode: Any) -> None:
    pair = tiny_pair("qwen2", shift=0.3, template_mode=mode)
    made = attack(pair, PROMPTS, RankAssisted(k=(0, 2), tops=(3, 20), max_tokens=TOKENS))
    assert {(a.given, a.setting, a.top_k) for a in made.attempts} == {
        (k, f"top {top}", top) for k in (0, 2) for top in (3, 20)
    }
    done = answer(ModelArm(pair=pair, which="aligned"), made, batch_tokens=90)
    for a, c in zip(made.attempts, done.completions, strict=True):
        assert c.ids == slowly(pair, "aligned", pair.passage(as_prompt(a), a.prefix_ids), a.top_k)
    assert len({c.ids for c in done.completions}) > len(made.attempts) // 2, "the settings matter"


def test_top_1_is_the_arm_itself_and_the_whole_vocabulary_is_base() -> None:
    pair = tiny_pair(shift=0.3)
    ends = attack(pair, PROMPTS, RankAssisted(k=(2,), tops=(1, pair.vocab), max_tokens=TOKENS))
    for arm in (ModelArm(pair=pair, which="aligned"), ModelArm(pair=pair, which="base")):
        for a, c in zip(ends.attempts, answer(arm, ends).completions, strict=True):
            like: Which = arm.which if a.top_k == 1 else "base"
            assert c.ids == plain(pair, like, pair.context(as_prompt(a), like) + a.prefix_ids, TOKENS)
    penalised = PenalisedModel(pair, PenaltyConfig(strength=2.0))
    same = attack(pair, PROMPTS, Prefill(k=(2,), max_tokens=TOKENS))
    expected = [c.ids for c in answer(penalised, same).completions]
    assert [c.ids for c in answer(penalised, ends).completions[: len(expected)]] == expected


def test_a_penalty_is_attacked_through_its_own_ranks() -> None:
    pair, penalty = tiny_pair(shift=0.3), PenaltyConfig(strength=4.0, shape="first_m", m=3)
    made = attack(pair, PROMPTS, RankAssisted(k=(1,), tops=(4,), max_tokens=TOKENS))
    for a, c in zip(made.attempts, answer(PenalisedModel(pair, penalty), made).completions, strict=True):
        response = list(a.prefix_ids)
        for token in c.ids:
            at = next_token(pair, pair.passage(as_prompt(a), tuple(response)), penalty)
            best = np.argsort(-at.penalised, kind="stable")[:4]
            assert token == best[at.base[best].argmax()]
            response.append(token)


def test_among_top_keeps_bases_scores_at_the_arms_first_ids_and_a_ruled_out_token_last() -> None:
    inf = torch.inf
    arm = torch.tensor([[1.0, 3.0, 3.0, 3.0, 0.0]] * 2)
    base = torch.tensor([[9.0, 1.0, 2.0, 8.0, 9.0], [9.0, -inf, -inf, 8.0, 9.0]])
    kept = among_top(arm, base, 2)
    assert kept[0].tolist() == [-inf, 1.0, 2.0, -inf, -inf]
    assert (kept[1].argmax().item(), kept.isfinite().sum(-1).tolist()) == (1, [2, 2])


def test_a_killed_answer_resumes_and_settings_are_checked(tmp_path: Path) -> None:
    pair = tiny_pair(shift=0.3)
    made = attack(pair, PROMPTS, RankAssisted(k=(0, 2), tops=(3, 5), max_tokens=TOKENS))
    arm = ModelArm(pair=pair, which="aligned")
    whole = answer(arm, made)
    with pytest.raises(KeyboardInterrupt):
        answer(arm, made, store=Store(tmp_path), batch_tokens=60, on_token=interrupted_after(40))
    assert 0 < len(Store(tmp_path)) < len(made.attempts)
    seen: dict[int, list[int]] = {n: [] for n in range(len(made.attempts))}
    again = answer(arm, made, store=Store(tmp_path), batch_tokens=60, on_token=lambda n, token: seen[n].append(token))
    assert again.completions == whole.completions
    assert [tuple(seen[n]) for n in seen] == [c.ids for c in whole.completions]
    for wrong in ({"tops": ()}, {"tops": (5, 5)}, {"tops": (0,)}):
        refuses(lambda wrong=wrong: RankAssisted(**wrong), ParameterError, "tops")  # type: ignore[misc]
    assert attack_config("rank_assisted", tops=[5]).stronger() == RankAssisted(tops=(5, 10))
    (named,) = attacks_of(["rank_assisted"], prefix_tokens=["3", "full"])
    assert named == RankAssisted(k=(3, "full"))


def test_an_arm_that_shows_no_ranks_is_refused_before_any_arm_answers() -> None:
    pair = tiny_pair()

    class Closed:
        name, which = "closed", "aligned"

        def __init__(self) -> None:
            self.pair = pair

        def continue_(self, *_: Any, **__: Any) -> Any:
            pytest.fail("refused before")

    made = attack(pair, PROMPTS, RankAssisted(k=(0,), max_tokens=2))
    arms: list[Any] = [ModelArm(pair=pair, which="aligned"), Closed()]
    refuses(lambda: evaluate(arms, [made], ["refusal"]), ParameterError, "closed", "rank_assisted")
    assert len(evaluate([ModelArm(pair=pair, which="aligned")], [made], ["refusal"]).answers) == 1


def test_the_proxy_counts_texts_of_which_every_token_is_among_the_top() -> None:
    pair = tiny_pair(shift=0.3)
    prompts = prompt_set("the cat", "the dog sat on", "the sea", response="on the mat")
    traces = trace(pair, prompts, own_answers=False)
    whole = []
    for prompt in prompts:
        ids = pair.encode(prompt.response or "")
        own = [whole_context(pair, "aligned", pair.context(prompt, "aligned") + ids[:t]) for t in range(len(ids))]
        whole.append([int((z > z[i]).sum()) + 1 for z, i in zip(own, ids, strict=True)])
    tops = sorted({max(r) for r in whole} | {1, pair.vocab})
    for top in tops:
        found = within_top(traces, top)
        assert (found.value, found.n) == (sum(max(r) <= top for r in whole) / 3, 3)
        assert within_top(traces, top, after=1).value == sum(max(r[1:]) <= top for r in whole) / 3
    assert within_top(traces, pair.vocab).value == 1.0
    assert within_top(traces, 5, label="harmless").n == 0
    assert within_top(traces, 5, after=99).value is None
    ended = replace(traces, mask=np.zeros_like(traces.mask))
    assert within_top(ended, 5).n == 0
    for wrong in ({"top": 0}, {"top": 5, "after": -1}):
        refuses(lambda wrong=wrong: within_top(traces, **wrong), ParameterError, *wrong.values())  # type: ignore[misc]
