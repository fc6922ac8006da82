"""The lens's search language, read and run here as lens_search.js does it in the page; one table of cases tests both.

    base p > 0.3 and aligned p < 0.05
    not (shift >= 0) or text contains "sure"
    0.1 < retention < 0.9 and base-favored

A comparison has a field or a number on each side; two in a row are joined by "and". `and` binds closer than `or`, `not`
closer than both. Where a value is missing a comparison does not hold. A text in quotes by itself means `text contains`:
it may run over several tokens, all of which match; case is ignored. Nothing is evaluated but this.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from workbench.core.errors import ParameterError
from workbench.core.quantities import SEARCH_WORDS

FLAGS = ("base-favored", "special", "partial", "given")

_LEXEME = re.compile(
    r"\s*(?:(?P<number>[-−]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)|(?P<string>\"[^\"]*\"|'[^']*'|“[^”]*”)"
    r"|(?P<op>>=|<=|!=|==|[><=≥≤≠])|(?P<paren>[()])|(?P<word>[a-zA-Z][a-zA-Z-]*))"
)
_MOST_NESTED = 40
_SAME = {"=": "==", "≥": ">=", "≤": "<=", "≠": "!="}
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}

Node = tuple[Any, ...]
"""A parsed expression: ("and", a, b), ("or", a, b), ("not", a), ("flag", name), ("contains", text), ("is", text), or
("compare", op, left, right) whose sides are ("field", name) or ("number", value)."""


@dataclass(frozen=True)
class _Lexeme:
    kind: str
    text: str
    at: int


class Search:
    """Hold a search that can be run along a response. Raises ParameterError where it cannot be read, saying where."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self._lexemes = _lexemes(expression)
        self._at = 0
        self.node = self._either()
        if self._now.kind != "end":
            self._expected("“and”, “or” or the end")

    def matches(
        self, values: Mapping[str, np.ndarray], flags: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> Bool[np.ndarray, "token"]:
        """Tell for each token whether it matches. `values` has all values of SEARCH_WORDS, `flags` all of FLAGS."""
        return _run(self.node, values, flags, texts)

    # ------------------------------------------------------------------------------------------ reading

    @property
    def _now(self) -> _Lexeme:
        return self._lexemes[self._at]

    def _take(self, kind: str, *words: str) -> str | None:
        """Return the next lexeme's text and move on, where it is of this kind (and one of these words)."""
        text = self._now.text
        if self._now.kind != kind or (words and text not in words):
            return None
        self._at += 1
        return text

    def _expected(self, what: str) -> None:
        found = f"“{self._now.text}”" if self._now.kind != "end" else "the end"
        raise ParameterError(f"the search cannot be read at character {self._now.at}: expected {what}, found {found}")

    def _either(self) -> Node:
        node = self._both()
        while self._take("word", "or"):
            node = ("or", node, self._both())
        return node

    def _both(self) -> Node:
        node = self._negated()
        while self._take("word", "and"):
            node = ("and", node, self._negated())
        return node

    def _negated(self) -> Node:
        return ("not", self._negated()) if self._take("word", "not") else self._single()

    def _single(self) -> Node:
        if self._take("paren", "("):
            node = self._either()
            if not self._take("paren", ")"):
                self._expected("“)”")
            return node
        if (quoted := self._take("string")) is not None:
            return ("contains", quoted[1:-1])
        if self._take("word", "text"):
            how = self._take("word", "contains", "is")
            if how is None:
                self._expected("“contains” or “is”")
            quoted = self._take("string")
            if quoted is None:
                self._expected("a text in quotes")
            return (how, str(quoted)[1:-1])
        if (flag := self._take("word", *FLAGS)) is not None:
            return ("flag", flag)
        return self._comparison()

    def _comparison(self) -> Node:
        left = self._side("a value such as “base p”, “shift” or “kl”, or a text in quotes")
        node: Node | None = None
        while (op := self._take("op")) is not None:
            right = self._side("a number or a value such as “base p”")
            step = ("compare", _SAME.get(op, op), left, right)
            node, left = step if node is None else ("and", node, step), right
        if node is None:
            self._expected("a comparison (> >= < <= = !=)")
        return node  # type: ignore[return-value]

    def _side(self, what: str) -> Node:
        if (number := self._take("number")) is not None:
            return ("number", float(number.replace("−", "-")))
        if self._now.kind == "word":
            two = f"{self._now.text} {self._lexemes[self._at + 1].text}"
            for phrase, size in ((two, 2), (self._now.text, 1)):
                if phrase in SEARCH_WORDS:
                    self._at += size
                    return ("field", SEARCH_WORDS[phrase])
        self._expected(what)
        raise AssertionError


def _lexemes(expression: str) -> list[_Lexeme]:
    found: list[_Lexeme] = []
    at = 0
    while expression[at:].strip():
        match = _LEXEME.match(expression, at)
        if match is None:
            start = at + len(expression[at:]) - len(expression[at:].lstrip())
            raise ParameterError(
                f"the search cannot be read at character {start + 1}: “{expression[start]}” means nothing here"
            )
        kind = str(match.lastgroup)
        text = match[kind]
        found.append(_Lexeme(kind, text.lower() if kind == "word" else text, match.start(kind) + 1))
        at = match.end()
    if sum(lexeme.text in ("(", "not") for lexeme in found) > _MOST_NESTED:
        raise ParameterError(f"the search has more than {_MOST_NESTED} brackets and “not”s: make it simpler")
    found.append(_Lexeme("end", "", len(expression) + 1))
    return found


def _run(
    node: Node, values: Mapping[str, np.ndarray], flags: Mapping[str, np.ndarray], texts: Sequence[str]
) -> Bool[np.ndarray, "token"]:
    match node:
        case ("and", a, b):
            return _run(a, values, flags, texts) & _run(b, values, flags, texts)
        case ("or", a, b):
            return _run(a, values, flags, texts) | _run(b, values, flags, texts)
        case ("not", a):
            return ~_run(a, values, flags, texts)
        case ("flag", name):
            return np.asarray(flags[name], bool)
        case ("contains", text):
            return _containing(texts, text.lower())
        case ("is", text):
            return np.array([t.strip().lower() == text.strip().lower() for t in texts], bool)
    _, op, *sides = node
    left, right = (
        np.asarray(values[side[1]], np.float64) if side[0] == "field" else np.full(len(texts), side[1])
        for side in sides
    )
    return _COMPARE[op](left, right) & ~np.isnan(left) & ~np.isnan(right)


def _containing(texts: Sequence[str], wanted: str) -> Bool[np.ndarray, "token"]:
    """Mark every token that a piece of running text runs over."""
    lowered = [t.lower() for t in texts]
    ends = np.cumsum([len(t) for t in lowered], dtype=np.int64)
    starts = ends - [len(t) for t in lowered]
    whole, found = "".join(lowered), np.zeros(len(texts), bool)
    at = whole.find(wanted) if wanted else -1
    while at >= 0:
        found |= (starts < at + len(wanted)) & (ends > at)
        at = whole.find(wanted, at + 1)
    return found
