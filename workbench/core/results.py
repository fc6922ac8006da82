"""results.json: tidy rows whose key columns are unique, written by a run and read back as rows or as a DataFrame."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.core.errors import NotPresent, ParameterError, RecordError
from workbench.core.records import SCHEMA, Row

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = tuple(f.name for f in dataclasses.fields(Row))
KEYS = COLUMNS[: COLUMNS.index("value")]
"""The columns that together name a row; see `Row`."""
TYPES = {"value": "Float64", "low": "Float64", "high": "Float64"} | dict.fromkeys(
    ("seed", "layer", "position", "token", "worst_of", "n"), "Int64"
)
"""The pandas types of numeric columns; every other one but `given` holds text."""


def repetition(rows: Iterable[Row]) -> str | None:
    """Say which rows have the key columns of an earlier row; None where no row has."""
    seen: set[tuple[Any, ...]] = set()
    twice = []
    for row in rows:
        key = tuple(getattr(row, k) for k in KEYS)
        twice += [row.title] if key in seen else []
        seen.add(key)
    return f"{len(twice)} rows repeat the key of an earlier row (first: {twice[0]})" if twice else None


def rows_json(rows: Iterable[Row]) -> str:
    """Return tidy rows as the text of a results.json. Raises ParameterError where two have the same key columns."""
    rows = list(rows)
    if said := repetition(rows):
        raise ParameterError(f"{said}: leave the repetitions out, or tell them apart by `setting`")
    body = {"schema": SCHEMA, "rows": [dataclasses.asdict(r) for r in rows]}
    return json.dumps(body, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def read_rows(path: str | Path) -> tuple[Row, ...]:
    """Read the rows of a results.json, or of a run's folder.

    Raises NotPresent where there is none, RecordError where it cannot be read, has another schema or repeats a key.
    """
    file = Path(path) / "results.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise NotPresent(f"there is no file {str(file)!r}: name a results.json or the folder of a run")
    try:
        body = json.loads(file.read_text("utf-8"))
        schema = body.get("schema")
        rows = tuple(map(_row, body["rows"])) if schema == SCHEMA else ()
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise RecordError(f"{str(file)!r} cannot be read ({error!r}): run the notebook again") from None
    if schema != SCHEMA:
        raise RecordError(
            f"{str(file)!r} has results of schema {schema!r}, this version reads {SCHEMA}: run the notebook again"
        )
    if said := repetition(rows):
        raise RecordError(f"in {str(file)!r} {said}: give each number a key of its own, and run the notebook again")
    return rows


def _row(body: Mapping[str, Any]) -> Row:
    numbers = {k: float(body[k]) for k in ("value", "low", "high") if isinstance(body.get(k), int)}
    return Row(**{**body, **numbers})


def load_results(path: str | Path) -> pd.DataFrame:
    """Load a results.json, or that of a run's folder, as a DataFrame: one line a row, the columns those of `Row`.

    The columns before `value` are unique together, so that any of them can be pivoted. Whole numbers stay whole where
    some are missing. Raises what `read_rows` raises.
    """
    return frame_of(read_rows(path))


def frame_of(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows as a DataFrame whose columns have the same types whatever is missing."""
    import pandas as pd

    columns = {}
    for name in COLUMNS:
        kind = TYPES.get(name, "object" if name == "given" else "string")
        columns[name] = pd.Series([getattr(row, name) for row in rows], dtype=kind)
    return pd.DataFrame(columns)
