"""Step time and peak memory of the streamed training loss, against the plain computation and TRL's GKD loss.

One step is the student's body with gradients, the frozen
bodies without, the heads on the response positions, the loss, and the backward pass into the student's body; its head
is frozen, as LoRA leaves it. The variants share student, teacher and batch, and each is checked to give the same
gradient. `ours`, `plain` and `trl` distil from aligned alone (lambda 1), because TRL's loss has one teacher; `hybrid`
and `plain_hybrid` from the teacher between aligned and base (lambda 1.2), which costs a third model.

ESTIMATES are whole trainings instead, whose peak memory and time stand beside what the pre-flight estimated.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.pairs import embedded, wide
from benchmarks.scoring import peak_mib, ratio
from workbench.models.pair import ModelPair, Which
from workbench.models.weights import body_hidden, head_logits
from workbench.prompts.loading import PromptConfig, load_prompts
from workbench.training import losses
from workbench.training.config import LossConfig, TrainConfig
from workbench.training.data import TrainingDataConfig, training_texts
from workbench.training.distil import distil
from workbench.training.objective import Heads, Positions, Role, streamed_loss
from workbench.training.records import Adapter
from workbench.training.rows import TrainingText, TrainingTexts

WIDTHS = {49_152: 576, 151_936: 896}
"""Width of the head -> hidden size: those of SmolLM2-135M and Qwen2.5-0.5B."""

TEMPERATURE = 2.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """A pair, a student that starts a little off aligned, and a batch whose last `response` tokens are answers."""

    pair: ModelPair
    student: nn.Module
    ids: Tensor
    response: int

    def rows(self, hidden: Tensor) -> Tensor:
        """Return the states that predict the response tokens, as [n, hidden]."""
        return hidden[:, -self.response - 1 : -1].flatten(0, 1)

    def states(self, which: Which) -> Tensor:
        with torch.no_grad():
            return self.rows(self.pair.hidden(which, self.ids))


def task(vocab: int, rows: int = 4, length: int = 160, response: int = 128) -> Task:
    pair = wide(vocab, WIDTHS[vocab])
    g = torch.Generator().manual_seed(0)
    with pair.model("aligned") as aligned:
        head = aligned.get_output_embeddings()
        # the head and the embeddings are frozen and shared, as they are under LoRA
        kept = {id(p): p for p in (head.weight, aligned.get_input_embeddings().weight)}
        student = copy.deepcopy(aligned, kept)
    for parameter in student.parameters():
        parameter.requires_grad_(id(parameter) not in kept)
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.add_(torch.randn(parameter.shape, generator=g), alpha=1e-2)
    for which in ("base", "aligned"):
        with pair.model(which) as model:  # type: ignore[arg-type]
            model.requires_grad_(False)
    ids = torch.randint(8, vocab, (rows, length), generator=g)
    return Task(pair=pair, student=student, ids=ids, response=response)


def smaller(t: Task) -> Task:
    """Return the same models with a batch that is too small to matter: libraries load what they load on first use."""
    return Task(pair=t.pair, student=t.student, ids=t.ids[:1, :24], response=8)


def streamed(t: Task, teacher_lambda: float = 1.0) -> Tensor:
    hidden = t.rows(body_hidden(t.student, t.ids))  # type: ignore[arg-type]
    n = len(hidden)
    positions = Positions(
        student=hidden,
        aligned=t.states("aligned"),
        base=None if teacher_lambda == 1.0 else t.states("base"),
        label=torch.zeros(n, dtype=torch.int64),
        role=Role.TEACHER,
        weight=torch.ones(n),
    )
    config = LossConfig(teacher_lambda=teacher_lambda, temperature=TEMPERATURE)
    return streamed_loss(Heads.of(t.pair, t.student), positions, config, normaliser=n).total


def full_logits(t: Task, teacher_lambda: float) -> tuple[Tensor, Tensor]:
    student = head_logits(t.student, t.rows(body_hidden(t.student, t.ids)), t.pair.vocab)  # type: ignore[arg-type]
    with torch.no_grad():
        teacher = t.pair.logits("aligned", t.states("aligned"))
        if teacher_lambda != 1.0:
            teacher = losses.hybrid_teacher(teacher, t.pair.logits("base", t.states("base")), teacher_lambda)
    return student, teacher


def plain(t: Task, teacher_lambda: float = 1.0) -> Tensor:
    student, teacher = full_logits(t, teacher_lambda)
    return losses.distillation(student, teacher, temperature=TEMPERATURE).mean()


def trl(t: Task) -> Tensor:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.gkd import GKDTrainer

    student, teacher = (z.unflatten(0, (-1, t.response)) for z in full_logits(t, 1.0))
    labels = t.ids[:, -t.response :]
    loss: Tensor = GKDTrainer.generalized_jsd_loss(student, teacher, labels, beta=1.0, temperature=TEMPERATURE)
    return loss * TEMPERATURE**2  # TRL leaves tau^2 out


VARIANTS: dict[str, Callable[[Task], Tensor]] = {
    "ours": streamed,
    "plain": plain,
    "trl": trl,
    "hybrid": lambda t: streamed(t, 1.2),
    "plain_hybrid": lambda t: plain(t, 1.2),
}


def step(t: Task, variant: str) -> list[Tensor]:
    """Run one step and return the student's gradients."""
    learning = [p for p in t.student.parameters() if p.requires_grad]
    return list(torch.autograd.grad(VARIANTS[variant](t), learning))


def check_equal(t: Task) -> float:
    """Return the largest relative difference of a gradient between the variants with the same teacher."""
    made = {name: step(t, name) for name in VARIANTS}
    pairs = (("ours", "plain"), ("trl", "plain"), ("hybrid", "plain_hybrid"))
    off = torch.stack([(x - y).norm() / y.norm() for a, b in pairs for x, y in zip(made[a], made[b], strict=True)])
    assert bool((off < 1e-3).all()), off  # NaN is not below it
    return float(off.max())


