"""What tracing makes: two models' token-level comparison along responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int32

from workbench.records.core import Label, Record, RunRecord
from workbench.shapes import Counts, Mask, Scores, Tokens, TopIds, TopScores

Trajectory = Literal["teacher_forced", "free_running"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Response(Record):
    """Describe one response (one row of a TraceSet): what was asked and how the response came about.

    `prefix_tokens` is the number of leading tokens that were given, not generated: k for a free-running response, the
    whole length for a teacher-forced one. `stop` is "end" (end of turn), "length", "stopped" (by a person) or "given".
    `continued_by` and `temperature` (0 is greedy) say how the tokens after the prefix were chosen.
    """

    prompt_id: str
    prompt: str
    label: Label
    category: str | None
    pair_id: str | None
    trajectory: Trajectory
    prefix_tokens: int
    segment: Literal["answer", "thinking"]
    stop: Literal["end", "length", "stopped", "given"]
    context_tokens: int
    system_prompt: str | None
    continued_by: Literal["base", "aligned"] = "aligned"
    temperature: float = 0.0


SCALARS: dict[str, str] = {
    "kl_aligned_base_nats": "KL(aligned || base), nats",
    "kl_base_aligned_nats": "KL(base || aligned), nats",
    "js_nats": "Jensen-Shannon divergence, nats (at most ln 2)",
    "excess_mass": "probability that base puts above aligned = total variation, 0 to 1",
    "retention": "1 - total variation, 0 to 1: 1 means that aligned still is the base model",
    "base_favored_count": "base-favored tokens in the count space, tokens",
    "entropy_base_nats": "entropy of base, nats",
    "entropy_aligned_nats": "entropy of aligned, nats",
    "logprob_base_nats": "log-probability of the observed token under base, nats",
    "logprob_aligned_nats": "log-probability of the observed token under aligned, nats",
    "logprob_shift_nats": "aligned minus base log-probability of the observed token, nats",
    "rank_base": "rank of the observed token under base, 1 = most likely",
    "rank_aligned": "rank of the observed token under aligned, 1 = most likely",
}
"""Name of each exact full-vocabulary scalar of a TraceSet -> what it is, with unit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TraceSet(Record):
    """Hold two models' token-level comparison along responses. Reloads with no model.

    Arrays are (response, token), padded on the right; where `mask` is False a float is NaN, an id is -1, a count or
    rank is 0. Row t is the distribution that *predicted* token t. `topk_ids` is the union of both models' top k
    (base's first, -1 where the union is shorter). `detected_*` is a sparse table, one line a response and vocabulary
    element: at how many positions of that response the element was detected as base-favored, and its summed p_b - p_a.
    `noise_kl_nats` is KL between the same model scored in two batch layouts (NaN where not measured).
    `labels[i]` is the printable form of vocabulary element `label_ids[i]`, for every id that occurs in the record.
    """

    run: RunRecord
    prompt_set: str
    classroom_safe: bool
    template_mode: str
    count_space: str
    ranking: str
    warnings: tuple[str, ...]
    responses: tuple[Response, ...]
    pieces: tuple[tuple[str, ...], ...]
    token_ids: Tokens
    mask: Mask
    partial: Mask
    special: Mask
    topk_ids: TopIds
    topk_logprob_base_nats: TopScores
    topk_logprob_aligned_nats: TopScores
    kl_aligned_base_nats: Scores
    kl_base_aligned_nats: Scores
    js_nats: Scores
    excess_mass: Scores
    retention: Scores
    base_favored_count: Counts
    entropy_base_nats: Scores
    entropy_aligned_nats: Scores
    logprob_base_nats: Scores
    logprob_aligned_nats: Scores
    logprob_shift_nats: Scores
    rank_base: Counts
    rank_aligned: Counts
    detected_response: Int32[np.ndarray, "entry"]
    detected_token: Int32[np.ndarray, "entry"]
    detected_count: Int32[np.ndarray, "entry"]
    detected_mass: Float32[np.ndarray, "entry"]
    noise_kl_nats: Float32[np.ndarray, "sample token"]
    label_ids: Int32[np.ndarray, "label"]
    labels: tuple[str, ...]

    def lengths(self) -> Int32[np.ndarray, "response"]:
        """Count each response's tokens."""
        return self.mask.sum(axis=1).astype(np.int32)

    def label_of(self) -> dict[int, str]:
        """Map every id that occurs in the record to its printable form."""
        return dict(zip(self.label_ids.tolist(), self.labels, strict=True))
