"""The training loop: optimizer steps over drawn rows, and checkpoints from which a killed training resumes bit for bit.

The seed, the step's number and the weights determine a step: its rows, learning rate and random numbers. So a
checkpoint holds the adapter, the optimiser's moments and the history, as safetensors and JSON.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.core.errors import NonFiniteLoss
from workbench.core.files import atomic_folder
from workbench.core.progress import Progress
from workbench.models.pair import ModelPair
from workbench.training import group
from workbench.training.config import TrainConfig
from workbench.training.film import Camera
from workbench.training.live import live_curves
from workbench.training.records import StepRecord
from workbench.training.rows import Sampler, random_numbers
from workbench.training.step import PassLoss, StepLoss
from workbench.training.student import Student

KEPT = 2
"""The number of checkpoints kept, the newest ones."""
HALF_SCALE = 1024.0
"""Factor of the loss before the backward pass of a float16 pair on a GPU, so that no gradient becomes 0."""
_STATE, _OPTIMISER, _FILM = "state.json", "optimiser.safetensors", "film.safetensors"


class Loop:
    """A running training: `history` has one record a step, `stopped` is why it ended before its last step."""

    def __init__(
        self,
        pair: ModelPair,
        student: Student,
        loss: StepLoss,
        sampler: Sampler,
        config: TrainConfig,
        camera: Camera | None,
    ) -> None:
        self.pair, self.student, self.loss, self.sampler = pair, student, loss, sampler
        self.config, self.camera = config, camera
        self.history: list[StepRecord] = []
        self.stopped: str | None = None
        how, self.parameters = config.chosen.optimiser, student.parameters()
        decayed = [p for p in self.parameters if p.ndim > 1]  # biases are not drawn towards 0
        groups = [
            {"params": decayed, "weight_decay": how.weight_decay},
            {"params": [p for p in self.parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=how.learning_rate)

    def run(self, folder: Path, progress: Progress) -> None:
        """Take the steps after the newest checkpoint in `folder`."""
        config, watch = self.config, self.config.watch
        if found := checkpoints(folder):
            progress.note(f"Resuming from {found[-1].name}.")
            self._load(found[-1])
        progress.picture = lambda: live_curves(self.history, self.camera.looks() if self.camera else [], config.steps)
        progress.skip(len(self.history))
        if self.camera is not None and not self.history:
            self.camera.take(0)
        self.student.train(True)
        for step in range(len(self.history) + 1, config.steps + 1):
            if self.stopped:
                break
            self.history.append(self._step(step))
            if watch.film_every and (step % watch.film_every == 0 or step == config.steps):
                self._look(step, progress)
            if watch.checkpoint_every and (step % watch.checkpoint_every == 0 or step == config.steps):
                if group.is_first():
                    self._save(folder, step)
                group.wait()
            progress.advance()

    def _step(self, step: int) -> StepRecord:
        """Take one optimizer step (1-based). Raises NonFiniteLoss where the loss or a gradient is not finite."""
        clock, config = time.perf_counter(), self.config
        torch.manual_seed(int(random_numbers(config.seed, "step", step).integers(2**63)))
        rate = learning_rate(config, step)
        for one in self.optimiser.param_groups:
            one["lr"] = rate
        passes = self.sampler.passes(step, group.rank())
        counts = self.loss.counts(self.student, passes)
        made: list[PassLoss] = []
        scale = HALF_SCALE if self.pair.device.type == "cuda" and self.pair.dtype == torch.float16 else 1.0
        for draws in passes:
            with self._precision():
                found = self.loss(self.student, draws, counts)
            if found.total.requires_grad:
                (found.total * scale).backward()
            made.append(replace(found, total=found.total.detach().float()))  # the graph is freed
        group.add_up(self.parameters, scale)
        length = nn.utils.clip_grad_norm_(self.parameters, config.chosen.optimiser.clip_norm)
        # the step's only read of the device; before it Python runs ahead
        parts = [part for each in made for part in each.sums]
        values = [*(each.total for each in made), *(v for each in made for v in each.sums.values())]
        norm, *read = torch.stack([length.float(), *values]).tolist()
        if not all(map(math.isfinite, read)):
            for each in made:
                each.check_finite(step)
        if not math.isfinite(norm):
            drawn = [d for n in range(config.processes) for draws in self.sampler.passes(step, n) for d in draws]
            raise NonFiniteLoss(
                f"the gradient is NaN or infinite at step {step} (rows {', '.join(sorted({d.name for d in drawn}))}); "
                "the last good checkpoint is kept. Lower the learning rate, or train in float32"
            )
        self.optimiser.step()
        self.optimiser.zero_grad()
        sums = defaultdict[str, float](float)
        for part, value in zip(parts, read[len(made) :], strict=True):
            sums[part] += value
        own = group.all_of([math.fsum(read[: len(made)]), *(sums[p] for p in counts.positions)])
        total, *added = (sum(each) for each in zip(*own, strict=True))
        return StepRecord(
            step=step,
            loss=total,
            parts={p: s / counts.positions[p] for p, s in zip(counts.positions, added, strict=True)},
            positions=dict(counts.positions),
            learning_rate=rate,
            gradient_norm=norm,
            seconds=time.perf_counter() - clock,
        )

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        half = self.pair.device.type == "cuda" and self.pair.dtype != torch.float32
        return torch.autocast("cuda", self.pair.dtype) if half else contextlib.nullcontext()

    def _look(self, step: int, progress: Progress) -> None:
        """Take a frame, and stop the training where it exceeds the KL budget."""
        if self.camera is not None:
            self.camera.take(step)
            budget, spent = self.config.watch.kl_budget_nats, self.camera.looks()[-1][2]
            if budget is not None and spent > budget and step < self.config.steps:
                self.stopped = (
                    f"stopped at step {step} of {self.config.steps}: KL(aligned || student) on the harmless texts is "
                    f"{spent:.3g} nats a token, above the budget of {budget:g}"
                )
                progress.note(self.stopped[:1].upper() + self.stopped[1:] + ".")
        self.stopped = next(filter(None, group.all_of(self.stopped)), None)

    def _save(self, folder: Path, step: int) -> None:
        from safetensors.torch import save_file

        moments: dict[str, Tensor] = {
            f"{number}.{name}": value.detach().cpu().contiguous()
            for number, values in self.optimiser.state_dict()["state"].items()
            for name, value in values.items()
        }
        body = {"steps": [dict(vars(s)) for s in self.history], "stopped": self.stopped}
        with atomic_folder(folder / f"checkpoint-{step}") as partial:
            self.student.save(partial)
            save_file(moments, partial / _OPTIMISER)
            (partial / _STATE).write_text(json.dumps(body), "utf-8")
            if self.camera is not None:
                self.camera.save(partial / _FILM)
        for old in checkpoints(folder)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        body = json.loads((folder / _STATE).read_text("utf-8"))
        self.history, self.stopped = [StepRecord(**s) for s in body["steps"]], body["stopped"]
        self.student.load(folder)
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in load_file(folder / _OPTIMISER).items():
            number, _, name = key.partition(".")
            state.setdefault(int(number), {})[name] = value
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        if self.camera is not None:
            self.camera.load(folder / _FILM)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of a step (1-based): a linear rise from 0, then what `decay` says, down to 0."""
    how, done = config.chosen.optimiser, step - 1
    warm = math.ceil(how.warmup_share * config.steps)
    if done < warm:
        return how.learning_rate * (done / warm)
    left = max(1, config.steps - warm)
    share = {
        "linear": (config.steps - done) / left,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * ((done - warm) / left))),
        "constant": 1.0,
    }[how.decay]
    return how.learning_rate * share


def checkpoints(folder: Path) -> list[Path]:
    """List the complete checkpoints of a training, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if p.name.rpartition("-")[2].isdigit() and (p / _STATE).is_file()]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]))
