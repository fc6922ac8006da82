"""A response read token by token: the running text with its fill, and the table behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.core import legible
from workbench.core.legible import html_text
from workbench.core.quantities import QUANTITIES, Quantity, quantity_named
from workbench.display.views.distributions import distributions
from workbench.display.views.responses import (
    COVER,
    MOST_TOKENS,
    SHOWN_ALTERNATIVES,
    HarmfulText,
    alternatives,
    as_treated,
    checked,
    inner_html,
    name_of,
    running_text,
    text_digest,
    token_html,
    treatment,
)
from workbench.display.views.scales import NOTABLE_SHIFT_NATS, legend_html, reading, reading_html
from workbench.display.views.view import (
    Column,
    View,
    columns,
    disclosure,
    notes,
    number,
    quoted,
    section,
    table,
    table_view,
    titled,
)
from workbench.tracing.records import Response, TraceSet


def token_rows(traces: TraceSet, response_index: int, *, covered: bool = False) -> tuple[dict[str, Any], ...]:
    """Return one row a token: its text, both models' probabilities and ranks, and every scalar at its position."""
    length = min(checked(traces, response_index), MOST_TOKENS)
    r, known = response_index, traces.label_of()
    rows = []
    for t in range(length):
        token_id = int(traces.token_ids[r, t])
        piece = traces.pieces[r][t]
        said = legible.label(piece) if piece and not traces.partial[r, t] else legible.label(known.get(token_id, ""))
        favored = [a for a in alternatives(traces, r, t + 1, known) if a.difference > 0][:SHOWN_ALTERNATIVES]
        instead = ", ".join(f"{COVER if covered else a.label} +{number(a.difference, 2)}" for a in favored)
        scores = {name: values[r, t].item() for name, values in traces.scalars.items()}
        rows.append(
            {
                "position": t + 1,
                "token": COVER if covered else said,
                "token_id": None if covered else token_id,
                "probability_base": math.exp(scores["logprob_base_nats"]),
                "probability_aligned": math.exp(scores["logprob_aligned_nats"]),
                **scores,
                "base_favored": bool(scores["logprob_shift_nats"] < 0),
                "base_favors_instead": instead or None,
            }
        )
    return tuple(rows)


_FIRST = ("rank_base", "rank_aligned", "logprob_shift_nats")
_COLUMNS = (
    Column("position", number=True),
    Column("token", token=True),
    *columns(
        ("p(base)", "probability_base"),
        ("p(aligned)", "probability_aligned"),
        *((q.column, q.name) for q in sorted(QUANTITIES.values(), key=lambda q: q.name not in _FIRST) if q.column),
        number=True,
    ),
    Column("most base-favored, p(base) − p(aligned)", "base_favors_instead", token=True),
)


def tokens_table(traces: TraceSet, response_index: int, *, harmful_text: HarmfulText = "auto") -> View:
    """Show one row a token of a response: both probabilities, ranks, and every scalar at its position."""
    covered = treatment(traces, traces.responses[response_index], harmful_text) != "show"
    rows = token_rows(traces, response_index, covered=covered)
    title = f"Tokens of {name_of(traces, response_index)}"
    return table_view(title, title, _COLUMNS, rows, drawn=_data_table(traces, response_index, rows))


def _data_table(traces: TraceSet, response_index: int, rows: tuple[dict[str, Any], ...]) -> str:
    caption = (
        f"{name_of(traces, response_index)}: one row a token, n = {len(rows)} tokens; each row is the "
        f"distribution that predicted that token. Base-favored tokens counted in {traces.count_space}."
    )
    return table(caption, _COLUMNS, rows, kind="wb-data", tall=True)


def how_it_came(response: Response, length: int) -> str:
    """Say in words how a response came about."""
    if response.trajectory == "teacher_forced":
        came = f"teacher-forced: {length} given tokens"
    else:
        how = "greedily" if response.temperature == 0 else f"at temperature {response.temperature:g}"
        given = f"the first {response.prefix_tokens} of {length} tokens given, the rest"
        which = given if response.prefix_tokens else f"{length} tokens, all"
        came = f"free-running: {which} chosen by {response.continued_by} {how}"
    ended = {
        "end": "ended by itself",
        "length": "cut at the length limit",
        "stopped": "stopped before its end",
        "given": "",
    }[response.stop]
    segment = "thinking block" if response.segment == "thinking" else ""
    return "; ".join(part for part in (segment, came, ended) if part)


def _token_title(row: Mapping[str, Any], length: int) -> str:
    favored = "\nbase-favored here" if row["base_favored"] else ""
    instead = f"\nmost base-favored: {row['base_favors_instead']}" if row["base_favors_instead"] else ""
    return (
        f"{row['token']}  position {row['position']} of {length}{favored}\n"
        f"p(base) {number(row['probability_base'])}, rank {row['rank_base']:,}; "
        f"p(aligned) {number(row['probability_aligned'])}, rank {row['rank_aligned']:,}; "
        f"shift {number(row['logprob_shift_nats'])} nats\n"
        f"KL(aligned ‖ base) {number(row['kl_aligned_base_nats'])} nats; excess mass {number(row['excess_mass'])}; "
        f"retention {number(row['retention'])} at aligned entropy {number(row['entropy_aligned_nats'])} nats{instead}"
    )


_PART = '<span class="wb-sign">▫</span>'


