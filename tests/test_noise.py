"""The noise of sampling: exact against a slow reference, a pure function of row, step and token, exponential."""

from __future__ import annotations

import numpy as np
import torch

from workbench.models import noise as room
from workbench.models.noise import Noise

CPU = torch.device("cpu")


def hashed(x: int) -> int:
    x = ((x ^ x >> 16) * 0x7FEB352D) % 2**32
    x = ((x ^ x >> 15) * 0x846CA68B) % 2**32
    return x ^ x >> 16


def reference(key: int, step: int, token: int) -> np.float32:
    """One variate from Python integers and numpy's float32, one rounding an operation."""
    first = hashed((key >> 32) + step * 0x9E3779B1 & 0xFFFFFFFF)
    second = hashed(key % 2**32 ^ first)
    x = token * 0x9E3779B1 % 2**32 ^ first
    x = ((x ^ x >> 16) * 0x7FEB352D + second) % 2**32
    x = ((x ^ x >> 15) * 0x846CA68B) % 2**32
    x ^= x >> 16
    coins = x * 0x7FEB352D % 2**32
    coins = (coins ^ coins >> 15) & 0x7FFFFF80 | 0x40
    halves = 31 - coins.bit_length()
    v = np.float32(np.float32(x & 0x7FFFFFFF) * np.float32(2.0**-31))
    rest = v * np.float32(room._SHORT[-1])
    for c in reversed(room._SHORT[:-1]):
        rest = np.float32(np.float32(rest + np.float32(c)) * v)
    return max(np.float32(np.float32(halves * np.float32(np.log(2.0))) + rest), np.float32(2.0**-33))


def test_every_bit_is_that_of_integers_and_single_roundings() -> None:
    keys = [0, 1, 2**64 - 1, 0x0123456789ABCDEF]
    for step in range(3):
        made = Noise(keys, CPU)
        for _ in range(step):
            made.next()
        values = made.exponential(500).numpy()
        for row, key in enumerate(keys):
            want = np.array([reference(key, step, token) for token in range(500)])
            assert np.array_equal(values[row], want)


def test_it_depends_on_row_step_and_token_alone() -> None:
    keys = [7, 2**40, 99, 5]
    for vocab in (30, 4_000, 70_000):  # several steps at once, one step, several blocks of tokens
        together, rows = Noise(keys, CPU), list(range(4))
        for step in range(room.AHEAD + 3):
            if step == 2:
                together.keep(torch.tensor([3, 1]))
                rows = [3, 1]
            values = together.exponential(vocab)
            assert torch.equal(values, together.exponential(vocab)), "asked twice in one step"
            if step in (0, 1, 2, room.AHEAD + 2):
                for at, row in enumerate(rows):
                    alone = Noise([keys[row]], CPU)
                    for _ in range(step):
                        alone.next()
                    assert torch.equal(alone.exponential(vocab + 100)[0, :vocab], values[at]), (vocab, step, row)
            together.next()


def test_it_is_exponential_and_independent() -> None:
    made = Noise(range(8), CPU)  # neighbours, which no hash of content would give
    first = made.exponential(1 << 17)
    made.next()
    both = torch.cat((first, made.exponential(1 << 17)))
    ordered = both.flatten().double().sort().values
    steps = torch.arange(1, len(ordered) + 1) / len(ordered)
    assert (1 - (-ordered).exp() - steps).abs().max() < 1.95 / len(ordered) ** 0.5, "Kolmogorov and Smirnov, 0.1 %"
    for least in (1e-5, 1e-4, 1e-3):  # where races are decided
        found, mean = int((ordered < least).sum()), least * len(ordered)
        assert abs(found - mean) < 4 * mean**0.5 + 1, least
    for most in (4.0, 8.0, 11.0):
        found, mean = int((ordered > most).sum()), float(np.exp(-most)) * len(ordered)
        assert abs(found - mean) < 4 * mean**0.5 + 1, most
    shifted = torch.cat((both, both[:1].roll(1, -1)))
    correlation = torch.corrcoef(shifted.double()) - torch.eye(len(shifted))
    assert correlation.abs().max() < 5 / (1 << 17) ** 0.5
    v = np.linspace(1e-6, 1, 20_001)
    short = sum(c * v ** (n + 1) for n, c in enumerate(room._SHORT))
    assert np.abs(short / -np.log1p(-v / 2) - 1).max() < 2e-6


def test_a_race_draws_in_proportion_to_the_weights() -> None:
    weights = torch.tensor([0.55, 0.3, 0.1, 0.04, 0.0, 0.01])
    rows = 200_000
    drawn = (weights / Noise(range(rows), CPU).exponential(len(weights))).argmax(-1)
    found = torch.bincount(drawn, minlength=len(weights)).double() / rows
    assert ((found - weights).abs() <= 4.5 * (weights * (1 - weights) / rows).sqrt()).all()
