"""One call writes what people read (report.html) and what programs read (results.json, run.json, records, figures)."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import plotly.graph_objects as go

from workbench.core.errors import PairError, ParameterError, PromptError
from workbench.core.files import atomic_file
from workbench.core.legible import html_text, prose, sentence
from workbench.core.provenance import Stopwatch
from workbench.core.records import SCHEMA, Record, Row, RunRecord, save
from workbench.core.results import rows_json
from workbench.core.store import Store
from workbench.core.threads import thread_settings
from workbench.display.views import FigureView, FirstScreen, View, figure_view, method_card
from workbench.display.views.view import script_text, section, style_text
from workbench.display.views.view import section as wrapped
from workbench.prompts.loading import PromptSet

Part = View | go.Figure
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of a report: a title, sentences, and views or figures in reading order."""

    title: str
    text: tuple[str, ...] = ()
    parts: tuple[Part, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class ReportPaths:
    """What a report wrote: the page, the tidy rows, the run record, folders of records and figures, and `files` more.

    A notebook shows it as links.
    """

    html: Path
    results: Path
    run: Path
    records: Path
    figures: Path
    files: Mapping[str, Path] = field(default_factory=dict)

    def _named(self) -> dict[str, Path]:
        return {"report": self.html, "results": self.results, "run": self.run, **self.files}

    def __str__(self) -> str:
        return "\n".join(f"{name:<8} {path}" for name, path in self._named().items())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        links = (
            f'<li>{html_text(n)}: <a href="{html_text(quote(os.path.relpath(p)))}">{html_text(str(p))}</a></li>'
            for n, p in self._named().items()
        )
        return {"text/html": f"<ul>{''.join(links)}</ul>", "text/plain": str(self)}


class Report:
    """The report of one run: it collects what a notebook shows and keeps, and writes all of it in one call.

    Make it in the first cell after the parameters: `report = wb.Report("Diagnosis", globals()).checked()`. Of the
    namespace it reads only the names that are annotated by then, which are the parameters. A cell that runs again
    replaces what it showed and kept before.
    """

    def __init__(self, title: str, namespace: Mapping[str, Any]) -> None:
        names = [name for name in namespace.get("__annotations__", {}) if name in namespace]
        if not names:
            raise ParameterError(
                "no annotated name is defined yet, and a report reads the parameters (`limit: int = 60`): "
                "run their cell before the one that makes the report"
            )
        self.title = title
        self.parameters: Mapping[str, Any] = {name: namespace[name] for name in names}
        self._watch = Stopwatch(slug(title).replace("-", "_"), self.parameters)
        self._pair: Any = None
        self._given: View | None = None
        self._sections: dict[str, list[Any]] = {}
        self._first: tuple[Any, ...] = ()
        self._section = title
        self._refused: dict[str, View] = {}
        self._records: dict[str, Record] = {}
        self._rows: dict[str, tuple[Row, ...]] = {}

    def checked(self, *prompts: PromptSet) -> Report:
        """Return the report, after a check of its parameters (and of prompts, where given) that loads no model.

        Call it before a model is loaded. Raises what `preflight.check_parameters` and `preflight.check_prompts` raise.
        """
        from workbench.display import preflight  # loads torch

        preflight.check_parameters(self.parameters)
        for each in prompts:
            preflight.check_prompts(self.parameters, each)
        return self

    def about(self, *given: Any) -> View:
        """Name the pair, prompts and arms of this run, with their notes; the report prints them at its end.

        The pair among them gives the report its name, and the run record its device and fingerprint.
        """
        lines: list[str] = []
        for one in given:
            if hasattr(one, "fingerprint"):
                self._pair = one
            said = one.report() if hasattr(one, "report") else str(one)
            lines += [*said.splitlines(), *(one.notes if one is self._pair else ())]
        text = "\n".join(lines)
        body = "".join(f"<p>{html_text(prose(line))}</p>" for line in lines)
        self._given = View(title="Pair and prompts", body=section("given", "Pair and prompts", body), text=text)
        return self._given

    def attempt(self, verb: Callable[..., Made], *given: Any, section: str, **settings: Any) -> Made | None:
        """Return what a verb makes of these arguments, or None where it refuses the pair or the prompts.

        `show` then shows the reason in this section, in place of what cannot be computed; the rest is written.
        """
        self._refused.pop(section, None)
        try:
            return verb(*given, **settings)
        except (PairError, PromptError) as error:
            text = f"Not computed: {error}."
            body = f"<p>{html_text(prose(text))}</p>"
            self._refused[section] = View(title="Not computed", body=wrapped("note", "Not computed", body), text=text)
            return None

    def begin(self, screen: FirstScreen, *examples: Any) -> Any:
        """Return a first screen and the examples below it for the cell to display; the report begins with them.

        A widget among the examples is sealed into the report: it works there with no kernel, withheld text left out.
        """
        self._first = (screen, *(_displayable(one) for one in examples if one is not None))
        return _Shown(self._first)

    def show(self, *parts: Any, section: str | None = None) -> Any:
        """Return views, figures or widgets for the cell to display, and take them into the report.

        They join the section of that title, or the one that was shown last; None is left out, and what `attempt`
        could not compute there is named. A widget is taken as it
        is when the report is written, with what is selected then.
        """
        self._section = section or self._section
        shown = [_displayable(one) for one in (*parts, self._refused.get(self._section)) if one is not None]
        new = {_name_of(part) for part in shown}
        before = self._sections.get(self._section, [])
        if shown:
            self._sections[self._section] = [part for part in before if _name_of(part) not in new] + shown
        return shown[0] if len(shown) == 1 else _Shown(tuple(shown)) if shown else None

    def keep(self, *rows: Row, setting: str | None = None, **records: Any) -> None:
        """Take records by name, with the rows that their kind has, and single rows; `setting` says where they hold.

        Raises ParameterError for something else than a record.
        """
        from workbench.evaluation.rows import rows_of

        self._rows["rows"] = rows or self._rows.get("rows", ())
        for name, record in records.items():
            if not isinstance(record, Record):
                raise ParameterError(f"a report keeps records, and {name} is a {type(record).__name__}")
            self._records[name], self._rows[name] = record, rows_of(record, setting)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Return the rows of everything that is kept, in that order; rows that are equal are one."""
        each = (row for rows in self._rows.values() for row in rows)
        return tuple({tuple(vars(row).values()): row for row in each}.values())

    @functools.cached_property
    def store(self) -> Store:
        """Return the user's store, in which verbs keep finished work so that an interrupted run resumes."""
        return Store.default()

    def write(self, out: str | Path | None = None, **kept: Any) -> ReportPaths:
        """Write the report into the folder `out` (default: the parameter of that name), as `write_report` does.

        `kept` are records to keep, as `keep` takes them, and paths of more files that the run has written, which are
        listed with the report's own; None is left out.
        """
        records: dict[str, Any] = {name: one for name, one in kept.items() if isinstance(one, Record)}
        self.keep(**records)
        files = {name: Path(one) for name, one in kept.items() if not isinstance(one, Record | None)}
        folder = out if out is not None else self.parameters.get("out")
        if folder is None:
            raise ParameterError("no folder to write into: give write(out), or declare a parameter `out`")
        pair = self._pair
        run = self._watch.record(
            resolved={"threads": thread_settings()} | ({} if pair is None else {"pair": pair.name}),
            seed=self.parameters.get("seed"),
            device="cpu" if pair is None else str(pair.device),
            fingerprint=None if pair is None else pair.fingerprint,
        )
        paths = write_report(
            folder,
            title=self.title if pair is None else f"{self.title} of {pair.name}",
            sections=[
                Section(title=title, parts=tuple(p.static() if _is_widget(p) else p for p in parts))
                for title, parts in self._sections.items()
            ],
            first=[_sealed(part) for part in self._first],
            rows=self.rows,
            records=self._records,
            run=run,
            given=self._given,
        )
        return replace(paths, files=files)


@dataclass(frozen=True)
class _Shown:
    """Several parts that one cell displays, one below the other."""

    parts: tuple[Any, ...]

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.parts))

    def _ipython_display_(self) -> None:
        # a front end that calls this has loaded IPython already; the package itself never imports it
        sys.modules["IPython.display"].display(*self.parts)


