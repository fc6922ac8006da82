"""Both models of a pair over the same rows, a token at a time, each with its key-value cache.

`logits` returns (base, aligned) logits of each live row's next token; NonFiniteLogits names model, token and row.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.passages import Passage
from workbench.decoding.mixed import MixedPass
from workbench.models.generation import ModelSteps, check_finite
from workbench.models.pair import ModelPair


class TwoPasses:
    """Two forward passes a token: two models, or one whose adapter is switched between them."""

    def __init__(self, pair: ModelPair, passages: Sequence[Passage], rows: Sequence[int]) -> None:
        self._base = ModelSteps(pair, "base", [p.whole("base") for p in passages], rows)
        self._aligned = ModelSteps(pair, "aligned", [p.whole("aligned") for p in passages], rows)

    def logits(self) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch vocab"]]:
        return self._base.scores(), self._aligned.scores()

    def take(self, chosen: Int[Tensor, "batch"]) -> None:
        self._base.take(chosen)
        self._aligned.take(chosen)

    def keep(self, going: Sequence[int]) -> None:
        self._base.keep(going)
        self._aligned.keep(going)


class OnePass(ModelSteps):
    """One mixed forward pass a token; every row is in the batch twice, for base in the first half."""

    def __init__(self, pair: ModelPair, run: MixedPass, passages: Sequence[Passage], rows: Sequence[int]) -> None:
        both = [*(p.whole("base") for p in passages), *(p.whole("aligned") for p in passages)]
        super().__init__(pair, "base", both, [*rows, *rows])
        self._run = run

    def logits(self) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch vocab"]]:
        base, aligned = self._run.logits(self._ids, self._mask, self._position, self._cache)
        check_finite("base", base, self._live, self._token)
        check_finite("aligned", aligned, self._live, self._token)
        return base, aligned

    def take(self, chosen: Int[Tensor, "batch"]) -> None:
        super().take(chosen.repeat(2))

    def keep(self, going: Sequence[int]) -> None:
        rows = len(self._live) // 2
        super().keep([*going, *(rows + at for at in going)])


PairedSteps = TwoPasses | OnePass


def paired_steps(
    pair: ModelPair, run: MixedPass | None, passages: Sequence[Passage], rows: Sequence[int]
) -> PairedSteps:
    """Return both models over passages, in one mixed pass where that is possible; `rows` are indices for errors."""
    return TwoPasses(pair, passages, rows) if run is None else OnePass(pair, run, passages, rows)
