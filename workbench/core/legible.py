"""Text from models and prompts made legible and safe to show. It is text everywhere, never markup.

`prose` keeps spaces and line breaks; `label` is one line in which every space, break and invisible character has a
printable sign. Neither leaves a control, bidirectional, private or unassigned character or a lone surrogate.
`html_text` and `plotly_text` then escape the result.
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


def _is_hidden(text: str, i: int) -> bool:
    """Tell whether a character shows nothing; zero-width joiners count unless a script or emoji needs them."""
    if text[i] in _JOINERS and 0 < i < len(text) - 1 and text[i - 1] > "\u00ff" and text[i + 1] > "\u00ff":
        return False
    return unicodedata.category(text[i]) in _HIDDEN or text[i] in _ALSO_HIDDEN


def _printable(text: str, keep: str, signs: dict[str, str]) -> str:
    if text.isascii() and text.isprintable():  # nothing is hidden, and of the signs only a space can occur
        return text if " " in keep else text.replace(" ", signs[" "])
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
        elif _is_hidden(text, i) or (char in _BLANKS and not keep):
            out.append(f"⟨U+{ord(char):04X}⟩")
        else:
            out.append(char)
    return "".join(out)


def shortened(text: str, most: int) -> str:
    """Cut a text to `most` characters, with a note of how many were cut."""
    return text if len(text) <= most else f"{text[:most]}…(+{len(text) - most:,} characters)"


def prose(text: str, most: int = 2_000) -> str:
    """Return the running-text form: spaces, tabs and line breaks stay, other invisible characters become signs."""
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
    """Return lines of cells as a table of plain text; the columns numbered in `right` are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def cell(i: int, text: str) -> str:
        return text.rjust(widths[i]) if i in right else text.ljust(widths[i])

    return "\n".join("  ".join(cell(i, text) for i, text in enumerate(line)).rstrip() for line in lines)


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share in per cent, with a decimal where it needs one; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.{digits}f}".removesuffix(".0").replace("-", "−") + " %"
