"""Quantities by position: one at a time, a facet for each prefix length, or four above one another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float32

from workbench.core.errors import ParameterError, UnknownName, nearest
from workbench.core.legible import plotly_text
from workbench.core.palette import stroke_of, tint
from workbench.display.figures.look import MUTED, NOISE, POSITION, axis, empty, facets, stroked, styled
from workbench.tracing.records import Curve, Diagnosis

PANEL = ("kl_aligned_base_nats", "retention", "entropy_aligned_nats", "base_favored_count")
ORDER = ("harmful", "harmless", "lookalike", "unlabelled")


def _curves_named(diagnosis: Diagnosis, name: str) -> list[Curve]:
    known = tuple(dict.fromkeys(c.name for c in diagnosis.curves))
    if known and name not in known:
        raise UnknownName(f"the diagnosis has no curve {name!r}: {nearest(name, known)}")
    rank = {c: i for i, c in enumerate(ORDER)}
    found = [c for c in diagnosis.curves if c.name == name and c.n.max(initial=0) > 0]
    return sorted(found, key=lambda c: (-1 if c.prefix_tokens is None else c.prefix_tokens, rank.get(c.label, 9)))


def _band(curve: Curve) -> tuple[Float32[np.ndarray, "corner"], Float32[np.ndarray, "corner"]]:
    """Return the interval as one closed outline a stretch of positions that have one, stretches parted by NaN."""
    x: list[np.ndarray] = []
    y: list[np.ndarray] = []
    fine = np.isfinite(curve.low) & np.isfinite(curve.high)
    for stretch in np.split(np.arange(fine.size), np.flatnonzero(np.diff(fine.astype(int))) + 1):
        if stretch.size and fine[stretch[0]]:
            at, low, high = (values[stretch] for values in (curve.position, curve.low, curve.high))
            x += [at, at[::-1], at[:1], _GAP]
            y += [high, low[::-1], high[:1], _GAP]
    joined = (np.concatenate([_NONE, *parts]).astype(np.float32) for parts in (x, y))
    return next(joined), next(joined)


_GAP, _NONE = np.full(1, np.nan, np.float32), np.zeros(0, np.float32)


def _n_text(curve: Curve) -> str:
    counts = curve.n[curve.n > 0]
    most, least = int(counts.max()), int(counts.min())
    return f"n = {most}" if most == least else f"n = {most}, {least} at the fewest"


def _add_curve(figure: go.Figure, curve: Curve, *, row: int, column: int, legend: bool) -> None:
    stroke = stroke_of(curve.label)
    x, y = _band(curve)
    if x.size:
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            fill="toself",
            fillcolor=tint(stroke.colour, 0.16),
            line=dict(width=0),
            legendgroup=curve.label,
            showlegend=False,
            hoverinfo="skip",
            row=row,
            col=column,
        )
    numbers = np.stack([curve.n.astype(np.float32), curve.low, curve.high], axis=1)
    few, many = curve.position.size <= 40, curve.position.size > 60
    figure.add_scatter(
        x=curve.position,
        y=curve.value,
        customdata=numbers,
        name=f"{curve.label} ({_n_text(curve)})",
        mode="lines" if many else "lines+markers",
        connectgaps=False,
        legendgroup=curve.label,
        showlegend=legend,
        row=row,
        col=column,
        **stroked(stroke, size=6 if few else 4),
        hovertemplate=f"{plotly_text(curve.label)}, position %{{x}}<br>%{{y:.4g}} {plotly_text(_unit(curve))}"
        "<br>interval %{customdata[1]:.3g} to %{customdata[2]:.3g}, n = %{customdata[0]:.0f}<extra></extra>",
    )


def _unit(curve: Curve) -> str:
    return "" if curve.unit in ("", "1") else curve.unit


def _add_noise(figure: go.Figure, floor: Curve | None, *, row: int, column: int, legend: bool) -> bool:
    """Draw the noise floor from zero up as a grey band; return whether there was one."""
    if floor is None or not np.isfinite(floor.value).any():
        return False
    top = np.where(np.isfinite(floor.high), floor.high, floor.value)
    keep = np.isfinite(top)
    figure.add_scatter(
        x=floor.position[keep],
        y=top[keep],
        mode="lines",
        fill="tozeroy",
        fillcolor=tint(NOISE, 0.35),
        line=dict(color=NOISE, width=1, dash="dot"),
        name=f"noise floor, at most {np.max(top[keep]):.1g} nats",
        legendgroup="noise",
        showlegend=legend,
        row=row,
        col=column,
        hovertemplate="noise floor, position %{x}<br>%{y:.2g} nats: one model in two batch layouts<extra></extra>",
    )
    return True


def _prefix_title(prefix: int | None) -> str:
    if prefix is None:
        return "teacher-forced over the given response"
    return f"free-running, {prefix} {'token' if prefix == 1 else 'tokens'} given"


_CURVE_COLUMNS = ("curve", "prompts", "given tokens", "position", "mean", "low", "high", "n", "unit")


def _curve_rows(curves: Iterable[Curve]) -> list[tuple[Any, ...]]:
    return [
        (c.name, c.label, "all" if c.prefix_tokens is None else c.prefix_tokens, *line, c.unit)
        for c in curves
        for line in zip(c.position, c.value, c.low, c.high, c.n, strict=True)
        if line[-1] > 0
    ]


def _panel_rows(drawn: Iterable[Curve], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return one row a prompt label and position, with mean and bounds of each quantity."""
    found: dict[tuple[str, int], dict[str, tuple[Any, ...]]] = {}
    for c in drawn:
        for position, n, *numbers in zip(c.position.tolist(), c.n.tolist(), c.value, c.low, c.high, strict=True):
            if n > 0:
                found.setdefault((c.label, position), {})[c.name] = (n, *numbers)
    nothing = (0, None, None, None)
    return [
        (*key, max(v[0] for v in by_name.values()), *(x for name in names for x in by_name.get(name, nothing)[1:]))
        for key, by_name in found.items()
    ]


