"""The two engines: processes of this machine, each with its GPUs, and tasks of a Ray cluster; neither retries."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from workbench.core.errors import NotPresent, ParameterError
from workbench.running.batch.cell import STOP_SECONDS, Job, Outcome, run_cell, run_on_node, start_worker
from workbench.running.batch.devices import cores
from workbench.running.batch.state import last_line

STARTS = 3
"""How often a cluster on this machine is tried: Ray gives its own processes 15 seconds, which a busy core exceeds."""


class LocalPool:
    """Processes of this machine, each an executor of its own: one that dies takes no other with it.

    slots    how many jobs run at once
    gpus     names of the GPUs to give out; a job that asks for none sees none
    threads  of each job's computations
    warm     keep processes, their kernel and the pairs that it has loaded, from job to job
    """

    name = "local"

    def __init__(self, *, slots: int, threads: int, gpus: Sequence[str] = (), warm: bool = False) -> None:
        self.slots, self.threads, self.warm = slots, threads, warm
        self._used = dict.fromkeys(gpus, 0.0)
        self._busy: dict[Future[Outcome], Job] = {}
        self._held: dict[str, tuple[tuple[str, ...], ProcessPoolExecutor]] = {}  # GPUs and process of each job
        self._idle: list[tuple[tuple[str, ...], ProcessPoolExecutor]] = []
        self._temporary = tempfile.TemporaryDirectory(prefix="workbench-batch-")
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()

    def gpus_for(self, asked: float) -> tuple[str, ...] | None:
        """Return the GPUs that a job would get: a share goes where the least is left that suffices."""
        room = [name for name, used in self._used.items() if used + min(asked, 1.0) < 1 + 1e-9]
        if 0 < asked < 1 and room:
            return (max(room, key=self._used.__getitem__),)
        return tuple(room[: int(asked)]) if len(room) >= asked else None

    def fits(self, job: Job) -> bool:
        """Tell whether a worker and the job's GPUs are free."""
        return len(self._busy) < self.slots and self.gpus_for(job.gpus) is not None

    def submit(self, job: Job) -> None:
        """Start a job that fits, in a new process or in an idle one, of the same GPUs where there is one."""
        gpus = self.gpus_for(job.gpus) or ()
        for name in gpus:
            self._used[name] += min(job.gpus, 1.0)
        if self._idle:
            worker = self._idle.pop(next((i for i, idle in enumerate(self._idle) if idle[0] == gpus), 0))[1]
        else:
            given = (os.getpid(), self.threads, self.warm, self._stop, self._temporary.name)
            worker = ProcessPoolExecutor(1, mp_context=self._context, initializer=start_worker, initargs=given)
        self._held[job.cell.key] = gpus, worker
        self._busy[worker.submit(run_cell, job, ",".join(gpus))] = job

    def wait(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """Return what has ended, at once or after at most so many seconds."""
        if not self._busy:
            time.sleep(seconds)
        done = wait(self._busy, seconds, FIRST_COMPLETED).done
        return [(job, self._outcome(job, future)) for future in done if (job := self._busy.pop(future))]

    def _outcome(self, job: Job, future: Future[Outcome]) -> Outcome:
        gpus, worker = self._held.pop(job.cell.key)
        for name in gpus:
            self._used[name] -= min(job.gpus, 1.0)
        try:
            outcome = future.result()
        except BrokenProcessPool:
            said = last_line(Path(job.log))[:300]
            error = f"its worker was killed (often: the system's memory ran out); it last said: {said or 'nothing'}"
            return Outcome(status="lost", cause="worker", error=error, gpu=",".join(gpus))
        if self.warm:
            self._idle.append((gpus, worker))
        else:
            worker.shutdown(wait=False)
        return outcome

    def close(self) -> None:
        """Stop what runs, as Ctrl-C does at first, and end all processes."""
        self._stop.set()
        wait(self._busy, timeout=3 * STOP_SECONDS)
        for _, worker in (*self._idle, *self._held.values()):
            worker.shutdown()
        self._temporary.cleanup()


class RayPool(LocalPool):
    """Tasks of a Ray cluster, which gives out its GPUs and shares of them; each task runs the process of LocalPool.

    All machines share the batch's folder, and have the workbench in the same place. `slots` and `threads` are chosen by
    what the cluster has where they are None; a job takes as many of its CPUs as threads.
    """

    name = "ray"

    def __init__(self, *, address: str | None, slots: int | None, threads: int | None, warm: bool = False) -> None:
        """Connect to the cluster at an address, or to the one of this process, or start one on this machine.

        Raises NotPresent where Ray is not installed, ParameterError where no cluster answers.
        """
        try:
            import ray
        except ImportError:
            raise NotPresent("the executor 'ray' needs Ray: pip install 'deep-alignment-workbench[ray]'") from None
        self._ray: Any = ray
        self._owns = not ray.is_initialized()
        if self._owns:
            _start_ray(ray, address)
        nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
        self.most_gpus = int(max((n.get("GPU", 0.0) for n in nodes), default=0.0))
        self.most_gb = max((n.get("memory", 0.0) for n in nodes), default=0.0) / 1e9
        gpus, cpus = (sum(n.get(kind, 0.0) for n in nodes) for kind in ("GPU", "CPU"))
        threads = threads or max(1, int(cpus // (slots or gpus or len(nodes) * cores())))
        self._limit = slots
        super().__init__(slots=slots or max(1, int(gpus or cpus // threads)), threads=threads, warm=warm)
        self._tasks: dict[Future[Outcome], Any] = {}
        self._run = ray.remote(max_retries=0, max_calls=0 if warm else 1)(run_on_node)

    def fits(self, job: Job) -> bool:
        """Tell whether the cluster as a whole has room; where no single machine has, Ray lets the job wait."""
        if self._limit is not None and len(self._busy) >= self._limit:
            return False
        there = self._ray.cluster_resources()
        gpus = there.get("GPU", 0.0) - sum(j.gpus for j in self._busy.values())
        cpus = there.get("CPU", 0.0) - self.threads * len(self._busy)
        return bool(gpus >= job.gpus - 1e-9 and (cpus >= self.threads or not self._busy))

    def submit(self, job: Job) -> None:
        """Hand a job to Ray with what it asks for: GPUs, CPUs, memory."""
        asked: dict[str, Any] = {"num_gpus": job.gpus, "num_cpus": self.threads, "name": job.cell.name}
        if job.cell.memory_gb is not None:
            asked["memory"] = int(job.cell.memory_gb * 1e9)
        task = self._run.options(**asked).remote(job, self.threads, self.warm)
        future = task.future()
        self._busy[future], self._tasks[future] = job, task

    def _outcome(self, job: Job, future: Future[Outcome]) -> Outcome:
        del self._tasks[future]
        try:
            return future.result()
        except self._ray.exceptions.RayError as error:
            said = " ".join(str(error).split())[:200]
            return Outcome(status="lost", cause="worker", error=f"its Ray worker went away: {said}")

    def close(self) -> None:
        """Stop what runs, asked first, and leave the cluster; one that was started for this batch ends."""
        for force in (False, True):
            for future, task in self._tasks.items():
                if not future.done():
                    self._ray.cancel(task, force=force)
            wait(self._tasks, timeout=2 * STOP_SECONDS)
        self._temporary.cleanup()
        if self._owns and self._ray.is_initialized():
            self._ray.shutdown()


def _start_ray(ray: Any, address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray sends no statistics
    for trial in range(1, STARTS + 1):
        try:
            ray.init(address=address or "local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            return
        except Exception as error:  # Ray raises plain ones too
            ray.shutdown()
            said = " ".join(str(error).split())[:300]
            if address is not None:
                raise ParameterError(f"no Ray cluster at {address!r}: {said}") from error
            if trial == STARTS:
                raise NotPresent(f"Ray did not start on this machine in {STARTS} trials: {said}") from error
