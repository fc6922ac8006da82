"""Put the results of all finished cells into one table: `results.parquet`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.core.files import atomic_file
from workbench.core.records import Row
from workbench.core.results import frame_of, read_rows
from workbench.running.batch.plan import Cell, Plan


def rows_of(folder: Path) -> tuple[Row, ...]:
    """Return the rows of a finished run; none where its notebook writes no results."""
    return read_rows(folder) if (folder / "results.json").is_file() else ()


def write_results(plan: Plan, done: Sequence[Cell]) -> Path:
    """Write `results.parquet`: the rows of every finished cell, each with its cell, stage and grid values.

    Columns: `cell` and `key` (the cell's name and its whole key), `stage`, one `grid_NAME` for every grid parameter of
    the file (empty in stages without it; lists, and values of mixed types, as JSON text), then those of the rows. The
    file exists, with its columns, even where no cell is finished.
    """
    import pandas as pd

    names = [f"grid_{n}" for n in dict.fromkeys(n for cell in plan.cells for n in cell.axes)]
    cells: list[dict[str, Any]] = []
    rows: list[Row] = []
    for cell in done:
        own = rows_of(plan.folder(cell))
        axes = {f"grid_{n}": v for n, v in cell.axes.items()}
        cells += [{"cell": cell.name, "key": cell.key, "stage": cell.stage, **axes}] * len(own)
        rows += own
    places = {name: _column([c.get(name) for c in cells]) for name in ("cell", "key", "stage", *names)}
    results = frame_of(rows).astype({"given": "string"})
    frame = pd.concat([pd.DataFrame(places), results], axis=1)
    with atomic_file(path := plan.out / "results.parquet") as partial:
        frame.to_parquet(partial, index=False)
    return path


def _column(values: list[Any]) -> Any:
    """Return values as one column of one type: whole numbers stay whole where some are missing."""
    import pandas as pd

    kinds = {type(v) for v in values if v is not None}
    if kinds <= {int, float} and kinds:
        return pd.array(values, dtype="Int64" if kinds == {int} else "Float64")
    if kinds == {bool}:
        return pd.array(values, dtype="boolean")
    if kinds <= {str}:
        return pd.array(values, dtype="string")
    texts = [None if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in values]
    return pd.array(texts, dtype="string")
