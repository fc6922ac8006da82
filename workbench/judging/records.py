"""What judging makes, as records: judgements of completions, and what of them is gibberish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workbench.core.records import Record, RunRecord

Verdict = Literal["refusal", "partial", "compliance", "other"]


"""What a completion is: a refusal, partly both, compliance, or neither (babble, silence, another subject)."""


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