def curves(diagnosis: Diagnosis, name: str = "kl_aligned_base_nats", *, log_y: bool = False) -> go.Figure:
    """Draw one quantity by position, one line a prompt label with its bootstrap band; a facet for each prefix length.

    KL curves are drawn above the noise floor. Raises ParameterError for `log_y` where a mean or a bound is not above
    zero, because a logarithmic axis would hide it. Raises UnknownName for a curve that the diagnosis does not have.
    """
    found = _curves_named(diagnosis, name)
    if not found:
        return empty(f"There are no responses to draw {axis(name)} from.")
    if log_y:
        drawn = np.concatenate([np.concatenate([c.value, c.low]) for c in found])
        if below := int((drawn[np.isfinite(drawn)] <= 0).sum()):
            raise ParameterError(
                f"{name} has {below} means or bounds that are not above 0: a logarithmic axis would hide them; "
                "use log_y=False"
            )
    prefixes = list(dict.fromkeys(c.prefix_tokens for c in found))
    columns = min(3, len(prefixes))
    rows = math.ceil(len(prefixes) / columns)
    figure = facets(
        rows,
        columns,
        shared_yaxes="all",
        shared_xaxes="all",
        horizontal_spacing=0.03,
        vertical_spacing=0.16 / rows,
        subplot_titles=[_prefix_title(p) for p in prefixes] if len(prefixes) > 1 else None,
    )
    seen: set[str] = set()
    for i, prefix in enumerate(prefixes):
        row, column = 1 + i // columns, 1 + i % columns
        if name.startswith("kl_"):
            _add_noise(figure, diagnosis.noise_floor, row=row, column=column, legend=i == 0)
        for curve in (c for c in found if c.prefix_tokens == prefix):
            _add_curve(figure, curve, row=row, column=column, legend=curve.label not in seen)
            seen.add(curve.label)
        if column == 1:
            figure.update_yaxes(title_text=axis(name), row=row, col=column)
        if i >= len(prefixes) - columns:
            said = POSITION if columns == 1 else "position, tokens"
            figure.update_xaxes(title_text=said, row=row, col=column, showticklabels=True)
    what, how = axis(name), f" {_prefix_title(prefixes[0]).capitalize()}." if len(prefixes) == 1 else ""
    styled(
        figure,
        height=330 if rows == 1 else 110 + 230 * rows,
        title=f"{what[0].upper()}{what[1:].split(',')[0]} by position",
        summary=f"{what}: mean over responses with bootstrap interval over prompts, by prompt label.{how}",
        columns=_CURVE_COLUMNS,
        rows=_curve_rows(found),
    )
    _share(figure, name)
    last = max(int(c.position[-1]) for c in found if c.position.size)
    figure.update_xaxes(range=[0.4, last + 0.6])
    figure.update_layout(margin=dict(t=88 if len(prefixes) > 1 else 64))
    return figure.update_yaxes(type="log", exponentformat="power") if log_y else figure


