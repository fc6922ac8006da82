"""results.json: what is written comes back with unique keys and stable types; anything else is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tests.errors import refuses
from workbench.core.errors import NotPresent, ParameterError, RecordError
from workbench.core.records import SCHEMA, Row
from workbench.core.results import COLUMNS, KEYS, load_results, read_rows, rows_json

ROWS = (
    Row(name="asr", arm="aligned", label="harmful", attack="prefill", given=5, judge="exact", value=0.5, n=8, unit="1"),
    Row(name="asr", arm="aligned", label="harmful", attack="prefill", given="full", judge="exact", value=0.25, n=8),
    Row(name="asr", arm="base", label="harmful", attack="prefill", given=5, judge="exact", n=0, unit="1"),
    Row(name="base_favored_rate", label="harmful", token=17, position=2, seed=0, value=1e-3),
)


def results_pivot(path: Path) -> int:
    """Check that a run's results have unique keys and can be pivoted by any of them; return how many rows there are."""
    table = load_results(path)
    assert tuple(table.columns) == COLUMNS
    assert not table.duplicated(list(KEYS)).any()
    for column in ("name", "arm", "label", "judge", "given"):
        wide = table.pivot(index=[k for k in KEYS if k != column], columns=column, values="value")
        assert wide.notna().sum().sum() == table["value"].notna().sum()
    return len(table)


def test_results_come_back_as_rows_and_as_a_table_that_pivots(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(rows_json(ROWS), "utf-8")
    assert read_rows(tmp_path) == read_rows(tmp_path / "results.json") == ROWS
    table = load_results(tmp_path)
    assert table["given"].tolist() == [5, "full", 5, None]
    assert table["token"].dtype == table["position"].dtype == table["n"].dtype == "Int64"
    assert (table["value"].isna().tolist(), results_pivot(tmp_path)) == ([False, False, True, False], 4)


def test_equal_keys_other_schemas_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"1 rows .*asr, base, harmful, prefill, 5 tokens given, exact"):
        rows_json([*ROWS, ROWS[2]])
    file = tmp_path / "results.json"
    refuses(lambda: load_results(file), NotPresent)
    one = {"name": "asr", "value": 0.5}
    for body, says in (
        ({"schema": SCHEMA - 1, "rows": [{**one, "condition": "k=5"}]}, f"schema {SCHEMA - 1}"),
        ({"schema": SCHEMA, "rows": [one, one]}, "repeat"),
        ({"schema": SCHEMA, "rows": [{**one, "condition": "k=5"}]}, "condition"),
        ({"schema": SCHEMA}, "rows"),
        ([], "results.json"),
    ):
        file.write_text(json.dumps(body), "utf-8")
        with pytest.raises(RecordError, match=says):
            load_results(file)


def test_the_text_is_that_of_json_with_an_indent() -> None:
    """It is put together a row at a time, because json's own indent encodes every value in Python."""
    odd = dataclasses.replace(ROWS[0], setting='é"\\ \u2028\n,\n   {}', seed=99)
    for rows in ([], [odd], [*ROWS, odd]):
        body = {"schema": SCHEMA, "rows": [dataclasses.asdict(r) for r in rows]}
        assert rows_json(rows) == json.dumps(body, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
