"""What two models read as at each layer, by position."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.display.figures.look import POSITION, SLATES, empty, facets, styled
from workbench.tracing.parting import parting_layer
from workbench.tracing.records import LayerTrace


def layers(trace: LayerTrace, label: str = "harmful") -> go.Figure:
    """Draw the logit lens of both models by layer and position: how far apart they read, and what aligned ranks first.

    The left panel is the mean excess mass of one label's prompts (0 alike, 1 nothing in common), the right one the
    geometric mean rank, in aligned, of the token that opens its own answer (1 = it would open it again).
    """
    mine = [i for i, own in enumerate(trace.labels) if own == label and trace.mask[i].any()]
    if not mine:
        return empty(f"No layers: no {label} prompt has a response.")
    there = trace.mask[mine].sum(axis=0)
    width = int((there > 0).sum())
    position, layer = np.arange(1, width + 1), np.arange(1, trace.layers + 1)
    apart = np.nanmean(trace.excess_mass[mine, :width], axis=0).T
    rank = np.exp(np.nanmean(np.log(trace.rank_opening[mine, :width]), axis=0)).T
    titles = ("excess mass between the two readings", "aligned's rank of its own opening token")
    figure = facets(1, 2, subplot_titles=titles, horizontal_spacing=0.16)
    shared: dict[str, Any] = dict(x=position, y=layer, colorscale=SLATES, xgap=1, ygap=1, hoverongaps=False)
    bar: dict[str, Any] = dict(thickness=12, outlinewidth=0)
    figure.add_heatmap(
        z=apart,
        zmin=0,
        zmax=1,
        colorbar=dict(bar, x=0.43),
        hovertemplate="layer %{y}, position %{x}<br>excess mass %{z:.3f}<extra></extra>",
        row=1,
        col=1,
        **shared,
    )
    ticks = [1.0, *(10.0**e for e in range(1, 1 + int(np.log10(max(rank.max(), 10)))))]
    figure.add_heatmap(
        z=np.log10(rank),
        zmin=0,
        customdata=rank,
        reversescale=True,
        colorbar=dict(bar, tickvals=np.log10(ticks), ticktext=[f"{t:,.0f}" for t in ticks]),
        hovertemplate="layer %{y}, position %{x}<br>rank %{customdata:,.1f}<extra></extra>",
        row=1,
        col=2,
        **shared,
    )
    rows = [
        (int(k), int(p), float(apart[k - 1, p - 1]), float(rank[k - 1, p - 1]), int(there[p - 1]))
        for k in layer
        for p in position
    ]
    parted = parting_layer(trace, label=label)
    where = "" if parted.value is None else f" At position 1 they part by layer {parted.value:.0f} of {trace.layers}."
    summary = (
        f"Both models read at every layer by their own final norm and head, {len(mine)} {label} prompts, by position: "
        f"excess mass, and the rank of the token that opens aligned's own answer.{where}"
    )
    styled(
        figure,
        height=170 + 24 * max(6, min(trace.layers, 24)),
        title="Layer by layer",
        summary=summary,
        columns=("layer", "position", "excess mass", "rank of the opening token", "n"),
        still=True,
        rows=rows,
    )
    figure.update_xaxes(title_text=POSITION, showgrid=False)
    return figure.update_yaxes(title_text="layer", dtick=max(1, trace.layers // 8), showgrid=False, zeroline=False)
