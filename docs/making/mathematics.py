"""Formulas become MathML while the site is built: browsers draw it by themselves, with no script and no font."""

from __future__ import annotations

import html
import re

_FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def with_mathml(page: str) -> str:
    """Return a page's HTML with every formula that arithmatex marked as MathML.

    Raises ValueError for a command that the converter does not know: it would print it as text.
    """
    return _FORMULA.sub(lambda m: _mathml(m[2].strip(), block=m[1] == "div"), page)


def _mathml(marked: str, *, block: bool) -> str:
    from latex2mathml.converter import convert

    formula = html.unescape(marked).removeprefix("\\(").removesuffix("\\)").removeprefix("\\[").removesuffix("\\]")
    made = convert(formula.strip(), display="block" if block else "inline")
    left = re.findall(r"\\[A-Za-z]+", html.unescape(re.sub(r"<[^>]*>", "", made)))
    if left:
        raise ValueError(f"the formula {formula.strip()!r} holds {left[0]}, which did not become MathML")
    return f'<div class="formula" tabindex="0">{made}</div>' if block else made