def _sealed(part: Any) -> Any:
    """Return what a report holds of a part: a widget's interactive form where it has one, else its static one."""
    return part.sealed() if callable(getattr(part, "sealed", None)) else part.static() if _is_widget(part) else part


def _is_widget(part: Any) -> bool:
    return callable(getattr(part, "static", None))


def _displayable(part: Any) -> Any:
    """Return what a cell displays. Raises ParameterError for what is not a view, figure or widget."""
    if isinstance(part, View) or _is_widget(part):
        return part
    if isinstance(part, go.Figure):
        return figure_view(part)
    raise ParameterError(f"a report shows views, figures and widgets, not a {type(part).__name__}")


def _name_of(part: Any) -> str:
    return part.title if isinstance(part, View) else type(part).__name__


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
    given: View | None = None,
    first: Sequence[View] = (),
) -> ReportPaths:
    """Write a run's report and results into a folder; each file is complete or not there, results.json comes last.

    `report.html` needs no network and no kernel; `results.json` holds the tidy rows, `run.json` the run record,
    `records/NAME/` each record, `figures/NAME.json` each figure (read back with `plotly.io.read_json`).
    The page begins with `first`; `given` says what the run was about and comes before the method. Raises
    ParameterError for a record's name that cannot be a folder's, StorageFull when the disk is full.
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
    _write(paths.html, page(title, sections, views, run, given, first))
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


def page(
    title: str,
    sections: Sequence[Section],
    views: Sequence[Sequence[View]],
    run: RunRecord,
    given: View | None = None,
    first: Sequence[View] = (),
) -> str:
    """Return a whole HTML page: the first screen, contents, sections, method; style and script once."""
    anchors = _unique(slug(s.title) for s in sections)
    links = "".join(
        f'<li><a href="#{a}">{html_text(sentence(s.title))}</a></li>' for a, s in zip(anchors, sections, strict=True)
    )
    parts = []
    for anchor, part, shown in zip(anchors, sections, views, strict=True):
        text = "".join(f"<p>{html_text(sentence(s, 5_000))}</p>" for s in part.text)
        body = "".join(view.body for view in shown)
        parts.append(f'<section id="{anchor}"><h2>{html_text(sentence(part.title))}</h2>{text}{body}</section>')
    about = "" if given is None else given.body
    made = f"{title} · {run.started[:10]} · {run.seconds:,.0f} s on {run.device}"
    heading = "" if first else f"<h1>{html_text(sentence(title))}</h1>"
    name = next((v.text.partition("\n")[0] for v in first), title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html_text(sentence(name))}</title><style>{style_text()}{PAGE_STYLE}</style></head>"
        '<body class="wb wb-page mathjax_ignore tex2jax_ignore">'
        f'<header>{heading}<p class="wb-soft">{html_text(sentence(made))}</p></header>'
        f'<main>{"".join(view.body for view in first)}'
        f'<nav aria-label="Contents"><ol>{links}<li><a href="#method">Method</a></li></ol></nav>{"".join(parts)}'
        f'<section id="method"><h2>Method</h2>{about}{method_card(run).body}</section></main>'
        f"<script>{script_text()}</script></body></html>\n"
    )


PAGE_STYLE = """
html { scroll-behavior: auto; }
body.wb.wb.wb-page {
  max-width: none; margin: 0; padding: 1.2rem max(1.2rem, calc((100vw - 70rem) / 2)) 4rem; font-size: 15px;
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
