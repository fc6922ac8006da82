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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from workbench.core.errors import NotPresent, ParameterError, UnknownName, nearest
from workbench.running.parameters import Declared, declared_parameters

_GRID_KEYS = ("title", "out", "stages", "seconds", "memory_gb", "gpus", "smoke")
_STAGE_KEYS = (
    "notebook", "parameters", "grid", "cells", "needs", "inherit", "smoke", "seconds", "memory_gb", "gpus", "headlines",
)  # fmt: skip
REFERENCE = re.compile(r"\$\{([^}]*)\}")
"""What a reference to an earlier stage looks like; inside stands STAGE.out or STAGE.PARAMETER."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Hold one stage: a notebook, what is the same in its cells, and the grid values of each.

    combinations  the stage's own grid values, a mapping per cell (times the cells it needs)
    inherit       names whose values are taken from the cells needed; None: all that the notebook declares
    seconds       longest a cell may take, start included; None: no limit
    memory_gb     most memory of a cell's processes together, resident, GB (10^9 bytes); None: no limit
    gpus          GPUs of a cell: 0, a share below 1, or a whole number; None: one where there are any
    headlines     names of the numbers that the comparison page chooses from; empty: all that the notebook gives
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
    """Hold a whole grid file; `stages` stand in an order in which each comes after those it needs."""

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

    Raises NotPresent for a file or notebook that is not there, UnknownName for a misspelt key, stage or parameter,
    ParameterError for everything else; each names the file, the stage, what stands there and what could.
    """
    path = Path(path)
    body = _mapping(_yaml(path), str(path))
    _known(body, _GRID_KEYS, str(path))
    written = body.get("stages")
    if not isinstance(written, Mapping) or not written:
        raise ParameterError(f"{path} has no stages: under `stages:` each name maps to a notebook and its parameters")
    for name in written:
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            raise ParameterError(f"{path}: a stage is named with lower-case letters, digits, - and _, not {name!r}")
    order = _order(
        {n: _needs(_mapping(s, f"{path}, stage {n!r}"), n, tuple(written)) for n, s in written.items()}, path
    )
    defaults = {k: body[k] for k in ("seconds", "memory_gb", "gpus", "smoke") if k in body}
    stages = tuple(_stage(path, name, {**defaults, **written[name]}) for name in order)
    grid = Grid(
        path=path,
        title=_text(body.get("title", path.stem.replace("_", " ")), f"{path}: title"),
        out=Path(_text(body.get("out", f"runs/{path.stem}"), f"{path}: out")),
        stages=stages,
    )
    for stage in stages:
        _check_references(grid, stage)
        _check_inherited(grid, stage)
    return grid


# ----------------------------------------------------------------------------------------------------- the file


