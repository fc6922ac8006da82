"""What truncation leaves of the base-favored mass: temperature x top-p for each top-k, aligned above the penalty."""

from __future__ import annotations

import plotly.graph_objects as go

from workbench.core.legible import plotly_text
from workbench.decoding.records import SamplingSurface
from workbench.display.figures.look import SLATES, facets, styled


def sampling_surface(surface: SamplingSurface) -> go.Figure:
    """Draw the base-favored mass that survives, a heat map for each top-k and arm; darker is more.

    All panels share one scale, from 0 to the excess mass: what is left where nothing is cut off.
    """
    rows, columns = len(surface.arms), len(surface.top_ks)
    off = [f"top-k {k}" if k else "no top-k" for k in surface.top_ks]
    figure = facets(
        rows,
        columns,
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.02,
        vertical_spacing=0.14 if rows > 1 else 0.0,
        column_titles=off,
        row_titles=[plotly_text(_short(a)) for a in surface.arms] if rows > 1 else None,
    )
    ps = [f"{p:g}" if p < 1 else "off" for p in surface.top_ps]
    temperatures = [f"{t:g}" if t else "greedy" for t in surface.temperatures]
    highest = max(surface.excess_mass, float(surface.surviving_excess_mass.max()), 1e-9)
    for i, arm in enumerate(surface.arms):
        for j, k in enumerate(surface.top_ks):
            values = surface.surviving_excess_mass[i, :, :, j]
            figure.add_heatmap(
                x=ps,
                y=temperatures,
                z=values,
                zmin=0.0,
                zmax=highest,
                coloraxis="coloraxis",
                xgap=1,
                ygap=1,
                hovertemplate=f"{plotly_text(arm)}, {'top-k ' + str(k) if k else 'no top-k'}"
                "<br>temperature %{y}, top-p %{x}<br>surviving base-favored mass %{z:.4f}<extra></extra>",
                row=i + 1,
                col=j + 1,
            )
    styled(
        figure,
        height=150 + 190 * rows,
        title="What truncation leaves of the base-favored mass",
        summary=(
            "How much of the probability that base puts above aligned is on tokens that can still be drawn, "
            f"0 to 1, by temperature, top-p and top-k; mean over {surface.positions} positions along the continuation "
            f"of {surface.name} by {surface.along}. Lower is safer. With nothing cut off it is the excess mass, "
            f"{surface.excess_mass:.3g}. Exact for this text, so without an interval."
        ),
        columns=("arm", "temperature", "top-p", "top-k", "surviving base-favored mass", "positions"),
        rows=[
            (arm, t, p, k, float(surface.surviving_excess_mass[i, a, b, c]), surface.positions)
            for i, arm in enumerate(surface.arms)
            for a, t in enumerate(surface.temperatures)
            for b, p in enumerate(surface.top_ps)
            for c, k in enumerate(surface.top_ks)
        ],
    )
    figure.update_layout(
        margin=dict(t=44, r=96),
        coloraxis=dict(
            cmin=0.0,
            cmax=highest,
            colorscale=SLATES,
            colorbar=dict(
                title=dict(text="surviving<br>mass", font=dict(size=12)), thickness=14, outlinewidth=0, x=1.06
            ),
        ),
    )
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False, zeroline=False)
    figure.update_xaxes(title_text="top-p", row=rows)
    return figure.update_yaxes(title_text="temperature", col=1)


def _short(arm: str) -> str:
    return arm if len(arm) <= 24 else arm[:23] + "…"
