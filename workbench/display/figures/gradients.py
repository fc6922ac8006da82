"""The gradient probe by position."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.core import legible
from workbench.core.legible import plotly_text
from workbench.core.palette import ALIGNED, BASE, stroke_of, tint
from workbench.display.figures.look import SLATES, empty, facets, styled
from workbench.tracing.records import GradientProbe


def gradients(probe: GradientProbe) -> go.Figure:
    """Draw the gradient probe by position: magnitude raw and per output error, accumulated error, and by layer.

    Thin lines are single responses, the thick one their mean. Raw and normalised stand side by side, so that "small
    because the loss is small" is told apart from "small because of position".
    """
    n, width = probe.mask.shape
    if not probe.mask.any():
        return empty("The gradient probe has no positions.")
    titles = ("raw: ‖∂ log p(y_t) / ∂θ‖", "per output error", "accumulated error, by term", "raw, by layer")
    figure = facets(2, 2, subplot_titles=titles, horizontal_spacing=0.12, vertical_spacing=0.2)
    position = np.arange(1, width + 1)
    panels = (
        (probe.grad_norm, "gradient norm"),
        (probe.grad_norm_per_error, "norm / output error"),
        (probe.error_per_term, "nats"),
    )
    stroke, thick = stroke_of("unlabelled"), BASE if probe.model == "base" else ALIGNED
    rows: list[tuple[Any, ...]] = []
    counts = probe.mask.sum(axis=0)
    for i, (scores, unit) in enumerate(panels):
        at = dict(row=1 + i // 2, col=1 + i % 2)
        for r in range(n):
            name = plotly_text(legible.label(probe.prompt_ids[r], 30))
            figure.add_scatter(
                x=position,
                y=scores[r],
                mode="lines",
                line=dict(color=tint(stroke.colour, 0.55), width=1),
                showlegend=False,
                hovertemplate=f"{name}, position %{{x}}<br>%{{y:.4g}}<extra></extra>",
                **at,
            )
        mean = _column_means(scores)
        figure.add_scatter(
            x=position,
            y=mean,
            customdata=counts,
            mode="lines+markers",
            marker=dict(size=5, color=thick),
            line=dict(color=thick, width=2.6),
            showlegend=False,
            hovertemplate="mean, position %{x}<br>%{y:.4g}, n = %{customdata}<extra></extra>",
            **at,
        )
        figure.update_yaxes(title_text=unit, rangemode="tozero", **at)
        rows += [(titles[i], int(p), float(v), int(c)) for p, v, c in zip(position, mean, counts, strict=True)]
    layers = np.stack(
        [_column_means(probe.grad_norm_by_layer[:, :, j]) for j in range(probe.grad_norm_by_layer.shape[2])]
    )
    figure.add_heatmap(
        x=position,
        y=list(range(1, layers.shape[0] + 1)),
        z=layers,
        colorscale=SLATES,
        hoverongaps=False,
        zmin=0,
        colorbar=dict(thickness=12, len=0.4, y=0.2, outlinewidth=0),
        row=2,
        col=2,
        hovertemplate="layer %{y}, position %{x}<br>mean gradient norm %{z:.4g}<extra></extra>",
    )
    figure.update_yaxes(title_text="layer (1 = first)", dtick=max(1, layers.shape[0] // 8), row=2, col=2)
    figure.update_xaxes(title_text="position, tokens")
    summary = (
        f"Gradient of the {probe.loss} of {probe.response_kind} responses under {probe.model}, over {probe.parameters} "
        f"by position: {n} responses (thin) and their mean (thick); middle layer {probe.layer}."
    )
    styled(
        figure,
        height=640,
        title="Gradients by position",
        summary=summary,
        columns=("panel", "position", "mean", "n"),
        still=True,
        rows=rows,
    )
    return figure


def _column_means(scores: np.ndarray) -> np.ndarray:
    """Return each column's mean over what is there, NaN where there is nothing."""
    there = np.isfinite(scores)
    total = np.where(there, scores, 0).sum(axis=0)
    return np.where(there.any(axis=0), total / np.maximum(there.sum(axis=0), 1), np.nan)
