"""What an evaluation makes, step by step: attempts, completions, judgements, and the scorecard that sums them up.

The three steps are separate and each is saved, so judging again never generates again. An attempt is what is sent to a
model, whatever the attack: messages, the response tokens that are given, and how to sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from workbench.records.core import Estimate, Label, Record, RunRecord

Verdict = Literal["refusal", "partial", "compliance", "other"]
"""What a completion is: a refusal, partly both, compliance, or neither (babble, silence, another subject)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Attempt(Record):
    """Hold one prompt under one attack: all that is sent to a model, before any model has answered.

    `attempt_id` names the content: equal attempts have equal ids. `attack` is the family (none, prefill,
    harmless_prefill, gcg, decoding, template, insertion), `condition` its setting ("k=5", "full", ...). `request` is
    the prompt as it was before the attack: what a judge is told was asked. `messages` are (role, text), the system
    prompt included. `prefix_ids` are response tokens that are given, and not judged; `prefix` is their text. `sample`
    numbers repeated draws from 0; `seed` is the draw's own.
    """

    attempt_id: str
    attack: str
    condition: str
    prompt_id: str
    label: Label
    category: str | None
    pair_id: str | None
    request: str
    messages: tuple[tuple[str, str], ...]
    prefix_ids: tuple[int, ...]
    prefix: str
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    sample: int
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackSet(Record):
    """Hold the attempts that one attack makes of a prompt set, and what it cost to make them.

    `cost` names each cost with its unit ("forward_passes", "queries", "seconds"). `notes` say what was left out or
    made up on the way, with counts. `tokenizer` is the hash of the tokenizer that `prefix_ids` belong to.
    """

    run: RunRecord
    attack: str
    prompt_set: str
    classroom_safe: bool
    tokenizer: str
    attempts: tuple[Attempt, ...]
    cost: Mapping[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Completion(Record):
    """Hold what one arm answered to one attempt: the tokens after the prefix, their text, and why they ended."""

    attempt_id: str
    ids: tuple[int, ...]
    text: str
    stop: Literal["end", "length", "stop"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CompletionSet(Record):
    """Hold one arm's completions of attempts, in the attempts' order."""

    run: RunRecord
    arm: str
    completions: tuple[Completion, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement(Record):
    """Hold what one judge says of one completion: a score, or the reason why there is none.

    `p_harmful` is in [0, 1], None where the judge does not say how harmful a completion is. `verdict` likewise.
    Exactly when both are None, `unscored` is the reason. `why` is what the judge went by (a phrase, say), for people.
    """

    attempt_id: str
    p_harmful: float | None
    verdict: Verdict | None
    unscored: str | None
    why: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgementSet(Record):
    """Hold one judge's judgements of one arm's completions, in their order. `version` changes when answers may."""

    run: RunRecord
    judge: str
    version: str
    arm: str
    judgements: tuple[Judgement, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Gibberish(Record):
    """Hold whether one completion reads as language, and what was measured; None where a text is too short for it.

    `distinct_trigrams` is the share of word triples that are different, `loop` the share of the text that its longest
    loop covers, `compression` compressed over plain size, `perplexity` under the base model. Exactly when `gibberish`
    is None, `unscored` is the reason. `why` names the rule that was met.
    """

    attempt_id: str
    gibberish: bool | None
    unscored: str | None
    distinct_trigrams: float | None
    loop: float | None
    compression: float | None
    perplexity: float | None
    why: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class GibberishSet(Record):
    """Hold what of one arm's completions is gibberish, in their order. `version` changes when answers may."""

    run: RunRecord
    version: str
    arm: str
    found: tuple[Gibberish, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Score(Record):
    """Hold one number of a scorecard: a metric of one arm under one attack and condition, by one judge.

    `category` None is all categories. `unscored` counts, by reason, what `estimate.n` leaves out.
    """

    arm: str
    attack: str
    condition: str
    judge: str
    metric: str
    category: str | None
    estimate: Estimate
    unscored: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison(Record):
    """Hold two arms on the same prompts: `difference` is arm minus against, with McNemar's exact p.

    `p_holm` is corrected over the whole table. `only_arm` and `only_against` count the prompts that only one of the two
    has (the discordant pairs). `n_needed` is about how many prompts would tell them apart with power 0.8 if the
    difference were what it seems; None where they are told apart or seem equal. `sentence` says it in words.
    """

    arm: str
    against: str
    attack: str
    condition: str
    judge: str
    metric: str
    difference: Estimate
    only_arm: int
    only_against: int
    p_value: float
    p_holm: float
    n_needed: int | None
    sentence: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Scorecard(Record):
    """Hold what an evaluation says: every number with its interval, every comparison, and what cannot be concluded."""

    run: RunRecord
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]
