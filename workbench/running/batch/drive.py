"""Run a plan: start cells as they become ready, record how they end, stop cleanly.

`cells/NAME` is a finished run: a folder gets its name when all of it is on the disk. `cells/NAME.failed` is a failed
run, `logs/NAME.txt` a cell's log, locked while it runs. `cell.json` records how a cell ran; only displays read it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from workbench.core.files import atomic_file
from workbench.running.batch.cell import Outcome
from workbench.running.batch.plan import Cell, Plan
from workbench.running.batch.pools import LocalPool
from workbench.running.terminate import stop_asked

State = Literal["waiting", "running", "elsewhere", "done", "failed", "blocked"]
"""A cell's state; elsewhere: another batch on this folder runs it; blocked: it needs a failed cell."""
OPEN: set[State] = {"waiting", "running", "elsewhere"}
TRIES = 3
"""The most starts of a cell whose worker dies."""


class Batch:
    """A run of a plan's unfinished cells; `states` has each cell's state, `since` the time at which it started."""

    def __init__(self, plan: Plan, pool: LocalPool, *, retry: bool) -> None:
        self.plan, self.pool, self._retry, self._stopped = plan, pool, retry, False
        self.started = time.monotonic()
        self.states: dict[str, State] = dict.fromkeys(plan.by_key, "waiting")
        self.since: dict[str, float] = {}
        self._leases: dict[str, int] = {}
        self._tries: Counter[str] = Counter()
        self._took: defaultdict[str, list[float]] = defaultdict(list)
        for cell in plan.cells:
            known = self._on_disk(cell)
            if known == "done" or (known == "failed" and not retry):
                self.states[cell.key] = known
            if known == "done" and (seconds := read_record(plan.folder(cell)).get("seconds")):
                self._took[cell.stage].append(seconds)
        self._block()

    def _on_disk(self, cell: Cell) -> State | None:
        if (self.plan.folder(cell) / "run.json").is_file():
            return "done"
        return "failed" if (self.plan.failed(cell) / "cell.json").is_file() else None

    def _block(self) -> None:
        for cell in self.plan.cells:
            if self.states[cell.key] == "waiting" and {self.states[n] for n in cell.needs} & {"failed", "blocked"}:
                self.states[cell.key] = "blocked"

    def run(self, tell: Callable[[], None], note: Callable[[str], None]) -> None:
        """Run every cell that can run; `tell` shows the progress, `note` writes a line on an event.

        SIGINT and SIGTERM stop the running cells; when they have ended, KeyboardInterrupt is raised.
        """
        self._note = note
        for cell in self.plan.cells if self._retry else ():
            (self.plan.failed(cell) / "cell.json").unlink(missing_ok=True)
        try:
            with stop_asked() as stop:
                while OPEN & set(self.states.values()) and not stop.is_set():
                    self._start_ready()
                    for cell, outcome in self.pool.wait(0.2):
                        self._end(cell, outcome)
                    tell()
        finally:
            self._stopped = True
            self.pool.close()
            for cell, outcome in self.pool.wait(0.0):
                self._end(cell, outcome)
        if stop.is_set():
            done = Counter(self.states.values())["done"]
            note(f"stopped: {done} of {len(self.states)} cells are finished; the same command resumes")
            raise KeyboardInterrupt

    def _start_ready(self) -> None:
        gpus_wanted = False
        for cell in self.plan.cells:
            state, needed = self.states[cell.key], {self.states[key] for key in cell.needs}
            if state not in ("waiting", "elsewhere") or needed - {"done"}:
                continue
            if not (cell.gpus and gpus_wanted) and self.pool.fits(cell):
                self._start(cell)
            elif not cell.gpus:
                break  # no process is free
            else:
                gpus_wanted = True  # so cells that need one GPU do not overtake it for ever

    def _start(self, cell: Cell) -> None:
        lease = take_lease(self.plan.log(cell))
        if lease is None:
            if self.states[cell.key] != "elsewhere":
                self._note(f"elsewhere {cell.name}: another batch runs it")
            self.states[cell.key] = "elsewhere"
            return
        self._leases[cell.key] = lease
        if known := self._on_disk(cell):
            self._let_go(cell, known, "in another batch")
        elif missing := [p for p in cell.inputs if not Path(p).exists()]:
            self._end(cell, Outcome(cause="notebook", error=_not_there(missing[0])))
        else:
            os.ftruncate(lease, 0)
            self._tries[cell.key] += 1
            self.states[cell.key] = "running"
            self.since[cell.key] = time.monotonic()
            self._note(f"started {cell.name}: {cell.said()}")
            self.pool.submit(cell, self.plan.folder(cell), self.plan.log(cell))

    def _end(self, cell: Cell, outcome: Outcome) -> None:
        folder, kept, tries = self.plan.folder(cell), self.plan.failed(cell), self._tries[cell.key]
        state: State = "failed"
        said = outcome.error
        if not outcome.cause or self._on_disk(cell) == "done":
            state, said = "done", f"{outcome.seconds:.1f} s, {outcome.peak_gb or 0.0:.2f} GB"
            self._took[cell.stage].append(outcome.seconds)
        elif outcome.cause == "worker":
            said += f"; it last wrote: {last_line(self.plan.log(cell))[:300] or 'nothing'} (try {tries} of {TRIES})"
            state = "waiting" if self._stopped or tries < TRIES else "failed"
        for left in folder.parent.glob(f"{cell.name}.partial-*"):  # of a killed worker
            if state == "failed":
                shutil.rmtree(kept, ignore_errors=True)
                left.replace(kept)
            shutil.rmtree(left, ignore_errors=True)
        if state != "waiting":
            record = {n: getattr(cell, n) for n in ("name", "key", "stage", "notebook", "axes", "parameters")}
            record |= {**vars(outcome), "error": outcome.cause and said, "executor": self.pool.name, "tries": tries}
            with atomic_file((folder if state == "done" else kept) / "cell.json") as partial:
                partial.write_text(json.dumps(record, indent=1, default=str), "utf-8")
        self._let_go(cell, state, said)

    def _let_go(self, cell: Cell, state: State, said: str) -> None:
        """Set the state of a cell that does not run now, note the reason, and free its lease."""
        self.states[cell.key] = state
        self.since.pop(cell.key, None)
        os.close(self._leases.pop(cell.key))
        self._block()
        self._note(f"{state} {cell.name}: {said}")

    def left(self) -> float | None:
        """Return the seconds left: for each open cell the mean of its stage's finished ones, divided by the slots."""
        now, still = time.monotonic(), [c for c in self.plan.cells if self.states[c.key] in OPEN]
        if not all(self._took[c.stage] for c in still):
            return None
        each = [statistics.mean(self._took[c.stage]) - (now - self.since.get(c.key, now)) for c in still]
        return sum(max(seconds, 0.0) for seconds in each) / max(1, min(self.pool.slots, len(still)))


def _not_there(path: str) -> str:
    folder = next((p for p in Path(path).parents if p.is_dir()), None)
    there = sorted(p.name for p in folder.iterdir()) if folder is not None else []
    return f"the cell that it needs made no {path!r}; {str(folder)!r} holds: {', '.join(there[:20]) or 'nothing'}"


def take_lease(log: Path) -> int | None:
    """Lock a cell's log and return its descriptor; None while another batch holds the lock."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def read_record(folder: Path) -> Mapping[str, Any]:
    """Return the record of how a folder's cell ran; empty where the batch was killed before it wrote one."""
    try:
        return dict(json.loads((folder / "cell.json").read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def last_line(log: Path) -> str:
    """Return the last line of a log."""
    with log.open("rb") as file:
        file.seek(-min(1_000, file.seek(0, 2)), 2)
        return file.read().decode("utf-8", "replace").strip().rpartition("\n")[2].strip()
