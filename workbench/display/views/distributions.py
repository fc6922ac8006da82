"""Both models' next-token distributions at one position, back to back."""

from __future__ import annotations

import math
from typing import Any

from workbench.core import legible
from workbench.core.legible import html_text
from workbench.display.views.responses import HarmfulText, alternatives, checked, label_of, name_of, treatment
from workbench.display.views.view import Column, View, columns, number, scrolling, table_view
from workbench.tracing.records import TraceSet


def distributions(
    traces: TraceSet, r: int, position: int, rows: int, covered: bool
) -> tuple[str, tuple[dict[str, Any], ...], str]:
    """Return the back-to-back table as HTML, its rows and its caption."""
    t = position - 1
    known, observed = traces.label_of(), int(traces.token_ids[r, t])
    found = sorted(alternatives(traces, r, position, known), key=lambda a: -max(a.base, a.aligned))
    shown = found[:rows]

    def line(base: float, aligned: float, said: str, token_id: int | None = None) -> dict[str, Any]:
        token = dict(token=said, token_id=token_id, observed=token_id == observed)
        return {**token, "probability_base": base, "probability_aligned": aligned, "difference": base - aligned}

    lines = [line(a.base, a.aligned, a.label, a.token_id) for a in shown]
    if not any(one["observed"] for one in lines):
        base, aligned = (float(x[r, t]) for x in (traces.logprob_base_nats, traces.logprob_aligned_nats))
        said = legible.label(known.get(observed, f"id {observed}"))
        lines.append(line(math.exp(base), math.exp(aligned), said, observed))
    if covered:
        lines = [{**one, "token": label_of(None, True), "token_id": None} for one in lines]
    base_rest, aligned_rest = (1 - sum(one[f"probability_{side}"] for one in lines) for side in ("base", "aligned"))
    lines.append(line(max(0.0, base_rest), max(0.0, aligned_rest), "all other tokens"))
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
        mark = ' <span class="wb-soft">in the text</span>' if line["observed"] else ""
        mono = "" if line["token"] == "all other tokens" else " wb-tok"
        body.append(
            f'<tr class="{kind}"><td class="n">{html_text(number(line["probability_base"]))}</td>'
            f'<td class="wb-barcell">{bar("b", line["probability_base"])}</td>'
            f'<th scope="row" class="wb-mid"><span class="{mono.strip()}">{html_text(line["token"])}</span>{mark}</th>'
            f'<td class="wb-barcell">{bar("a", line["probability_aligned"])}</td>'
            f'<td class="n">{html_text(number(line["probability_aligned"]))}</td>'
            f'<td class="n">{_signed(line["difference"])}</td></tr>'
        )
    head = (
        '<tr><th scope="col" class="n">p(base)</th><td></td><th scope="col" class="wb-mid">token</th><td></td>'
        '<th scope="col" class="n">p(aligned)</th><th scope="col" class="n">base − aligned</th></tr>'
    )
    return scrolling(caption, head, "".join(body), kind="wb-topk")


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
    return table_view(title, caption, _TOPK_COLUMNS, lines, drawn=html)
