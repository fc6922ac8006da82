"""The lens's controls as one value, and which of the stored alternatives count as base-favored under them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64

from widgets.lens_search import Search
from workbench.core.configs import above, at_least, check_fields, from_to
from workbench.core.errors import ParameterError
from workbench.tracing.records import TraceSet

Granularity = Literal["token", "word", "sentence"]
LONGEST_SEARCH = 500


@dataclass(frozen=True, kw_only=True)
class LensSettings:
    """Say which alternatives count as base-favored, what the fill is a mean over, and what is searched for.

    An alternative v counts where p_base(v) > `ratio` * p_aligned(v) and p_base(v) >= `minimum_base`, and v is among the
    `top_k` likeliest tokens of either model (None: all that are stored). `only_sampled` further asks that aligned's
    sampler could pick v: v is in the smallest set of aligned's likeliest tokens that holds `top_p` at `temperature`
    (0: only its likeliest). At temperatures other than 1 what is not stored counts as if it were tokens as likely as
    the least of aligned's stored top k.

    `granularity`: the fill is the mean over a token, a word (up to the next space or line break) or a sentence.
    `search` marks tokens; see widgets.lens_search. Raises ParameterError for an impossible value.
    """

    minimum_base: float = 0.0
    ratio: float = 1.0
    top_k: int | None = None
    only_sampled: bool = False
    temperature: float = 1.0
    top_p: float = 0.9
    granularity: Granularity = "token"
    search: str = ""

    def __post_init__(self) -> None:
        check_fields(
            self,
            minimum_base=from_to(0, 1),
            ratio=at_least(1, finite=True),
            temperature=from_to(0, 100),
            top_p=above(0, 1),
            top_k=at_least(1),
            granularity=get_args(Granularity),
        )
        if len(self.search) > LONGEST_SEARCH:
            raise ParameterError(f"the search has {len(self.search)} characters; it may have {LONGEST_SEARCH}")
        if self.search.strip():
            Search(self.search)


def stored_k(traces: TraceSet) -> int:
    """Return how many of each model's likeliest tokens a record stores at a position."""
    return int(traces.topk_ids.shape[-1]) // 2


def counting(traces: TraceSet, response: int, settings: LensSettings) -> Bool[np.ndarray, "token k"]:
    """Tell which stored alternatives of a response count as base-favored under the settings."""
    length = int(traces.lengths()[response])
    base, aligned = (
        np.exp(scores[response, :length].astype(np.float64))
        for scores in (traces.topk_logprob_base_nats, traces.topk_logprob_aligned_nats)
    )
    there = (traces.topk_ids[response, :length] >= 0) & np.isfinite(base) & np.isfinite(aligned)
    base, aligned = np.where(there, base, -1.0), np.where(there, aligned, -1.0)
    counts = there & (base > settings.ratio * aligned) & (base >= settings.minimum_base)
    if settings.top_k is not None and settings.top_k < stored_k(traces):
        counts &= (_before(base) < settings.top_k) | (_before(aligned) < settings.top_k)
    if settings.only_sampled:
        counts &= _sampled(aligned, there, stored_k(traces), settings)
    return counts


def _before(p: Float64[np.ndarray, "token k"]) -> Float64[np.ndarray, "token k"]:
    """Count the likelier ones of each entry."""
    return _likelier(p, np.ones_like(p))


def _likelier(
    p: Float64[np.ndarray, "token k"], weight: Float64[np.ndarray, "token k"]
) -> Float64[np.ndarray, "token k"]:
    """Sum the weights of the likelier ones of each entry."""
    return sum(((p[:, j, None] > p) * weight[:, j, None] for j in range(p.shape[-1])), np.zeros_like(p))


def _sampled(
    p: Float64[np.ndarray, "token k"], there: Bool[np.ndarray, "token k"], k: int, settings: LensSettings
) -> Bool[np.ndarray, "token k"]:
    """Tell which entries a sampler of these probabilities could pick."""
    if p.size == 0:
        return there
    if settings.temperature == 0:
        return there & (p == p.max(-1, keepdims=True))
    power = 1 / settings.temperature
    weight = np.where(there, np.maximum(p, 0.0) ** power, 0.0)
    least = np.maximum(-np.sort(-p, axis=-1)[:, min(k, p.shape[-1]) - 1], 0.0)
    rest = np.maximum(0.0, 1 - np.where(there, p, 0.0).sum(-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        unstored = np.where((rest > 0) & (least > 0), rest * least ** (power - 1), 0.0)
    return there & (_likelier(p, weight) < settings.top_p * (weight.sum(-1) + unstored)[:, None])
