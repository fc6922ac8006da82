"""Lessons: what a prediction is told, the notebooks' one source, and that each lesson comes out as it says."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from recipes.lessons import Block, build, exercise_of, read_lesson
from tests.errors import refuses
from workbench.core.errors import ParameterError
from workbench.display.check import check
from workbench.running.parameters import smoke_parameters
from workbench.running.runs import RunConfig, run_notebook

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks" / "lessons"
SOURCES = sorted((FOLDER / "source").glob("*.md"))
each_lesson = pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "not answered yet"),
        (0.5, "right. Predicted 0.5, computed 0.52 nats: within 0.05"),
        (1, "too high. Predicted 1, computed 0.52 nats: 0.48 off"),
        (0.1, "too low"),
        ("half", "not an answer yet. 'half' is a str; the answer is a number (nats)"),
        (True, "not an answer yet"),
        (float("nan"), "not an answer yet"),
        (10**400, "not an answer yet. That is no finite number"),
        (np.float32(0.5), "right"),
        (np.array([0.5, 0.6]), "not an answer yet. That is a ndarray"),
    ],
)
def test_a_number_is_told_how_far_it_is(answer: Any, told: str) -> None:
    made = check("1.2", answer, 0.52, tolerance=0.05, unit="nats")
    assert made.text.startswith(f"Exercise 1.2: {told}")
    assert html.escape(told.split(".")[0]) in made.body
    assert ("0.52" in made.text) == ("Predicted" in made.text), "what was computed is covered until there is an answer"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "not answered yet"),
        ("yes", "right"),
        ("no", "no. Predicted 'no', and it is 'yes'"),
        (3, "not an answer"),
        (np.array([1, 2]), "not an answer"),
    ],
)
def test_a_choice_is_told_what_it_is(answer: Any, told: str) -> None:
    made = check("7.3", answer, "yes", options=["yes", "no"])
    assert made.text.startswith(f"Exercise 7.3: {told}")


@pytest.mark.parametrize(
    ("answer", "truth", "how", "told"),
    [
        (0.505, 0.5, {"tolerance": 0.005}, "right"),
        (0.506, 0.5, {"tolerance": 0.005}, "too high"),
        ("0.5", 0.5, {"tolerance": 0.05}, "right"),
        (torch.tensor(0.5), 0.5, {"tolerance": 0.05}, "right"),
        (torch.tensor([0.5, 0.5]), 0.5, {"tolerance": 0.05}, "not an answer yet"),
        (np.float64(0.5), 0.5, {"tolerance": 0.05}, "right"),
        (50, 0.5, {"tolerance": 0.05, "unit": "share"},
         "not an answer yet. 50 is no share, which is from 0 to 1. Did you mean 0.5?"),
        (1.0000001, 0.98, {"tolerance": 0.05, "unit": "share"}, "not an answer yet"),
        (-0.04, 0.0, {"tolerance": 0.05, "unit": "share"}, "not an answer yet. -0.04 is no share"),
        (1, 0.98, {"tolerance": 0.05, "unit": "share"}, "right"),
        ("Larger", "larger", {"options": ["larger", "smaller"]}, "right"),
        (" larger ", "larger", {"options": ["larger", "smaller"]}, "right"),
        ("large", "larger", {"options": ["larger", "smaller"]}, "not an answer yet"),
    ],
)  # fmt: skip
def test_no_right_answer_is_rejected_and_no_impossible_one_accepted(answer, truth, how, told) -> None:
    assert check("1.1", answer, truth, **how).text.startswith(f"Exercise 1.1: {told}")


def test_exercises_and_answers_that_are_wrong_are_named(tmp_path: Path) -> None:
    for text, word in [
        ("question: q\ntruth: 1\nwhy: w", "tolerance.*options"),
        ("question: q\ntruth: 1\ntolerance: 1\noptions: a | b\nwhy: w", "tolerance.*options"),
        ("question: q\ntolerance: 1\nwhy: w", "'truth'"),
        ("question: q\nquestion: r\ntruth: 1\ntolerance: 1\nwhy: w", "'question'"),
        ("questoin: q", "'questoin: q'.*question"),
    ]:
        with pytest.raises(ParameterError, match=word):
            exercise_of(Block(kind="exercise", about="1.1", text=text), "x.md")
    assert "<img" not in check("1.1", "<img src=x onerror=alert(1)>", 1.0, tolerance=0.1).html
    refuses(lambda: check("1.1", None, "perhaps", options=["yes", "no"]), ParameterError, "yes", "no")
    refuses(lambda: check("1.1", None, float("nan"), tolerance=0.1), ParameterError, "nan")
    refuses(lambda: check("1.1", None, 1.0), ParameterError, "tolerance")
    (tmp_path / "x.md").write_text("# x\n\n```python\nprint(1)\n", "utf-8")
    refuses(lambda: read_lesson(tmp_path / "x.md"), ParameterError, "line 3")


@each_lesson
def test_the_notebooks_are_made_from_their_source(source: Path, tmp_path: Path) -> None:
    for instructor, folder in ((False, FOLDER), (True, FOLDER / "instructor")):
        made = build(source, tmp_path / "made.ipynb", instructor=instructor)
        assert (folder / f"{source.stem}.ipynb").read_text("utf-8") == made.read_text("utf-8"), "run `make lessons`"
    exercises = [exercise_of(b, source.name) for b in read_lesson(source) if b.kind == "exercise"]
    assert len(exercises) >= 3
    student = json.loads((FOLDER / f"{source.stem}.ipynb").read_text("utf-8"))
    cells = ["".join(c["source"]) for c in student["cells"]]
    assert sum(c.startswith("answer_") and " = None" in c for c in cells) == len(exercises)
    assert all(e.hints for e in exercises)


def told(page: str) -> list[str]:
    """The words after each exercise's number, in an executed notebook."""
    return re.findall(r"Exercise \d\.\d: ([a-z ]+)", page)


