"""Completions beside the attempts that they answer."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.core.errors import ParameterError
from workbench.evaluation.records import AttackSet, Attempt, CompletionSet
from workbench.judging.contract import Sample

Attempts = AttackSet | Sequence[AttackSet] | Sequence[Attempt]
"""Where attempts are taken from: one attack set, several, or the attempts themselves."""


def samples_of(completions: CompletionSet, attempts: Attempts) -> list[Sample]:
    """Return each completion with its attempt, in the completions' order.

    Raises ParameterError, with both counts, when a completion's attempt is not among the attempts.
    """
    known: dict[str, Attempt] = {}
    for one in (attempts,) if isinstance(attempts, AttackSet) else attempts:
        for attempt in one.attempts if isinstance(one, AttackSet) else (one,):
            known[attempt.attempt_id] = attempt
    strange = [c.attempt_id for c in completions.completions if c.attempt_id not in known]
    if strange:
        raise ParameterError(
            f"{len(strange)} of {len(completions.completions)} completions of arm {completions.arm!r} answer attempts "
            f"that are not among the {len(known)} given (the first is {strange[0]!r}): give the attack sets that they "
            "were made from"
        )
    return [(known[c.attempt_id], c) for c in completions.completions]
