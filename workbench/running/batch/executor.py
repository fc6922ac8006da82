"""What runs cells: the job that it is given, the outcome that it returns, and the protocol between it and a batch."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

Status = Literal["ok", "failed", "lost"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Say all that a process needs to run one cell, wherever it is; `lease` is a descriptor that it inherits."""

    key: str
    name: str
    notebook: str
    out: str
    parameters: Mapping[str, Any]
    cwd: str
    seconds: float | None = None
    memory_gb: float | None = None
    gpus: float = 0.0
    lease: int | None = None

    def to_json(self) -> str:
        """Return the job as one line."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read a job back."""
        return cls(**json.loads(text))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Say how a job ended.

    status   "ok": its folder stands in its place; "failed": of itself; "lost": its worker went away under it, which
             says nothing about the cell and is tried again
    cause    "notebook", "seconds", "memory" or "worker"; empty where it is ok
    error    one sentence
    seconds  from its start to its end; peak_gb is the most that its processes held together, GB
    gpu      what CUDA_VISIBLE_DEVICES was in the cell's own process: the GPUs that it saw
    """

    key: str
    status: Status
    cause: str = ""
    error: str = ""
    seconds: float = 0.0
    peak_gb: float | None = None
    gpu: str = ""
    host: str = ""
    worker: int = 0
    log: str = field(default="", repr=False)


@runtime_checkable
class Executor(Protocol):
    """Run jobs, some at once. A batch asks `fits` before it submits, and then waits for outcomes."""

    name: str

    @property
    def slots(self) -> int:
        """Return how many jobs can run at once."""

    def fits(self, job: Job) -> bool:
        """Tell whether the job could start now."""

    def submit(self, job: Job) -> None:
        """Start a job that fits."""

    def wait(self, seconds: float) -> list[Outcome]:
        """Return what has ended, at once or after at most so many seconds."""

    def running(self) -> Mapping[str, str]:
        """Return the keys that run, each with what it last said."""

    def cancel(self) -> None:
        """Stop every job; none of them has an outcome, and none leaves a process or a half-made folder."""

    def close(self) -> None:
        """Let idle workers go."""


def keep_failed(out: Path, name: str, job_out: Path) -> Path | None:
    """Move what a failed or killed run left beside its folder to `failed/`, and return where, or None for nothing."""
    left = [job_out.with_name(f"{name}.failed"), *sorted(job_out.parent.glob(f"{name}.partial-*"))]
    left = [p for p in left if p.is_dir() and not p.name.endswith("-old")]
    target = out / "failed" / name
    if not left:
        return None
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(left[0], target)
    for other in left[1:]:
        shutil.rmtree(other, ignore_errors=True)
    return target
