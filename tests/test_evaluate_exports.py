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
from tests.errors import refuses
from tests.hostile_texts import EXECUTABLE, TEXT
from workbench.core.errors import NotPresent, PromptError
from workbench.evaluation.config import EvaluateConfig
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.exports import csv_text, latex_card, latex_table, latex_text, write_exports
from workbench.evaluation.formats import inspect_log, pairs_of, read_harmbench, read_inspect, write_completions
from workbench.evaluation.records import AttackSet, CompletionSet, Scorecard
from workbench.evaluation.rows import evaluation_rows
from workbench.judging.records import JudgementSet

Parts = tuple[AttackSet, CompletionSet, JudgementSet]


@pytest.fixture
def parts() -> Parts:
    source = make.attempts(4, conditions=("k=5",), categories=("fraud", None))
    done = make.completions(source, "arm_1 & more", text="a 100 % answer")
    said = make.judgements(
        source, "arm_1 & more", lambda a: "no answer" if make.index(a) == 3 else float(make.index(a) < 2)
    )
    return source, done, said


@pytest.fixture
def card(parts: Parts) -> Scorecard:
    source, done, said = parts
    return evaluate([source], [done], [said], EvaluateConfig())


def test_tables_go_out_as_csv_and_latex(card: Scorecard, tmp_path: Path) -> None:
    rows = evaluation_rows(card)
    read = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert len(read) == len(rows)
    assert list(read[0]) == [
        "name", "arm", "attack", "condition", "judge", "seed", "position", "value", "low", "high", "n", "unit",
    ]  # fmt: skip
    for given, row in zip(read, rows, strict=True):
        assert given["position"] == ""
        assert (float(given["value"]) if given["value"] else None) == row.value
        assert given["arm"] == row.arm
    text = latex_table(card)
    assert r"arm\_1 \& more" in text
    assert re.search(r"prefill, k=5 & 66\.7 \{\\scriptsize \[\d+\.\d, \d+\.\d\]\} \\\\", text)
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


def test_harmbench_completions_go_out_and_come_back(parts: Parts, tmp_path: Path) -> None:
    source, done, said = parts
    (harmbench, _) = write_completions(tmp_path, [source], [done], [said])
    body = json.loads(harmbench.read_text("utf-8"))
    assert set(body) == {"harmful-0", "harmful-1", "harmful-2", "harmful-3"}
    assert {"test_case", "generation"} <= set(body["harmful-0"][0])
    attempts, again = read_harmbench(harmbench, "arm_1 & more")
    assert [c.text for c in again.completions] == [c.text for c in done.completions]
    assert [a.attempt_id for a in attempts.attempts] == [a.attempt_id for a in source.attempts]
    assert [a.category for a in attempts.attempts] == ["fraud", None, "fraud", None]
    same = evaluate([attempts], [again], [said])
    assert [s.estimate for s in same.scores] == [s.estimate for s in evaluate([source], [done], [said]).scores]


def test_an_inspect_log_goes_out_and_comes_back(parts: Parts, tmp_path: Path) -> None:
    source, done, said = parts
    (_, log) = write_completions(tmp_path, [source], [done], [said])
    body = json.loads(log.read_text("utf-8"))
    assert body["version"] == 2
    assert body["status"] == "success"
    first = body["samples"][0]
    assert [m["role"] for m in first["input"]] == ["user", "assistant"]  # the prefix is given
    assert first["output"]["choices"][0]["stop_reason"] == "stop"
    assert first["scores"]["exact"]["value"] == 1.0
    assert body["samples"][3]["scores"] == {}
    assert body["samples"][3]["metadata"]["unscored"] == {"exact": "no answer"}
    (scorer,) = body["results"]["scores"]
    assert (scorer["scored_samples"], scorer["unscored_samples"]) == (3, 1)
    assert scorer["metrics"]["mean"]["value"] == pytest.approx(2 / 3)
    attempts, again = read_inspect(log)
    assert again.arm == "arm_1 & more"
    assert [(c.attempt_id, c.text, c.stop) for c in again.completions] == [
        (c.attempt_id, c.text, c.stop) for c in done.completions
    ]
    for mine, theirs in zip(attempts.attempts, source.attempts, strict=True):
        assert (mine.messages, mine.prefix, mine.label, mine.condition) == (
            theirs.messages, theirs.prefix, theirs.label, theirs.condition,
        )  # fmt: skip


