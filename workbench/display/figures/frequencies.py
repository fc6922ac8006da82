"""How often each token is base-favored, on harmful prompts against harmless ones."""

from __future__ import annotations

import plotly.graph_objects as go

from workbench.core import legible
from workbench.core.legible import plotly_text
from workbench.core.palette import KIND_MARKERS, stroke_of
from workbench.display.figures.look import empty, error_bars, parts_of, styled, value_of
from workbench.tracing.records import Diagnosis


def base_favored_frequencies(diagnosis: Diagnosis, *, limit: int = 20) -> go.Figure:
    """Draw how often each token is base-favored, harmful against harmless prompts, safety tokens apart from style.

    Filled markers are harmful prompts, open ones harmless; the marker's shape is the token's kind.
    """
    kinds = ("safety", "undecided", "style")
    found = sorted(diagnosis.frequencies[:limit], key=lambda f: (kinds.index(f.kind), -(f.difference.value or 0.0)))
    if not found:
        return empty("No token was detected as base-favored.")
    figure = go.Figure()
    top = len(found)
    for side in ("harmful", "harmless"):
        stroke = stroke_of(side)
        for kind in kinds:
            mine = [(top - i, f) for i, f in enumerate(found) if f.kind == kind]
            if not mine:
                continue
            estimates = [f.rate_harmful if side == "harmful" else f.rate_harmless for _, f in mine]
            symbol = KIND_MARKERS[kind] + ("" if side == "harmful" else "-open")
            shift = 0.14 if side == "harmful" else -0.14
            said = [
                [plotly_text(legible.label(f.label)), kind, str(e)] for (_, f), e in zip(mine, estimates, strict=True)
            ]
            figure.add_scatter(
                x=[value_of(e) for e in estimates],
                y=[y + shift for y, _ in mine],
                mode="markers",
                customdata=said,
                legendgroup=side,
                name=f"{side} prompts, {kind}",
                marker=dict(symbol=symbol, size=9, color=stroke.colour, line=dict(width=1.8)),
                error_x=error_bars(estimates, stroke.colour, thickness=1.4),
                hovertemplate=f"%{{customdata[0]}} (%{{customdata[1]}})<br>{side}: %{{customdata[2]}}<extra></extra>",
            )
    names = [f"{plotly_text(legible.label(f.label, 18))}  <i>{f.kind}</i>" for f in found]
    summary = (
        "How often each token is base-favored, share of positions with bootstrap interval over prompts; "
        "safety: more often on harmful prompts than on harmless ones."
    )
    rows = [
        (legible.label(f.label), f.kind, *parts_of(f.rate_harmful), *parts_of(f.rate_harmless), *parts_of(f.difference))
        for f in found
    ]
    columns = ["token", "kind"]
    for side in ("harmful", "harmless", "difference"):
        columns += [side, f"{side} low", f"{side} high", f"{side} n"]
    styled(
        figure,
        height=150 + 24 * len(found),
        title="Base-favored tokens",
        summary=summary,
        columns=columns,
        still=True,
        rows=rows,
    )
    figure.update_yaxes(
        tickvals=[top - i for i in range(top)], ticktext=names, showgrid=True, zeroline=False, range=[0.3, top + 0.7]
    )
    return figure.update_xaxes(title_text="share of positions at which the token is base-favored", rangemode="tozero")
