"""Arms read token by token along a text, or while they write it together: KL to a reference, and what each wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.passages import Ids, Passage
from workbench.decoding.penalty import penalise_fully
from workbench.evaluation.attacks.answer import Arm
from workbench.evaluation.attacks.task import as_prompt
from workbench.evaluation.records import Attempt
from workbench.models.pair import Which
from workbench.models.pieces import Pieces

WANTED = 3
"""How many of the likeliest tokens are kept at each position."""
BLOCK = 32
"""Positions whose distributions are in memory at once."""
Wanted = tuple[tuple[str, float], ...]
"""An arm's likeliest tokens at one position, printable, with their probabilities."""


@dataclass(kw_only=True)
class Reader:
    """An arm's next-token distributions along one passage, read with a cache as tokens are added."""

    arm: Arm
    passage: Passage
    _caches: dict[Which, Any] = field(default_factory=dict)
    _read: int = 0

    def read(self, ids: Ids) -> Iterator[Float[Tensor, "position vocab"]]:
        """Add tokens (at first also the context) and yield log-probabilities after the last token before `ids` and on.

        The first call yields len(ids) + 1 positions from the end of the context, every later one len(ids), in blocks.
        """
        pair = self.arm.pair
        penalty = getattr(self.arm, "penalty", None)
        sides: tuple[Which, ...] = ("base", "aligned") if penalty is not None else (self.arm.which,)
        first = not self._caches
        hidden: dict[Which, Tensor] = {}
        with torch.inference_mode():
            for which in sides:
                context = self.passage.context(which) if first else ()
                fed = torch.tensor([[*context, *ids]], device=pair.device)
                cache = self._caches.setdefault(which, pair.new_cache(which))
                rows = len(ids) + 1 if first else len(ids)
                hidden[which] = pair.hidden(which, fed, cache=cache)[0, -rows:]
        begins = self._read + (not first)
        self._read += len(ids)
        for start in range(0, len(hidden[sides[0]]), BLOCK):
            # the mode ends before each block is handed over: it is the thread's, and readers take turns
            yield self._block({w: h[start : start + BLOCK] for w, h in hidden.items()}, begins + start)

    @torch.inference_mode()
    def _block(self, hidden: dict[Which, Tensor], before: int) -> Float[Tensor, "position vocab"]:
        """Return the log-probabilities of some positions, `before` which so many tokens of the response stand."""
        pair = self.arm.pair
        rows = {w: pair.logits(w, h, float32=True).log_softmax(-1) for w, h in hidden.items()}
        penalty = getattr(self.arm, "penalty", None)
        if penalty is None:
            return rows[self.arm.which]
        given = 0 if penalty.count_from == "response" else self.passage.given
        position = (before - given + 1 + torch.arange(len(rows["base"]), device=pair.device)).clamp(min=1)
        return penalise_fully(rows["base"], rows["aligned"], penalty, position=position).logprobs


def read_along(arm: Arm, attempt: Attempt, answer: Ids, against: Arm | None) -> dict[str, Any]:
    """Return an answer's `pieces`, its `kl_nats` to the reference and what the arm `wanted` at each of its tokens.

    `against` is the reference; None: no KL. The token that ends a turn is left out. One pass of each model; BLOCK
    distributions are held at once.
    """
    kept = tuple(i for i in answer if i not in arm.pair.eos_ids)
    passage = arm.pair.passage(as_prompt(attempt), attempt.prefix_ids)
    display, given = Pieces(arm.pair.tokenizer), len(attempt.prefix_ids)
    shown = display.sequence(kept, (*passage.aligned, *attempt.prefix_ids))
    along = (*attempt.prefix_ids, *kept[:-1])
    mine = Reader(arm=arm, passage=passage).read(along)
    theirs = None if against is None else Reader(arm=against, passage=passage).read(along)
    kl, wanted = list[float](), list[Wanted]()
    for block in mine:
        kl += [] if theirs is None else kl_nats(block, next(theirs)).tolist()
        wanted += likeliest(block, display)
    there = slice(given, given + len(kept))
    return {"pieces": tuple(p.text for p in shown), "kl_nats": tuple(kl[there]), "wanted": tuple(wanted[there])}


def kl_nats(
    arm: Float[Tensor, "position vocab"], reference: Float[Tensor, "position vocab"]
) -> Float[Tensor, "position"]:
    """Return KL(arm || reference) at each position, in nats; a token that the arm excludes adds nothing."""
    difference = torch.where(arm == -torch.inf, 0.0, arm - reference)
    return (arm.exp() * difference).sum(-1).clamp(min=0.0)


def likeliest(block: Float[Tensor, "position vocab"], display: Pieces, n: int = WANTED) -> list[Wanted]:
    """Return the `n` likeliest tokens of each position with their probabilities."""
    top = block.topk(min(n, block.shape[-1]), dim=-1)
    values, ids = top.values.exp().tolist(), top.indices.tolist()
    return [
        tuple((display.label(i), float(p)) for i, p in zip(row, chances, strict=True))
        for row, chances in zip(ids, values, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One arm's next token: the arm's index, the token, KL(arm || reference) in nats, and what the arm wanted there."""

    arm: int
    token_id: int
    kl_nats: float | None
    wanted: Wanted


def continue_together(
    arms: Sequence[Arm],
    passages: Sequence[Passage],
    *,
    reference: str = "aligned",
    max_tokens: int = 64,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Continue one passage by every arm, greedily, a token of each in turn; an arm ends where its turn ends.

    `passages` has the same prompt and given tokens as each arm's own pair writes them. Each text is also read by the
    reference among the arms (where it is one), for KL.
    """
    against = next((arm for arm in arms if arm.name == reference), None)
    readers = [Reader(arm=a, passage=p) for a, p in zip(arms, passages, strict=True)]
    watchers = [
        None if against is None or a is against else Reader(arm=against, passage=p)
        for a, p in zip(arms, passages, strict=True)
    ]
    fed: list[Ids | None] = [p.response[: p.given] for p in passages]
    display = [Pieces(a.pair.tokenizer) for a in arms]
    for _ in range(max_tokens):
        for n, arm in enumerate(arms):
            ids = fed[n]
            if ids is None:
                continue
            if cancelled():
                return
            mine = list(readers[n].read(ids))[-1][-1:]
            watcher = watchers[n]
            if arm is against:
                distance: float | None = 0.0
            else:
                distance = None if watcher is None else float(kl_nats(mine, list(watcher.read(ids))[-1][-1:])[0])
            token = int(mine[0].argmax())
            if token in arm.pair.eos_ids:
                fed[n] = None
                continue
            fed[n] = (token,)
            yield Step(arm=n, token_id=token, kl_nats=distance, wanted=likeliest(mine, display[n])[0])
        if all(ids is None for ids in fed):
            return
