"""Which tokens the completion loss pushes down at a position: the set M, from the logits of the frozen pair."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.errors import ParameterError
from workbench.tracing.metrics import largest
from workbench.training.config import LossConfig, SetRanking
from workbench.training.losses import base_favored_share

NO_TOKEN = -1
"""Id that fills a set where fewer than k tokens qualify."""


def completion_set(
    base: Float[Tensor, "row vocab"],
    aligned: Float[Tensor, "row vocab"],
    *,
    ranking: SetRanking = "mass",
    size: int = 100,
    key: Int[Tensor, "row"] | None = None,
) -> Int[Tensor, "row k"]:
    """Return M of each row, best first, of `size` tokens (of the whole vocabulary where that is smaller).

    logit            TopK(z_b - z_a), on logits as arXiv 2511.12155 prints it; always k tokens, base-favored or not
    mass             TopK(p_b - p_a) among the tokens with p_b > p_a; NO_TOKEN beyond them, so equal models have none
    random           k different tokens drawn from all: the control of equal size
    aligned_favored  TopK(z_a - z_b): the control that pushes the wrong way

    Of equal scores the lower id comes first. A token that both models rule out comes last. `random` is a function of
    `key` alone, whatever the batch: a number that stands for seed, text and position.
    Raises ParameterError for `random` without `key`.
    """
    if ranking == "random":
        if key is None:
            raise ParameterError(
                "random sets are drawn by a key, so that every run draws the same, and none was given: give a number "
                "for each row"
            )
        return _random(key, base.shape[-1], size)
    if ranking == "mass":
        score = base.softmax(-1) - aligned.softmax(-1)
        ids = top_ids(score, size)
        return ids.masked_fill(score.gather(-1, ids) <= 0.0, NO_TOKEN)
    score = base - aligned if ranking == "logit" else aligned - base
    return top_ids(score.masked_fill(score.isnan(), -math.inf), size)


def completion_target(
    base: Float[Tensor, "row vocab"],
    aligned: Float[Tensor, "row vocab"],
    config: LossConfig,
    key: Int[Tensor, "row"] | None = None,
) -> tuple[Int[Tensor, "row k"], Float[Tensor, "row"]]:
    """Return what the completion loss needs to know of the frozen pair: M as the config has it, and |B_t| / |V|."""
    ids = completion_set(base, aligned, ranking=config.ranking, size=config.set_size, key=key)
    return ids, base_favored_share(base, aligned)


def top_ids(scores: Float[Tensor, "row vocab"], k: int) -> Int[Tensor, "row k"]:
    """Return the ids of the k largest scores of each row, best first; of equal ones the lower id comes first."""
    ids = largest(scores, min(k, scores.shape[-1])).sort(-1).values
    ids = ids.gather(-1, scores.gather(-1, ids).sort(dim=-1, descending=True, stable=True).indices)
    last = scores.gather(-1, ids[:, -1:])
    crowded = (scores >= last).sum(-1) > ids.shape[-1]  # equals of the last one were left out: which, is not defined
    if bool(crowded.any()):
        ids[crowded] = scores[crowded].sort(dim=-1, descending=True, stable=True).indices[:, : ids.shape[-1]]
    return ids


def _random(key: Int[Tensor, "row"], vocab: int, size: int) -> Int[Tensor, "row k"]:
    draws = [torch.randperm(vocab, generator=torch.Generator().manual_seed(k))[:size] for k in key.tolist()]
    return torch.stack(draws).to(key.device)
