"""One of the processes that train together: `python -m workbench.training.worker JOB`, under a launcher."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from pathlib import Path

import psutil
import torch
from accelerate import PartialState

from workbench.core.files import atomic_file
from workbench.core.store import Store
from workbench.models.pair import load_pair
from workbench.training.distil import distil
from workbench.training.launch import ERROR, OWNER, Job

PEER_GONE = ("closed by peer", "reset by peer")
"""Words in an error of the processes' connection when the other process has ended."""


def main(file: Path) -> int:
    """Do a job with the other processes, write an error beside it, and return an exit status."""
    if owner := os.environ.get(OWNER):
        threading.Thread(target=_end_with, args=(int(owner),), daemon=True).start()
    job = Job.load(file)
    if os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true"):  # the job decides what is cut
        job = dataclasses.replace(job, config=dataclasses.replace(job.config, experimental_sharded=True))
    on_gpu = job.pair.device != "cpu" and torch.cuda.is_available()
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_gpu else "cpu"
    try:
        PartialState(cpu=not on_gpu)  # connects the processes
        pair = load_pair(dataclasses.replace(job.pair, device=device))
        distil(pair, job.texts, job.config, out=job.out, store=Store(job.store), start=job.start)
    except Exception as error:
        if any(word in str(error) for word in PEER_GONE):
            return 1  # another process has died, and its error is the reason
        with atomic_file(file.parent / ERROR) as partial:
            partial.write_text(json.dumps({"kind": type(error).__name__, "message": str(error)}), "utf-8")
        return 1
    finally:
        if torch.distributed.is_initialized() and sys.exc_info()[0] is None:
            torch.distributed.destroy_process_group()
    return 0


def _end_with(owner: int) -> None:
    """End this process when the notebook that waits for it has ended; the checkpoints stay."""
    while psutil.pid_exists(owner):
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
