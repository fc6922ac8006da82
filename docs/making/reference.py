"""The reference: pages made from the parsers, the notebooks' parameter cells, the records and the docstrings."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docs.making.docstrings import as_markdown
from docs.making.notebooks import tutorials

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class ReferencePage:
    """Hold one generated page."""

    path: str
    name: str
    text: str


@functools.cache
def pages() -> tuple[ReferencePage, ...]:
    """Return every generated page of the reference."""
    return (
        ReferencePage(path="reference/command-line.md", name="Command line", text=command_line()),
        ReferencePage(path="reference/notebooks.md", name="Notebook parameters", text=notebook_parameters()),
        ReferencePage(path="reference/records.md", name="Records and results.json", text=records()),
        *rooms(),
    )


# ------------------------------------------------------------------------------------------------- command line


def command_line() -> str:
    """Return the page of the command line, from its parsers."""
    from workbench import __main__ as skin

    parts = [
        "# Command line",
        as_markdown(skin.__doc__ or ""),
        "`workbench` is on the path of `.venv`; `.venv/bin/python -m workbench` is the same.",
    ]
    for parser in _parsers(skin._parser()):
        parts.append(f"## {parser.prog}")
        parts.append(parser.description or "")
        parts.append(f"```text\n{_usage(parser)}\n```")
        parts.append(_arguments(parser))
    return "\n\n".join(filter(None, parts)) + "\n"


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _parsers(each)


def _usage(parser: argparse.ArgumentParser) -> str:
    return " ".join(parser.format_usage().removeprefix("usage: ").split())


def _arguments(parser: argparse.ArgumentParser) -> str:
    lines = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines += [f"| `{c.dest}` | {_cell(c.help or '')} |" for c in action._choices_actions]
        elif action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction):
            lines.append(f"| {_argument(action)} | {_cell(action.help or '')} |")
    return "\n".join(["| argument | does |", "|---|---|", *lines]) if lines else ""


def _argument(action: argparse.Action) -> str:
    names = action.option_strings or [str(action.metavar or action.dest)]
    value = ""
    if action.option_strings and action.nargs != 0:
        meta = action.metavar
        value = " " + (" ".join(meta) if isinstance(meta, tuple) else str(meta or action.dest.upper()))
        if action.choices:
            value = " " + "/".join(map(str, action.choices))
    return ", ".join(f"`{name}{value}`" for name in names)


# ---------------------------------------------------------------------------------------------------- notebooks


def notebook_parameters() -> str:
    """Return the page of every notebook's parameters, from its cell tagged `parameters`."""
    from workbench.running.parameters import declared_parameters, smoke_parameters

    parts = [
        "# Notebook parameters",
        "Set one with `-p NAME VALUE` of `workbench run`, or in the notebook's first code cell. The small settings are "
        "those of `--smoke`, which the tests and this site use.",
    ]
    for each in tutorials():
        declared = declared_parameters(each.source)
        small = smoke_parameters(each.source)
        parts.append(f"## {each.source.stem}")
        lines = ["| parameter | type | default | small | is |", "|---|---|---|---|---|"]
        for p in declared.values():
            smoke = f"`{small[p.name]!r}`" if p.name in small else ""
            lines.append(f"| `{p.name}` | `{_cell(p.type)}` | `{_cell(p.default)}` | {smoke} | {_cell(p.help)} |")
        parts.append("\n".join(lines) if declared else "It has no parameters.")
    return "\n\n".join(parts) + "\n"


# ------------------------------------------------------------------------------------------------------ records


