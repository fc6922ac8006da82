"""What a diagnosis found, as a first screen: verdict, depth, late retention, the decay curve, a dot for each prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.core.legible import html_text, percent
from workbench.core.records import Estimate
from workbench.display.figures.drawn import ticks
from workbench.display.views.drawing import Frame, band, line, rectangle, svg, text
from workbench.display.views.first import FirstScreen, Picture, Tile, between, first_screen
from workbench.display.views.summaries import VERDICTS
from workbench.display.views.view import number
from workbench.tracing.diagnosis.config import DiagnosisConfig
from workbench.tracing.diagnosis.ranking import late_retention
from workbench.tracing.records import Curve, Depth, Diagnosis, TraceSet

KL = "kl_aligned_base_nats"
MOST_DOTS = 400


def found(diagnosis: Diagnosis, traces: TraceSet) -> FirstScreen:
    """Say what a diagnosis found in ten seconds: one sentence, three numbers, the decay curve and a dot a prompt.

    The curve is the mean KL(aligned || base) by position on a root scale, with the early and late windows. A dot is one
    harmful response at its late retention; in a report, a click opens it in the text below.
    """
    facts = facts_of(diagnosis)
    depth = next((d for d in diagnosis.depths if d.category is None), None)
    late_from = int(_setting(diagnosis, "late_from"))
    kept = facts.get("late_retention_uncertain")
    tiles = [_depth_tile(depth), _retention_tile(kept, diagnosis), _ratio_tile(facts)]
    return first_screen(
        _title(diagnosis, depth, kept),
        _under(diagnosis, kept, late_from),
        [t for t in tiles if t is not None],
        [
            Picture(
                title="How far alignment has moved the model, by position",
                soft="mean KL(aligned ‖ base), nats, root scale",
                drawing=decay_drawing(diagnosis),
                share=2,
            ),
            Picture(
                title="Each harmful answer",
                soft="late retention; click to read",
                drawing=_dots_drawing(traces, late_from),
            ),
        ],
        traces.warnings,
    )


# ------------------------------------------------------------------------------------------------------- words


def _title(diagnosis: Diagnosis, depth: Depth | None, kept: Estimate | None) -> str:
    if diagnosis.verdict != "shallow" or depth is None or not depth.estimate.value:
        return {
            "deep": "Deep: aligned differs from base late in harmful answers too",
            "identical": "Identical: the two models predict the same everywhere",
            "differs_early": "The models differ early; nothing shows that this is safety",
        }.get(diagnosis.verdict, VERDICTS[diagnosis.verdict])
    near = kept is not None and kept.value is not None and kept.value >= float(_setting(diagnosis, "near_retention"))
    then = "then reads like base" if near else "then fades"
    tokens = depth.estimate.value
    if tokens == 1:
        return f"Shallow: aligned decides at token 1, {then}"
    return f"Shallow: aligned acts on the first {tokens:g} tokens, {then}"


def _under(diagnosis: Diagnosis, kept: Estimate | None, late_from: int) -> str:
    if diagnosis.verdict in ("shallow", "deep") and kept is not None and kept.value is not None:
        return (
            f"Given the beginning of a harmful answer, aligned keeps {percent(kept.value)} of base's probability from "
            f"position {late_from} on, wherever there is a choice."
        )
    reason = diagnosis.sentences[0] if diagnosis.sentences else ""
    said = reason.partition(": ")[2] or reason
    return said[:1].upper() + said[1:]


def _depth_tile(depth: Depth | None) -> Tile | None:
    if depth is None:
        return None
    e = depth.estimate
    tokens = "–" if e.value is None else f"{e.value:g}" + (" or more" if depth.throughout else "")
    name = "token of a harmful answer moved" if e.value == 1 else "tokens of a harmful answer moved"
    interval = "" if e.low is None or e.high is None else f"{e.low:g} to {e.high:g} · "
    return Tile(value=tokens, name=name, note=f"{interval}n = {e.n} · deep is all {depth.measured}")


def _retention_tile(kept: Estimate | None, diagnosis: Diagnosis) -> Tile | None:
    if kept is None:
        return None
    harmless = facts_of(diagnosis, "harmless").get("late_retention_uncertain")
    beside = f" · harmless {percent(harmless.value)}" if harmless is not None and harmless.value is not None else ""
    note = f"{between(kept, share=True)}{beside}"
    return Tile(value=percent(kept.value), name="still base, late (retention)", note=note)


def _ratio_tile(facts: Mapping[str, Estimate]) -> Tile | None:
    ratio = facts.get("early_to_late_kl_ratio")
    if ratio is None:
        return None
    value = "–" if ratio.value is None else f"{_round(ratio.value)}×"
    low, high = ratio.low, ratio.high
    interval = "" if low is None or high is None else f"{_round(low)} to {_round(high)} · "
    return Tile(value=value, name="early over late KL", note=f"{interval}n = {ratio.n} · deep is near 1")


def _round(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else number(value)


def facts_of(diagnosis: Diagnosis, label: str = "harmful") -> dict[str, Estimate]:
    """Return the headline numbers of a label, those that the verdict reads: of the first group that has them."""
    made: dict[str, Estimate] = {}
    for c in diagnosis.contrasts:
        if c.label == label:
            made.setdefault(c.name, c.estimate)
    return made


def _setting(diagnosis: Diagnosis, name: str) -> float:
    value = diagnosis.run.asked.get(name, getattr(DiagnosisConfig, name))
    return float(value if value is not None else getattr(DiagnosisConfig, name))


# ---------------------------------------------------------------------------------------------------- drawings


def _curves(diagnosis: Diagnosis) -> list[Curve]:
    """Return the KL curves of harmful and harmless answers; of several given lengths, those after the longest."""
    mine = [c for c in diagnosis.curves if c.name == KL and c.label in ("harmful", "harmless")]
    longest = max((c.prefix_tokens for c in mine if c.prefix_tokens is not None), default=None)
    return [c for c in mine if c.prefix_tokens == longest]


def highest(diagnosis: Diagnosis) -> float:
    """Return the top of the decay curve's interval, nats; 0 without a curve."""
    tops = (np.where(np.isfinite(c.high), c.high, c.value) for c in _curves(diagnosis) if c.position.size)
    return max((float(np.nanmax(t)) for t in tops), default=0.0)


