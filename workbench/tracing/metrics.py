"""The formulas of the diagnosis, which compare two next-token distributions on log-probabilities.

Every function takes float32 log-probabilities over the same vocabulary (`log_softmax` of the logits, never raw logits,
since each model's logits have their own offset) and is exact over the full vocabulary. `base` and `aligned` are the two
models' log-probabilities; KL(p || q) is written `kl_nats(p, q)`. `compare` computes all of them in one pass over a
block of rows inside a fixed number of buffers; the single formulas are its specification.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

CountSpace = Literal["aligned_topk", "base_topk", "union", "full"]
Ranking = Literal["mass", "log_ratio"]

LOGPROB_FLOOR = -1e4
"""The log-probability of a token that a model rules out (logit -inf), so that KL stays finite, and huge."""

BUFFERS = 5
"""Float32 buffers of (row, vocab) that `compare` has alive at once, its two arguments included."""


def kl_nats(p: Float[Tensor, "*rows vocab"], q: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """Return KL(p || q) = sum_v p(v) (log p(v) - log q(v)), nats; never below 0."""
    return (p.exp() * (p - q)).sum(-1).clamp_min(0.0)


def js_nats(p: Float[Tensor, "*rows vocab"], q: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """Return the Jensen-Shannon divergence (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2, nats; in [0, ln 2].

    Computed as sum_v p (ln 2 - softplus(-d)) / 2 + q (ln 2 - softplus(d)) / 2 with d = log p - log q, which is exactly
    0 where the two are equal.
    """
    d = p - q
    s = torch.nn.functional.softplus(d)
    return ((p.exp() * (math.log(2) - s + d) + q.exp() * (math.log(2) - s)).sum(-1) / 2).clamp(0.0, math.log(2))


def excess_mass(base: Float[Tensor, "*rows vocab"], aligned: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """Return sum_v max(p_b(v) - p_a(v), 0) = total variation TV(p_b, p_a), in [0, 1]; retention is 1 minus it."""
    return (base.exp() - aligned.exp()).relu().sum(-1).clamp(0.0, 1.0)


def entropy_nats(p: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """Return the entropy -sum_v p(v) log p(v), nats."""
    return -(p.exp() * p).sum(-1)


def rank(p: Float[Tensor, "*rows vocab"], observed: Int[Tensor, "*rows"]) -> Int[Tensor, "*rows"]:
    """Return the observed token's rank: 1 + the number of tokens that are strictly more likely."""
    return 1 + (p > p.gather(-1, observed.unsqueeze(-1))).sum(-1)


def base_favored(
    base: Float[Tensor, "*rows vocab"], aligned: Float[Tensor, "*rows vocab"]
) -> Bool[Tensor, "*rows vocab"]:
    """Mark B_t = {v : p_b(v) > p_a(v)} (arXiv 2511.12155), on log-probabilities, with no threshold."""
    return base > aligned


def base_favored_count(
    base: Float[Tensor, "*rows vocab"],
    aligned: Float[Tensor, "*rows vocab"],
    *,
    space: CountSpace = "aligned_topk",
    top_k: int = 100,
) -> Int[Tensor, "*rows"]:
    """Count base-favored tokens among the aligned model's top k, the base's, their union, or the full vocabulary."""
    favored = base_favored(base, aligned)
    if space == "full":
        return favored.sum(-1)
    k = min(top_k, base.shape[-1])
    inside = torch.zeros_like(favored)
    if space in ("aligned_topk", "union"):
        inside.scatter_(-1, aligned.topk(k, -1).indices, True)
    if space in ("base_topk", "union"):
        inside.scatter_(-1, base.topk(k, -1).indices, True)
    return (favored & inside).sum(-1)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every quantity of a block of rows; detected ids are -1, with mass 0, where fewer than k are detected."""

    scalars: dict[str, Tensor]
    topk_base: Int[Tensor, "row k"]
    topk_aligned: Int[Tensor, "row k"]
    topk_base_logprobs: Float[Tensor, "row k 2"]
    topk_aligned_logprobs: Float[Tensor, "row k 2"]
    detected: Int[Tensor, "row d"]
    detected_mass: Float[Tensor, "row d"]


def log_probabilities(
    logits: Float[Tensor, "row vocab"],
) -> tuple[Float[Tensor, "row vocab"], Float[Tensor, "row vocab"]]:
    """Turn float32 logits into log-probabilities *in place*, and return them with their probabilities.

    A row with NaN or +inf becomes NaN throughout; -inf becomes LOGPROB_FLOOR.
    """
    torch.log_softmax(logits, -1, out=logits)
    logits.clamp_(min=LOGPROB_FLOOR)
    return logits, logits.exp()


BLOCK = 64
"""Width of the blocks whose maxima bound the places of a row's largest entries."""


def largest(scores: Real[Tensor, "row vocab"], k: int) -> Int[Tensor, "row k"]:
    """Return the ids of the k largest scores of each row, best first, faster than `topk` on a wide vocabulary.

    The k largest entries are in the k blocks with the largest maxima.
    """
    rows, vocab = scores.shape
    blocks = vocab // BLOCK
    if blocks < 2 * k:
        return scores.topk(k, -1).indices
    whole = blocks * BLOCK
    blocked = scores[:, :whole].unflatten(-1, (blocks, BLOCK))
    where = blocked.amax(-1).topk(k, -1, sorted=False).indices
    at = (where.unsqueeze(-1) * BLOCK + torch.arange(BLOCK, device=scores.device)).flatten(1)
    if whole < vocab:
        rest = torch.arange(whole, vocab, device=scores.device)
        at = torch.cat((at, rest.expand(rows, -1)), -1)
    return at.gather(-1, scores.gather(-1, at).topk(k, -1).indices)


def compare(
    base: Float[Tensor, "row vocab"],
    aligned: Float[Tensor, "row vocab"],
    observed: Int[Tensor, "row"],
    *,
    count_space: CountSpace = "aligned_topk",
    ranking: Ranking = "mass",
    top_k: int = 100,
    shown_k: int = 10,
    base_floor: float = 0.0,
) -> Comparison:
    """Compute every quantity from two blocks of *logits*, which are consumed (overwritten).

    Detected are TopK(score, top_k) where l_b > l_a and p_b >= base_floor; the score is p_b - p_a (`mass`) or l_b - l_a
    (`log_ratio`, the paper's detection on log-probabilities instead of raw logits).

    The results equal the single formulas to float32 rounding, in BUFFERS buffers of (row, vocab). Rows whose logits
    hold NaN or +inf have NaN scalars; the caller names them.
    """
    vocab = base.shape[-1]
    k, shown = min(top_k, vocab), min(shown_k, vocab)
    base, aligned, at = base.float(), aligned.float(), observed.unsqueeze(-1)
    work = torch.empty_like(base)
    # Ranks come from the logits, before rounding makes neighbours equal. A sum of comparisons is exact in float32 up to
    # 2**24 tokens, and several times faster than a sum of booleans.
    rank_base = torch.gt(base, base.gather(-1, at), out=work).sum(-1).to(torch.int32) + 1
    rank_aligned = torch.gt(aligned, aligned.gather(-1, at), out=work).sum(-1).to(torch.int32) + 1
    lb, pb = log_probabilities(base)
    la, pa = log_probabilities(aligned)
    lb_at, la_at = lb.gather(-1, at), la.gather(-1, at)
    out: dict[str, Tensor] = {
        "logprob_base_nats": lb_at.squeeze(-1),
        "logprob_aligned_nats": la_at.squeeze(-1),
        "logprob_shift_nats": (la_at - lb_at).squeeze(-1),
        "rank_base": rank_base,
        "rank_aligned": rank_aligned,
    }
    out["entropy_base_nats"] = torch.mul(pb, lb, out=work).sum(-1).neg_()
    out["entropy_aligned_nats"] = torch.mul(pa, la, out=work).sum(-1).neg_()

    wide_b = k if count_space in ("base_topk", "union") else shown
    wide_a = k if count_space in ("aligned_topk", "union") else shown
    top_b, top_a = largest(lb, max(wide_b, shown)), largest(la, max(wide_a, shown))
    out["base_favored_count"] = _count(lb, la, top_b[:, :k], top_a[:, :k], count_space, work)
    shown_b, shown_a = top_b[:, :shown], top_a[:, :shown]
    at_b = torch.stack((lb.gather(-1, shown_b), la.gather(-1, shown_b)), -1)
    at_a = torch.stack((lb.gather(-1, shown_a), la.gather(-1, shown_a)), -1)

    excess = torch.sub(pb, pa, out=work).relu_()
    out["excess_mass"] = excess.sum(-1).clamp_(0.0, 1.0)
    out["retention"] = 1.0 - out["excess_mass"]
    score = excess if ranking == "mass" else lb - la
    detected, mass = _detect_in(score, excess, pb, k, base_floor)

    d = lb.sub_(la)  # from here on `lb` is log p_b - log p_a, and `la` is free
    out["kl_base_aligned_nats"] = torch.mul(pb, d, out=work).sum(-1).clamp_(min=0.0)
    out["kl_aligned_base_nats"] = torch.mul(pa, d, out=work).sum(-1).neg_().clamp_(min=0.0)
    # log2(p_b / m) = 1 - log2(1 + p_a / p_b) is exactly 0 where the two are equal. Where p_b underflows it only has to
    # stay finite: there p_b has no weight, and log2(p_a / m) is at its maximum of 1.
    tiny = torch.finfo(torch.float32).tiny
    share_b = torch.div(pa, la.copy_(pb).clamp_(min=tiny), out=work).clamp_(max=1e30).add_(1.0).log2_().neg_().add_(1.0)
    half_b = torch.mul(pb, share_b, out=la).sum(-1)
    share_a = d.div_(-math.log(2)).add_(share_b).clamp_(max=1.0)
    half_a = share_a.mul_(pa).sum(-1)
    out["js_nats"] = ((half_a + half_b) * (math.log(2) / 2)).clamp_(0.0, math.log(2))
    return Comparison(
        scalars=out,
        topk_base=shown_b,
        topk_aligned=shown_a,
        topk_base_logprobs=at_b,
        topk_aligned_logprobs=at_a,
        detected=detected,
        detected_mass=mass,
    )


def _count(
    base: Float[Tensor, "row vocab"],
    aligned: Float[Tensor, "row vocab"],
    top_base: Int[Tensor, "row kb"],
    top_aligned: Int[Tensor, "row ka"],
    space: CountSpace,
    work: Float[Tensor, "row vocab"],
) -> Int[Tensor, "row"]:
    if space == "full":
        return torch.gt(base, aligned, out=work).sum(-1).to(torch.int32)
    inside = {"base_topk": top_base, "aligned_topk": top_aligned}.get(space)
    if inside is None:
        inside = torch.cat((top_base, top_aligned), -1).sort(-1).values
    favored = base.gather(-1, inside) > aligned.gather(-1, inside)
    if space == "union":
        favored[:, 1:] &= inside[:, 1:] != inside[:, :-1]
    return favored.sum(-1).to(torch.int32)


def _detect_in(
    score: Float[Tensor, "row vocab"],
    excess: Float[Tensor, "row vocab"],
    p_base: Float[Tensor, "row vocab"],
    top_k: int,
    base_floor: float,
) -> tuple[Int[Tensor, "row d"], Float[Tensor, "row d"]]:
    """Return detected ids and their mass from a score above 0 for base-favored tokens, and excess = max(p_b - p_a, 0).

    Tokens under the floor leave the score *before* the top k. Missing ids are -1, their mass 0.
    """
    if base_floor > 0.0:
        score.masked_fill_(p_base < base_floor, 0.0)
    ids = largest(score, top_k)
    absent = ~(score.gather(-1, ids) > 0.0)  # NaN is absent too
    return ids.masked_fill(absent, -1), excess.gather(-1, ids).masked_fill(absent, 0.0)
