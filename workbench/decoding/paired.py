"""Both models of a pair over the same rows, a token at a time, each with its key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.passages import Ids, Passage
from workbench.decoding.mixed import MixedPass
from workbench.models.generation import ModelSteps, check_finite, left_padded
from workbench.models.pair import ModelPair

Contexts = Sequence[Ids]


@runtime_checkable
class PairedSteps(Protocol):
    """Both models' logits of each live row's next token."""

    def logits(self) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch vocab"]]:
        """Return (base, aligned). Raises NonFiniteLogits naming model, token and row."""

    def take(self, chosen: Int[Tensor, "batch"]) -> None:
        """Take each row's chosen token."""

    def keep(self, going: Sequence[int]) -> None:
        """Let only these of the rows go on."""


class TwoPasses:
    """Two forward passes a token: two models, or one whose adapter is switched between them."""

    def __init__(self, pair: ModelPair, base: Contexts, aligned: Contexts, rows: Sequence[int]) -> None:
        self._models = (ModelSteps(pair, "base", base, rows), ModelSteps(pair, "aligned", aligned, rows))

    def logits(self) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch vocab"]]:
        """Return (base, aligned)."""
        base, aligned = (m.scores() for m in self._models)
        return base, aligned

    def take(self, chosen: Int[Tensor, "batch"]) -> None:
        """Take each row's chosen token."""
        for model in self._models:
            model.take(chosen)

    def keep(self, going: Sequence[int]) -> None:
        """Let only these of the rows go on."""
        for model in self._models:
            model.keep(going)


class OnePass:
    """One mixed forward pass a token; every row is there twice, for base in the first half of the batch."""

    def __init__(self, pair: ModelPair, run: MixedPass, base: Contexts, aligned: Contexts, rows: Sequence[int]) -> None:
        self._pair, self._run, self._cache = pair, run, run.new_cache()
        self._ids, self._mask = left_padded([*base, *aligned], pair.device)
        self._position = self._mask.cumsum(-1).sub_(1).clamp_(min=0)
        self._live, self._token = list(rows), 1

    def logits(self) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch vocab"]]:
        """Return (base, aligned). Raises NonFiniteLogits naming model, token and row."""
        base, aligned = self._run.logits(self._ids, self._mask, self._position, self._cache)
        check_finite(self._pair, "base", base, self._live, self._token)
        check_finite(self._pair, "aligned", aligned, self._live, self._token)
        return base, aligned

    def take(self, chosen: Int[Tensor, "batch"]) -> None:
        """Take each row's chosen token."""
        self._ids, self._position = chosen.repeat(2).unsqueeze(-1), self._position[:, -1:] + 1
        self._mask = torch.cat((self._mask, self._mask.new_ones(len(self._mask), 1)), -1)
        self._token += 1

    def keep(self, going: Sequence[int]) -> None:
        """Let only these of the rows go on."""
        rows = len(self._live)
        kept = torch.tensor([*going, *(rows + at for at in going)], device=self._ids.device)
        self._ids, self._position, self._mask = self._ids[kept], self._position[kept], self._mask[kept]
        self._cache.batch_select_indices(kept)
        self._live = [self._live[at] for at in going]


def paired_steps(
    pair: ModelPair, run: MixedPass | None, passages: Sequence[Passage], rows: Sequence[int]
) -> PairedSteps:
    """Return both models over passages, in one mixed pass a token where there is one; `rows` are indices for errors."""
    base, aligned = [p.whole("base") for p in passages], [p.whole("aligned") for p in passages]
    return TwoPasses(pair, base, aligned, rows) if run is None else OnePass(pair, run, base, aligned, rows)
