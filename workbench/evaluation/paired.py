"""Two arms on the same prompts: McNemar's exact test, the difference, Holm over the table, and sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from workbench.core import comparisons
from workbench.evaluation.metrics import ALL_ATTACKS, EvaluateConfig, title_of
from workbench.evaluation.rates import Cell, percent
from workbench.evaluation.records import Comparison


def compare(cells: Sequence[Cell], config: EvaluateConfig) -> list[Comparison]:
    """Compare arms on the prompts that both have; Holm's correction is over all comparisons.

    With `config.against`, every other arm is compared with that one; else every arm with each earlier one.
    """
    pairs = [(one, other, _counts(one, other)) for one, other in _pairs(cells, config)]
    pairs = [(one, other, counts) for one, other, counts in pairs if sum(counts) > 0]
    p = comparisons.mcnemar(np.array([c[1] for *_, c in pairs], int), np.array([c[2] for *_, c in pairs], int))
    corrected = comparisons.holm(p)
    levels = comparisons.holm_levels(p, 1 - config.confidence)
    made = []
    for (one, other, counts), raw, holm, level in zip(pairs, p, corrected, levels, strict=True):
        needed = None
        if holm >= 1 - config.confidence:
            needed = comparisons.needed_n(counts[1], counts[2], sum(counts), level=float(level), power=config.power)
        bare = Comparison(
            **one.place(),
            against=other.arm,
            difference=comparisons.paired_difference(*counts, confidence=config.confidence),
            only_arm=counts[1],
            only_against=counts[2],
            p_value=float(raw),
            p_holm=float(holm),
            n_needed=needed,
            sentence="",
        )
        made.append(replace(bare, sentence=_sentence(bare, counts, len(pairs), 1 - config.confidence)))
    return made


def _pairs(cells: Sequence[Cell], config: EvaluateConfig) -> list[tuple[Cell, Cell]]:
    places: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        places.setdefault(tuple(cell.place(without=("arm",)).values()), []).append(cell)
    pairs: list[tuple[Cell, Cell]] = []
    for there in places.values():
        if config.against is None:
            pairs += [(one, other) for i, one in enumerate(there) for other in there[:i]]
        else:
            reference = [c for c in there if c.arm == config.against]
            pairs += [(one, reference[0]) for one in there if reference and one.arm != config.against]
    return pairs


def _counts(one: Cell, other: Cell) -> tuple[int, int, int, int]:
    """Count the prompts that both arms have by result: both 1, only one, only the other, neither."""
    shared = [k for k in one.values if k in other.values]
    a, b = (np.array([r.values[k] for k in shared], bool) for r in (one, other))
    return int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum())


def _sentence(made: Comparison, counts: tuple[int, int, int, int], family: int, level: float) -> str:
    both, only_one, only_other, _ = counts
    title, n, d = title_of(made.metric), sum(counts), made.difference
    one, other = (both + only_one) / n, (both + only_other) / n
    p = f"p {'< 0.0001' if made.p_holm < 1e-4 else f'= {made.p_holm:.2g}'} after Holm over {family} comparisons"
    interval = "" if d.low is None or d.high is None else f" [{_points(d.low)}, {_points(d.high)}]"
    difference = f"difference {_points(d.value or 0.0)}{interval} points"
    numbers = f"{percent(one)} against {percent(other)}, {difference}, n = {n}, {p}"
    where = f"({made.where}; by {made.judge})"
    if made.p_holm < level:
        which = "lower" if one < other else "higher"
        return f"{made.arm} has a {which} {title} than {made.against} {where}: {numbers}."
    needed = "" if made.n_needed is None else f"; it would need about n = {made.n_needed:,}"
    return f"Cannot tell {made.arm} and {made.against} apart in {title} {where} at n = {n}: {numbers}{needed}."


def _points(value: float) -> str:
    number = f"{100 * value:+.1f}".removesuffix(".0").replace("-", "−")
    return "0" if number in ("+0", "−0") else number


def comparison_sentences(compared: Sequence[Comparison], level: float) -> list[str]:
    """Summarise every two arms: the widest attack success, what else differs, and the rest together.

    The widest is over all attacks where there are several, else over the settings of each attack, else each single one.
    """
    widest = {id(c) for c in _widest(compared)}
    said: list[str] = []
    for arm, against in dict.fromkeys((c.arm, c.against) for c in compared):
        mine = [c for c in compared if (c.arm, c.against) == (arm, against)]
        shown = [c for c in mine if id(c) in widest or (c.metric != "asr" and c.p_holm < level)]
        said += [c.sentence for c in shown]
        seen = {id(c) for c in shown}
        left = [c for c in mine if id(c) not in seen]
        said += [*_also_apart(left, level), *_rest([c for c in left if c.p_holm >= level])]
    return said


def _widest(compared: Sequence[Comparison]) -> list[Comparison]:
    success = [c for c in compared if c.metric == "asr"]
    over_all = [c for c in success if c.attack == ALL_ATTACKS]
    return over_all or [c for c in success if c.over_settings] or success


def _also_apart(left: Sequence[Comparison], level: float) -> list[str]:
    """Count the single attacks and settings in which attack success differs."""
    success = [c for c in left if c.metric == "asr"]
    apart = [c for c in success if c.p_holm < level]
    if not apart:
        return []
    lower = sum((c.difference.value or 0.0) < 0 for c in apart)
    direction = f"lower in {lower}" if lower else ""
    higher = f"higher in {len(apart) - lower}" if lower < len(apart) else ""
    return [
        f"{apart[0].arm} and {apart[0].against} also differ in attack success under {len(apart)} of {len(success)} "
        f"single attacks and settings: {apart[0].arm} is {' and '.join(filter(None, (direction, higher)))}."
    ]


def _rest(unsure: Sequence[Comparison]) -> list[str]:
    """Summarise the comparisons that are not significant."""
    if not unsure:
        return []
    counts = sorted(c.difference.n for c in unsure)
    kinds = Counter(title_of(c.metric) for c in unsure)
    listed = ", ".join(title if n == 1 else f"{title} ({n} times)" for title, n in kinds.items())
    n = f"n = {counts[0]}" if counts[0] == counts[-1] else f"n = {counts[0]} to {counts[-1]}"
    return [
        f"Cannot tell {unsure[0].arm} and {unsure[0].against} apart in {len(unsure)} other comparisons at {n}: "
        f"{listed}. The table of comparisons says about how many prompts each would need."
    ]
