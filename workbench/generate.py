"""The one generator: batched continuation of ragged contexts with a key-value cache, streaming and resumable.

A context is a list of token ids that already holds the chat template and, where the response is prefilled, the
prefilled tokens. Batches are padded on the left; rows that are finished leave the batch. A row's sampling is seeded by
its own content, so a continuation does not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.batches import halving_on_memory, plan_batches
from workbench.errors import ContextOverflow, NonFiniteLogits, ParameterError, PromptError
from workbench.pair import ModelPair, Which
from workbench.progress import Progress
from workbench.provenance import settings_of
from workbench.store import Store, key_of

Stop = Literal["end", "length", "stop"]
STOPS: tuple[Stop, ...] = ("end", "length", "stop")
OnToken = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Say how to continue.

    temperature 0 is greedy; `top_k` 0 and `top_p` 1 switch those truncations off. `stop_ids` end a continuation besides
    the pair's own end-of-turn ids, `stop` strings as soon as the decoded continuation contains one (tokens up to and
    including the one that completes it are kept). `batch_tokens` bounds rows x (context + max_tokens) of one batch.
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
        bad = [
            (self.max_tokens < 0, "max_tokens", "at least 0"),
            (not 0.0 <= self.temperature < float("inf"), "temperature", "finite and at least 0"),
            (not 0.0 < self.top_p <= 1.0, "top_p", "above 0 and at most 1"),
            (self.top_k < 0, "top_k", "at least 0"),
            (self.batch_tokens < 1, "batch_tokens", "at least 1"),
        ]
        for wrong, name, want in bad:
            if wrong:
                raise ParameterError(f"{name} is {getattr(self, name)!r}; it must be {want}")


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Hold one continuation: its ids (the end-of-turn token included) and why it ended.

    `stop` is "end" (end of turn), "length" (max_tokens reached) or "stop" (a stop string or stop id).
    """

    ids: tuple[int, ...]
    stop: Stop


def generate(
    pair: ModelPair,
    which: Which,
    contexts: Sequence[Sequence[int]],
    config: GenerateConfig,
    *,
    on_token: OnToken | None = None,
    store: Store | None = None,
    what: str = "generating",
) -> tuple[Generation, ...]:
    """Continue every context with the base or the aligned model, in the order given.

    `on_token(index of the context, token id)` is called as each token is chosen. Finished continuations are kept in
    `store`, one shard a batch: a killed run resumes there. When memory runs out the batch is halved and said so.

    Raises PromptError for an empty context, ContextOverflow where context and max_tokens exceed the model's context
    (before any work), NonFiniteLogits when the model returns NaN or infinity.
    """
    contexts = [tuple(c) for c in contexts]
    for i, c in enumerate(contexts):
        if not c:
            raise PromptError(f"context {i + 1} of {len(contexts)} is empty: there is nothing to continue")
    longest = max((len(c) for c in contexts), default=0)
    if longest + config.max_tokens > pair.context_length:
        raise ContextOverflow(
            f"the longest context has {longest} tokens; with max_tokens={config.max_tokens} that exceeds the model's "
            f"context of {pair.context_length}: lower max_tokens or shorten the prompt"
        )
    store = Store(None) if store is None else store
    settings = {k: v for k, v in settings_of(config).items() if k != "batch_tokens"}
    keys = [key_of("generation 1", pair.fingerprint, which, c, settings) for c in contexts]
    done: dict[int, Generation] = {i: _read(store, k) for i, k in enumerate(keys) if k in store}
    todo = [i for i in range(len(contexts)) if i not in done]
    if on_token is not None:
        for i, g in done.items():
            for token in g.ids:
                on_token(i, token)
    if todo:
        sizes = [len(contexts[i]) + config.max_tokens for i in todo]
        with Progress(what, len(todo), "continuations") as progress, torch.inference_mode(), pair.model(which):
            for planned in plan_batches(sizes, config.batch_tokens):
                rows = [todo[j] for j in planned]
                for part, made in halving_on_memory(
                    rows, lambda part: _batch(pair, which, [(i, contexts[i], keys[i]) for i in part], config, on_token),
                    progress.note,
                ):
                    done.update(zip(part, made, strict=True))
                    store.write({keys[i]: _entry(g) for i, g in zip(part, made, strict=True)})
                    progress.advance(len(part))
    return tuple(done[i] for i in range(len(contexts)))


