"""One call writes what people read (report.html) and what programs read (results.json, run.json, records, figures)."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import plotly.graph_objects as go

from workbench.core.errors import ParameterError
from workbench.core.files import atomic_file
from workbench.core.legible import html_text, sentence
from workbench.core.records import SCHEMA, Record, Row, RunRecord, save
from workbench.core.results import rows_json
from workbench.display.figures import plotlyjs_tag
from workbench.display.views import FigureView, View, figure_view, method_card
from workbench.display.views.view import script_text, style_text

Part = View | go.Figure


@dataclass(frozen=True, kw_only=True)
class Section:
    """Hold one section of a report: a title, sentences, and views or figures in reading order."""

    title: str
    text: tuple[str, ...] = ()
    parts: tuple[Part, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class ReportPaths:
    """Name what a report wrote: the page, the tidy rows, the run record; folders of records and figures."""

    html: Path
    results: Path
    run: Path
    records: Path
    figures: Path

    def __str__(self) -> str:
        return f"report   {self.html}\nresults  {self.results}\nrun      {self.run}"


def slug(title: str) -> str:
    """Return a title as a short name for files and anchors: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "untitled"


def _unique(names: Iterable[str]) -> list[str]:
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return out


def write_report(
    folder: str | Path,
    *,
    title: str,
    sections: Sequence[Section],
    rows: Sequence[Row],
    records: Mapping[str, Record],
    run: RunRecord,
) -> ReportPaths:
    """Write a run's report and results into a folder; each file is complete or not there, results.json comes last.

    `report.html` needs no network and no kernel; `results.json` holds the tidy rows, `run.json` the run record,
    `records/NAME/` each record, `figures/NAME.json` each figure (read back with `plotly.io.read_json`).
    Raises ParameterError for a record's name that cannot be a folder's, StorageFull when the disk is full.
    """
    folder = Path(folder)
    if bad := [n for n in records if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", n)]:
        raise ParameterError(f"records are named with lower-case letters, digits, - and _, not {bad[0]!r}")
    paths = ReportPaths(
        html=folder / "report.html",
        results=folder / "results.json",
        run=folder / "run.json",
        records=folder / "records",
        figures=folder / "figures",
    )
    views, figures = _views(sections)
    for name, record in records.items():
        save(record, paths.records / name)
    for name, figure in figures.items():
        _write(paths.figures / f"{name}.json", str(figure.to_json(engine="json")))
    body = {"schema": SCHEMA, **dataclasses.asdict(run)}
    _write(paths.run, json.dumps(body, ensure_ascii=False, allow_nan=False, indent=1, default=str) + "\n")
    _write(paths.html, page(title, sections, views, run))
    _write(paths.results, rows_json(list(rows)))
    return paths


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as partial:
        partial.write_text(text, "utf-8")


def _views(sections: Sequence[Section]) -> tuple[list[list[View]], dict[str, go.Figure]]:
    """Return each section's parts as views, and all figures by a unique name."""
    views = [[_shown(part) for part in s.parts] for s in sections]
    drawn = [v for group in views for v in group if isinstance(v, FigureView)]
    return views, dict(zip(_unique(slug(v.title) for v in drawn), (v.figure for v in drawn), strict=True))


def _shown(part: Part) -> View:
    return part if isinstance(part, View) else figure_view(part)


def page(title: str, sections: Sequence[Section], views: Sequence[Sequence[View]], run: RunRecord) -> str:
    """Return a whole HTML page: contents, sections, method; style, script and plotly.js once."""
    anchors = _unique(slug(s.title) for s in sections)
    links = "".join(
        f'<li><a href="#{a}">{html_text(sentence(s.title))}</a></li>' for a, s in zip(anchors, sections, strict=True)
    )
    parts = []
    for anchor, part, shown in zip(anchors, sections, views, strict=True):
        text = "".join(f"<p>{html_text(sentence(s, 5_000))}</p>" for s in part.text)
        body = "".join(view.body for view in shown)
        parts.append(f'<section id="{anchor}"><h2>{html_text(sentence(part.title))}</h2>{text}{body}</section>')
    plotly = plotlyjs_tag() if any(isinstance(v, FigureView) for group in views for v in group) else ""
    made = f"{run.verb}, {run.started}, {run.seconds:,.0f} s on {run.device}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html_text(sentence(title))}</title><style>{style_text()}{PAGE_STYLE}</style>{plotly}</head>"
        '<body class="wb wb-page mathjax_ignore tex2jax_ignore">'
        f'<header><h1>{html_text(sentence(title))}</h1><p class="wb-soft">{html_text(sentence(made))}</p>'
        f'<nav aria-label="Contents"><ol>{links}<li><a href="#method">Method</a></li></ol></nav></header>'
        f'<main>{"".join(parts)}<section id="method"><h2>Method</h2>{method_card(run).body}</section></main>'
        f"<script>{script_text()}</script></body></html>\n"
    )


PAGE_STYLE = """
html { scroll-behavior: auto; }
body.wb.wb.wb-page {
  max-width: none; margin: 0; padding: 2.2rem max(1.2rem, calc((100vw - 62rem) / 2)) 4rem; font-size: 15px;
}
.wb-page h1 { font-size: 28px; line-height: 1.25; margin: 0 0 .2rem; letter-spacing: -.01em; }
.wb-page h2 { font-size: 20px; margin: 2.6rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--wb-rule); }
.wb-page nav ol { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; list-style: none; padding: 0; margin: .8rem 0 0; }
.wb-page nav li { margin: 0; }
.wb-page a { color: var(--wb-focus); text-underline-offset: .2em; }
.wb-page main > section > .wb { margin: 0 0 1.8rem; }
@media (max-width: 700px) { body.wb.wb.wb-page { padding-inline: .9rem; } .wb-page h1 { font-size: 23px; } }
@media print { body.wb.wb.wb-page { padding: 0; color-scheme: light; } .wb-page nav { display: none; } }
"""
"""What the page needs beyond the views' own style."""
