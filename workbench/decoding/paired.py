"""Both models of a pair over the same rows, a token at a time, each with its key-value cache.

`logits` returns (base, aligned) logits of each live row's next token; `finite` marks the rows where they were finite.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.passages import Passage
from workbench.decoding.mixed import MixedPass
from workbench.models.generation import Again, Finite, ModelSteps, is_finite
from workbench.models.pair import ModelPair


class TwoPasses:
    """Two forward passes a token: two models, or one whose adapter is switched between them."""

    def __init__(self, pair: ModelPair, passages: Sequence[Passage], more: int) -> None:
        self._base = ModelSteps(pair, "base", [p.whole("base") for p in passages], more)
        self._aligned = ModelSteps(pair, "aligned", [p.whole("aligned") for p in passages], more)

    @property
    def finite(self) -> Finite:
        return (*self._base.finite, *self._aligned.finite)

    def logits(self) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch vocab"]]:
        return self._base.scores(), self._aligned.scores()

    def take(self, chosen: Int[Tensor, "batch"], again: Again) -> None:
        self._base.take(chosen, again)
        self._aligned.take(chosen, again)

    def keep(self, going: Sequence[int]) -> None:
        self._base.keep(going)
        self._aligned.keep(going)


class OnePass(ModelSteps):
    """One mixed forward pass a token; every row is in the batch twice, for base in the first half."""

    def __init__(self, pair: ModelPair, run: MixedPass, passages: Sequence[Passage], more: int) -> None:
        both = [*(p.whole("base") for p in passages), *(p.whole("aligned") for p in passages)]
        super().__init__(pair, "base", both, more)
        self._run = run

    def logits(self) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch vocab"]]:
        base, aligned = self._run.logits(*self._inputs())
        self.finite = [("base", is_finite(base)), ("aligned", is_finite(aligned))]
        return base, aligned

    def take(self, chosen: Int[Tensor, "batch"], again: Again) -> None:
        super().take(chosen.repeat(2), again)

    def keep(self, going: Sequence[int]) -> None:
        rows = len(self._ids) // 2
        super().keep([*going, *(rows + at for at in going)])


PairedSteps = TwoPasses | OnePass


def paired_steps(pair: ModelPair, run: MixedPass | None, passages: Sequence[Passage], more: int) -> PairedSteps:
    """Return both models over passages, with room for `more` tokens, in one mixed pass where that is possible."""
    return TwoPasses(pair, passages, more) if run is None else OnePass(pair, run, passages, more)
