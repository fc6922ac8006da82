"""The two engines: processes of this machine, each with its GPUs, and tasks of a Ray cluster; neither retries."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import psutil

from workbench.core.errors import NotPresent, ParameterError
from workbench.running.batch.cell import STOP, STOP_SECONDS, Outcome, run_cell, worker
from workbench.running.batch.plan import Cell, Plan


def visible_gpus() -> tuple[str, ...]:
    """Return the names of the GPUs that this process may use, from CUDA_VISIBLE_DEVICES, else from nvidia-smi."""
    if (asked := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [part.strip() for part in asked.split(",") if part.strip()]
        return tuple(names[: names.index("-1")] if "-1" in names else names)
    if not (command := shutil.which("nvidia-smi")):
        return ()
    words = (command, "--query-gpu=index", "--format=csv,noheader")
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return tuple(line for line in done.stdout.split() if line.isdigit()) if done.returncode == 0 else ()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gb() -> float:
    """Return this machine's memory, or its container's limit where that is less, GB (10^9 bytes)."""
    whole = int(psutil.virtual_memory().total)
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            whole = min(whole, int(Path(path).read_text("ascii")))
    return whole / 1e9


class LocalPool:
    """Processes of this machine, each an executor of its own, so that one that dies ends no other.

    A cell sees its own GPUs alone, or shares one. A warm process keeps its kernel, with the pairs in it.
    """

    name, where = "local", "this machine has"

    def __init__(self, plan: Plan, *, slots: int | None, threads: int | None, warm: bool) -> None:
        self._used = dict.fromkeys(visible_gpus(), 0.0)
        self.most_gpus, self.most_gb = len(self._used), memory_gb()
        share = min(1.0, *(c.gpus for c in plan.cells if c.gpus), 1.0)
        self.slots = slots or max(1, min(int(self.most_gpus / share + 1e-9) or cores(), len(plan.cells)))
        self.threads, self.warm = threads or max(1, cores() // self.slots), warm
        self._busy: dict[Future[Outcome], tuple[Cell, tuple[str, ...], Any]] = {}  # a cell, its GPUs, its process
        self._idle: list[tuple[tuple[str, ...], ProcessPoolExecutor]] = []
        self._temporary = tempfile.mkdtemp(prefix="workbench-batch-")

    def check(self, plan: Plan) -> None:
        """Raise ParameterError, which names the stage, where a cell asks for more than the engine has."""
        for stage in plan.grid.stages:
            for asked, most, unit in ((stage.gpus, self.most_gpus, "GPUs"), (stage.memory_gb, self.most_gb, "GB")):
                if asked is not None and asked > most:
                    why = f"asks for {asked:g} {unit} a cell, and {self.where} {most:.4g}"
                    raise ParameterError(f"stage {stage.name!r} {why}: lower it, or run the batch where there are more")

    def _gpus_for(self, asked: float) -> tuple[str, ...] | None:
        """Return the GPUs for a cell, None where too few are free; a share goes to the fullest GPU that has room."""
        room = [name for name, used in self._used.items() if used + min(asked, 1.0) < 1 + 1e-9]
        if 0 < asked < 1 and room:
            return (max(room, key=self._used.__getitem__),)
        return tuple(room[: int(asked)]) if len(room) >= asked else None

    def fits(self, cell: Cell) -> bool:
        """Tell whether a process and the cell's GPUs are free."""
        return len(self._busy) < self.slots and self._gpus_for(cell.gpus or 0.0) is not None

    def submit(self, cell: Cell, out: Path, log: Path) -> None:
        """Start a cell that fits, in an idle process, best one with the same GPUs, or in a new one."""
        gpus = self._gpus_for(cell.gpus or 0.0) or ()
        for name in gpus:
            self._used[name] += min(cell.gpus or 0.0, 1.0)
        own = (self.threads, self.warm, os.getpid(), self._temporary)
        if self._idle:
            process = self._idle.pop(next((i for i, idle in enumerate(self._idle) if idle[0] == gpus), 0))[1]
        else:
            spawn = multiprocessing.get_context("spawn")
            process = ProcessPoolExecutor(1, mp_context=spawn, initializer=worker, initargs=own)
        self._busy[process.submit(run_cell, cell, out, log, Path.cwd(), ",".join(gpus), *own)] = cell, gpus, process

    def wait(self, seconds: float) -> list[tuple[Cell, Outcome]]:
        """Return the cells that have ended, after at most this many seconds."""
        if not self._busy:
            time.sleep(seconds)
        done = [(f, self._busy.pop(f)) for f in wait(self._busy, seconds, FIRST_COMPLETED).done]
        return [(entry[0], self._outcome(future, *entry)) for future, entry in done]

    def _outcome(self, future: Future[Outcome], cell: Cell, gpus: tuple[str, ...], process: Any) -> Outcome:
        for name in gpus:
            self._used[name] -= min(cell.gpus or 0.0, 1.0)
        try:
            outcome = future.result()
        except BrokenProcessPool:
            error = "its worker was killed (often: the system's memory ran out)"
            return Outcome(cause="worker", error=error, gpu=",".join(gpus))
        if self.warm:
            self._idle.append((gpus, process))
        else:
            process.shutdown(wait=False)
        return outcome

    def close(self) -> None:
        """Stop the running cells, as Ctrl-C does at first, and end all processes."""
        Path(self._temporary, STOP).touch()
        wait(self._busy)
        for process in (*(p for _, p in self._idle), *(p for _, _, p in self._busy.values())):
            process.shutdown()
        shutil.rmtree(self._temporary, ignore_errors=True)


