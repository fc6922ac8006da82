"""Both models' next-token distributions at one position, back to back."""

from __future__ import annotations

import math
from typing import Any

from workbench.core import legible
from workbench.core.legible import html_text
from workbench.display.views.responses import COVER, HarmfulText, alternatives, checked, name_of, treatment
from workbench.display.views.view import Column, View, columns, number, plain_table, section
from workbench.tracing.records import TraceSet


def distributions(
    traces: TraceSet, r: int, position: int, rows: int, covered: bool
) -> tuple[str, tuple[dict[str, Any], ...], str]:
    """Return the back-to-back table as HTML, its rows and its caption."""
    t = position - 1
    known, observed = traces.label_of(), int(traces.token_ids[r, t])
    found = sorted(alternatives(traces, r, position, known), key=lambda a: -max(a.base, a.aligned))
    shown = found[:rows]
    lines: list[dict[str, Any]] = [
        {
            "probability_base": a.base,
            "token": COVER if covered else a.label,
            "token_id": None if covered else a.token_id,
            "probability_aligned": a.aligned,
            "difference": a.difference,
            "observed": a.token_id == observed,
        }
        for a in shown
    ]
    if not any(line["observed"] for line in lines):
        base = math.exp(float(traces.logprob_base_nats[r, t]))
        aligned = math.exp(float(traces.logprob_aligned_nats[r, t]))
        said = COVER if covered else legible.label(known.get(observed, f"id {observed}"))
        token_id = None if covered else observed
        lines.append(
            dict(
                probability_base=base,
                token=said,
                token_id=token_id,
                probability_aligned=aligned,
                difference=base - aligned,
                observed=True,
            )
        )
    rest_base = max(0.0, 1 - sum(line["probability_base"] for line in lines))
    rest_aligned = max(0.0, 1 - sum(line["probability_aligned"] for line in lines))
    lines.append(
        dict(
            probability_base=rest_base,
            token="all other tokens",
            token_id=None,
            probability_aligned=rest_aligned,
            difference=rest_base - rest_aligned,
            observed=False,
        )
    )
    caption = (
        f"Next-token probabilities at position {position}: base to the left, aligned to the right, "
        f"the {len(shown)} tokens likeliest under either. "
        f"KL(aligned ‖ base) {number(float(traces.kl_aligned_base_nats[r, t]))} nats, "
        f"retention {number(float(traces.retention[r, t]))} at aligned entropy "
        f"{number(float(traces.entropy_aligned_nats[r, t]))} nats."
    )
    return _back_to_back(caption, lines), tuple(lines), caption


def _back_to_back(caption: str, lines: list[dict[str, Any]]) -> str:
    def bar(side: str, share: float) -> str:
        return f'<span class="wb-bar wb-{side}" style="width:{100 * min(max(share, 0.0), 1.0):.1f}%"></span>'

    body = []
    for i, line in enumerate(lines):
        kind = "wb-observed" if line["observed"] else "wb-other" if i == len(lines) - 1 else ""
        mark = ' <span class="wb-soft">stands here</span>' if line["observed"] else ""
        mono = "" if line["token"] == "all other tokens" else " wb-tok"
        body.append(
            f'<tr class="{kind}"><td class="n">{html_text(number(line["probability_base"]))}</td>'
            f'<td class="wb-barcell">{bar("b", line["probability_base"])}</td>'
            f'<th scope="row" class="wb-mid"><span class="{mono.strip()}">{html_text(line["token"])}</span>{mark}</th>'
            f'<td class="wb-barcell">{bar("a", line["probability_aligned"])}</td>'
            f'<td class="n">{html_text(number(line["probability_aligned"]))}</td>'
            f'<td class="n">{_signed(line["difference"])}</td></tr>'
        )
    return (
        f'<div class="wb-scroll" tabindex="0" role="group" aria-label="{html_text(caption)}">'
        f'<table class="wb-topk"><caption>{html_text(caption)}</caption>'
        '<thead><tr><th scope="col" class="n">p(base)</th><td></td>'
        '<th scope="col" class="wb-mid">token</th><td></td><th scope="col" class="n">p(aligned)</th>'
        f'<th scope="col" class="n">base − aligned</th></tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value, 2)


_TOPK_COLUMNS = (
    Column("p(base)", "probability_base", number=True),
    Column("token"),
    *columns(("p(aligned)", "probability_aligned"), ("base − aligned", "difference"), number=True),
)


def top_k_table(
    traces: TraceSet, response_index: int, position: int, *, rows: int = 10, harmful_text: HarmfulText = "auto"
) -> View:
    """Show both next-token distributions at a 1-based position back to back, the likeliest tokens of either.

    Raises ParameterError for a response or position that is not there.
    """
    checked(traces, response_index, position)
    covered = treatment(traces, traces.responses[response_index], harmful_text) != "show"
    html, lines, caption = distributions(traces, response_index, position, rows, covered)
    title = f"Distributions at position {position}, {name_of(traces, response_index)}"
    return View(
        title=title,
        body=section("table", title, html),
        text=f"{caption}\n{plain_table(_TOPK_COLUMNS, lines)}",
        rows=lines,
    )
