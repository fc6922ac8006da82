"""Lessons: predictions that are checked against what a notebook has just computed, and the notebooks' one source.

check("1.2", answer, truth, ...) -> View      what a prediction is worth; unanswered ones stay covered
build(source, out, instructor=...)            a lesson's notebook for students, or with everything filled in
"""

from __future__ import annotations

from workbench.lessons.build import build, read_lesson
from workbench.lessons.check import check

__all__ = ["build", "check", "read_lesson"]
