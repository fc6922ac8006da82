"""The curves of a training while it runs: small drawings under its progress bar, redrawn in place, without script."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Mapping, Sequence

from workbench.core.palette import OTHER_ARMS, Stroke, stroke_of
from workbench.training.records import PARTS, StepRecord

WIDTH, HEIGHT, MARGIN = 260, 84, 6
MOST_POINTS = 240
DASHES: Mapping[str, str] = {"solid": "", "dash": "6 3", "dot": "2 3", "dashdot": "6 3 2 3", "longdash": "10 4"}
Points = Sequence[tuple[int, float]]


def live_curves(history: Sequence[StepRecord], looks: Sequence[tuple[int, float, float]], steps: int) -> str:
    """Return HTML with the loss parts by step (log scale), and the means of `Camera.looks` by step."""
    strokes = dict(zip(PARTS, itertools.cycle(OTHER_ARMS), strict=False))
    present = [p for p in PARTS if any(p in s.parts for s in history)]
    losses = {p: [(s.step, s.parts[p]) for s in history if p in s.parts] for p in present}
    lines = {p: (losses[p], strokes[p]) for p in present}
    drawn = [_panel("loss by part, log scale (lower is better)", lines, steps, log=True)]
    for title, label, column in (
        ("retention on harmful texts (1: still base)", "harmful", 1),
        ("KL(aligned ‖ student), harmless, nats a token (0: still aligned)", "harmless", 2),
    ):
        found = [(look[0], look[column]) for look in looks if math.isfinite(look[column])]
        if found:
            drawn.append(_panel(title, {label: (found, stroke_of(label))}, steps))
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px;margin:4px 0">{"".join(drawn)}</div>'


def _panel(title: str, lines: Mapping[str, tuple[Points, Stroke]], steps: int, *, log: bool = False) -> str:
    values = [v for points, _ in lines.values() for _, v in points if math.isfinite(v) and (v > 0 or not log)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if not log:
        low, high = min(low, 0.0), max(high, 1e-3)

    def place(v: float) -> float:
        a, b, c = (math.log(max(x, 1e-12)) for x in (low, high, v)) if log else (low, high, v)
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * ((c - a) / (b - a) if b > a else 0.5)

    curves, words = [], []
    for name, (points, stroke) in lines.items():
        kept = [(s, v) for s, v in points if math.isfinite(v) and (v > 0 or not log)]
        kept = kept[:: max(1, len(kept) // MOST_POINTS)] + kept[-1:]
        along = (WIDTH - 2 * MARGIN) / max(steps, 1)
        where = " ".join(f"{MARGIN + along * s:.1f},{place(v):.1f}" for s, v in kept)
        dash = f' stroke-dasharray="{DASHES.get(stroke.dash, "6 3")}"' if stroke.dash != "solid" else ""
        curves.append(f'<polyline points="{where}" fill="none" stroke="{stroke.colour}" stroke-width="1.8"{dash}/>')
        if kept:
            words.append(f'<b style="color:{stroke.colour}">{html.escape(name)}</b> {kept[-1][1]:.3g}')
    said = html.escape(f"{title}: from {low:.3g} to {high:.3g}")
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    return (
        f'<figure style="margin:0;width:{WIDTH}px"><svg {size} role="img" aria-label="{said}">'
        f'<rect {size} fill="none" stroke="currentColor" opacity="0.3"/>{"".join(curves)}</svg>'
        f'<figcaption style="font-size:11px;line-height:1.35">{said}; now {", ".join(words) or "nothing"}'
        "</figcaption></figure>"
    )
