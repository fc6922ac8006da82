"""Generation: batched continuation of ragged contexts with a key-value cache, streaming and resumable.

A context is a list of token ids that already holds the chat template and any prefilled tokens. Batches are padded on
the left; finished rows leave the batch. A row's noise is a function of its own content, the step and the token, so a
sample does not depend on the rest of its batch. A step reads one thing back from the device: what was chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache, StaticCache

from workbench.core.batching import in_batches
from workbench.core.configs import above, at_least, check_fields, takes_fields
from workbench.core.errors import NonFiniteLogits, PromptError
from workbench.core.passages import check_fits
from workbench.core.provenance import settings_of
from workbench.core.store import Entry, Store, key_of
from workbench.models.caches import RoomyCache, keep_rows, on_device
from workbench.models.noise import Noise
from workbench.models.pair import ModelPair, Which

Stop = Literal["end", "length", "stop", "context"]
STOPS: tuple[Stop, ...] = ("end", "length", "stop", "context")
OnToken = Callable[[int, int], None]
FIRST_TOKENS = 8192
"""Tokens of the first batch, where nothing is measured yet."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """The settings of generation.

    temperature 0 is greedy; `top_k` 0 and `top_p` 1 switch those truncations off. A continuation ends with one of the
    pair's end-of-turn ids, one of `stop_ids`, or the token that completes one of the `stop` strings. `batch_tokens`
    bounds rows x (context + max_tokens) of one batch; None: FIRST_TOKENS in the first batch, then as many as the device
    has memory for (on a GPU; a CPU stays there). Texts do not depend on it.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    seed: int = 0
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        whole = dict.fromkeys(("max_tokens", "top_k"), at_least(0)) | {"batch_tokens": at_least(1)}
        check_fields(self, **whole, temperature=at_least(0, finite=True), top_p=above(0, 1))


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One continuation: its ids (the end-of-turn token included) and why it ended.

    `stop` is "end" (end of turn), "length" (max_tokens reached), "stop" (a stop string or stop id), or "context" (the
    model's context was full before max_tokens, where a caller allows that).
    """

    ids: tuple[int, ...]
    stop: Stop

    def entry(self) -> dict[str, np.ndarray]:
        """Return it as an entry of a store."""
        return {"ids": np.array(self.ids, np.int32), "stop": np.array([STOPS.index(self.stop)], np.int32)}

    @classmethod
    def read(cls, entry: Entry) -> Generation:
        """Return the generation of a store's entry."""
        return cls(ids=tuple(entry["ids"].tolist()), stop=STOPS[int(entry["stop"][0])])


@takes_fields(GenerateConfig)
def generate(
    pair: ModelPair,
    which: Which,
    contexts: Sequence[Sequence[int]],
    config: GenerateConfig,
    *,
    on_token: OnToken | None = None,
    store: Store | None = None,
    what: str | None = "generating",
) -> tuple[Generation, ...]:
    """Continue every context with the base or the aligned model, in the order given.

    `on_token(index of the context, token id)` is called as each token is chosen. Finished continuations go to `store`,
    one shard a batch, so a killed run resumes. When memory runs out the batch is halved, with a note.

    Raises PromptError for an empty context, ContextOverflow where context and max_tokens exceed the model's context
    (before any work), NonFiniteLogits where the model returns NaN or infinity.
    """
    contexts = [tuple(c) for c in contexts]
    check_not_empty(contexts)
    check_fits("the longest context", max(map(len, contexts), default=0), pair.context_length, config.max_tokens)
    store = Store.of(store)
    keys = generation_keys(pair, which, contexts, config)
    if on_token is not None:
        for i, key in enumerate(keys):
            for token in Generation.read(store.read(key)).ids if key in store else ():
                on_token(i, token)

    def work(rows: list[int], finished: Callable[[int, Generation], None]) -> None:
        steps = ModelSteps(pair, which, [contexts[i] for i in rows], config.max_tokens)
        drawn = [Row(index=i, limit=config.max_tokens, key=noise_key(config, keys[i])) for i in rows]
        draw(pair, steps, drawn, config, on_token=on_token, finished=finished)

    sizes, entry, read = [len(c) + config.max_tokens for c in contexts], Generation.entry, Generation.read
    budget = pair.budget(config.batch_tokens, FIRST_TOKENS)
    with torch.inference_mode(), pair.model(which):
        done = in_batches(keys, sizes, work, budget=budget, store=store, entry=entry, read=read, what=what)
    return tuple(done)


def check_not_empty(contexts: Sequence[Sequence[int]]) -> None:
    """Raise PromptError for a context without a token."""
    for i, c in enumerate(contexts):
        if not c:
            raise PromptError(f"context {i + 1} of {len(contexts)} is empty: give it at least one token")


def generation_keys(
    pair: ModelPair, which: Which, contexts: Sequence[Sequence[int]], config: GenerateConfig
) -> list[str]:
    """Return the key of each continuation, a hash of all that it depends on; it also seeds the row's sampling."""
    settings = {k: v for k, v in settings_of(config).items() if k != "batch_tokens"}
    return [key_of("generation 2", pair.fingerprint, which, c, settings) for c in contexts]


def noise_key(config: GenerateConfig, key: str) -> int:
    """Return the key of one continuation's noise, 64 bits."""
    return int(key[:16], 16) ^ config.seed


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row to draw: its index for the caller, its most tokens, and the key of its noise."""

    index: int
    limit: int
    key: int


Finite = Sequence[tuple[Which, Bool[Tensor, "batch"]]]
Again = Callable[[Float[Tensor, "batch vocab"]], Int[Tensor, "batch"]]
"""The choice of each row's token from other scores, by the same rule and with the same noise."""


@runtime_checkable
class Steps(Protocol):
    """A source of scores for rows drawn a token at a time; every call is for all live rows, in their order.

    No method reads from the device.
    """

    @property
    def finite(self) -> Finite:
        """Return which rows' last logits were finite, for each model."""

    def scores(self) -> Float[Tensor, "batch vocab"]:
        """Return the scores of each row's next token, before softmax."""

    def take(self, chosen: Int[Tensor, "batch"], again: Again) -> None:
        """Take each row's chosen token."""

    def keep(self, going: Sequence[int]) -> None:
        """Continue only these rows."""


def draw(
    pair: ModelPair,
    steps: Steps,
    rows: Sequence[Row],
    config: GenerateConfig,
    *,
    on_token: OnToken | None,
    finished: Callable[[int, Generation], None],
) -> None:
    """Draw the rows of one batch to their ends; `finished(index, continuation)` is called as each stops.

    Raises NonFiniteLogits naming model, token and row.
    """
    out: list[list[int]] = [[] for _ in rows]
    noise = Noise([row.key for row in rows], pair.device)

    def again(scores: Float[Tensor, "batch vocab"]) -> Int[Tensor, "batch"]:
        return choose(scores, config, noise)

    def keep(going: Sequence[int]) -> None:
        if 0 < len(going) < len(live):
            steps.keep(going)
            noise.keep(on_device(list(going), pair.device))

    live = list(range(len(rows)))  # row of the batch -> row of `out`
    for row in rows:
        if row.limit <= 0:
            finished(row.index, Generation(ids=(), stop=_limit_stop(row, config)))
    going = [r for r in live if rows[r].limit > 0]
    keep(going)
    live = going
    while live:
        chosen = again(steps.scores())
        steps.take(chosen, again)
        noise.next()
        tokens, *finite = torch.stack((chosen, *(ok for _, ok in steps.finite))).tolist()  # the step's one read
        for (which, _), ok in zip(steps.finite, finite, strict=True):
            if not all(ok):
                at = live[ok.index(0)]
                raise NonFiniteLogits.at(which, _token_of(rows[at].index, len(out[at]) + 1))
        going = []
        for at, token in enumerate(tokens):
            r = live[at]
            row, ids = rows[r], out[r]
            ids.append(token)
            if on_token is not None:
                on_token(row.index, token)
            if token in pair.eos_ids:
                finished(row.index, Generation(ids=tuple(ids), stop="end"))
            elif token in config.stop_ids or (config.stop and any(s in pair.decode(ids) for s in config.stop)):
                finished(row.index, Generation(ids=tuple(ids), stop="stop"))
            elif len(ids) == row.limit:
                finished(row.index, Generation(ids=tuple(ids), stop=_limit_stop(row, config)))
            else:
                going.append(at)
        keep(going)
        live = [live[at] for at in going]


def _limit_stop(row: Row, config: GenerateConfig) -> Stop:
    return "length" if row.limit == config.max_tokens else "context"


class ModelSteps:
    """One model over left-padded contexts with its key-value cache, with room for `more` tokens after them."""

    finite: Finite = ()

    def __init__(self, pair: ModelPair, which: Which, contexts: Sequence[tuple[int, ...]], more: int) -> None:
        self._pair, self._which = pair, which
        self._ids, mask = left_padded(contexts, pair.device)
        self._width = mask.shape[1]
        self._position = mask.cumsum(-1).sub_(1).clamp_(min=0)
        self._mask = torch.cat((mask, mask.new_ones(len(mask), more)), -1)
        self._padding = [self._width - len(c) for c in contexts]
        self._cache = pair.new_cache(which, self._width + more)

    def _inputs(self) -> tuple[Tensor, Tensor | None, Tensor, Cache]:
        """Return ids, mask (None where no row is padded), positions and cache of the next pass."""
        padded, static = any(self._padding), isinstance(self._cache, StaticCache)
        if isinstance(self._cache, RoomyCache):
            self._cache.padded = padded
        mask = None if not padded else self._mask if static else self._mask[:, : self._width]
        return self._ids, mask, self._position, self._cache

    def scores(self) -> Float[Tensor, "batch vocab"]:
        """Return the logits of each row's next token."""
        ids, mask, position, cache = self._inputs()
        hidden = self._pair.hidden(self._which, ids, attention_mask=mask, position_ids=position, cache=cache)
        logits = self._pair.logits(self._which, hidden[:, -1]).float()
        self.finite = [(self._which, is_finite(logits))]
        return logits

    def take(self, chosen: Int[Tensor, "batch"], again: Again) -> None:
        self._ids, self._position = chosen.unsqueeze(-1), self._position[:, -1:] + 1
        self._width += 1

    def keep(self, going: Sequence[int]) -> None:
        kept = on_device(list(going), self._pair.device)
        self._ids, self._position, self._mask = self._ids[kept], self._position[kept], self._mask[kept]
        keep_rows(self._cache, kept)
        self._padding = [self._padding[at] for at in going]


def is_finite(logits: Float[Tensor, "batch vocab"]) -> Bool[Tensor, "batch"]:
    """Mark the rows without NaN or infinity; -inf, which rules a token out, is allowed."""
    return logits.amax(-1).isfinite()


def check_finite(which: Which, logits: Float[Tensor, "batch vocab"], rows: Sequence[int], token: int) -> None:
    """Raise NonFiniteLogits, naming model, token (1-based) and row, for a row with NaN or infinity."""
    finite = is_finite(logits).tolist()
    if not all(finite):
        raise NonFiniteLogits.at(which, _token_of(rows[finite.index(False)], token))


def _token_of(row: int, token: int) -> str:
    return f"at generated token {token} of continuation {row + 1}"


def left_padded(
    contexts: Sequence[Sequence[int]], device: torch.device, pad: int = 0
) -> tuple[Int[Tensor, "batch context"], Int[Tensor, "batch context"]]:
    """Pad contexts on the left to one length; return ids and attention mask (1 where there is a token)."""
    width = max(len(c) for c in contexts)
    ids = torch.tensor([[pad] * (width - len(c)) + list(c) for c in contexts], device=device)
    mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=device)
    return ids, mask


def choose(logits: Float[Tensor, "batch vocab"], config: GenerateConfig, noise: Noise) -> Int[Tensor, "batch"]:
    """Choose each row's next token: the most likely, or a draw after temperature, top-k and top-p (in this order).

    The draw is a race: the token with weight p and an exponential time E comes first with the largest p / E.
    """
    if config.temperature == 0.0:
        return logits.argmax(-1)
    return truncated(logits, config).div_(noise.exponential(logits.shape[-1])).argmax(-1)


def truncated(logits: Float[Tensor, "batch vocab"], config: GenerateConfig) -> Float[Tensor, "batch vocab"]:
    """Return the sampling weights at a temperature above 0: 0 where a token was cut off, not normalised."""
    logits = logits / config.temperature
    if 0 < config.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(config.top_k, -1).values[:, -1:], -torch.inf)
    p = logits.softmax(-1)
    if config.top_p < 1.0:
        ranked, order = p.sort(dim=-1, descending=True, stable=True)
        beyond = ranked.cumsum(-1) - ranked >= config.top_p
        p = p.masked_fill(torch.empty_like(beyond).scatter_(-1, order, beyond), 0.0)
    return p
