"""A smaller part of a prompt set: seeded, balanced over labels, with matched pairs kept together."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

from workbench.core.records import Label


@runtime_checkable
class Matched(Protocol):
    """An object with a label and a category that may share a pair_id with others."""

    @property
    def label(self) -> Label: ...
    @property
    def category(self) -> str | None: ...
    @property
    def pair_id(self) -> str | None: ...


P = TypeVar("P", bound=Matched)


def balanced(prompts: Sequence[P], limit: int, seed: int) -> tuple[tuple[P, ...], tuple[str, ...]]:
    """Take `limit` prompts in their own order, with notes on pairs that were split.

    Units are prompts that share a pair_id, or single prompts. They are shuffled by the seed; then the unit whose labels
    have been taken least comes next (of equals, the larger). So labels are as even as their numbers allow; within a
    label, categories come in proportion to their numbers. A unit is split only where the last places are fewer than any
    whole unit. Equal prompts, limit and seed give equal results.
    """
    groups: dict[object, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(index if prompt.pair_id is None else ("pair", prompt.pair_id), []).append(index)
    units = list(groups.values())
    random.Random(seed).shuffle(units)
    kinds: dict[tuple[str, ...], list[list[int]]] = {}  # units with the same labels are interchangeable
    for unit in reversed(units):
        kinds.setdefault(tuple(sorted(prompts[i].label for i in unit)), []).append(unit)
    for kind, left in kinds.items():
        kinds[kind] = _spread(left, [prompts[unit[0]].category for unit in left])

    taken: list[int] = []
    counts: Counter[str] = Counter()
    notes: tuple[str, ...] = ()

    def preference(kind: tuple[str, ...]) -> tuple[float, int, tuple[str, ...]]:
        return sum(counts[label] for label in kind) / len(kind), -len(kind), kind

    while len(taken) < limit:
        places = limit - len(taken)
        whole = [kind for kind, left in kinds.items() if left and len(kind) <= places]
        if whole:
            unit = kinds[min(whole, key=preference)].pop()
        else:
            left_over = [kind for kind, left in kinds.items() if left]
            if not left_over:
                break
            rest = kinds[min(left_over, key=preference)].pop()
            unit = sorted(rest, key=lambda i: (counts[prompts[i].label], i))[:places]
            notes = (f"limit {limit} splits the pair {prompts[rest[0]].pair_id!r}: only part of it is in",)
        taken += unit
        counts.update(prompts[i].label for i in unit)
    return tuple(prompts[i] for i in sorted(taken)), notes


def _spread(units: Sequence[list[int]], categories: Sequence[str | None]) -> list[list[int]]:
    """Order units, of which the last is taken first, so that every beginning has the categories in proportion."""
    sizes, seen = Counter(categories), Counter[str | None]()
    place: list[float] = []
    for category in reversed(categories):
        place.append((seen[category] + 0.5) / sizes[category])
        seen[category] += 1
    order = sorted(range(len(units)), key=lambda i: place[i])
    taken_first = [units[len(units) - 1 - i] for i in order]
    return taken_first[::-1]
