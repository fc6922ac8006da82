"""Means over seeds and prompts: against a loop over resamples, against simulated truth, and at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm, t

from workbench.core.comparisons import mcnemar, paired_bounds, share
from workbench.core.seeds import difference_over_seeds, mean_over_seeds, two_way


def table(
    seeds: int, prompts: int, *, mean: float = 0.0, of_seeds: float = 0.7, of_prompts: float = 1.5, draw: int = 0
):
    rng = np.random.default_rng(draw)
    odds = mean + rng.normal(0, of_seeds, (seeds, 1)) + rng.normal(0, of_prompts, (1, prompts))
    return (rng.uniform(size=(seeds, prompts)) < expit(odds)).astype(float)


def test_resamples_and_bounds_are_those_of_a_loop() -> None:
    values, rng = table(4, 30), np.random.default_rng(7)
    made = two_way(values, resamples=4000, seed=3)
    drawn = [values[np.ix_(rng.integers(4, size=4), rng.integers(30, size=30))].mean() for _ in range(4000)]
    assert made.value == pytest.approx(values.mean())
    assert made.draws.mean() == pytest.approx(np.mean(drawn), abs=0.01)
    assert made.draws.std() == pytest.approx(np.std(drawn), rel=0.06)
    seeds, prompts = values.mean(1), values.mean(0)
    true = np.array([seeds.var(ddof=1) / 4, prompts.var(ddof=1) / 30])
    raw = np.array([seeds.var() / 4, prompts.var() / 30])
    free = true.sum() ** 2 / (true[0] ** 2 / 3 + true[1] ** 2 / 29)
    factor = math.sqrt(true.sum() / raw.sum()) * t.isf(0.025, free) / norm.isf(0.025)
    low, high = np.quantile(drawn, (0.025, 0.975))
    found = made.bounds(0.95)
    assert found[0] == pytest.approx(values.mean() - factor * (values.mean() - low), abs=0.03)
    assert found[1] == pytest.approx(values.mean() + factor * (high - values.mean()), abs=0.03)
    again = two_way(values, resamples=4000, seed=3)
    assert (again.draws == made.draws).all()


@pytest.mark.parametrize(
    ("seeds", "mean", "of_seeds", "of_prompts"),
    [(3, 0.0, 0.5, 0.0), (5, 0.0, 0.5, 2.0), (5, 0.0, 0.0, 2.0), (5, -3.0, 0.5, 1.0), (5, -6.0, 0.0, 0.0)],
)
def test_the_interval_covers_the_mean_of_all_seeds_and_prompts(seeds, mean, of_seeds, of_prompts) -> None:
    rng = np.random.default_rng(1)
    truth = expit(mean + rng.normal(0, of_seeds, 100_000) + rng.normal(0, of_prompts, 100_000)).mean()
    hits = 0
    for n in range(200):
        values = table(seeds, 80, mean=mean, of_seeds=of_seeds, of_prompts=of_prompts, draw=n)
        e = mean_over_seeds(values, share=True, resamples=500)
        assert e.low is not None
        assert e.high is not None
        hits += e.low <= truth <= e.high
    assert hits >= 0.92 * 200, "nominal 0.95, and a standard error of 0.015"


def test_an_envelope_of_seeds_would_not_know_how_many_there_are() -> None:
    widths = []
    for seeds in (3, 12):
        e = mean_over_seeds(table(seeds, 400, of_seeds=1.0, of_prompts=0.0), share=True)
        widths.append((e.high or 0) - (e.low or 0))
    assert widths[1] < 0.6 * widths[0]


def test_equal_seeds_say_no_more_than_one_and_rare_events_keep_wilsons_width() -> None:
    one = table(1, 60, draw=4)
    alone = two_way(one, resamples=2000, seed=0)
    three = two_way(np.repeat(one, 3, 0), resamples=2000, seed=0)
    assert three.bounds(0.95) == pytest.approx(alone.bounds(0.95), abs=0.02)
    assert alone.bounds(0.95) == pytest.approx(
        (share(int(one.sum()), 60).low, share(int(one.sum()), 60).high), abs=0.03
    )
    rare = np.zeros((5, 100))
    rare[0, 0] = 1
    e = mean_over_seeds(rare, share=True)
    assert e.value == pytest.approx(1 / 500)
    assert e.high is not None
    assert share(0, 100).high < e.high < share(1, 100).high  # type: ignore[operator]
    assert mean_over_seeds(np.zeros((2, 0)), share=True).n == 0


def test_a_difference_is_tested_as_its_interval_says_and_equal_arms_are_rarely_told_apart() -> None:
    told = 0
    for n in range(200):
        a, b = (table(4, 60, of_seeds=0.4, draw=2 * n + i) for i in (0, 1))
        e, p = difference_over_seeds(a, b, resamples=500)
        assert (p < 0.05) == (not e.low <= 0 <= e.high)  # type: ignore[operator]
        told += p < 0.05
    assert told <= 0.08 * 200
    a, b = np.ones((3, 50)), np.zeros((3, 50))
    b[0, 0] = 1
    e, p = difference_over_seeds(a, b)
    ends = paired_bounds(*(np.array(x) for x in (1 / 3, 50 - 1 / 3, 0.0, 0.0)))
    assert (e.value, e.n) == (pytest.approx(1 - 1 / 150), 50)
    assert e.low <= float(ends[0])  # type: ignore[operator]
    assert p == pytest.approx(max(p, float(mcnemar(np.array(50), np.array(0)))))
    assert p < 1e-6
    same, p = difference_over_seeds(a, a)
    assert (same.value, p) == (0.0, 1.0)
