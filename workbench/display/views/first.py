"""The first screen of a report and of a notebook: what was found, three numbers, the picture that shows it.

A screen is a title with a subject, one sentence, three tiles, a tile of warnings where there are any, and drawings. The
example stands below it: in a notebook a live widget, in a report the same sealed. Every word is computed from records.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.core.legible import html_text, percent, sentence
from workbench.core.records import Estimate
from workbench.display.views.view import View, number, section

WARNINGS_SHOWN = 2


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One number of a first screen: its value, its name, and its interval, n and what a good value is."""

    value: str
    name: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One drawing of a first screen, with its heading, what is drawn in soft print, and its share of the width."""

    title: str
    soft: str
    drawing: str
    share: int = 1


@dataclass(frozen=True, kw_only=True)
class FirstScreen(View):
    """A first screen: a report puts it above everything else, its title as the title of the page.

    `arms` are those that it compares, the reference first; empty where it compares none.
    """

    arms: tuple[str, ...] = ()


def first_screen(
    title: str, under: str, tiles: Sequence[Tile], pictures: Sequence[Picture], warnings: Sequence[str] = ()
) -> FirstScreen:
    """Return a first screen of these parts; warnings that do not fit into their tile are counted there."""
    boxes = [
        f'<div class="wb-tile"><b>{html_text(t.value)}</b><span>{html_text(t.name)}</span>'
        f'<span class="wb-soft">{html_text(t.note)}</span></div>'
        for t in tiles
    ]
    said = [sentence(w, 2_000) for w in warnings]
    if said:
        count = f"{len(said)} warning{'s' if len(said) > 1 else ''}"
        shown = "".join(f'<li title="{html_text(w)}">{html_text(_brief(w))}</li>' for w in said[:WARNINGS_SHOWN])
        more = f"<li>and {len(said) - WARNINGS_SHOWN} more below</li>" if len(said) > WARNINGS_SHOWN else ""
        boxes.append(f'<div class="wb-tile wb-amber"><b>{count}</b><ul>{shown}{more}</ul></div>')
    drawn = [
        f'<figure style="flex: {p.share} 1 {12 * p.share}rem"><figcaption><b>{html_text(p.title)}</b> '
        f'<span class="wb-soft">{html_text(p.soft)}</span></figcaption>{p.drawing}</figure>'
        for p in pictures
        if p.drawing
    ]
    whole = section(
        "first",
        "What was found",
        f'<h1 class="wb-found-title">{html_text(sentence(title, 200))}</h1>',
        f'<p class="wb-under">{html_text(sentence(under, 600))}</p>' if under else "",
        f'<div class="wb-tiles">{"".join(boxes)}</div>',
        f'<div class="wb-pictures">{"".join(drawn)}</div>' if drawn else "",
    )
    body = re.sub(r"(?<=\d) %", "\u00a0%", whole)  # a number and its sign stay on one line
    lines = [title, under, *(f"{t.name}: {t.value} ({t.note})" for t in tiles), *(f"Warning: {w}" for w in said)]
    rows = tuple({"name": t.name, "value": t.value, "note": t.note} for t in tiles)
    return FirstScreen(title="What was found", body=body, text="\n".join(filter(None, lines)), rows=rows)


def _brief(warning: str, most: int = 76) -> str:
    """Return the beginning of a warning, cut at a word; the whole of it is its title and stands further down."""
    return warning if len(warning) <= most else warning[:most].rpartition(" ")[0] + " …"


def between(estimate: Estimate, *, share: bool = False) -> str:
    """Return an estimate's interval and n: "97.6 to 97.9 · n = 20"; without an interval n alone."""
    n = f"n = {estimate.n:,}"
    if estimate.low is None or estimate.high is None:
        return n
    low, high = (percent(x).removesuffix(" %") if share else number(x) for x in (estimate.low, estimate.high))
    return f"{low} to {high} · {n}"
