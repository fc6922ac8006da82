"""The rank-assisted attack: decoding that a second model steers, and the arm that answers under it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.batching import in_batches
from workbench.core.configs import at_least, check_fields
from workbench.core.errors import ParameterError
from workbench.core.passages import Passage
from workbench.core.provenance import settings_of
from workbench.core.records import Given
from workbench.core.store import Store, key_of
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.model import PenalisedModel
from workbench.decoding.paired import paired_steps
from workbench.decoding.steps import PenalisedSteps
from workbench.evaluation.attacks.prefixes import Prefill
from workbench.evaluation.attacks.task import Sampler
from workbench.evaluation.records import AttackSet
from workbench.models.generation import (
    FIRST_TOKENS,
    Again,
    Finite,
    GenerateConfig,
    Generation,
    ModelSteps,
    OnToken,
    Row,
    Steps,
    draw,
)
from workbench.models.pair import ModelPair, Which
from workbench.training.losses import top_ids


@dataclass(frozen=True, kw_only=True)
class RankAssisted(Prefill):
    """A prefill that goes on: at each step the base model picks among the arm's most likely tokens (arXiv 2512.05518).

    `tops` lists K: of the arm's K most likely next tokens, the answer takes the one that base finds likeliest. So an
    arm that only moved harmful tokens from rank 1 to rank 2 fails, although it withstands the plain prefill. K = 1 is
    the arm's own greedy answer, K = the vocabulary is base's. Settings: "top 5". It runs inside an attack only.
    """

    family: ClassVar[str] = "rank_assisted"

    k: tuple[Given, ...] = (0, 5)
    tops: tuple[int, ...] = (5, 20)

    def check(self) -> None:
        super().check()
        wrong = not self.tops or len(set(self.tops)) < len(self.tops)
        check_fields(self, (wrong, "tops", "token counts from 1, each once"), tops=at_least(1))

    def stronger(self) -> RankAssisted:
        return replace(self, tops=(*self.tops, 2 * max(self.tops)))

    def draws(self) -> tuple[tuple[str | None, Sampler], ...]:
        return tuple((f"top {top}", Sampler(top_k=top)) for top in self.tops)


class RankedSteps:
    """The steps of rows whose tokens base picks among an arm's `top` most likely ones."""

    def __init__(self, arm: Steps, base: Steps, top: int) -> None:
        self._arm, self._base, self._top = arm, base, top

    @property
    def finite(self) -> Finite:
        return (*self._arm.finite, *self._base.finite)

    def scores(self) -> Float[Tensor, "batch vocab"]:
        """Return base's logits at the arm's most likely tokens and -inf elsewhere."""
        return among_top(self._arm.scores(), self._base.scores(), self._top)

    def take(self, chosen: Int[Tensor, "batch"], again: Again) -> None:
        self._arm.take(chosen, again)
        self._base.take(chosen, again)

    def keep(self, going: Sequence[int]) -> None:
        self._arm.keep(going)
        self._base.keep(going)


def among_top(
    arm: Float[Tensor, "batch vocab"], base: Float[Tensor, "batch vocab"], top: int
) -> Float[Tensor, "batch vocab"]:
    """Return base's scores at the ids of the arm's `top` largest ones, -inf elsewhere; of equal ones the lower ids.

    A token that base rules out (-inf) counts as its least likely one, so a row never has -inf alone.
    """
    ids = top_ids(arm, top)
    kept = base.gather(-1, ids).clamp(min=torch.finfo(base.dtype).min)
    return torch.full_like(base, -torch.inf).scatter_(-1, ids, kept)


@dataclass(frozen=True, kw_only=True, eq=False)
class RankedArm:
    """An arm whose answers base steers: `of` gives the ranks. Only `answer` makes it, for the attempts of an attack."""

    of: Any

    @property
    def name(self) -> str:
        return str(self.of.name)

    @property
    def pair(self) -> ModelPair:
        pair: ModelPair = self.of.pair
        return pair

    @property
    def which(self) -> Which:
        which: Which = self.of.which
        return which

    def continue_(
        self,
        passages: Sequence[Passage],
        config: GenerateConfig,
        *,
        store: Store,
        on_token: OnToken | None,
        what: str | None,
    ) -> tuple[Generation, ...]:
        """Continue passages with base's favorite among the arm's `config.top_k` most likely tokens."""
        pair, which, more = self.pair, self.which, config.max_tokens
        settings = {k: v for k, v in settings_of(config).items() if k != "batch_tokens"}
        settings["penalty"] = settings_of(self.of.penalty) if isinstance(self.of, PenalisedModel) else None
        keys = [
            key_of("ranked 1", pair.fingerprint, which, p.whole("base"), p.whole(which), len(p.response), settings)
            for p in passages
        ]
        for i, key in enumerate(keys if on_token is not None else ()):
            for token in Generation.read(store.read(key)).ids if key in store else ():
                on_token(i, token)

        def work(rows: list[int], finished: Callable[[int, Generation], None]) -> None:
            batch = [passages[i] for i in rows]
            drawn = [Row(index=i, limit=more, key=0) for i in rows]
            base = ModelSteps(pair, "base", [p.whole("base") for p in batch], more)
            steps = RankedSteps(self._own(batch, config, drawn), base, config.top_k)
            draw(pair, steps, drawn, config, on_token=on_token, finished=finished)

        with torch.inference_mode():
            done = in_batches(
                keys,
                [p.length + more for p in passages],
                work,
                budget=pair.budget(config.batch_tokens, FIRST_TOKENS),
                store=store,
                entry=Generation.entry,
                read=Generation.read,
                what=what,
            )
        return tuple(done)

    def _own(self, batch: Sequence[Passage], config: GenerateConfig, drawn: Sequence[Row]) -> Steps:
        """Return the steps whose scores rank the tokens: the arm's own."""
        if not isinstance(self.of, PenalisedModel):
            return ModelSteps(self.pair, self.which, [p.whole(self.which) for p in batch], config.max_tokens)
        paired = paired_steps(self.pair, None, batch, config.max_tokens)
        how = DecodeConfig(penalty=self.of.penalty, generation=config, shown_k=0)
        return PenalisedSteps(paired, how, drawn, [len(p.response) for p in batch])


def rank_assisted(arm: Any, attacks: AttackSet, plain: type) -> Any:
    """Return the arm that answers a rank-assisted attack; under any other attack the arm is unchanged.

    `plain` is the class of arms that are one model. Raises ParameterError for an arm that shows no ranks: one of
    another class, which only returns its answers.
    """
    if attacks.attack != RankAssisted.family:
        return arm
    if not isinstance(arm, plain | PenalisedModel):
        raise ParameterError(
            f"arm {arm.name!r} cannot be attacked by {attacks.attack!r}: {type(arm).__name__} returns its answers "
            "alone, and the attack needs the ranks of its tokens. Leave the attack out, or give a model or a penalty"
        )
    return RankedArm(of=arm)
