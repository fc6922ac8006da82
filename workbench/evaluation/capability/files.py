"""Question files: checked rows, and their tasks of lm-evaluation-harness by tasks.yaml."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from workbench.core.errors import NotPresent, ParameterError, PromptError
from workbench.evaluation.capability.config import BUILT_IN

Row = dict[str, Any]
BUILT_IN_FOLDER = Path(__file__).resolve().parent / "questions"
LETTERS = "ABCDEFGHIJ"
BARE = {"choices": "{{question.strip()}}", "bbh": "{{input}}"}
"""The prompt of a question without words around it."""
BRINDLE_TOKENS = 32
"""The longest answer to a built-in question."""


@dataclass(frozen=True, kw_only=True)
class QuestionFile:
    """One local file: its shape, its rows, and `bare` where questions have no words around them."""

    name: str
    shape: str
    rows: tuple[Row, ...]
    bare: bool = False
    max_tokens: int | None = None


def question_files(task: str) -> tuple[QuestionFile, ...]:
    """Read the local files that a task names; none for a task of the harness.

    Raises NotPresent for a missing path, PromptError for a file that cannot be read or with rows of another shape.
    """
    if task == BUILT_IN:
        parts = (("choices", "facts.jsonl"), ("bbh", "skills.json"), ("text", "text.jsonl"))
        paths = [(shape, BUILT_IN_FOLDER / file) for shape, file in parts]
        how: dict[str, Any] = {"bare": True, "max_tokens": BRINDLE_TOKENS}
        return tuple(QuestionFile(name=f"{BUILT_IN}_{p.stem}", shape=s, rows=_read(p, s), **how) for s, p in paths)
    shape, colon, where = task.partition(":")
    if not colon:
        return ()
    path = Path(where).expanduser()
    if not path.exists():
        raise NotPresent(f"there is no question file {where!r} in {str(path.parent.resolve())!r}: give a path")
    if not path.is_dir():
        return (QuestionFile(name=_name(path.stem), shape=shape, rows=_read(path, shape)),)
    found = sorted(p for p in path.iterdir() if p.suffix in (".json", ".jsonl"))
    if not found:
        raise NotPresent(f"the folder {where!r} holds no question file (.json or .jsonl)")
    return tuple(QuestionFile(name=_name(f"{path.name}_{p.stem}"), shape=shape, rows=_read(p, shape)) for p in found)


def _name(stem: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_") or "questions"


def _read(path: Path, shape: str) -> tuple[Row, ...]:
    try:
        rows = _rows(path.read_text("utf-8-sig"), path.suffix, shape)
    except (UnicodeDecodeError, json.JSONDecodeError, OSError) as error:
        raise PromptError(f"the question file {str(path)!r} cannot be read: {error}") from None
    if not rows:
        raise PromptError(f"the question file {str(path)!r} holds no question: give one with rows")
    kept, problems = [], []
    for n, row in enumerate(rows, 1):
        try:
            kept.append(_CHECKS[shape](row))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            problems.append(f"row {n}: {what}")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise PromptError(f"{str(path)!r} does not have the shape {shape!r}: {'; '.join(problems[:5])}{more}")
    return tuple(kept)


def _rows(text: str, suffix: str, shape: str) -> list[Any]:
    if shape == "text" and suffix not in (".json", ".jsonl"):
        return [{"text": part} for part in re.split(r"\n\s*\n", text) if part.strip()]
    if suffix == ".json":
        body = json.loads(text)
        return body["examples"] if isinstance(body, dict) and "examples" in body else body
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _text(row: Row, name: str) -> str:
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is {value!r}, not a text")
    return value


def _choices(row: Row) -> Row:
    question, choices = _text(row, "question"), row["choices"]
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"choices must be a list of 2 to {len(LETTERS)} texts")
    answer = row["answer"]
    if isinstance(answer, str) and answer.strip().upper() in LETTERS[: len(choices)]:
        answer = LETTERS.index(answer.strip().upper())
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise ValueError(f"answer is {row['answer']!r}, not the index or the letter of one of {len(choices)} choices")
    subject = str(row.get("subject") or "")
    return {"question": question, "choices": [str(c) for c in choices], "answer": answer, "subject": subject}


def _math(row: Row) -> Row:
    answer = _text(row, "answer")
    if "####" not in answer:
        raise ValueError("answer has no '#### NUMBER' at its end")
    return {"question": _text(row, "question"), "answer": answer}


_CHECKS: Mapping[str, Callable[[Any], Row]] = {
    "mmlu": _choices,
    "choices": _choices,
    "bbh": lambda row: {"input": _text(row, "input"), "target": _text(row, "target")},
    "gsm8k": _math,
    "text": lambda row: {"text": _text(row, "text")},
}


def harness_tasks(file: QuestionFile, *, shots: int, max_tokens: int | None) -> dict[str, Any]:
    """Return the harness's config of a file: a task, or for several subjects a group with a task for each.

    Raises ParameterError where a file, or a subject of it, has no row left after its examples.
    """
    by_subject: dict[str, list[Row]] = {}
    for row in file.rows:
        by_subject.setdefault(row.get("subject", "") if file.shape in ("mmlu", "choices") else "", []).append(row)
    named = [(file.name if len(by_subject) == 1 else f"{file.name}_{_name(s)}", s, r) for s, r in by_subject.items()]
    tasks = [_task(file, name, subject, rows, shots, max_tokens) for name, subject, rows in named]
    if len(tasks) == 1:
        return tasks[0]
    metrics = [m["metric"] for m in tasks[0]["metric_list"]]
    return {
        "group": file.name,
        "task": tasks,
        "aggregate_metric_list": [{"metric": m, "aggregation": "mean", "weight_by_size": True} for m in metrics],
        "metadata": {"version": 1},
    }


def _task(
    file: QuestionFile, name: str, subject: str, rows: Sequence[Row], shots: int, max_tokens: int | None
) -> dict[str, Any]:
    from datasets import Dataset

    if len(rows) <= shots:
        raise ParameterError(
            f"{name} has {len(rows)} questions, and shots={shots} takes the first {shots} of them as examples, so none "
            "is left: lower shots"
        )
    examples, asked = list(rows[:shots]), list(rows[shots:])
    config: dict[str, Any] = {
        "task": name,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(asked)},
        "test_split": "test",
        "num_fewshot": shots,
        "fewshot_config": {"sampler": "first_n", "samples": examples},
        "metadata": {"version": 1},
        **_wording(file, subject, asked),
    }
    longest = max_tokens or file.max_tokens
    if longest is not None and "generation_kwargs" in config:
        config["generation_kwargs"] = {**config["generation_kwargs"], "max_gen_toks": longest}
    return config


@functools.cache
def _shapes() -> Mapping[str, Any]:
    import yaml

    shapes: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("tasks.yaml").read_text("utf-8"))
    return shapes


def _wording(file: QuestionFile, subject: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the task settings of a file's shape; a bare file has no words around its questions."""
    letters = file.shape == "bbh" and all(re.fullmatch(r"\([A-Z]\)", row["target"]) for row in rows)
    made = copy.deepcopy(_shapes()["bbh_letters" if letters else file.shape])
    if "description" in made:
        made["description"] = made["description"].format(about=f" about {subject.replace('_', ' ')}" if subject else "")
    if file.bare and file.shape in BARE:
        made["doc_to_text"] = BARE[file.shape]
    return cast(dict[str, Any], made)
