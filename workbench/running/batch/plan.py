"""Make the cells of a grid: which values each gets, which cells it needs, and its content-addressed name."""

from __future__ import annotations

import ast
import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workbench.core.errors import ParameterError, WorkbenchError
from workbench.running.batch.grid import REFERENCE, Grid, Stage, texts, with_texts
from workbench.running.batch.keys import cell_key, code_of
from workbench.running.parameters import resolve_parameters

SHORT = 10
"""Digits of the key in a cell's name."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: a notebook with all its values.

    name        STAGE-<first digits of the key>: its folder under `cells/`
    axes        its grid values, those of the cells it needs included
    parameters  the values that the notebook gets, references replaced
    defaults    the notebook's other parameters, where their defaults are plain values
    needs       the keys of the cells that must finish first
    inputs      paths in the folders of those cells that a parameter refers to
    """

    key: str
    name: str
    stage: str
    notebook: Path
    axes: Mapping[str, Any]
    parameters: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict, repr=False)
    needs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    seconds: float | None = None
    memory_gb: float | None = None
    gpus: float | None = None

    def said(self) -> str:
        """Return the grid values in one line."""
        return ", ".join(f"{n}={_short(v)}" for n, v in self.axes.items()) or "no grid values"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells of a grid, each after those it needs, and the folder that they are written to."""

    grid: Grid
    out: Path
    cells: tuple[Cell, ...]
    by_key: Mapping[str, Cell] = field(repr=False)

    def with_gpus(self, otherwise: float) -> Plan:
        """Return the plan with this number of GPUs for each cell that gives none."""
        cells = [c if c.gpus is not None else replace(c, gpus=otherwise) for c in self.cells]
        return replace(self, cells=tuple(cells), by_key={c.key: c for c in cells})

    def folder(self, cell: Cell) -> Path:
        """Return the folder of a cell's finished run."""
        return self.out / "cells" / cell.name

    def failed(self, cell: Cell) -> Path:
        """Return the folder of a failed cell, with its notebook as far as it ran."""
        return self.out / "cells" / f"{cell.name}.failed"

    def log(self, cell: Cell) -> Path:
        """Return the file of a cell's log."""
        return self.out / "logs" / f"{cell.name}.txt"

    def after(self, cell: Cell) -> tuple[Cell, ...]:
        """Return the cells that need this one, directly or through others."""
        found: dict[str, Cell] = {}
        for other in self.cells:
            if cell.key in other.needs or any(n in found for n in other.needs):
                found[other.key] = other
        return tuple(found.values())


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:18]}…{text[-18:]}"


