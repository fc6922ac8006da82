"""What a view is: a piece of static HTML with a plain-text form and its rows, and the table that all views use."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from workbench.core import palette
from workbench.core.legible import aligned, html_text, prose, sentence
from workbench.core.records import Estimate

NO_VALUE = "–"
"""What a cell says where there is no number: missing is not zero."""


@dataclass(frozen=True, kw_only=True)
class View:
    """Show a record in any front end: HTML that needs no kernel and no network, the same in plain text, and its rows.

    `body` is the fragment without style and script, for pages that carry those once; `html` is self-contained.
    """

    title: str
    body: str
    text: str
    rows: tuple[Mapping[str, Any], ...] = ()

    @property
    def html(self) -> str:
        """Return the self-contained fragment: style, body and the small script behind cards and slider."""
        live = any(f'class="wb wb-{kind}' in self.body for kind in ("tokens", "film", "first", "beside"))
        script = f"<script>{script_text()}</script>" if live else ""
        return f"<style>{style_text()}</style>{self.body}{script}"

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/html": self.html, "text/plain": self.text}


def _resource(name: str) -> str:
    return files("workbench.display.views").joinpath(name).read_text("utf-8")


@functools.cache
def style_text() -> str:
    """Return the style sheet of all views, colours included."""
    levels = []
    for ramp in palette.RAMPS:
        levels += [f"& .wb-{ramp}{i} {{ background-color: var(--wb-{ramp}-{i}); }}" for i in range(1, 6)]
    colours = f".wb.wb, .wb-card.wb-card {{\n{palette.css_variables()}\n}}\n"
    whole = colours + _resource("view.css").replace("/* levels: LEVELS */", "\n  ".join(levels))
    without = re.sub(r"/\*.*?\*/", "", whole, flags=re.DOTALL)  # every output of a notebook carries it
    return re.sub(r"\s*\n\s*", "\n", without)


@functools.cache
def script_text() -> str:
    """Return the scripts of token cards, first screens and columns of arms; views read without them."""
    return _resource("view.js") + _resource("first.js") + beside_script() + _resource("beside_page.js")


def beside_script() -> str:
    """Return the function that draws arms side by side, for pages and for the live widget."""
    return _resource("beside.js")


def section(kind: str, title: str, *parts: str) -> str:
    """Wrap HTML parts in the root element of a view. MathJax leaves it alone: text is text."""
    name = html_text(title)
    classes = f"wb wb-{kind} mathjax_ignore tex2jax_ignore"
    return f'<section class="{classes}" aria-label="{name}">{"".join(parts)}</section>'


def disclosure(summary: str, content: str, kind: str = "") -> str:
    """Return content that the reader opens: a native <details>, closed at first."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<details{attribute}><summary>{html_text(summary)}</summary>{content}</details>"


@dataclass(frozen=True)
class Column:
    """One column of a table: its heading, the key in each row (empty: the heading), and what it holds."""

    heading: str
    key: str = ""
    number: bool = False
    token: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.key or self.heading)


@dataclass(frozen=True)
class Link:
    """A cell that leads somewhere: its text, and a relative address (None: the text alone)."""

    text: str
    address: str | None

    def __str__(self) -> str:
        return self.text


def columns(*names: str | tuple[str, str], number: bool = False) -> tuple[Column, ...]:
    """Return columns by their headings, or by heading and key; `number`: they hold numbers."""
    pairs = ((n, n) if isinstance(n, str) else n for n in names)
    return tuple(Column(heading, key, number) for heading, key in pairs)


def bullets(texts: Iterable[str]) -> str:
    """Return texts as an HTML list, empty where there are none."""
    items = "".join(f"<li>{html_text(sentence(t, 2_000))}</li>" for t in texts)
    return f"<ul>{items}</ul>" if items else ""


def titled(said: str, label: str = "", soft: str = "") -> str:
    """Return a title line: the prompts' label, what it is about, and in soft print what else there is to say."""
    tag = f'<span class="wb-tag wb-{label}">{label}</span>' if label else ""
    more = f' <span class="wb-soft">{html_text(soft)}</span>' if soft else ""
    return f'<p class="wb-title">{tag}{html_text(said)}{more}</p>'


def notes(*texts: str, css: str = "wb-note wb-soft") -> str:
    """Return notes, a paragraph each."""
    return "".join(f'<p class="{css}">{html_text(text)}</p>' for text in texts)


def quoted(role: str, text: str | None) -> str:
    """Return a given text (a prompt, say) in its box, nothing where there is none."""
    said = html_text(prose(text or ""))
    return f'<div class="wb-prompt"><span class="wb-role">{role}</span>{said}</div>' if said else ""


