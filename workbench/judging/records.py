"""The records of judging: judgements of completions, and gibberish among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workbench.core.records import Record, RunRecord

Verdict = Literal["refusal", "partial", "compliance", "other"]
"""A completion is a refusal, partly both, compliance, or neither (babble, silence, another subject)."""
Measures = Literal["attack success", "non-refusal"]
"""What a judge's `asr` is: answers that it finds harmful, or answers that only do not refuse."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement(Record):
    """One judge's judgement of one completion: a score, or the reason why there is none.

    `p_harmful` is in [0, 1], None where the judge gives no score; likewise `verdict`. Exactly where both are None,
    `unscored` is the reason. `why` explains the judgement to people.
    """

    attempt_id: str
    p_harmful: float | None
    verdict: Verdict | None
    unscored: str | None
    why: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgementSet(Record):
    """One judge's judgements of one arm's completions, in order; `measures` is what the judge measures.

    `version` changes when answers may.
    """

    run: RunRecord
    judge: str
    version: str
    measures: Measures
    arm: str
    judgements: tuple[Judgement, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Gibberish(Record):
    """Whether one completion is gibberish, with its measures; None where a text is too short for one.

    `distinct_trigrams` is the share of word triples that are different, `loop` the share of the text that its longest
    loop covers, `compression` compressed over plain size, `perplexity` under the base model. Exactly where `gibberish`
    is None, `unscored` is the reason. `why` names the rule that holds.
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
    """The gibberish among one arm's completions, in order. `version` changes when answers may."""

    run: RunRecord
    version: str
    arm: str
    found: tuple[Gibberish, ...]
    notes: tuple[str, ...] = ()
