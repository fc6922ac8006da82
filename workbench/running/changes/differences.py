"""What differs between two run folders: settings, origin, and every number with its interval."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.core.errors import NotPresent, RecordError
from workbench.core.records import Estimate, Row
from workbench.core.results import KEYS, read_rows

OWN = ("out",)
"""Settings that name where a run is, not what it did."""
MADE = ("verb", "commit", "dirty", "device", "seed", "fingerprint")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run folder: `facts` is its run.json ({} where it has none), `rows` its results."""

    name: str
    folder: Path
    facts: Mapping[str, Any]
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One setting or version that differs, in words; None where a run does not record it."""

    what: str
    first: str | None
    second: str | None


@dataclass(frozen=True, kw_only=True)
class NumberChange:
    """One number of both runs; `place` is its row without values, and without a seed where seeds are not compared.

    `difference` is second - first; None where a run has no such number or it has no value there: missing is not zero.
    """

    place: Row
    first: Estimate | None
    second: Estimate | None
    difference: Estimate | None

    @property
    def differs(self) -> bool:
        """Tell whether the two values differ."""
        return self.difference is not None and self.difference.value != 0.0

    @property
    def apart(self) -> bool:
        """Tell whether the difference's interval leaves out 0."""
        d = self.difference
        return d is not None and d.low is not None and d.high is not None and (d.low > 0.0 or d.high < 0.0)


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """The differences between two runs. `numbers` has all of either, equal ones too; `notes` are sentences."""

    first: Run
    second: Run
    settings: tuple[Change, ...]
    made: tuple[Change, ...]
    numbers: tuple[NumberChange, ...]
    notes: tuple[str, ...]

    def only(self, run: Run) -> int:
        """Return how many numbers one of the two runs alone has a value for."""
        mine, other = ("first", "second") if run is self.first else ("second", "first")
        return sum(value_of(getattr(n, mine)) is not None and value_of(getattr(n, other)) is None for n in self.numbers)


def value_of(estimate: Estimate | None) -> float | None:
    """Return an estimate's value, None without an estimate."""
    return None if estimate is None else estimate.value


def compare_runs(first: str | Path, second: str | Path) -> RunComparison:
    """Return what differs between two run folders, as `workbench run` or `batch` leave them.

    Raises NotPresent for a folder that holds no run, RecordError for a run.json or results.json that cannot be read.
    """
    one, two = read_run(first), read_run(second)
    if one.name == two.name:
        one, two = (replace(r, name="/".join(r.folder.resolve().parts[-2:])) for r in (one, two))
    numbers, notes = _numbers(one, two)
    if one.folder.resolve() == two.folder.resolve():
        notes.append("Both are the same folder.")
    if one.facts.get("verb") != two.facts.get("verb"):
        notes.append("These are runs of different notebooks: only the numbers that both have are compared.")
    if one.facts.get("fingerprint") != two.facts.get("fingerprint"):
        notes.append("The pairs are not the same: the models, their tokenizer or their precision differ (fingerprint).")
    settings, made = tuple(_settings(one.facts, two.facts)), tuple(_made(one.facts, two.facts))
    return RunComparison(first=one, second=two, settings=settings, made=made, numbers=numbers, notes=tuple(notes))


def read_run(folder: str | Path) -> Run:
    """Read a run folder. Raises as `compare_runs` does."""
    folder = Path(folder)
    if not folder.is_dir():
        raise NotPresent(f"there is no folder {str(folder)!r}: name the folder of a run (its --out)")
    facts, results = folder / "run.json", folder / "results.json"
    if not (facts.is_file() or results.is_file()):
        inside = sorted(p.parent.name for p in (*folder.glob("*/run.json"), *folder.glob("cells/*/run.json")))
        hint = f"; runs in it: {', '.join(inside[:5])}" if inside else ""
        raise NotPresent(f"{str(folder)!r} holds no run: it has neither run.json nor results.json{hint}")
    rows = read_rows(results) if results.is_file() else ()
    return Run(name=folder.resolve().name, folder=folder, facts=_read(facts) if facts.is_file() else {}, rows=rows)


