"""Make samples, and evaluations of nothing but answers, for tests of judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.trace_makers import run_record
from workbench.core.passages import Sample
from workbench.core.store import key_of
from workbench.evaluation.records import AttackSet, Attempt, Completion, CompletionSet, Evaluation, Scorecard


def sample(request: str, text: str = "", **changes: Any) -> Sample:
    fields = {"request": request, "text": text, "label": "harmful", **changes}
    return Sample(**{"id": key_of(fields), **fields})


def attempt(request: str, **changes: Any) -> Attempt:
    fields: dict[str, Any] = {
        **dict(attack="none", given=0, setting=None, prompt_id=request[:40], label="harmful", category=None),
        **dict(pair_id=None, request=request, messages=(("user", request),), prefix_ids=(), prefix=""),
        **dict(max_tokens=64, temperature=0.0, top_p=1.0, top_k=0, sample=0, seed=0),
        **changes,
    }  # fmt: skip
    return Attempt(attempt_id=key_of(fields), **fields)


def completion_set(pairs: Sequence[tuple[Attempt, str]], arm: str = "aligned") -> CompletionSet:
    made = tuple(Completion(attempt_id=a.attempt_id, ids=(), text=text, stop="end") for a, text in pairs)
    return CompletionSet(run=run_record("answer"), arm=arm, completions=made)


def attack_set(attempts: Sequence[Attempt]) -> AttackSet:
    said: dict[str, Any] = dict(attack="none", prompt_set="in memory", classroom_safe=True, tokenizer="t")
    return AttackSet(run=run_record("attack"), **said, attempts=tuple(attempts), cost={}, notes=())


def answers_of(arms: Mapping[str, Sequence[tuple[Attempt, str]]]) -> Evaluation:
    """Return an evaluation that holds the arms' answers, and nothing that is computed from them."""
    asked = {a.attempt_id: a for pairs in arms.values() for a, _ in pairs}
    return Evaluation(
        run=run_record("evaluate"),
        attacks=(attack_set(list(asked.values())),),
        answers=tuple(completion_set(pairs, arm) for arm, pairs in arms.items()),
        judgements=(),
        gibberish=(),
        capability=(),
        scorecard=Scorecard(run=run_record("evaluate"), scores=(), comparisons=(), sentences=(), notes=()),
    )
