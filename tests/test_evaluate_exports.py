"""Scorecards and completions for other programs: CSV, LaTeX, HarmBench's completions format, an Inspect log."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import pytest

from tests import evaluation_makers as make
from tests.hostile_texts import EXECUTABLE, TEXT
from workbench.core.results import COLUMNS
from workbench.evaluation.exports import (
    csv_text,
    inspect_log,
    latex_card,
    latex_table,
    latex_text,
    pairs_of,
    write_completions,
    write_exports,
)
from workbench.evaluation.metrics import EvaluateConfig
from workbench.evaluation.records import AttackSet, CompletionSet, Scorecard
from workbench.evaluation.rows import evaluation_rows
from workbench.evaluation.scorecard import sum_up
from workbench.judging.records import JudgementSet

Parts = tuple[AttackSet, CompletionSet, JudgementSet]


@pytest.fixture
def parts() -> Parts:
    source = make.attempts(4, where=(5,), categories=("fraud", None))
    done = make.completions(source, "arm_1 & more", text="a 100 % answer")
    said = make.judgements(
        source, "arm_1 & more", lambda a: "no answer" if make.index(a) == 3 else float(make.index(a) < 2)
    )
    return source, done, said


@pytest.fixture
def card(parts: Parts) -> Scorecard:
    source, done, said = parts
    return sum_up([source], [done], [said], EvaluateConfig())


def test_tables_go_out_as_csv_and_latex(card: Scorecard, tmp_path: Path) -> None:
    rows = evaluation_rows(card)
    read = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert (len(read), list(read[0])) == (len(rows), list(COLUMNS))
    for given, row in zip(read, rows, strict=True):
        assert (given["position"], float(given["value"]) if given["value"] else None) == ("", row.value)
        assert given["arm"] == row.arm
    text = latex_table(card)
    assert r"arm\_1 \& more" in text
    assert re.search(r"prefill, 5 tokens given & 66\.7 \{\\scriptsize \[\d+\.\d, \d+\.\d\]\} \\\\", text)
    assert "$n = 3$" in text
    assert "1 unscored prompts" in text
    assert text.count("{") == text.count("}")
    assert latex_text("50% of $x_1 {a} & #~^\\") == (
        r"50\% of \$x\_1 \{a\} \& \#\textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert r"\begin{longtable}" in latex_card([{"part": "a_b", "what": "c", "value": "d%"}])
    card_rows = [{"part": "judge", "what": "exact", "value": "1"}]
    paths = write_exports(tmp_path, card, card_rows)
    assert {p.name for p in paths} == {"results.csv", "asr-exact.tex", "method.tex"}


# ------------------------------------------------------------------------------------------------ formats of others


def test_harmbench_completions_hold_every_answer(parts: Parts, tmp_path: Path) -> None:
    source, done, said = parts
    (harmbench, _) = write_completions(tmp_path, [source], [done], [said])
    body = json.loads(harmbench.read_text("utf-8"))
    assert set(body) == {"harmful-0", "harmful-1", "harmful-2", "harmful-3"}
    assert {"test_case", "generation"} <= set(body["harmful-0"][0])
    rows = [body[f"harmful-{i}"][0] for i in range(4)]
    assert [r["generation"] for r in rows] == [c.text for c in done.completions]
    assert [r["attempt_id"] for r in rows] == [a.attempt_id for a in source.attempts]
    assert [r["category"] for r in rows] == ["fraud", None, "fraud", None]


def test_an_inspect_log_holds_every_answer_and_score(parts: Parts, tmp_path: Path) -> None:
    source, done, said = parts
    (_, log) = write_completions(tmp_path, [source], [done], [said])
    body = json.loads(log.read_text("utf-8"))
    assert (body["version"], body["status"]) == (2, "success")
    first = body["samples"][0]
    assert [m["role"] for m in first["input"]] == ["user", "assistant"]  # the prefix is given
    assert (first["output"]["choices"][0]["stop_reason"], first["scores"]["exact"]["value"]) == ("stop", 1.0)
    assert (body["samples"][3]["scores"], body["samples"][3]["metadata"]["unscored"]) == ({}, {"exact": "no answer"})
    (scorer,) = body["results"]["scores"]
    assert (scorer["scored_samples"], scorer["unscored_samples"]) == (3, 1)
    assert scorer["metrics"]["mean"]["value"] == pytest.approx(2 / 3)
    assert [x["id"] for x in body["samples"]] == [c.attempt_id for c in done.completions]
    assert [x["output"]["completion"] for x in body["samples"]] == [c.text for c in done.completions]


def test_inspect_itself_reads_the_log(parts: Parts, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="inspect_ai is not installed")
    source, done, said = parts
    (_, path) = write_completions(tmp_path, [source], [done], [said])
    read = log.read_eval_log(str(path))
    assert read.eval.model == "arm_1 & more"
    assert [s.output.completion for s in read.samples] == [c.text for c in done.completions]
    assert read.samples[0].scores["exact"].value == 1.0


def test_any_text_survives_under_names_of_its_own(tmp_path: Path) -> None:
    texts = [t.encode("utf-8", "replace").decode("utf-8") for t in (*EXECUTABLE, *TEXT)]
    source = make.attempts(len(texts))
    done = make.completions(source, "a")
    done = dataclasses.replace(
        done, completions=tuple(dataclasses.replace(c, text=t) for c, t in zip(done.completions, texts, strict=True))
    )
    harmbench, log = write_completions(tmp_path, [source], [done])
    read = [json.loads(path.read_text("utf-8")) for path in (harmbench, log)]
    assert [entry["generation"] for entries in read[0].values() for entry in entries] == texts
    assert [x["output"]["completion"] for x in read[1]["samples"]] == texts
    source = make.attempts(1)
    arms = ("a/b", "a:b", "A-b", "con")
    paths = write_completions(tmp_path, [source], [make.completions(source, arm) for arm in arms])
    assert len({p.relative_to(tmp_path).as_posix().lower() for p in paths}) == 2 * len(arms)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", p.name) and p.stem != "con" for p in paths)


def test_several_attacks_are_one_scorer_and_other_sets_stay_out(parts: Parts) -> None:
    one, other = make.attempts(2), make.attempts(3, attack="none", where=(None,))
    done = [make.completions(s, "a") for s in (one, other)]
    said = [make.judgements(s, "a", make.first(1)) for s in (one, other)]
    log = inspect_log(pairs_of([one, other], done, "a"), done[0], said)
    assert all(s["scores"] for s in log["samples"])
    (scorer,) = log["results"]["scores"]
    assert scorer["scored_samples"] == 5
    source, done, _ = parts
    other = make.attempts(2, attack="none")
    assert pairs_of([other], [done], done.arm) == []
    assert inspect_log(pairs_of([source], [done], done.arm), done)["results"]["scores"] == []