def _share(figure: go.Figure, name: str, **where: Any) -> None:
    """Fix the axis of a share to 0..1; let every other one that cannot be negative start at 0."""
    if name in ("retention", "retention_uncertain", "excess_mass"):
        figure.update_yaxes(range=[-0.02, 1.02], zeroline=False, **where)
    elif name != "logprob_shift_nats":
        figure.update_yaxes(rangemode="tozero", **where)


def panel(diagnosis: Diagnosis, *, prefix_tokens: int | None = None) -> go.Figure:
    """Draw KL, retention, aligned entropy and the base-favored count above one another by position.

    One prefix length: the given one, else teacher-forced, else the smallest. Retention stands right above entropy,
    because it says nothing where entropy is near 0. Raises ParameterError for a prefix length that was not traced.
    """
    names = [n for n in PANEL if any(c.name == n for c in diagnosis.curves)]
    by_name = {n: _curves_named(diagnosis, n) for n in names}
    lengths = sorted({c.prefix_tokens for v in by_name.values() for c in v}, key=lambda p: -1 if p is None else p)
    if not lengths:
        return empty("There are no responses to draw curves from.")
    if prefix_tokens is not None and prefix_tokens not in lengths:
        raise ParameterError(
            f"no curves with {prefix_tokens} given tokens: there are {[p for p in lengths if p is not None]}"
        )
    chosen = lengths[0] if prefix_tokens is None else prefix_tokens
    figure = facets(len(names), 1, shared_xaxes=True, vertical_spacing=0.045)
    seen: set[str] = set()
    drawn = []
    for row, name in enumerate(names, 1):
        if name.startswith("kl_"):
            _add_noise(figure, diagnosis.noise_floor, row=row, column=1, legend=True)
        for curve in (c for c in by_name[name] if c.prefix_tokens == chosen):
            _add_curve(figure, curve, row=row, column=1, legend=curve.label not in seen)
            seen.add(curve.label)
            drawn.append(curve)
        if name == "entropy_aligned_nats":
            figure.add_hline(
                y=0.1,
                line=dict(color=MUTED, width=1, dash="dot"),
                row=row,
                col=1,
                annotation=dict(text="0.1 nats: below, retention says nothing", font=dict(size=11), xanchor="right"),
            )
        figure.update_yaxes(title_text=axis(name).replace(", ", ",<br>", 1), title_font_size=12, row=row, col=1)
        _share(figure, name, row=row, col=1)
    figure.update_xaxes(title_text=POSITION, row=len(names), col=1)
    how = _prefix_title(chosen).capitalize()
    summary = f"{how}: mean over responses with bootstrap interval over prompts, by prompt label."
    styled(
        figure,
        height=90 + 165 * len(names),
        title="How alignment acts by position",
        summary=summary,
        columns=("prompts", "position", "n", *(f"{n}{part}" for n in names for part in ("", " low", " high"))),
        rows=_panel_rows(drawn, names),
    )
    figure.update_yaxes(title_font_size=12)
    figure.update_xaxes(range=[0.4, max(int(c.position[-1]) for c in drawn if c.position.size) + 0.6])
    return figure.update_layout(margin=dict(l=90, t=48))
