"""One worker process and all below it: started so that it dies with us, watched for time and memory, stopped whole.

A kernel runs in a session of its own, so it is not in its parent's process group: what is watched and stopped is the
tree of processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from workbench.running.batch.executor import Job, Outcome

LOOK_SECONDS = 0.25
"""How often a job's memory is read."""
SIGNALS = {s.value: s.name for s in signal.Signals}


MOST_LOG = 1_000_000
"""Bytes of a log that are kept, its end."""


def environment(gpu: str, threads: int, folder: Path) -> dict[str, str]:
    """Return the environment of a worker that sees these GPUs ("" is none) and computes with so many threads.

    What it and its kernel put into temporary files goes into `folder`, which is removed however they end.
    """
    own = {n: str(threads) for n in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {
        **os.environ,
        **own,
        "CUDA_VISIBLE_DEVICES": gpu,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(folder),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }


class Worker:
    """Hold one process that takes jobs by its standard input: one job, or, kept, one after the other."""

    def __init__(self, *, gpu: str, threads: int, keep: bool = False, lease: int | None = None) -> None:
        self.gpu = gpu
        self.keep = keep
        self.jobs = 0
        self.folder = Path(tempfile.mkdtemp(prefix="workbench-cell-"))
        self._job: Job | None = None
        self._started = self._looked = 0.0
        self._peak = 0
        words = [sys.executable, "-m", "workbench.running.batch.cell", str(os.getpid()), *(["--keep"] if keep else [])]
        with (self.folder / "stderr").open("ab") as said:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                env=environment(gpu, threads, self.folder),
                start_new_session=True,
                pass_fds=() if lease is None else (lease,),
            )

    @property
    def job(self) -> Job | None:
        """Return the job that runs, None where the worker is idle."""
        return self._job

    def start(self, job: Job) -> None:
        """Hand the worker a job."""
        for name in ("log", "outcome.json"):
            (self.folder / name).unlink(missing_ok=True)
        self._job, self._peak, self.jobs = job, 0, self.jobs + 1
        self._started = time.monotonic()
        line = json.dumps({"folder": str(self.folder), "job": job.to_json()}) + "\n"
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: `look` says so
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()

    def look(self) -> Outcome | None:
        """Return the outcome where the job has ended or is over a limit, which stops the worker; else None."""
        job = self._job
        assert job is not None
        now = time.monotonic()
        seconds = now - self._started
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._peak = max(self._peak, resident(self.process.pid))
        ended = self._ended(job)
        if ended is None and job.memory_gb is not None and self._peak > 1e9 * job.memory_gb:
            error = f"exceeded its memory: {self._peak / 1e9:.2f} of {job.memory_gb:g} GB, after {seconds:.0f} s"
            if self.keep and self.jobs > 1:
                ended = self._over(
                    job, "lost", "memory", f"{error}, in a warm worker that keeps pairs of earlier cells"
                )
            else:
                ended = self._over(job, "failed", "memory", error)
        elif ended is None and job.seconds is not None and seconds > job.seconds:
            ended = self._over(job, "failed", "seconds", f"exceeded its time: stopped after {job.seconds:g} s")
        if ended is None:
            return None
        self._job = None
        peak = round(self._peak / 1e9, 3) if self._peak else None
        return dataclasses.replace(ended, seconds=round(seconds, 3), peak_gb=peak, log=self.log())

    def _ended(self, job: Job) -> Outcome | None:
        code = self.process.poll()
        if code is None and not (self.keep and (self.folder / "outcome.json").exists()):
            return None
        try:
            outcome = Outcome(**json.loads((self.folder / "outcome.json").read_text("utf-8")))
        except (FileNotFoundError, ValueError):
            why = f"by {SIGNALS.get(-code, -code)}" if code and code < 0 else f"with exit code {code}"
            last = self.log().strip().rpartition("\n")[2][:300]
            error = f"its worker ended {why}" + (" (often: the system's memory ran out)" if code == -9 else "")
            return self._over(job, "lost", "worker", f"{error}; it last said: {last}" if last else error)
        if outcome.status == "ok" and code:
            return self._over(job, "lost", "worker", f"its worker ended with exit code {code} after the run")
        return outcome

    def _over(self, job: Job, status: str, cause: str, error: str) -> Outcome:
        self.kill()
        return Outcome(
            key=job.key,
            status=status,  # type: ignore[arg-type]
            cause=cause,
            error=error,
            gpu=self.gpu,
            host=os.uname().nodename,
            worker=self.process.pid,
        )

    def log(self) -> str:
        """Return what the job, and the process itself, said."""
        return _end_of(self.folder / "stderr", MOST_LOG) + _end_of(self.folder / "log", MOST_LOG)

    def last_said(self) -> str:
        """Return the last line of the job's log."""
        return _end_of(self.folder / "log", 1_000).strip().rpartition("\n")[2].strip() or "starting"

    def interrupt(self) -> None:
        """Ask the process to stop as Ctrl-C does, so that it clears away what it has begun."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End the process and all below it, and wait until they are gone."""
        stop_tree(self.process.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)

    def close(self) -> None:
        """Let an idle worker end by itself, or end it; remove its folder."""
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _end_of(path: Path, most: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(-min(most, file.seek(0, 2)), 2)
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _tree(process: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(process)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def resident(process: int) -> int:
    """Return the resident memory of a process and all below it, bytes; pages that they share count in each."""
    total = 0
    for one in _tree(process):
        with contextlib.suppress(psutil.Error):
            total += one.memory_info().rss
    return total


def stop_tree(process: int) -> None:
    """Kill a process and all below it; those that it starts meanwhile are found too."""
    for _ in range(3):
        tree = _tree(process)
        for one in tree:
            with contextlib.suppress(psutil.Error):
                one.kill()
        if not psutil.wait_procs(tree[1:], timeout=3)[1]:
            break