def decay_drawing(diagnosis: Diagnosis, *, width: int = 660, most: float | None = None, small: bool = False) -> str:
    """Draw mean KL(aligned || base) by position with its interval, the early and late windows shaded.

    `most` is the top of the scale (None: of this curve), so that several drawings can be compared. A `small` one says
    nothing inside.
    """
    curves = [c for c in _curves(diagnosis) if c.position.size]
    if not curves:
        return ""
    facts = facts_of(diagnosis)
    early, late_from = (int(_setting(diagnosis, name)) for name in ("early", "late_from"))
    last = max(int(c.position[-1]) for c in curves)
    most = max(highest(diagnosis) if most is None else most, 1e-3)
    frame = Frame(width=width, height=150 if small else 190, x=(1.0, float(max(2, last))), y=(0.0, most), root=True)
    bottom, top = frame.height - frame.bottom, frame.top
    parts = [_window(frame, 1, early, "wb-early", top, bottom)]
    if last >= late_from:
        parts.append(_window(frame, late_from, last, "wb-late", top, bottom))
    for value in ticks(0, most, 3):
        y = frame.at_y(value)
        parts.append(f'<path class="wb-grid" d="M{frame.left} {y:.1f}H{frame.width - frame.right}"/>')
        parts.append(text(frame.left - 6, y + 4, f"{value:g}", anchor="end"))
    named = [int(t) for t in ticks(1, last, 3 if small else 6) if 1 < t < last - last / 12]
    parts += [text(frame.at_x(p), bottom + 16, f"{p}", anchor="middle") for p in (1, *named, last)]
    for c in sorted(curves, key=lambda c: c.label == "harmful"):
        lower, middle, upper = (_points(frame, c, values) for values in (c.low, c.value, c.high))
        parts += [band(lower, upper, f"wb-band wb-of-{c.label}"), line(middle, f"wb-curve wb-of-{c.label}")]
    early_kl, late_kl = (_said(facts, f"{when}_{KL}") for when in ("early", "late"))
    if not small:
        parts.append(text(frame.at_x(early) + 8, top + 12, f"early {early_kl}", "wb-said wb-harmful-ink"))
        if last >= late_from:
            parts.append(text(frame.at_x(late_from) + 6, top + 12, f"late {late_kl}"))
        if any(c.label == "harmless" for c in curves):
            parts.append(text(frame.width - frame.right, bottom - 6, "dashed: harmless answers", anchor="end"))
        parts.append(f'<path class="wb-mark" d="M0 {top}V{bottom}" hidden="hidden"/>')
    said = f"Mean KL(aligned ‖ base) by position, harmful answers: early {early_kl} nats, late {late_kl} nats."
    step = frame.at_x(2) - frame.at_x(1)
    place: dict[str, Any] = {} if small else {"first": frame.at_x(1), "step": step, "last": last}
    return svg(frame.width, frame.height, said, parts, css="" if small else "wb-decay", **place)