def plan_of(grid: Grid, out: str | Path | None = None) -> Plan:
    """Return every cell of a grid, with checked values and references replaced.

    A stage has one cell for each combination of cells that it needs, times its own grid. Cells of two stages that do
    not need each other combine where the grid values that they share by name are equal; cells that need an earlier
    stage combine where they need the same cell of it. Raises ParameterError for a value of the wrong type and for a
    stage that is left with no cells.
    """
    folder = Path(out) if out is not None else grid.out
    drafts: dict[str, list[_Draft]] = {}
    found: list[Cell] = []
    for stage in grid.stages:
        code = code_of(stage.notebook)
        made = []
        for upstream in _upstreams(grid, stage, drafts):
            for values in stage.combinations:
                draft = _cell(grid, stage, code, upstream, values, folder)
                made.append(draft)
                found.append(draft.cell)
        if not made:
            raise ParameterError(
                f"stage {stage.name!r} has no cells: no cells of {' and '.join(map(repr, stage.needs))} agree on the "
                "grid values that they share"
            )
        drafts[stage.name] = made
    _check_distinct(found)
    return Plan(grid=grid, out=folder, cells=tuple(found), by_key={c.key: c for c in found})


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A cell with its own grid values and all cells that it needs, directly or through others, by stage."""

    cell: Cell
    own: Mapping[str, Any]
    line: Mapping[str, _Draft]


def _upstreams(grid: Grid, stage: Stage, drafts: Mapping[str, list[_Draft]]) -> Iterator[dict[str, _Draft]]:
    """Yield, for each combination of needed cells that combine, all cells needed by stage."""
    for combination in itertools.product(*(drafts[n] for n in stage.needs)):
        line: dict[str, _Draft] = {}
        together = True
        for need in combination:
            for name, draft in {**need.line, need.cell.stage: need}.items():
                together &= line.setdefault(name, draft).cell.key == draft.cell.key
        if together and _agree(grid, line):
            order = [s.name for s in grid.stages]
            yield dict(sorted(line.items(), key=lambda item: order.index(item[0])))


def _agree(grid: Grid, line: Mapping[str, _Draft]) -> bool:
    for a, b in itertools.combinations(line, 2):
        if a in grid.before(b) or b in grid.before(a):
            continue
        shared = set(line[a].own) & set(line[b].own)
        if any(line[a].own[n] != line[b].own[n] for n in shared):
            return False
    return True


def _cell(
    grid: Grid, stage: Stage, code: list[str], line: dict[str, _Draft], values: Mapping[str, Any], out: Path
) -> _Draft:
    above = {n: v for draft in line.values() for n, v in draft.own.items()}
    taken = {
        n: v
        for n, v in above.items()
        if n in stage.declared and n not in stage.parameters and (stage.inherit is None or n in stage.inherit)
    }
    folders = {name: str(out / "cells" / draft.cell.name) for name, draft in line.items()}

    def value_of(inside: str) -> Any:
        name, _, what = inside.partition(".")
        if what == "out":
            return folders[name]
        given = line[name].cell.parameters
        return given[what] if what in given else _default(grid.stage(name), what)

    asked = {**taken, **stage.parameters, **values}
    filled = with_texts(asked, lambda text: _filled(text, value_of))
    where = f"stage {stage.name!r}" + (f" with {', '.join(f'{n}={v!r}' for n, v in values.items())}" if values else "")
    try:
        parameters = resolve_parameters(stage.notebook, filled, smoke=stage.smoke)
    except WorkbenchError as error:
        raise ParameterError(f"{where}: {error}") from None
    parameters.pop("out", None)
    key = cell_key(stage.name, code, parameters, {folders[n]: d.cell.key for n, d in line.items()})
    own = {n: parameters[n] for n in values}
    cell = Cell(
        key=key,
        name=f"{stage.name}-{key[:SHORT]}",
        stage=stage.name,
        notebook=stage.notebook,
        axes={**above, **own},
        parameters=parameters,
        defaults=_defaults(stage, parameters),
        needs=tuple(line[n].cell.key for n in stage.needs),
        inputs=tuple(_inputs(asked, folders)),
        seconds=stage.seconds,
        memory_gb=stage.memory_gb,
        gpus=stage.gpus,
    )
    return _Draft(cell=cell, own=own, line=line)


def _default(stage: Stage, name: str) -> Any:
    text = stage.declared[name].default
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise ParameterError(
            f"${{{stage.name}.{name}}} has no value: it is not set, and its default {text!r} is an expression"
        ) from None


def _defaults(stage: Stage, given: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name in stage.declared:
        if name not in given and name != "out":
            with contextlib.suppress(ParameterError):
                found[name] = _default(stage, name)
    return found


def _filled(text: str, value_of: Callable[[str], Any]) -> Any:
    """Replace references: a text that is one reference becomes that value, within a longer text it becomes text."""
    if whole := REFERENCE.fullmatch(text):
        return value_of(whole[1])
    return REFERENCE.sub(lambda m: str(value_of(m[1])), text)


def _inputs(asked: Mapping[str, Any], folders: Mapping[str, str]) -> Iterator[str]:
    for text in texts(asked):
        found = re.fullmatch(r"\$\{([^.}]*)\.out\}(.*)", text, re.DOTALL)
        if found and not REFERENCE.search(found[2]):
            yield folders[found[1]] + found[2]


def _check_distinct(cells: list[Cell]) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        if (other := seen.setdefault(cell.name, cell)) is not cell:
            same = "equal" if other.axes == cell.axes else f"the same cell as {other.said()}"
            raise ParameterError(f"stage {cell.stage!r} has a cell twice: {cell.said()} is {same} once values are read")
