"""From outcomes to numbers with intervals: shares (Wilson), KL per token and leverage (bootstrap over prompts)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int8

from workbench.core.comparisons import share
from workbench.core.passages import Passage
from workbench.core.records import Estimate, Label
from workbench.core.statistics import LEAST, PromptSample, estimate, interval
from workbench.evaluation.experiments.config import SweepConfig
from workbench.evaluation.experiments.divergence import MOVES
from workbench.evaluation.records import Leverage, SweepScore, Trials

Walked = tuple[tuple[str, ...], np.ndarray, np.ndarray]
"""Prompt ids, summed nats (penalty, response), tokens of each response."""


def scores_of(
    names: Sequence[str], trials: Sequence[Trials], walked: Walked, config: SweepConfig
) -> tuple[SweepScore, ...]:
    """Return every number of every penalty. A metric that no prompt tells anything about is not there."""
    kl = _kl_estimates(walked, config)
    made: list[SweepScore] = []
    for i, name in enumerate(names):
        for t in trials:
            made += [_score(name, metric, t, i, found, config) for metric, found in _shares(t)]
        if kl:
            made.append(
                SweepScore(
                    penalty=name,
                    metric="kl_penalised_aligned_nats",
                    label="harmless",
                    prefix_tokens=None,
                    estimate=kl[i],
                    unscored={},
                )
            )
    return tuple(made)


def _shares(t: Trials) -> list[tuple[str, np.ndarray]]:
    if t.label == "harmful":
        partial = [("partial", t.partial)] if bool((t.partial >= 0).any()) else []
        return [("asr", t.complied), ("refusal", t.refused), *partial, ("gibberish", t.gibberish)]
    if t.label == "lookalike":
        return [("over_refusal", t.refused)]
    right = [("harmless_right", t.right)] if bool((t.right >= 0).any()) else []
    return [("harmless_refusal", t.refused), ("harmless_gibberish", t.gibberish), *right]


def _score(
    name: str, metric: str, t: Trials, i: int, found: Int8[np.ndarray, "penalty prompt"], config: SweepConfig
) -> SweepScore:
    unscored: Mapping[str, int] = t.unscored[i]
    silence = metric.endswith("gibberish")
    if silence and (silent := int((found[i] < 0).sum())):
        unscored = {"there is no text": silent}
    return SweepScore(
        penalty=name,
        metric=metric,
        label=t.label,
        prefix_tokens=t.prefix_tokens if t.label == "harmful" else None,
        estimate=share_of(found[i], config.confidence),
        unscored=unscored if (found[i] < 0).any() else {},
    )


def share_of(outcomes: Int8[np.ndarray, "prompt"], confidence: float) -> Estimate:
    """Return the share of 1 among the outcomes that are known, with Wilson's interval."""
    known = outcomes >= 0
    return share(int((outcomes == 1).sum()), int(known.sum()), confidence=confidence)


def _kl_estimates(walked: Walked, config: SweepConfig) -> list[Estimate]:
    ids, nats, tokens = walked
    if not ids:
        return []
    sample = PromptSample(ids, resamples=config.resamples, seed=config.seed, stream="sweep harmless")
    count = sample.sums(tokens)
    return [
        estimate(sample.ratio(sample.sums(row), count), unit="nats per token", confidence=config.confidence)
        for row in nats
    ]


def leverages(
    names: Sequence[str], texts: Sequence[Passage], moves: Sequence[np.ndarray], config: SweepConfig
) -> tuple[Leverage, ...]:
    """Return every penalty's leverage by position, along harmful and along harmless responses."""
    out: list[Leverage] = []
    kinds: tuple[Label, ...] = ("harmful", "harmless")
    for label in kinds:
        own = [(t, m) for t, m in zip(texts, moves, strict=True) if t.label == label]
        if not own:
            continue
        width = max(m.shape[-1] for _, m in own)
        padded = np.full((len(own), len(MOVES), len(names), width), np.nan, np.float32)
        for row, (_, m) in zip(padded, own, strict=True):
            row[..., : m.shape[-1]] = m
        there = np.arange(width) < np.array([m.shape[-1] for _, m in own])[:, None]
        sample = PromptSample(
            [t.name for t, _ in own], resamples=config.resamples, seed=config.seed, stream=f"sweep {label}"
        )
        for i, name in enumerate(names):
            values = dict(zip(MOVES, padded[:, :, i].swapaxes(0, 1), strict=True))
            mean = sample.mean(values["leverage"], there)
            low, high = interval(mean, config.confidence, least=LEAST)
            plain = {k: sample.mean(values[k], there).value for k in ("bound", "changed", "excess_mass")}
            out.append(
                Leverage(
                    penalty=name,
                    label=label,
                    position=np.arange(1, width + 1, dtype=np.int32),
                    leverage=mean.value.astype(np.float32),
                    low=low.astype(np.float32),
                    high=high.astype(np.float32),
                    n=mean.n.astype(np.int32),
                    **{k: v.astype(np.float32) for k, v in plain.items()},
                )
            )
    return tuple(out)
