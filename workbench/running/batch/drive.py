"""Run a plan: start cells as they become ready, keep what they came to, stop cleanly."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from workbench.running.batch.cell import Job, Outcome
from workbench.running.batch.devices import shares
from workbench.running.batch.plan import Cell, Plan
from workbench.running.batch.pools import LocalPool
from workbench.running.batch.state import failed_at, is_finished, read_record, take_lease, write_record
from workbench.running.terminate import stop_asked

State = Literal["waiting", "running", "elsewhere", "done", "failed", "blocked"]
"""What a cell is: elsewhere is one that another batch on this folder runs, blocked one that needs a failed one."""
OPEN: tuple[State, ...] = ("waiting", "running", "elsewhere")
TRIES = 3
"""How often a cell is started whose worker goes away."""


class Batch:
    """A run of the cells of a plan that are not finished; `states` says what each is, `since` when a cell started.

    `note` takes a line for what happens once.
    """

    def __init__(
        self, plan: Plan, pool: LocalPool, *, gpus: int = 0, retry: bool = False, note: Callable[[str], None] = print
    ) -> None:
        self.plan, self.pool, self.gpus, self.note = plan, pool, gpus, note
        self.started = time.monotonic()
        self.since: dict[str, float] = {}
        self.states: dict[str, State] = dict.fromkeys(plan.by_key, "waiting")
        self._leases: dict[str, int] = {}
        self._tries: Counter[str] = Counter()
        self._took: defaultdict[str, list[float]] = defaultdict(list)
        self._looked = 0.0
        self._failed_before = {c.key: failed_at(plan, c) for c in plan.cells} if retry else {}
        for cell in plan.cells:
            if is_finished(plan, cell):
                self.states[cell.key] = "done"
                if (seconds := read_record(plan.folder(cell)).get("seconds")) is not None:
                    self._took[cell.stage].append(seconds)
            elif not retry and failed_at(plan, cell) is not None:
                self.states[cell.key] = "failed"
        self._block()

    def _block(self) -> None:
        for cell in self.plan.cells:
            if self.states[cell.key] == "waiting" and {self.states[n] for n in cell.needs} & {"failed", "blocked"}:
                self.states[cell.key] = "blocked"

    def run(self, tell: Callable[[], None]) -> None:
        """Run until no cell is left that could. KeyboardInterrupt and SIGTERM stop the cells that run, and pass on."""
        try:
            with stop_asked() as stop:
                while any(s in OPEN for s in self.states.values()) and not stop.is_set():
                    self._start_ready()
                    for job, outcome in self.pool.wait(0.2):
                        self._end(job.cell, outcome)
                    tell()
            if stop.is_set():
                raise KeyboardInterrupt
        finally:
            self.pool.close()
            for job, outcome in self.pool.wait(0.0):
                if outcome.status == "ok":  # it ended while the others were stopped
                    self._end(job.cell, outcome)
            for cell in (self.plan.by_key[key] for key in list(self._leases)):
                self._clear(cell)
                self._let_go(cell, "done" if is_finished(self.plan, cell) else "waiting")
            if any(s in OPEN for s in self.states.values()):
                done = sum(s == "done" for s in self.states.values())
                self.note(f"stopped: {done} of {len(self.states)} cells are finished; the same command resumes")

    def _start_ready(self) -> None:
        look_elsewhere = time.monotonic() - self._looked > 1.0
        self._looked = time.monotonic() if look_elsewhere else self._looked
        gpus_wanted = False
        for cell in self.plan.cells:
            state = self.states[cell.key]
            if state != "waiting" and not (state == "elsewhere" and look_elsewhere):
                continue
            out, log, gpus = self.plan.folder(cell), self.plan.log(cell), shares(cell.gpus, self.gpus)
            job = Job(cell=cell, out=str(out), log=str(log), cwd=str(Path.cwd()), gpus=gpus)
            if any(self.states[n] != "done" for n in cell.needs) or (gpus and gpus_wanted):
                continue  # a cell that needs several GPUs is not overtaken for ever by those that need one
            if self.pool.fits(job):
                self._start(job)
            elif gpus:
                gpus_wanted = True
            else:
                break  # no worker is free

    def _start(self, job: Job) -> None:
        cell = job.cell
        lease = take_lease(self.plan.log(cell))
        if lease is None:
            if self.states[cell.key] != "elsewhere":
                self.note(f"elsewhere {cell.name}: another batch runs it")
            self.states[cell.key] = "elsewhere"
            return
        self._leases[cell.key] = lease
        failed = failed_at(self.plan, cell)
        if is_finished(self.plan, cell):
            self._let_go(cell, "done")
            self.note(f"done {cell.name}: found finished")
        elif failed is not None and failed != self._failed_before.get(cell.key):
            self._let_go(cell, "failed")  # in another batch, meanwhile
        else:
            os.ftruncate(lease, 0)
            self._tries[cell.key] += 1
            if missing := [p for p in cell.inputs if not Path(p).exists()]:
                self._end(cell, Outcome(status="failed", cause="notebook", error=_not_there(missing[0])))
                return
            self.states[cell.key] = "running"
            self.since[cell.key] = time.monotonic()
            self.note(f"started {cell.name}: {cell.said()}")
            self.pool.submit(job)

    def _end(self, cell: Cell, outcome: Outcome) -> None:
        if outcome.status == "ok":
            self._took[cell.stage].append(outcome.seconds)
            self._write(self.plan.folder(cell), cell, outcome)
            shutil.rmtree(self.plan.failed(cell), ignore_errors=True)
            peak = "" if outcome.peak_gb is None else f", {outcome.peak_gb:.2f} GB"
            self.note(f"done {cell.name}: {outcome.seconds:.1f} s{peak}")
            self._let_go(cell, "done")
        elif outcome.status == "lost" and self._tries[cell.key] < TRIES:
            self._clear(cell)
            self.note(f"again {cell.name}: {outcome.error}; started again")
            self._let_go(cell, "waiting")
        else:
            said = self._keep(cell, outcome)
            self._write(self.plan.failed(cell), cell, outcome, said)
            self.note(f"failed {cell.name}: {said}")
            self._let_go(cell, "failed")

    def _let_go(self, cell: Cell, state: State) -> None:
        """Set the state of a cell that does not run now, and free its lease."""
        self.states[cell.key] = state
        self.since.pop(cell.key, None)
        os.close(self._leases.pop(cell.key))
        self._block()

    def _left_by(self, cell: Cell) -> list[Path]:
        """Return the folders that a failed or killed run left beside its own, the more complete first."""
        folder = self.plan.folder(cell)
        left = (folder.with_name(f"{cell.name}.failed"), *folder.parent.glob(f"{cell.name}.partial-*"))
        return [p for p in left if p.is_dir()]

    def _clear(self, cell: Cell) -> None:
        for left in self._left_by(cell):
            shutil.rmtree(left, ignore_errors=True)

    def _keep(self, cell: Cell, outcome: Outcome) -> str:
        """Keep a failed cell's folder under `failed/`; return its error with the final path."""
        folder, target = self.plan.folder(cell), self.plan.failed(cell)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        if left := self._left_by(cell):
            os.replace(left[0], target)
        target.mkdir(exist_ok=True)
        self._clear(cell)
        said = outcome.error.replace(str(folder.with_name(f"{cell.name}.failed")), str(target))
        said += f" ({self._tries[cell.key]} times)" if outcome.status == "lost" else ""
        notebook = target / cell.notebook.name
        return said if str(notebook) in said or not notebook.exists() else f"{said} (as far as it ran: {notebook})"

    def _write(self, folder: Path, cell: Cell, outcome: Outcome, error: str = "") -> None:
        about = {n: getattr(cell, n) for n in ("name", "key", "stage", "notebook", "axes", "parameters")}
        how = {"executor": self.pool.name, "tries": self._tries[cell.key]}
        write_record(folder, {**about, **vars(outcome), "error": error, **how})

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
