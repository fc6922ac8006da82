"""What can and cannot be concluded of every two arms, in few sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from workbench.evaluation.metrics import ALL_ATTACKS, title_of
from workbench.evaluation.records import Comparison


def comparison_sentences(compared: Sequence[Comparison], level: float) -> list[str]:
    """Say of every two arms: the widest attack success, what else they differ in, and the rest together.

    The widest is over all attacks where there are several, else over the settings of each attack, else each one there
    is. Every comparison keeps its own sentence in the table.
    """
    widest = {id(c) for c in _widest(compared)}
    said: list[str] = []
    for arm, against in dict.fromkeys((c.arm, c.against) for c in compared):
        mine = [c for c in compared if (c.arm, c.against) == (arm, against)]
        shown = [c for c in mine if id(c) in widest or (c.metric != "asr" and c.p_holm < level)]
        said += [c.sentence for c in shown]
        seen = {id(c) for c in shown}
        left = [c for c in mine if id(c) not in seen]
        if said_apart := _also_apart(left, level):
            said.append(said_apart)
        if said_rest := _rest([c for c in left if c.p_holm >= level]):
            said.append(said_rest)
    return said


def _widest(compared: Sequence[Comparison]) -> list[Comparison]:
    success = [c for c in compared if c.metric == "asr"]
    over_all = [c for c in success if c.attack == ALL_ATTACKS]
    return over_all or [c for c in success if c.over_settings] or success


def _also_apart(left: Sequence[Comparison], level: float) -> str | None:
    """Count the single attacks and settings in which attack success differs."""
    success = [c for c in left if c.metric == "asr"]
    apart = [c for c in success if c.p_holm < level]
    if not apart:
        return None
    lower = sum((c.difference.value or 0.0) < 0 for c in apart)
    direction = f"lower in {lower}" if lower else ""
    higher = f"higher in {len(apart) - lower}" if lower < len(apart) else ""
    return (
        f"{apart[0].arm} and {apart[0].against} are told apart in attack success under {len(apart)} of {len(success)} "
        f"single attacks and settings too: {apart[0].arm} is {' and '.join(filter(None, (direction, higher)))}."
    )


def _rest(unsure: Sequence[Comparison]) -> str | None:
    """Say together what cannot be told apart."""
    if not unsure:
        return None
    counts = sorted(c.difference.n for c in unsure)
    kinds = Counter(title_of(c.metric) for c in unsure)
    listed = ", ".join(title if n == 1 else f"{title} ({n} times)" for title, n in kinds.items())
    n = f"n = {counts[0]}" if counts[0] == counts[-1] else f"n = {counts[0]} to {counts[-1]}"
    return (
        f"Cannot tell {unsure[0].arm} and {unsure[0].against} apart in {len(unsure)} other comparisons at {n}: "
        f"{listed}. The table of comparisons says about how many prompts each would need."
    )
