"""Two arms on the same prompts and seeds: the difference, its test, Holm over the table, and sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from workbench.core import comparisons
from workbench.core.legible import percent
from workbench.core.records import Estimate
from workbench.core.seeds import difference_over_seeds
from workbench.evaluation.metrics import ALL_ATTACKS, EvaluateConfig, title_of
from workbench.evaluation.rates import Cell
from workbench.evaluation.records import Comparison
from workbench.judging.records import Measures


@dataclass(frozen=True, kw_only=True)
class _Paired:
    """Two arms in one place: both have a value, 0 or 1, for each of these prompts under each seed."""

    one: Cell
    other: Cell
    a: Float64[np.ndarray, "seed prompt"]
    b: Float64[np.ndarray, "seed prompt"]

    @property
    def alike(self) -> bool:
        """Whether all seeds have the same answers: then they are one."""
        return bool((self.a == self.a[0]).all() and (self.b == self.b[0]).all())

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Count prompts by result: both 1, only one, only the other, neither; where seeds differ, under each seed."""
        a, b = (x[:1].astype(bool) if self.alike else x.astype(bool) for x in (self.a, self.b))
        return int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum())

    def tested(self, config: EvaluateConfig) -> tuple[Estimate, float]:
        """Return the difference with its interval, and p: McNemar's exact test, or the two-way bootstrap's."""
        how: dict[str, Any] = {"confidence": config.confidence}
        if not self.alike:
            return difference_over_seeds(self.a, self.b, resamples=config.resamples, seed=config.seed, **how)
        counts = self.counts
        p = float(comparisons.mcnemar(np.array(counts[1]), np.array(counts[2])))
        return comparisons.paired_difference(*counts, **how), p


def compare(
    seeds: Sequence[Sequence[Cell]], config: EvaluateConfig, measures: Mapping[str, Measures]
) -> list[Comparison]:
    """Compare arms on the prompts that both have under every seed; Holm's correction is over all comparisons.

    `seeds` are the cells of each seed. With `config.against`, every other arm is compared with that one; else every arm
    with each earlier one. `measures` says what each judge measures.
    """
    pairs = [p for p in _pairs(seeds, config) if p.a.size]
    tested = [p.tested(config) for p in pairs]
    p = np.array([x for _, x in tested], float)
    corrected = comparisons.holm(p)
    levels = comparisons.holm_levels(p, 1 - config.confidence)
    made = []
    for pair, (difference, raw), holm, level in zip(pairs, tested, corrected, levels, strict=True):
        needed, counts = None, pair.counts
        if holm >= 1 - config.confidence and pair.alike:
            needed = comparisons.needed_n(counts[1], counts[2], sum(counts), level=float(level), power=config.power)
        bare = Comparison(
            **pair.one.place(),
            against=pair.other.arm,
            difference=difference,
            only_arm=counts[1],
            only_against=counts[2],
            p_value=raw,
            p_holm=float(holm),
            n_needed=needed,
            sentence="",
        )
        title = title_of(bare.metric, measures.get(bare.judge, "attack success"))
        made.append(replace(bare, sentence=_sentence(bare, pair, title, len(pairs), config)))
    return made


def _pairs(seeds: Sequence[Sequence[Cell]], config: EvaluateConfig) -> Iterator[_Paired]:
    known = [{tuple(c.place().values()): c for c in cells} for cells in seeds]
    for one, other in _in_one_place(seeds[0], config):
        mine, its = ([k.get(tuple(c.place().values())) for k in known] for c in (one, other))
        every = [c for c in (*mine, *its) if c is not None]
        if len(every) == 2 * len(seeds):
            shared = [k for k in one.values if all(k in c.values for c in every)]
            a, b = (np.array([[c.values[k] for k in shared] for c in cells if c], float) for cells in (mine, its))
            yield _Paired(one=one, other=other, a=a, b=b)


