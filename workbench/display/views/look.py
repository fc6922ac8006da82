"""What a penalty does at one position: base, aligned and each strength, side by side."""

from __future__ import annotations

from typing import Any

from workbench.core.legible import html_text
from workbench.display.views.responses import COVER, HarmfulText, label_of, treatment_of
from workbench.display.views.view import Column, View, columns, number, quoted, scrolling, table_view, titled
from workbench.evaluation.records import PenaltyLook


def penalty_look(look: PenaltyLook, *, harmful_text: HarmfulText = "auto") -> View:
    """Show the next-token distributions at one position, side by side: base, aligned, and each strength."""
    covered = treatment_of(look.label, look.classroom_safe, harmful_text) != "show"
    rows: list[dict[str, Any]] = []
    for i, said in enumerate(look.labels):
        line = dict(zip(look.columns, map(float, look.probability[i]), strict=True))
        rows.append({"token": label_of(said, covered), **line})
    rows.append({"token": "all other tokens", **dict(zip(look.columns, map(float, look.rest), strict=True))})
    moved = dict(zip(look.columns, map(float, look.leverage), strict=True))
    heads = "".join(
        f'<th scope="col" class="n">{html_text(c if i < 2 else f"strength {c}")}</th>'
        for i, c in enumerate(look.columns)
    )
    body = "".join(
        f"<tr{' class=wb-other' if row is rows[-1] else ''}>"
        f'<th scope="row">{_token(row["token"], row is rows[-1])}</th>'
        f"{''.join(_bar(c, row[c]) for c in look.columns)}</tr>"
        for row in rows
    )
    last = "".join(f'<td class="n">{html_text(number(moved[c]))}</td>' for c in look.columns)
    bound = (
        "this method has no limit that could be stated"
        if look.bound is None
        else f"at any strength at most {number(look.bound)}"
    )
    caption = (
        f"Next-token probabilities at position {look.position}. Base and aligned differ in {number(look.excess_mass)} "
        f"of their probability. The penalty is {look.penalty}, at rising strength; the "
        f"leverage of a column is its total variation from aligned ({bound})."
    )
    last = f'<tr class="wb-observed"><th scope="row">leverage, 0 to 1</th>{last}</tr>'
    title = f"The penalty at position {look.position}"
    before = COVER if covered else look.before
    return table_view(
        title,
        caption,
        (Column("token"), *columns(*look.columns, number=True)),
        [*rows, {"token": "leverage", **moved}],
        before=titled(title) + quoted("prompt", look.prompt) + quoted("response so far", before),
        drawn=scrolling(caption, f'<tr><th scope="col">token</th>{heads}</tr>', body + last),
    )


def _token(said: str, plain: bool) -> str:
    return html_text(said) if plain else f'<span class="wb-tok">{html_text(said)}</span>'


_BARS = {"base": "var(--wb-base-mid)", "aligned": "var(--wb-aligned-mid)"}


def _bar(column: str, share: float) -> str:
    width = 100 * min(max(share, 0.0), 1.0)
    colour = _BARS.get(column, "var(--wb-slate-5)")
    return (
        f'<td class="n" style="min-width:5.5rem">{html_text(number(share))}'
        f'<span class="wb-bar" style="width:{width:.1f}%;background:{colour};margin-inline-start:auto"></span></td>'
    )
