"""A process that runs cells, under either engine: the notebook in a kernel below it, a thread that watches both.

The thread reads time and memory, and ends what runs when it exceeds its limits, when the batch stops, and when the
batch is gone, however that ended.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any, Literal

import psutil

from workbench.core.errors import NotebookFailed, WorkbenchError
from workbench.running.batch.plan import Cell
from workbench.running.kernel import Kept
from workbench.running.runs import RunConfig, run_notebook

LOOK_SECONDS = 0.25
"""How often a cell's time and memory are read."""
STOP_SECONDS = 5.0
"""How long a cell that is asked to stop may take before it is killed."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell with all that a process on any machine needs to run it; `gpus` is how many it gets."""

    cell: Cell
    out: str
    log: str
    cwd: str
    gpus: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a job.

    status   "ok": its folder has its name; "failed": by its own fault; "lost": its worker went away
    cause    "notebook", "seconds", "memory" or "worker"; empty where it is ok
    seconds  from its start to its end; peak_gb is the most that its processes held together, GB (10^9 bytes)
    gpu      the GPUs that the cell saw, as CUDA_VISIBLE_DEVICES
    """

    status: Literal["ok", "failed", "lost"]
    cause: str = ""
    error: str = ""
    seconds: float = 0.0
    peak_gb: float | None = None
    gpu: str = ""
    host: str = ""
    worker: int = 0


class Worker:
    """This process as a runner of cells, and the thread that watches them; a warm one keeps its kernel."""

    def __init__(self, parent: int, threads: int, warm: bool, stop: Any = None, temporary: str | None = None) -> None:
        self._parent, self._stop_event = parent, stop
        self._kept = Kept(before="from workbench.running.batch.warm import fresh\nfresh()") if warm else None
        self._job: Job | None = None
        self._gpu, self._started, self._peak = "", 0.0, 0
        self._over = ("", "")
        own = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        os.environ.update(own, CUDA_DEVICE_ORDER="PCI_BUS_ID", TOKENIZERS_PARALLELISM="false")
        if temporary is not None:
            os.environ.update(TMPDIR=temporary, JUPYTER_RUNTIME_DIR=temporary)
            tempfile.tempdir = temporary
        atexit.register(self._kill)
        threading.Thread(target=self._watch, daemon=True).start()

    def run_cell(self, job: Job, gpu: str) -> Outcome:
        """Run one job to its end, with these GPUs."""
        os.chdir(job.cwd)
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        with open(job.log, "ab") as log:  # whatever libraries write belongs there
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        if self._kept is not None and gpu != self._gpu:
            self._kept.stop()
        self._gpu, self._started, self._peak = gpu, time.monotonic(), 0
        alone = self._kept is None or not self._kept.used
        error = self._run_notebook(job)
        if self._over[0] == "memory" and not alone:  # too large beside what the kernel kept: again, in a new one
            error = self._run_notebook(job)
        cause, error = self._over if error and self._over[0] else ("notebook" if error else "", error)
        return Outcome(
            status="lost" if cause == "worker" else "failed" if cause else "ok",
            cause=cause,
            error=error,
            seconds=round(time.monotonic() - self._started, 3),
            peak_gb=round(self._peak / 1e9, 3) or None,
            gpu=gpu,
            host=os.uname().nodename,
            worker=os.getpid(),
        )

    def _run_notebook(self, job: Job) -> str:
        """Run a job's notebook; return "" or, in a sentence, why it failed."""
        config = RunConfig(notebook=job.cell.notebook, out=job.out, parameters=job.cell.parameters, page=None)
        self._over, self._job = ("", ""), job
        try:
            run_notebook(config, say=_say, kept=self._kept)
        except (NotebookFailed, KeyboardInterrupt) as failure:
            return str(failure) or "stopped"
        except Exception as failure:
            traceback.print_exc()
            return str(failure) if isinstance(failure, WorkbenchError) else f"{type(failure).__name__}: {failure}"
        finally:
            self._job = None
        return ""

    def _watch(self) -> None:
        stopped = float("inf")
        while True:
            time.sleep(LOOK_SECONDS)
            if os.getppid() != self._parent or time.monotonic() - stopped > 2 * STOP_SECONDS:
                self._kill()
                os._exit(1)
            if (job := self._job) is None:
                continue
            seconds = time.monotonic() - self._started
            self._peak = max(self._peak, held := sum(map(_resident, _tree())))
            most_gb, most_seconds = job.cell.memory_gb, job.cell.seconds
            if most_gb is not None and held > 1e9 * most_gb:
                said = f"exceeded its memory: {held / 1e9:.2f} of {most_gb:g} GB, after {seconds:.0f} s"
                self._over = ("memory", said)
                self._kill()
            elif most_seconds is not None and seconds > most_seconds:
                self._over = ("seconds", f"exceeded its time: stopped after {most_seconds:g} s")
                self._kill()
            elif self._stop_event is not None and self._stop_event.is_set():
                self._over = ("worker", "the batch was stopped")
                if stopped == float("inf"):
                    stopped = time.monotonic()
                    os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C does, so that a training keeps its last step
                elif time.monotonic() - stopped > STOP_SECONDS:
                    self._kill()

    def _kill(self) -> None:
        """Kill all processes below this one."""
        for process in _tree()[1:]:
            with contextlib.suppress(psutil.Error):
                process.kill()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _tree() -> list[psutil.Process]:
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def _resident(process: psutil.Process) -> int:
    """Return a process's resident memory, bytes; pages that processes share count in each."""
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


worker: Worker | None = None
"""The worker that this process is."""


def start_worker(parent: int, threads: int, warm: bool, stop: Any, temporary: str) -> None:
    """Make this process a worker of the local engine, apart from the terminal's Ctrl-C."""
    global worker
    os.setsid()
    worker = Worker(parent=parent, threads=threads, warm=warm, stop=stop, temporary=temporary)


def run_cell(job: Job, gpu: str) -> Outcome:
    """Run one job in this worker."""
    assert worker is not None
    return worker.run_cell(job, gpu)


def run_on_node(job: Job, threads: int, warm: bool) -> Outcome:
    """Run one job in this process of Ray, with the GPUs that Ray gave it; a warm process waits for its next task."""
    global worker
    worker = worker or Worker(parent=os.getppid(), threads=threads, warm=warm)
    return worker.run_cell(job, os.environ.get("CUDA_VISIBLE_DEVICES", "") if job.gpus else "")
