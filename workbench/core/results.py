"""results.json: tidy rows whose key columns are unique, written by a run and read back as rows or as a DataFrame."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
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


def check_keys(rows: Iterable[Row]) -> None:
    """Raise ParameterError where two rows have the same key columns."""
    seen: dict[tuple[Any, ...], Row] = {}
    twice: list[tuple[Any, ...]] = []
    for row in rows:
        key = tuple(getattr(row, k) for k in KEYS)
        if seen.setdefault(key, row) is not row:
            twice.append(key)
    if twice:
        first = ", ".join(f"{k}={v!r}" for k, v in zip(KEYS, twice[0], strict=True) if v is not None)
        raise ParameterError(
            f"{len(twice)} rows repeat the key of an earlier row (first: {first}): leave the repetitions out, or "
            "tell them apart by `setting`"
        )


def rows_json(rows: Iterable[Row]) -> str:
    """Return tidy rows as the text of a results.json. Raises what `check_keys` raises."""
    rows = list(rows)
    check_keys(rows)
    body = {"schema": SCHEMA, "rows": [dataclasses.asdict(r) for r in rows]}
    return json.dumps(body, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def read_rows(path: str | Path) -> tuple[Row, ...]:
    """Read the rows of a results.json, or of a run's folder.

    Raises NotPresent where there is none, RecordError where it cannot be read or has another schema.
    """
    path = Path(path)
    file = path / "results.json" if path.is_dir() else path
    if not file.is_file():
        raise NotPresent(f"there is no file {str(file)!r}: name a results.json or the folder of a run")
    try:
        body = json.loads(file.read_text("utf-8"))
        if body["schema"] != SCHEMA:
            raise RecordError(
                f"{str(file)!r} has results of schema {body['schema']!r}, and this version reads {SCHEMA}: run the "
                "notebook again"
            )
        return tuple(Row(**row) for row in body["rows"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise RecordError(f"{str(file)!r} cannot be read ({error!r}): run the notebook again") from None


def load_results(path: str | Path) -> pd.DataFrame:
    """Load a results.json, or that of a run's folder, as a DataFrame: one line a row, the columns those of `Row`.

    The columns before `value` are unique together, so that any of them can be pivoted. Whole numbers stay whole where
    some are missing. Raises what `read_rows` and `check_keys` raise.
    """
    rows = read_rows(path)
    check_keys(rows)
    return frame_of([dataclasses.asdict(r) for r in rows])


def frame_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as a DataFrame whose columns have the same types whatever is missing."""
    import pandas as pd

    columns = {}
    for name in COLUMNS:
        values = [row.get(name) for row in rows]
        columns[name] = pd.Series(values, dtype=TYPES.get(name, "object" if name == "given" else "string"))
    return pd.DataFrame(columns)
