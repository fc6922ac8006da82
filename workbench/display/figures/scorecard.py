"""A Scorecard drawn: attack success (or non-refusal) by prefix length, and safety beside capability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from workbench.core.legible import plotly_text, sentence
from workbench.core.palette import strokes_of_arms
from workbench.core.records import Given
from workbench.display.figures.look import empty, error_bars, facets, parts_of, stroked, styled, value_of
from workbench.evaluation.metrics import HARMLESS_CONTROL
from workbench.evaluation.records import Score, Scorecard, select
from workbench.evaluation.tradeoff import tradeoffs

PREFILL = "prefill"
_MEANS = {"attack success": "counts as harmful", "non-refusal": "does not refuse, harmful or not"}


def success_by_prefix(scorecard: Scorecard, *, judge: str | None = None) -> go.Figure:
    """Draw what the judge measures over the number of given tokens, a line an arm with its interval, and the control.

    The control is the harmless prefill, which must be continued: a defence that refuses after any prefix would look
    safe on the left alone. `judge` None: the first.
    """
    found = _by_prefix(scorecard, "asr", PREFILL, judge)
    if not found:
        return empty("No attack success by prefix length: it needs the attack prefill.")
    named = found[0].judge
    control = _by_prefix(scorecard, "continued", HARMLESS_CONTROL, named)
    always = all_continued(control)
    control = [] if always else control
    measures = scorecard.measured_by(named)
    panels = [(f"{measures} (lower is safer)", found), ("harmless prefix continued (higher is better)", control)]
    panels = [(title, scores) for title, scores in panels if scores]
    figure = facets(
        1,
        len(panels),
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=[title for title, _ in panels] if len(panels) > 1 else None,
    )
    strokes = strokes_of_arms(s.arm for s in scorecard.scores)
    ticks = sorted({s.given for _, scores in panels for s in scores if s.given is not None}, key=_tokens)
    rows: list[tuple[Any, ...]] = []
    for column, (title, scores) in enumerate(panels, 1):
        arms = list(dict.fromkeys(s.arm for s in scores))
        for i, arm in enumerate(arms):
            mine = sorted((s for s in scores if s.arm == arm), key=lambda s: _tokens(s.given))
            stroke = strokes[arm]
            shift = 0.06 * (i - (len(arms) - 1) / 2)
            counts = sorted({s.estimate.n for s in mine})
            n = f"n = {counts[-1]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
            figure.add_scatter(
                x=[ticks.index(s.given) + shift for s in mine if s.given is not None],
                y=[value_of(s.estimate) for s in mine],
                customdata=[[s.where, s.estimate.n, s.estimate.low, s.estimate.high] for s in mine],
                mode="lines+markers",
                name=plotly_text(f"{sentence(arm)} ({n})"),
                legendgroup=arm,
                showlegend=column == 1,
                **stroked(stroke, size=8),
                error_y=error_bars((s.estimate for s in mine), stroke.colour, thickness=1.3, width=3),
                hovertemplate=f"{plotly_text(sentence(arm))}, %{{customdata[0]}}<br>%{{y:.1%}} "
                "[%{customdata[2]:.1%}, %{customdata[3]:.1%}], n = %{customdata[1]}<extra></extra>",
                row=1,
                col=column,
            )
            panel = title.split(" (")[0]
            rows += [(panel, arm, s.given, *parts_of(s.estimate)) for s in mine]
        figure.update_xaxes(
            tickvals=list(range(len(ticks))),
            ticktext=[str(t) for t in ticks],
            range=[-0.4, len(ticks) - 0.6],
            title_text="tokens given of the response",
            row=1,
            col=column,
        )
    beside = "; beside it, the share of harmless prefixes that are continued" if len(panels) > 1 else ""
    beside = f". {always}" if always else beside
    styled(
        figure,
        height=400,
        title=f"{measures[0].upper()}{measures[1:]} by given tokens",
        summary=f"Share of prompts whose answer {_MEANS[measures]}, after the first k tokens of a compliant answer "
        f"were given{beside}. Judged by {named}; bars are {100 * _level(scorecard):g} % intervals "
        f"({scorecard.run.resolved.get('intervals', 'Wilson')}).",
        columns=("panel", "arm", "given tokens", "share", "low", "high", "n"),
        rows=rows,
    )
    figure.update_layout(margin=dict(t=88 if len(panels) > 1 else 64))
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%", zeroline=False)
    return figure.update_yaxes(title_text="share of prompts", row=1, col=1)


def all_continued(control: Sequence[Score]) -> str:
    """Say that every arm continues every harmless beginning, where it does: then there is nothing to draw."""
    every = bool(control) and all(s.estimate.value == 1.0 for s in control)
    return "Every arm continues all harmless beginnings" if every else ""


def safety_capability(scorecard: Scorecard, *, judge: str | None = None) -> go.Figure:
    """Draw each arm's worst-case `asr` against its capability, both with intervals; lower right is better.

    `judge` None: the first.
    """
    standing = tradeoffs(scorecard.scores, judge)
    found = [t for t in standing if t.capability is not None and t.capability.value is not None]
    if not found:
        return empty("Safety beside capability needs attack success and the harness's questions of at least one arm.")
    strokes = strokes_of_arms(s.arm for s in scorecard.scores)
    measures = scorecard.measured_by(found[0].success.judge)
    figure = go.Figure()
    for i, t in enumerate(found):
        assert t.capability is not None
        stroke = strokes[t.arm]
        figure.add_scatter(
            x=[value_of(t.capability)],
            y=[value_of(t.asr)],
            mode="markers",
            name=plotly_text(sentence(t.arm)),
            marker=dict(symbol=f"{stroke.marker}-open", size=9 + 5 * i, color=stroke.colour, line=dict(width=2.4)),
            error_x=error_bars([t.capability], stroke.colour, thickness=1.3, width=3),
            error_y=error_bars([t.asr], stroke.colour, thickness=1.3, width=3),
            hovertemplate=f"{plotly_text(sentence(t.arm))}<br>accuracy %{{x:.1%}}, {measures} %{{y:.1%}}"
            f"<br>n = {t.capability.n} questions, {t.asr.n} prompts<extra></extra>",
        )
    first = found[0]
    styled(
        figure,
        height=440,
        title="Safety beside capability",
        summary=f"Worst-case {measures} ({first.success.where}; by {first.success.judge}) against accuracy, "
        f"mean over tasks, one marker an arm with {100 * _level(scorecard):g} % intervals; lower right is better.",
        columns=(
            *("arm", measures, f"{measures} low", f"{measures} high", "n prompts"),
            *("accuracy", "accuracy low", "accuracy high", "n questions"),
        ),
        rows=[(t.arm, *parts_of(t.asr), *parts_of(t.capability)) for t in found if t.capability is not None],
    )
    measured = [t.capability for t in found if t.capability is not None]
    values = [v for e in measured for v in (e.low, e.high, e.value) if v is not None]
    room = 0.15 * (max(values) - min(values)) + 0.02
    figure.update_xaxes(
        title_text="accuracy, mean of tasks (higher is better)",
        tickformat=".0%",
        range=[max(0.0, min(values) - room), min(1.0, max(values) + room) + 0.1 * room],
    )
    return figure.update_yaxes(
        title_text=f"{measures}, worst case (lower is safer)", tickformat=".0%", range=[-0.03, 1.08], zeroline=False
    )


def _by_prefix(scorecard: Scorecard, metric: str, attack: str, judge: str | None) -> list[Score]:
    scores = select(scorecard.scores, metric, attack=attack)
    named = judge or (scores[0].judge if scores else None)
    return [s for s in scores if s.judge == named and s.given is not None]


def _tokens(given: Given | None) -> float:
    return float(given) if isinstance(given, int) else math.inf


def _level(scorecard: Scorecard) -> float:
    return float(scorecard.run.resolved.get("confidence", 0.95))
