"""What the capability harness says of one arm: scores by task, and the answer to every question behind them."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.records.core import Estimate, Record, RunRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskScore(Record):
    """Hold one metric of one task. `estimate.value` is the harness's own number, to the digit.

    `group` is the task as it was asked for (a group, or the task itself); a group's own score has `task` == `group`.
    `variant` is the harness's filter ("none", "strict-match", ...). The interval is Wilson's where every answer is
    right or wrong, else a bootstrap over questions. `stderr` is the harness's own, None where it gives none.
    """

    group: str
    task: str
    metric: str
    variant: str
    estimate: Estimate
    stderr: float | None
    higher_is_better: bool
    shots: int
    version: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer(Record):
    """Hold what one question got. `score` is the task's first metric: 1 right, 0 wrong; None where it is no such thing.

    `question_id` names the content: equal questions of a task have equal ids, whichever arm answers.
    """

    group: str
    task: str
    question_id: str
    question: str
    expected: str
    given: str
    score: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class CapabilitySet(Record):
    """Hold one arm's capability. `template` says how questions were put: "chat template" or "plain text"."""

    run: RunRecord
    arm: str
    harness: str
    template: str
    scores: tuple[TaskScore, ...]
    answers: tuple[Answer, ...]
    notes: tuple[str, ...]
