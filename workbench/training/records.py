"""Records of a training: the adapter, one record a step, the film of fixed texts, the preview of the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32

from workbench.core.quantities import ENTROPY_FLOOR_NATS
from workbench.core.records import Estimate, Label, Record, RunRecord

UTILITY_PARTS = ("utility", "utility_base", "utility_label")
"""The parts of utility rows by teacher (the arm's own, base, the label): one mean is over all three."""
PARTS = ("recovery", "completion", "teacher", "refusal", "compliance", *UTILITY_PARTS, "transition")
"""The parts of a loss: a training row's names in curves and normalisers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StepRecord(Record):
    """One optimizer step (1-based): the loss and its parts as means per position, nats where the part has a unit.

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
    """One text of the film with its pieces, one a position."""

    name: str
    label: Label
    prompt: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingFilm(Record):
    """The student's distributions along fixed texts at some of its steps (step 0: before training).

    Each array is (step, text, token), NaN beyond a text. `kl_student_base_nats` and `retention` = 1 - TV(student, base)
    measure how close the student is to the base model; `kl_aligned_student_nats` its distance from the aligned one,
    which is a cost on harmless texts. Where `entropy_student_nats` is at most `entropy_floor_nats` and retention is
    high, both models are nearly certain and retention says nothing.
    """

    texts: tuple[FilmText, ...]
    steps: Int32[np.ndarray, "step"]
    kl_student_base_nats: Float32[np.ndarray, "step text token"]
    retention: Float32[np.ndarray, "step text token"]
    kl_aligned_student_nats: Float32[np.ndarray, "step text token"]
    entropy_student_nats: Float32[np.ndarray, "step text token"]
    entropy_floor_nats: float = ENTROPY_FLOOR_NATS

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
    """The measurements before the first step; None for `step_seconds` where no step was timed.

    `flip_rate` is the share of the arm's harmful positions at which its teacher's top token is not aligned's,
    `memory_mib` the estimated peak beside the pair's weights (see `training.memory.memory_mib`).
    """

    flip_rate: Estimate
    trained_parameters: int
    memory_mib: float
    step_seconds: float | None
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter(Record):
    """A trained adapter: the folder of its weights, its settings, and every step.

    `stopped` is why training ended before its last step, None where it did not. `settings` are the arm's and the
    training's values in force. `film` and `preflight` are None where they were switched off.
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
class TeacherText(Record):
    """One harmful text as an arm would train on it, with both sides' distributions at every position.

    given            pieces of the harmful beginning that the student reads before the first position
    student, teacher   likeliest tokens at each position as legible labels, best first, with probabilities (token k)
    kl_teacher_student_nats   KL(teacher || student at its start); for labels that is -log p(label)
    flips            whether the teacher's and the student's top tokens differ
    pushed           first tokens of M, which L_completion pushes down, as labels; () where the arm has none
    pushed_mass      the student's probability on all of M; NaN where the arm has none
    """

    name: str
    prompt: str
    given: tuple[str, ...]
    pieces: tuple[str, ...]
    student: tuple[tuple[str, ...], ...]
    student_probability: Float32[np.ndarray, "token k"]
    teacher: tuple[tuple[str, ...], ...]
    teacher_probability: Float32[np.ndarray, "token k"]
    kl_teacher_student_nats: Float32[np.ndarray, "token"]
    flips: Bool[np.ndarray, "token"]
    pushed: tuple[tuple[str, ...], ...]
    pushed_mass: Float32[np.ndarray, "token"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherPreview(Record):
    """An arm's teacher on some harmful texts: `said` describes it, `flip_rate` is the share of positions that flip.

    `hybrid_flips` are lambdas of the hybrid teacher with its flip rate along harmful responses, whatever the arm.
    """

    arm: str
    said: str
    texts: tuple[TeacherText, ...]
    flip_rate: Estimate
    hybrid_flips: tuple[tuple[float, Estimate], ...] = ()
