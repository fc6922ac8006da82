"""What all figures share: axis titles, paper and ink, and the table of what was drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.core.legible import plotly_text
from workbench.core.palette import INK, RULE, SLATE_SCALE, SOFT, THEMES, Stroke
from workbench.core.quantities import QUANTITIES
from workbench.core.records import Estimate

AXES: Mapping[str, str] = {q.name: q.axis for q in QUANTITIES.values() if q.axis} | {
    "retention_uncertain": "retention where aligned is uncertain, 1 = still base",
}
"""Curve name -> axis title with unit and direction."""
POSITION = "position in the response, tokens (1 = first)"
SLATES = [list(stop) for stop in SLATE_SCALE]
"""The colour scale of heat maps."""
DARK, MUTED, GRID, NOISE = THEMES[INK][0], THEMES[SOFT][0], THEMES[RULE][0], THEMES["noise"][0]


def styled(
    figure: go.Figure,
    *,
    height: int,
    title: str,
    summary: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    still: bool = False,
) -> go.Figure:
    """Give a figure the common look, and in its meta a title, a summary and the numbers that it draws.

    A `still` one is drawn as SVG in a live notebook too, which keeps the notebook small: plotly stores a picture of
    each figure that it draws.
    """
    table = {
        "title": title,
        "summary": summary,
        "columns": list(columns),
        "rows": [[plain(v) for v in row] for row in rows],
        "still": still,
    }
    figure.update_layout(
        template="none",
        height=height,
        meta=table,
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        font=dict(family="system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif", size=13, color=DARK),
        margin=dict(l=74, r=24, t=64, b=56),
        legend=dict(
            orientation="h",
            x=0,
            xanchor="left",
            y=1,
            yanchor="top",
            yref="container",
            font=dict(size=13),
            bgcolor="rgba(0,0,0,0)",
        ),
        hoverlabel=dict(bgcolor="#ffffff", bordercolor=MUTED, font=dict(color=DARK), align="left", namelength=-1),
        hovermode="closest",
    )
    figure.update_xaxes(
        gridcolor=GRID,
        linecolor=MUTED,
        zeroline=False,
        ticks="outside",
        tickcolor=GRID,
        automargin=True,
        title_font_size=13,
    )
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=MUTED, zerolinewidth=1, automargin=True, title_font_size=13)
    return figure


def facets(rows: int, cols: int, **options: Any) -> go.Figure:
    """Return a figure of several panels, their titles in the common look."""
    figure = make_subplots(rows=rows, cols=cols, **options)
    return figure.update_annotations(font=dict(size=13, color=DARK))


def stroked(stroke: Stroke, width: float = 2.2, size: int = 6) -> dict[str, Any]:
    """Return how a line and its markers are drawn."""
    line = dict(color=stroke.colour, dash=stroke.dash, width=width)
    return dict(line=line, marker=dict(symbol=stroke.marker, size=size, color=stroke.colour))


def value_of(estimate: Estimate) -> float:
    """Return an estimate's value, NaN where there is none."""
    return math.nan if estimate.value is None else float(estimate.value)


def parts_of(estimate: Estimate) -> tuple[float | None, float | None, float | None, int]:
    """Return value, low, high and n of an estimate."""
    return estimate.value, estimate.low, estimate.high, estimate.n


def error_bars(estimates: Iterable[Estimate], colour: str, *, thickness: float, width: int = 0) -> dict[str, Any]:
    """Return estimates' intervals as plotly's error bars; 0 where there is none."""
    known = [(e.low, value_of(e), e.high) for e in estimates]
    ups = [0.0 if high is None else high - value for _, value, high in known]
    downs = [0.0 if low is None else value - low for low, value, _ in known]
    bars = dict(array=ups, arrayminus=downs, color=colour, thickness=thickness, width=width)
    return dict(type="data", symmetric=False, **bars)


def plain(value: Any) -> Any:
    """Return a plain JSON value; None for NaN and infinity."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def empty(said: str) -> go.Figure:
    """Return a figure that says why there is nothing to draw: missing is not zero."""
    figure = go.Figure()
    figure.add_annotation(
        text=plotly_text(said), x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font=dict(size=14)
    )
    styled(figure, height=160, title="Nothing to draw", summary=said, columns=(), rows=())
    figure.update_layout(margin=dict(l=24, r=24, t=24, b=24))
    return figure.update_xaxes(visible=False).update_yaxes(visible=False)


def axis(name: str) -> str:
    """Return a curve's axis title."""
    return AXES.get(name, name.replace("_", " "))