def test_inspect_itself_reads_the_log(parts: Parts, tmp_path: Path) -> None:
    log = pytest.importorskip(
        "inspect_ai.log", reason="inspect_ai is not installed: the log is read by our own reader alone"
    )
    source, done, said = parts
    (_, path) = write_completions(tmp_path, [source], [done], [said])
    read = log.read_eval_log(str(path))
    assert read.eval.model == "arm_1 & more"
    assert [s.output.completion for s in read.samples] == [c.text for c in done.completions]
    assert read.samples[0].scores["exact"].value == 1.0


def test_completions_of_others_are_read(tmp_path: Path) -> None:
    file = tmp_path / "completions.json"
    file.write_text(
        json.dumps({"b1": [{"test_case": "asked one", "generation": "one"}, {"test_case": "two?", "generation": "2"}]}),
        "utf-8",
    )
    behaviors = tmp_path / "behaviors.csv"
    behaviors.write_text("Behavior,BehaviorID,SemanticCategory\nDo it,b1,fraud\n", "utf-8")
    attempts, done = read_harmbench(file, "their model", behaviors=behaviors)
    assert [a.request for a in attempts.attempts] == ["Do it", "Do it"]
    assert [a.messages for a in attempts.attempts] == [(("user", "asked one"),), (("user", "two?"),)]
    assert {a.label for a in attempts.attempts} == {"harmful"}
    assert {a.category for a in attempts.attempts} == {"fraud"}
    assert [a.sample for a in attempts.attempts] == [0, 1]
    assert attempts.classroom_safe is False
    judged = make.judgements(attempts, "their model", lambda a: float(a.sample == 1))
    card = evaluate([attempts], [done], [judged])
    (worst,) = [s for s in card.scores if s.metric == "asr"]
    assert (worst.condition, worst.estimate.value, worst.estimate.n) == ("imported, worst of 2", 1.0, 1)
    sample = {
        "id": 7,
        "epoch": 2,
        "input": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hm?"}]},
        ],
        "target": "x",
        "output": {"choices": [{"message": {"role": "assistant", "content": "Ha."}, "stop_reason": "max_tokens"}]},
    }
    failed = {"id": 8, "epoch": 1, "input": "x", "target": "", "output": {"choices": []}, "error": {"message": "boom"}}
    file = tmp_path / "log.json"
    file.write_text(json.dumps({"version": 2, "eval": {"model": "openai/x"}, "samples": [sample, failed]}), "utf-8")
    attempts, done = read_inspect(file, label="lookalike")
    (attempt,), (completion,) = attempts.attempts, done.completions
    assert (attempt.prompt_id, attempt.sample, attempt.label, attempt.prefix) == ("7", 1, "lookalike", "")
    assert attempt.messages == (("system", "Be brief."), ("user", "Hm?"))
    assert (completion.text, completion.stop, done.arm) == ("Ha.", "length", "openai/x")
    assert any("1 samples of the log ended in an error" in n for n in done.notes)


def test_files_of_another_form_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "x.json"
    broken.write_text("PK\x03\x04", "utf-8")
    for read in (lambda p: read_harmbench(p, "a"), read_inspect):
        with pytest.raises(NotPresent):
            read(tmp_path / "nowhere.json")
        with pytest.raises(PromptError, match="JSON"):
            read(broken)
    broken.write_text(json.dumps({"b": [{"test_case": 3}]}), "utf-8")
    refuses(lambda: read_harmbench(broken, "a"), PromptError, "'b'", "entry 1", "test_case")
    refuses(lambda: read_inspect(broken), PromptError, "Inspect")


def test_any_text_survives_both_ways(tmp_path: Path) -> None:
    texts = [t.encode("utf-8", "replace").decode("utf-8") for t in (*EXECUTABLE, *TEXT)]
    source = make.attempts(len(texts))
    done = make.completions(source, "a")
    done = dataclasses.replace(
        done, completions=tuple(dataclasses.replace(c, text=t) for c, t in zip(done.completions, texts, strict=True))
    )
    harmbench, log = write_completions(tmp_path, [source], [done])
    assert [c.text for c in read_harmbench(harmbench, "a")[1].completions] == texts
    assert [c.text for c in read_inspect(log)[1].completions] == texts


def test_several_attacks_are_one_scorer_and_other_sets_stay_out(parts: Parts) -> None:
    one, other = make.attempts(2), make.attempts(3, attack="none", conditions=("none",))
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
