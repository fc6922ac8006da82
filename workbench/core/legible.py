"""Text from models and prompts made legible and safe to show. It is text everywhere, never markup.

Two forms: `prose` keeps true spaces and line breaks for running text, `label` is one line in which every space, break
and invisible character has a printable sign. Both leave no control, bidirectional, private or unassigned character and
no lone surrogate. `html_text` and `plotly_text` then escape them for the place they go to.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence

_SIGNS = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}
_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"})
_ALSO_HIDDEN = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5")  # fillers: letters that show nothing
_JOINERS = frozenset("\u200c\u200d")
_BLANKS = frozenset("\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000")
_MOST_MARKS = 4


def _sign(char: str) -> str:
    return f"⟨U+{ord(char):04X}⟩"


def _is_joining(text: str, i: int) -> bool:
    """Tell whether a zero-width joiner stands between two non-ASCII characters, where scripts and emoji need it."""
    return 0 < i < len(text) - 1 and text[i - 1] > "\u00ff" and text[i + 1] > "\u00ff"


def _hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN or char in _ALSO_HIDDEN


def _printable(text: str, keep: str, signs: dict[str, str]) -> str:
    out: list[str] = []
    marks = 0
    for i, char in enumerate(text):
        if unicodedata.category(char) in ("Mn", "Me") and char not in _ALSO_HIDDEN:
            marks += 1
            if marks <= _MOST_MARKS:
                out.append(char if out else "◌" + char)
            elif marks == _MOST_MARKS + 1:
                out.append("⟨+marks⟩")
            continue
        marks = 0
        if char in keep:
            out.append(char)
        elif char in signs:
            out.append(signs[char])
        elif (_hidden(char) and not (char in _JOINERS and _is_joining(text, i))) or (char in _BLANKS and not keep):
            out.append(_sign(char))
        else:
            out.append(char)
    return "".join(out)


def shortened(text: str, most: int) -> str:
    """Cut a text to `most` characters and say how many were left out."""
    return text if len(text) <= most else f"{text[:most]}…(+{len(text) - most:,} characters)"


def prose(text: str, most: int = 2_000) -> str:
    """Return the running-text form: spaces, tabs and line breaks kept, what is invisible otherwise made visible."""
    return _printable(shortened(text, most).replace("\r\n", "\n"), " \n\t", _SIGNS)


def label(text: str, most: int = 40) -> str:
    """Return the one-line form: a sign for each space (·), line break (↵), tab (⇥) and invisible character."""
    return _printable(shortened(text, most), "", _SIGNS)


def sentence(text: str, most: int = 400) -> str:
    """Return a text on one line with ordinary spaces, for prompts in tables and captions."""
    return _printable(" ".join(shortened(text, most).split()), " ", _SIGNS)


def html_text(text: str) -> str:
    """Escape a legible text for HTML content and for double-quoted attributes."""
    return html.escape(text, quote=True)


def plotly_text(text: str) -> str:
    """Escape a legible text for plotly, which reads pseudo-HTML, `$...$` and `%{...}` in every label."""
    return html.escape(text, quote=False).replace("$", "&#36;").replace("%{", "&#37;{")


def aligned(lines: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return lines of cells as a table of plain text; the columns numbered in `right` are set to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def cell(i: int, text: str) -> str:
        return text.rjust(widths[i]) if i in right else text.ljust(widths[i])

    return "\n".join("  ".join(cell(i, text) for i, text in enumerate(line)).rstrip() for line in lines)
