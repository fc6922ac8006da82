"""The page of a batch, `index.html`: what ran, the cells' headline numbers beside each other, and what failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from workbench.core.files import atomic_file
from workbench.core.legible import aligned, html_text, label, sentence
from workbench.core.records import Row, RunRecord
from workbench.core.results import KEYS
from workbench.display.report import Section, page
from workbench.display.views import View
from workbench.display.views.view import NO_VALUE, number, section
from workbench.evaluation.metrics import METRICS
from workbench.running.batch.collate import rows_of
from workbench.running.batch.drive import State, read_record
from workbench.running.batch.grid import Stage
from workbench.running.batch.plan import Cell, Plan
from workbench.running.batch.status import duration

HEADLINES = 6
"""How many numbers are shown of a stage at most, the numbers in which its cells differ before the others."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Hold one cell of a table: its text and, where it leads somewhere, a link within the batch's folder."""

    text: str
    link: str | None = None
    number: bool = False


def write_page(plan: Plan, states: Mapping[str, State], run: RunRecord) -> Path:
    """Write `index.html`; it needs no network, and every link in it stays within the batch's folder."""
    sections = [Section(title="What ran", text=(_counts(states),), parts=(cells_table(plan, states),))]
    tables = {stage.name: numbers_table(plan, stage, states) for stage in plan.grid.stages}
    sections += [Section(title=f"Stage {name}", parts=(view,)) for name, view in tables.items() if view]
    if failures := failures_view(plan, states):
        sections.append(Section(title="What failed", parts=(failures,)))
    views = [[part for part in s.parts if isinstance(part, View)] for s in sections]
    path = plan.out / "index.html"
    with atomic_file(path) as partial:
        partial.write_text(page(plan.grid.title, sections, views, run), "utf-8")
    return path


def _counts(states: Mapping[str, State]) -> str:
    total = len(states)
    said = [f"{sum(s == state for s in states.values())} {state}" for state in dict.fromkeys(states.values())]
    return f"{total} cell{'' if total == 1 else 's'}: {', '.join(said)}. All rows of all cells: results.parquet."


def _link(plan: Plan, path: Path) -> str | None:
    return quote(path.relative_to(plan.out).as_posix()) if path.exists() else None


def _first_page(plan: Plan, cell: Cell) -> str | None:
    folder = plan.folder(cell)
    return _link(plan, folder / "report.html") or _link(plan, folder / f"{cell.notebook.stem}.html")


def cells_table(plan: Plan, states: Mapping[str, State]) -> View:
    """Show every cell: its values, how it ended, the time and memory that it took, and where."""
    heads = ("cell", "stage", "values", "state", "time", "most memory, GB", "GPU", "machine")
    lines = []
    for cell in plan.cells:
        state = states[cell.key]
        line = read_record((plan.failed if state == "failed" else plan.folder)(cell))
        seconds, peak = line.get("seconds"), line.get("peak_gb")
        lines.append(
            (
                Shown(text=cell.name, link=_first_page(plan, cell) if state == "done" else None),
                Shown(text=cell.stage),
                Shown(text=_said(cell)),
                Shown(text=state),
                Shown(text=NO_VALUE if seconds is None else duration(float(seconds)), number=True),
                Shown(text=NO_VALUE if peak is None else number(float(peak)), number=True),
                Shown(text=str(line.get("gpu") or NO_VALUE)),
                Shown(text=str(line.get("host") or NO_VALUE)),
            )
        )
    return _view(
        "Cells", "Each cell leads to its report. Memory is resident, all processes of the cell together.", heads, lines
    )