def measure_time(vocab: int, rounds: int) -> dict[str, Any]:
    """Time the variants in turn, after one warm-up of each."""
    t = task(vocab)
    off = check_equal(t)
    wall: dict[str, list[float]] = {name: [] for name in VARIANTS}
    cores: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name in VARIANTS:
            gc.collect()
            clock, used = time.perf_counter(), time.process_time()
            step(t, name)
            wall[name].append(time.perf_counter() - clock)
            cores[name].append(time.process_time() - used)
    return {
        "threads": torch.get_num_threads(),
        "seconds_median": {name: round(statistics.median(v), 3) for name, v in wall.items()},
        "core_seconds_median": {name: round(statistics.median(v), 3) for name, v in cores.items()},
        "ours_over_trl": ratio(wall["ours"], wall["trl"]),
        "ours_over_trl_core_seconds": ratio(cores["ours"], cores["trl"]),
        "ours_over_plain": ratio(wall["ours"], wall["plain"]),
        "hybrid_over_plain_hybrid": ratio(wall["hybrid"], wall["plain_hybrid"]),
        "largest_relative_difference_of_gradients": off,
    }


def measure_memory(vocab: int, variant: str) -> float:
    """Return the peak of one step above the weights, MiB, in a process that has run nothing large before."""
    t = task(vocab)
    step(smaller(t), variant)
    return peak_mib(lambda: step(t, variant))


# ------------------------------------------------------------------------------------- what the pre-flight estimates


ESTIMATES = {
    "embedded, recovery": ("embedded", "recovery", 100),
    "embedded, paper": ("embedded", "paper", 100),
    "embedded, augmentation": ("embedded", "augmentation", 100),
    "head 49152 wide, recovery": ("wide", "recovery", 20),
}
"""Name -> pair, arm and steps of a training with the default settings."""


def measure_estimate(name: str) -> dict[str, Any]:
    """Train in this process, which has run nothing large before, and hold the pre-flight's estimates against it."""
    kind, arm, steps = ESTIMATES[name]
    pair, texts = embedded_training() if kind == "embedded" else wide_training()
    return compare_estimate(pair, texts, TrainConfig(arm=arm, steps=steps))


def embedded_training() -> tuple[ModelPair, TrainingTexts]:
    """Return the embedded pair with what it writes itself for 48 of its prompts."""
    pair = embedded()
    prompts = load_prompts(PromptConfig(source="embedded", split="train", limit=48))
    return pair, training_texts(pair, prompts, TrainingDataConfig())


def wide_training(vocab: int = 49_152, each: int = 20) -> tuple[ModelPair, TrainingTexts]:
    """Return a random pair with a wide head and texts of random tokens: 40 in a prompt, about 90 in a response."""
    pair = wide(vocab, WIDTHS[vocab])
    g = torch.Generator().manual_seed(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(8, vocab, (n,), generator=g).tolist())

    def plain(kind: str, n: int) -> dict[str, Any]:
        prompt = ids(40)
        return {"name": f"{kind} {n}", "aligned": prompt, "base": prompt, "response": ids(80 + n)}

    return pair, TrainingTexts(
        harmful=tuple(TrainingText(**plain("harmful", n), refusals=(ids(20 + n), ids(30))) for n in range(each)),
        utility=tuple(TrainingText(**plain("utility", n)) for n in range(each)),
        harmless=tuple(TrainingText(**plain("harmless", n)) for n in range(each)),
    )


def compare_estimate(pair: ModelPair, texts: TrainingTexts, config: TrainConfig) -> dict[str, Any]:
    """Return estimated and real: the peak above the loaded pair, and the seconds of the steps and of the whole call.

    Core seconds are those of the whole call: reading the frozen pair, the pre-flight and the film included. A short
    training comes first, so that libraries are loaded, and memory that is free already goes back to the system.
    """
    with tempfile.TemporaryDirectory() as folder:
        watch = replace(config.watch, film_every=1)
        brief = replace(config, steps=1, batch_size=2, micro_batch=None, harmful_share=0.5, watch=watch)
        distil(pair, _brief(texts), brief, out=Path(folder) / "brief")
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        made: list[Adapter] = []
        clock, used = time.perf_counter(), time.process_time()
        peak = peak_mib(lambda: made.append(distil(pair, texts, config, out=Path(folder) / "out")))
        whole, cores = time.perf_counter() - clock, time.process_time() - used
    flight = made[0].preflight
    assert flight is not None
    assert flight.step_seconds is not None
    estimated, steps = flight.step_seconds * config.steps, sum(s.seconds for s in made[0].history)
    return {
        "steps": config.steps,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "mib": {"estimated": round(flight.memory_mib, 1), "peak": round(peak, 1)},
        "estimated_over_peak": round(flight.memory_mib / peak, 2),
        "seconds": {"estimated": round(estimated, 1), "steps": round(steps, 1), "whole": round(whole, 1)},
        "core_seconds_whole": round(cores, 1),
        "estimated_over_steps": round(estimated / steps, 2),
        "said": flight.sentences[-1],
    }


def _brief(texts: TrainingTexts) -> TrainingTexts:
    """Return two texts of each kind, cut to a few tokens."""
    return TrainingTexts(
        harmful=tuple(replace(t, response=t.response[:4], refusals=(t.refusals[0][:4],)) for t in texts.harmful[:2]),
        utility=tuple(replace(t, response=t.response[:4]) for t in texts.utility[:2]),
        harmless=tuple(replace(t, response=t.response[:4]) for t in texts.harmless[:2]),
    )