@each_lesson
@pytest.mark.timeout(120)
def test_a_lesson_runs_without_answers(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = FOLDER / f"{source.stem}.ipynb"
    assert smoke_parameters(path)
    made = run_notebook(RunConfig(notebook=path, out=tmp_path / "run", smoke=True, cell_seconds=60))
    found = told(made.notebook.read_text("utf-8"))
    assert found
    assert {f.strip() for f in found} == {"not answered yet"}
    assert made.notebook.stat().st_size < 1_000_000


@pytest.mark.slow
@each_lesson
@pytest.mark.timeout(400)
def test_what_the_instructor_says_is_what_comes_out(source, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    path = FOLDER / "instructor" / f"{source.stem}.ipynb"
    made = run_notebook(RunConfig(notebook=path, out=tmp_path / "run", cell_seconds=180))
    page = made.notebook.read_text("utf-8")
    assert {f.strip() for f in told(page)} == {"right"}
    said = dict(re.findall(r"Exercise (\d\.\d): right\. Predicted ([\d.e-]+), computed", page))
    chosen = dict(re.findall(r"Exercise (\d\.\d): right\. It is '([\w ]+)'", page))
    for name, low, high in CLAIMS:
        if name[0] == source.stem[0]:
            assert low <= float(said[name]) <= high, f"the text of exercise {name} is not borne out: {said[name]}"
    for name, choice in CHOICES:
        if name[0] == source.stem[0]:
            assert chosen[name] == choice, f"the text of exercise {name} is not borne out: {chosen[name]}"


CLAIMS = (
    ("1.3", 0.0, 0.1), ("1.4", 0.85, 1.0), ("2.1", 0.0, 0.05), ("2.2", 0.7, 0.8), ("2.3", 3, 3), ("3.1", 0.3, 0.7),
    ("3.2", 1, 4), ("4.2", 0.0, 0.1), ("4.4", 14, 17), ("5.2", 0.0, 0.0), ("5.3", 0.0, 0.0),
    ("5.4", 0.0, 0.1), ("6.1", 0.0, 0.1), ("6.3", 0.5, 1.0), ("7.4", 0.4, 1.0),
)  # fmt: skip
"""What the lessons' words say of their numbers: exercise, least, most."""
CHOICES = (("3.3", "larger"), ("4.1", "over 10 times"), ("4.3", "no"), ("6.2", "recovery"), ("7.3", "no"))
"""And of their choices."""


@pytest.mark.slow
def test_what_lesson_3_says_of_single_words_is_borne_out() -> None:
    pair = wb.load_pair(wb.PairConfig(preset="embedded"))
    every = wb.load_prompts(wb.PromptConfig(source="embedded", limit=60, seed=0))
    rates = {f.label.strip("·"): f for f in wb.diagnose(wb.trace(pair, every)).frequencies}
    for word in ("Sure", ",", "..."):
        assert rates[word].difference.low > 0, word
    for word in ("First", "Then", "After"):
        assert rates[word].difference.low <= 0.002, word


def test_there_are_seven_lessons_and_scores_name_their_category() -> None:
    assert [s.stem[0] for s in SOURCES] == list("1234567")
    for folder in (FOLDER, FOLDER / "instructor"):
        assert sorted(p.stem for p in folder.glob("*.ipynb")) == [s.stem for s in SOURCES]
    # A scorecard holds scores of single topics beside those of all: a lesson names the latter.
    for source in SOURCES:
        text = source.read_text("utf-8")
        assert ("card.scores" in text) == ("s.category is None" in text), source.name
