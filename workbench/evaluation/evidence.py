"""Attempts, answers and judgements, joined by attempt after a check that they belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from workbench.core.errors import ParameterError, PromptError, TokenizerMismatch
from workbench.core.records import Record
from workbench.evaluation.metrics import METRICS, Found
from workbench.evaluation.records import AttackSet, Attempt, Completion, CompletionSet
from workbench.judging.records import GibberishSet, JudgementSet

PromptKey = tuple[str, str]
"""Prompt set and prompt id: ids need only be unique within a set."""
T = TypeVar("T", bound=Record)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One completion as a metric reads it; `found` is None where it was not judged."""

    key: PromptKey
    attempt: Attempt
    found: Found | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Attempts, answers and judgements by attempt id; arms, attacks and judges in the order of the sets."""

    attempts: Mapping[str, tuple[AttackSet, Attempt]]
    answered: Mapping[str, Mapping[str, Completion]]
    judged: Mapping[tuple[str, str], Mapping[str, Found]]
    gibberish: Mapping[str, Mapping[str, Found]]
    versions: Mapping[str, str]

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(self.answered)

    def samples(self, arm: str, judge: str | None) -> list[Sample]:
        """Return every completion of an arm with a judge's judgement; judge None: with its gibberish reading.

        Attacks of which the judge judged no completion are left out; otherwise an unjudged one has `found` None.
        """
        found = self.gibberish.get(arm, {}) if judge is None else self.judged.get((arm, judge), {})
        seen = {self.attempts[i][1].attack for i in found}
        made = []
        for attempt_id in self.answered[arm]:
            source, attempt = self.attempts[attempt_id]
            if attempt.attack in seen:
                key = (source.prompt_set, attempt.prompt_id)
                made.append(Sample(key=key, attempt=attempt, found=found.get(attempt_id)))
        return made

    def judges_of(self, arm: str) -> list[str]:
        return [judge for named, judge in self.judged if named == arm]


def gather(
    attacks: Sequence[AttackSet],
    completions: Sequence[CompletionSet],
    judgements: Sequence[JudgementSet],
    gibberish: Sequence[GibberishSet],
) -> Evidence:
    """Join attempts, completions and judgements.

    Raises PromptError where there is no attempt, or no prompt has a label that a metric counts; TokenizerMismatch where
    an arm's pair does not match the attack's tokenizer; ParameterError where the sets do not belong together:
    completions of other attempts, judgements of missing completions, two different answers to one attempt, one judge in
    two versions.
    """
    attempts = {a.attempt_id: (s, a) for s in attacks for a in s.attempts}
    _check_prompts(attacks, attempts)
    answered: dict[str, dict[str, Completion]] = {}
    for done in completions:
        _check_tokenizer(done, attempts)
        mine, what = answered.setdefault(done.arm, {}), f"completions of arm {done.arm!r}"
        _add(mine, done.completions, attempts, what, "the attack sets they were made from")
    if not any(answered.values()):
        raise PromptError("there are no completions: let at least one arm answer the attempts, then evaluate")
    versions: dict[str, str] = {}
    judged: dict[tuple[str, str], dict[str, Found]] = {}
    for said in judgements:
        _same_version(versions, said.judge, said.version)
        place = judged.setdefault((said.arm, said.judge), {})
        what = f"judgements by {said.judge!r} of arm {said.arm!r}"
        _add(place, said.judgements, answered.get(said.arm, {}), what, "that arm's completions")
    babble: dict[str, dict[str, Found]] = {}
    for read in gibberish:
        _same_version(versions, "gibberish", read.version)
        what = f"gibberish readings of arm {read.arm!r}"
        _add(babble.setdefault(read.arm, {}), read.found, answered.get(read.arm, {}), what, "that arm's completions")
    if not judged:
        raise ParameterError("there are no judgements: judge the completions with at least one judge, then evaluate")
    return Evidence(attempts=attempts, answered=answered, judged=judged, gibberish=babble, versions=versions)


def _check_prompts(attacks: Sequence[AttackSet], attempts: Mapping[str, tuple[AttackSet, Attempt]]) -> None:
    if not attempts:
        named = ", ".join(repr(s.attack) for s in attacks) or "none given"
        raise PromptError(f"zero prompts are left to evaluate (attack sets: {named}): load other prompts or labels")
    known = {m.label for m in METRICS.values()}
    labels = {a.label for _, a in attempts.values()}
    if not labels & known:
        raise PromptError(
            f"all {len(attempts)} attempts are {' or '.join(sorted(labels))}, and a rate needs labelled prompts. Label "
            "the prompts when you load them (label='harmful', or a label column)"
        )


def _check_tokenizer(done: CompletionSet, attempts: Mapping[str, tuple[AttackSet, Attempt]]) -> None:
    mine = done.run.resolved.get("tokenizer")
    for completion in done.completions:
        source = attempts.get(completion.attempt_id, (None,))[0]
        if source is not None and mine and source.tokenizer and mine != source.tokenizer:
            raise TokenizerMismatch(
                f"arm {done.arm!r} answered with tokenizer {mine}, and the attempts of {source.attack!r} were made "
                f"with {source.tokenizer}, where their prefixes are other tokens. Make the attack with this arm's pair"
            )


def _add(place: dict[str, T], records: Sequence[T], known: Mapping[str, object], what: str, needs: str) -> None:
    """Add records by attempt id; refuse one of an unknown attempt, and a second one that differs from the first."""
    strange = [r.attempt_id for r in records if r.attempt_id not in known]  # type: ignore[attr-defined]
    if strange:
        raise ParameterError(
            f"{len(strange)} of {len(records)} {what} belong to attempts that are not among the {len(known)} given "
            f"(the first is {strange[0]!r}): give {needs}"
        )
    for r in records:
        attempt_id = r.attempt_id  # type: ignore[attr-defined]
        first = place.setdefault(attempt_id, r)
        if first is not r and first != r:
            raise ParameterError(
                f"{what} hold two different ones for attempt {attempt_id!r}: give each arm its own name, and one set "
                "for each attack"
            )


def _same_version(versions: dict[str, str], judge: str, version: str) -> None:
    if versions.setdefault(judge, version) != version:
        raise ParameterError(
            f"judge {judge!r} judged in two versions, {versions[judge]!r} and {version!r}, which cannot be compared. "
            "Judge all arms again with one of them"
        )
