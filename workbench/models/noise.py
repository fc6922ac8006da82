"""Noise for sampling, by counter: a pure function of a row's key, the step and the token, in any batch, on any device.

Integers are hashed (they wrap alike everywhere), and every floating-point operation after that is one that IEEE 754
rounds exactly: no logarithm, no fused operation. So a CPU and a GPU make the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = {"cpu": 1 << 16}
"""Device type -> entries made at once: a CPU's cache holds them. Elsewhere OTHERWISE."""
OTHERWISE = 1 << 24
AHEAD = 16
"""The most steps made at once, where the vocabulary is so small that starting the operations is what costs."""

_WEYL, _FIRST, _SECOND = -1640531535, 0x7FEB352D, -2073254261
"""Odd multipliers, as signed 32 bits: 2^32 over the golden ratio, and those of the integer hash "lowbias32"."""

_SHORT = (
    0.5000004768371582, 0.12495376914739609, 0.04236873611807823, 0.011700140312314034, 0.016375422477722168,
    -0.01000263448804617, 0.007750591263175011,
)  # fmt: skip
"""Coefficients of v, v^2, ... in -log(1 - v / 2) for v in [0, 1], float32: a Chebyshev fit, right to 1e-6 of it."""


class Noise:
    """The noise of a batch of rows, a step at a time; `keys` are the rows' own, integers of at least 64 bits.

    A row's noise depends on its own key and the number of the step, not on the other rows.
    """

    def __init__(self, keys: Sequence[int], device: torch.device) -> None:
        halves = [[_signed(key >> 32), _signed(key)] for key in keys]
        self._keys = torch.tensor(halves, dtype=torch.int32).reshape(-1, 2).to(device, non_blocking=True)
        self._step, self._first = 0, 0
        self._made: Float[Tensor, "step batch vocab"] | None = None

    def next(self) -> None:
        """Go on to the next step."""
        self._step += 1

    def keep(self, going: Int[Tensor, "kept"]) -> None:
        """Continue only these rows."""
        self._keys = self._keys[going]
        self._made = None if self._made is None else self._made[:, going]

    def exponential(self, vocab: int) -> Float[Tensor, "batch vocab"]:
        """Return this step's exponential variates (mean 1), one for each row and token."""
        rows = len(self._keys)
        at = self._step - self._first
        if self._made is None or at >= len(self._made):
            most = BLOCK.get(self._keys.device.type, OTHERWISE)
            steps = max(1, min(AHEAD, most // max(1, rows * vocab)))
            self._made = exponential(self._hashed_keys(steps), vocab).view(steps, rows, vocab)
            self._first, at = self._step, 0
        return self._made[at]

    def _hashed_keys(self, steps: int) -> Int[Tensor, "row 2"]:
        """Return the keys of the next steps, those of a step together."""
        start = self._step
        step = torch.arange(start, start + steps, dtype=torch.int32, device=self._keys.device).mul_(_WEYL)
        first = _hashed(self._keys[:, 0] + step[:, None])
        return torch.stack((first, _hashed(self._keys[:, 1] ^ first)), -1).flatten(0, 1)


def _signed(value: int) -> int:
    """Return the lowest 32 bits of an integer as a signed one."""
    return (value + 2**31) % 2**32 - 2**31


def _hashed(x: Int[Tensor, "*entries"]) -> Int[Tensor, "*entries"]:
    """Hash int32 in place, a bijection."""
    _fold(_fold(x, 16).mul_(_FIRST), 15).mul_(_SECOND)
    return _fold(x, 16)


def _fold(x: Int[Tensor, "*entries"], by: int) -> Int[Tensor, "*entries"]:
    """Set x to x xor (x >> by), where the shift fills with zeros."""
    return x.bitwise_xor_((x >> by).bitwise_and_((1 << 32 - by) - 1))


def exponential(keys: Int[Tensor, "row 2"], vocab: int) -> Float[Tensor, "row vocab"]:
    """Return exponential variates (mean 1) for rows with these 64-bit keys, int32 halves."""
    out = torch.empty(len(keys), vocab, device=keys.device)
    wide = max(1, BLOCK.get(keys.device.type, OTHERWISE) // max(1, len(keys)))
    for start in range(0, vocab, wide):
        counter = torch.arange(start, min(start + wide, vocab), dtype=torch.int32, device=keys.device).mul_(_WEYL)
        x = counter ^ keys[:, :1]
        _fold(_fold(x, 16).mul_(_FIRST).add_(keys[:, 1:]), 15).mul_(_SECOND)
        _fold(x, 16)
        # An exponential variate is a whole number of half-lives, each survived by a coin, and a rest of less than one.
        coins = _fold(x * _FIRST, 15).bitwise_and_(0x7FFFFF80).bitwise_or_(0x40).float()  # exact: 24 bits
        survived = (coins.view(torch.int32) >> 23).float()  # the exponent: 157 with probability 1/2, 156 with 1/4, ...
        v = x.bitwise_and_(0x7FFFFFFF).float().mul_(2.0**-31)
        rest = v * _SHORT[-1]
        for c in reversed(_SHORT[:-1]):
            rest.add_(c).mul_(v)
        torch.add(survived.neg_().add_(157.0).mul_(math.log(2.0)), rest, out=out[:, start : start + wide])
    return out.clamp_(min=2.0**-33)  # a hash of 0
