"""The penalties as pure formulas: two next-token distributions in, the penalised one out.

All are float32 log-probabilities; `base` and `aligned` are the two models' `log_softmax` over the same vocabulary. No
function changes its input. A penalty only amplifies an existing difference: where the two distributions are equal it
does nothing at any strength, which the leverage TV(p_penalised, p_plain) and `leverage_bound` measure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.core.errors import ParameterError
from workbench.decoding.config import PenaltyConfig, RiskSpace, shape_at
from workbench.tracing.metrics import LOGPROB_FLOOR, excess_mass, largest

RISK_TOP_K = 100
"""The number of aligned's most likely tokens in risk_space "aligned_topk"."""

Positions = int | Sequence[int] | Int[Tensor, "*rows"]
"""1-based positions in the response: one for all rows, or one a row."""

COMMON_TOKENS = 5
"""Least size of SafeDecoding's sample space."""


@dataclass(frozen=True, kw_only=True)
class Penalised:
    """Penalised log-probabilities with the strength alpha_t and risk_t of each row."""

    logprobs: Float[Tensor, "*rows vocab"]
    strength: Float[Tensor, "*rows"]
    risk: Float[Tensor, "*rows"]


def penalise(
    base: Float[Tensor, "*rows vocab"],
    aligned: Float[Tensor, "*rows vocab"],
    config: PenaltyConfig,
    *,
    position: Positions = 1,
) -> Float[Tensor, "*rows vocab"]:
    """Return the penalised log-probabilities (normalised) at a 1-based position, or at one position a row.

    Where alpha_t is 0 that is `aligned` itself, bit for bit (`base`, the original, for SafeDecoding). A token that a
    model rules out (-inf) counts as LOGPROB_FLOOR in differences, so that they stay finite. A row that is not a
    distribution (NaN, or -inf throughout) becomes NaN, or stays unchanged where alpha_t is 0. Any finite strength is
    allowed, below -1 too, for inspection. Raises ParameterError for unequal widths.
    """
    return penalise_fully(base, aligned, config, position=position).logprobs


def penalise_fully(
    base: Float[Tensor, "*rows vocab"],
    aligned: Float[Tensor, "*rows vocab"],
    config: PenaltyConfig,
    *,
    position: Positions = 1,
) -> Penalised:
    """Return the result of `penalise` with alpha_t and risk_t. Positions that are no tensor cost no read of the device.

    alpha_t is 0 exactly where strength * g(t) is, since risk and gamma are not negative.
    """
    check_width(base, aligned)
    alpha, found = strengths(base, aligned, config, position=position)
    plain = base if config.method == "safe_decoding" else aligned
    reached = reaches(config, position)
    if not any(reached):
        return Penalised(logprobs=plain, strength=alpha, risk=found)
    wide = alpha.unsqueeze(-1)
    if config.method == "safe_decoding":
        changed = safe_decoding(base, aligned, wide)
    else:
        changed = _contrast(base, aligned, config, wide).log_softmax(-1)
    if not all(reached):
        changed = torch.where(wide == 0.0, plain, changed)
    return Penalised(logprobs=changed, strength=alpha, risk=found)


def check_width(base: Tensor, aligned: Tensor) -> None:
    """Raise ParameterError where the two are not over one vocabulary."""
    if base.shape != aligned.shape:
        raise ParameterError(
            f"base is {tuple(base.shape)} and aligned {tuple(aligned.shape)}, and a penalty compares them token by "
            "token: cut both to the pair's `vocab` before log_softmax"
        )


def _contrast(
    base: Float[Tensor, "*rows vocab"],
    aligned: Float[Tensor, "*rows vocab"],
    config: PenaltyConfig,
    alpha: Float[Tensor, "*rows 1"],
) -> Float[Tensor, "*rows vocab"]:
    low, high = base.clamp(min=LOGPROB_FLOOR), aligned.clamp(min=LOGPROB_FLOOR)
    if config.method == "one_sided":
        changed = low.sub_(high).clamp_(min=0.0).mul_(-alpha).add_(aligned)
    else:
        changed = torch.lerp(low, high, 1.0 + alpha)  # exact at both ends: base at w = 0, aligned at w = 1
    if config.plausibility > 0.0:
        changed = changed.masked_fill(~plausible(aligned, config.plausibility), -math.inf)
    return changed


def plausible(aligned: Float[Tensor, "*rows vocab"], share: float) -> Bool[Tensor, "*rows vocab"]:
    """Mark the tokens with p_a >= share * max p_a; all of them for share 0."""
    if share == 0.0:
        return torch.ones_like(aligned, dtype=torch.bool)
    return aligned >= aligned.amax(-1, keepdim=True) + math.log(share)


