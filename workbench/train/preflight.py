"""Before a training is paid for: what the teacher says, what it needs, how long it takes, and whether it can work."""

from __future__ import annotations

import statistics
import time

import torch

from workbench.comparisons import share
from workbench.errors import ParameterError
from workbench.pair import ModelPair
from workbench.records import Estimate, Preflight
from workbench.scoring import response_rows
from workbench.train.config import LossConfig, TrainConfig
from workbench.train.heads import CHUNK_MIB, Heads
from workbench.train.losses import hybrid_teacher
from workbench.train.rows import TrainingTexts
from workbench.train.sampler import Sampler
from workbench.train.step import StepLoss
from workbench.train.student import Student

LEAST_FLIPS = 0.01
"""Below this flip rate the hybrid teacher says what the aligned model says: there is nothing to learn from it."""

TIMED_STEPS = 3
TEXTS = 32


def flip_rate(pair: ModelPair, heads: Heads, texts: TrainingTexts, loss: LossConfig, *, most: int = TEXTS) -> Estimate:
    """Return the share of harmful positions at which the hybrid teacher's top token is not the aligned model's.

    Over the first `most` harmful responses; the interval takes positions as independent, so it is a little narrow.
    """
    flips = n = 0
    with torch.no_grad():  # inference tensors could not be trained against where weights are shared out
        for text in texts.harmful[:most]:
            aligned = heads.aligned(response_rows(pair, "aligned", [text.aligned], [text.response]))
            base = heads.base(response_rows(pair, "base", [text.base], [text.response]))
            top = hybrid_teacher(aligned, base, loss.teacher_lambda).argmax(-1)
            flips += int((top != aligned.argmax(-1)).sum())
            n += len(top)
    return share(flips, n)


def teacher_flips(pair: ModelPair, texts: TrainingTexts, loss: LossConfig, *, most: int = TEXTS) -> Estimate:
    """Return the flip rate of a hybrid teacher on a pair before anything is trained; see `flip_rate`."""
    with pair.model("aligned") as model:
        return flip_rate(pair, Heads.of(pair, model), texts, loss, most=most)


def look_before(
    pair: ModelPair,
    student: Student,
    heads: Heads,
    texts: TrainingTexts,
    loss: StepLoss,
    sampler: Sampler,
    config: TrainConfig,
) -> Preflight:
    """Measure flip rate, memory and the time of three steps, none of which changes a weight.

    Raises ParameterError where the arm's safety is to come from the teacher on harmful rows and the teacher says there
    what the aligned model says.
    """
    arm = config.chosen
    flips = flip_rate(pair, heads, texts, arm.loss)
    said = []
    if flips.value is not None:
        said.append(
            f"Teacher (lambda = {arm.loss.teacher_lambda:g}): share of harmful positions at which its top token is not "
            f"the aligned model's: {flips}."
        )
        if arm.teacher_acts_on_harmful and flips.value < LEAST_FLIPS:
            raise ParameterError(
                f"arm {arm.name!r} was not started: it learns safety from the hybrid teacher on harmful rows, and "
                f"there the teacher's top token is the aligned model's at {100 * (1 - flips.value):.1f} % of "
                f"{flips.n} positions (flip rate {100 * flips.value:.2f} %). Where aligned equals base there is "
                "nothing to extrapolate: train 'recovery', or switch the pre-flight off to see it fail"
            )
    trained = sum(p.numel() for p in student.parameters())
    need = memory_mib(pair, trained, texts, config)
    said.append(f"{trained:,} trained parameters; about {need:,.0f} MiB beside the pair's weights.")
    seconds = timed(student, loss, sampler, config)
    said.append(f"{seconds:.2f} s a step (median of {TIMED_STEPS}): about {_clock(seconds * config.steps)} in all.")
    return Preflight(
        flip_rate=flips,
        trained_parameters=trained,
        memory_mib=need,
        step_seconds=seconds,
        sentences=tuple(said),
    )


def memory_mib(pair: ModelPair, trained: int, texts: TrainingTexts, config: TrainConfig) -> float:
    """Estimate what a training needs beside the pair's weights, MiB.

    16 bytes for each trained number (weight, gradient, two moments, float32), about 18 hidden vectors and 3 inner ones
    a token and layer for the backward pass, and eight buffers of a chunk's logits. An estimate: attention that keeps
    its weights needs more.
    """
    with pair.model("aligned") as model:
        body = model.config.get_text_config()
        inner = getattr(body, "intermediate_size", None) or 4 * body.hidden_size
        layers = body.num_hidden_layers
    lengths = [len(t.aligned) + len(t.response) for t in (*texts.harmful, *texts.utility, *texts.harmless)]
    longest = min(max(lengths, default=0), config.max_tokens)
    tokens = config.rows_in_a_pass * longest
    activations = tokens * layers * (18 * body.hidden_size + 3 * inner) * pair.dtype.itemsize
    buffers = 8 * CHUNK_MIB.get(pair.device.type, CHUNK_MIB["cpu"])
    return (16 * trained + activations) / 2**20 + buffers


def timed(student: Student, loss: StepLoss, sampler: Sampler, config: TrainConfig) -> float:
    """Return the median seconds of a step's forward and backward passes; weights and random numbers stay."""
    spent = []
    size = config.rows_in_a_pass
    devices = [p.device for p in student.parameters()[:1] if p.device.type == "cuda"]
    with torch.random.fork_rng(devices=devices):
        for step in range(min(TIMED_STEPS, config.steps)):
            clock = time.perf_counter()
            draws = [sampler[step * config.batch_size + n] for n in range(0, config.batch_size, config.processes)]
            passes = [draws[n : n + size] for n in range(0, len(draws), size)]
            counts = loss.counts(student.body, passes)
            for each in passes:
                total = loss(student.body, each, counts, step + 1).total
                if total.requires_grad:
                    torch.autograd.grad(total, student.parameters(), allow_unused=True)
            if devices:
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - clock)
    return statistics.median(spent)


def _clock(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
