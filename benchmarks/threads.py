"""Two processes on one machine: notebook 04 alone and twice side by side, by how long idle threads spin."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SETTINGS: dict[str, dict[str, str]] = {
    "as shipped": {},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
    "torch's own": {"GOMP_SPINCOUNT": "30000000000"},
}
"""What the user has set stays; the last is what libgomp does where there are no more threads than cores."""


def seconds(processes: int, setting: dict[str, str], notebook: str = "04_evaluation") -> float:
    """Run the notebook in so many processes at once, each with an empty cache; return the seconds until all end."""
    with tempfile.TemporaryDirectory() as name:
        started, running = time.perf_counter(), []
        for i in range(processes):
            environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MKL_"))}
            environment |= {"WORKBENCH_CACHE": f"{name}/cache{i}", "CUDA_VISIBLE_DEVICES": "", **setting}
            words = [sys.executable, "-m", "workbench", "run", notebook, "--out", f"{name}/run{i}"]
            running.append(subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL))
        if any(process.wait() for process in running):
            raise SystemExit(f"{notebook} failed under {setting}")
        return round(time.perf_counter() - started, 1)


def measure() -> dict[str, Any]:
    """Return seconds alone and of two side by side for each setting; torch's own way two at a time takes minutes."""
    seconds(1, {})  # the disk's cache is warm for all
    return {name: {"alone": seconds(1, s), "two_at_once": seconds(2, s)} for name, s in SETTINGS.items()}
