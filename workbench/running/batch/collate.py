"""Put the results of all finished cells into one table: `results.parquet`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.core.files import atomic_file
from workbench.running.batch.plan import Cell, Plan


def rows_of(folder: Path) -> list[Mapping[str, Any]]:
    """Return the tidy rows of a finished run; none where its notebook leaves no results."""
    path = folder / "results.json"
    if not path.is_file():
        return []
    rows = json.loads(path.read_text("utf-8")).get("rows", [])
    return [row for row in rows if isinstance(row, Mapping)]


def write_results(plan: Plan, done: Sequence[Cell]) -> Path:
    """Write `results.parquet`: the rows of every finished cell, each with its cell, stage and grid values.

    Columns: `cell` and `key` (the cell's name and its whole key), `stage`, one `grid_NAME` for every grid parameter of
    the file (empty in stages that do not have it; lists, and values of mixed types, as JSON text), then those of the
    rows. The file is there, with its columns, even where no cell is finished.
    """
    import pandas as pd

    names = [f"grid_{n}" for n in dict.fromkeys(n for cell in plan.cells for n in cell.axes)]
    found = []
    for cell in done:
        first = {"cell": cell.name, "key": cell.key, "stage": cell.stage}
        axes = {f"grid_{n}": v for n, v in cell.axes.items()}
        found += [{**first, **axes, **row} for row in rows_of(plan.folder(cell))]
    fixed = ["cell", "key", "stage", *names]
    rest = dict.fromkeys(k for row in found for k in row if k not in fixed)
    columns = {name: _column([row.get(name) for row in found], KINDS.get(name)) for name in (*fixed, *rest)}
    frame = pd.DataFrame(columns, columns=[*fixed, *rest])
    path = plan.out / "results.parquet"
    with atomic_file(path) as partial:
        frame.to_parquet(partial, index=False)
    return path


KINDS = {"value": "Float64", "low": "Float64", "high": "Float64", "position": "Int64", "seed": "Int64", "n": "Int64"}
"""The types of what a tidy row holds, so that every batch has the same ones, whatever is missing in it."""


def _column(values: list[Any], kind: str | None) -> Any:
    """Return values as one column of one type: whole numbers stay whole where some are missing."""
    import pandas as pd

    if kind is not None:
        with contextlib.suppress(TypeError, ValueError):
            return pd.array(values, dtype=kind)
    kinds = {type(v) for v in values if v is not None}
    if kinds <= {int, float} and kinds:
        return pd.array(values, dtype="Int64" if kinds == {int} else "Float64")
    if kinds == {bool}:
        return pd.array(values, dtype="boolean")
    if kinds <= {str}:
        return pd.array(values, dtype="string")
    texts = [None if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in values]
    return pd.array(texts, dtype="string")