def _in_one_place(cells: Sequence[Cell], config: EvaluateConfig) -> list[tuple[Cell, Cell]]:
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


def _sentence(made: Comparison, pair: _Paired, title: str, family: int, config: EvaluateConfig) -> str:
    n, d = made.difference.n, made.difference
    one, other = float(pair.a.mean()), float(pair.b.mean())
    seeds = "" if pair.alike else f" under each of {len(pair.a)} seeds"
    p = f"p {'< 0.0001' if made.p_holm < 1e-4 else f'= {made.p_holm:.2g}'} after Holm over {family} comparisons"
    interval = "" if d.low is None or d.high is None else f" [{_points(d.low)}, {_points(d.high)}]"
    difference = f"difference {_points(d.value or 0.0)}{interval} points"
    numbers = f"{percent(one)} against {percent(other)}, {difference}, n = {n}{seeds}, {p}"
    where = f"({made.where}; by {made.judge})"
    if made.p_holm < 1 - config.confidence:
        which = "lower" if one < other else "higher"
        return f"{made.arm} has a {which} {title} than {made.against} {where}: {numbers}."
    needed = ""
    if made.n_needed is not None:
        needed = f"; a test of power {config.power:g} at this observed effect would need about n = {made.n_needed:,}"
    return f"Cannot tell {made.arm} and {made.against} apart in {title} {where} at n = {n}: {numbers}{needed}."


def _points(value: float) -> str:
    number = f"{100 * value:+.1f}".removesuffix(".0").replace("-", "−")
    return "0" if number in ("+0", "−0") else number


def comparison_sentences(compared: Sequence[Comparison], level: float, measures: Mapping[str, Measures]) -> list[str]:
    """Summarise every two arms: the widest `asr`, what else differs, and the rest together.

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
        said += [*_also_apart(left, level, measures), *_rest([c for c in left if c.p_holm >= level], measures)]
    return said


def _widest(compared: Sequence[Comparison]) -> list[Comparison]:
    success = [c for c in compared if c.metric == "asr"]
    over_all = [c for c in success if c.attack == ALL_ATTACKS]
    return over_all or [c for c in success if c.over_settings] or success


def _also_apart(left: Sequence[Comparison], level: float, measures: Mapping[str, Measures]) -> list[str]:
    """Count the single attacks and settings in which `asr` differs, for each thing that judges measure."""
    said = []
    for word in dict.fromkeys(measures.values()):
        success = [c for c in left if c.metric == "asr" and measures.get(c.judge) == word]
        apart = [c for c in success if c.p_holm < level]
        if not apart:
            continue
        lower = sum((c.difference.value or 0.0) < 0 for c in apart)
        direction = f"lower in {lower}" if lower else ""
        higher = f"higher in {len(apart) - lower}" if lower < len(apart) else ""
        said.append(
            f"{apart[0].arm} and {apart[0].against} also differ in {word} under {len(apart)} of {len(success)} "
            f"single attacks and settings: {apart[0].arm} is {' and '.join(filter(None, (direction, higher)))}."
        )
    return said


def _rest(unsure: Sequence[Comparison], measures: Mapping[str, Measures]) -> list[str]:
    """Summarise the comparisons that are not significant."""
    if not unsure:
        return []
    counts = sorted(c.difference.n for c in unsure)
    kinds = Counter(title_of(c.metric, measures.get(c.judge, "attack success")) for c in unsure)
    listed = ", ".join(title if n == 1 else f"{title} ({n} times)" for title, n in kinds.items())
    n = f"n = {counts[0]}" if counts[0] == counts[-1] else f"n = {counts[0]} to {counts[-1]}"
    return [
        f"Cannot tell {unsure[0].arm} and {unsure[0].against} apart in {len(unsure)} other comparisons at {n}: "
        f"{listed}. The table of comparisons says about how many prompts each would need for the effect that was "
        "observed."
    ]
