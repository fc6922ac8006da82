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
"""The columns that identify a row; see `Row`."""
TYPES = {"value": "Float64", "low": "Float64", "high": "Float64"} | dict.fromkeys(
    ("seed", "layer", "position", "token", "worst_of", "n"), "Int64"
)
"""The pandas types of numeric columns; all others but `given` hold text."""


def repetition(rows: Iterable[Row]) -> str | None:
    """Return a clause about rows that repeat the key of an earlier row; None where no row does."""
    seen: set[tuple[Any, ...]] = set()
    twice = []
    for row in rows:
        key = tuple(getattr(row, k) for k in KEYS)
        twice += [row.title] if key in seen else []
        seen.add(key)
    return f"{len(twice)} rows repeat the key of an earlier row (first: {twice[0]})" if twice else None


def rows_json(rows: Iterable[Row]) -> str:
    """Return tidy rows as the text of a results.json. Raises ParameterError where two have the same key."""
    rows = list(rows)
    if said := repetition(rows):
        raise ParameterError(f"{said}: remove the repetitions, or distinguish them by `setting`")
    # what json.dumps writes with indent=1, which encodes in Python; values of rows are not nested
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",\n   ", ": ")).encode
    listed = ",\n".join(f"  {{\n   {encode(vars(row))[1:-1]}\n  }}" for row in rows)
    body = f"[\n{listed}\n ]" if rows else "[]"
    return f'{{\n "schema": {encode(SCHEMA)},\n "rows": {body}\n}}\n'


def read_rows(path: str | Path) -> tuple[Row, ...]:
    """Read the rows of a results.json, or of a run's folder.

    Raises NotPresent for a missing file, RecordError for one that cannot be read, has another schema or repeats a key.
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
        wrong = f"{str(file)!r} has results of schema {schema!r}, and this version reads {SCHEMA}"
        raise RecordError(f"{wrong}: run the notebook again")
    if said := repetition(rows):
        raise RecordError(f"in {str(file)!r} {said}: give each number its own key, and run the notebook again")
    return rows


def _row(body: Mapping[str, Any]) -> Row:
    numbers = {k: float(body[k]) for k in ("value", "low", "high") if isinstance(body.get(k), int)}
    return Row(**{**body, **numbers})


def load_results(path: str | Path) -> pd.DataFrame:
    """Load a results.json, or that of a run's folder, as a DataFrame with the columns of `Row`.

    The columns before `value` are a unique key, so any of them can be pivoted. Integers stay integers where some are
    missing. Raises what `read_rows` raises.
    """
    return frame_of(read_rows(path))


def frame_of(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows as a DataFrame with fixed column types."""
    import pandas as pd

    columns = {}
    for name in COLUMNS:
        kind = TYPES.get(name, "object" if name == "given" else "string")
        columns[name] = pd.Series([getattr(row, name) for row in rows], dtype=kind)
    return pd.DataFrame(columns)
