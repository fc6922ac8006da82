"""`run_batch`: run a grid file into one folder."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from io import TextIOBase
from pathlib import Path
from typing import cast

from workbench.core.configs import at_least, check_fields
from workbench.core.errors import ParameterError
from workbench.core.files import atomic_file
from workbench.core.provenance import Stopwatch
from workbench.running.batch.collate import write_results
from workbench.running.batch.drive import Batch
from workbench.running.batch.estimate import plan_text
from workbench.running.batch.grid import read_grid
from workbench.running.batch.plan import plan_of
from workbench.running.batch.pools import LocalPool, RayPool
from workbench.running.batch.status import Status


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """A grid to run, its folder and its engine.

    grid      the grid file; out: the batch's folder (None: the one in the file)
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
        check_fields(self, workers=at_least(1), threads=at_least(1), executor=("local", "ray"))
        if self.executor == "local" and self.address is not None:
            raise ParameterError("an address is that of a Ray cluster: give the executor 'ray' too")


@dataclass(frozen=True, kw_only=True)
class BatchPaths:
    """The files of a batch, and the counts of its cells; `failed` and `blocked` are 0 where all cells are finished."""

    folder: Path
    results: Path
    page: Path
    done: int
    skipped: int
    failed: int
    blocked: int


def run_batch(config: BatchConfig, *, stream: TextIOBase | None = None) -> BatchPaths:
    """Run every unfinished cell of a grid, write the progress to `stream` (standard error), and collate the results.

    A cell that fails ends alone. Raises what `read_grid` and `plan_of` raise, ParameterError where a cell asks for more
    than the engine has, and KeyboardInterrupt after SIGINT and SIGTERM, when the running cells have stopped.
    """
    from workbench.running.batch.page import write_page

    watch, batch = Stopwatch("batch", config), _prepare(config)
    plan, before = batch.plan, Counter(batch.states.values())
    (plan.out / "cells").mkdir(parents=True, exist_ok=True)
    with atomic_file(plan.out / "grid.yaml") as partial:
        shutil.copyfile(plan.grid.path, partial)
    status = Status(batch, stream or cast(TextIOBase, sys.stderr))
    try:
        batch.run(status.tell, status.note)
    finally:
        counts = Counter(batch.states.values())
        results = write_results(plan, [c for c in plan.cells if batch.states[c.key] == "done"])
        record = watch.record(resolved={"stages": [s.name for s in plan.grid.stages], "cells": dict(counts)})
        page = write_page(plan, batch.states, record)
    ended = {name: counts[name] for name in ("done", "failed", "blocked")}
    return BatchPaths(folder=plan.out, results=results, page=page, skipped=before["done"], **ended)


def dry_run(config: BatchConfig) -> str:
    """Return the plan as text, with the expected time and memory, and start nothing."""
    batch = _prepare(config)
    with contextlib.closing(batch.pool):
        return plan_text(batch)


def _prepare(config: BatchConfig) -> Batch:
    """Return the checked plan with the engine that would run it."""
    plan = plan_of(read_grid(config.grid), config.out)
    if plan.out.exists() and not plan.out.is_dir():
        raise ParameterError(f"--out {str(plan.out)!r} is a file, not a folder")
    if plan.out.is_dir() and any(plan.out.iterdir()) and not (plan.out / "cells").is_dir():
        raise ParameterError(f"--out {str(plan.out)!r} is not an earlier batch (it has no cells): name another folder")
    slots, threads, warm = config.workers, config.threads, config.warm
    if config.executor == "ray":
        pool: LocalPool = RayPool(config.address, slots=slots, threads=threads, warm=warm)
    else:
        pool = LocalPool(plan, slots=slots, threads=threads, warm=warm)
    try:
        pool.check(plan)
    except ParameterError:
        pool.close()
        raise
    return Batch(plan.with_gpus(float(pool.most_gpus > 0)), pool, retry=config.retry)
