"""The verb of the room: a grid file in, one folder out."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import TextIOBase
from pathlib import Path
from typing import cast

from workbench.core.errors import ParameterError, UnknownName, nearest
from workbench.core.files import atomic_file
from workbench.core.provenance import Stopwatch
from workbench.running.batch.collate import write_results
from workbench.running.batch.devices import check_demands, cores, memory_gb, visible_gpus
from workbench.running.batch.drive import Batch, State
from workbench.running.batch.estimate import expected, plan_text
from workbench.running.batch.executor import Executor
from workbench.running.batch.grid import read_grid
from workbench.running.batch.local import LocalPool
from workbench.running.batch.manifest import Manifest
from workbench.running.batch.plan import Cell, Plan, plan_of
from workbench.running.batch.status import Status

EXECUTORS = ("local", "ray")


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Say which grid runs, where to, and on what.

    grid      the grid file; out: the batch's folder (None: what the file says)
    workers   cells at once; None: one for each GPU, or share of one; without GPUs one for each core
    threads   of each worker's computations; None: the cores divided among the workers
    executor  "local": processes of this machine; "ray": a Ray cluster, at `address` (None: one on this machine)
    warm      keep each worker's kernel, and the pairs that it has loaded, from cell to cell
    retry     run cells again that failed before
    """

    grid: str | Path
    out: str | Path | None = None
    workers: int | None = None
    threads: int | None = None
    executor: str = "local"
    address: str | None = None
    warm: bool = False
    retry: bool = False

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise UnknownName(f"there is no executor {self.executor!r}: {nearest(self.executor, EXECUTORS)}")
        for name in ("workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ParameterError(f"{name} takes a whole number from 1, not {value!r}")
        if self.executor == "local" and self.address is not None:
            raise ParameterError("an address is that of a Ray cluster: give the executor 'ray' too")
        if self.executor == "ray" and self.warm:
            raise ParameterError(
                "warm workers are kept by the local executor only: on Ray each cell has a process of its own"
            )


@dataclass(frozen=True, kw_only=True)
class BatchPaths:
    """Name what a batch left, and count its cells; `failed` and `blocked` are 0 where all of it is finished."""

    folder: Path
    results: Path
    page: Path
    done: int
    skipped: int
    failed: int
    blocked: int


Open = Callable[[], Executor]


def run_batch(config: BatchConfig, *, stream: TextIOBase | None = None) -> BatchPaths:
    """Run every cell of a grid that is not finished and return what it all came to.

    The file is checked whole, then nothing but a fault of a cell's own ends that cell, and no cell ends the others.
    `stream` (default: standard error) is told how far it is. Raises what `read_grid` and `plan_of` raise, and
    ParameterError where a cell asks for more than there is; KeyboardInterrupt passes on when the cells that ran are
    stopped. Finished cells stay finished in every case.
    """
    watch = Stopwatch("batch", config)
    plan, executor, gpus = prepare(config)
    plan.out.mkdir(parents=True, exist_ok=True)
    _keep_grid(plan)
    batch = Batch(plan, executor, gpus=gpus, retry=config.retry)
    before = sum(s == "done" for s in batch.states.values())
    status = Status(plan, stream or cast(TextIOBase, sys.stderr))
    try:
        batch.run(tell=status.tell, note=status.note)
    finally:
        paths = _conclude(batch, watch)
    states = list(batch.states.values())
    return BatchPaths(
        folder=plan.out,
        results=paths[0],
        page=paths[1],
        done=states.count("done"),
        skipped=before,
        failed=states.count("failed"),
        blocked=states.count("blocked"),
    )


def dry_run(config: BatchConfig) -> str:
    """Return the plan in words: cells, needs, what is skipped, the time and memory expected. Starts nothing."""
    plan, executor, gpus = prepare(config)
    try:
        batch = Batch(plan, executor, gpus=gpus, retry=config.retry)
        threads = config.threads or max(1, cores() // executor.slots)
        guesses = expected(plan, Manifest(plan.out), gpus=gpus, threads=threads)
        return plan_text(plan, batch.states, guesses, gpus=gpus, slots=executor.slots)
    finally:
        executor.close()


def prepare(config: BatchConfig) -> tuple[Plan, Executor, int]:
    """Return the checked plan, the executor that would run it, and how many GPUs that has."""
    plan = plan_of(read_grid(config.grid), config.out)
    _check_folder(plan)
    if config.executor == "ray":
        from workbench.running.batch.ray_pool import RayPool

        pool = RayPool.connect(address=config.address, workers=config.workers, threads=config.threads)
        try:
            check_demands(
                plan, gpus=pool.most_gpus, most_gb=pool.most_gb, where="no machine of the cluster has more than"
            )
        except BaseException:
            pool.close()
            raise
        return plan, pool, pool.most_gpus
    gpus = visible_gpus()
    check_demands(plan, gpus=len(gpus), most_gb=memory_gb(), where="this machine has")
    workers = config.workers or default_workers(plan, gpus)
    threads = config.threads or max(1, cores() // workers)
    return plan, LocalPool(workers=workers, gpus=gpus, threads=threads, warm=config.warm), len(gpus)


def default_workers(plan: Plan, gpus: tuple[str, ...]) -> int:
    """Return how many cells run at once where nobody says: as many as have a GPU, or their share; else the cores."""
    most = cores()
    if gpus:
        least = min((c.gpus for c in plan.cells if c.gpus), default=1.0)
        most = max(1, int(len(gpus) / min(least, 1.0) + 1e-9))
    return max(1, min(most, len(plan.cells)))


def _check_folder(plan: Plan) -> None:
    if plan.out.exists() and not plan.out.is_dir():
        raise ParameterError(f"--out {str(plan.out)!r} is a file, not a folder")
    if plan.out.is_dir():
        names = {p.name for p in plan.out.iterdir()}
        if names and "manifest.jsonl" not in names:
            raise ParameterError(
                f"--out {str(plan.out)!r} exists and is not an earlier batch (no manifest.jsonl in it): "
                "name another folder"
            )


def _keep_grid(plan: Plan) -> None:
    target = plan.out / "grid.yaml"
    if not (target.exists() and target.samefile(plan.grid.path)):
        with atomic_file(target) as partial:
            shutil.copyfile(plan.grid.path, partial)
    (plan.out / "manifest.jsonl").touch()  # by which the next batch knows the folder


def _conclude(batch: Batch, watch: Stopwatch) -> tuple[Path, Path]:
    """Write table and page of what is finished so far."""
    from workbench.running.batch.page import write_page

    batch.manifest.refresh()
    states: dict[str, State] = {k: "waiting" if s == "running" else s for k, s in batch.states.items()}
    done: list[Cell] = [c for c in batch.plan.cells if states[c.key] == "done"]
    results = write_results(batch.plan, done)
    counted = {s: list(states.values()).count(s) for s in dict.fromkeys(states.values())}
    record = watch.record(resolved={"stages": [s.name for s in batch.plan.grid.stages], "cells": counted})
    return results, write_page(batch.plan, states, batch.manifest, record)