def table_view(
    title: str,
    caption: str,
    heads: Sequence[Column],
    rows: Sequence[Mapping[str, Any]],
    *more: str,
    before: str = "",
    lines: Sequence[str] = (),
    none: str | None = None,
    kind: str = "",
    drawn: str = "",
    shown: Sequence[Mapping[str, Any]] | None = None,
) -> View:
    """Return rows as a view: a table between `before` and `more`, in plain text with `lines` below it.

    Without rows it says `none` (None: the caption, and "none"). A long table scrolls. `drawn` is the table's HTML where
    its cells hold more than text; `shown` are the view's rows where the table says them in other words.
    """
    if not rows:
        none = f"{caption}: none." if none is None else none
        return View(title=title, body=section("table", title, before, f"<p>{html_text(none)}</p>", *more), text=none)
    body = section("table", title, before, drawn or table(caption, heads, rows, kind=kind, tall=len(rows) > 25), *more)
    text = "\n".join([caption, plain_table(heads, rows), *lines])
    return View(title=title, body=body, text=text, rows=tuple(rows if shown is None else shown))


def summary_view(title: str, word: str, sentences: Sequence[str], *more: str, lines: Sequence[str] = ()) -> View:
    """Return a word and the sentences under it as a view, in plain text with `lines` below them."""
    said = f'<div class="wb-verdict"><p class="wb-word">{html_text(sentence(word))}</p>{bullets(sentences)}</div>'
    text = "\n".join([word, *(f"- {sentence(s, 2_000)}" for s in sentences), *lines])
    rows = ({"said": word, "sentences": tuple(sentences)},)
    return View(title=title, body=section("summary", title, said, *more), text=text, rows=rows)


def table(
    caption: str, columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], *, kind: str = "", tall: bool = False
) -> str:
    """Return a table with caption and scoped headings. Every cell is text; the first column heads its row."""

    def opening(tag: str, column: Column, scope: str | None = None) -> str:
        plain = kind == "wb-data" and scope != "col"  # there every cell is a number unless it says otherwise
        names = " ".join(
            n for n, on in (("n", column.number and not plain), ("wb-tok", column.token and scope != "col")) if on
        )
        return f"<{tag}" + (f' scope="{scope}"' if scope else "") + (f' class="{names}">' if names else ">")

    heads = "".join(f"{opening('th', c, 'col')}{html_text(c.heading)}</th>" for c in columns)
    lines = []
    for row in rows:
        cells = []
        for i, column in enumerate(columns):
            tag = "td" if i else "th"
            start = opening(tag, column, None if i else "row")
            value = row.get(column.key)
            said = html_text(cell(value))
            if isinstance(value, Link) and value.address is not None:
                said = f'<a href="{html_text(value.address)}">{said}</a>'
            cells.append(f"{start}{said}</{tag}>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return scrolling(caption, f"<tr>{heads}</tr>", "".join(lines), kind=kind, tall=tall)


def scrolling(caption: str, head: str, body: str, *, kind: str = "", tall: bool = False) -> str:
    """Return the rows of a table, given as HTML, with its caption, in a box that scrolls."""
    attribute, said = f' class="{kind}"' if kind else "", html_text(caption)
    return (
        f'<div class="wb-scroll{" wb-tall" if tall else ""}" tabindex="0" role="group" aria-label="{said}">'
        f"<table{attribute}><caption>{said}</caption><thead>{head}</thead><tbody>{body}</tbody></table></div>"
    )


def cell(value: Any) -> str:
    """Return a value as a cell says it: three significant digits, thousands separated, a dash where there is none."""
    if value is None:
        return NO_VALUE
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    return str(value)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number to about so many significant digits with a true minus sign; a dash for None, NaN and infinity."""
    if value is None or not math.isfinite(value):
        return NO_VALUE
    size = abs(value)
    if size == 0:
        return "0"
    if 1e-4 <= size < 1e6:
        places = max(0, digits - 1 - math.floor(math.log10(size))) if size >= 1 else digits
        places = max(digits + 1, -math.floor(math.log10(size))) if size < 0.01 else places
        return f"{value:,.{places}f}".replace("-", "−")
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "−")


def interval(estimate: Estimate) -> str:
    """Return an estimate's interval as text, a dash where there is none."""
    if estimate.low is None or estimate.high is None:
        return NO_VALUE
    return f"{number(estimate.low)} to {number(estimate.high)}"


def plain_table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as an aligned plain-text table."""
    cells = [[c.heading for c in columns]] + [[cell(row.get(c.key)) for c in columns] for row in rows]
    return aligned(cells, right=[i for i, c in enumerate(columns) if c.number])
