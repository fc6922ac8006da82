"""What a training makes: the adapter's record, one record a step, and the film of the fixed texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from workbench.records.core import Estimate, Label, Record, RunRecord
from workbench.records.evaluation import Scorecard


@dataclass(frozen=True, kw_only=True, eq=False)
class StepRecord(Record):
    """Hold one optimizer step (1-based): the loss and its parts as means per position, nats where the part has a unit.

    `parts` has each part that occurred and `positions` how many positions it had; `gradient_norm` is before clipping.
    """

    step: int
    loss: float
    parts: Mapping[str, float]
    positions: Mapping[str, int]
    learning_rate: float
    gradient_norm: float
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class FilmText(Record):
    """Name one text that the film shows: whose it is, what it is, and its pieces, one a position."""

    name: str
    label: Label
    prompt: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingFilm(Record):
    """Hold what the student says along fixed texts at some of its steps (step 0: before training).

    Each array is (step, text, token), NaN beyond a text. `kl_student_base_nats` and `retention` = 1 - TV(student, base)
    show how far the student still is the base model; `kl_aligned_student_nats` how far it has left the aligned one,
    which on harmless texts is the price.
    """

    texts: tuple[FilmText, ...]
    steps: Int32[np.ndarray, "step"]
    kl_student_base_nats: Float32[np.ndarray, "step text token"]
    retention: Float32[np.ndarray, "step text token"]
    kl_aligned_student_nats: Float32[np.ndarray, "step text token"]

    def mean(self, name: str, label: Label) -> Float32[np.ndarray, "step"]:
        """Return a quantity's mean over all positions of texts with this label, by step; NaN where there is none."""
        rows = [i for i, t in enumerate(self.texts) if t.label == label]
        values = getattr(self, name)[:, rows].reshape(len(self.steps), -1)
        there = ~np.isnan(values)
        n = there.sum(-1)
        total = np.where(there, values, 0.0).sum(-1)
        return np.where(n > 0, total / np.maximum(n, 1), np.nan).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Preflight(Record):
    """Hold what was found out before the first step.

    flip_rate           share of the arm's harmful positions at which its teacher's top token is not aligned's
    trained_parameters  numbers that are trained
    memory_mib          estimated peak beside the pair's weights: see `train.memory.memory_mib`
    step_seconds        median of the timed steps; None where none were timed
    """

    flip_rate: Estimate
    trained_parameters: int
    memory_mib: float
    step_seconds: float | None
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter(Record):
    """Hold a trained adapter: where its weights are, how it was made, and every step of the way.

    `stopped` says why training ended before its last step, None where it did not. `settings` are the arm and the
    training's values as they were used. `film` and `preflight` are None where they were switched off.
    """

    run: RunRecord
    path: str
    arm: str
    settings: Mapping[str, Any]
    fingerprint: str
    history: tuple[StepRecord, ...]
    film: TrainingFilm | None
    preflight: Preflight | None
    stopped: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmNumber(Record):
    """Hold one number of one arm over all seeds of a comparison.

    `estimate` is the mean over seeds; its interval reaches from the lowest to the highest bound of any seed's own
    interval, n is the prompts of one seed. `by_seed` has each seed's value, None where there is none. The untrained arm
    has one seed.
    """

    arm: str
    attack: str
    condition: str
    judge: str
    metric: str
    estimate: Estimate
    by_seed: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmComparison(Record):
    """Hold training arms that were trained alike and asked the same: the scorecard of each seed, and them together.

    `budgets` says in words what each arm was trained with, `adapters` where its adapters are, in the order of `seeds`.
    """

    run: RunRecord
    prompt_set: str
    classroom_safe: bool
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    budgets: Mapping[str, str]
    adapters: Mapping[str, tuple[str, ...]]
    scorecards: tuple[Scorecard, ...]
    numbers: tuple[ArmNumber, ...]
    notes: tuple[str, ...]

    def number(self, arm: str, metric: str, attack: str, condition: str) -> ArmNumber | None:
        """Return an arm's number by the first judge that has it; None where it was not measured."""
        wanted = (arm, metric, attack, condition)
        return next((x for x in self.numbers if (x.arm, x.metric, x.attack, x.condition) == wanted), None)
