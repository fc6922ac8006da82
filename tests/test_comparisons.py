"""Shares and paired comparisons: equal to statsmodels and scipy, and honest in simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from workbench.core import comparisons


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 64), (1, 3), (7, 10), (64, 64), (370, 384), (1, 100_000)])
def test_wilson_is_the_reference_interval(k: int, n: int) -> None:
    for confidence in (0.9, 0.95, 0.99):
        low, high = comparisons.wilson(np.array(k), np.array(n), confidence=confidence)
        again = stats.binomtest(k, n).proportion_ci(confidence_level=confidence, method="wilson")
        assert (low, high) == pytest.approx((again.low, again.high), abs=1e-12)
        assert (low, high) == pytest.approx(proportion_confint(k, n, 1 - confidence, "wilson"), abs=1e-12)
        assert 0 <= low <= k / n <= high <= 1


TABLES = [(0, 0), (1, 0), (3, 0), (0, 6), (5, 2), (2, 5), (12, 12), (40, 19), (1, 30)]


def test_the_paired_interval_is_newcombes_and_keeps_its_laws() -> None:
    found = comparisons.paired_difference(1, 1, 7, 12)
    assert (found.value, found.low) == (pytest.approx(-6 / 21), pytest.approx(-0.507, abs=5e-4))
    assert found.high == pytest.approx(-0.026, abs=5e-4)
    tables = np.array([t for t in itertools.product((0, 1, 3, 8), repeat=4) if sum(t)]).T
    low, high = comparisons.paired_bounds(*tables)
    difference = (tables[1] - tables[2]) / tables.sum(axis=0)
    assert (low >= -1).all()
    assert (high <= 1).all()
    assert (low <= difference + 1e-12).all()
    assert (high >= difference - 1e-12).all()
    turned_low, turned_high = comparisons.paired_bounds(tables[0], tables[2], tables[1], tables[3])
    np.testing.assert_allclose(turned_low, -high, atol=1e-12)
    np.testing.assert_allclose(turned_high, -low, atol=1e-12)
    same = comparisons.paired_difference(0, 0, 0, 30)
    assert same.value == 0
    assert same.low < 0 < (same.high or 0)  # no discordant pair, and yet not certain
    rng = np.random.default_rng(0)
    for n, chances in ((40, (0.3, 0.2, 0.1, 0.4)), (64, (0.45, 0.45, 0.05, 0.05)), (64, (0.05, 0.0, 0.05, 0.9))):
        tables = rng.multinomial(n, chances, size=4_000).T
        low, high = comparisons.paired_bounds(*tables)
        covered = ((low <= chances[1] - chances[2]) & (chances[1] - chances[2] <= high)).mean()
        assert covered > 0.93


def test_mcnemar_and_holm_are_the_references() -> None:
    only_a, only_b = (np.array(x) for x in zip(*TABLES, strict=True))
    ours = comparisons.mcnemar(only_a, only_b)
    for (a, b), p in zip(TABLES, ours, strict=True):
        theirs = reference_mcnemar([[10, a], [b, 10]], exact=True).pvalue
        assert p == pytest.approx(min(theirs, 1.0), abs=1e-12)
        if a + b:
            assert p == pytest.approx(stats.binomtest(min(a, b), a + b).pvalue, abs=1e-12)
    rng = np.random.default_rng(1)
    for size in (1, 2, 7, 40):
        p = rng.uniform(size=size) ** 3
        corrected = comparisons.holm(p)
        np.testing.assert_allclose(corrected, multipletests(p, method="holm")[1])
        levels = comparisons.holm_levels(p, 0.05)
        order = np.argsort(p)
        stepped = np.cumprod(p[order] <= levels[order]).astype(bool)  # Holm stops at the first that is not rejected
        np.testing.assert_array_equal(corrected[order] <= 0.05, stepped)
    assert comparisons.holm(np.zeros(0)).size == 0


def simulated(share_a: float, share_b: float, n: int, tables: int, together: float, seed: int) -> np.ndarray:
    """Draw tables (both, only a, only b, neither) of two arms; with chance `together` a prompt has one fate in both."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(size=(tables, n)) < share_a
    same = (rng.uniform(size=(tables, n)) < together) & (share_a == share_b)
    b = np.where(same, a, rng.uniform(size=(tables, n)) < share_b)
    return np.stack([x.sum(axis=1) for x in (a & b, a & ~b, ~a & b, ~a & ~b)])


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("together", [0.0, 0.5])
def test_two_equal_arms_are_told_apart_at_most_one_time_in_twenty(share: float, together: float) -> None:
    tables = simulated(share, share, 64, 1_000, together, seed=2)
    assert (comparisons.mcnemar(tables[1], tables[2]) < 0.05).mean() <= 0.05


def test_a_share_of_nothing_is_missing_and_holm_guards_the_table() -> None:
    nothing = comparisons.share(0, 0)
    assert (nothing.value, nothing.low, nothing.high, nothing.n) == (None, None, None, 0)
    none = comparisons.share(0, 20)
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(0.1611, abs=1e-4)  # 1.96² / (20 + 1.96²)
    by_place = [simulated(s, s, 64, 1_000, 0.3, seed=3 + i) for i, s in enumerate(np.linspace(0.1, 0.9, 8))]
    p = np.stack([comparisons.mcnemar(t[1], t[2]) for t in by_place], axis=1)
    assert (comparisons.holm(p) < 0.05).any(axis=1).mean() <= 0.05
    assert (p < 0.05).any(axis=1).mean() > 0.05  # and without the correction it is not
    tables = simulated(0.9, 0.5, 64, 1_000, 0.0, seed=4)
    p = comparisons.mcnemar(tables[1], tables[2])
    assert (p < 0.05).mean() >= 0.9
    alone = np.stack([p, *np.random.default_rng(5).uniform(size=(19, 1_000))], axis=1)  # one of twenty comparisons
    assert (comparisons.holm(alone)[:, 0] < 0.05).mean() >= 0.9


def test_power_and_the_needed_n_agree_with_simulation() -> None:
    for n, share_a, share_b in ((64, 0.2, 0.05), (30, 0.5, 0.1), (200, 0.08, 0.03)):
        rng = np.random.default_rng(6)
        drawn = rng.multinomial(n, [share_a, share_b, 1 - share_a - share_b], size=40_000).T
        found = (comparisons.mcnemar(drawn[0], drawn[1]) <= 0.05).mean()
        assert comparisons.mcnemar_power(n, share_a, share_b, level=0.05) == pytest.approx(found, abs=0.01)
    assert comparisons.mcnemar_power(0, 0.5, 0.1, level=0.05) == 0
    assert comparisons.mcnemar_power(50, 0.0, 0.0, level=0.05) == 0
    for only_a, only_b, n in ((5, 2, 64), (2, 5, 64), (3, 0, 20), (12, 9, 100), (30, 10, 384)):
        needed = comparisons.needed_n(only_a, only_b, n)
        assert needed is not None
        power = [comparisons.mcnemar_power(m, only_a / n, only_b / n, level=0.05) for m in (needed // 2, needed)]
        assert power[0] < 0.8 <= power[1]
        about = (1.96 + 0.8416) ** 2 * (only_a + only_b) * n / (only_a - only_b) ** 2
        assert needed == pytest.approx(about, rel=0.5)
    stricter = comparisons.needed_n(5, 2, 64, level=0.05 / 20)
    assert stricter > (comparisons.needed_n(5, 2, 64) or math.inf)
    assert comparisons.needed_n(4, 4, 64) is None
    assert (comparisons.needed_n(1001, 1000, 4_000) or 0) > comparisons.MOST_N  # and no search
