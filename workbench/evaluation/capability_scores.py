"""Capability in a scorecard: the harness's scores, and an arm's loss against a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.core import comparisons
from workbench.core.errors import ParameterError
from workbench.core.records import Estimate
from workbench.evaluation.config import EvaluateConfig
from workbench.evaluation.metrics import CAPABILITY, LOSS, MEAN_OF_TASKS
from workbench.evaluation.rates import Cell, estimate_of
from workbench.evaluation.records import CapabilitySet, Score

Answers = Mapping[str, Mapping[str, float]]
"""Task as it was asked -> question id -> score in [0, 1]."""


def check_alike(sets: Sequence[CapabilitySet]) -> None:
    """Raise ParameterError where two arms differ in template or harness, or one arm comes twice."""
    for s in sets[1:]:
        if (s.template, s.harness) != (sets[0].template, sets[0].harness):
            raise ParameterError(
                f"{sets[0].arm!r} was asked with {sets[0].template} by {sets[0].harness}, {s.arm!r} with {s.template} "
                f"by {s.harness}, which cannot be compared. Measure all arms with the same settings"
            )
    arms = [s.arm for s in sets]
    if twice := {a for a in arms if arms.count(a) > 1}:
        raise ParameterError(f"capability of {sorted(twice)} was given twice: give one set for each arm")


def capability_scores(sets: Sequence[CapabilitySet], config: EvaluateConfig) -> list[Score]:
    """Return each task's scores, the mean over tasks, and with a reference arm the loss against it."""
    made: list[Score] = []
    for s in sets:
        made += [
            _score(s, t.group, t.metric if t.variant == "none" else f"{t.metric} ({t.variant})", t.estimate)
            for t in s.scores
            if t.task == t.group
        ]
    answers = {s.arm: _answers(s) for s in sets}
    reference = answers.get(config.against or "")
    for s in sets:
        mine = answers[s.arm]
        if mine:
            made.append(_score(s, MEAN_OF_TASKS, "accuracy", _mean_of_tasks(mine, None, config)))
        if reference and mine and s.arm != config.against:
            made.append(_score(s, MEAN_OF_TASKS, LOSS, _mean_of_tasks(mine, reference, config)))
    return made


def _place(found: CapabilitySet, task: str, metric: str) -> dict[str, Any]:
    place = dict(arm=found.arm, label=None, attack=CAPABILITY, given=None, setting=task, worst_of=None)
    return {**place, "judge": f"{found.harness}, {found.template}", "metric": metric}


def _score(found: CapabilitySet, task: str, metric: str, estimate: Estimate) -> Score:
    return Score(**_place(found, task, metric), category=None, estimate=estimate, unscored={})


def _answers(found: CapabilitySet) -> Answers:
    """Return by task the scores of questions with a score from 0 (wrong) to 1 (right)."""
    better = {t.group: t.higher_is_better for t in found.scores}
    by_task: dict[str, dict[str, float]] = {}
    for a in found.answers:
        if a.score is not None and 0 <= a.score <= 1 and better.get(a.group, True):
            by_task.setdefault(a.group, {})[f"{a.task} {a.question_id}"] = a.score
    return by_task


def _mean_of_tasks(mine: Answers, reference: Answers | None, config: EvaluateConfig) -> Estimate:
    """Return the mean over tasks of an arm's score, or of reference minus arm; all tasks have the same weight.

    n counts questions; of a difference, those that both arms answered. See `comparisons.mean_of` for the interval.
    """
    parts = []
    for task, answers in mine.items():
        if reference is None:
            parts.append(estimate_of(list(answers.values()), {*answers.values()} <= {0.0, 1.0}, config))
        elif shared := [q for q in answers if q in reference.get(task, {})]:
            parts.append(_lost([reference[task][q] for q in shared], [answers[q] for q in shared], config))
    return comparisons.mean_of(parts)


def _lost(before: Sequence[float], after: Sequence[float], config: EvaluateConfig) -> Estimate:
    """Return the mean of before - after over the same questions: Newcombe's paired interval, else a bootstrap."""
    if not {*before, *after} <= {0.0, 1.0}:
        return estimate_of([b - a for b, a in zip(before, after, strict=True)], False, config)
    both = sum(b == a == 1 for b, a in zip(before, after, strict=True))
    only_before, only_after = int(sum(before)) - both, int(sum(after)) - both
    neither = len(before) - both - only_before - only_after
    return comparisons.paired_difference(both, only_before, only_after, neither, confidence=config.confidence)


def capability_cells(sets: Sequence[CapabilitySet]) -> list[Cell]:
    """Return the answers of every task whose answers are all right or wrong, to compare arms by question."""
    return [
        Cell(**_place(s, task, "accuracy"), values=answers)
        for s in sets
        for task, answers in _answers(s).items()
        if set(answers.values()) <= {0.0, 1.0}
    ]
