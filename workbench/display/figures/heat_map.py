"""Retention by position and prefix length."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from workbench.core.palette import stroke_of
from workbench.display.figures.look import POSITION, SLATES, empty, styled
from workbench.tracing.records import Diagnosis


def retention_heat_map(diagnosis: Diagnosis) -> go.Figure:
    """Draw mean retention by position and prefix length; blank where there is nothing, darker where aligned is base.

    The stepped line parts the given tokens (left) from those that aligned continued with.
    """
    heat = diagnosis.heat_map
    if heat is None or heat.value.size == 0:
        return empty("No heat map: it needs free-running responses with several prefix lengths.")
    steps = list(range(len(heat.prefix_tokens)))
    figure = go.Figure()
    figure.add_heatmap(
        x=heat.position,
        y=steps,
        z=heat.value,
        customdata=np.stack([heat.n, np.broadcast_to(heat.prefix_tokens[:, None], heat.n.shape)], axis=-1),
        zmin=0,
        zmax=1,
        xgap=1,
        ygap=2,
        colorscale=SLATES,
        hoverongaps=False,
        colorbar=dict(title=dict(text="retention<br>1 = still base", font=dict(size=12)), thickness=14, outlinewidth=0),
        hovertemplate="position %{x}, %{customdata[1]} tokens given<br>retention %{z:.3f} (1 − total variation)"
        "<br>n = %{customdata[0]}<extra></extra>",
    )
    edges = np.minimum(heat.prefix_tokens, heat.position.max(initial=0)).repeat(2) + 0.5
    line = dict(x=edges, y=np.array([[i - 0.5, i + 0.5] for i in steps]).ravel(), mode="lines", hoverinfo="skip")
    figure.add_scatter(**line, line=dict(color="#ffffff", width=5), showlegend=False)
    given = dict(name="left of the line: given tokens", showlegend=True)
    figure.add_scatter(**line, **given, line=dict(color=stroke_of("harmful").colour, width=2))
    summary = (
        f"Mean retention by position and number of given tokens, {heat.label} prompts: "
        "1 means that aligned still is base."
    )
    rows = [
        (k, p, v, n)
        for k, values, counts in zip(heat.prefix_tokens, heat.value, heat.n, strict=True)
        for p, v, n in zip(heat.position, values, counts, strict=True)
        if n > 0
    ]
    styled(
        figure,
        height=130 + 40 * max(3, len(steps)),
        title="Retention by prefix length",
        summary=summary,
        columns=("given tokens", "position", "retention", "n"),
        rows=rows,
    )
    figure.update_xaxes(title_text=POSITION, showgrid=False, range=[0.5, float(heat.position.max()) + 0.5])
    names = [str(k) for k in heat.prefix_tokens.tolist()]
    return figure.update_yaxes(
        title_text="given tokens (prefix)",
        tickvals=steps,
        ticktext=names,
        range=[-0.5, len(steps) - 0.5],
        showgrid=False,
        zeroline=False,
    )