def _said(cell: Cell) -> str:
    return ", ".join(f"{n} = {label(str(v), 80).replace('·', ' ')}" for n, v in cell.axes.items()) or NO_VALUE


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
    lines = [
        (
            Shown(text=cell.name, link=_first_page(plan, cell)),
            *(Shown(text=label(str(cell.axes[n]), 80).replace("·", " ") if n in cell.axes else NO_VALUE) for n in axes),
            *(_value(found[cell.key].get(which)) for which in chosen),
        )
        for cell in cells
    ]
    left = len(every) - len(chosen)
    more = f" {left:,} more numbers of this stage are in results.parquet." if left else ""
    caption = f"Value, interval as the notebook states it, n; first the numbers in which cells differ.{more}"
    heads = ("cell", *axes, *(_heading(which, every[which]) for which in chosen))
    return _view(f"Stage {stage.name}", caption, heads, lines)


def _place(row: Row, cell: Cell) -> Row:
    """Return what number a row is, without its seed and what the cell's own grid values say already."""
    said = {k: None for k in KEYS[1:] if k in cell.axes and getattr(row, k) == cell.axes[k]}
    return replace(row, **said, seed=None)  # type: ignore[arg-type]


def _sameness(rows: Sequence[Row | None]) -> int:
    """Return 0 where all cells have a number and differ in it, 1 where they agree, 2 where some do not have it."""
    if None in rows:
        return 2
    return int(len({_value(row).text for row in rows}) == 1)


def _heading(which: str, row: Row) -> str:
    unit = f" ({row.unit})" if row.unit not in (None, "", "1") else ""
    better = METRICS[row.name].better if row.name in METRICS else "neither"
    said = row.name.replace("_", " ") + unit + which.removeprefix(row.name)
    return said + ("" if better == "neither" else f" ({better} is better)")


def _value(row: Row | None) -> Shown:
    if row is None or row.value is None:
        return Shown(text=NO_VALUE, number=True)
    text = number(row.value)
    if row.low is not None and row.high is not None:
        text += f" [{number(row.low)}, {number(row.high)}]"
    return Shown(text=text if row.n is None else f"{text}, n = {row.n:,}", number=True)


def failures_view(plan: Plan, states: Mapping[str, State]) -> View | None:
    """Show each failed cell with its sentence and its notebook as far as it ran, and what waits for it."""
    lines = []
    for cell in plan.cells:
        if states[cell.key] == "failed":
            folder = plan.failed(cell)
            waits = ", ".join(c.name for c in plan.after(cell)) or NO_VALUE
            lines.append(
                (
                    Shown(text=cell.name, link=_link(plan, folder / cell.notebook.name)),
                    Shown(text=_said(cell)),
                    Shown(
                        text=sentence(str(read_record(folder).get("error", "")), 1_000),
                        link=_link(plan, plan.log(cell)),
                    ),
                    Shown(text=waits),
                )
            )
    if not lines:
        return None
    heads = ("cell", "values", "what it said", "waits for it")
    return _view(
        "Failed cells", "The cell leads to its notebook as far as it ran, the sentence to its log.", heads, lines
    )


def _view(title: str, caption: str, heads: Sequence[str], lines: Iterable[Sequence[Shown]]) -> View:
    lines = list(lines)
    numbers = [all(line[i].number for line in lines) for i in range(len(heads))]
    top = "".join(
        f'<th scope="col"{" class=n" * n}>{html_text(sentence(h))}</th>' for h, n in zip(heads, numbers, strict=True)
    )
    body = "".join(f"<tr>{''.join(_html(c, first=not i) for i, c in enumerate(line))}</tr>" for line in lines)
    html = (
        f'<div class="wb-scroll" tabindex="0" role="group" aria-label="{html_text(title)}"><table>'
        f"<caption>{html_text(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    plain = aligned([heads, *([c.text for c in line] for line in lines)])
    rows = tuple({h: c.text for h, c in zip(heads, line, strict=True)} for line in lines)
    return View(title=title, body=section("batch", title, html), text=f"{caption}\n{plain}", rows=rows)


def _html(shown: Shown, *, first: bool) -> str:
    text = html_text(sentence(shown.text, 1_000))
    if shown.link is not None:
        text = f'<a href="{html_text(shown.link)}">{text}</a>'
    if first:
        return f'<th scope="row" style="white-space: nowrap">{text}</th>'
    return f"<td class=n>{text}</td>" if shown.number else f"<td>{text}</td>"
