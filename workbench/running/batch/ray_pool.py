"""Cells on a Ray cluster: its GPUs, and shares of them, are given out by Ray; manifest, resume and retries stay ours.

Each cell is a Ray task that starts the same watched process as the local executor, in the batch's working folder: the
machines share that folder, and have the workbench in the same place. A task whose machine or worker goes away is
`lost`, and the batch starts it again; Ray itself retries nothing.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from typing import Any

from workbench.core.errors import NotPresent, ParameterError
from workbench.running.batch.devices import cores
from workbench.running.batch.executor import Job, Outcome

STARTS = 3
"""How often a cluster on this machine is tried: Ray gives its own processes 15 seconds, which a busy core exceeds."""


class RayPool:
    """Run jobs as tasks of a Ray cluster.

    workers  how many at once; None: as many as Ray starts
    threads  of each job's computations; a job takes as many CPUs of the cluster
    """

    name = "ray"

    def __init__(self, *, workers: int | None, threads: int | None, owns: bool) -> None:
        import ray

        self._ray = ray
        self._owns = owns
        nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
        self.most_gpus = int(max((n.get("GPU", 0.0) for n in nodes), default=0.0))
        self.most_gb = max((n.get("memory", 0.0) for n in nodes), default=0.0) / 1e9
        gpus, cpus = (sum(n.get(kind, 0.0) for n in nodes) for kind in ("GPU", "CPU"))
        self.threads = threads or max(1, int(cpus // (workers or gpus or len(nodes) * cores())))
        self.slots = workers or max(1, int(gpus or cpus // self.threads))
        self._limit = workers
        self._tasks: dict[Any, Job] = {}
        self._run = ray.remote(max_retries=0, max_calls=1)(_run_on_node)

    @classmethod
    def connect(cls, *, address: str | None, workers: int | None, threads: int | None) -> RayPool:
        """Connect to the cluster at an address, or to the one of this process, or start one on this machine.

        Raises NotPresent where Ray is not installed, ParameterError where no cluster answers.
        """
        try:
            import ray
        except ImportError:
            raise NotPresent(
                "the executor 'ray' needs Ray: pip install 'deep-alignment-workbench[ray]'"
            ) from None
        owns = not ray.is_initialized()
        if owns:
            _init(ray, address)
        return cls(workers=workers, threads=threads, owns=owns)

    def fits(self, job: Job) -> bool:
        """Tell whether the cluster as a whole has room; where no single machine has, Ray lets the job wait."""
        if self._limit is not None and len(self._tasks) >= self._limit:
            return False
        there = self._ray.cluster_resources()
        gpus = there.get("GPU", 0.0) - sum(j.gpus for j in self._tasks.values())
        cpus = there.get("CPU", 0.0) - self.threads * len(self._tasks)
        return gpus >= job.gpus - 1e-9 and (cpus >= self.threads or not self._tasks)

    def submit(self, job: Job) -> None:
        """Hand a job to Ray with what it asks for: GPUs, CPUs, memory."""
        asked: dict[str, Any] = {"num_gpus": job.gpus, "num_cpus": self.threads}
        if job.memory_gb is not None:
            asked["memory"] = int(job.memory_gb * 1e9)
        fields = dataclasses.asdict(dataclasses.replace(job, lease=None))
        self._tasks[self._run.options(name=job.name, **asked).remote(fields, self.threads)] = job

    def wait(self, seconds: float) -> list[Outcome]:
        """Return what has ended, after at most so many seconds."""
        if not self._tasks:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=seconds)
        return [self._outcome(task) for task in ready]

    def _outcome(self, task: Any) -> Outcome:
        job = self._tasks.pop(task)
        try:
            return Outcome(**self._ray.get(task))
        except self._ray.exceptions.RayError as error:
            said = " ".join(str(error).split())[:200]
            return Outcome(key=job.key, status="lost", cause="worker", error=f"its Ray worker went away: {said}")

    def running(self) -> Mapping[str, str]:
        """Return what was handed to Ray."""
        return {job.key: "on Ray" for job in self._tasks.values()}

    def cancel(self) -> None:
        """Stop all tasks with their processes."""
        for task in self._tasks:
            self._ray.cancel(task, force=True)
        if self._tasks:
            self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=10)
        self._tasks.clear()

    def close(self) -> None:
        """Leave the cluster; one that was started for this batch ends."""
        if self._owns and self._ray.is_initialized():
            self._ray.shutdown()


def _init(ray: Any, address: str | None) -> None:
    for trial in range(1, STARTS + 1):
        try:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
            ray.init(address=address or "local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            return
        except Exception as error:  # Ray raises plain ones too
            ray.shutdown()
            said = " ".join(str(error).split())[:300]
            if address is not None:
                raise ParameterError(f"no Ray cluster at {address!r}: {said}") from error
            if trial == STARTS:
                raise NotPresent(f"Ray did not start on this machine in {STARTS} trials: {said}") from error


def _run_on_node(fields: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Run one job in a process of its own on the machine where Ray has put it; it sees the GPUs that Ray gave it."""
    import ray

    from workbench.running.batch.watched import Worker

    job = Job(**fields)
    os.chdir(job.cwd)
    worker = Worker(gpu=os.environ.get("CUDA_VISIBLE_DEVICES", "") if job.gpus else "", threads=threads)
    node = ray.get_runtime_context().get_node_id()[:8]
    try:
        worker.start(job)
        while (outcome := worker.look()) is None:
            time.sleep(0.05)
    except BaseException:
        worker.kill()
        raise
    finally:
        worker.close()
    return dataclasses.asdict(dataclasses.replace(outcome, host=f"{outcome.host}, node {node}"))