def _entry(g: Generation) -> dict[str, np.ndarray]:
    return {"ids": np.array(g.ids, np.int32), "stop": np.array([STOPS.index(g.stop)], np.int32)}


def _read(store: Store, key: str) -> Generation:
    entry = store.read(key)
    return Generation(ids=tuple(entry["ids"].tolist()), stop=STOPS[int(entry["stop"][0])])


def _batch(
    pair: ModelPair,
    which: Which,
    rows: Sequence[tuple[int, tuple[int, ...], str]],
    config: GenerateConfig,
    on_token: OnToken | None,
) -> list[Generation]:
    ids, mask = left_padded([c for _, c, _ in rows], pair.device)
    position = mask.long().cumsum(-1).sub_(1).clamp_(min=0)
    samplers = [_generator(config, key) for _, _, key in rows]
    out: list[list[int]] = [[] for _ in rows]
    stops: list[Stop] = ["length"] * len(rows)
    live = list(range(len(rows)))  # row of the batch -> row of `out`
    cache = pair.new_cache(which)
    ends = frozenset(pair.eos_ids)
    for _ in range(config.max_tokens):
        hidden = pair.hidden(which, ids, attention_mask=mask, position_ids=position, cache=cache)
        logits = pair.logits(which, hidden[:, -1]).float()
        if not bool(logits.amax(-1).isfinite().all()):
            row = live[int((~logits.amax(-1).isfinite()).nonzero()[0])]
            raise NonFiniteLogits(
                f"the {which} model returned NaN or infinite logits at generated token {len(out[row]) + 1} of "
                f"continuation {rows[row][0] + 1}: check the weights and the dtype ({pair.dtype}); float32 is safe"
            )
        chosen = _choose(logits, config, [samplers[r] for r in live])
        going: list[int] = []
        for at, token in enumerate(chosen.tolist()):
            r = live[at]
            out[r].append(token)
            if on_token is not None:
                on_token(rows[r][0], token)
            if token in ends:
                stops[r] = "end"
            elif token in config.stop_ids or (config.stop and any(s in pair.decode(out[r]) for s in config.stop)):
                stops[r] = "stop"
            else:
                going.append(at)
        if not going:
            break
        ids, position = chosen.unsqueeze(-1), position[:, -1:] + 1
        mask = torch.cat((mask, mask.new_ones(mask.shape[0], 1)), -1)
        if len(going) < len(live):
            keep = torch.tensor(going, device=pair.device)
            ids, position, mask = ids[keep], position[keep], mask[keep]
            cache.batch_select_indices(keep)
            live = [live[at] for at in going]
    return [Generation(ids=tuple(o), stop=s) for o, s in zip(out, stops, strict=True)]


def left_padded(
    contexts: Sequence[Sequence[int]], device: torch.device, pad: int = 0
) -> tuple[Int[Tensor, "batch context"], Int[Tensor, "batch context"]]:
    """Pad contexts on the left to one length; return ids and attention mask (1 where there is a token)."""
    width = max(len(c) for c in contexts)
    ids = torch.tensor([[pad] * (width - len(c)) + list(c) for c in contexts], device=device)
    mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=device)
    return ids, mask


def _generator(config: GenerateConfig, key: str) -> torch.Generator:
    return torch.Generator().manual_seed(int(key[:15], 16) ^ config.seed)


def _choose(
    logits: Float[Tensor, "batch vocab"], config: GenerateConfig, samplers: Sequence[torch.Generator]
) -> Int[Tensor, "batch"]:
    """Choose each row's next token: the most likely, or a draw after temperature, top-k and top-p (in this order)."""
    if config.temperature == 0.0:
        return logits.argmax(-1)
    logits = logits / config.temperature
    if 0 < config.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(config.top_k, -1).values[:, -1:], -torch.inf)
    p = logits.softmax(-1)
    if config.top_p < 1.0:
        ranked, order = p.sort(-1, descending=True)
        beyond = ranked.cumsum(-1) - ranked >= config.top_p
        p = p.masked_fill(beyond.gather(-1, order.argsort(-1)), 0.0)
    draws = [torch.multinomial(row.cpu(), 1, generator=g) for row, g in zip(p, samplers, strict=True)]
    return torch.cat(draws).to(logits.device)