def records() -> str:
    """Return the page of the saved forms: results.json, the record folder, and every kind of record."""
    import workbench.decoding.records
    import workbench.evaluation.records
    import workbench.judging.records
    import workbench.tracing.records
    import workbench.training.records  # noqa: F401
    from workbench.core import records as room
    from workbench.core.quantities import QUANTITIES
    from workbench.core.records import SCHEMA, Record, Row

    parts = [
        "# Records and results.json",
        "## results.json",
        f'One JSON object, `{{"schema": {SCHEMA}, "rows": [...]}}`. Every row has these fields; a field that does not '
        "apply is `null`, and missing is not zero.",
        "`wb.load_results(path)` returns them as a pandas DataFrame; the columns before `value` are its key.",
        _fields(Row),
        as_markdown(Row.__doc__ or ""),
        "## A record's folder",
        as_markdown(room.__doc__ or ""),
        "`wb.load(folder, Kind)` returns a record equal to the saved one, without a model and without torch:",
        "```python\nimport workbench as wb\n\ntraces = wb.load('runs/demo/records/traces', wb.TraceSet)\n```",
        "## Quantities",
        "`TraceSet.scalars` holds an array for each of these; a row of the array is a response, a column a token.",
        "\n".join(
            ["| quantity | unit | meaning |", "|---|---|---|"]
            + [f"| `{q.name}` | {q.unit} | {_cell(q.means)} |" for q in QUANTITIES.values()]
        ),
        "## Kinds",
    ]
    kinds = [kind for _, kind in sorted(room._TYPES.items()) if kind.__module__.startswith("workbench.")]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record and kind is not Row:
            parts += [f"### {kind.__name__}", as_markdown(kind.__doc__ or ""), _fields(kind)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _fields(kind: type) -> str:
    lines = ["| field | type |", "|---|---|"]
    lines += [f"| `{f.name}` | `{_cell(str(f.type))}` |" for f in dataclasses.fields(kind)]
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------- rooms


@functools.cache
def rooms() -> tuple[ReferencePage, ...]:
    """Return a page for each room of the workbench and for the widgets: docstrings, by mkdocstrings."""
    found = []
    for package in ("workbench", "widgets"):
        names = sorted(
            p.stem if p.suffix else p.name
            for p in (ROOT / package).iterdir()
            if (p.suffix == ".py" and not p.stem.startswith("_")) or (p / "__init__.py").is_file()
        )
        names = [n for n in names if package == "workbench"] or [""]
        for name in names:
            module = f"{package}.{name}" if name else package
            found.append(_room(module))
    front = ReferencePage(path="reference/python/index.md", name="By room", text=_front(found))
    return (front, *found)


def _room(module: str) -> ReferencePage:
    text = f"# {module}\n\n::: {module}\n"
    init = ROOT / module.replace(".", "/") / "__init__.py"
    if init.is_file():
        public = list(getattr(importlib.import_module(module), "__all__", []))
        shown = f"members: {public!r}" if public else "show_submodules: true"
        text = f"# {module}\n\n::: {module}\n    options:\n      {shown}\n"
    return ReferencePage(path=f"reference/python/{module.partition('.')[2] or module}.md", name=module, text=text)


def _front(found: list[ReferencePage]) -> str:
    from importlib import util

    import workbench

    lines = ["| room | is |", "|---|---|"]
    for page in found:
        spec = util.find_spec(page.name)
        origin = Path(str(spec and spec.origin))
        said = ast.get_docstring(ast.parse(origin.read_text("utf-8"))) or ""
        lines.append(f"| [`{page.name}`]({Path(page.path).name}) | {_cell(said.split(chr(10) * 2)[0])} |")
    names = ", ".join(f"`{n}`" for n in workbench.__all__)
    return (
        "# Python, by room\n\nA room imports only rooms further down the list in `pyproject.toml`. The public names of "
        f"`workbench` itself: {names}.\n\n" + "\n".join(lines) + "\n"
    )


# --------------------------------------------------------------------------------------------------------- text


def _cell(text: str) -> str:
    """Return text as one cell of a Markdown table, with nothing in it read as markup but our backticks."""
    text = " ".join(text.split()).replace("|", "\\|")
    return re.sub(r"<(?=[A-Za-z/])", "&lt;", text)