def safe_decoding(
    original: Float[Tensor, "*rows vocab"], expert: Float[Tensor, "*rows vocab"], c: Float[Tensor, "*rows 1"]
) -> Float[Tensor, "*rows vocab"]:
    """Return log of p_o + c (p_e - p_o) on the sample space, normalised; -inf outside it.

    The sample space is the intersection of both models' top k, for the smallest k with at least COMMON_TOKENS in it
    (the whole of a smaller vocabulary). Values below 0 count as 0; where none is above 0, the expert's are used.
    """
    worse = torch.maximum(_ranks(original), _ranks(expert))
    least = min(COMMON_TOKENS, original.shape[-1])
    k = worse.topk(least, -1, largest=False).values[..., -1:]
    inside = worse <= k
    p_original, p_expert = original.exp(), expert.exp()
    mixed = torch.where(inside, p_original + c * (p_expert - p_original), 0.0).clamp(min=0.0)
    total = mixed.sum(-1, keepdim=True)
    mixed = torch.where(total > 0.0, mixed, torch.where(inside, p_expert, 0.0))
    return (mixed / mixed.sum(-1, keepdim=True)).log()


def _ranks(logprobs: Float[Tensor, "*rows vocab"]) -> Int[Tensor, "*rows vocab"]:
    """Rank every token, 0 for the most likely; of equal ones the lower id comes first."""
    order = logprobs.argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def strengths(
    base: Float[Tensor, "*rows vocab"],
    aligned: Float[Tensor, "*rows vocab"],
    config: PenaltyConfig,
    *,
    position: Positions = 1,
) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows"]]:
    """Return alpha_t = strength * (1 + gamma * risk_t) * g(t), and risk_t. Method "none" has alpha_t = 0.

    Raises ParameterError for a position below 1.
    """
    found = risk(base, aligned, config.risk_space)
    strength = 0.0 if config.method == "none" else config.strength or 0.0
    shape = shapes(config, position)
    if len(set(shape)) == 1:
        return strength * (1.0 + config.gamma * found) * shape[0], found
    g = torch.tensor(shape, dtype=found.dtype).to(found.device, non_blocking=True)  # waits for no result
    return strength * (1.0 + config.gamma * found) * g.reshape(found.shape), found


def reaches(config: PenaltyConfig, position: Positions) -> list[bool]:
    """Tell for each position whether the penalty changes anything there, that is, whether alpha_t is not 0."""
    strength = 0.0 if config.method == "none" else config.strength or 0.0
    least = torch.finfo(torch.float32).tiny
    return [abs(strength * g) >= least for g in shapes(config, position)]


def shapes(config: PenaltyConfig, position: Positions) -> list[float]:
    """Return g(t) at each position. Raises ParameterError for a position below 1."""
    positions = position.flatten().tolist() if isinstance(position, Tensor) else position
    return [shape_at(config, _at_least_1(t)) for t in ([positions] if isinstance(positions, int) else positions)]


def _at_least_1(position: int) -> int:
    if position < 1:
        raise ParameterError(f"position is {position}: count positions from 1")
    return position


def risk(
    base: Float[Tensor, "*rows vocab"], aligned: Float[Tensor, "*rows vocab"], space: RiskSpace
) -> Float[Tensor, "*rows"]:
    """Return risk_t in [0, 1]: the share of base-favored tokens, |B_t| / size of the space, or the excess mass."""
    if space == "mass":
        return excess_mass(base, aligned)
    if space == "full":
        return torch.gt(base, aligned).sum(-1).float() / aligned.shape[-1]
    k = min(RISK_TOP_K, aligned.shape[-1])
    top = largest(aligned.reshape(-1, aligned.shape[-1]), k).reshape(*aligned.shape[:-1], k)
    return (base.gather(-1, top) > aligned.gather(-1, top)).float().mean(-1)


def leverage_bound(
    base: Float[Tensor, "*rows vocab"], aligned: Float[Tensor, "*rows vocab"], config: PenaltyConfig
) -> Float[Tensor, "*rows"]:
    """Return the leverage as alpha grows without bound, in [0, 1].

    one_sided: all mass moves to the tokens that are not base-favored, so TV = the aligned probability of those that
    are. two_sided: all mass moves to the tokens with the largest l_a - l_b. A plausibility mask limits both to the
    tokens that pass it. 0 where base and aligned are equal without a mask. NaN for the other methods.
    """
    if config.method not in ("one_sided", "two_sided"):
        return aligned.new_full(aligned.shape[:-1], math.nan)
    if config.method == "one_sided" and config.plausibility == 0.0:  # some token is never base-favored
        return (aligned.exp() * (base > aligned)).sum(-1).clamp_(0.0, 1.0)
    pushed = base.clamp(min=LOGPROB_FLOOR).sub_(aligned.clamp(min=LOGPROB_FLOOR))
    if config.method == "one_sided":
        pushed.clamp_(min=0.0)
    if config.plausibility > 0.0:
        pushed.masked_fill_(~plausible(aligned, config.plausibility), math.inf)
    last = pushed == pushed.amin(-1, keepdim=True)
    return (1.0 - (aligned.exp() * last).sum(-1)).clamp(0.0, 1.0)
