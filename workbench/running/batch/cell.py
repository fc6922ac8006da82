"""A process that runs cells, under either engine: the notebook in a kernel below it, and a thread that watches both.

The thread reads time and memory. It ends a cell that exceeds its limits, and every cell when the batch stops or dies.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from workbench.core.errors import NotebookFailed, WorkbenchError
from workbench.running.batch.plan import Cell
from workbench.running.kernel import Kept
from workbench.running.runs import RunConfig, run_notebook

LOOK_SECONDS, STOP_SECONDS = 0.25, 5.0
"""The interval between two readings of a cell's time and memory; the time it has to stop before it is killed."""
STOP = "stop"
"""The file in a local worker's temporary folder that asks it to stop."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a cell, after `seconds`; `peak_gb` is the most memory of its processes together, GB (10^9 bytes).

    cause  why it failed: "notebook", "seconds" or "memory"; "worker" where its process died; empty where it succeeded
    gpu    the GPUs of the cell, as CUDA_VISIBLE_DEVICES
    """

    cause: str = ""
    error: str = ""
    seconds: float = 0.0
    peak_gb: float | None = None
    gpu: str = ""
    host: str = ""
    worker: int = 0


class Worker:
    """This process as a runner of cells; a warm one keeps its kernel, and the pairs in it, from cell to cell.

    It ends with the process `parent`; `temporary` is its folder of temporary files, None on Ray.
    """

    def __init__(self, threads: int, warm: bool, parent: int, temporary: str | None) -> None:
        self._parent, self._temporary = parent, temporary
        self._kept = Kept(before="from workbench.running.batch.warm import fresh\nfresh()") if warm else None
        self._cell: Cell | None = None
        self._gpu, self._started, self._peak, self._over = "", 0.0, 0, ("", "")
        own = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        os.environ.update(own, CUDA_DEVICE_ORDER="PCI_BUS_ID", TOKENIZERS_PARALLELISM="false")
        if temporary is not None:
            os.setsid()  # the terminal's Ctrl-C does not reach it: the batch stops it
            os.environ.update(TMPDIR=temporary, JUPYTER_RUNTIME_DIR=temporary)
            tempfile.tempdir = temporary
        atexit.register(_kill_below)
        threading.Thread(target=self._watch, daemon=True).start()

    def run(self, cell: Cell, out: Path, log: Path, gpu: str) -> Outcome:
        """Run one cell with these GPUs."""
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        with log.open("ab") as file:  # libraries write to the log too
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if self._kept is not None and gpu != self._gpu:
            self._kept.stop()
        self._gpu, self._started, self._peak = gpu, time.monotonic(), 0
        beside_others = self._kept is not None and self._kept.used
        error = self._run_notebook(cell, out)
        if self._over[0] == "memory" and beside_others:  # too large beside the kept pairs: retry in a new kernel
            error = self._run_notebook(cell, out)
        return Outcome(
            cause=(self._over[0] or "notebook") if error else "",
            error=f"{self._over[1]} ({error})" if error and self._over[1] else error,
            seconds=round(time.monotonic() - self._started, 3),
            peak_gb=round(self._peak / 1e9, 3) or None,
            gpu=gpu,
            host=os.uname().nodename,
            worker=os.getpid(),
        )

    def _run_notebook(self, cell: Cell, out: Path) -> str:
        """Run a cell's notebook; return why it failed, "" on success."""
        config = RunConfig(notebook=cell.notebook, out=out, parameters=cell.parameters, page=None)
        self._over = "", ""
        try:
            self._cell = cell
            run_notebook(config, say=lambda line: sys.stderr.writelines((line, "\n")), kept=self._kept)
        except NotebookFailed as failure:
            return str(failure)
        except KeyboardInterrupt:  # from the watching thread, or from Ray
            self._over = "worker", ""
            return "the batch was stopped"
        except Exception as failure:
            traceback.print_exc()
            return str(failure) if isinstance(failure, WorkbenchError) else f"{type(failure).__name__}: {failure}"
        finally:
            self._cell = None
        return ""

    def _watch(self) -> None:
        asked = float("inf")  # when the cell was asked to stop
        while os.getppid() == self._parent and time.monotonic() - asked < STOP_SECONDS:
            time.sleep(LOOK_SECONDS)
            if (cell := self._cell) is None:
                continue
            spent, held, own = time.monotonic() - self._started, 0, psutil.Process()
            for process in (own, *own.children(recursive=True)):
                with contextlib.suppress(psutil.Error):  # it has ended
                    held += process.memory_info().rss  # pages that processes share count in each
            self._peak = max(self._peak, held)
            if cell.memory_gb is not None and held > 1e9 * cell.memory_gb:
                used = f"{held / 1e9:.2f} of {cell.memory_gb:g} GB"
                self._over = "memory", f"exceeded its memory: {used}, after {spent:.0f} s"
                _kill_below()
            elif cell.seconds is not None and spent > cell.seconds:
                self._over = "seconds", f"exceeded its time: stopped after {cell.seconds:g} s"
                _kill_below()
            elif self._temporary and asked == float("inf") and Path(self._temporary, STOP).exists():
                asked = time.monotonic()
                os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C does, so that a training saves its last step
        _kill_below()
        os._exit(1)


def _kill_below() -> None:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()


@functools.cache
def worker(threads: int, warm: bool, parent: int | None = None, temporary: str | None = None) -> Worker:
    """Return this process's worker."""
    return Worker(threads, warm, parent or os.getppid(), temporary)


def run_cell(cell: Cell, out: Path, log: Path, here: Path, gpu: str | None, threads: int, *more: Any) -> Outcome:
    """Run one cell in this process and in the folder `here`, with these GPUs, or with Ray's (None)."""
    os.chdir(here)
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "") if gpu is None and cell.gpus else gpu or ""
    return worker(threads, *more).run(cell, out, log, seen)
