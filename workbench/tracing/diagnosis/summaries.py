"""Curves, headline contrasts, heat map and ranking, computed from groups of answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from workbench.core.comparisons import share
from workbench.core.quantities import QUANTITIES
from workbench.core.statistics import Mean, difference, estimate, interval, quotient
from workbench.tracing.diagnosis.answers import Answers, Group, harmless_like, sides
from workbench.tracing.records import Contrast, Curve, Divergent, HeatMap, TraceSet

RETENTION_UNCERTAIN = "retention_uncertain"
CURVES: dict[str, str] = {q.name: q.unit for q in QUANTITIES.values() if q.axis} | {RETENTION_UNCERTAIN: "1"}
"""Name of each curve -> unit: every quantity with an axis title, and `retention_uncertain`, retention over the
responses that are uncertain at that position (aligned entropy above the floor), where retention has a meaning."""

DIVERGENT = 20
"""The number of most divergent responses that are listed."""

OWN_REFUSALS = "own_refusals"
"""The name of the contrast that says how often aligned refuses harmful prompts on its own."""

DIFFERENCE = "harmful_minus_harmless"
"""The label of a contrast between harmful and harmless prompts."""


# ------------------------------------------------------------------------------------------------- curves


def curves(answers: Answers) -> tuple[Curve, ...]:
    """Return every curve of CURVES for every label and prefix length: mean over responses, band over prompts."""
    return tuple(_curve(answers, g, name, unit) for g in answers.by_prefix for name, unit in CURVES.items())


def _curve(answers: Answers, group: Group, name: str, unit: str) -> Curve:
    where = (answers.uncertain if name == "retention_uncertain" else answers.mask)[group.rows]
    length = int(answers.traces.lengths()[group.rows].max(initial=0))
    values = getattr(answers.traces, name.removesuffix("_uncertain"))[group.rows, :length]
    mean = group.sample.mean(values, where[:, :length])
    low, high = interval(mean, answers.config.confidence)
    return Curve(
        name=name,
        label=group.label,
        prefix_tokens=group.prefix_tokens,
        unit=unit,
        position=answers.position[:length].astype(np.int32),
        value=mean.value.astype(np.float32),
        low=low.astype(np.float32),
        high=high.astype(np.float32),
        n=mean.n.astype(np.int32),
    )


def noise_floor(traces: TraceSet) -> Curve | None:
    """Return the largest KL over the samples by position between two scorings of one model; None where not measured.

    It has no interval, since there are few samples; n counts samples.
    """
    noise = np.where(np.isfinite(traces.noise_kl_nats), traces.noise_kl_nats, -np.inf)
    n = np.isfinite(noise).sum(axis=0)
    length = int(np.nonzero(n)[0].max(initial=-1)) + 1
    if length == 0:
        return None
    most = noise[:, :length].max(axis=0)
    missing = np.full(length, np.nan, np.float32)
    return Curve(
        name="noise_kl_nats",
        label="all",
        prefix_tokens=None,
        unit="nats",
        position=np.arange(1, length + 1, dtype=np.int32),
        value=np.where(n[:length] > 0, most, np.nan).astype(np.float32),
        low=missing,
        high=missing.copy(),
        n=n[:length].astype(np.int32),
    )


def heat_map(answers: Answers) -> HeatMap | None:
    """Return mean retention by prefix length and position on harmful prompts; None unless they are free-running."""
    groups = [g for g in answers.by_prefix if g.label == "harmful" and g.prefix_tokens is not None]
    if not groups:
        return None
    width = len(answers.position)
    value, n = np.full((len(groups), width), np.nan, np.float32), np.zeros((len(groups), width), np.int32)
    for row, group in enumerate(groups):
        mean = group.sample.mean(answers.traces.retention[group.rows], answers.mask[group.rows])
        value[row], n[row] = mean.value, mean.n
    return HeatMap(
        name="retention",
        label="harmful",
        prefix_tokens=np.array([g.prefix_tokens for g in groups], np.int32),
        position=answers.position.astype(np.int32),
        value=value,
        n=n,
    )


# ---------------------------------------------------------------------------------------------- contrasts


def contrasts(answers: Answers) -> tuple[Contrast, ...]:
    """Return the headline numbers of every group, then harmful minus harmless, then thinking blocks."""
    made: list[Contrast] = []
    for group in answers.groups:
        for name, title, unit, mean in _headlines(answers, group):
            made.append(_contrast(answers, name, group.label, f"{title} ({group.words})", unit, mean, group))
    for group in [g for g in answers.groups if g.label == "harmful" and not g.brief]:
        other = harmless_like(answers, group)
        if other is None:
            continue
        matched, mine, theirs = sides(answers, group, other)
        which = "matched pairs" if matched else "not matched"
        kl, late = "kl_aligned_base_nats", answers.late
        for name, quantity, where, what, unit in (
            (f"early_{kl}", kl, answers.early, f"KL(aligned || base), {_early(answers)}", "nats"),
            (f"late_{kl}", kl, late, f"KL(aligned || base), {_late(answers)}", "nats"),
            (
                "late_retention_uncertain",
                "retention",
                late & answers.uncertain,
                f"retention where aligned is uncertain, {_late(answers)}",
                "1",
            ),
        ):
            values = getattr(answers.traces, quantity)
            mean = difference(mine.mean(values, where), theirs.mean(values, where))
            title = f"{what}: harmful minus harmless, {which} ({group.words})"
            made.append(_contrast(answers, name, DIFFERENCE, title, unit, mean, group))
    return (*made, *_own_refusals(answers), *_thinking(answers))


def _contrast(
    answers: Answers, name: str, label: str, title: str, unit: str, mean: Mean, group: Group | None
) -> Contrast:
    return Contrast(
        name=name,
        label=label,
        title=title,
        estimate=estimate(mean, unit=unit, confidence=answers.config.confidence),
        prefix_tokens=None if group is None else group.prefix_tokens,
    )


def _early(answers: Answers) -> str:
    return f"positions 1 to {answers.config.early}" if answers.config.early > 1 else "position 1"


def _late(answers: Answers) -> str:
    return f"positions {answers.config.late_from} and later"


def _headlines(answers: Answers, group: Group) -> Iterator[tuple[str, str, str, Mean]]:
    """Yield name, title, unit and pooled mean of each headline number of a group."""
    traces, rows = answers.traces, group.rows
    mask, early, late, uncertain = (x[rows] for x in (answers.mask, answers.early, answers.late, answers.uncertain))

    def pooled(name: str, where: np.ndarray) -> Mean:
        return group.sample.pooled(getattr(traces, name)[rows], where)

    at_early, at_late = _early(answers), _late(answers)
    floor = f"aligned entropy above {traces.entropy_floor_nats:g} nats"
    counted = f"base-favored tokens ({traces.count_space})"
    early_kl, late_kl = pooled("kl_aligned_base_nats", early), pooled("kl_aligned_base_nats", late)
    yield "late_kl_aligned_base_nats", f"KL(aligned || base), {at_late}", "nats", late_kl
    retained = pooled("retention", late & uncertain)
    yield "late_retention_uncertain", f"retention where {floor}, {at_late}", "1", retained
    if group.brief:
        return
    yield "early_kl_aligned_base_nats", f"KL(aligned || base), {at_early}", "nats", early_kl
    title = (
        f"early positions with at least {answers.config.depth_share:g} of the largest mean KL(aligned || base) there"
    )
    yield "early_kl_positions", title, "positions", _carriers(answers, group)
    title = f"early over late KL(aligned || base), late counted as at least {answers.floor_nats:.2g} nats"
    yield "early_to_late_kl_ratio", title, "1", quotient(early_kl, late_kl, at_least=answers.floor_nats)
    yield "late_retention", f"retention, {at_late}", "1", pooled("retention", late)
    share = group.sample.pooled(uncertain.astype(float), late)
    yield "late_uncertain_share", f"share of positions with {floor}, {at_late}", "1", share
    yield "mean_excess_mass", "excess mass, all positions", "1", pooled("excess_mass", mask)
    yield "early_base_favored_count", f"{counted}, {at_early}", "tokens", pooled("base_favored_count", early)
    yield "late_base_favored_count", f"{counted}, {at_late}", "tokens", pooled("base_favored_count", late)
    given = answers.given[rows]
    if group.label == "harmless" and given.any():
        loss = group.sample.pooled(-traces.logprob_shift_nats[rows], given)
        yield "loss_above_base_nats", "loss of aligned minus loss of base, tokens that were given", "nats", loss
    if answers.trajectory == "free_running" and group.prefix_tokens != 0:
        finite = np.isfinite(traces.kl_aligned_base_nats[rows])
        for name, region, words in (
            ("early_peak_kl_nats", early, at_early),
            ("after_prefix_peak_kl_nats", answers.after_prefix[rows], "after the prefix"),
        ):
            kl = np.where(region & finite, traces.kl_aligned_base_nats[rows], -np.inf)
            peak = group.sample.mean(kl.max(axis=1, initial=-np.inf), (region & finite).any(axis=1))
            yield name, f"largest KL(aligned || base) of each response, {words}", "nats", peak


def _carriers(answers: Answers, group: Group) -> Mean:
    """Count the early positions that carry the early KL: at least `depth_share` of the largest mean KL among them."""
    early = slice(answers.config.early)
    rows = group.rows
    mean = group.sample.mean(answers.traces.kl_aligned_base_nats[rows, early], answers.mask[rows, early])

    def count(kl: np.ndarray) -> np.ndarray:
        kl = np.nan_to_num(kl, nan=0.0)
        large = kl >= np.maximum(answers.config.depth_share * kl.max(axis=-1, keepdims=True), answers.floor_nats)
        return np.asarray(large.sum(axis=-1), float)

    return Mean(value=count(mean.value), draws=count(mean.draws), n=np.asarray(mean.n.max(initial=0)))


def _own_refusals(answers: Answers) -> Iterator[Contrast]:
    """Yield the share of aligned's own answers to the harmful prompts that are refusals, with Wilson's interval."""
    own = [o for o in answers.traces.own_answers if o.refused is not None]
    if own:
        refused = sum(bool(o.refused) for o in own)
        yield Contrast(
            name=OWN_REFUSALS,
            label="harmful",
            title=f"refusals among aligned's own answers, no token given (judge {own[0].judge!r}, Wilson's interval)",
            estimate=share(refused, len(own), confidence=answers.config.confidence),
        )


def _thinking(answers: Answers) -> Iterator[Contrast]:
    """Yield mean KL over the thinking blocks of each label, which are their own trajectories."""
    traces = answers.traces
    for label in ("harmful", "harmless", "lookalike", "unlabelled"):
        rows = [i for i, r in enumerate(traces.responses) if r.segment == "thinking" and r.label == label]
        if rows:
            sample = answers.sample(rows, f"{label} thinking")
            mean = sample.pooled(traces.kl_aligned_base_nats[rows], traces.mask[rows])
            title = "KL(aligned || base), all positions of the thinking block"
            yield _contrast(answers, "thinking_kl_aligned_base_nats", label, title, "nats", mean, None)


# ---------------------------------------------------------------------------------------------- divergent


def divergent(answers: Answers) -> tuple[Divergent, ...]:
    """Return the answers of largest mean KL(aligned || base), with the position where it peaks; ties in trace order."""
    traces, found = answers.traces, []
    for i in np.nonzero(answers.mask.any(axis=1))[0].tolist():
        kl = np.where(answers.mask[i], traces.kl_aligned_base_nats[i].astype(float), np.nan)
        if not np.isfinite(kl).any():
            continue
        peak = int(np.argmax(np.where(np.isfinite(kl), kl, -np.inf)))
        found.append(
            Divergent(
                response=i,
                prompt_id=traces.responses[i].prompt_id,
                label=traces.responses[i].label,
                prefix_tokens=traces.responses[i].prefix_tokens,
                mean_kl_nats=float(kl[np.isfinite(kl)].mean()),
                peak_position=peak + 1,
                peak_kl_nats=float(kl[peak]),
            )
        )
    return tuple(sorted(found, key=lambda d: -d.mean_kl_nats)[:DIVERGENT])
