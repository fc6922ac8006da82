"""The tables of a comparison of two runs, as HTML and as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.core import legible
from workbench.core.records import Estimate
from workbench.display.views import View
from workbench.display.views.view import NO_VALUE, Column, columns, interval, number, table_view
from workbench.running.changes.differences import Change, NumberChange, RunComparison

MOST = 2_000
"""Numbers on the page at most, those with the clearest difference first; all of them stand in both results.json."""


def changes_table(title: str, changes: Sequence[Change], compared: RunComparison) -> View:
    """Show settings or versions that differ, a dash where a run does not have one."""
    heads = (
        Column("what"),
        Column(heading=legible.label(compared.first.name), key="first"),
        Column(heading=legible.label(compared.second.name), key="second"),
    )
    rows = tuple(
        {
            "what": legible.sentence(c.what),
            "first": None if c.first is None else legible.sentence(c.first, 200),
            "second": None if c.second is None else legible.sentence(c.second, 200),
        }
        for c in changes
    )
    return table_view(title, f"{title}: {len(rows)} differ", heads, rows, none=f"{title}: no difference.")


def numbers_table(compared: RunComparison, *, most: int = MOST) -> View:
    """Show numbers that differ, each with interval, unit and n in both runs, the clearest differences first.

    Numbers of single positions come after all others. `!` marks a difference whose interval leaves out 0.
    """
    chosen = sorted((n for n in compared.numbers if n.differs), key=_clearness)
    one, two = (legible.label(r.name) for r in (compared.first, compared.second))
    heads = (
        Column("number"),
        Column(one, "first", number=True),
        Column("interval, n", "first_interval", number=True),
        Column(two, "second", number=True),
        *columns(
            ("interval, n", "second_interval"),
            ("second − first", "difference"),
            ("its interval", "difference_interval"),
            number=True,
        ),
        *columns(("", "sign"), "unit"),
    )
    rows = tuple(_row(n) for n in chosen[:most])
    left = len(chosen) - len(rows)
    caption = f"Numbers that differ: {len(chosen)} of {sum(n.difference is not None for n in compared.numbers)} in both"
    caption += f"; {left} more are not shown" if left else ""
    return table_view("Numbers", caption, heads, rows, none="Numbers: no difference.")


def only_table(compared: RunComparison, *, most: int = 200) -> View | None:
    """Show numbers that one of the runs alone has a value for; None where there are none."""
    alone = [
        (n, a, b)
        for n in compared.numbers
        for a, b in [(_value(n.first), _value(n.second))]
        if (a is None) != (b is None)
    ]
    if not alone:
        return None
    heads = (
        Column("number"),
        Column(heading=legible.label(compared.first.name), key="first", number=True),
        Column(heading=legible.label(compared.second.name), key="second", number=True),
        Column("unit"),
    )
    rows = tuple(
        {"number": legible.sentence(n.place.title), "first": a, "second": b, "unit": _unit(n)}
        for n, a, b in alone[:most]
    )
    left = len(alone) - len(rows)
    caption = f"Numbers of one run alone: {len(alone)}" + (f"; {left} more are not shown" if left else "")
    return table_view("Numbers of one run alone", caption, heads, rows)


def sentences(compared: RunComparison) -> tuple[str, ...]:
    """Return the comparison in sentences, caution included."""
    both = [n for n in compared.numbers if n.difference is not None]
    tested = [n for n in both if n.difference is not None and n.difference.low is not None]
    apart = sum(n.apart for n in tested)
    said = [
        f"{len(compared.settings)} settings, {len(compared.made)} versions and origins, and "
        f"{sum(n.differs for n in both)} of the {len(both)} numbers that both runs have are not the same.",
    ]
    if tested:
        said.append(
            f"Of {len(tested)} differences with an interval {apart} leave out 0 (marked !); about "
            f"{round(0.05 * len(tested))} would by chance if nothing had changed. The intervals take the runs as "
            "independent; on the same prompts they are mostly a little wide."
        )
    for run in (compared.first, compared.second):
        alone = compared.only(run)
        said += [f"{alone} numbers have a value in {run.name} alone: missing is not zero."] if alone else []
    return (*said, *compared.notes)


def _clearness(change: NumberChange) -> tuple[bool, bool, float]:
    d = change.difference
    assert d is not None
    assert d.value is not None
    position = change.place.position is not None
    if d.low is None or d.high is None or d.high <= d.low:
        return position, True, -abs(d.value)
    return position, False, -abs(d.value) / (d.high - d.low)


def _row(change: NumberChange) -> dict[str, Any]:
    d = change.difference
    assert d is not None
    return {
        "number": legible.sentence(change.place.title),
        "first": _value(change.first),
        "first_interval": _interval(change.first),
        "second": _value(change.second),
        "second_interval": _interval(change.second),
        "difference": number(d.value),
        "difference_interval": interval(d),
        "sign": "!" if change.apart else "",
        "unit": _unit(change),
    }


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _interval(estimate: Estimate | None) -> str:
    return NO_VALUE if estimate is None else f"{interval(estimate)}, {estimate.n:,}"


def _unit(change: NumberChange) -> str:
    unit = next((e.unit for e in (change.first, change.second) if e is not None), "")
    return "share" if unit == "1" else unit
