"""Continuations read side by side, and the ledger of what a penalty did to one of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

from workbench.core import legible
from workbench.core.legible import html_text
from workbench.decoding.records import Continuations
from workbench.display.views.responses import COVER, HarmfulText, as_treated, label_of, treatment_of
from workbench.display.views.view import Column, View, columns, notes, quoted, section, table_view, titled


def side_by_side(arms: Mapping[str, Continuations], *, harmful_text: HarmfulText = "auto", response: int = 0) -> View:
    """Show one prompt's continuations side by side: given tokens dotted, and filled what the penalty changed."""
    first = next(iter(arms.values()))
    c = first.continuations[response]
    treat = treatment_of(c.label, first.classroom_safe, harmful_text)
    cards, rows = [], []
    for name, made in arms.items():
        mine = made.continuations[response]
        changed = int(made.changed()[response].sum())
        length = int(made.mask[response].sum())
        said = "" if made.penalty.get("method") == "none" or name == "base" else f", {changed} changed"
        head = f"{name} · {length} tokens{said}"
        text = as_treated(treat, functools.partial(_marked, made, response), "text")
        cards.append(
            f'<div><p class="wb-title" style="margin-bottom:0">{html_text(head)}</p>'
            f'<div class="wb-text" style="font-size:14px;line-height:1.75">{text}</div></div>'
        )
        shown = COVER if treat != "show" else mine.text
        rows.append({"arm": name, "text": shown, "tokens": length, "changed": changed, "stop": mine.stop})
    title = "One prompt, three ways"
    body = section(
        "table",
        title,
        titled(legible.label(c.name), c.label),
        quoted("prompt", c.prompt),
        '<div style="display:grid;grid-template-columns:repeat(auto-fit,minmax(min(17rem,100%),1fr));gap:.4rem 1.4rem">'
        f"{''.join(cards)}</div>",
        notes(
            "Dotted underline: given tokens. Filled: the penalty chose another token than aligned would have, "
            "after the same tokens."
        ),
    )
    lines = [
        f"{r['arm']} ({r['tokens']} tokens, {r['changed']} changed): {legible.sentence(str(r['text']))}" for r in rows
    ]
    text = "\n".join([f"prompt: {legible.sentence(c.prompt)}", f"given: {c.prefix_tokens} tokens", *lines])
    return View(title=title, body=body, text=text, rows=tuple(rows))


def _marked(made: Continuations, response: int, covered: bool) -> str:
    c = made.continuations[response]
    if covered:
        return f'<span class="wb-hid">{COVER * 6}</span>'
    changed = made.changed()[response]
    plain = made.penalty.get("method") == "none" or made.penalty.get("strength") == -1.0
    out = [f'<span class="wb-given">{html_text(legible.prose(c.prefix))}</span>'] if c.prefix else []
    for t, piece in enumerate(made.pieces[response]):
        if made.special[response, t]:
            sign = legible.label(made.label_of().get(int(made.token_ids[response, t]), ""))
            out.append(f' <span class="wb-special">{html_text(sign)}</span>')
        else:
            shown = html_text(legible.prose(piece))
            out.append(shown if plain or not changed[t] else f'<mark class="t wb-slate3">{shown}</mark>')
    return "".join(out)


_LEDGER = (
    Column("position", number=True),
    Column("chosen", "token", token=True),
    Column("would have been", "instead", token=True),
    *columns(
        ("p(base)", "probability_base"),
        ("p(aligned)", "probability_aligned"),
        ("p(penalised)", "probability_penalised"),
        ("rank, base", "rank_base"),
        ("rank, aligned", "rank_aligned"),
        ("strength α", "strength"),
        "risk",
        ("excess mass", "excess_mass"),
        "leverage",
        ("bound", "leverage_bound"),
        number=True,
    ),
)


def ledger_table(made: Continuations, *, harmful_text: HarmfulText = "auto", response: int = 0) -> View:
    """Show what the penalty did at every generated token: who would have been chosen, probabilities and leverage."""
    c = made.continuations[response]
    covered = treatment_of(c.label, made.classroom_safe, harmful_text) != "show"
    known, changed = made.label_of(), made.changed()[response]
    rows = []
    for t in range(int(made.mask[response].sum())):
        chosen, plain = int(made.token_ids[response, t]), int(made.plain_ids[response, t])
        rows.append(
            {
                "position": int(made.position[response, t]),
                "token": label_of(known.get(chosen, f"id {chosen}"), covered),
                "instead": label_of(known.get(plain, f"id {plain}"), covered) if changed[t] else None,
                **{
                    f"probability_{side}": math.exp(float(getattr(made, f"logprob_{side}_nats")[response, t]))
                    for side in ("base", "aligned", "penalised")
                },
                **{f"rank_{side}": int(getattr(made, f"rank_{side}")[response, t]) for side in ("base", "aligned")},
                **{n: float(getattr(made, n)[response, t]) for n in _LEDGER_NUMBERS},
            }
        )
    title = "The ledger"
    caption = (
        f"What the penalty did at each of {len(rows)} generated tokens of {legible.label(c.name)}: the token it chose, "
        "and where that differs the one that aligned would have chosen after the same tokens."
    )
    return table_view(title, caption, _LEDGER, rows, kind="wb-data")


_LEDGER_NUMBERS = ("strength", "risk", "excess_mass", "leverage", "leverage_bound")
