"""Shares with their intervals, and comparisons of two arms on the same prompts, by statsmodels and scipy.

A comparison is a table of four counts of prompts: both arms, only the first, only the second, neither. Functions take
arrays of counts, one entry for each table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int

from workbench.core.records import Estimate

Bounds = tuple[Float64[np.ndarray, "*table"], Float64[np.ndarray, "*table"]]
Count = Int[np.ndarray, "*table"] | Float[np.ndarray, "*table"]
"""Counts of prompts; of several seeds, their means."""
MOST_N = 1_000_000
"""Above this number of prompts `needed_n` uses the normal approximation."""


def wilson(successes: Count, n: Count, *, confidence: float = 0.95) -> Bounds:
    """Return the bounds of Wilson's score interval of a share (Wilson 1927); NaN where n = 0."""
    some = np.maximum(n, 1)
    z = NormalDist().inv_cdf((1 + confidence) / 2)  # statsmodels has the same, and takes a second to import
    p, shrink = successes / some, 1 + z**2 / some
    half = z * np.sqrt(p * (1 - p) / some + z**2 / (4 * some**2)) / shrink
    centre = (p + z**2 / (2 * some)) / shrink
    low, high = centre - half, centre + half
    none = np.asarray(n) == 0
    low = np.where(none, np.nan, np.where(np.asarray(successes) == 0, 0.0, low))  # exact at the ends
    high = np.where(none, np.nan, np.where(np.asarray(successes) == some, 1.0, high))
    return low, high


