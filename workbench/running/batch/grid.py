"""Read a grid file and check it whole before anything starts.

    title: Two seeds, diagnosed and trained
    out: runs/two_seeds            # where the batch writes; `--out` overrides it
    seconds: 3600                  # defaults of every stage: seconds, memory_gb, gpus, smoke
    stages:
      distil:
        notebook: notebooks/03_distillation.ipynb
        parameters: {pair: embedded}          # the same in every cell
        grid: {seeds: [[0], [1]]}             # every combination
        cells: [{arm: recovery}, {arm: paper}]  # or `list`: just these; with `grid`, each of these times the grid
      evaluate:
        notebook: notebooks/04_evaluation.ipynb
        needs: [distil]                       # one cell for each cell of distil (times its own grid)
        parameters: {adapters: ["${distil.out}/adapter"]}

`${STAGE.out}` is the folder of the cell that is needed, `${STAGE.NAME}` the value of its parameter. A cell inherits the
grid values of the cells it needs wherever its notebook declares a parameter of that name and the stage does not set it;
`inherit: [NAME, ...]` names the ones that it takes.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from workbench.core.errors import NotPresent, ParameterError, UnknownName, nearest
from workbench.running.parameters import Declared, declared_parameters

REFERENCE = re.compile(r"\$\{([^}]*)\}")
"""The form of a reference to an earlier stage: ${STAGE.out} or ${STAGE.PARAMETER}."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: a notebook, the parameters that its cells share, and the grid values of each cell.

    combinations  the stage's own grid values, a mapping per cell (times the cells it needs)
    inherit       names whose values are taken from the cells needed; None: all that the notebook declares
    seconds       longest a cell may take, start included; None: no limit
    memory_gb     most memory of a cell's processes together, resident, GB (10^9 bytes); None: no limit
    gpus          GPUs of a cell: 0, a share below 1, or a whole number; None: one where there are any
    headlines     names of the numbers that the comparison page may show; empty: all that the notebook writes
    """

    name: str
    notebook: Path
    declared: Mapping[str, Declared] = field(repr=False)
    parameters: Mapping[str, Any]
    combinations: tuple[Mapping[str, Any], ...]
    needs: tuple[str, ...] = ()
    inherit: tuple[str, ...] | None = None
    smoke: bool = False
    seconds: float | None = None
    memory_gb: float | None = None
    gpus: float | None = None
    headlines: tuple[str, ...] = ()

    @property
    def axes(self) -> tuple[str, ...]:
        """Return the names that the stage's own grid varies."""
        return tuple(dict.fromkeys(name for c in self.combinations for name in c))


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A whole grid file; each of `stages` comes after those it needs."""

    path: Path
    title: str
    out: Path
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage:
        """Return the stage of this name."""
        return next(s for s in self.stages if s.name == name)

    def before(self, name: str) -> tuple[str, ...]:
        """Return the names of all stages that a stage needs, directly or through others."""
        direct = self.stage(name).needs
        return tuple(dict.fromkeys((*itertools.chain.from_iterable(map(self.before, direct)), *direct)))


def read_grid(path: str | Path) -> Grid:
    """Read a grid file and check its form, its stages, notebooks, names of parameters and dependencies.

    Raises NotPresent for a missing file or notebook, UnknownName for a misspelt key, stage or parameter, ParameterError
    for everything else; each names the file, the stage, the value found and the values possible.
    """
    path, where = Path(path), str(path)
    body = _yaml(path)
    if not isinstance(body, Mapping):
        raise ParameterError(f"{where} holds {type(body).__name__}; it must map names to values")
    _check_keys(body, _GRID_KEYS, where)
    if not (written := _value(body, "stages", where)):
        raise ParameterError(f"{path} has no stages: under `stages:` each name maps to a notebook and its parameters")
    for name, own in written.items():
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            raise ParameterError(f"{path}: a stage is named with lower-case letters, digits, - and _, not {name!r}")
        if not isinstance(own, Mapping):
            raise ParameterError(f"{path}: stage {name!r} holds {own!r}; it must map names to values"[:300])
    defaults = {k: body[k] for k in _DEFAULTS if k in body}
    stages = tuple(_stage(path, name, {**defaults, **written[name]}) for name in _order(written, path))
    title, out = _value(body, "title", where), _value(body, "out", where)
    grid = Grid(
        path=path,
        title=path.stem.replace("_", " ") if title is None else title,
        out=Path(f"runs/{path.stem}" if out is None else out),
        stages=stages,
    )
    for stage in stages:
        _check_references(grid, stage)
        _check_inherited(grid, stage)
    return grid


def _yaml(path: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """A loader that refuses two equal keys, of which YAML's own one silently takes the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[Any] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, str | int | float) and key in seen:
                    line = key_node.start_mark.line + 1
                    raise ParameterError(f"{path}, line {line}: {key!r} occurs twice in one mapping")
                seen.add(key if isinstance(key, str | int | float) else id(key_node))
            return super().construct_mapping(node, deep)

    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise NotPresent(f"no grid file at {str(path)!r}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} cannot be read as text: {error}") from error
    try:
        return yaml.load(text, Loader)  # a subclass of the safe loader
    except yaml.YAMLError as error:
        raise ParameterError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def _check_keys(body: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in body:
        if key not in known:
            raise UnknownName(f"{where} has an unknown key {key!r}: {nearest(str(key), known)}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_NAMES = (lambda v: isinstance(v, list) and all(isinstance(n, str) for n in v), "a list of names")
_MAPPING = (lambda v: isinstance(v, Mapping), "a mapping of names to values")
_CELLS = (lambda v: isinstance(v, list) and all(isinstance(c, Mapping) for c in v), "a list of mappings, one a cell")
_VALUES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "title": (_is_text, "a text"),
    "out": (_is_text, "a text"),
    "stages": _MAPPING,
    "seconds": (lambda v: _is_number(v) and v > 0, "a positive number of seconds"),
    "memory_gb": (lambda v: _is_number(v) and v > 0, "a positive number of gigabytes"),
    "gpus": (
        lambda v: _is_number(v) and v >= 0 and (v < 1 or v == int(v)),
        "0, a share below 1 (0.5) or a whole number of GPUs",
    ),
    "smoke": (lambda v: isinstance(v, bool), "true or false"),
    "notebook": (_is_text, "a path"),
    "parameters": _MAPPING,
    "grid": _MAPPING,
    "cells": _CELLS,
    "list": _CELLS,
    "needs": _NAMES,
    "inherit": _NAMES,
    "headlines": _NAMES,
}
"""Every key of a grid file: which values fit it, and the same in words."""
_GRID_KEYS, _STAGE_KEYS, _DEFAULTS = tuple(_VALUES)[:7], tuple(_VALUES)[3:], tuple(_VALUES)[3:7]


def _value(body: Mapping[str, Any], key: str, where: str) -> Any:
    """Return the value of a key, None where there is none. Raises ParameterError for a value that does not fit."""
    fits, wanted = _VALUES[key]
    value = body.get(key)
    if value is not None and not fits(value):
        raise ParameterError(f"{where}: {key} takes {wanted}, not {value!r}"[:300])
    return value


def _order(stages: Mapping[str, Mapping[str, Any]], path: Path) -> list[str]:
    """Return the names of the stages, each after those it needs."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for name, body in stages.items():
        needs = _value(body, "needs", f"stage {name!r}") or ()
        for need in needs:
            if need not in stages:
                raise UnknownName(f"stage {name!r} needs {need!r}, which is no stage: {nearest(need, tuple(stages))}")
        sorter.add(name, *needs)
    try:
        return list(sorter.static_order())
    except CycleError as error:
        circle = " needs ".join(reversed(error.args[1]))
        raise ParameterError(f"{path}: the stages need each other in a circle: {circle}") from None


def _stage(path: Path, name: str, body: Mapping[str, Any]) -> Stage:
    where = f"stage {name!r}"
    _check_keys(body, _STAGE_KEYS, where)
    if "cells" in body and "list" in body:
        raise ParameterError(f"{where} has both `cells` and `list`, which mean the same: keep one")
    values = {key: _value(body, key, where) for key in _STAGE_KEYS}
    notebook = _notebook(path, values["notebook"], where)
    declared = declared_parameters(notebook)
    fixed = values["parameters"] or {}
    combinations = _combinations(values, where)
    for asked in (fixed, *combinations):
        for parameter in asked:
            if parameter == "out":
                raise ParameterError(f"{where} sets `out`: the batch gives each cell a folder of its own")
            if parameter not in declared:
                hint = nearest(str(parameter), tuple(declared)) if declared else "it declares none"
                raise UnknownName(f"{where}: {notebook.name} has no parameter {parameter!r}: {hint}")
    if both := [n for c in combinations for n in c if n in fixed]:
        raise ParameterError(f"{where} sets {both[0]!r} both under `parameters` and in its grid: keep one")
    return Stage(
        name=name,
        notebook=notebook,
        declared=declared,
        parameters=dict(fixed),
        combinations=combinations,
        needs=tuple(dict.fromkeys(values["needs"] or ())),
        inherit=None if values["inherit"] is None else tuple(values["inherit"]),
        smoke=bool(values["smoke"]),
        headlines=tuple(values["headlines"] or ()),
        **{k: None if values[k] is None else float(values[k]) for k in ("seconds", "memory_gb", "gpus")},
    )


def _notebook(path: Path, asked: str | None, where: str) -> Path:
    if asked is None:
        raise ParameterError(f"{where} has no notebook: give its path under `notebook:`")
    for candidate in (Path(asked), path.parent / asked):
        if candidate.is_file():
            return candidate
    beside = sorted(str(p) for folder in {Path(asked).parent, path.parent} for p in folder.glob("*.ipynb"))
    hint = f": {nearest(asked, tuple(beside))}" if beside else ""
    raise NotPresent(f"{where}: no notebook at {asked!r}, neither from here nor from {str(path.parent)!r}{hint}")


def _combinations(values: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    """Return the grid values of each cell: those listed, times every combination of the grid."""
    grid, key = values["grid"] or {}, "list" if values["cells"] is None else "cells"
    for name, own in grid.items():
        if not isinstance(own, list):
            raise ParameterError(f"{where}: grid takes a list of values for {name!r}, not {own!r}: write [{own}]")
        if not own:
            raise ParameterError(f"{where}: grid gives no value for {name!r}, so the stage has no cells")
    listed = [{}] if values[key] is None else values[key]
    if not listed:
        raise ParameterError(f"{where} has no cells: `{key}` is an empty list")
    product = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for cell in listed:
        if twice := sorted(set(cell) & set(grid)):
            raise ParameterError(f"{where} gives {twice[0]!r} both in `{key}` and in `grid`: keep one")
    found = [{**cell, **values} for cell in listed for values in product]
    for i, one in enumerate(found):
        if one in found[:i]:
            said = ", ".join(f"{n}={v!r}" for n, v in one.items())
            raise ParameterError(f"{where} has the same cell twice: {said or 'one without any value'}")
    return tuple(found)


def texts(value: Any) -> Iterator[str]:
    """Yield every text in a value, lists and mappings included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from texts(inner)


def with_texts(value: Any, changed: Callable[[str], Any]) -> Any:
    """Return a value with every text in it changed, lists and mappings included."""
    if isinstance(value, str):
        return changed(value)
    if isinstance(value, Mapping):
        return {k: with_texts(v, changed) for k, v in value.items()}
    return [with_texts(v, changed) for v in value] if isinstance(value, list | tuple) else value


def _check_references(grid: Grid, stage: Stage) -> None:
    known = tuple(s.name for s in grid.stages)
    before = grid.before(stage.name)
    for inside in (r for text in texts([stage.parameters, *stage.combinations]) for r in REFERENCE.findall(text)):
        name, dot, what = inside.partition(".")
        where = f"stage {stage.name!r}: ${{{inside}}}"
        if not dot:
            raise ParameterError(f"{where} is not a reference: write ${{STAGE.out}} or ${{STAGE.PARAMETER}}")
        if name not in known:
            raise UnknownName(f"{where} names no stage: {nearest(name, known)}")
        if name not in before:
            raise ParameterError(f"{where} refers to a stage that it does not need: add {name!r} to its `needs`")
        declared = grid.stage(name).declared
        if what == "out":
            if "out" not in declared:
                raise ParameterError(f"{where}: {grid.stage(name).notebook.name} has no `out`, so it writes no folder")
        elif what not in declared:
            raise UnknownName(f"{where}: {name!r} has no parameter {what!r}: {nearest(what, tuple(declared))}")


def _check_inherited(grid: Grid, stage: Stage) -> None:
    axes = tuple(dict.fromkeys(a for n in grid.before(stage.name) for a in grid.stage(n).axes))
    for name in stage.inherit or ():
        where = f"stage {stage.name!r} inherits {name!r}"
        if name not in axes:
            hint = nearest(name, axes) if axes else "they vary nothing"
            raise UnknownName(f"{where}, which no stage that it needs varies: {hint}")
        if name not in stage.declared:
            hint = nearest(name, tuple(stage.declared))
            raise UnknownName(f"{where}, which {stage.notebook.name} does not declare: {hint}")
