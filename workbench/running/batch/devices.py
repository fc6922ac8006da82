"""What this machine has for a batch: its visible GPUs, its cores, its memory. No torch is imported."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

from workbench.core.errors import ParameterError
from workbench.running.batch.plan import Plan


def visible_gpus() -> tuple[str, ...]:
    """Return the names of the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, else of nvidia-smi."""
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked is not None:
        names = [part.strip() for part in asked.split(",") if part.strip()]
        return tuple(names[: names.index("-1")] if "-1" in names else names)
    if not (command := shutil.which("nvidia-smi")):
        return ()
    words = (command, "--query-gpu=index", "--format=csv,noheader")
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return tuple(line for line in done.stdout.split() if line.isdigit()) if done.returncode == 0 else ()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gb() -> float:
    """Return this machine's memory, or its container's limit where that is less, GB (10^9 bytes)."""
    import psutil

    whole = int(psutil.virtual_memory().total)
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            whole = min(whole, int(file.read()))
    return whole / 1e9


def shares(gpus: float | None, present: int) -> float:
    """Return the GPUs of a cell: what it asks, else one where there are any."""
    return gpus if gpus is not None else float(present > 0)


def check_demands(plan: Plan, *, gpus: int, most_gb: float, where: str) -> None:
    """Check that no cell asks for more GPUs or memory than there is. Raises ParameterError, which names the stage."""
    for stage in plan.grid.stages:
        if stage.gpus is not None and stage.gpus > gpus:
            asked = f"{stage.gpus:g} GPU{'' if stage.gpus == 1 else 's'}"
            hint = "lower `gpus`, or run the batch where they are (CUDA_VISIBLE_DEVICES hides GPUs)"
            raise ParameterError(f"stage {stage.name!r} asks for {asked} a cell, and {where} {gpus}: {hint}")
        if stage.memory_gb is not None and stage.memory_gb > most_gb:
            allowed = f"allows each cell {stage.memory_gb:g} GB, and {where} {most_gb:.1f} GB: lower `memory_gb`"
            raise ParameterError(f"stage {stage.name!r} {allowed}")
