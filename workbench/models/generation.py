"""Generation: batched continuation of ragged contexts with a key-value cache, streaming and resumable.

A context is a list of token ids that already holds the chat template and any prefilled tokens. Batches are padded on
the left; finished rows leave the batch. A row's sampling is seeded by its own content, so a continuation does not
depend on the rest of its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.batching import in_batches
from workbench.core.configs import above, at_least, check_fields, takes_fields
from workbench.core.errors import NonFiniteLogits, PromptError
from workbench.core.passages import check_fits
from workbench.core.provenance import settings_of
from workbench.core.store import Entry, Store, key_of
from workbench.models.pair import ModelPair, Which

Stop = Literal["end", "length", "stop", "context"]
STOPS: tuple[Stop, ...] = ("end", "length", "stop", "context")
OnToken = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """The settings of generation.

    temperature 0 is greedy; `top_k` 0 and `top_p` 1 switch those truncations off. A continuation ends with one of the
    pair's end-of-turn ids, one of `stop_ids`, or the token that completes one of the `stop` strings. `batch_tokens`
    bounds rows x (context + max_tokens) of one batch.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    seed: int = 0
    batch_tokens: int = 8192

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
        steps = ModelSteps(pair, which, [contexts[i] for i in rows], rows)
        drawn = [Row(index=i, limit=config.max_tokens, sampler=sampler(config, keys[i])) for i in rows]
        draw(pair, steps, drawn, config, on_token=on_token, finished=finished)

    sizes, entry, read = [len(c) + config.max_tokens for c in contexts], Generation.entry, Generation.read
    with torch.inference_mode(), pair.model(which):
        done = in_batches(
            keys, sizes, work, batch_tokens=config.batch_tokens, store=store, entry=entry, read=read, what=what
        )
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
    return [key_of("generation 1", pair.fingerprint, which, c, settings) for c in contexts]


def sampler(config: GenerateConfig, key: str) -> torch.Generator:
    """Return the random generator of one continuation."""
    return torch.Generator().manual_seed(int(key[:15], 16) ^ config.seed)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row to draw: its index for the caller, its most tokens, and its random generator."""

    index: int
    limit: int
    sampler: torch.Generator


@runtime_checkable
class Steps(Protocol):
    """A source of scores for rows drawn a token at a time; every call is for all live rows, in their order."""

    def scores(self) -> Float[Tensor, "batch vocab"]:
        """Return the scores of each row's next token, before softmax."""

    def take(self, chosen: Int[Tensor, "batch"]) -> None:
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
    """Draw the rows of one batch to their ends; `finished(index, continuation)` is called as each stops."""
    out: list[list[int]] = [[] for _ in rows]
    live = list(range(len(rows)))  # row of the batch -> row of `out`
    for r, row in enumerate(rows):
        if row.limit <= 0:
            finished(row.index, Generation(ids=(), stop=_limit_stop(row, config)))
            live.remove(r)
    if 0 < len(live) < len(rows):
        steps.keep(live)
    while live:
        chosen = choose(steps.scores(), config, [rows[r].sampler for r in live])
        steps.take(chosen)
        going: list[int] = []
        for at, token in enumerate(chosen.tolist()):
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
        if going and len(going) < len(live):
            steps.keep(going)
        live = [live[at] for at in going]


def _limit_stop(row: Row, config: GenerateConfig) -> Stop:
    return "length" if row.limit == config.max_tokens else "context"


class ModelSteps:
    """One model over left-padded contexts with its key-value cache; `rows` are the contexts' indices for errors."""

    def __init__(self, pair: ModelPair, which: Which, contexts: Sequence[tuple[int, ...]], rows: Sequence[int]) -> None:
        self._pair, self._which = pair, which
        self._ids, self._mask = left_padded(contexts, pair.device)
        self._position = self._mask.long().cumsum(-1).sub_(1).clamp_(min=0)
        self._cache = pair.new_cache(which)
        self._live, self._token = list(rows), 1

    def scores(self) -> Float[Tensor, "batch vocab"]:
        """Return the logits of each row's next token. Raises NonFiniteLogits naming model, token and row."""
        hidden = self._pair.hidden(
            self._which, self._ids, attention_mask=self._mask, position_ids=self._position, cache=self._cache
        )
        logits = self._pair.logits(self._which, hidden[:, -1]).float()
        check_finite(self._which, logits, self._live, self._token)
        return logits

    def take(self, chosen: Int[Tensor, "batch"]) -> None:
        self._ids, self._position = chosen.unsqueeze(-1), self._position[:, -1:] + 1
        self._mask = torch.cat((self._mask, self._mask.new_ones(self._mask.shape[0], 1)), -1)
        self._token += 1

    def keep(self, going: Sequence[int]) -> None:
        kept = torch.tensor(going, device=self._pair.device)
        self._ids, self._position, self._mask = self._ids[kept], self._position[kept], self._mask[kept]
        self._cache.batch_select_indices(kept)
        self._live = [self._live[at] for at in going]


def check_finite(which: Which, logits: Float[Tensor, "batch vocab"], rows: Sequence[int], token: int) -> None:
    """Raise NonFiniteLogits, naming model, token (1-based) and row, for a row with NaN or infinity."""
    finite = logits.amax(-1).isfinite()
    if not bool(finite.all()):
        row = rows[int((~finite).nonzero()[0])]
        raise NonFiniteLogits.at(which, f"at generated token {token} of continuation {row + 1}")


def left_padded(
    contexts: Sequence[Sequence[int]], device: torch.device, pad: int = 0
) -> tuple[Int[Tensor, "batch context"], Int[Tensor, "batch context"]]:
    """Pad contexts on the left to one length; return ids and attention mask (1 where there is a token)."""
    width = max(len(c) for c in contexts)
    ids = torch.tensor([[pad] * (width - len(c)) + list(c) for c in contexts], device=device)
    mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=device)
    return ids, mask


def choose(
    logits: Float[Tensor, "batch vocab"], config: GenerateConfig, samplers: Sequence[torch.Generator]
) -> Int[Tensor, "batch"]:
    """Choose each row's next token: the most likely, or a draw after temperature, top-k and top-p (in this order)."""
    if config.temperature == 0.0:
        return logits.argmax(-1)
    p = truncated(logits, config)
    draws = [torch.multinomial(row.cpu(), 1, generator=g) for row, g in zip(p, samplers, strict=True)]
    return torch.cat(draws).to(logits.device)


def truncated(logits: Float[Tensor, "batch vocab"], config: GenerateConfig) -> Float[Tensor, "batch vocab"]:
    """Return the sampling weights at a temperature above 0: 0 where a token was cut off, not normalised."""
    logits = logits / config.temperature
    if 0 < config.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(config.top_k, -1).values[:, -1:], -torch.inf)
    p = logits.softmax(-1)
    if config.top_p < 1.0:
        ranked, order = p.sort(-1, descending=True)
        beyond = ranked.cumsum(-1) - ranked >= config.top_p
        p = p.masked_fill(beyond.gather(-1, order.argsort(-1)), 0.0)
    return p
