"""The executor that is always there: processes of this machine, a GPU or a share of one each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from workbench.running.batch.executor import Job, Outcome
from workbench.running.batch.watched import Worker


class LocalPool:
    """Run jobs as processes of this machine.

    workers  how many at once
    gpus     names of the GPUs to give out; a job that asks for none sees none
    threads  of each worker's computations
    warm     keep workers, their kernel and the pairs that it has loaded, from job to job
    """

    name = "local"

    def __init__(self, *, workers: int, gpus: Sequence[str] = (), threads: int = 1, warm: bool = False) -> None:
        self.slots = workers
        self.threads = threads
        self.warm = warm
        self._free = dict.fromkeys(gpus, 1.0)
        self._busy: dict[str, tuple[Worker, tuple[str, ...]]] = {}
        self._idle: list[Worker] = []
        self._alone: set[str] = set()  # jobs that were too large beside what a warm worker keeps

    def fits(self, job: Job) -> bool:
        """Tell whether a worker and the job's GPUs are free."""
        return len(self._busy) < self.slots and self._gpus_for(job.gpus) is not None

    def _gpus_for(self, asked: float) -> tuple[str, ...] | None:
        """Return which GPUs a job would get: a share goes where the least is left that suffices."""
        if asked == 0:
            return ()
        if asked < 1:
            room = [(free, name) for name, free in self._free.items() if free >= asked - 1e-9]
            return (min(room, key=lambda r: r[0])[1],) if room else None
        whole = [name for name, free in self._free.items() if free > 1 - 1e-9]
        return tuple(whole[: int(asked)]) if len(whole) >= asked else None

    def submit(self, job: Job) -> None:
        """Start a job on a worker of its own, or on an idle one that sees the same GPUs."""
        gpus = self._gpus_for(job.gpus)
        assert gpus is not None, "asked `fits` first"
        for name in gpus:
            self._free[name] -= min(job.gpus, 1.0)
        visible = ",".join(gpus)
        idle = (w for w in self._idle if w.gpu == visible and w.process.poll() is None and job.key not in self._alone)
        worker = next(idle, None)
        if worker is None:
            self._drop_idle(self.slots - len(self._busy) - 1)
            worker = Worker(gpu=visible, threads=self.threads, keep=self.warm, lease=None if self.warm else job.lease)
        else:
            self._idle.remove(worker)
        worker.start(job)
        self._busy[job.key] = worker, gpus

    def _drop_idle(self, most: int) -> None:
        while len(self._idle) > max(most, 0):
            self._idle.pop(0).close()

    def wait(self, seconds: float) -> list[Outcome]:
        """Return what has ended, after at most so many seconds."""
        until = time.monotonic() + seconds
        while True:
            ended = [outcome for key in list(self._busy) if (outcome := self._look(key)) is not None]
            if ended or time.monotonic() >= until:
                return ended
            time.sleep(min(0.02, seconds))

    def _look(self, key: str) -> Outcome | None:
        worker, gpus = self._busy[key]
        asked = worker.job.gpus if worker.job is not None else 0.0
        outcome = worker.look()
        if outcome is None:
            return None
        if outcome.status == "lost" and outcome.cause == "memory":
            self._alone.add(key)
        del self._busy[key]
        for name in gpus:
            self._free[name] += min(asked, 1.0)
        if self.warm and worker.process.poll() is None:
            self._idle.append(worker)
        else:
            worker.close()
        return outcome

    def running(self) -> Mapping[str, str]:
        """Return what runs, each with the last line of its log."""
        return {key: worker.last_said() for key, (worker, _) in self._busy.items()}

    def cancel(self) -> None:
        """Stop all jobs: asked first, so that they clear up after themselves; killed after five seconds."""
        workers = [worker for worker, _ in self._busy.values()]
        try:
            for worker in workers:
                worker.interrupt()
            until = time.monotonic() + 5
            while time.monotonic() < until and any(w.process.poll() is None for w in workers):
                time.sleep(0.05)
        finally:
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.close()
            self._busy.clear()

    def close(self) -> None:
        """Let idle workers go."""
        self._drop_idle(0)
