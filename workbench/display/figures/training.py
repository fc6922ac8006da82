"""A training as curves, and its film: how far the student still is base, position by position, at every frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float32

from workbench.core.legible import plotly_text
from workbench.core.palette import OTHER_ARMS, stroke_of
from workbench.display.figures.look import DARK, MUTED, POSITION, empty, facets, stroked, styled
from workbench.training.records import PARTS, Adapter, TrainingFilm

LABELS = ("harmful", "harmless")
FILMED = (
    ("retention", "retention, 1 = still base"),
    ("kl_aligned_student_nats", "KL(aligned ‖ student), nats"),
)


def training_curves(adapter: Adapter) -> go.Figure:
    """Draw the parts of the loss by step above what the film saw: retention on harmful texts, KL on harmless ones."""
    steps = [s.step for s in adapter.history]
    if not steps:
        return empty("No step was taken.")
    parts = [p for p in PARTS if any(p in s.parts for s in adapter.history)]
    film = adapter.film
    figure = facets(3 if film else 1, 1, shared_xaxes=True, vertical_spacing=0.07)
    for part, stroke in zip(parts, OTHER_ARMS, strict=False):
        found = [(s.step, s.parts[part]) for s in adapter.history if part in s.parts]
        figure.add_scatter(
            x=[x for x, _ in found],
            y=[max(y, 1e-8) for _, y in found],
            name=f"loss: {part}",
            mode="lines",
            line=dict(color=stroke.colour, dash=stroke.dash, width=1.6),
            hovertemplate=f"{part}, step %{{x}}<br>%{{y:.4g}}<extra></extra>",
            row=1,
            col=1,
        )
    if film is not None:
        for row, label, name, title in (
            (2, "harmful", "retention", "retention on harmful texts"),
            (3, "harmless", "kl_aligned_student_nats", "KL(aligned ‖ student) on harmless texts"),
        ):
            stroke = stroke_of(label)
            figure.add_scatter(
                x=film.steps,
                y=film.mean(name, label),  # type: ignore[arg-type]
                name=title,
                mode="lines+markers",
                **stroked(stroke),
                hovertemplate=f"{plotly_text(title)}, step %{{x}}<br>%{{y:.4g}}<extra></extra>",
                row=row,
                col=1,
            )
    styled(
        figure,
        height=640 if film else 320,
        title=f"Training of {adapter.arm}",
        summary=f"Loss parts by step, means over positions (n = {len(steps)} steps); below, means over fixed texts: "
        "retention on harmful texts (lower: the student has left the base model there) and KL(aligned ‖ student) on "
        "harmless ones, nats per token (lower is better).",
        columns=("step", *parts, "learning rate", "gradient norm"),
        rows=[(s.step, *(s.parts.get(p) for p in parts), s.learning_rate, s.gradient_norm) for s in adapter.history],
    )
    figure.update_yaxes(title_text="loss part", type="log", exponentformat="power", row=1, col=1)
    if film is not None:
        figure.update_yaxes(title_text="retention, harmful", range=[-0.03, 1.05], row=2, col=1)
        figure.update_yaxes(title_text="KL harmless, nats", rangemode="tozero", row=3, col=1)
    figure.update_xaxes(title_text="optimizer step", row=3 if film else 1, col=1)
    return figure


def training_film(film: TrainingFilm | None) -> go.Figure:
    """Draw every frame by position, one shown at a time; a slider chooses the step. Needs no kernel.

    The thin grey lines are step 0, before training. What is drawn are means over the texts of each kind. Where no film
    was taken the figure says so.
    """
    if film is None or not len(film.steps):
        return empty("No film was taken." if film is None else "The film has no frame.")
    figure = facets(2, 1, shared_xaxes=True, vertical_spacing=0.08)
    lines: list[list[Any]] = []
    labels = [label for label in LABELS if any(t.label == label for t in film.texts)]
    for label in labels:
        for row, (name, _) in enumerate(FILMED, 1):
            value, _n = _by_position(film, name, label)
            figure.add_scatter(**_line(value[0], MUTED, stroke_of(label).dash, 1.0), showlegend=False, row=row, col=1)
    fixed = len(figure.data)
    last = len(film.steps) - 1
    for i, step in enumerate(film.steps.tolist()):
        for label in labels:
            stroke = stroke_of(label)
            for row, (name, title) in enumerate(FILMED, 1):
                value, n = _by_position(film, name, label)
                texts = sum(t.label == label for t in film.texts)
                figure.add_scatter(
                    **_line(value[i], stroke.colour, stroke.dash, 2.2),
                    name=f"{label} ({texts} text{'' if texts == 1 else 's'})",
                    visible=i == last,
                    showlegend=row == 1,
                    legendgroup=label,
                    hovertemplate=f"{label}, step {step}, position %{{x}}<br>{plotly_text(title)}: %{{y:.4g}}"
                    "<extra></extra>",
                    row=row,
                    col=1,
                )
                lines += [
                    [step, label, name, t + 1, float(value[i, t]), int(n[t])]
                    for t in range(len(n))
                    if n[t] and i == last
                ]
    each = 2 * len(labels)
    shown = [[True] * fixed + [i == j for j in range(len(film.steps)) for _ in range(each)] for i in range(last + 1)]
    styled(
        figure,
        height=560,
        title="The film of the training",
        summary="What the student says along fixed texts, by position: retention (1 = still the base model) above "
        "KL(aligned ‖ student), nats; the slider chooses the optimizer step, grey is before training. Means over "
        "texts; the table holds the last frame.",
        columns=("step", "texts", "quantity", "position", "mean", "n"),
        rows=lines,
    )
    figure.update_layout(
        margin=dict(b=136),
        sliders=[
            dict(
                active=last,
                pad=dict(t=60),
                currentvalue=dict(prefix="optimizer step ", font=dict(color=DARK, size=13)),
                steps=[
                    dict(label=str(step), method="restyle", args=[{"visible": shown[i]}])
                    for i, step in enumerate(film.steps.tolist())
                ],
            )
        ],
    )
    figure.update_yaxes(title_text=FILMED[0][1], range=[-0.03, 1.05], row=1, col=1)
    figure.update_yaxes(title_text=FILMED[1][1], rangemode="tozero", row=2, col=1)
    return figure.update_xaxes(title_text=POSITION, row=2, col=1)


def _line(y: Float32[np.ndarray, "position"], colour: str, dash: str, width: float) -> dict[str, Any]:
    there = np.flatnonzero(np.isfinite(y))
    return dict(x=there + 1, y=y[there], mode="lines", line=dict(color=colour, dash=dash, width=width))


def _by_position(film: TrainingFilm, name: str, label: str) -> tuple[Float32[np.ndarray, "step position"], np.ndarray]:
    rows = [i for i, t in enumerate(film.texts) if t.label == label]
    values = getattr(film, name)[:, rows]
    there = np.isfinite(values)
    n = there.sum(1)
    mean = np.where(n > 0, np.where(there, values, 0.0).sum(1) / np.maximum(n, 1), np.nan)
    return mean.astype(np.float32), n[0]
