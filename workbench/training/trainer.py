"""transformers' Trainer with our rows, our losses and our checkpoints, which hold safetensors and JSON alone."""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from workbench.core.errors import NonFiniteLoss
from workbench.core.files import atomic_folder
from workbench.core.progress import Progress
from workbench.training import group
from workbench.training.config import TrainConfig
from workbench.training.film import Camera
from workbench.training.live import live_curves
from workbench.training.records import StepRecord
from workbench.training.sampler import Draw, Sampler
from workbench.training.step import StepCounts, StepLoss
from workbench.training.student import Student

PARTS = ("recover", "complete", "teacher", "refusal", "compliance", "utility")
"""What a row counts as in curves and normalisers."""

KEPT = 2
"""How many checkpoints are kept, the newest ones."""

_STATE, _OPTIMISER, _FILM = "trainer_state.json", "optimiser.safetensors", "film.safetensors"


def arguments(config: TrainConfig, folder: Path, device: torch.device, dtype: torch.dtype) -> TrainingArguments:
    """Return the trainer's own settings for a config."""
    how = config.chosen.optimiser
    on_gpu = device.type == "cuda"
    made = TrainingArguments(
        output_dir=str(folder),
        max_steps=config.steps,
        per_device_train_batch_size=config.rows_in_a_pass,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=how.learning_rate,
        weight_decay=how.weight_decay,
        max_grad_norm=how.clip_norm,
        lr_scheduler_type={"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}[how.decay],
        warmup_steps=math.ceil(how.warmup_share * config.steps),
        optim="adamw_torch",
        bf16=on_gpu and dtype == torch.bfloat16,
        fp16=on_gpu and dtype == torch.float16,
        use_cpu=device.type == "cpu",
        save_strategy="steps" if config.watch.checkpoint_every else "no",
        save_steps=config.watch.checkpoint_every or config.steps,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        seed=config.seed,
    )
    made._n_gpu = min(1, made.n_gpu)  # several processes, never several threads in one
    return made


class DistilTrainer(Trainer):
    """Train a student on drawn rows. `history` has one record a step, those before a resume included."""

    def __init__(
        self, student: Student, loss: StepLoss, sampler: Sampler, args: TrainingArguments, watcher: Watcher
    ) -> None:
        self.student, self.step_loss, self.sampler = student, loss, sampler
        self.watcher = watcher
        self._counts = StepCounts(positions={}, clip_nats=None)
        super().__init__(model=student.body, args=args, callbacks=[watcher])
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = True  # our normalisers count the whole optimizer step
        watcher.trainer = self

    # -------------------------------------------------------------------------------------------------- the loss

    def _rows_in_order(self) -> Any:
        """Return the drawn rows in their order; a resumed run skips batches without making their rows."""
        rows: Any = self.sampler
        loader: Any = DataLoader(rows, batch_size=self.args.per_device_train_batch_size, collate_fn=_as_drawn)
        return self.accelerator.prepare(loader)

    def _passes_of_a_step(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        """Take the passes of one optimizer step, and what they share."""
        passes = [one for _, one in zip(range(num_batches), epoch_iterator, strict=False)]
        self._counts = self.step_loss.counts(self.student.body, [p["draws"] for p in passes])
        return passes, None

    get_train_dataloader, get_batch_samples = _rows_in_order, _passes_of_a_step  # the trainer's names for the two

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of one pass, normalised over the optimizer step."""
        made = self.step_loss(model, inputs["draws"], self._counts, self.state.global_step + 1)  # type: ignore[arg-type]
        self.watcher.add(made.total.detach(), made.sums)
        total = made.total * group.size()  # gradients are averaged over the processes
        return (total, None) if return_outputs else total

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: nobody is shown a count of operations."""
        return 0

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """Leave the pair's weights where they were loaded."""

    # ----------------------------------------------------------------------------------------------- checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir)
        step = self.state.global_step
        if group.is_first():
            self._write_checkpoint(folder, step)
        group.wait()

    def _write_checkpoint(self, folder: Path, step: int) -> None:
        with atomic_folder(folder / f"checkpoint-{step}") as partial:
            self.student.save(partial)
            self.state.save_to_json(str(partial / _STATE))
            _save_optimiser(self.optimizer, self.lr_scheduler, partial)
            self.watcher.save(partial)
        for old in checkpoints(folder)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.student.load(Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            _load_optimiser(self.optimizer, self.lr_scheduler, Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            _restore_random(Path(checkpoint))


def _as_drawn(draws: Sequence[Draw]) -> dict[str, Any]:
    return {"draws": list(draws)}


def checkpoints(folder: Path) -> list[Path]:
    """List the complete checkpoints of a training, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if p.name.rpartition("-")[2].isdigit() and (p / _STATE).is_file()]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]))


def _save_optimiser(optimizer: Any, scheduler: Any, folder: Path) -> None:
    from safetensors.torch import save_file

    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {
        f"{number}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for number, values in state["state"].items()
        for name, value in values.items()
    }
    tensors["random.torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors |= {f"random.cuda.{n}": s for n, s in enumerate(torch.cuda.get_rng_state_all())}
    save_file(tensors, folder / _OPTIMISER)
    numbers = np.random.get_state(legacy=True)
    rest = {
        "groups": state["param_groups"],
        "scheduler": {k: v for k, v in scheduler.state_dict().items() if k != "lr_lambdas"},
        "python": random.getstate(),
        "numpy": [numbers[0], numbers[1].tolist(), *numbers[2:]],  # type: ignore[index]
    }
    (folder / "optimiser.json").write_text(json.dumps(rest), "utf-8")


def _load_optimiser(optimizer: Any, scheduler: Any, folder: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(folder / _OPTIMISER)
    rest = json.loads((folder / "optimiser.json").read_text("utf-8"))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        if number != "random":
            state.setdefault(int(number), {})[name] = value
    groups = [{**g, "betas": tuple(g["betas"])} if "betas" in g else g for g in rest["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    scheduler.load_state_dict({**scheduler.state_dict(), **rest["scheduler"]})


def _restore_random(folder: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(folder / _OPTIMISER)
    rest = json.loads((folder / "optimiser.json").read_text("utf-8"))
    torch.set_rng_state(tensors["random.torch"])
    if torch.cuda.is_available():
        for n in range(torch.cuda.device_count()):
            if f"random.cuda.{n}" in tensors:
                torch.cuda.set_rng_state(tensors[f"random.cuda.{n}"], n)
    name, keys, *more = rest["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *more))
    version, numbers, gauss = rest["python"]
    random.setstate((version, tuple(numbers), gauss))


# -------------------------------------------------------------------------------------------------------- watching


class Watcher(TrainerCallback):
    """Keep the history and the film, report progress, and stop where the budget is spent."""

    def __init__(self, config: TrainConfig, camera: Camera | None, progress: Progress) -> None:
        self._config, self._camera, self._progress = config, camera, progress
        self.trainer: DistilTrainer | None = None
        self.history: list[StepRecord] = []
        self.stopped: str | None = None
        self._total, self._sums, self._norm = 0.0, dict[str, float](), math.nan
        self._clock = time.perf_counter()
        progress.picture = self.picture

    def picture(self) -> str:
        """Return the curves so far as HTML."""
        looks = self._camera.looks() if self._camera is not None else []
        return live_curves(self.history, looks, self._config.steps, PARTS)

    def add(self, total: Tensor, sums: dict[str, float]) -> None:
        """Add one pass to the step that is under way."""
        self._total += float(total)
        for part, value in sums.items():
            self._sums[part] = self._sums.get(part, 0.0) + value

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Take the first frame, before any step."""
        self._progress.skip(state.global_step)
        if self._camera is not None and state.global_step == 0:
            self._camera.take(0)
        self._clock = time.perf_counter()

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Refuse to take a step along gradients that are not finite."""
        assert self.trainer is not None
        grads = [p.grad for p in self.trainer.student.parameters() if p.grad is not None]
        self._norm = float(torch.stack([g.norm() for g in grads]).norm()) if grads else 0.0
        if not math.isfinite(self._norm):
            names = sorted({d.name for d in self._drawn(state.global_step)})
            raise NonFiniteLoss(
                f"the gradient is NaN or infinite at step {state.global_step + 1}, whose rows are {', '.join(names)}: "
                "the last good checkpoint is kept. Lower the learning rate, or train in float32"
            )

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Record the step, look at the fixed texts, and decide whether to go on."""
        assert self.trainer is not None
        positions = self.trainer._counts.positions
        step = state.global_step
        self._total, *sums = group.summed([self._total, *(self._sums.get(p, 0.0) for p in PARTS)])
        self._sums = {p: s for p, s in zip(PARTS, sums, strict=True) if p in positions}
        now = time.perf_counter()
        self.history.append(
            StepRecord(
                step=step,
                loss=self._total,
                parts={k: v / positions[k] for k, v in self._sums.items()},
                positions=dict(positions),
                learning_rate=float(self.trainer._get_learning_rate()),
                gradient_norm=self._norm,
                seconds=now - self._clock,
            )
        )
        self._total, self._sums, self._clock = 0.0, {}, now
        every = self._config.watch.film_every
        if every and (step % every == 0 or step == self._config.steps):
            if self._camera is not None:
                self._camera.take(step)
                self._look(step, control)
            control.should_training_stop |= any(group.all_of(self.stopped is not None))
            self._clock = time.perf_counter()
        self._progress.advance()

    def _look(self, step: int, control: TrainerControl) -> None:
        assert self._camera is not None
        budget, spent = self._config.watch.kl_budget_nats, self._camera.harmless_nats()
        if budget is not None and spent > budget and step < self._config.steps:
            self.stopped = (
                f"stopped at step {step} of {self._config.steps}: KL(aligned || student) on the harmless texts is "
                f"{spent:.3g} nats a token, above the budget of {budget:g}"
            )
            self._progress.note(self.stopped[:1].upper() + self.stopped[1:] + ".")

    def _drawn(self, step: int) -> list[Draw]:
        assert self.trainer is not None
        size = self._config.batch_size
        return [self.trainer.sampler[n] for n in range(step * size, (step + 1) * size)]

    def save(self, folder: Path) -> None:
        """Write history, film and what ended the training into a checkpoint."""
        body = {"steps": [dict(vars(s)) for s in self.history], "stopped": self.stopped}
        (folder / "history.json").write_text(json.dumps(body), "utf-8")
        if self._camera is not None:
            self._camera.save(folder / _FILM)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote into a checkpoint."""
        body = json.loads((folder / "history.json").read_text("utf-8"))
        self.history, self.stopped = [StepRecord(**s) for s in body["steps"]], body["stopped"]
        if self._camera is not None:
            self._camera.load(folder / _FILM)
