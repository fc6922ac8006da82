"""What a batch's folder says: `cells/NAME` is a finished run, `cells/NAME.failed` a failed one, `logs/NAME.txt` a log.

A run's folder gets its name when all of it is on the disk: the name itself says that the cell is finished. `cell.json`
in it says how the cell ran; nothing depends on it. A log is locked while its cell runs.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.core.files import atomic_file
from workbench.running.batch.plan import Cell, Plan


def is_finished(plan: Plan, cell: Cell) -> bool:
    """Tell whether a cell's run has its name."""
    return (plan.folder(cell) / "run.json").is_file()


def is_failed(plan: Plan, cell: Cell) -> bool:
    """Tell whether a cell's failure is recorded."""
    return (plan.failed(cell) / "cell.json").is_file()


def read_record(folder: Path) -> Mapping[str, Any]:
    """Return how the cell of a folder ran; empty where its batch was killed before it wrote that."""
    try:
        return dict(json.loads((folder / "cell.json").read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write how the cell of a folder ran."""
    with atomic_file(folder / "cell.json") as partial:
        partial.write_text(json.dumps(record, indent=1, default=str) + "\n", "utf-8")


def take_lease(log: Path) -> int | None:
    """Lock a cell's log and return its descriptor; None where another batch runs the cell.

    The system frees the lock when every process that holds the descriptor has ended, however it ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def last_line(log: Path) -> str:
    """Return the last line of a log."""
    with log.open("rb") as file:
        file.seek(-min(1_000, file.seek(0, 2)), 2)
        return file.read().decode("utf-8", "replace").strip().rpartition("\n")[2].strip()