def share(successes: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """Return a share with Wilson's interval; no value and no bounds where n = 0."""
    if n == 0:
        return Estimate(value=None, low=None, high=None, n=0, unit="1")
    low, high = wilson(np.array(successes), np.array(n), confidence=confidence)
    return Estimate(value=successes / n, low=float(low), high=float(high), n=n, unit="1")


def mcnemar(only_a: Int[np.ndarray, "*table"], only_b: Int[np.ndarray, "*table"]) -> Float64[np.ndarray, "*table"]:
    """Return the two-sided p of McNemar's exact test, a binomial test of 1/2 on the discordant pairs; 1 without any."""
    from scipy.stats import binom

    p = 2 * binom.cdf(np.minimum(only_a, only_b), only_a + only_b, 0.5)
    return np.asarray(np.minimum(1.0, p), float)


def paired_bounds(
    both: Count,
    only_a: Count,
    only_b: Count,
    neither: Count,
    *,
    confidence: float = 0.95,
) -> Bounds:
    """Return the bounds of share a - share b on the same prompts: Newcombe's square-and-add interval; NaN where n = 0.

    Method 10 of Newcombe, Statistics in Medicine 17 (1998) 2635-2650: the Wilson intervals of the two shares, joined
    with their correlation phi (its numerator moved n/2 towards 0 where it is positive). It stays inside -1..1 and,
    unlike a bootstrap, has a width where no pair is discordant. As a score interval it may disagree with McNemar's
    conditional exact test at the margin.
    """
    a, b, c, d = (np.asarray(x, float) for x in (both, only_a, only_b, neither))
    n = a + b + c + d
    some = np.maximum(n, 1)
    one, other = (a + b) / some, (a + c) / some
    first, second, every = (np.asarray(x) for x in (a + b, a + c, n))
    low_1, high_1 = wilson(first, every, confidence=confidence)
    low_2, high_2 = wilson(second, every, confidence=confidence)
    spread = (a + b) * (c + d) * (a + c) * (b + d)
    product = a * d - b * c
    drawn = np.where(product > 0, np.maximum(product - n / 2, 0), product)
    phi = np.where(spread > 0, drawn / np.sqrt(np.maximum(spread, 1)), 0)

    def joined(first: Any, second: Any) -> Any:
        return np.sqrt(np.maximum(first**2 - 2 * phi * first * second + second**2, 0))

    low = one - other - joined(one - low_1, high_2 - other)
    high = one - other + joined(other - low_2, high_1 - one)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def paired_difference(both: int, only_a: int, only_b: int, neither: int, *, confidence: float = 0.95) -> Estimate:
    """Return share a - share b on the same prompts with the interval of `paired_bounds`."""
    n = both + only_a + only_b + neither
    if n == 0:
        return Estimate(value=None, low=None, high=None, n=0, unit="1")
    counts = [np.array(x) for x in (both, only_a, only_b, neither)]
    low, high = paired_bounds(*counts, confidence=confidence)
    return Estimate(value=(only_a - only_b) / n, low=float(low), high=float(high), n=n, unit="1")


def mean_of(parts: Sequence[Estimate]) -> Estimate:
    """Return the mean of independent estimates; its n is their sum. Where one lacks value or bounds, so does the mean.

    The bounds are by the method of variance estimates recovery (Zou and Donner, Statistics in Medicine 27, 2008,
    1693-1702): the parts' distances to their own bounds are squared and added.
    """
    n, unit = sum(e.n for e in parts), parts[0].unit if parts else "1"
    values = [e.value for e in parts if e.value is not None]
    if not parts or len(values) < len(parts):
        return Estimate(value=None, low=None, high=None, n=n, unit=unit)
    value = sum(values) / len(values)
    bounds = [(e.low, e.high) for e in parts if e.low is not None and e.high is not None]
    if len(bounds) < len(parts):
        return Estimate(value=value, low=None, high=None, n=n, unit=unit)
    below = math.sqrt(sum((v - low) ** 2 for v, (low, _) in zip(values, bounds, strict=True))) / len(values)
    above = math.sqrt(sum((high - v) ** 2 for v, (_, high) in zip(values, bounds, strict=True))) / len(values)
    return Estimate(value=value, low=value - below, high=value + above, n=n, unit=unit)


def holm(p: Float[np.ndarray, "*table comparison"]) -> Float64[np.ndarray, "*table comparison"]:
    """Return p corrected for the number of comparisons (Holm 1979), which bounds the chance of any false rejection.

    The i-th smallest of m is multiplied by m - i + 1; the results are made monotone and are at most 1.
    """
    order = np.argsort(p, axis=-1, kind="stable")
    stepped = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    made = np.minimum(np.maximum.accumulate(stepped, axis=-1), 1.0)
    return np.take_along_axis(made, np.argsort(order, axis=-1, kind="stable"), -1)


def holm_levels(p: Float[np.ndarray, "comparison"], level: float) -> Float64[np.ndarray, "comparison"]:
    """Return the level at which Holm's procedure tests each p: level / (m - rank), the smallest p at level / m."""
    rank = np.argsort(np.argsort(p, kind="stable"), kind="stable")
    return level / (len(p) - rank)


def mcnemar_power(n: int, share_a: float, share_b: float, *, level: float) -> float:
    """Return the exact power of McNemar's exact test at n prompts, of which these shares are discordant each way."""
    from scipy.stats import binom

    discordant = share_a + share_b
    if n < 1 or discordant <= 0:
        return 0.0
    m = np.arange(int(binom.ppf(1e-12, n, discordant)), int(binom.isf(1e-12, n, discordant)) + 1)
    most = binom.ppf(level / 2, m, 0.5).astype(np.int64)  # the largest count in the lower tail that rejects
    most -= binom.cdf(most, m, 0.5) > level / 2
    split = share_a / discordant
    reject = binom.cdf(most, m, split) + binom.sf(m - most - 1, m, split)
    return float((binom.pmf(m, n, discordant) * np.where(most >= 0, np.minimum(reject, 1.0), 0.0)).sum())


def needed_n(only_a: int, only_b: int, n: int, *, level: float = 0.05, power: float = 0.8) -> int | None:
    """Return about how many prompts McNemar's exact test needs to find the observed difference; None where it is 0.

    This is power at the observed effect: were the true difference smaller than the one that was seen, it would be more.
    The test's power is computed exactly and taken as monotone in n (it has steps of a few prompts); above MOST_N
    Connor's formula is used (Biometrics 43, 1987, 207-211).
    """
    from scipy.stats import norm

    if only_a == only_b:
        return None
    share_a, share_b = only_a / n, only_b / n
    discordant, difference = share_a + share_b, share_a - share_b
    ends = norm.isf(level / 2), norm.isf(1 - power)
    wide = max(discordant - difference**2, 0.0)
    about = math.ceil((ends[0] * math.sqrt(discordant) + ends[1] * math.sqrt(wide)) ** 2 / difference**2)
    if about > MOST_N:
        return about
    low, high = 0, max(about, 1)
    while mcnemar_power(high, share_a, share_b, level=level) < power:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        enough = mcnemar_power(middle, share_a, share_b, level=level) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high
