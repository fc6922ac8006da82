"""Pooled means and their bootstrap, against plain loops, scipy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workbench.core.statistics import Mean, PromptSample, difference, estimate, interval, known, quotient


def sample_of(n: int, resamples: int = 500, seed: int = 0, stream: str = "s") -> PromptSample:
    return PromptSample([f"p{i:03d}" for i in range(n)], resamples=resamples, seed=seed, stream=stream)


def test_means_by_hand_and_by_a_plain_loop() -> None:
    """Prompt a has two responses (1, 2 and 3), prompt b one (10): the mean is 16 / 4, a and b weigh by positions."""
    values = np.array([[1.0, 2.0], [10.0, np.nan], [3.0, np.nan]])
    where = np.array([[True, True], [True, False], [True, False]])
    sample = PromptSample(["a", "b", "a"], resamples=400, seed=0, stream="s")
    mean = sample.pooled(values, where)
    assert (float(mean.value), int(mean.n)) == (4.0, 2)
    assert set(np.round(mean.draws, 9)) == {2.0, 4.0, 10.0}  # aa, ab, bb
    by_position = sample.mean(values, where)
    np.testing.assert_array_equal(by_position.value, [14 / 3, 2.0])
    np.testing.assert_array_equal(by_position.n, [2, 1])
    rng = np.random.default_rng(0)
    ids = [f"p{i}" for i in rng.integers(0, 5, 12)]
    values, where = rng.normal(size=(12, 4)), rng.random((12, 4)) < 0.7
    sample = PromptSample(ids, resamples=50, seed=3, stream="s")
    mean = sample.mean(values, where)
    for t in range(4):
        rows = [r for r in range(12) if where[r, t]]
        assert mean.value[t] == pytest.approx(np.mean([values[r, t] for r in rows]))
        assert mean.n[t] == len({ids[r] for r in rows})
        for draw, weights in enumerate(sample.weights):
            drawn = [
                values[r, t] for p, times in zip(sample.prompts, weights, strict=True) for _ in range(int(times))
                for r in rows if ids[r] == p
            ]  # fmt: skip
            if drawn:
                assert mean.draws[draw, t] == pytest.approx(np.mean(drawn))
            else:
                assert np.isnan(mean.draws[draw, t])


@pytest.mark.slow
def test_coverage_is_near_nominal() -> None:
    """In 400 draws of 30 prompts, with correlated tokens, a 90 % interval holds the mean 84 to 94 % of the time."""
    rng, held = np.random.default_rng(2), 0
    for trial in range(400):
        of_prompt = rng.normal(1.0, 1.0, (30, 1))
        values = of_prompt + rng.normal(0, 0.5, (30, 20))
        mean = sample_of(30, resamples=400, seed=trial).pooled(values, np.ones((30, 20), bool))
        low, high = interval(mean, 0.9)
        held += bool(low <= 1.0 <= high)
    assert 0.84 <= held / 400 <= 0.94


def test_intervals_are_scipys_and_over_prompts() -> None:
    values = np.random.default_rng(1).exponential(size=25)
    mean = sample_of(25, resamples=20_000).mean(values, np.ones(25, bool))
    low, high = interval(mean, 0.95)
    ours = np.array([float(low), float(high)])
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=0).confidence_interval
    np.testing.assert_allclose(ours, theirs, atol=0.02 * values.std())
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1, (20, 1)) + rng.normal(0, 0.1, (20, 40))
    low, high = interval(sample_of(20).pooled(values, np.ones((20, 40), bool)), 0.95)
    token_width = 2 * 1.96 * values.std() / np.sqrt(values.size)
    assert float(high - low) > 3 * token_width


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_prompts_have_no_interval(n: int) -> None:
    mean = sample_of(n).mean(np.full(n, 2.5), np.ones(n, bool))
    e = estimate(mean, unit="nats", confidence=0.95)
    assert (e.value, e.low, e.high, e.n) == (2.5 if n else None, None, None, n)


def test_weights_draw_prompts_by_seed_and_stream() -> None:
    weights = sample_of(7).weights
    assert (weights.sum(axis=1) == 7).all()
    assert weights.mean() == pytest.approx(1.0)
    same, other, stream = sample_of(9), sample_of(9, seed=1), sample_of(9, stream="t")
    np.testing.assert_array_equal(same.weights, sample_of(9).weights)
    assert not np.array_equal(same.weights, other.weights)
    assert not np.array_equal(same.weights, stream.weights)
    rng = np.random.default_rng(4)
    ids, values = [f"p{i % 6}" for i in range(18)], rng.normal(size=18)
    order = rng.permutation(18)
    a = PromptSample(ids, resamples=99, seed=0, stream="s").mean(values, np.ones(18, bool))
    b = PromptSample([ids[i] for i in order], resamples=99, seed=0, stream="s").mean(values[order], np.ones(18, bool))
    np.testing.assert_allclose(a.draws, b.draws)


def test_missing_stays_missing_in_every_operation() -> None:
    values = np.array([1.0, np.nan, np.inf, 3.0, 5.0])
    mean = sample_of(5).mean(values, np.array([True, True, True, True, False]))
    assert (float(mean.value), int(mean.n)) == (2.0, 2)
    nothing = sample_of(5).mean(values, np.zeros(5, bool))
    assert np.isnan(nothing.value)
    assert int(nothing.n) == 0
    a = Mean(value=np.array(6.0), draws=np.array([6.0, 8.0]), n=np.array(5))
    b = Mean(value=np.array(2.0), draws=np.array([2.0, 0.0]), n=np.array(4))
    assert (float(difference(a, b).value), int(difference(a, b).n)) == (4.0, 4)
    ratio = quotient(a, b, at_least=0.5)
    assert float(ratio.value) == 3.0
    np.testing.assert_array_equal(ratio.draws, [3.0, 16.0])
    assert (known(1.5), known(np.nan), known(np.inf)) == (1.5, None, None)
