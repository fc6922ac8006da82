"""What penalised generation makes: continuations, and for every token of them what the penalty did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int32

from workbench.records.core import Label, Record, RunRecord
from workbench.shapes import Counts, Mask, Scores, Tokens, TopIds, TopScores

LEDGER: dict[str, str] = {
    "strength": "alpha_t that was used, the config's strength with its risk and position",
    "risk": "risk_t, 0 to 1, in the config's risk space",
    "logprob_base_nats": "log-probability of the chosen token under base, nats",
    "logprob_aligned_nats": "log-probability of the chosen token under aligned, nats",
    "logprob_penalised_nats": "log-probability of the chosen token under the penalty, nats",
    "rank_base": "rank of the chosen token under base, 1 = most likely",
    "rank_aligned": "rank of the chosen token under aligned, 1 = most likely",
    "excess_mass": "probability that base puts above aligned = TV(base, aligned), 0 to 1",
    "leverage": "probability that the penalty moved = TV(penalised, without penalty), 0 to 1",
    "leverage_bound": "what the leverage would be as the strength grows without bound, 0 to 1",
}
"""Name of each number of the ledger -> what it is, with unit. All are over the full vocabulary, before temperature."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Continuation(Record):
    """Describe one continuation (one row of Continuations): what was asked, what was given, and how it ended.

    `prompt` is what was asked; the decoded context where bare token ids were continued. `prefix` is the text of the
    `prefix_tokens` response tokens that were given; `text` is what follows them, without the end-of-turn token.
    `context_tokens` counts aligned's context before the prefix. `stop` is "end" (end of turn), "length" (max_tokens),
    "stop" (a stop string or stop id), "context" (the model's context was full before max_tokens) or "stopped" (by a
    person, or still being written).
    """

    name: str
    prompt: str
    label: Label
    category: str | None
    pair_id: str | None
    system_prompt: str | None
    context_tokens: int
    prefix_tokens: int
    prefix: str
    text: str
    stop: Literal["end", "length", "stop", "context", "stopped"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Continuations(Record):
    """Hold penalised continuations with their ledger: one entry a generated token. Reloads with no model.

    Arrays are (response, token) over generated tokens, padded on the right; where `mask` is False a float is NaN, an
    id is -1, a count, rank or position is 0. `position` is 1-based in the response, given tokens included.
    `plain_ids` is the token that would have been chosen there without the penalty, after the same tokens and with the
    same random numbers. "Without the penalty" is aligned alone; for SafeDecoding it is the original. `topk_ids` is the
    union of the most likely tokens with and without the penalty (those without it first, -1 where the union is
    shorter); a penalised log-probability is -inf where the penalty rules a token out.

    `penalty` and `generation` are the settings, None resolved. `original` and `expert` name the models of
    SafeDecoding, None for other methods. `labels[i]` is the printable form of element `label_ids[i]`, for every id in
    the record.
    """

    run: RunRecord
    prompt_set: str
    classroom_safe: bool
    template_mode: str
    penalty: Mapping[str, Any]
    generation: Mapping[str, Any]
    original: str | None
    expert: str | None
    notes: tuple[str, ...]
    continuations: tuple[Continuation, ...]
    pieces: tuple[tuple[str, ...], ...]
    token_ids: Tokens
    mask: Mask
    partial: Mask
    special: Mask
    position: Counts
    plain_ids: Tokens
    strength: Scores
    risk: Scores
    logprob_base_nats: Scores
    logprob_aligned_nats: Scores
    logprob_penalised_nats: Scores
    rank_base: Counts
    rank_aligned: Counts
    excess_mass: Scores
    leverage: Scores
    leverage_bound: Scores
    topk_ids: TopIds
    topk_logprob_base_nats: TopScores
    topk_logprob_aligned_nats: TopScores
    topk_logprob_penalised_nats: TopScores
    label_ids: Int32[np.ndarray, "label"]
    labels: tuple[str, ...]

    def lengths(self) -> Int32[np.ndarray, "response"]:
        """Count each continuation's generated tokens."""
        return self.mask.sum(axis=1).astype(np.int32)

    def changed(self) -> Mask:
        """Mark the tokens that would not have been chosen without the penalty."""
        return self.mask & (self.token_ids != self.plain_ids)

    def label_of(self) -> dict[int, str]:
        """Map every id that occurs in the record to its printable form."""
        return dict(zip(self.label_ids.tolist(), self.labels, strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplingSurface(Record):
    """Hold the base-favored mass that survives each way of truncating the distribution that is sampled from.

    `surviving_excess_mass` is (arm, temperature, top-p, top-k): how much of the probability that base puts above
    aligned stands on tokens that can still be drawn, 0 to 1, mean over `positions` positions of one response. It is
    exact for that text, no estimate.
    Temperature 0 is greedy, top-k 0 and top-p 1 are off. `arms` names what is truncated ("aligned", a penalty).
    `along` names
    the arm whose continuation of prompt `name` is read. `excess_mass` is the mean TV(base, aligned) along the same
    positions.
    """

    name: str
    along: str
    positions: int
    arms: tuple[str, ...]
    temperatures: tuple[float, ...]
    top_ps: tuple[float, ...]
    top_ks: tuple[int, ...]
    surviving_excess_mass: Float32[np.ndarray, "arm temperature top_p top_k"]
    excess_mass: float
