"""The generator of lessons' notebooks from Markdown files; `python -m recipes.lessons` makes them all.

Code is in ```python blocks; `parameters` after the word marks the parameters cell. An exercise is

    ```exercise 1.2
    question: ...
    truth: an expression of names that the notebook has defined before
    tolerance: 0.05            (or options: first | second)
    unit: nats
    hint: ...                  (any number of them)
    why: the point of the answer
    ```

and becomes three cells: the question with folded hints, the answer (None for students, the truth itself for
instructors), and the check. The first ```smoke block holds the settings of a quick run, as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import ParameterError
from workbench.core.files import atomic_file

KEYS = ("question", "truth", "tolerance", "options", "unit", "hint", "why")
_FENCE = re.compile(r"^```(\w+) ?(.*)$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A piece of a lesson: kind is "text", "python", "exercise" or "smoke", `about` the rest of its first line."""

    kind: str
    about: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise: `truth` is an expression, `answer` the name that students set."""

    name: str
    question: str
    truth: str
    tolerance: float | None
    options: tuple[str, ...]
    unit: str
    hints: tuple[str, ...]
    why: str

    @property
    def answer(self) -> str:
        """Return the name of the answer's variable."""
        return f"answer_{self.name.replace('.', '_')}"

    @property
    def wanted(self) -> str:
        """Return the kind of answer in words."""
        return " or ".join(map(repr, self.options)) if self.options else f"a number{f', {self.unit}' * bool(self.unit)}"


def read_lesson(file: Path) -> list[Block]:
    """Return a lesson's blocks in order. Raises ParameterError, with the line, for an open fence."""
    blocks: list[Block] = []
    kind, about, lines, opened = "text", "", list[str](), 0

    def close() -> None:
        text = "\n".join(lines).strip("\n")
        if text.strip():
            blocks.append(Block(kind=kind, about=about, text=text))
        lines.clear()

    for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1):
        found = _FENCE.match(line) if kind == "text" else None
        if found and found[1] in ("python", "exercise", "smoke"):
            close()
            kind, about, opened = found[1], found[2].strip(), number
        elif line == "```" and kind != "text":
            close()
            kind, about = "text", ""
        else:
            lines.append(line)
    if kind != "text":
        raise ParameterError(f"{file.name}: the ```{kind} block of line {opened} has no end: close it by ```")
    close()
    return blocks


def exercise_of(block: Block, where: str) -> Exercise:
    """Read an exercise. Raises ParameterError for a key that is unknown, missing or given twice."""
    found: dict[str, list[str]] = {k: [] for k in KEYS}
    key = ""
    for line in block.text.splitlines():
        name, colon, rest = line.partition(":")
        if colon and name in found:
            key = name
            found[key].append(rest.strip())
        elif line.startswith("  ") and key:
            found[key][-1] += " " + line.strip()
        else:
            keys = ", ".join(KEYS)
            raise ParameterError(f"{where}, exercise {block.about}: {line!r} has no key: begin it with one of {keys}")
    once = {k: v[0] if v else "" for k, v in found.items()}
    missing = [k for k in ("question", "truth", "why") if not once[k]]
    twice = [k for k in KEYS if k != "hint" and len(found[k]) > 1]
    if missing or twice or not block.about or bool(once["tolerance"]) == bool(once["options"]):
        raise ParameterError(
            f"{where}, exercise {block.about or '(no number)'}: missing {missing}, twice {twice}: give a number, a "
            "question, a truth, a why, and either a tolerance or options"
        )
    return Exercise(
        name=block.about,
        question=once["question"],
        truth=once["truth"],
        tolerance=float(once["tolerance"]) if once["tolerance"] else None,
        options=tuple(o.strip() for o in once["options"].split("|")) if once["options"] else (),
        unit=once["unit"],
        hints=tuple(found["hint"]),
        why=once["why"],
    )


def build(source: Path, out: Path, *, instructor: bool) -> Path:
    """Write a lesson's notebook: for students, or for instructors with answers filled in and explained."""
    cells: list[dict[str, Any]] = []
    smoke: dict[str, Any] = {}
    for block in read_lesson(source):
        if block.kind == "smoke":
            smoke = json.loads(block.text)
        elif block.kind == "text":
            cells += [_cell("markdown", part) for part in re.split(r"\n(?=#)", block.text)]
        elif block.kind == "python":
            cells.append(_cell("code", block.text, tags=[block.about] if block.about else []))
        else:
            cells += _exercise(exercise_of(block, source.name), instructor)
    for number, cell in enumerate(cells):
        cell["id"] = f"{source.stem.replace('_', '-')[:24]}-{number:02d}"
    body = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "workbench": {"smoke": smoke},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as partial:
        partial.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return out


def _exercise(e: Exercise, instructor: bool) -> list[dict[str, Any]]:
    hints = [_folded(f"Hint {n}", hint) for n, hint in enumerate(e.hints, start=1)]
    question = "\n\n".join([f"**Exercise {e.name}.** {e.question}", *hints])
    truth = f"truth_{e.name.replace('.', '_')}"
    given = truth if instructor else "None"
    how = f"options={list(e.options)!r}" if e.options else f"tolerance={e.tolerance:g}"
    unit = f", unit={e.unit!r}" if e.unit and not e.options else ""
    computed = f"{truth} = {e.truth}"
    answered = f"{e.answer} = {given}  # {e.wanted}"
    checked = f"wb.check({e.name!r}, {e.answer}, {truth}, {how}{unit})"
    asked = [f"{computed}\n{answered}", checked] if instructor else [answered, f"{computed}\n{checked}"]
    cells = [_cell("markdown", question), *(_cell("code", lines) for lines in asked)]
    return [*cells, _cell("markdown", e.why if instructor else _folded("After you have answered: why", e.why))]


def _folded(summary: str, text: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def _cell(kind: str, text: str, tags: Sequence[str] = ()) -> dict[str, Any]:
    source = text.strip("\n").splitlines(keepends=True)
    cell: dict[str, Any] = {"cell_type": kind, "id": "", "metadata": {"tags": list(tags)} if tags else {}}
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return {**cell, "source": source}


def build_all(folder: Path) -> list[Path]:
    """Make both notebooks of every source in `folder/source`."""
    made = []
    for source in sorted((folder / "source").glob("*.md")):
        made.append(build(source, folder / f"{source.stem}.ipynb", instructor=False))
        made.append(build(source, folder / "instructor" / f"{source.stem}.ipynb", instructor=True))
    return made


if __name__ == "__main__":
    build_all(Path(__file__).resolve().parents[1] / "notebooks" / "lessons")
