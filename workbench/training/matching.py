"""Controls of equal size: scale a completion loss so that its first gradient is as long as another token set's."""

from __future__ import annotations

from dataclasses import replace

import torch

from workbench.training.config import TrainConfig
from workbench.training.sampler import Draw, Sampler
from workbench.training.step import StepLoss
from workbench.training.student import Student

STEPS = 8
"""Gradients are compared over the rows of this many steps, those without the penalty left out."""


def matching_scale(student: Student, loss: StepLoss, sampler: Sampler, config: TrainConfig) -> float:
    """Return |g_matched| / |g_own| of L_completion on the first rows, at the student's first weights.

    1 where a gradient is 0 or there are no rows of the kind.
    """
    arm = config.chosen
    assert arm.match_arm is not None
    size = config.batch_size * min(STEPS, config.steps)
    draws = [_completion_only(sampler[n]) for n in range(size)]
    draws = [d for d in draws if d.rows]
    if not draws:
        return 1.0
    other = replace(config, arm=replace(arm, loss=replace(arm.loss, ranking=arm.match_arm)))
    own_norm = _norm(student, loss, draws)
    other_norm = _norm(student, loss.under(other), draws)
    return other_norm / own_norm if own_norm > 0.0 and other_norm > 0.0 else 1.0


def _completion_only(draw: Draw) -> Draw:
    return replace(draw, rows=tuple(r for r in draw.rows if r.part == "complete"))


def _norm(student: Student, loss: StepLoss, draws: list[Draw]) -> float:
    counts = loss.counts(student.body, [draws])
    total = [torch.zeros_like(p) for p in student.parameters()]
    for draw in draws:
        made = loss(student.body, [draw], counts, 1)
        for kept, found in zip(
            total, torch.autograd.grad(made.total, student.parameters(), allow_unused=True), strict=True
        ):
            if found is not None:
                kept += found
    return float(torch.stack([t.norm() for t in total]).norm())
