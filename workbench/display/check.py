"""Compare a prediction with what was computed, and say how far it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from workbench.core.errors import ParameterError
from workbench.core.legible import html_text
from workbench.display.views.view import View, section


def check(
    name: str,
    answer: Any,
    truth: Any,
    *,
    tolerance: float | None = None,
    unit: str = "",
    options: Sequence[str] = (),
) -> View:
    """Say whether a prediction is right; None is unanswered, and the truth stays covered.

    A number is right within `tolerance` of the truth, in its unit; a choice where it is the truth, one of `options`, in
    any case. A number may come as text, or as an array or tensor of one entry. A share (`unit` "share") is from 0 to 1.
    The view names an answer of the wrong kind, or one that cannot be, and reveals nothing. Never raises for what a
    student wrote; raises ParameterError for a truth that is no number (or none of the options), which is the lesson's
    own mistake.
    """
    if options:
        if truth not in options:
            raise ParameterError(f"exercise {name}: the truth {truth!r} is none of {', '.join(options)}")
        said = _choice(answer, str(truth), options)
    else:
        value = float(truth)
        if not math.isfinite(value) or tolerance is None:
            raise ParameterError(f"exercise {name}: the truth is {value} and the tolerance {tolerance}: give both")
        said = _number(answer, value, tolerance, unit)
    title = f"Exercise {name}"
    word, rest = said
    body = (
        f'<div class="wb-verdict"><p class="wb-word">{html_text(f"{title}: {word}")}</p><p>{html_text(rest)}</p></div>'
    )
    return View(title=title, body=section("summary", title, body), text=f"{title}: {word}. {rest}")


def _number(answer: Any, truth: float, tolerance: float, unit: str) -> tuple[str, str]:
    wanted = f"a number{f' ({unit})' if unit else ''}"
    if answer is None:
        return _unanswered(wanted)
    said = _read(answer)
    if said is None:
        return "not an answer yet", f"{_named(answer)}; the answer is {wanted}."
    if not math.isfinite(said):
        return "not an answer yet", f"That is no finite number; the answer is {wanted}."
    if unit == "share" and not 0 <= said <= 1:
        meant = f" Did you mean {said / 100:g}?" if 1 < said <= 100 else ""
        return "not an answer yet", f"{said:g} is no share, which is from 0 to 1.{meant}"
    off = said - truth
    shown = f"Predicted {said:.4g}, computed {truth:.4g}{f' {unit}' if unit else ''}"
    if abs(off) <= tolerance + 1e-9 * max(1.0, abs(truth)):  # 0.505 is within 0.005 of 0.5
        return "right", f"{shown}: within {tolerance:g}."
    return f"too {'high' if off > 0 else 'low'}", f"{shown}: {abs(off):.4g} off, and {tolerance:g} is allowed. Why?"


def _read(answer: Any) -> float | None:
    """Return a number that a student wrote; None for what is no number."""
    if hasattr(answer, "item") and not isinstance(answer, Real):  # an array or a tensor
        size = answer.numel() if hasattr(answer, "numel") else answer.size
        answer = answer.item() if size == 1 else None
    if isinstance(answer, bool) or not isinstance(answer, Real | str):
        return None
    try:
        return float(answer)
    except OverflowError:
        return math.inf
    except ValueError:
        return None


def _choice(answer: Any, truth: str, options: Sequence[str]) -> tuple[str, str]:
    wanted = f"one of: {', '.join(map(repr, options))}"
    if answer is None:
        return _unanswered(wanted)
    said = answer.strip().casefold() if isinstance(answer, str) else None
    meant = next((option for option in options if option.casefold() == said), None)
    if meant is None:
        return "not an answer yet", f"{_named(answer)} and not among the choices; the answer is {wanted}."
    if meant == truth:
        return "right", f"It is {truth!r}."
    return "no", f"Predicted {meant!r}, and it is {truth!r}. Look at the numbers once more: why?"


def _named(answer: Any) -> str:
    return f"{answer[:40]!r} is a str" if isinstance(answer, str) else f"That is a {type(answer).__name__}"


def _unanswered(wanted: str) -> tuple[str, str]:
    return "not answered yet", f"Put your prediction in the cell above, {wanted}, and run both cells again."
