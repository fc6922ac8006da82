"""The generated parts of README and docs: answers of the shipped models, tables of cards, runs and simulations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from docs.making.parts import with_part


def test_every_generated_part_is_what_its_source_says(root: Path) -> None:
    # in a process of its own: the planner computes with shapes in place of models, which the type checks refuse
    script = (sys.executable, "-m", "docs.making.parts")
    done = subprocess.run(script, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "", "these pages are not what they are computed from: python -m docs.making.parts --write"


def test_a_part_stands_between_its_marks_once() -> None:
    page = "before <!-- x -->old<!-- end of x --> after"
    assert with_part(page, "x", "new") == "before <!-- x -->\n\nnew\n\n<!-- end of x --> after"
    with pytest.raises(AssertionError, match="0 parts"):
        with_part("no mark", "x", "new")
