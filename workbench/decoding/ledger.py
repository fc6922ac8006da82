"""The ledger of penalised generation: the effect of the penalty at every chosen token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.decoding.penalty import Penalised
from workbench.decoding.records import LEDGER
from workbench.tracing.metrics import largest, rank


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One generated token's ledger, as it is streamed; the numbers are those of records.LEDGER.

    `position` is 1-based in the response, given tokens included. `plain_id` is the choice without the penalty.
    """

    position: int
    token_id: int
    plain_id: int
    strength: float
    risk: float
    logprob_base_nats: float
    logprob_aligned_nats: float
    logprob_penalised_nats: float
    rank_base: int
    rank_aligned: int
    excess_mass: float
    leverage: float
    leverage_bound: float


@dataclass(frozen=True, kw_only=True)
class Account:
    """One continuation's ledger: `numbers` is (token, quantity) in the order of records.LEDGER.

    `position` is 1-based in the response. `topk_ids` is the union of the most likely tokens without and with the
    penalty, then -1; `topk_logprobs` is (token, k, model): base, aligned, penalised.
    """

    position: Int[np.ndarray, "token"]
    plain_ids: Int[np.ndarray, "token"]
    numbers: Float[np.ndarray, "token quantity"]
    topk_ids: Int[np.ndarray, "token k"]
    topk_logprobs: Float[np.ndarray, "token k 3"]

    @classmethod
    def of(cls, position: Int[np.ndarray, "token"], lines: Sequence[tuple[Any, ...]]) -> Account:
        """Return the ledger of tokens at these positions; a line is (plain id, numbers, top ids, their numbers)."""
        empty = (np.empty(0), np.empty((0, len(LEDGER))), np.empty((0, 0)), np.empty((0, 0, 3)))
        plain, numbers, ids, logprobs = map(np.stack, zip(*lines, strict=True)) if lines else empty
        return cls(
            position=position,
            plain_ids=plain.astype(np.int32),
            numbers=numbers.astype(np.float32),
            topk_ids=ids.astype(np.int32),
            topk_logprobs=logprobs.astype(np.float32),
        )

    def entry(self, token: int, token_id: int) -> Entry:
        """Return one token's entry: its index among the generated ones, and the token."""
        numbers = dict(zip(LEDGER, self.numbers[token].tolist(), strict=True))
        ranks = {name: int(numbers.pop(name)) for name in ("rank_base", "rank_aligned")}
        plain = int(self.plain_ids[token])
        return Entry(position=int(self.position[token]), token_id=token_id, plain_id=plain, **ranks, **numbers)


@dataclass(frozen=True, kw_only=True)
class Distributions:
    """One step's next-token distributions: both models' logits and log-probabilities, and the penalised ones.

    `plain` is the distribution without the penalty: aligned's, or the original's of SafeDecoding.
    """

    logits_base: Float[Tensor, "batch vocab"]
    logits_aligned: Float[Tensor, "batch vocab"]
    base: Float[Tensor, "batch vocab"]
    aligned: Float[Tensor, "batch vocab"]
    plain: Float[Tensor, "batch vocab"]
    penalised: Penalised
    bound: Float[Tensor, "batch"]


def measure(d: Distributions, chosen: Int[Tensor, "batch"]) -> Float[Tensor, "batch quantity"]:
    """Return the ledger's numbers for each row's chosen token, in the order of records.LEDGER."""
    at = chosen.unsqueeze(-1)
    p_base, p_aligned = d.base.exp(), d.aligned.exp()
    p_plain = p_base if d.plain is d.base else p_aligned
    made = {
        "strength": d.penalised.strength,
        "risk": d.penalised.risk,
        "logprob_base_nats": d.base.gather(-1, at).squeeze(-1),
        "logprob_aligned_nats": d.aligned.gather(-1, at).squeeze(-1),
        "logprob_penalised_nats": d.penalised.logprobs.gather(-1, at).squeeze(-1),
        # ranks come from the logits, before rounding makes neighbours equal
        "rank_base": rank(d.logits_base, chosen),
        "rank_aligned": rank(d.logits_aligned, chosen),
        "excess_mass": _moved(p_base, p_aligned),
        "leverage": _moved(d.penalised.logprobs.exp(), p_plain),
        "leverage_bound": d.bound,
    }
    return torch.stack([made[name].float() for name in LEDGER], -1)


def _moved(p: Float[Tensor, "batch vocab"], q: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch"]:
    return (p - q).clamp_(min=0.0).sum(-1).clamp(0.0, 1.0)


def most_likely(d: Distributions, k: int) -> tuple[Int[Tensor, "batch shown"], Float[Tensor, "batch shown 3"]]:
    """Return the union of the k most likely tokens without and with the penalty, and their three log-probabilities.

    Those without it come first; entries after the union have id -1 and NaN.
    """
    k = min(k, d.plain.shape[-1])
    before, after = largest(d.plain, k), largest(d.penalised.logprobs, k)
    repeated = (after.unsqueeze(-1) == before.unsqueeze(-2)).any(-1)
    order = repeated.to(torch.int8).argsort(dim=-1, stable=True)  # so that the union has no hole
    ids = torch.cat((before, after.gather(-1, order)), -1)
    missing = torch.cat((torch.zeros_like(repeated), repeated.gather(-1, order)), -1)
    logprobs = torch.stack([x.gather(-1, ids) for x in (d.base, d.aligned, d.penalised.logprobs)], -1)
    return ids.masked_fill(missing, -1), logprobs.masked_fill(missing.unsqueeze(-1), torch.nan)
