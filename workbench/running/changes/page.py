"""A comparison of two runs as one HTML page that needs no network, and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.core.files import atomic_file
from workbench.core.legible import label, sentence
from workbench.core.provenance import Stopwatch
from workbench.core.records import Estimate
from workbench.display.report import Section, page
from workbench.display.views import HarmfulText, View
from workbench.display.views.view import Column, columns, interval, number, table_view
from workbench.running.changes.differences import Change, NumberChange, RunComparison, value_of
from workbench.running.changes.texts import text_sections

LINES, MOST, MOST_ALONE = 25, 2_000, 200
"""Numbers shown at most: on a terminal, on the page, and of one run alone. Both results.json hold all of them."""


def terminal_text(compared: RunComparison, *, lines: int = LINES) -> str:
    """Return the comparison as plain text: settings and versions that differ, and the clearest differences."""
    folders = f"first   {compared.first.folder}\nsecond  {compared.second.folder}"
    tables = (*_changes_tables(compared), numbers_table(compared, most=lines))
    return "\n\n".join([folders, *(t.text for t in tables), "\n".join(sentences(compared))])


def write_comparison(compared: RunComparison, file: str | Path, *, harmful_text: HarmfulText = "auto") -> Path:
    """Write the comparison as a page and return its path; text is withheld as in every report.

    Raises StorageFull when the disk is full.
    """
    watch = Stopwatch("compare", {"first": str(compared.first.folder), "second": str(compared.second.folder)})
    alone = only_table(compared)
    sections = [
        Section(title="In short", text=sentences(compared)),
        *(Section(title=table.title, parts=(table,)) for table in _changes_tables(compared)),
        Section(title="Numbers", parts=(numbers_table(compared), *((alone,) if alone else ()))),
        *text_sections(compared, harmful_text=harmful_text),
    ]
    views = [[part for part in s.parts if isinstance(part, View)] for s in sections]
    title = f"What changed: {compared.first.name} and {compared.second.name}"
    with atomic_file(file) as partial:
        partial.write_text(page(title, sections, views, watch.record()), "utf-8")
    return Path(file)


def _changes_tables(compared: RunComparison) -> tuple[View, View]:
    """Return the settings and the versions that differ, a dash where a run does not have one."""

    def table(title: str, changes: Sequence[Change]) -> View:
        rows = [
            {
                "what": sentence(c.what),
                "first": None if c.first is None else sentence(c.first, 200),
                "second": None if c.second is None else sentence(c.second, 200),
            }
            for c in changes
        ]
        heads = (Column("what"), *_of_runs(compared, number=False))
        return table_view(title, f"{title}: {len(rows)} differ", heads, rows, none=f"{title}: no difference.")

    return table("Settings", compared.settings), table("Versions and origin", compared.made)


def _of_runs(compared: RunComparison, *, number: bool) -> tuple[Column, Column]:
    first, second = columns(
        (label(compared.first.name), "first"), (label(compared.second.name), "second"), number=number
    )
    return first, second


def numbers_table(compared: RunComparison, *, most: int = MOST) -> View:
    """Show numbers that differ, each with interval, unit and n in both runs, the clearest differences first.

    Numbers of single positions come after all others. `!` marks a difference whose interval leaves out 0.
    """
    chosen = sorted((n for n in compared.numbers if n.differs), key=_clearness)
    first, second = _of_runs(compared, number=True)
    heads = (
        Column("number"),
        *(first, Column("interval, n", "first_interval", number=True)),
        *(second, Column("interval, n", "second_interval", number=True)),
        *columns(("second − first", "difference"), ("its interval", "difference_interval"), number=True),
        *columns(("", "sign"), "unit"),
    )
    rows = [_row(n) for n in chosen[:most]]
    left = len(chosen) - len(rows)
    caption = f"Numbers that differ: {len(chosen)} of {sum(n.difference is not None for n in compared.numbers)} in both"
    caption += f"; {left} more are not shown" if left else ""
    return table_view("Numbers", caption, heads, rows, none="Numbers: no difference.")


def only_table(compared: RunComparison) -> View | None:
    """Show numbers that one of the runs alone has a value for; None where there are none."""
    values = [(n, value_of(n.first), value_of(n.second)) for n in compared.numbers]
    alone = [(n, a, b) for n, a, b in values if (a is None) != (b is None)]
    if not alone:
        return None
    heads = (Column("number"), *_of_runs(compared, number=True), Column("unit"))
    shown = alone[:MOST_ALONE]
    rows = [{"number": sentence(n.place.title), "first": a, "second": b, "unit": _unit(n)} for n, a, b in shown]
    left = len(alone) - len(rows)
    caption = f"Numbers of one run alone: {len(alone)}" + (f"; {left} more are not shown" if left else "")
    return table_view("Numbers of one run alone", caption, heads, rows)


def sentences(compared: RunComparison) -> tuple[str, ...]:
    """Return the comparison in sentences, caution included."""
    both = [n for n in compared.numbers if n.difference is not None]
    tested = [n for n in both if n.difference is not None and n.difference.low is not None]
    said = [
        f"{len(compared.settings)} settings, {len(compared.made)} versions and origins, and "
        f"{sum(n.differs for n in both)} of the {len(both)} numbers that both runs have are not the same.",
    ]
    if tested:
        said.append(
            f"Of {len(tested)} differences with an interval {sum(n.apart for n in tested)} leave out 0 (marked !); "
            f"about {round(0.05 * len(tested))} would by chance if nothing had changed. The intervals treat the runs "
            "as independent; on the same prompts they are mostly a little wide."
        )
    for run in (compared.first, compared.second):
        alone = compared.only(run)
        said += [f"{alone} numbers have a value in {run.name} alone: missing is not zero."] if alone else []
    return (*said, *compared.notes)


def _clearness(change: NumberChange) -> tuple[bool, bool, float]:
    d = change.difference
    assert d is not None
    assert d.value is not None
    width = 0.0 if d.low is None or d.high is None else d.high - d.low
    return change.place.position is not None, width <= 0.0, -abs(d.value) / (width if width > 0.0 else 1.0)


def _row(change: NumberChange) -> dict[str, Any]:
    d = change.difference
    assert d is not None
    return {
        "number": sentence(change.place.title),
        "first": value_of(change.first),
        "first_interval": _interval(change.first),
        "second": value_of(change.second),
        "second_interval": _interval(change.second),
        "difference": number(d.value),
        "difference_interval": interval(d),
        "sign": "!" if change.apart else "",
        "unit": _unit(change),
    }


def _interval(estimate: Estimate | None) -> str | None:
    return None if estimate is None else f"{interval(estimate)}, {estimate.n:,}"


def _unit(change: NumberChange) -> str:
    unit = next((e.unit for e in (change.first, change.second) if e is not None), "")
    return "share" if unit == "1" else unit