def _read(file: Path) -> dict[str, Any]:
    try:
        body = json.loads(file.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise RecordError(f"{str(file)!r} cannot be read ({error}): run the notebook again") from None
    if not isinstance(body, dict):
        raise RecordError(
            f"{str(file)!r} cannot be read, as it holds a {type(body).__name__}, not an object: run the notebook again"
        )
    return body


def _differing(runs: Sequence[Mapping[str, Any]], names: Iterable[str], title: str) -> Iterator[Change]:
    """Yield the named values that two mappings do not share, as texts; `title` makes a name a change's own."""
    for name in names:
        said = [
            None if name not in facts else f if isinstance(f := facts[name], str) else json.dumps(f, ensure_ascii=False)
            for facts in runs
        ]
        if said[0] != said[1]:
            yield Change(what=title.format(name), first=said[0], second=said[1])


def _settings(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[Change]:
    """Yield settings whose value in force differs, and those that were asked for in different words."""
    asked = [r.get("asked", {}) for r in (one, two)]
    used = [{**r.get("asked", {}), **r.get("resolved", {})} for r in (one, two)]
    for name in dict.fromkeys(n for n in (*used[0], *used[1]) if n not in OWN):
        yield from [*_differing(used, [name], "{}"), *_differing(asked, [name], "{} (as asked)")][:1]


def _made(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[Change]:
    yield from _differing((one, two), MADE, "{}")
    versions = [r.get("versions", {}) for r in (one, two)]
    yield from _differing(versions, dict.fromkeys([*versions[0], *versions[1]]), "version of {}")


def _numbers(one: Run, two: Run) -> tuple[tuple[NumberChange, ...], list[str]]:
    """Return every number of both runs in the first run's order. Rows with equal keys are matched in their order."""
    seeds = [{r.seed for r in run.rows} for run in (one, two)]
    keep_seed = bool(seeds[0] & seeds[1]) or not all(seeds)
    notes = []
    if not keep_seed:
        notes.append("The runs have no seed in common: numbers are compared across seeds.")
    found = [_by_key(run.rows, keep_seed) for run in (one, two)]
    out = []
    for key, row in {**found[0], **found[1], **found[0]}.items():
        a, b = (f[key].estimate if key in f else None for f in found)
        if a is not None and b is not None and a.unit != b.unit:
            notes.append(
                f"{row.name} is in {a.unit!r} in one run and in {b.unit!r} in the other: no difference is shown."
            )
        place = replace(row, value=None, low=None, high=None, n=None, unit=None, seed=row.seed if keep_seed else None)
        out.append(NumberChange(place=place, first=a, second=b, difference=difference(a, b)))
    return tuple(out), list(dict.fromkeys(notes))


def _by_key(rows: Iterable[Row], keep_seed: bool) -> dict[tuple[Any, ...], Row]:
    seen: Counter[tuple[Any, ...]] = Counter()
    out = {}
    for row in rows:
        key = tuple(getattr(row, k) for k in KEYS if keep_seed or k != "seed")
        seen[key] += 1
        out[(*key, seen[key])] = row
    return out


def difference(first: Estimate | None, second: Estimate | None) -> Estimate | None:
    """Return second - first with an interval that treats the two as independent; its n is the smaller one.

    Each number gives its own distance to its own bound, squared and added (Zou and Donner, Statistics in Medicine 27,
    2008, 1693-1702). Runs on the same prompts are not independent, and the interval then mostly a little wide. None
    where a value is missing or units differ; no interval where one has none.
    """
    if first is None or second is None or first.value is None or second.value is None or first.unit != second.unit:
        return None
    value, n = second.value - first.value, min(first.n, second.n)
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return Estimate(value=value, low=None, high=None, n=n, unit=first.unit)
    below = math.hypot(second.value - second.low, first.high - first.value)
    above = math.hypot(second.high - second.value, first.value - first.low)
    return Estimate(value=value, low=value - below, high=value + above, n=n, unit=first.unit)
