"""Answers beside the attempts that they answer, and what a judge may read of them. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.core.errors import ParameterError
from workbench.core.passages import Sample
from workbench.evaluation.records import AttackSet, Attempt, Completion, CompletionSet

Attempts = AttackSet | Sequence[AttackSet] | Sequence[Attempt]
"""Where attempts are taken from: one attack set, several, or the attempts themselves."""


def samples_of(completions: CompletionSet, attempts: Attempts) -> list[Sample]:
    """Return what a judge may read of each completion, in their order: nothing of the attack, nothing of the arm.

    Raises what `answered` raises.
    """
    return [
        Sample(id=a.attempt_id, request=a.request, prefix=a.prefix, text=c.text, label=a.label, category=a.category)
        for a, c in answered(completions, attempts)
    ]


def answered(completions: CompletionSet, attempts: Attempts) -> list[tuple[Attempt, Completion]]:
    """Return each completion with its attempt, in the completions' order.

    Raises ParameterError, with both counts, when a completion's attempt is not among the attempts.
    """
    known: dict[str, Attempt] = {}
    for one in (attempts,) if isinstance(attempts, AttackSet) else attempts:
        known |= {a.attempt_id: a for a in (one.attempts if isinstance(one, AttackSet) else (one,))}
    strange = [c.attempt_id for c in completions.completions if c.attempt_id not in known]
    if strange:
        raise ParameterError(
            f"{len(strange)} of {len(completions.completions)} completions of arm {completions.arm!r} answer attempts "
            f"that are not among the {len(known)} given (the first is {strange[0]!r}): give the attack sets that they "
            "were made from"
        )
    return [(known[c.attempt_id], c) for c in completions.completions]
