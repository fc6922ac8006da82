"""Which rows make a batch: a function of seed and step alone, so that a resumed run meets the rows of the first one."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from workbench.training.config import TrainConfig
from workbench.training.rows import RowMaker, TrainingRow, TrainingTexts


def random_numbers(seed: int, stream: str, n: int) -> np.random.Generator:
    """Return the random numbers of the n-th draw of a named stream."""
    return np.random.default_rng([seed, zlib.crc32(stream.encode()), n])


def count_before(share: float, size: int, batch: int) -> int:
    """Return how many of the rows before a batch (0-based) are have this share: 0.4 of 8 is 3, 3, 3, 3, 4."""
    return math.floor(share * size * batch + 1e-9)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Hold one drawn text as the rows it is trained on; `name` says which text and what was made of it."""

    name: str
    rows: tuple[TrainingRow, ...]


class Sampler:
    """Draw batches: harmful rows at their share, harmless ones at theirs of the rest, utility rows for what remains.

    Each kind goes through its texts in an order that is shuffled anew each time round. A row's draw depends on its
    number alone, whatever was drawn before. Where an arm has no use for a kind its rows stay empty, so that every arm
    sees the same harmful rows.
    """

    def __init__(self, texts: TrainingTexts, config: TrainConfig) -> None:
        self._texts, self._config = texts, config
        self._maker = RowMaker(config)
        self._share = config.harmful_share if texts.harmful else 0.0
        self._harmless = (config.chosen.harmless_share if texts.utility else 1.0) if texts.harmless else 0.0

    def __len__(self) -> int:
        return self._config.steps * self._config.batch_size

    def __getitem__(self, number: int) -> Draw:
        """Return one row by its 0-based number in the whole training; within a batch, harmful ones come first."""
        size = self._config.batch_size
        step, slot = divmod(number, size)
        before, after = (count_before(self._share, size, b) for b in (step, step + 1))
        drawn = random_numbers(self._config.seed, "row", number)
        if slot < after - before:
            return self._made("harmful", before + slot, drawn)
        other = number - after
        at, following = (math.floor(self._harmless * n + 1e-9) for n in (other, other + 1))
        return self._made("harmless", at, drawn) if following > at else self._made("utility", other - at, drawn)

    def _made(self, kind: str, number: int, drawn: np.random.Generator) -> Draw:
        texts = getattr(self._texts, kind)
        if not texts:
            return Draw(name="no row", rows=())
        round_, at = divmod(number, len(texts))
        order = random_numbers(self._config.seed, kind, round_).permutation(len(texts))
        text = texts[int(order[at])]
        rows = self._maker.harmful(text, drawn) if kind == "harmful" else self._maker.plain(text, kind, drawn)
        return Draw(name=f"{kind} {text.name}", rows=tuple(rows))
