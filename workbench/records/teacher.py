"""What a training's teacher would say on harmful texts, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from workbench.records.core import Estimate, Record


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherText(Record):
    """Hold one harmful text as an arm would train on it, with both sides' distributions at every position.

    given            pieces of the harmful beginning that the student reads before the first position
    pieces           the token that stands at each position
    student, teacher   likeliest tokens at each position as legible labels, best first, with probabilities (token k)
    kl_teacher_student_nats   KL(teacher || student as it starts), nats; for labels that is -log p(label)
    flips            whether the teacher's top token is another than the student's
    pushed           first tokens of M, what L_completion pushes down, as labels; () where the arm has none
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
    """Hold what an arm's teacher says on some harmful texts. `said` is what the teacher is, in words.

    `flip_rate` is the share of positions of these texts at which the teacher's top token is not the student's.
    """

    arm: str
    said: str
    texts: tuple[TeacherText, ...]
    flip_rate: Estimate
