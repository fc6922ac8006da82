"""Means over seeds and prompts, with intervals and tests by a two-way bootstrap.

A table has one value for each seed and prompt. The answers of one seed share its training, and those to one prompt
share the prompt, so seeds and prompts are drawn anew independently of each other (the pigeonhole bootstrap: Owen,
Annals of Applied Statistics 1, 2007, 386-411). It is conservative where neither seeds nor prompts matter.

Percentiles of so few seeds would be too close to the mean. Their distances from it are stretched to Student's t, with
the variances' divisors corrected (Hesterberg, American Statistician 69, 2015, 371-386) and the degrees of freedom of
both variances together (Satterthwaite 1946).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from workbench.core import comparisons
from workbench.core.records import Estimate

RARE = 5
"""Where fewer prompts than this differ from the others, the interval is at least Wilson's or Newcombe's: resamples
often hold none of them."""


@dataclass(frozen=True, kw_only=True)
class TwoWay:
    """A mean over seeds and prompts: the value, its sorted resamples, and the t distribution of its error.

    `stretch` corrects the resamples' spread for the number of seeds and prompts, `freedom` are degrees of freedom.
    """

    value: float
    draws: Float64[np.ndarray, "resample"]
    stretch: float
    freedom: float

    def bounds(self, confidence: float) -> tuple[float, float]:
        """Return the stretched percentile bounds."""
        from scipy.stats import norm, t

        tail = (1 - confidence) / 2
        factor = self.stretch * t.isf(tail, self.freedom) / norm.isf(tail)
        low, high = np.quantile(self.draws, (tail, 1 - tail))
        return float(self.value - factor * (self.value - low)), float(self.value + factor * (high - self.value))

    def p_value(self, confidence: float) -> float:
        """Return the two-sided p of a mean of 0: below 1 - confidence exactly where 0 is outside of `bounds`."""
        from scipy.stats import t

        low, high = self.bounds(confidence)
        side = self.value - low if self.value > 0 else high - self.value
        if self.value == 0 or side == 0:
            return float(self.value == 0)
        return float(2 * t.sf(t.isf((1 - confidence) / 2, self.freedom) * abs(self.value) / side, self.freedom))


def two_way(values: Float[np.ndarray, "seed prompt"], *, resamples: int, seed: int) -> TwoWay:
    """Resample the seeds and the prompts of a table. Equal tables give equal resamples; one seed: prompts alone."""
    seeds, prompts = values.shape
    of_seeds, of_prompts = _weights(seeds, prompts, resamples, seed)
    draws = ((of_seeds @ values) * of_prompts).sum(1) / (seeds * prompts)
    raw = np.array([values.mean(1).var() / seeds, values.mean(0).var() / prompts])
    free = np.array([seeds - 1, prompts - 1])
    true = raw * np.divide([seeds, prompts], free, out=np.ones(2), where=free > 0)
    spread = float(raw.sum())
    inverse = float((true[free > 0] ** 2 / free[free > 0]).sum())
    return TwoWay(
        value=float(values.mean()),
        draws=np.sort(draws),
        stretch=float(np.sqrt(true.sum() / spread)) if spread else 1.0,
        freedom=float(true.sum() ** 2 / inverse) if inverse else float(max(prompts - 1, 1)),
    )


@functools.lru_cache(maxsize=8)
def _weights(seeds: int, prompts: int, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each seed, and each prompt, is drawn in each resample."""
    rng = np.random.default_rng([seed, seeds, prompts])
    return tuple(rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float) for n in (seeds, prompts))  # type: ignore[return-value]


def mean_over_seeds(
    values: Float[np.ndarray, "seed prompt"],
    *,
    share: bool,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return the mean with its two-way interval; n counts prompts, each under every seed.

    `share`: the values are 0 or 1, so that the bounds stay in 0..1, and where few prompts differ from the others the
    interval is at least Wilson's on the number of prompts.
    """
    n = values.shape[1]
    if n == 0:
        return Estimate(value=None, low=None, high=None, n=0, unit="1")
    found = two_way(values, resamples=resamples, seed=seed)
    low, high = found.bounds(confidence)
    if share:
        low, high = max(low, 0.0), min(high, 1.0)
        if _rare(values):
            ends = comparisons.wilson(np.array(found.value * n), np.array(n), confidence=confidence)
            low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    return Estimate(value=found.value, low=low, high=high, n=n, unit="1")


def difference_over_seeds(
    a: Float[np.ndarray, "seed prompt"],
    b: Float[np.ndarray, "seed prompt"],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Estimate, float]:
    """Return share a - share b on the same prompts and seeds with its two-way interval, and the p of no difference.

    Where few prompts have another difference than the rest, the interval is at least Newcombe's on the mean counts, and
    p is at least that of McNemar's exact test on them.
    """
    n = a.shape[1]
    found = two_way(a - b, resamples=resamples, seed=seed)
    low, high = found.bounds(confidence)
    low, high, p = max(low, -1.0), min(high, 1.0), found.p_value(confidence)
    if _rare(a - b):
        counts = [np.array(x.sum() / len(a)) for x in (a * b, a * (1 - b), (1 - a) * b, (1 - a) * (1 - b))]
        ends = comparisons.paired_bounds(*counts, confidence=confidence)
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
        only = (np.array(round(float(x))) for x in counts[1:3])
        p = max(p, float(comparisons.mcnemar(*only)))
    return Estimate(value=found.value, low=low, high=high, n=n, unit="1"), p


def _rare(values: Float[np.ndarray, "seed prompt"]) -> bool:
    """Tell whether fewer than RARE prompts have another mean over seeds than most prompts."""
    _, counts = np.unique(values.mean(0).round(9), return_counts=True)
    return bool(values.shape[1] - counts.max() < RARE)
