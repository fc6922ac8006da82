"""Train with several processes of this machine: launch them, show their progress, and report why they ended.

Each process holds the pair on its own device and takes its share of every batch; their gradients are added up.
accelerate launches them, on GPUs and on CPUs. On a cluster any launcher runs `python -m workbench.training.worker JOB`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import torch

from workbench.core import errors
from workbench.core.errors import ParameterError, ProcessFailed
from workbench.core.files import atomic_file
from workbench.core.progress import Progress
from workbench.core.store import Store
from workbench.models.pair import ModelPair, PairConfig
from workbench.training.config import TrainConfig
from workbench.training.rows import TrainingTexts

JOB, ERROR = "job.json", "error.json"
OWNER = "WORKBENCH_TRAINING_OWNER"
"""The variable with the id of the process whose end, of any kind, ends the training processes."""
_LAUNCHER = (
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "--num_processes"),
)
"""`--multi_gpu` means several processes of a machine, on CPUs too; port 0 is a free one."""
_STEPS = re.compile(r": (\d+)/(\d+) steps")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training as a file, for other processes: the arguments of `distil`. `store` is a folder, None for none."""

    pair: PairConfig
    texts: TrainingTexts
    config: TrainConfig
    out: str
    store: str | None
    start: str | None

    def save(self, file: Path) -> None:
        """Write the job as JSON."""
        with atomic_file(file) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(self)), "utf-8")

    @classmethod
    def load(cls, file: Path) -> Job:
        """Read a job."""
        return cast(Job, _typed(cls, json.loads(file.read_text("utf-8"))))


def _typed(kind: Any, value: Any) -> Any:
    """Return a value of this type from what `dataclasses.asdict` and JSON made of it."""
    if isinstance(value, dict):
        own = next((k for k in (kind, *get_args(kind)) if dataclasses.is_dataclass(k)), None)
        types = get_type_hints(own) if own is not None else {}
        fields = {k: _typed(types.get(k), v) for k, v in value.items()}
        return fields if own is None else own(**fields)  # type: ignore[operator]
    if isinstance(value, list):
        own = next((k for k in (kind, *get_args(kind)) if getattr(k, "__origin__", None) is tuple), None)
        return tuple(_typed(next(iter(get_args(own)), None), v) for v in value)
    return value


def train_together(
    pair: ModelPair,
    texts: TrainingTexts,
    config: TrainConfig,
    *,
    out: Path,
    work: Path,
    store: Store | None,
    start: str | Path | None,
    what: str,
) -> None:
    """Run a training in `config.processes` processes until its adapter lies in `out`.

    An interrupt stops the processes; their checkpoints stay. Raises ParameterError for a pair that was made in memory
    (the processes could not load it) and for more processes than GPUs, ProcessFailed where they die, and what the
    training itself raises.
    """
    if pair.config is None:
        raise ParameterError(
            f"processes is {config.processes}, but the pair {pair.name!r} is only in this process's memory: load "
            "it with load_pair, or set processes to 1"
        )
    if pair.config.device_map is not None:
        raise ParameterError(
            f"processes is {config.processes}, but a device_map spreads the pair over devices, and each process needs "
            "it on one: load it without device_map, and set experimental_sharded where one device cannot hold it"
        )
    gpus = torch.cuda.device_count()
    if pair.device.type == "cuda" and gpus < config.processes:
        raise ParameterError(
            f"processes is {config.processes}, but this machine has {gpus} GPUs: give one process a GPU"
        )
    work.mkdir(parents=True, exist_ok=True)
    (work / ERROR).unlink(missing_ok=True)
    job = Job(
        pair=dataclasses.replace(pair.config, device="auto" if pair.device.type == "cuda" else "cpu"),
        texts=texts,
        config=config,
        out=str(out),
        store=None if store is None or store.folder is None else str(store.folder),
        start=None if start is None else str(start),
    )
    job.save(work / JOB)
    said: deque[str] = deque(maxlen=20)
    with Progress(what, config.steps, "steps") as progress:
        command = [*_LAUNCHER, str(config.processes), "-m", "workbench.training.worker", str(work / JOB)]
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, OWNER: str(os.getpid())},
        ) as process:
            assert process.stderr is not None
            try:
                for line in process.stderr:
                    said.append(line.rstrip())
                    if (found := _STEPS.search(line)) and int(found[2]) == config.steps:
                        progress.advance(int(found[1]) - progress.done)
            except BaseException:
                os.killpg(process.pid, signal.SIGTERM)  # interrupted: stop all of them
                raise
    if process.returncode:
        raise _why(work, process.returncode, said)


def _why(work: Path, code: int, said: deque[str]) -> Exception:
    if (work / ERROR).is_file():
        told = json.loads((work / ERROR).read_text("utf-8"))
        kind = getattr(errors, told["kind"], None)
        if isinstance(kind, type) and issubclass(kind, errors.WorkbenchError):
            return kind(told["message"])
        return ProcessFailed(f"a training process failed with {told['kind']}: {told['message']}; its checkpoints stay")
    last = " / ".join(line for line in said if line.strip())[-600:]
    return ProcessFailed(
        f"the training processes ended with code {code} and no error (memory or a signal, perhaps); they last wrote: "
        f"{last or 'nothing'}. Checkpoints stay: the same call resumes from the newest one"
    )
