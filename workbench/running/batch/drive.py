"""Run a plan: start cells as they become ready, keep what they came to, stop cleanly."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from workbench.running.batch.cell import Outcome
from workbench.running.batch.plan import Cell, Plan
from workbench.running.batch.pools import LocalPool
from workbench.running.batch.state import is_failed, is_finished, last_line, read_record, take_lease, write_record
from workbench.running.terminate import stop_asked

State = Literal["waiting", "running", "elsewhere", "done", "failed", "blocked"]
"""What a cell is: elsewhere is one that another batch on this folder runs, blocked one that needs a failed one."""
OPEN: tuple[State, ...] = ("waiting", "running", "elsewhere")
TRIES = 3
"""How often a cell is started whose worker goes away."""


class Batch:
    """A run of the cells of a plan that are not finished; `states` says what each is, `since` when it was started."""

    def __init__(self, plan: Plan, pool: LocalPool, *, retry: bool = False) -> None:
        self.plan, self.pool, self.started = plan, pool, time.monotonic()
        self.states: dict[str, State] = dict.fromkeys(plan.by_key, "waiting")
        self.since: dict[str, float] = {}
        self._leases: dict[str, int] = {}
        self._tries: Counter[str] = Counter()
        self._took: defaultdict[str, list[float]] = defaultdict(list)
        self._looked = 0.0
        self._stopped = False
        for cell in plan.cells:
            if is_finished(plan, cell):
                self.states[cell.key] = "done"
                if (seconds := read_record(plan.folder(cell)).get("seconds")) is not None:
                    self._took[cell.stage].append(seconds)
            elif not retry and is_failed(plan, cell):
                self.states[cell.key] = "failed"
        self._block()

    def _block(self) -> None:
        for cell in self.plan.cells:
            if self.states[cell.key] == "waiting" and {self.states[n] for n in cell.needs} & {"failed", "blocked"}:
                self.states[cell.key] = "blocked"

    def run(self, tell: Callable[[], None], note: Callable[[str], None]) -> None:
        """Run until no cell is left that could; `tell` shows how far it is, `note` a line on what happened.

        SIGINT and SIGTERM stop the cells that run; KeyboardInterrupt is raised when they have ended.
        """
        self._note = note
        for cell in self.plan.cells:
            if self.states[cell.key] == "waiting":
                (self.plan.failed(cell) / "cell.json").unlink(missing_ok=True)  # it is tried again
        try:
            with stop_asked() as stop:
                while set(self.states.values()) & set(OPEN) and not stop.is_set():
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
        look_elsewhere = time.monotonic() - self._looked > 1.0
        self._looked = time.monotonic() if look_elsewhere else self._looked
        gpus_wanted = False
        for cell in self.plan.cells:
            state = self.states[cell.key]
            if state != "waiting" and not (state == "elsewhere" and look_elsewhere):
                continue
            if any(self.states[n] != "done" for n in cell.needs) or (cell.gpus and gpus_wanted):
                continue  # a cell that needs several GPUs is not overtaken for ever by those that need one
            if self.pool.fits(cell):
                self._start(cell)
            elif cell.gpus:
                gpus_wanted = True
            else:
                break  # no process is free

    def _start(self, cell: Cell) -> None:
        lease = take_lease(self.plan.log(cell))
        if lease is None:
            if self.states[cell.key] != "elsewhere":
                self._note(f"elsewhere {cell.name}: another batch runs it")
            self.states[cell.key] = "elsewhere"
            return
        self._leases[cell.key] = lease
        if is_finished(self.plan, cell):
            self._let_go(cell, "done", "found finished")
        elif is_failed(self.plan, cell):
            self._let_go(cell, "failed", "in another batch")
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
        error, lost = outcome.error, outcome.cause == "worker"
        if not outcome.cause or is_finished(self.plan, cell):
            self._took[cell.stage].append(outcome.seconds)
            self._write(folder, cell, outcome)
            peak = "" if outcome.peak_gb is None else f", {outcome.peak_gb:.2f} GB"
            self._let_go(cell, "done", f"{outcome.seconds:.1f} s{peak}")
            return
        if lost:
            error += f"; it last said: {last_line(self.plan.log(cell))[:300] or 'nothing'}"
        again = lost and (self._stopped or tries < TRIES)
        for left in folder.parent.glob(f"{cell.name}.partial-*"):  # by a killed worker
            if not again and not kept.exists():
                left.replace(kept)
            shutil.rmtree(left, ignore_errors=True)
        if again:
            self._let_go(cell, "waiting", error)
        else:
            error += f" ({tries} times)" if lost else ""
            self._write(kept, cell, outcome, error)
            self._let_go(cell, "failed", error)

    def _let_go(self, cell: Cell, state: State, said: str) -> None:
        """Set the state of a cell that does not run now, say why, and free its lease."""
        self.states[cell.key] = state
        self.since.pop(cell.key, None)
        os.close(self._leases.pop(cell.key))
        self._block()
        self._note(f"{state} {cell.name}: {said}")

    def _write(self, folder: Path, cell: Cell, outcome: Outcome, error: str = "") -> None:
        about = {n: getattr(cell, n) for n in ("name", "key", "stage", "notebook", "axes", "parameters")}
        how = {"error": error, "executor": self.pool.name, "tries": self._tries[cell.key]}
        write_record(folder, {**about, **vars(outcome), **how})

    def left(self) -> float | None:
        """Return the seconds left: each open cell as long as finished cells of its stage took, over all slots."""
        now, total = time.monotonic(), 0.0
        still = [c for c in self.plan.cells if self.states[c.key] in OPEN]
        for cell in still:
            if not (took := self._took[cell.stage]):
                return None
            total += max(sum(took) / len(took) - (now - self.since.get(cell.key, now)), 0.0)
        return total / max(1, min(self.pool.slots, len(still)))


def _not_there(path: str) -> str:
    folder = next((p for p in Path(path).parents if p.is_dir()), None)
    there = sorted(p.name for p in folder.iterdir()) if folder is not None else []
    return f"the cell that it needs made no {path!r}; {str(folder)!r} holds: {', '.join(there[:20]) or 'nothing'}"
