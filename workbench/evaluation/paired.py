"""Two arms on the same prompts: McNemar's exact test, the difference, Holm over the table, and words for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workbench.core import comparisons
from workbench.evaluation.config import EvaluateConfig
from workbench.evaluation.metrics import title_of
from workbench.evaluation.rates import percent
from workbench.evaluation.records import Comparison


@dataclass(frozen=True, kw_only=True)
class Results:
    """Hold one arm's result on each prompt or question, 1 or 0, of one metric in one place of the table."""

    arm: str
    attack: str
    condition: str
    judge: str
    metric: str
    values: Mapping[Any, float]

    @property
    def place(self) -> tuple[str, str, str, str]:
        """Return where in the table it stands; two arms in one place can be compared."""
        return self.attack, self.condition, self.judge, self.metric


@dataclass(frozen=True, kw_only=True)
class _Counts:
    one: Results
    other: Results
    both: int
    only_one: int
    only_other: int
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.only_one + self.only_other + self.neither


def compare(results: Sequence[Results], config: EvaluateConfig) -> list[Comparison]:
    """Compare arms on the prompts that both have, in every place of the table; Holm's correction is over all of them.

    With `config.against`, every other arm with that one; else every two arms, the later with the earlier.
    """
    tables = [t for t in _tables(results, config) if t.n > 0]
    p = comparisons.mcnemar(np.array([t.only_one for t in tables], int), np.array([t.only_other for t in tables], int))
    corrected = comparisons.holm(p)
    levels = comparisons.holm_levels(p, 1 - config.confidence)
    return [
        _comparison(t, float(a), float(b), float(level), len(tables), config)
        for t, a, b, level in zip(tables, p, corrected, levels, strict=True)
    ]


def _tables(results: Sequence[Results], config: EvaluateConfig) -> list[_Counts]:
    places: dict[tuple[str, str, str, str], list[Results]] = {}
    for r in results:
        places.setdefault(r.place, []).append(r)
    tables = []
    for there in places.values():
        if config.against is None:
            pairs = [(one, other) for i, one in enumerate(there) for other in there[:i]]
        else:
            reference = [r for r in there if r.arm == config.against]
            pairs = [(one, reference[0]) for one in there if reference and one.arm != config.against]
        tables += [_counts(one, other) for one, other in pairs]
    return tables


def _counts(one: Results, other: Results) -> _Counts:
    shared = [k for k in one.values if k in other.values]
    a, b = (np.array([r.values[k] for k in shared], bool) for r in (one, other))
    counts = [int((x & y).sum()) for x, y in ((a, b), (a, ~b), (~a, b), (~a, ~b))]
    return _Counts(one=one, other=other, both=counts[0], only_one=counts[1], only_other=counts[2], neither=counts[3])


def _comparison(
    t: _Counts, p: float, corrected: float, level: float, family: int, config: EvaluateConfig
) -> Comparison:
    told_apart = corrected < 1 - config.confidence
    needed = None
    if not told_apart:
        needed = comparisons.needed_n(t.only_one, t.only_other, t.n, level=level, power=config.power)
    difference = comparisons.paired_difference(
        t.both, t.only_one, t.only_other, t.neither, confidence=config.confidence
    )
    one, other = t.one, t.other
    made = Comparison(
        arm=one.arm,
        against=other.arm,
        attack=one.attack,
        condition=one.condition,
        judge=one.judge,
        metric=one.metric,
        difference=difference,
        only_arm=t.only_one,
        only_against=t.only_other,
        p_value=p,
        p_holm=corrected,
        n_needed=needed,
        sentence="",
    )
    return _with_sentence(made, t, family, told_apart)


def _with_sentence(made: Comparison, t: _Counts, family: int, told_apart: bool) -> Comparison:
    title, where = (
        title_of(made.metric),
        f"{made.attack}, {made.condition}" if made.condition != made.attack else made.attack,
    )
    one, other = (t.both + t.only_one) / t.n, (t.both + t.only_other) / t.n
    p = f"p {'< 0.0001' if made.p_holm < 1e-4 else f'= {made.p_holm:.2g}'} after Holm over {family} comparisons"
    d = made.difference
    interval = "" if d.low is None or d.high is None else f" [{_points(d.low)}, {_points(d.high)}]"
    difference = f"difference {_points(d.value or 0.0)}{interval} points"
    numbers = f"{percent(one)} against {percent(other)}, {difference}, n = {t.n}, {p}"
    if told_apart:
        which = "lower" if one < other else "higher"
        said = f"{made.arm} has a {which} {title} than {made.against} ({where}; by {made.judge}): {numbers}."
    else:
        needed = "" if made.n_needed is None else f"; it would need about n = {made.n_needed:,}"
        said = (
            f"Cannot tell {made.arm} and {made.against} apart in {title} ({where}; by {made.judge}) at n = {t.n}: "
            f"{numbers}{needed}."
        )
    return replace(made, sentence=said)


def _points(value: float) -> str:
    number = f"{100 * value:+.1f}".removesuffix(".0").replace("-", "−")
    return "0" if number in ("+0", "−0") else number
