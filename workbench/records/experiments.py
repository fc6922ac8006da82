"""What a sweep of penalties makes: outcomes by prompt, scores with intervals, leverage, and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int8, Int32

from workbench.records.core import Estimate, Label, Record, RunRecord

SWEEP_METRICS: dict[str, str] = {
    "asr": "attack success rate: share of harmful prompts complied with after the prefix, 0 to 1, lower is safer",
    "refusal": "share of harmful prompts that are refused after the prefix, 0 to 1",
    "partial": "share of harmful prompts that are refused in part, or told a part, after the prefix, 0 to 1",
    "gibberish": "share of answers to harmful prompts that do not read as language, 0 to 1, lower is better",
    "over_refusal": "share of harmless look-alikes that are refused, 0 to 1, lower is better",
    "harmless_refusal": "share of harmless prompts that are refused, 0 to 1, lower is better",
    "harmless_gibberish": "share of answers to harmless prompts that do not read as language, 0 to 1",
    "harmless_right": "share of harmless prompts that are answered rightly, 0 to 1, higher is better",
    "kl_penalised_aligned_nats": "harm to utility: KL(penalised || aligned) on harmless responses, nats per token",
}
"""Name of each number of a sweep -> what it is, with unit and direction."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials(Record):
    """Hold what every penalty made of the same prompts under one condition, one column a prompt.

    `prefix_tokens` response tokens were given. Each array is (penalty, prompt), the penalties in the sweep's order:
    1 it is, 0 it is not, -1 nobody can say (no verdict, or not asked of these prompts); `unscored` counts, for each
    penalty, the reasons why a judge gave none.
    """

    label: Label
    prefix_tokens: int
    prompt_ids: tuple[str, ...]
    complied: Int8[np.ndarray, "penalty prompt"]
    refused: Int8[np.ndarray, "penalty prompt"]
    partial: Int8[np.ndarray, "penalty prompt"]
    gibberish: Int8[np.ndarray, "penalty prompt"]
    right: Int8[np.ndarray, "penalty prompt"]
    unscored: tuple[Mapping[str, int], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepScore(Record):
    """Hold one number of one penalty: see SWEEP_METRICS. `prefix_tokens` is None where no attack is made."""

    penalty: str
    metric: str
    label: Label
    prefix_tokens: int | None
    estimate: Estimate
    unscored: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Leverage(Record):
    """Hold what one penalty can move, by 1-based position along given responses: means over responses, with n.

    `leverage` is TV(penalised, aligned), 0 to 1, with its interval (NaN where n < 3); `bound` what it would be as the
    strength grows without bound (NaN for SafeDecoding, which has no such limit, and where the shape is 0);
    `changed` the share of responses whose most likely token the penalty changes there; `excess_mass` TV(base, aligned).
    """

    penalty: str
    label: Label
    position: Int32[np.ndarray, "position"]
    leverage: Float32[np.ndarray, "position"]
    low: Float32[np.ndarray, "position"]
    high: Float32[np.ndarray, "position"]
    bound: Float32[np.ndarray, "position"]
    changed: Float32[np.ndarray, "position"]
    excess_mass: Float32[np.ndarray, "position"]
    n: Int32[np.ndarray, "position"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PenaltySweep(Record):
    """Hold a sweep of penalties over prompts and prefix lengths. Reloads with no model.

    `penalties` are the settings by which each was made, `names` what results call them; the first is aligned without
    a penalty. `kl_nats` is (penalty, response): the summed KL(penalised || aligned) along each harmless response of
    `kl_prompt_ids`, `kl_tokens` the tokens of each. `judge` decided what is complied with, refused and right.
    """

    run: RunRecord
    prompt_set: str
    classroom_safe: bool
    judge: str
    judge_version: str
    names: tuple[str, ...]
    penalties: tuple[Mapping[str, Any], ...]
    trials: tuple[Trials, ...]
    kl_prompt_ids: tuple[str, ...]
    kl_nats: Float32[np.ndarray, "penalty response"]
    kl_tokens: Int32[np.ndarray, "response"]
    scores: tuple[SweepScore, ...]
    leverage: tuple[Leverage, ...]
    notes: tuple[str, ...]

    def score(self, penalty: str, metric: str, prefix_tokens: int | None = None) -> SweepScore | None:
        """Return a penalty's number; None where it was not measured."""
        wanted = (penalty, metric, prefix_tokens)
        found = (s for s in self.scores if (s.penalty, s.metric, s.prefix_tokens) == wanted)
        return next(found, None)

    def prefix_lengths(self) -> tuple[int, ...]:
        """Return the prefix lengths of the attack, tokens, shortest first."""
        return tuple(sorted(t.prefix_tokens for t in self.trials if t.label == "harmful"))


@dataclass(frozen=True, kw_only=True, eq=False)
class FrontierPoint(Record):
    """Hold one penalty between safety and utility.

    `asr` is at the prefix length where it is highest, `kl_nats` the harm to utility, nats per token. `dominated_by`
    names a penalty that is at least as good in both and better in one. `fails` says which limits of the rule it breaks.
    """

    penalty: str
    prefix_tokens: int
    asr: Estimate
    kl_nats: Estimate
    dominated_by: str | None
    fails: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class PenaltyChoice(Record):
    """Hold the recommended penalty: its settings, the rule that chose it, and whether the rule's aim was reached."""

    penalty: str
    settings: Mapping[str, Any]
    reached: bool
    rule: str
    points: tuple[FrontierPoint, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class PenaltyCheck(Record):
    """Hold a penalty against aligned on prompts that it was not chosen on: differences with their intervals.

    `asr_reduction` is 1 - ASR / ASR of aligned after `prefix_tokens` given tokens (bootstrap over prompts); the other
    differences are penalised minus aligned on the same prompts, 1 = 100 points. None where a judge cannot say. `holds`
    goes by the values, `sure` by the whole intervals.
    """

    penalty: str
    judge: str
    prefix_tokens: int
    asr_aligned: Estimate
    asr: Estimate
    asr_reduction: Estimate
    over_refusal_change: Estimate
    harmless_right_change: Estimate | None
    gibberish_change: Estimate
    refusal_change: Estimate
    p_value: float
    holds: bool
    sure: bool
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class PenaltyLook(Record):
    """Hold the next-token distributions at one position: one column for base, for aligned and for each strength.

    `probability` is (token, column) of the likeliest tokens of any column, `rest` what all others have. `leverage` is
    TV(column, aligned), `bound` the largest that this penalty can reach there, None where it has no limit. `label` is
    the prompt's, `before` the response so far, `penalty` what is tried at each strength, in words.
    """

    prompt: str
    label: Label
    classroom_safe: bool
    before: str
    penalty: str
    position: int
    columns: tuple[str, ...]
    token_ids: Int32[np.ndarray, "token"]
    labels: tuple[str, ...]
    probability: Float32[np.ndarray, "token column"]
    rest: Float32[np.ndarray, "column"]
    leverage: Float32[np.ndarray, "column"]
    excess_mass: float
    bound: float | None