def _points(frame: Frame, curve: Curve, values: np.ndarray) -> list[tuple[float, float]]:
    each = zip(curve.position.tolist(), values.tolist(), strict=True)
    return [(frame.at_x(p), frame.at_y(v) if math.isfinite(v) else math.nan) for p, v in each]


def _window(frame: Frame, start: int, stop: int, css: str, top: int, bottom: int) -> str:
    left, right = frame.at_x(max(1, start - 0.5)), frame.at_x(min(frame.x[1], stop + 0.5))
    return rectangle(left, top, right - left, bottom - top, css)


def _said(facts: Mapping[str, Estimate], name: str) -> str:
    found = facts.get(name)
    return "–" if found is None else number(found.value)


def _dots_drawing(traces: TraceSet, late_from: int) -> str:
    late = late_retention(traces, late_from)
    rows = [i for i, r in enumerate(traces.responses) if r.label == "harmful" and np.isfinite(late[i])][:MOST_DOTS]
    if not rows:
        return ""
    low = math.floor(20 * min(0.95, *(float(late[i]) for i in rows))) / 20
    frame = Frame(width=330, height=190, x=(low, 1.0), y=(0.0, 1.0), left=14, right=14)
    base = frame.height - frame.bottom
    parts = [f'<path class="wb-axis" d="M{frame.left} {base}H{frame.width - frame.right}"/>']
    parts.append(text(frame.left, base + 17, f"{low:g}"))
    parts.append(text(frame.width - frame.right, base + 17, "1 = still base", anchor="end"))
    for i, (x, y) in zip(rows, _spread([frame.at_x(float(late[i])) for i in rows], base, frame.top + 26), strict=True):
        of = traces.responses[i]
        said = html_text(f"{of.prompt_id}: late retention {late[i]:.3f}")
        parts.append(
            f'<circle class="wb-dot" cx="{x:.1f}" cy="{y:.1f}" r="6" data-response="{i}" tabindex="-1" role="button" '
            f'aria-label="{said}"><title>{said}</title></circle>'
        )
    parts.append(text(frame.width - frame.right, frame.top, "", "wb-said wb-harmful-ink wb-shown", anchor="end"))
    said = f"Late retention of {len(rows)} harmful answers, a dot each."
    return svg(frame.width, frame.height, said, parts, css="wb-dots", role="group")


def _spread(xs: list[float], base: int, top: int, size: float = 12.5) -> list[tuple[float, float]]:
    """Stack dots that would cover each other, from the axis upwards; where there is no room they share a place."""
    placed: list[tuple[float, float]] = []
    for x in xs:
        y = base - 9.0
        while y - size > top and any(math.hypot(x - a, y - b) < size for a, b in placed):
            y -= size
        placed.append((x, y))
    return placed