def _yaml(path: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML's own loader takes the last of two equal keys without a word; this one refuses."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[Any] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, str | int | float) and key in seen:
                    line = key_node.start_mark.line + 1
                    raise ParameterError(f"{path}, line {line}: {key!r} stands there twice in one mapping")
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


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ParameterError(f"{where} holds {_kind(value)}; it must map names to values")
    return value


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {value!r}"[:80]


def _known(body: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in body:
        if key not in known:
            raise UnknownName(f"{where} has an unknown key {key!r}: {nearest(str(key), tuple(known))}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ParameterError(f"{where} takes a text, not {value!r}")
    return value


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise ParameterError(f"{where} takes a list of names, not {value!r}")
    return tuple(dict.fromkeys(value))


def _number(value: Any, where: str, what: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ParameterError(f"{where} takes {what}, not {value!r}")
    return float(value)


def _gpus(value: Any, where: str) -> float | None:
    if value is None:
        return None
    fine = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    if not fine or (value > 1 and value != int(value)):
        raise ParameterError(f"{where} takes 0, a share below 1 (0.5) or a whole number of GPUs, not {value!r}")
    return float(value)


# --------------------------------------------------------------------------------------------------- the stages


def _needs(body: Mapping[str, Any], name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    needs = _names(body.get("needs", ()), f"stage {name!r}: needs")
    for need in needs:
        if need not in known:
            raise UnknownName(f"stage {name!r} needs {need!r}, and there is no such stage: {nearest(need, known)}")
    return needs


def _order(needs: Mapping[str, tuple[str, ...]], path: Path) -> list[str]:
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for name, before in needs.items():
        sorter.add(name, *before)
    try:
        return list(sorter.static_order())
    except CycleError as error:
        circle = " needs ".join(reversed(error.args[1]))
        raise ParameterError(f"{path}: the stages need each other in a circle: {circle}") from None


def _stage(path: Path, name: str, body: Mapping[str, Any]) -> Stage:
    where = f"stage {name!r}"
    _known(body, (*_STAGE_KEYS, "list"), where)
    if "cells" in body and "list" in body:
        raise ParameterError(f"{where} has both `cells` and `list`, which mean the same: keep one")
    notebook = _notebook(path, _text(body.get("notebook"), f"{where}: notebook"), where)
    declared = declared_parameters(notebook)
    fixed = _mapping(body.get("parameters") or {}, f"{where}: parameters")
    combinations = _combinations(body, where)
    for asked in (fixed, *combinations):
        for parameter in asked:
            if parameter == "out":
                raise ParameterError(f"{where} sets `out`: the batch gives each cell a folder of its own")
            if parameter not in declared:
                hint = nearest(str(parameter), tuple(declared)) if declared else "it declares none"
                raise UnknownName(f"{where}: {notebook.name} has no parameter {parameter!r}: {hint}")
    if both := [n for c in combinations for n in c if n in fixed]:
        raise ParameterError(f"{where} sets {both[0]!r} both under `parameters` and in its grid: keep one")
    if not isinstance(smoke := body.get("smoke", False), bool):
        raise ParameterError(f"{where}: smoke takes true or false, not {smoke!r}")
    inherit = body.get("inherit")
    return Stage(
        name=name,
        notebook=notebook,
        declared=declared,
        parameters=dict(fixed),
        combinations=combinations,
        needs=_names(body.get("needs", ()), f"{where}: needs"),
        inherit=None if inherit is None else _names(inherit, f"{where}: inherit"),
        smoke=smoke,
        seconds=_number(body.get("seconds"), f"{where}: seconds", "a positive number of seconds"),
        memory_gb=_number(body.get("memory_gb"), f"{where}: memory_gb", "a positive number of gigabytes"),
        gpus=_gpus(body.get("gpus"), f"{where}: gpus"),
        headlines=_names(body.get("headlines", ()), f"{where}: headlines"),
    )


def _notebook(path: Path, asked: str, where: str) -> Path:
    for candidate in (Path(asked), path.parent / asked):
        if candidate.is_file():
            return candidate
    beside = sorted(str(p) for folder in {Path(asked).parent, path.parent} for p in folder.glob("*.ipynb"))
    hint = f": {nearest(asked, tuple(beside))}" if beside else ""
    raise NotPresent(f"{where}: no notebook at {asked!r}, from here or from {str(path.parent)!r}{hint}")


def _combinations(body: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    grid = _mapping(body.get("grid") or {}, f"{where}: grid")
    for name, values in grid.items():
        if not isinstance(values, list):
            raise ParameterError(f"{where}: grid takes a list of values for {name!r}, not {values!r}: write [{values}]")
        if not values:
            raise ParameterError(f"{where}: grid gives no value for {name!r}, so the stage has no cells")
    key = "cells" if "cells" in body else "list"
    listed = body.get(key, [{}])
    if not isinstance(listed, list) or not all(isinstance(c, Mapping) for c in listed):
        raise ParameterError(f"{where}: `{key}` takes a list of mappings, one a cell, not {listed!r}"[:300])
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


# ------------------------------------------------------------------------------------------------ the references


def references(value: Any) -> list[str]:
    """Return what stands in the `${...}` of a value, lists and mappings included."""
    if isinstance(value, str):
        return REFERENCE.findall(value)
    if isinstance(value, Mapping):
        return [r for v in value.values() for r in references(v)]
    return [r for v in value for r in references(v)] if isinstance(value, list | tuple) else []


def _check_references(grid: Grid, stage: Stage) -> None:
    known = tuple(s.name for s in grid.stages)
    before = grid.before(stage.name)
    for inside in references([stage.parameters, *stage.combinations]):
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
                raise ParameterError(
                    f"{where}: {grid.stage(name).notebook.name} has no parameter `out`, it writes none"
                )
        elif what not in declared:
            raise UnknownName(f"{where}: {name!r} has no parameter {what!r}: {nearest(what, tuple(declared))}")


def _check_inherited(grid: Grid, stage: Stage) -> None:
    axes = tuple(dict.fromkeys(a for n in grid.before(stage.name) for a in grid.stage(n).axes))
    for name in stage.inherit or ():
        if name not in axes:
            hint = nearest(name, axes) if axes else "they vary nothing"
            raise UnknownName(f"stage {stage.name!r} inherits {name!r}, which no stage that it needs varies: {hint}")
        if name not in stage.declared:
            hint = nearest(name, tuple(stage.declared))
            raise UnknownName(
                f"stage {stage.name!r} inherits {name!r}, which {stage.notebook.name} does not declare: {hint}"
            )
