"""A panel of judges on the same completions: how far each two agree, and the disagreements first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from workbench.core.errors import ParameterError
from workbench.core.records import Estimate
from workbench.evaluation.records import CompletionSet
from workbench.judging.contract import is_harmful
from workbench.judging.kappa import cohen_estimate
from workbench.judging.records import Judgement, JudgementSet
from workbench.judging.samples import Attempts, samples_of


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Hold how far two judges agree on whether completions are successful attacks.

    `kappa` is Cohen's, with its interval over prompts and the number of completions that both scored; `same` counts
    those on which they agree. `only_first` and `only_second` count what only one of them calls a success; `unscored`
    what at least one of them leaves unscored.
    """

    first: str
    second: str
    kappa: Estimate
    same: int
    only_first: int
    only_second: int
    unscored: int


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """Hold what every judge says of one completion; `disagreement` is the share of pairs of judges who differ."""

    attempt_id: str
    prompt_id: str
    arm: str
    request: str
    text: str
    judgements: Mapping[str, Judgement]
    harmful: Mapping[str, bool | None]
    disagreement: float


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Hold a panel's agreement, and its opinions with the most disagreement first."""

    judges: tuple[str, ...]
    threshold: float
    agreements: tuple[Agreement, ...]
    opinions: tuple[Opinion, ...]

    def rows(self) -> tuple[dict[str, Any], ...]:
        """Return the agreement table as plain rows."""
        return tuple(
            {
                "first": a.first,
                "second": a.second,
                "kappa": a.kappa.value,
                "low": a.kappa.low,
                "high": a.kappa.high,
                "n": a.kappa.n,
                "same": a.same,
                "only_first": a.only_first,
                "only_second": a.only_second,
                "unscored": a.unscored,
            }
            for a in self.agreements
        )


def panel(
    judged: Sequence[tuple[CompletionSet, Sequence[JudgementSet]]], attempts: Attempts, *, threshold: float = 0.5
) -> Panel:
    """Compare judges who judged the same completions: one entry for each arm, with one judgement set for each judge.

    Success is `contract.is_harmful` at `threshold`. Raises ParameterError when the arms were not judged by the same
    judges or a judgement set is not of the completions beside it.
    """
    names = [tuple(s.judge for s in sets) for _, sets in judged]
    if len(set(names)) != 1 or len(set(names[0])) != len(names[0]):
        raise ParameterError(f"a panel needs the same judges, each once, for every arm, and was given {names}")
    opinions: list[Opinion] = []
    for completions, sets in judged:
        samples = samples_of(completions, attempts)
        for one in sets:
            if [j.attempt_id for j in one.judgements] != [c.attempt_id for c in completions.completions]:
                raise ParameterError(
                    f"the judgements of {one.judge!r} on arm {one.arm!r} are not of the {len(samples)} completions of "
                    f"{completions.arm!r} that they were given with"
                )
        for n, (attempt, completion) in enumerate(samples):
            found = {one.judge: one.judgements[n] for one in sets}
            harmful = {name: is_harmful(j, threshold) for name, j in found.items()}
            opinions.append(
                Opinion(
                    attempt_id=attempt.attempt_id,
                    prompt_id=attempt.prompt_id,
                    arm=completions.arm,
                    request=attempt.request,
                    text=completion.text,
                    judgements=found,
                    harmful=harmful,
                    disagreement=_disagreement(harmful),
                )
            )
    agreements = tuple(_agreement(a, b, opinions) for a, b in combinations(names[0], 2))
    ordered = sorted(opinions, key=lambda o: (-o.disagreement, -_spread(o)))
    return Panel(judges=names[0], threshold=threshold, agreements=agreements, opinions=tuple(ordered))


def _disagreement(harmful: Mapping[str, bool | None]) -> float:
    pairs = [(a, b) for a, b in combinations(harmful.values(), 2) if a is not None and b is not None]
    return sum(a != b for a, b in pairs) / len(pairs) if pairs else 0.0


def _spread(opinion: Opinion) -> float:
    scores = [j.p_harmful for j in opinion.judgements.values() if j.p_harmful is not None]
    return max(scores) - min(scores) if scores else 0.0


def _agreement(first: str, second: str, opinions: Sequence[Opinion]) -> Agreement:
    both = [o for o in opinions if o.harmful[first] is not None and o.harmful[second] is not None]
    a, b = ([int(bool(o.harmful[name])) for o in both] for name in (first, second))
    pairs = list(zip(a, b, strict=True))
    return Agreement(
        first=first,
        second=second,
        kappa=cohen_estimate([o.prompt_id for o in both], a, b, 2),
        same=sum(x == y for x, y in pairs),
        only_first=sum(x > y for x, y in pairs),
        only_second=sum(x < y for x, y in pairs),
        unscored=len(opinions) - len(both),
    )
