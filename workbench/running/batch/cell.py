"""The process of one cell, or of a warm worker: `-m workbench.running.batch.cell PARENT` reads jobs, a line each.

A cold process takes one job and ends; `--keep` makes a worker that keeps its kernel between jobs. What a job came to is
a file beside its log, written whole; the process's exit code says it too.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import IO

from workbench.core.errors import NotebookFailed, WorkbenchError
from workbench.core.files import atomic_file
from workbench.running.batch.executor import Job, Outcome
from workbench.running.batch.manifest import sync_folder
from workbench.running.kernel import Kept
from workbench.running.runs import RunConfig, run_notebook

BEFORE = "from workbench.running.batch.warm import fresh\nfresh()"
"""What a kept kernel runs before each notebook."""


def die_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, however that ends (Linux); where it has ended, exit."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        raise SystemExit("the batch is gone")


def run_job(job: Job, log: IO[str], kept: Kept | None = None) -> Outcome:
    """Run one job and return what it came to; every failure is an outcome."""
    started = time.perf_counter()

    def say(line: str) -> None:
        print(line, file=log, flush=True)

    cause = error = ""
    try:
        os.chdir(job.cwd)
        config = RunConfig(notebook=job.notebook, out=job.out, parameters=job.parameters, page=None)
        sync_folder(run_notebook(config, say=say, kept=kept).folder)
    except WorkbenchError as failure:
        if not isinstance(failure, NotebookFailed):
            traceback.print_exc(file=log)
        cause, error = "notebook", str(failure)
    except Exception as failure:  # a fault of the workbench itself: told, and the batch goes on
        traceback.print_exc(file=log)
        cause, error = "notebook", f"{type(failure).__name__}: {failure}"
    log.flush()
    return Outcome(
        key=job.key,
        status="failed" if cause else "ok",
        cause=cause,
        error=error,
        seconds=round(time.perf_counter() - started, 3),
        gpu=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        host=os.uname().nodename,
        worker=os.getpid(),
    )


def main() -> int:
    """Read jobs from standard input until it ends, each with the folder that its log and outcome go to."""
    parent, *options = sys.argv[1:]
    die_with(int(parent))
    kept = Kept(before=BEFORE) if "--keep" in options else None
    code = 0
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            folder = Path(asked["folder"])
            with (folder / "log").open("a", encoding="utf-8") as log:
                outcome = run_job(Job.from_json(asked["job"]), log, kept)
            with atomic_file(folder / "outcome.json") as partial:
                partial.write_text(json.dumps(vars(outcome)), "utf-8")
            code = 0 if outcome.status == "ok" else 1
            if kept is None:
                break
    except KeyboardInterrupt:
        return 130
    finally:
        if kept is not None:
            kept.close()
    return code


if __name__ == "__main__":
    sys.exit(main())