class RayPool(LocalPool):
    """Tasks of a Ray cluster, which assigns its GPUs and shares of them; each task runs a cell as LocalPool does.

    All machines share the batch's folder and have the workbench at the same path. Where `slots` and `threads` are None
    the cluster's size sets them; a cell takes one CPU a thread.
    """

    name, where = "ray", "no machine of the cluster has more than"

    def __init__(self, address: str | None, *, slots: int | None, threads: int | None, warm: bool) -> None:
        """Connect to the cluster at an address, or to the one of this process, or start one on this machine."""
        try:
            import ray
        except ImportError:
            raise NotPresent("the executor 'ray' needs Ray: pip install 'deep-alignment-workbench[ray]'") from None
        self._ray: Any = ray
        self._owns = not ray.is_initialized()
        if self._owns:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray sends no statistics
            quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
            for trial in (1, 2, 3):  # Ray gives its own processes 30 seconds, which a busy machine exceeds
                try:
                    ray.init(address=address or "local", **quiet)
                    break
                except Exception as error:  # Ray raises plain exceptions too
                    ray.shutdown()
                    if address or trial == 3:
                        said = " ".join(str(error).split())[:300]
                        raise NotPresent(f"no Ray cluster answers at {address or 'this machine'}: {said}") from error
        nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
        self.most_gpus = int(max((n.get("GPU", 0.0) for n in nodes), default=0.0))
        self.most_gb = max((n.get("memory", 0.0) for n in nodes), default=0.0) / 1e9
        gpus, cpus = (sum(n.get(kind, 0.0) for n in nodes) for kind in ("GPU", "CPU"))
        self.threads, self.warm = threads or max(1, int(cpus // (slots or gpus or len(nodes) * cores()))), warm
        self.slots, self._most = slots or max(1, int(gpus or cpus // self.threads)), slots or float("inf")
        self._busy = {}
        self._run = ray.remote(max_retries=0, max_calls=0 if warm else 1)(run_cell)

    def fits(self, cell: Cell) -> bool:
        """Tell whether the cluster as a whole has room; where no single machine has, Ray queues the cell."""
        there = self._ray.cluster_resources()
        gpus = there.get("GPU", 0.0) - sum(c.gpus or 0.0 for c, *_ in self._busy.values())
        cpus = there.get("CPU", 0.0) - self.threads * len(self._busy)
        room = gpus >= (cell.gpus or 0.0) - 1e-9 and (cpus >= self.threads or not self._busy)
        return bool(room and len(self._busy) < self._most)

    def submit(self, cell: Cell, out: Path, log: Path) -> None:
        asked: dict[str, Any] = {"num_gpus": cell.gpus, "num_cpus": self.threads, "name": cell.name}
        if cell.memory_gb is not None:
            asked["memory"] = int(cell.memory_gb * 1e9)
        task = self._run.options(**asked).remote(cell, out, log, Path.cwd(), None, self.threads, self.warm)
        self._busy[task.future()] = cell, (), task

    def _outcome(self, future: Future[Outcome], cell: Cell, gpus: tuple[str, ...], process: Any) -> Outcome:
        try:
            return future.result()
        except self._ray.exceptions.RayError as error:
            return Outcome(cause="worker", error=f"its Ray worker died: {' '.join(str(error).split())[:200]}")

    def close(self) -> None:
        """Stop the running cells, at last by force, and leave the cluster; end it where this batch started it."""
        for force in (False, True):
            for future, (*_, task) in self._busy.items():
                if not future.done():
                    self._ray.cancel(task, force=force)
            wait(self._busy, timeout=2 * STOP_SECONDS)
        if self._owns and self._ray.is_initialized():
            self._ray.shutdown()
