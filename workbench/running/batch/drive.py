"""Run a plan: hand cells to an executor as they become ready, remember what they came to, stop cleanly."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workbench.core.provenance import source_commit
from workbench.running.batch.executor import Executor, Job, Outcome, keep_failed
from workbench.running.batch.keys import versions
from workbench.running.batch.manifest import Lease, Line, Manifest
from workbench.running.batch.plan import Cell, Plan
from workbench.running.terminate import terminate_as_interrupt

State = Literal["waiting", "running", "elsewhere", "done", "failed", "blocked"]
"""What a cell is: elsewhere is one that another batch on this folder runs, blocked one that needs a failed one."""

TRIES = 3
"""How often a cell is started whose worker goes away under it."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Tell how far a batch is: the state of every cell, what the running ones last said, seconds left if known."""

    states: Mapping[str, State]
    said: Mapping[str, str]
    since: Mapping[str, float]
    seconds: float
    left: float | None

    def counts(self) -> Counter[State]:
        """Return how many cells are in each state."""
        return Counter(self.states.values())


Tell = Callable[[Progress], None]
Note = Callable[[str], None]


class Batch:
    """Run the cells of a plan that are not finished; `states` says what each is."""

    def __init__(self, plan: Plan, executor: Executor, *, gpus: int = 0, retry: bool = False) -> None:
        self.plan = plan
        self.executor = executor
        self.gpus = gpus
        self.manifest = Manifest(plan.out)
        self.states: dict[str, State] = dict.fromkeys(plan.by_key, "waiting")
        self._retry = retry
        self._leases: dict[str, Lease] = {}
        self._since: dict[str, float] = {}
        self._tries: Counter[str] = Counter()
        self._started = time.monotonic()
        self._looked = 0.0
        self._known()

    # -------------------------------------------------------------------------------------------- what is known

    def _known(self) -> None:
        """Take over what the manifest says; a failed cell is failed until a batch is told to retry."""
        self.manifest.refresh()
        for cell in self.plan.cells:
            if is_done(self.plan, self.manifest, cell):
                self.states[cell.key] = "done"
            elif self.manifest.status(cell.key) == "failed" and not self._retry:
                self.states[cell.key] = "failed"
        self._block()

    def _block(self) -> None:
        for cell in self.plan.cells:
            if any(self.states[n] in ("failed", "blocked") for n in cell.needs) and self.states[cell.key] == "waiting":
                self.states[cell.key] = "blocked"

    @property
    def open(self) -> bool:
        """Tell whether there is a cell that runs or still could."""
        return any(s in ("waiting", "running", "elsewhere") for s in self.states.values())

    # ---------------------------------------------------------------------------------------------------- running

    def run(self, *, tell: Tell, note: Note) -> None:
        """Run until no cell is left that could. KeyboardInterrupt and SIGTERM stop the cells that run, and pass on."""
        try:
            with terminate_as_interrupt():
                while self.open:
                    self._start_ready(note)
                    for outcome in self.executor.wait(0.2):
                        self._record(outcome, note)
                    tell(self._progress())
            tell(self._progress())
        except BaseException:
            stopped = list(self._since)
            self.executor.cancel()
            for key in stopped:
                self._clear(self.plan.by_key[key])
                self.states[key] = "waiting"
            done = sum(s == "done" for s in self.states.values())
            note(f"stopped: {done} of {len(self.states)} cells are finished; the same command goes on from there")
            raise
        finally:
            self.executor.close()
            for lease in self._leases.values():
                lease.give_back()

    def _start_ready(self, note: Note) -> None:
        gpus_wanted = False
        look_elsewhere = time.monotonic() - self._looked > 1.0
        if look_elsewhere:
            self._looked = time.monotonic()
        for cell in self.plan.cells:
            if self.states[cell.key] not in ("waiting", "elsewhere") or any(
                self.states[n] != "done" for n in cell.needs
            ):
                continue
            if self.states[cell.key] == "elsewhere" and not look_elsewhere:
                continue
            job = self._job(cell)
            if job.gpus and gpus_wanted:
                continue  # one that needs several GPUs is not overtaken for ever by those that need one
            if not self.executor.fits(job):
                if not job.gpus:
                    break  # no worker is free for anything
                gpus_wanted = True
                continue
            self._start(cell, job, note)

    def _job(self, cell: Cell) -> Job:
        gpus = cell.gpus if cell.gpus is not None else float(self.gpus > 0)
        return Job(
            key=cell.key,
            name=cell.name,
            notebook=str(cell.notebook),
            out=str(self.plan.folder(cell)),
            parameters=dict(cell.parameters),
            cwd=str(Path.cwd()),
            seconds=cell.seconds,
            memory_gb=cell.memory_gb,
            gpus=gpus,
        )

    def _start(self, cell: Cell, job: Job, note: Note) -> None:
        lease = Lease.take(self.plan.out, cell.key)
        if lease is None:
            if self.states[cell.key] != "elsewhere":
                note(f"elsewhere {cell.name}: another batch runs it")
            self.states[cell.key] = "elsewhere"
            return
        self.manifest.refresh()
        if is_done(self.plan, self.manifest, cell) or self._adopt(cell):
            lease.give_back()
            self._set(cell, "done")
            note(f"done {cell.name}: found finished")
            return
        if self.states[cell.key] == "elsewhere" and self.manifest.status(cell.key) == "failed":
            lease.give_back()
            self._set(cell, "failed")
            return
        self._leases[cell.key] = lease
        self._tries[cell.key] += 1
        self._since[cell.key] = time.monotonic()
        if missing := [p for p in cell.inputs if not Path(p).exists()]:
            self._record(Outcome(key=cell.key, status="failed", cause="notebook", error=_not_there(missing[0])), note)
            return
        self._set(cell, "running")
        note(f"started {cell.name}: {cell.said()}")
        self.executor.submit(_with_lease(job, lease))

    def _adopt(self, cell: Cell) -> bool:
        """Take a cell that is finished but in no line: its batch was killed between the last rename and the line.

        A folder has its name only when all of it is written, so it counts where what is in it can be read.
        """
        folder = self.plan.folder(cell)
        try:
            seconds = float(json.loads((folder / "run.json").read_text("utf-8"))["seconds"])
            json.loads((folder / cell.notebook.name).read_text("utf-8"))
            if "out" in cell.declared:
                json.loads((folder / "results.json").read_text("utf-8"))
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self.manifest.append(self._line(cell, Outcome(key=cell.key, status="ok", cause="found", seconds=seconds)))
        return True

    def _record(self, outcome: Outcome, note: Note) -> None:
        cell = self.plan.by_key[outcome.key]
        again = outcome.status == "lost" and self._tries[cell.key] < TRIES
        if outcome.status == "ok":
            shutil.rmtree(self.plan.failed(cell), ignore_errors=True)
            self.manifest.append(self._line(cell, outcome))
            self._set(cell, "done")
            peak = "" if outcome.peak_gb is None else f", {outcome.peak_gb:.2f} GB"
            note(f"done {cell.name}: {outcome.seconds:.1f} s{peak}")
        elif again:
            self._clear(cell)
            self._set(cell, "waiting")
            note(f"again {cell.name}: {outcome.error}; started again")
        else:
            said = self._keep(cell, outcome)
            self.manifest.append(self._line(cell, outcome, error=said))
            self._set(cell, "failed")
            note(f"failed {cell.name}: {said}")
            self._block()
        self._since.pop(cell.key, None)
        if lease := self._leases.pop(cell.key, None):
            lease.give_back()

    def _set(self, cell: Cell, state: State) -> None:
        self.states[cell.key] = state
        if state == "failed":
            self._block()

    def _keep(self, cell: Cell, outcome: Outcome) -> str:
        """Keep a failed cell's folder, with its log, under `failed/`; return the sentence with the final path."""
        folder = self.plan.folder(cell)
        kept = keep_failed(self.plan.out, cell.name, folder)
        target = self.plan.failed(cell)
        target.mkdir(parents=True, exist_ok=True)
        (target / "log.txt").write_text(f"{outcome.log}\n{outcome.error}\n", "utf-8")
        notebook = target / cell.notebook.name
        said = outcome.error.replace(str(folder.with_name(f"{cell.name}.failed")), str(target))
        if outcome.status == "lost":
            said += f" ({self._tries[cell.key]} times)"
        if kept is not None and notebook.exists() and str(notebook) not in said:
            said += f" (as far as it ran: {notebook})"
        return said

    def _clear(self, cell: Cell) -> None:
        folder = self.plan.folder(cell)
        for left in (*folder.parent.glob(f"{cell.name}.partial-*"), folder.with_name(f"{cell.name}.failed")):
            if not left.name.endswith("-old"):
                shutil.rmtree(left, ignore_errors=True)

    def _line(self, cell: Cell, outcome: Outcome, error: str | None = None) -> Line:
        commit, dirty = source_commit()
        line: dict[str, Any] = {
            "key": cell.key,
            "cell": cell.name,
            "stage": cell.stage,
            "status": "ok" if outcome.status == "ok" else "failed",
            "cause": outcome.cause,
            "error": outcome.error if error is None else error,
            "axes": dict(cell.axes),
            "parameters": dict(cell.parameters),
            "notebook": str(cell.notebook),
            "needs": list(cell.needs),
            "seconds": outcome.seconds,
            "peak_gb": outcome.peak_gb,
            "gpu": outcome.gpu,
            "host": outcome.host,
            "worker": outcome.worker,
            "executor": self.executor.name,
            "tries": self._tries[cell.key],
            "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": versions(),
            "commit": commit,
            "dirty": dirty,
        }
        return line

    # ---------------------------------------------------------------------------------------------------- telling

    def _progress(self) -> Progress:
        now = time.monotonic()
        return Progress(
            states=dict(self.states),
            said=self.executor.running(),
            since={k: now - s for k, s in self._since.items()},
            seconds=now - self._started,
            left=self._left(now),
        )

    def _left(self, now: float) -> float | None:
        """Return the seconds left: each open cell as long as finished cells of its stage took, over all slots."""
        took: dict[str, list[float]] = {}
        for line in self.manifest.last.values():
            if line.get("status") == "ok":
                took.setdefault(str(line.get("stage")), []).append(float(line.get("seconds") or 0.0))
        total = 0.0
        for cell in self.plan.cells:
            if self.states[cell.key] not in ("waiting", "running", "elsewhere"):
                continue
            known = took.get(cell.stage)
            if not known:
                return None
            expected = sum(known) / len(known)
            total += max(expected - (now - self._since.get(cell.key, now)), 0.0)
        return total / max(1, min(self.executor.slots, sum(s in ("waiting", "running") for s in self.states.values())))


def is_done(plan: Plan, manifest: Manifest, cell: Cell) -> bool:
    """Tell whether a cell is finished: the manifest says so, and its folder is there."""
    return manifest.status(cell.key) == "ok" and (plan.folder(cell) / "run.json").is_file()


def _with_lease(job: Job, lease: Lease) -> Job:
    return dataclasses.replace(job, lease=lease.descriptor)


def _not_there(path: str) -> str:
    folder = next((p for p in Path(path).parents if p.is_dir()), None)
    there = sorted(p.name for p in folder.iterdir()) if folder is not None else []
    return f"the cell that it needs made no {path!r}; {str(folder)!r} holds: {', '.join(there[:20]) or 'nothing'}"
