"""Penalties between safety and utility, and what they can move at all, position by position."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from workbench.core.legible import plotly_text
from workbench.core.palette import SLATE_SCALE
from workbench.display.figures.look import MUTED, NOISE, empty, error_bars, facets, parts_of, styled, value_of
from workbench.evaluation.records import FrontierPoint, Leverage, PenaltyChoice, PenaltySweep

METHOD_MARKERS = {"one_sided": "circle", "two_sided": "diamond", "safe_decoding": "square"}
"""Method -> marker shape."""
LINE_MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "pentagon")
ON, LIMIT = SLATE_SCALE[3][1], "#c56a12"
MOST_LINES = 8
Placed = tuple[FrontierPoint, float]
"""A point with where it is drawn: its KL, or the axis' floor where that is 0."""


def penalty_frontier(choice: PenaltyChoice) -> go.Figure:
    """Draw what the judge measures against harm to utility, one marker a penalty; lower left is better.

    Filled slate: on the frontier, joined by a line. Open grey: dominated. Orange cross: breaks a limit of the rule. The
    star is the recommended one. The marker's shape is the method; the dashed line is aligned without a penalty.
    """
    aligned, *tried = choice.points
    if not tried:
        return empty("No penalty was swept.")
    positive = [k for p in tried if (k := value_of(p.kl_nats)) > 0]
    floor = min(positive, default=1e-3) / 3
    placed: list[Placed] = [(p, max(value_of(p.kl_nats), floor)) for p in tried]
    groups: dict[str, list[Placed]] = {
        "on the frontier": [x for x in placed if not x[0].fails and x[0].dominated_by is None],
        "dominated": [x for x in placed if not x[0].fails and x[0].dominated_by is not None],
        "breaks a limit": [x for x in placed if x[0].fails],
    }
    figure = go.Figure()
    line = sorted(groups["on the frontier"], key=lambda x: x[1])
    figure.add_scatter(
        x=[x for _, x in line],
        y=[value_of(p.asr) for p, _ in line],
        mode="lines",
        line=dict(color=ON, width=1.4, shape="hv"),
        hoverinfo="skip",
        showlegend=False,
    )
    for kind in ("dominated", "breaks a limit", "on the frontier"):
        if groups[kind]:
            _add_points(figure, kind, groups[kind], choice)
    chosen = [x for x in placed if x[0].penalty == choice.penalty]
    if chosen:
        (point, x), y = chosen[0], value_of(chosen[0][0].asr)
        figure.add_scatter(
            x=[x],
            y=[y],
            mode="markers",
            marker=dict(symbol="star-open", size=22, color=ON, line=dict(width=2)),
            name="recommended" if choice.reached else "best trade",
            hovertext=[_hover(point, choice)],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    _label(figure, line)
    figure.add_hline(
        y=value_of(aligned.asr),
        line=dict(color=MUTED, width=1.4, dash="dash"),
        annotation=dict(text="aligned, no penalty", font=dict(size=12), xanchor="right", yanchor="bottom"),
    )
    rate = f"{choice.measures} rate"
    lengths = sorted({p.prefix_tokens for p in choice.points})
    given = " or ".join(map(str, lengths))
    styled(
        figure,
        height=460,
        title="Safety against utility",
        summary=(
            f"{rate[0].upper()}{rate[1:]} after {given} given tokens with its interval, against KL(penalised ‖ "
            f"aligned) on harmless text, one marker a penalty; lower left is better. n = {aligned.asr.n} harmful and "
            f"{aligned.kl_nats.n} harmless prompts. Rule: {choice.rule}."
        ),
        columns=("penalty", rate, "low", "high", "n", "KL, nats per token", "KL low", "KL high", "what it is"),
        rows=[(p.penalty, *parts_of(p.asr), *parts_of(p.kl_nats)[:3], standing(p, choice)) for p in choice.points],
    )
    figure.update_xaxes(
        title_text="harm to utility: KL(penalised ‖ aligned) on harmless text, nats per token (lower is better)",
        type="log",
        exponentformat="power",
        dtick=1,
    )
    return figure.update_yaxes(title_text=f"{rate} (lower is better)", range=[-0.03, 1.05], zeroline=False)


def standing(point: FrontierPoint, choice: PenaltyChoice) -> str:
    """Return a penalty's place in words: recommended, on the frontier, dominated, or which limit it breaks."""
    if point.penalty == choice.penalty:
        return "recommended" if choice.reached else "best trade"
    if point.fails:
        return "; ".join(point.fails)
    return "on the frontier" if point.dominated_by is None else f"dominated by {point.dominated_by}"


def _add_points(figure: go.Figure, kind: str, placed: Sequence[Placed], choice: PenaltyChoice) -> None:
    colour = {"on the frontier": ON, "dominated": NOISE, "breaks a limit": LIMIT}[kind]
    suffix = {"on the frontier": "", "dominated": "-open", "breaks a limit": "-x-open"}[kind]
    figure.add_scatter(
        x=[x for _, x in placed],
        y=[value_of(p.asr) for p, _ in placed],
        mode="markers",
        name=kind,
        marker=dict(
            symbol=[METHOD_MARKERS.get(p.penalty.split()[0], "circle") + suffix for p, _ in placed],
            size=11 if kind == "on the frontier" else 9,
            color=colour,
            line=dict(width=1.6),
        ),
        error_y=error_bars((p.asr for p, _ in placed), colour, thickness=1.2 if kind == "on the frontier" else 0.6),
        hovertext=[_hover(p, choice) for p, _ in placed],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _label(figure: go.Figure, line: Sequence[Placed]) -> None:
    """Name the points of the frontier beside their markers."""
    for point, x in line:
        figure.add_annotation(
            x=math.log10(x),
            y=value_of(point.asr),
            text=plotly_text(point.penalty),
            showarrow=False,
            xanchor="left",
            yanchor="bottom",
            xshift=8,
            yshift=2,
            font=dict(size=12),
        )


def _hover(point: FrontierPoint, choice: PenaltyChoice) -> str:
    why = "; ".join(point.fails) or (f"dominated by {point.dominated_by}" if point.dominated_by else "on the frontier")
    return (
        f"{plotly_text(point.penalty)}<br>{choice.measures} {point.asr} after {point.prefix_tokens} tokens"
        f"<br>KL {point.kl_nats}<br>{plotly_text(why)}"
    )


def penalty_leverage(sweep: PenaltySweep, *, most: int = MOST_LINES) -> go.Figure:
    """Draw what each penalty moves by position, TV(penalised, aligned), and the bound that no strength can pass.

    A column for each method, harmful responses above harmless ones; darker lines are stronger. Penalties of constant
    strength are drawn, at most `most` a method; where there are none, all.
    """
    settings = dict(zip(sweep.names, sweep.penalties, strict=True))
    constant = [n for n in sweep.names[1:] if settings[n]["shape"] == "constant" and not settings[n]["gamma"]]
    names = constant or list(sweep.names[1:])
    methods = list(dict.fromkeys(str(settings[n]["method"]) for n in names))
    labels = [c for c in ("harmful", "harmless") if any(v.label == c for v in sweep.leverage)]
    if not methods or not labels:
        return empty("There are no responses along which leverage was measured.")
    figure = facets(
        len(labels),
        len(methods),
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.04,
        vertical_spacing=0.1,
        subplot_titles=[f"{m}, {c} responses" for c in labels for m in methods],
    )
    found = {(v.penalty, v.label): v for v in sweep.leverage}
    strengths = sorted({float(settings[n]["strength"]) for n in names})
    seen: set[str] = set()
    drawn: list[Leverage] = []
    for row, label in enumerate(labels, 1):
        for column, method in enumerate(methods, 1):
            own = [n for n in names if settings[n]["method"] == method][:most]
            curves = [found[n, label] for n in own if (n, label) in found]  # type: ignore[index]
            for name, curve in zip(own, curves, strict=True):
                strength = float(settings[name]["strength"])
                said = f"strength {strength:g}" if constant else name
                _add_leverage(figure, curve, said, strengths.index(strength), len(strengths), row, column, seen)
            drawn += curves
            if curves:
                _add_bound(figure, curves[0], row, column, seen)
    n: dict[str, int] = {v.label: int(v.n.max(initial=0)) for v in drawn}
    styled(
        figure,
        height=150 + 230 * len(labels),
        title="What a penalty can move",
        summary=(
            "Leverage, TV(penalised, aligned), by position along given responses, mean over "
            f"{' and '.join(f'{n[c]} {c}' for c in labels)} responses. Dashed: the bound, what the leverage is as the "
            "strength grows without end. Where base and aligned are equal, both are 0."
        ),
        columns=("penalty", "prompts", "position", "leverage", "low", "high", "bound", "excess mass", "n"),
        rows=[
            (v.penalty, v.label, *line)
            for v in drawn
            for line in zip(v.position, v.leverage, v.low, v.high, v.bound, v.excess_mass, v.n, strict=True)
            if line[-1] > 0
        ],
    )
    figure.update_yaxes(range=[-0.02, 1.02], zeroline=False)
    figure.update_yaxes(title_text="leverage, 0 to 1", col=1)
    figure.update_xaxes(title_text="position, tokens (1 = first)", row=len(labels))
    return figure.update_layout(margin=dict(t=104))


def _add_leverage(
    figure: go.Figure, curve: Leverage, said: str, place: int, of: int, row: int, column: int, seen: set[str]
) -> None:
    there = curve.n > 0
    figure.add_scatter(
        x=curve.position[there],
        y=curve.leverage[there],
        customdata=np.stack([curve.n[there], curve.low[there], curve.high[there]], 1),
        mode="lines+markers",
        name=said,
        legendgroup=said,
        legendrank=1 + place,
        showlegend=said not in seen,
        line=dict(color=_shade(place, of), width=1.8),
        marker=dict(symbol=LINE_MARKERS[place % len(LINE_MARKERS)], size=7, maxdisplayed=9),
        hovertemplate=f"{plotly_text(curve.penalty)}, position %{{x}}<br>leverage %{{y:.3f}}"
        "<br>interval %{customdata[1]:.3f} to %{customdata[2]:.3f}, n = %{customdata[0]:.0f}<extra></extra>",
        row=row,
        col=column,
    )
    seen.add(said)


def _add_bound(figure: go.Figure, curve: Leverage, row: int, column: int, seen: set[str]) -> None:
    there = (curve.n > 0) & np.isfinite(curve.bound)
    if not there.any():
        return
    figure.add_scatter(
        x=curve.position[there],
        y=curve.bound[there],
        mode="lines",
        name="bound, any strength",
        legendgroup="bound",
        legendrank=1_000,
        showlegend="bound" not in seen,
        line=dict(color=LIMIT, width=1.6, dash="dash"),
        hovertemplate="bound, position %{x}<br>%{y:.3f}<extra></extra>",
        row=row,
        col=column,
    )
    seen.add("bound")


def _shade(place: int, of: int) -> str:
    """Return a slate between light and dark that reads on white and on near-black, darker for stronger."""
    share = 0.0 if of < 2 else place / (of - 1)
    light, dark = (0x9C, 0xC4, 0xDE), (0x2B, 0x6A, 0x9B)
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(light, dark, strict=True))
