"""Look at a training before it starts: its teacher, memory and time, and whether it can work."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence

import torch

from workbench.core.errors import ParameterError
from workbench.core.records import Estimate
from workbench.models.pair import ModelPair
from workbench.training.config import TrainConfig
from workbench.training.film import Camera
from workbench.training.memory import memory_mib
from workbench.training.objective import Heads
from workbench.training.records import Preflight
from workbench.training.rows import Sampler, TrainingText, TrainingTexts
from workbench.training.step import StepLoss
from workbench.training.student import Student
from workbench.training.teacher import GIVEN_TOKENS, flip_rate, teacher_said

LEAST_FLIPS = 0.01
"""Below this flip rate the hybrid teacher agrees with the aligned model, so the student learns nothing from it."""

DEPTHS = (3, 5, 20, 40, 100)
"""Further lengths of a harmful beginning, tokens, that are tried before recovery is refused."""

TIMED_STEPS = 3


def look_before(
    pair: ModelPair,
    student: Student,
    heads: Heads,
    texts: TrainingTexts,
    loss: StepLoss,
    sampler: Sampler,
    config: TrainConfig,
    scenes: Sequence[TrainingText] = (),
    *,
    begun: bool = False,
) -> Preflight:
    """Measure flip rate, memory and the time of three steps, without changing a weight.

    `scenes` are those of the film. Raises ParameterError where the arm learns safety from the teacher on harmful rows
    and the teacher agrees there with the aligned model, unless the student was `begun` from another adapter.
    """
    arm = config.chosen
    flips = flip_rate(pair, heads, texts, config)
    said = []
    if flips.value is not None:
        said.append(
            f"Teacher on harmful rows: {teacher_said(arm)}. Share of positions at which its top token is not the "
            f"aligned model's: {flips}, 95 % interval."
        )
        if not begun:
            _check_flips(pair, heads, texts, config, flips)
    trained = sum(p.numel() for p in student.parameters())
    need = memory_mib(pair, trained, texts, config)
    adapted = f"in layers with {100 * student.reach():.0f} % of the model's weights"
    said.append(f"{trained:,} trained parameters, {adapted}; about {need:,.0f} MiB beside the pair's weights.")
    seconds = timed(student, loss, sampler, config)
    whole = seconds * config.steps + filmed(pair, student, heads, scenes, config)
    timed_steps = min(TIMED_STEPS, config.steps)
    said.append(f"{seconds:.2f} s a step (median of {timed_steps}): about {_clock(whole)} in all, film included.")
    return Preflight(
        flip_rate=flips, trained_parameters=trained, memory_mib=need, step_seconds=seconds, sentences=tuple(said)
    )


def _check_flips(pair: ModelPair, heads: Heads, texts: TrainingTexts, config: TrainConfig, flips: Estimate) -> None:
    """Raise ParameterError where the teacher agrees with aligned on harmful rows.

    Recovery is refused only where aligned recovers by itself after every length of harmful beginning that is tried: one
    position anywhere is enough, because a refusal after a harmful beginning depends on one token or two.
    """
    arm, rate, n = config.chosen, flips.value or 0.0, flips.n
    if arm.harmful == "teacher" and rate < LEAST_FLIPS:
        raise ParameterError(
            f"arm {arm.name!r} was not started: it learns safety from the hybrid teacher on harmful rows, where the "
            f"teacher's top token is aligned's at {100 * (1 - rate):.1f} % of {n} positions (flip rate "
            f"{100 * rate:.2f} %). Train 'recovery', or switch the pre-flight off to train all the same"
        )
    if arm.harmful != "recovery" or rate:
        return
    for given in DEPTHS:
        other = flip_rate(pair, heads, texts, config, given=given)
        n += other.n
        if other.value:
            return
    depths = ", ".join(map(str, sorted({GIVEN_TOKENS, *DEPTHS})))
    raise ParameterError(
        f"arm {arm.name!r} was not started: after {depths} tokens of a harmful response (as far as responses and "
        f"prefix_tokens reach) aligned already continues with its own refusal (flip rate 0 of {n} positions). Switch "
        "the pre-flight off to train all the same"
    )


def timed(student: Student, loss: StepLoss, sampler: Sampler, config: TrainConfig) -> float:
    """Return the median seconds of a step's forward and backward passes, over steps spread evenly over the training.

    Row lengths differ, so one step may take half of another's time. Weights and random numbers stay.
    """
    spent = []
    count = min(TIMED_STEPS, config.steps)
    devices = [p.device for p in student.parameters()[:1] if p.device.type == "cuda"]
    with torch.random.fork_rng(devices=devices):
        student.train(True)  # dropout and checkpointing cost time too
        for step in ((2 * n + 1) * config.steps // (2 * count) for n in range(count)):
            clock = time.perf_counter()
            passes = sampler.passes(step + 1)
            counts = loss.counts(student, passes)
            for each in passes:
                total = loss(student, each, counts).total
                if total.requires_grad:
                    torch.autograd.grad(total, student.parameters(), allow_unused=True)
            if devices:
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - clock)
        student.train(False)
    return statistics.median(spent)


def filmed(
    pair: ModelPair, student: Student, heads: Heads, scenes: Sequence[TrainingText], config: TrainConfig
) -> float:
    """Return the seconds that a training's film takes, estimated from one discarded frame; 0 without film."""
    every, steps = config.watch.film_every, config.steps
    if not every:
        return 0.0
    camera = Camera(pair, student, heads, scenes)
    clock = time.perf_counter()
    camera.take(0)
    return (time.perf_counter() - clock) * (1 + math.ceil(steps / every))


def _clock(seconds: float) -> str:
    unit, size = ("s", 1) if seconds < 120 else ("min", 60) if seconds < 7200 else ("h", 3600)
    return f"{seconds / size:.{1 if unit == 'h' else 0}f} {unit}"
