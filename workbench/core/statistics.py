"""Means over positions with percentile-bootstrap intervals over prompts.

Tokens of one response, and responses to one prompt, are not independent, so whole prompts are resampled. A resample of
n prompts is a row of weights (how often each prompt was drawn), and a pooled mean is a ratio of two weighted sums over
prompts, so one matrix product gives all resamples of all positions.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Shaped

from workbench.core.records import Estimate

LEAST = 3
"""Fewest prompts for which an interval is given."""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A pooled mean (NaN without data), its value in each resample, and the number of prompts that contribute."""

    value: Float64[np.ndarray, "*shape"]
    draws: Float64[np.ndarray, "resample *shape"]
    n: Int64[np.ndarray, "*shape"]


class PromptSample:
    """The resamples of one group of responses: the prompt of each response, and the prompts' weights.

    Prompts are ordered by id, so the order of responses changes no interval. `stream` names the group: groups of
    different names are resampled independently, and the same name and seed give the same draws.
    """

    def __init__(self, prompt_ids: Sequence[str], *, resamples: int, seed: int, stream: str) -> None:
        self.prompts, owner = np.unique(np.array(prompt_ids, dtype=object), return_inverse=True)
        self.owner: np.ndarray = owner.reshape(-1)
        n = len(self.prompts)
        rng = np.random.default_rng([seed, zlib.crc32(stream.encode())])
        self.weights: np.ndarray = (
            rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float) if n else np.zeros((resamples, 0))
        )

    def mean(self, values: Shaped[np.ndarray, "response *axes"], where: Bool[np.ndarray, "response *axes"]) -> Mean:
        """Average `values` over the responses at which `where` holds, for each of the remaining axes.

        Every selected value has the same weight: sum_p w_p total_p / sum_p w_p count_p over prompts p, with w_p = 1 for
        the value itself. Values that are not finite are left out.
        """
        where = where & np.isfinite(values)
        return self.ratio(self.sums(np.where(where, values, 0)), self.sums(where))

    def pooled(self, values: Shaped[np.ndarray, "response *axes"], where: Bool[np.ndarray, "response *axes"]) -> Mean:
        """Average as `mean` does, over all positions of all responses, to one number."""
        where = where & np.isfinite(values)
        axes = tuple(range(1, values.ndim))
        total = np.where(where, values, 0).sum(axis=axes, dtype=float)
        return self.ratio(self.sums(total), self.sums(where.sum(axis=axes)))

    def sums(self, values: Shaped[np.ndarray, "response *axes"]) -> Float64[np.ndarray, "prompt *axes"]:
        """Sum values over the responses of each prompt."""
        total = np.zeros((len(self.prompts), *values.shape[1:]))
        np.add.at(total, self.owner, values)
        return total

    def ratio(self, total: Float[np.ndarray, "prompt *axes"], count: Float[np.ndarray, "prompt *axes"]) -> Mean:
        """Divide summed totals by summed counts, in every resample; NaN where the count is 0."""
        drawn_total, drawn_count = (np.tensordot(self.weights, x, axes=1) for x in (total, count))
        return Mean(
            value=_divide(np.asarray(total.sum(axis=0)), np.asarray(count.sum(axis=0))),
            draws=_divide(drawn_total, drawn_count),
            n=np.asarray((count > 0).sum(axis=0), dtype=np.int64),
        )


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)


def difference(a: Mean, b: Mean) -> Mean:
    """Subtract two means, of the same resamples or of independent ones; n is the smaller one."""
    return Mean(value=np.asarray(a.value - b.value), draws=a.draws - b.draws, n=np.asarray(np.minimum(a.n, b.n)))


def quotient(a: Mean, b: Mean, *, at_least: float) -> Mean:
    """Divide two means of the same resamples; a divisor below `at_least` counts as `at_least`."""
    return Mean(
        value=np.asarray(a.value / np.maximum(b.value, at_least)),
        draws=a.draws / np.maximum(b.draws, at_least),
        n=np.asarray(np.minimum(a.n, b.n)),
    )


def interval(
    mean: Mean, confidence: float, *, least: int = LEAST
) -> tuple[Float64[np.ndarray, "*shape"], Float64[np.ndarray, "*shape"]]:
    """Return the percentile-bootstrap bounds; NaN where fewer than `least` prompts contribute.

    A resample without data for a position is left out there. The percentile interval is a little too narrow for few
    prompts (near 88 % for a nominal 95 % at n = 5), so n is always shown.
    """
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    draws = mean.draws.reshape(len(mean.draws), -1)
    bounds = np.asarray(np.quantile(draws, tails, axis=0))
    enough = mean.n.reshape(-1) >= least
    for i in np.flatnonzero(enough & np.isnan(bounds[0])).tolist():
        known_draws = draws[~np.isnan(draws[:, i]), i]
        if known_draws.size:
            bounds[:, i] = np.quantile(known_draws, tails)
    bounds[:, ~enough] = np.nan
    low, high = bounds.reshape(2, *mean.value.shape)
    return np.asarray(low), np.asarray(high)


def estimate(mean: Mean, *, unit: str, confidence: float, least: int = LEAST) -> Estimate:
    """Return a single mean as an Estimate; its value is None where n = 0, its bounds where n < `least`."""
    low, high = interval(mean, confidence, least=least)
    return Estimate(value=known(mean.value), low=known(low), high=known(high), n=int(mean.n), unit=unit)


def known(number: float | np.floating | np.ndarray) -> float | None:
    """Return a finite number as a float, anything else as None."""
    value = float(number)
    return value if np.isfinite(value) else None
