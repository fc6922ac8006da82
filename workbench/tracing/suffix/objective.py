"""The target loss of suffixes and its gradient, which a suffix search minimises (arXiv 2307.15043).

    loss(s) = -1/T sum_t log p(y_t | before, s, after, y_<t),   nats, mean over the prompts

The tokens before the suffix are the same for every candidate: their keys and values are computed once for each prompt.
Only the positions that predict the target pass the output head.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from workbench.core.batching import halving_on_memory
from workbench.core.errors import NonFiniteLogits, PairError
from workbench.models.pair import ModelPair, Which
from workbench.models.weights import body_hidden, body_of, with_cache
from workbench.tracing.suffix.slots import Slot, Suffix

BATCH_TOKENS = {"cpu": 2048, "cuda": 65_536}
"""Most tokens (cached ones counted) of a batch of candidates, by kind of device."""

LOGITS_MIB = 64
"""Most memory of one block of float32 logits."""

EMBEDDINGS_AT_ONCE = 8192
"""Vocabulary rows whose gradient is computed at once."""


class Objective:
    """The losses and gradients of suffixes over several prompts of one model.

    `cached` False recomputes the tokens before the suffix each time, for comparison. `batch_tokens` bounds a batch;
    where memory runs out it is halved for good, with a `note`.
    """

    def __init__(
        self,
        pair: ModelPair,
        which: Which,
        slots: Sequence[Slot],
        *,
        cached: bool = True,
        batch_tokens: int | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.pair, self.which, self.slots = pair, which, tuple(slots)
        self._budget = batch_tokens or BATCH_TOKENS.get(pair.device.type, BATCH_TOKENS["cpu"])
        self._note = note or (lambda _: None)
        self._caches: list[Cache | None] = [None] * len(self.slots)
        self._cached = cached and _can_share(pair.new_cache(which))
        with pair.model(which) as model, torch.no_grad():
            _check_embeddings(model, pair.device)

    def losses(
        self, suffixes: Sequence[Suffix], active: int
    ) -> tuple[Float[Tensor, "candidate"], Bool[Tensor, "candidate"]]:
        """Return each suffix's loss over the first `active` prompts, nats, and whether it elicits the targets greedily.

        A model says a target greedily exactly where each target token is the most likely one after those before it.
        """
        total = torch.zeros(len(suffixes), dtype=torch.float64)
        said = torch.ones(len(suffixes), dtype=torch.bool)
        ids = torch.tensor(suffixes, device=self.pair.device)
        for n in range(active):
            loss, hit = self._slot_losses(n, ids)
            total += loss
            said &= hit
        return total / active, said

    def _slot_losses(
        self, n: int, suffixes: Int[Tensor, "candidate position"]
    ) -> tuple[Float[Tensor, "candidate"], Bool[Tensor, "candidate"]]:
        slot = self.slots[n]
        width = len(slot.before) + suffixes.shape[1] + len(slot.after) + len(slot.target) - 1
        rows = max(1, self._budget // width)
        losses = torch.empty(len(suffixes), dtype=torch.float64)
        said = torch.empty(len(suffixes), dtype=torch.bool)
        with torch.no_grad():
            cache = self._cache(n)

            def work(part: list[int]) -> tuple[Tensor, Tensor]:
                return self._batch(slot, cache, suffixes[part])

            for start in range(0, len(suffixes), rows):
                planned = list(range(start, min(start + rows, len(suffixes))))
                for part, (loss, hit) in halving_on_memory(planned, work, self._halved):
                    losses[part], said[part] = loss, hit
        return losses, said

    def _halved(self, sentence: str) -> None:
        self._budget = max(1, self._budget // 2)
        self._note(sentence)

    def _batch(
        self, slot: Slot, cache: Cache | None, suffixes: Int[Tensor, "candidate position"]
    ) -> tuple[Float[Tensor, "candidate"], Bool[Tensor, "candidate"]]:
        around = [() if cache is not None else slot.before, slot.after + slot.target[:-1]]
        before, after = (suffixes.new_tensor(ids).expand(len(suffixes), -1) for ids in around)
        hidden = self.pair.hidden(
            self.which,
            torch.cat((before, suffixes, after), 1),
            cache=None if cache is None else _rows(cache, len(suffixes)),
        )
        nll, hit = self._target_nll(hidden[:, -len(slot.target) :], slot)
        return nll.double().mean(-1).cpu(), hit.all(-1).cpu()

    def _target_nll(
        self, hidden: Float[Tensor, "candidate target hidden"], slot: Slot
    ) -> tuple[Float[Tensor, "candidate target"], Bool[Tensor, "candidate target"]]:
        """Return -log p of each target token, and whether it is the most likely one."""
        wanted = torch.tensor(slot.target, device=hidden.device).expand(len(hidden), -1)
        block = max(1, LOGITS_MIB * 2**20 // (4 * self.pair.vocab))
        nll, hit = [], []
        for h, w in zip(hidden.flatten(0, 1).split(block), wanted.flatten().split(block), strict=True):
            logits = self.pair.logits(self.which, h).float()
            top, at = logits.max(-1)
            if not bool(top.isfinite().all()):
                raise NonFiniteLogits.at(self.which, f"on prompt {slot.prompt.id!r} with a suffix")
            nll.append(logits.logsumexp(-1) - logits.gather(-1, w[:, None])[:, 0])
            hit.append(at == w)
        return torch.cat(nll).view(wanted.shape), torch.cat(hit).view(wanted.shape)

    def gradient(self, suffix: Suffix, active: int) -> Float[Tensor, "position vocab"]:
        """Return d loss / d one-hot of each suffix position, over the first `active` prompts.

        With x = one-hot @ E, this is (d loss / d x) @ E^T, where E holds the model's (scaled) token embeddings. No
        parameter's gradient is computed, and no parameter's flag touched.
        """
        total: Tensor | None = None
        with torch.enable_grad(), self.pair.model(self.which) as model:
            for n in range(active):
                slot = self.slots[n]
                with torch.no_grad():
                    cache = self._cache(n)
                    before, x, after = (
                        _embed(model, ids, self.pair.device)
                        for ids in (() if cache is not None else slot.before, suffix, slot.after + slot.target[:-1])
                    )
                x.requires_grad_(True)
                body = body_of(model)
                shared = with_cache(body, None if cache is None else _rows(cache, 1))
                out = body(inputs_embeds=torch.cat((before, x, after))[None], **shared)
                nll, _ = self._target_nll(out.last_hidden_state[:, -len(slot.target) :], slot)
                (grad,) = torch.autograd.grad(nll.mean() / active, x)
                total = grad if total is None else total + grad
            assert total is not None
            with torch.no_grad():
                blocks = torch.arange(self.pair.vocab).split(EMBEDDINGS_AT_ONCE)
                parts = [total @ _embed(model, ids.tolist(), self.pair.device).T for ids in blocks]
        return torch.cat(parts, 1).float()

    def _cache(self, n: int) -> Cache | None:
        """Return the keys and values of the tokens before the suffix, None where they cannot be shared."""
        if not self._cached or not self.slots[n].before:
            return None
        if self._caches[n] is None:
            cache = self.pair.new_cache(self.which)
            ids = torch.tensor([self.slots[n].before], device=self.pair.device)
            self.pair.hidden(self.which, ids, cache=cache)
            self._caches[n] = cache
        return self._caches[n]


def _can_share(cache: Cache) -> bool:
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)


def _rows(cache: Cache, rows: int) -> Cache:
    """Return a cache of one row as one of many, without copying it; filling the new one leaves the old unchanged."""
    out = copy.copy(cache)
    out.layers = []
    for layer in cache.layers:
        own = copy.copy(layer)
        own.keys, own.values = (t.expand(rows, -1, -1, -1) for t in (layer.keys, layer.values))
        out.layers.append(own)
    return out


def _check_embeddings(model: PreTrainedModel, device: torch.device) -> None:
    """Raise PairError where a model computes something else from embeddings than from ids (Gemma-3n)."""
    ids = list(range(8))
    want = body_hidden(model, torch.tensor([ids], device=device))
    found = body_of(model)(inputs_embeds=_embed(model, ids, device)[None], use_cache=False).last_hidden_state
    if ((found - want).norm() / want.norm()).item() > (1e-3 if model.dtype == torch.float32 else 0.25):
        raise PairError(
            f"{type(model).__name__} reads more of a token than its embedding, so the gradient of a suffix would be of "
            "another loss: search suffixes of another model"
        )


def _embed(model: PreTrainedModel, ids: Sequence[int], device: torch.device) -> Float[Tensor, "position hidden"]:
    look_up = model.get_input_embeddings()
    if look_up is None:
        raise PairError(f"{type(model).__name__} has no table of token embeddings: search suffixes of another model")
    return look_up(torch.tensor(ids, device=device, dtype=torch.long))
