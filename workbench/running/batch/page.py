"""The page of a batch, `index.html`: what ran, the cells' headline numbers beside each other, and what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workbench.core.files import atomic_file
from workbench.core.legible import label, sentence
from workbench.core.records import Row, RunRecord
from workbench.core.results import KEYS
from workbench.display.report import Section, page
from workbench.display.views import View
from workbench.display.views.view import Link, columns, number, table_view
from workbench.evaluation.metrics import METRICS
from workbench.running.batch.collate import rows_of
from workbench.running.batch.drive import State, read_record
from workbench.running.batch.grid import Stage
from workbench.running.batch.plan import Cell, Plan
from workbench.running.batch.status import duration

HEADLINES = 6
"""A stage's table shows at most this many numbers, those in which its cells differ first."""


def write_page(plan: Plan, states: Mapping[str, State], run: RunRecord) -> Path:
    """Write `index.html`; it needs no network, and every link in it stays within the batch's folder."""
    sections = [Section(title="What ran", text=(_counts(states),), parts=(cells_table(plan, states),))]
    tables = {stage.name: numbers_table(plan, stage, states) for stage in plan.grid.stages}
    sections += [Section(title=f"Stage {name}", parts=(view,)) for name, view in tables.items() if view]
    if "failed" in states.values():
        sections.append(Section(title="What failed", parts=(failures_table(plan, states),)))
    views = [[part for part in s.parts if isinstance(part, View)] for s in sections]
    path = plan.out / "index.html"
    with atomic_file(path) as partial:
        partial.write_text(page(plan.grid.title, sections, views, run), "utf-8")
    return path


def _counts(states: Mapping[str, State]) -> str:
    total = len(states)
    said = [f"{sum(s == state for s in states.values())} {state}" for state in dict.fromkeys(states.values())]
    return f"{total} cell{'' if total == 1 else 's'}: {', '.join(said)}. results.parquet has all rows of all cells."


def _link(plan: Plan, text: str, *paths: Path) -> Link:
    """Return a text that links to the first of the paths that exists."""
    found = next((quote(p.relative_to(plan.out).as_posix()) for p in paths if p.exists()), None)
    return Link(sentence(text, 1_000), found)


def _named(plan: Plan, cell: Cell) -> Link:
    """Return a cell's name, which links to its report or its notebook's page."""
    folder = plan.folder(cell)
    return _link(plan, cell.name, folder / "report.html", folder / f"{cell.notebook.stem}.html")


def cells_table(plan: Plan, states: Mapping[str, State]) -> View:
    """Show every cell: its values, how it ended, the time and memory that it took, and on which machine."""
    heads = (*columns("cell", "stage", "values", "state"), *columns("time", "most memory, GB", number=True))
    rows = []
    for cell in plan.cells:
        state = states[cell.key]
        record = read_record((plan.failed if state == "failed" else plan.folder)(cell))
        seconds = record.get("seconds")
        rows.append(
            {
                "cell": _named(plan, cell),
                "stage": cell.stage,
                "values": _said(cell),
                "state": state,
                "time": None if seconds is None else duration(float(seconds)),
                "most memory, GB": record.get("peak_gb"),
                "GPU": record.get("gpu") or None,
                "machine": record.get("host") or None,
            }
        )
    caption = "Each cell links to its report. Memory is resident, of all processes of the cell together."
    return table_view("Cells", caption, (*heads, *columns("GPU", "machine")), rows)


def _value(value: Any) -> str:
    return label(str(value), 80).replace("·", " ")


def _said(cell: Cell) -> str | None:
    return ", ".join(f"{n} = {_value(v)}" for n, v in cell.axes.items()) or None


def numbers_table(plan: Plan, stage: Stage, states: Mapping[str, State]) -> View | None:
    """Show a stage's finished cells beside each other: grid values, then headline numbers with interval and n.

    The numbers belong to no single position and, where the stage names some under `headlines`, have one of those names;
    six are shown, first those in which cells differ. None where no cell of the stage has results.
    """
    found: dict[str, dict[str, Row]] = {}
    for cell in plan.cells:
        if cell.stage == stage.name and states[cell.key] == "done":
            found[cell.key] = {}
            for row in rows_of(plan.folder(cell)):
                if row.position is None:  # of rows that differ in the seed alone, the first is shown
                    found[cell.key].setdefault(_place(row, cell).title, row)
    every = {which: row for rows in found.values() for which, row in rows.items()}
    named = [w for w, row in every.items() if not stage.headlines or row.name in stage.headlines]
    order = {w: (_sameness([rows.get(w) for rows in found.values()]), every[w].arm is not None) for w in named}
    chosen = sorted(named, key=order.__getitem__)[:HEADLINES]
    if not chosen:
        return None
    cells = [plan.by_key[k] for k in found]
    axes = list(dict.fromkeys(n for c in cells for n in c.axes))
    rows = [
        {
            "cell": _named(plan, cell),
            **{f"axis {n}": _value(v) for n, v in cell.axes.items()},
            **{f"number {which}": _number(found[cell.key].get(which)) for which in chosen},
        }
        for cell in cells
    ]
    left = len(every) - len(chosen)
    more = f" {left:,} more numbers of this stage are in results.parquet." if left else ""
    caption = f"Value, interval as the notebook computes it, n; first the numbers in which cells differ.{more}"
    heads = columns("cell", *((sentence(n), f"axis {n}") for n in axes))
    numbers = columns(*((_heading(w, every[w]), f"number {w}") for w in chosen), number=True)
    return table_view(f"Stage {stage.name}", caption, (*heads, *numbers), rows)


def _place(row: Row, cell: Cell) -> Row:
    """Return which number a row is, without its seed and without what the cell's own grid values say already."""
    said = {k: None for k in KEYS[1:] if k in cell.axes and getattr(row, k) == cell.axes[k]}
    return replace(row, **{**said, "seed": None})  # type: ignore[arg-type]


def _sameness(rows: Sequence[Row | None]) -> int:
    """Return 0 where all cells have a number and differ in it, 1 where they agree, 2 where some do not have it."""
    if None in rows:
        return 2
    return int(len({_number(row) for row in rows}) == 1)


def _heading(which: str, row: Row) -> str:
    unit = f" ({row.unit})" if row.unit not in (None, "", "1") else ""
    better = METRICS[row.name].better if row.name in METRICS else "neither"
    said = row.name.replace("_", " ") + unit + which.removeprefix(row.name)
    return sentence(said + ("" if better == "neither" else f" ({better} is better)"))


def _number(row: Row | None) -> str | None:
    if row is None or row.value is None:
        return None
    text = number(row.value)
    if row.low is not None and row.high is not None:
        text += f" [{number(row.low)}, {number(row.high)}]"
    return text if row.n is None else f"{text}, n = {row.n:,}"


def failures_table(plan: Plan, states: Mapping[str, State]) -> View:
    """Show each failed cell with its error, its notebook as far as it ran, and the cells that wait for it."""
    rows = []
    for cell in (c for c in plan.cells if states[c.key] == "failed"):
        folder = plan.failed(cell)
        rows.append(
            {
                "cell": _link(plan, cell.name, folder / cell.notebook.name),
                "values": _said(cell),
                "error": _link(plan, str(read_record(folder).get("error", "")), plan.log(cell)),
                "waits for it": ", ".join(c.name for c in plan.after(cell)) or None,
            }
        )
    caption = "The cell links to its notebook as far as it ran, the error to its log."
    return table_view("Failed cells", caption, columns("cell", "values", "error", "waits for it"), rows)
