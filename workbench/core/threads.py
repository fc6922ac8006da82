"""Threads of the numeric libraries: no more than this process may use, and none that spins for long while it waits.

Idle threads of libgomp spin, by default, for as long as the next parallel region takes to come. Two processes on the
same cores then take them from each other: each runs many times slower than alone.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

SPINS = "1000"
"""Rounds that an idle thread spins before it sleeps; measured by `python -m benchmarks threads`."""

QUOTA = Path("/sys/fs/cgroup/cpu.max")


def share_the_cores(environment: MutableMapping[str, str] = os.environ, quota: Path = QUOTA) -> None:
    """Set GOMP_SPINCOUNT, and OMP_NUM_THREADS where a container's quota is below the cores that are seen.

    What the user has set stays. libgomp reads both when it is loaded, so nothing is set once torch is imported.
    """
    if "torch" in sys.modules:
        return
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & environment.keys():
        environment["GOMP_SPINCOUNT"] = SPINS
    allowed = _quota_cores(quota)
    if allowed is not None and allowed < _visible_cores() and "OMP_NUM_THREADS" not in environment:
        environment["OMP_NUM_THREADS"] = str(allowed)


def thread_settings() -> dict[str, str]:
    """Return the settings of this process that decide how threads wait and how many there are."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return {name: os.environ[name] for name in names if name in os.environ}


def _visible_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota_cores(file: Path) -> int | None:
    try:
        limit, period = file.read_text().split()
        return max(1, math.ceil(int(limit) / int(period)))
    except (OSError, ValueError):  # no container, or "max": no quota
        return None
