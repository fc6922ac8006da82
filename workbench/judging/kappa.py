"""Chance-corrected agreement, with intervals by resampling whole prompts.

Every statistic here is a function of a table that is a sum over items, so a resample is a weighted sum of the items'
own tables and all resamples are one matrix product. Values are statsmodels' where it has the statistic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from workbench.core.records import Estimate
from workbench.core.statistics import LEAST, PromptSample, known

RESAMPLES = 2000
TAIL = (1 - 0.95) / 2
"""The share of resamples outside each end of an interval."""


def tables(first: Sequence[int], second: Sequence[int], kinds: int) -> Float[np.ndarray, "item kind kind"]:
    """Return each item's own confusion table: one 1, in the row of the first opinion and the column of the second."""
    out = np.zeros((len(first), kinds, kinds))
    out[np.arange(len(first)), np.asarray(first, int), np.asarray(second, int)] = 1.0
    return out


def cohen(table: Float[np.ndarray, "*draw kind kind"]) -> Float[np.ndarray, "*draw"]:
    """Return Cohen's kappa, (p_o - p_e) / (1 - p_e), of confusion tables; NaN where p_e is 1."""
    total = table.sum((-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.trace(table, axis1=-2, axis2=-1) / total
        chance = (table.sum(-1) * table.sum(-2)).sum(-1) / total**2
        return np.where(np.isclose(chance, 1), np.nan, (observed - chance) / (1 - chance))


def cohen_estimate(
    prompt_ids: Sequence[str], first: Sequence[int], second: Sequence[int], kinds: int, *, seed: int = 0
) -> Estimate:
    """Return Cohen's kappa of two opinions on the same items, with the interval over prompts; n counts items."""
    each = tables(first, second, kinds)
    value = None
    if len(first):
        from statsmodels.stats.inter_rater import cohens_kappa

        if np.isfinite(cohen(each.sum(0)[None])[0]):
            value = float(cohens_kappa(each.sum(0), return_results=False))
    return estimated(prompt_ids, each, cohen, value=value, seed=seed)


def estimated(
    prompt_ids: Sequence[str],
    each: Float[np.ndarray, "item *table"],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    value: float | None = None,
    seed: int = 0,
    stream: str = "judges",
) -> Estimate:
    """Return a statistic of summed tables with its 95 % percentile-bootstrap interval over prompts; n counts items.

    `statistic` maps summed tables (..., *table) to numbers (...). The default value is the statistic of the whole sum,
    None where it is undefined. Resamples in which it is undefined are left out; fewer than three prompts have no
    interval.
    """
    if not len(prompt_ids):
        return Estimate(value=None, low=None, high=None, n=0, unit="1")
    sample = PromptSample(list(prompt_ids), resamples=RESAMPLES, seed=seed, stream=stream)
    sums = sample.sums(each)
    point = known(statistic(sums.sum(0)[None])[0]) if value is None else value
    low = high = None
    if point is not None and len(sample.prompts) >= LEAST:
        draws = statistic(np.tensordot(sample.weights, sums, axes=1))
        draws = draws[np.isfinite(draws)]
        if draws.size:
            low, high = (float(q) for q in np.quantile(draws, [TAIL, 1 - TAIL]))
    return Estimate(value=point, low=low, high=high, n=len(prompt_ids), unit="1")


def coincidences(ratings: Sequence[Sequence[int]], kinds: int) -> Float[np.ndarray, "item kind kind"]:
    """Return Krippendorff's coincidence table of each item: of m > 1 ratings, every ordered pair counts 1 / (m - 1)."""
    out = np.zeros((len(ratings), kinds, kinds))
    for n, given in enumerate(ratings):
        if len(given) > 1:
            counts = np.bincount(given, minlength=kinds).astype(float)
            out[n] = (np.outer(counts, counts) - np.diag(counts)) / (len(given) - 1)
    return out


def krippendorff(table: Float[np.ndarray, "*draw kind kind"]) -> Float[np.ndarray, "*draw"]:
    """Return Krippendorff's ordinal alpha of coincidence tables: 1 - observed / expected disagreement.

    The distance is (sum of the frequencies from c to k, less half of each end) squared. NaN for equal ratings.
    """
    n_c = table.sum(-1)
    below = np.cumsum(n_c, -1) - n_c / 2
    delta = (below[..., :, None] - below[..., None, :]) ** 2
    n = n_c.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = (table * delta).sum((-2, -1))
        expected = (n_c[..., :, None] * n_c[..., None, :] * delta).sum((-2, -1)) / (n - 1)
        return np.where(expected > 0, 1 - observed / expected, np.nan)


def alpha_estimate(ratings: Mapping[str, Sequence[int]], kinds: int, *, seed: int = 0) -> Estimate:
    """Return Krippendorff's ordinal alpha over items with two ratings and more, with its interval over items.

    `ratings` maps an item to its ratings, each from 0 to kinds - 1.
    """
    shared = {item: given for item, given in ratings.items() if len(given) > 1}
    each = coincidences(list(shared.values()), kinds)
    return estimated(list(shared), each, krippendorff, seed=seed, stream="raters")


def fleiss(ratings: Sequence[Sequence[int]], kinds: int) -> float | None:
    """Return Fleiss' kappa of items that all have the same number of ratings (two or more), None where undefined."""
    sizes = {len(given) for given in ratings}
    if len(ratings) < 2 or len(sizes) != 1 or sizes.pop() < 2:
        return None
    table = np.stack([np.bincount(given, minlength=kinds) for given in ratings])
    if (table.sum(0) > 0).sum() < 2:
        return None
    from statsmodels.stats.inter_rater import fleiss_kappa

    return known(fleiss_kappa(table))
