"""The base-favored mass that temperature, top-k and top-p leave: formulas on log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.configs import above, at_least, check_fields
from workbench.decoding.penalty import check_width


def surviving_excess_mass(
    base: Float[Tensor, "row vocab"],
    aligned: Float[Tensor, "row vocab"],
    sampled: Float[Tensor, "row vocab"],
    *,
    temperatures: Sequence[float],
    top_ps: Sequence[float],
    top_ks: Sequence[int],
) -> Float[Tensor, "temperature top_p top_k row"]:
    """Return the base-favored mass that a sampler of `sampled` leaves, for every temperature, top-p and top-k.

    This is the sum of max(p_b(v) - p_a(v), 0) over the tokens that can still be drawn after temperature, top-k and
    top-p (in this order, as in `generate`), 0 to 1. `sampled` are log-probabilities of aligned or of a penalty.
    Temperature 0 leaves only the most likely token; top-k 0 and top-p 1 are off; tokens as likely as the k-th stay.
    With both off and a temperature above 0 it is the excess mass, TV(base, aligned), without the tokens that `sampled`
    rules out (-inf). One sort serves the whole grid, because no setting changes the order.

    Raises ParameterError for unequal widths and for settings that `GenerateConfig` refuses.
    """
    check_width(base, aligned)
    check_width(aligned, sampled)
    asked = SimpleNamespace(temperature=tuple(temperatures), top_p=tuple(top_ps), top_k=tuple(top_ks))
    empty = [(not values, name, "at least one setting") for name, values in vars(asked).items()]
    check_fields(asked, *empty, temperature=at_least(0, finite=True), top_p=above(0, 1), top_k=at_least(0))
    ranked, order = torch.sort(sampled, dim=-1, descending=True, stable=True)
    excess = (base.exp() - aligned.exp()).clamp_(min=0.0).double()
    held = excess.gather(-1, order).masked_fill_(ranked == -torch.inf, 0.0).cumsum(-1)
    sizes = [_kept(ranked, k) for k in top_ks]
    out = ranked.new_empty(len(temperatures), len(top_ps), len(top_ks), ranked.shape[0])
    for i, temperature in enumerate(temperatures):
        if temperature == 0.0:
            out[i] = held[:, 0].to(out.dtype)
            continue
        weight = (ranked.double() / temperature).softmax(-1)
        mass = weight.cumsum(-1)
        for k, size in enumerate(sizes):
            left = mass.gather(-1, size - 1)
            for p, top_p in enumerate(top_ps):
                last = size - 1
                if top_p < 1.0:  # a token is cut off where those before it hold top_p of the rest of top-k
                    before = mass - weight < top_p * left
                    last = torch.minimum(last, before.sum(-1, keepdim=True) - 1)
                out[i, p, k] = held.gather(-1, last).squeeze(-1).to(out.dtype)
    return out.clamp_(0.0, 1.0)


def _kept(ranked: Float[Tensor, "row vocab"], k: int) -> Int[Tensor, "row 1"]:
    """Count the entries that top-k leaves in each row: k and those equal to the k-th, or all where it is off."""
    if not 0 < k < ranked.shape[-1]:
        return torch.full_like(ranked[:, :1], ranked.shape[-1], dtype=torch.long)
    return (ranked >= ranked[:, k - 1 : k]).sum(-1, keepdim=True)
