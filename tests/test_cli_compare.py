"""`workbench compare`: what differs between two runs is shown with intervals, what is missing stays missing."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.errors import refuses
from tests.evaluation_makers import attempts, completions, evaluation, judgements
from tests.trace_makers import HOSTILE, make_traces
from workbench import __main__ as cli
from workbench.core.errors import NotPresent, RecordError
from workbench.core.records import SCHEMA, Estimate, Record, Row, save
from workbench.core.results import rows_json
from workbench.running.changes.differences import compare_runs, difference
from workbench.running.changes.page import terminal_text, write_comparison

FACTS: dict[str, Any] = {
    "schema": SCHEMA, "verb": "04_evaluation", "asked": {"pair": "embedded", "limit": None, "out": "a"},
    "resolved": {"pair": "embedded", "limit": 60, "out": "a"}, "versions": {"torch": "2.13.0", "peft": "0.21.2"},
    "commit": "abc", "dirty": False, "seed": 0, "device": "cpu", "fingerprint": "f",
}  # fmt: skip


def row(name: str, value: float | None, *, half: float | None = 0.05, **more: Any) -> Row:
    low, high = (None, None) if value is None or half is None else (value - half, value + half)
    return Row(**{"name": name, "value": value, "low": low, "high": high, "n": 20, "unit": "1", **more})


def a_run(folder: Path, rows: Sequence[Row], *, records: Mapping[str, Record] | None = None, **facts: Any) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({**FACTS, **facts}), "utf-8")
    (folder / "results.json").write_text(rows_json(list(rows)), "utf-8")
    for name, record in (records or {}).items():
        save(record, folder / "records" / name)
    return folder


def test_settings_versions_and_commit_that_differ_are_named_and_no_others(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", [])
    b = a_run(
        tmp_path / "b",
        [],
        asked={"pair": "embedded", "limit": 60, "out": "b", "extra": [1, 2]},
        resolved={"pair": "smollm2", "limit": 60, "out": "b", "extra": [1, 2]},
        versions={"torch": "2.14.0", "peft": "0.21.2"},
        dirty=True,
    )
    compared = compare_runs(a, b)
    assert {(c.what, c.first, c.second) for c in compared.settings} == {
        ("pair", "embedded", "smollm2"),
        ("limit (as asked)", "null", "60"),
        ("extra", None, "[1, 2]"),
    }
    assert {(c.what, c.first, c.second) for c in compared.made} == {
        ("dirty", "false", "true"),
        ("version of torch", "2.13.0", "2.14.0"),
    }


def test_numbers_stand_side_by_side_and_missing_is_not_zero(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", [row("asr", 0.5, arm="aligned"), row("refusal", 0.2), row("mmlu", None), row("old", 1.0)])
    b = a_run(tmp_path / "b", [row("asr", 0.1, arm="aligned"), row("refusal", 0.2), row("mmlu", 0.6)])
    compared = compare_runs(a, b)
    by = {n.place.name: n for n in compared.numbers}
    assert by["asr"].difference.value == pytest.approx(-0.4)
    assert by["asr"].apart
    assert by["refusal"].difference is not None
    assert not by["refusal"].differs
    assert by["mmlu"].difference is None
    assert by["old"].difference is None
    assert (compared.only(compared.first), compared.only(compared.second)) == (1, 1)
    text = terminal_text(compared)
    assert "1 numbers have a value in a alone: missing is not zero." in text
    (line,) = [one for one in text.splitlines() if one.startswith("asr, aligned")]
    assert "0.450 to 0.550, 20" in line
    assert "−0.400" in line
    assert "!" in line


def test_the_interval_of_a_difference_adds_distances_in_squares() -> None:
    a = Estimate(value=0.5, low=0.4, high=0.7, n=20, unit="1")
    b = Estimate(value=0.3, low=0.25, high=0.4, n=12, unit="1")
    d = difference(a, b)
    assert (d.value, d.n) == (pytest.approx(-0.2), 12)
    assert d.low == pytest.approx(-0.2 - math.sqrt(0.05**2 + 0.2**2))
    assert d.high == pytest.approx(-0.2 + math.sqrt(0.1**2 + 0.1**2))
    back = difference(b, a)
    assert (back.low, back.high) == (pytest.approx(-d.high), pytest.approx(-d.low))
    none = replace(a, low=None, high=None)
    assert (made := difference(none, b)) is not None
    assert (made.low, made.high) == (None, None)
    assert difference(replace(a, unit="nats"), b) is None
    assert difference(None, b) is None


def test_seeds_are_matched_where_the_runs_have_one_in_common(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", [row("x", 1.0, seed=0), row("x", 5.0, seed=1)])
    b = a_run(tmp_path / "b", [row("x", 4.0, seed=0), row("x", 9.0, seed=2)])
    same, *alone = compare_runs(a, b).numbers
    assert same.difference.value == 3.0
    assert [(n.first is None, n.second is None) for n in alone] == [(False, True), (True, False)]
    c = a_run(tmp_path / "c", [row("x", 7.0, seed=3)])
    across = compare_runs(a, c)
    assert across.numbers[0].difference.value == 6.0
    assert "no seed in common" in across.notes[0]


def test_other_units_and_no_attack_are_said_once(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", [row("asr", 0.1, arm="aligned", attack="none", given=0, judge="exact")])
    assert compare_runs(a, a).numbers[0].place.title == "asr, aligned, no attack, exact"
    a, b = a_run(tmp_path / "a", [row("x", 1.0)]), a_run(tmp_path / "b", [row("x", 1.0, unit="nats")])
    compared = compare_runs(a, b)
    assert compared.numbers[0].difference is None
    assert "x is in '1' in one run and in 'nats' in the other" in compared.notes[0]


def test_the_page_shows_both_runs_and_leaves_other_records_out(tmp_path: Path) -> None:
    mine, other = make_traces("shallow", tokens=12, seed=1), make_traces("deep", tokens=12, seed=2)
    attack = replace(attempts(3), classroom_safe=False)
    records = [
        {
            "traces": traces,
            "evaluation": evaluation(
                [attack],
                [completions(attack, "aligned", text=text)],
                [judgements(attack, "aligned", lambda a: "refusal")],
            ),
        }
        for traces, text in ((mine, "first secret"), (other, "<script>alert(1)</script>"))
    ]
    a, b = (
        a_run(tmp_path / n, [row("asr", v)], records=r) for n, v, r in (("a", 0.1, records[0]), ("b", 0.9, records[1]))
    )
    page = write_comparison(compare_runs(a, b), tmp_path / "page.html").read_text("utf-8")
    assert "Through the lens: traces" in page
    assert "responses are in both runs" in page
    assert page.count('class="wb wb-tokens') == 8
    assert "3 of 3 answers to the same prompt under the same attack differ." in page
    assert "aligned in a" in page
    assert "aligned in b" in page
    assert "first secret" not in page
    assert "withheld" in page
    shown = write_comparison(compare_runs(a, b), tmp_path / "shown.html", harmful_text="show").read_text("utf-8")
    assert "first secret to harmful-0" in shown
    assert "<script>alert(1)</script>" not in shown
    assert not [h for h in HOSTILE[:3] if h.startswith("<") and h in shown.split("</style>")[1].split("<script>")[0]]
    traces = make_traces(harmful=1, harmless=0, lookalike=0, tokens=6)
    a = a_run(tmp_path / "a", [], records={"one": traces, "kind": traces, "damaged": traces, "same": traces})
    b = a_run(tmp_path / "b", [], records={"two": traces, "kind": attempts(1), "damaged": traces, "same": traces})
    (b / "records" / "damaged" / "record.json").write_text("{", "utf-8")
    page = write_comparison(compare_runs(a, b), tmp_path / "page.html").read_text("utf-8")
    assert page.count("Through the lens: same</h2>") == 1
    assert page.count("Through the lens") == 2  # its heading, and the link to it
    assert "0 have other tokens" in page


def test_the_command_prints_and_refuses_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = a_run(tmp_path / "x" / "run", [row(f"n{i}", 0.1 * i) for i in range(9)])
    b = a_run(tmp_path / "y" / "run", [row(f"n{i}", 0.2 * i) for i in range(9)], verb="other", fingerprint="g")
    assert cli.main(["compare", str(a), str(b), "--lines", "3", "--out", str(tmp_path / "out.html")]) == 0
    out = capsys.readouterr().out
    assert "Numbers that differ: 8 of 9 in both; 5 more are not shown" in out
    assert "x/run" in out
    assert "y/run" in out
    assert "runs of different notebooks" in out
    assert "The pairs are not the same" in out
    assert out.endswith(f"page    {tmp_path / 'out.html'}\n")
    assert (tmp_path / "out.html").read_text("utf-8").startswith("<!doctype html>")
    a = a_run(tmp_path / "batch" / "cells" / "one", [])
    refuses(lambda: compare_runs(tmp_path / "batch", a), NotPresent, "one")
    refuses(lambda: compare_runs(a, tmp_path / "nothing"), NotPresent)
    assert cli.main(["compare", str(a), str(tmp_path)]) == 2
    assert "neither run.json nor results.json" in capsys.readouterr().err
    for text in ("{", "[]", '{"rows": 3}', '{"rows": [1]}'):
        (a / "results.json").write_text(text, "utf-8")
        refuses(lambda: compare_runs(a, a), RecordError, "results.json")


def test_a_run_with_itself_has_no_difference_and_a_part_alone_is_a_run(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", [row("asr", 0.5)])
    compared = compare_runs(a, a)
    assert not compared.settings
    assert not compared.made
    assert not any(n.differs for n in compared.numbers)
    assert "Both are the same folder." in compared.notes
    assert terminal_text(compared).count("no difference.") == 3
    a, b = a_run(tmp_path / "a", [row("x", 1.0)]), a_run(tmp_path / "b", [row("x", 2.0)])
    (a / "run.json").unlink()
    (b / "results.json").unlink()
    compared = compare_runs(a, b)
    assert (compared.only(compared.first), {c.first for c in compared.settings}) == (1, {None})