def _visible(traces: TraceSet, r: int, t: int, row: Mapping[str, Any], covered: bool) -> str:
    """Return a token's inner HTML: escaped text, or the sign that is shown for it."""
    piece = traces.pieces[r][t]
    if covered:
        return inner_html(piece, covered)
    if traces.special[r, t]:
        return f'<span class="wb-special">{html_text(row["token"])}</span>'
    text = html_text(legible.prose(piece)) + ("" if piece and not traces.partial[r, t] else _PART)
    return text.replace("\n", '<span class="wb-sign" aria-hidden="true">↵</span>\n')


def _running_text(
    traces: TraceSet, r: int, quantity: Quantity, rows: tuple[dict[str, Any], ...], position: int | None, covered: bool
) -> str:
    response, shown = traces.responses[r], len(rows)
    levels = quantity.levels(getattr(traces, quantity.name)[r, :shown].astype(np.float64))
    split = response.prefix_tokens if response.trajectory == "free_running" else 0
    every = 5 if shown <= 40 else 10
    out: list[str] = []
    for t, row in enumerate(rows):
        level = int(levels[t])
        sure = not row["entropy_aligned_nats"] > traces.entropy_floor_nats
        unsaid = quantity.name == "retention" and level > 0 and sure
        names = ["t", "wb-sure" if unsaid else quantity.css(level)]
        names += ["wb-given"] if t < split else []
        names += ["wb-here"] if position == t + 1 else []
        tag = "mark" if abs(level) >= 3 and not unsaid else "span"
        inner = _visible(traces, r, t, row, covered)
        if row["base_favored"]:
            notable = row["logprob_shift_nats"] <= -NOTABLE_SHIFT_NATS
            inner = f"<b>{inner}</b>" if notable else f'<span class="wb-lean">{inner}</span>'
        ruler = f'<sup class="wb-r" aria-hidden="true">{t + 1}</sup>' if (t + 1) % every == 0 or t == 0 else ""
        if split and t == split and split < shown:
            out.append(f'<sub class="wb-turn">▸ {response.continued_by} continues</sub>')
        title = _token_title(row, int(traces.lengths()[r]))
        out.append(token_html(" ".join(filter(None, names)), title, ruler + inner, t, tag=tag))
    return running_text("Response, withheld" if covered else "Response", out, shown)


def token_view(
    traces: TraceSet,
    response_index: int,
    *,
    quantity: str = "excess_mass",
    harmful_text: HarmfulText = "auto",
    position: int | None = None,
    details: bool = True,
) -> View:
    """Show a response as running text, each token filled by a quantity, base-favored ones underlined.

    `position` (1-based) marks a token and adds both models' distributions there. `details` adds the data table, which
    the cards on hover and focus read too. Raises ParameterError for a response or position that is not there,
    UnknownName for a quantity that is none.
    """
    length = checked(traces, response_index, position)
    q = quantity_named(quantity, float(traces.base_favored_count.max(initial=0)))
    response = traces.responses[response_index]
    treat = treatment(traces, response, harmful_text)
    rows = token_rows(traces, response_index, covered=treat == "redact")
    covered_rows = token_rows(traces, response_index, covered=True) if treat == "blur" else rows
    name, how = name_of(traces, response_index), how_it_came(response, length)
    parts = [
        titled(legible.sentence(response.prompt_id), response.label, how),
        quoted("system", response.system_prompt),
        quoted("prompt", response.prompt),
    ]
    if length == 0:
        parts.append('<p class="wb-note">This response has no tokens.</p>')
    data = _data_table(traces, response_index, rows) if details else ""

    def draw(covered: bool) -> str:
        running = _running_text(traces, response_index, q, covered_rows if covered else rows, position, covered)
        return running + data if treat == "blur" and not covered else running

    parts.append(as_treated(treat, draw, "response"))
    parts.append(legend_html(q, redacted=treat != "show", partial=bool(traces.partial[response_index].any())))
    said = [] if length <= MOST_TOKENS else [f"The first {MOST_TOKENS:,} of {length:,} tokens are shown."]
    if treat != "show":
        said.append(f"SHA-256 of the text: {text_digest(traces, response_index)}… (first 12 digits).")
    parts.append(notes(*said))
    if position is not None:
        shown: HarmfulText = "show" if treat == "show" else "redact"
        parts.append(distributions(traces, response_index, position, 10, shown == "redact")[0])
    parts.append(reading_html(traces.entropy_floor_nats))
    if details and treat != "blur":
        parts.append(disclosure(f"All {len(rows)} tokens as a table", data))
    text = _plain(traces, response_index, q, covered_rows, how, treat != "show")
    return View(title=name, body=section("tokens", name, *parts), text=text, rows=rows)


def _plain(traces: TraceSet, r: int, q: Quantity, rows: tuple[dict[str, Any], ...], how: str, covered: bool) -> str:
    """Return the response as plain text: base-favored tokens in brackets, then the ten highest values."""
    response = traces.responses[r]
    if covered:
        said = f"(text withheld; SHA-256 {text_digest(traces, r)}…)"
    else:
        pieces = [legible.prose(p) for p in traces.pieces[r][: len(rows)]]
        said = "".join(f"[{p}]" if row["base_favored"] and p else p for p, row in zip(pieces, rows, strict=True))
    values = getattr(traces, q.name)[r, : len(rows)].astype(np.float64)
    best = np.argsort(-np.abs(np.nan_to_num(values)), kind="stable")[:10]
    top = "\n".join(f"  position {int(t) + 1}: {rows[int(t)]['token']}  {number(float(values[t]))}" for t in best)
    return (
        f"{name_of(traces, r)} ({response.label}; {how})\nprompt: {legible.sentence(response.prompt)}\n\n{said}\n\n"
        f"[brackets]: the token is base-favored. Largest {q.title}:\n{top}\n"
        f"{reading(traces.entropy_floor_nats)}"
    )
