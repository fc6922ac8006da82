"""Say beforehand what a batch will take: from earlier cells where there are any, else from the models' size."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.core.errors import WorkbenchError
from workbench.running.batch.devices import shares
from workbench.running.batch.drive import State
from workbench.running.batch.manifest import Manifest
from workbench.running.batch.plan import Cell, Plan
from workbench.running.batch.status import duration

START_SECONDS = 20.0
BASE_GB = 0.9
"""What a process with torch and the workbench takes before a model is loaded."""
FLOPS = {"cpu": 2e10, "gpu": 3e13}
"""Operations a second that are reached in practice, for one thread and one GPU."""
WORK = 12.0
"""Operations for each parameter and token of a cell: two forward passes of two models, and half as much besides."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Hold what a cell is expected to take; None is unknown. `source` says in words where it is from."""

    seconds: float | None
    gb: float | None
    source: str


def expected(plan: Plan, manifest: Manifest, *, gpus: int, threads: int = 1) -> dict[str, Expected]:
    """Return for every cell what it is expected to take.

    From finished cells of its stage, else of its notebook (medians; memory: the most); else from the number of
    parameters of the pair that it names: memory is the weights (4 bytes a parameter on a CPU, 2 on a GPU, both models)
    and half as much besides, plus 0.9 GB; time is an order of magnitude, from its `limit` and `max_tokens`.
    """
    manifest.refresh()
    finished = [line for line in manifest.last.values() if line.get("status") == "ok"]
    return {c.key: _one(c, finished, gpus=gpus, threads=threads) for c in plan.cells}


def _one(cell: Cell, finished: list[Mapping[str, Any]], *, gpus: int, threads: int) -> Expected:
    for field, value, words in (("stage", cell.stage, "its stage"), ("notebook", str(cell.notebook), "its notebook")):
        lines = [line for line in finished if line.get(field) == value]
        if lines:
            peaks = [float(line["peak_gb"]) for line in lines if line.get("peak_gb") is not None]
            return Expected(
                seconds=statistics.median(float(line.get("seconds") or 0.0) for line in lines),
                gb=max(peaks, default=None),
                source=f"{len(lines)} finished cell{'' if len(lines) == 1 else 's'} of {words}",
            )
    parameters = _parameters(cell)
    if parameters is None:
        return Expected(seconds=None, gb=None, source="nothing to go by: no finished cell, no pair of known size")
    on_gpu = shares(cell.gpus, gpus) > 0
    weights = 2 * parameters * (2 if on_gpu else 4)
    tokens = _whole(cell.parameters.get("limit"), 100) * (_whole(cell.parameters.get("max_tokens"), 64) + 64)
    speed = FLOPS["gpu"] if on_gpu else FLOPS["cpu"] * threads
    return Expected(
        seconds=START_SECONDS + WORK * parameters * tokens / speed,
        gb=BASE_GB + 1.5 * weights / 1e9,
        source=f"a guess from 2 x {parameters / 1e6:,.0f}M parameters, time to an order of magnitude",
    )


def _whole(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _parameters(cell: Cell) -> int | None:
    """Return the parameters of one model of the pair that a cell names, None where nobody knows."""
    from workbench.models.presets import preset

    name = cell.parameters.get("pair")
    if cell.parameters.get("base") is not None:
        return None
    if name is None and "pair" in cell.defaults:
        name = cell.defaults["pair"]
    try:
        return preset(str(name)).parameters if name else None
    except WorkbenchError:
        return None


def plan_text(
    plan: Plan,
    states: Mapping[str, State],
    guesses: Mapping[str, Expected],
    *,
    gpus: int,
    slots: int,
) -> str:
    """Return the plan as text: each cell with its values, what it needs, its state, time and memory; then the sums."""
    heads = ("cell", "values", "needs", "state", "time", "memory", "GPUs")
    lines = [heads]
    for cell in plan.cells:
        guess = guesses[cell.key]
        lines.append(
            (
                cell.name,
                cell.said(),
                ", ".join(plan.by_key[n].name for n in cell.needs) or "-",
                _words(states[cell.key]),
                "?" if guess.seconds is None else duration(guess.seconds),
                "?" if guess.gb is None else f"{guess.gb:.1f} GB",
                f"{shares(cell.gpus, gpus):g}",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    text = ["  ".join(v.ljust(w) for v, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, "", *_sums(plan, states, guesses, gpus=gpus, slots=slots)])


def _words(state: State) -> str:
    return {"done": "finished, skipped", "failed": "failed before (--retry)", "waiting": "to run"}.get(state, state)


def _sums(
    plan: Plan, states: Mapping[str, State], guesses: Mapping[str, Expected], *, gpus: int, slots: int
) -> list[str]:
    todo = [c for c in plan.cells if states[c.key] == "waiting"]
    known = [(c, s) for c in todo if (s := guesses[c.key].seconds) is not None]
    unknown = len(todo) - len(known)
    total = sum(s for _, s in known)
    device = sum(s * (shares(c.gpus, gpus) or 1.0) for c, s in known) / 3600
    kind = "GPU" if gpus else "CPU worker"
    lines = [f"{len(todo)} of {len(plan.cells)} cells to run, {slots} at once, into {plan.out}"]
    if known:
        more = f", and {unknown} cells of unknown length" if unknown else ""
        lines.append(
            f"{kind} hours: about {device:.2g}{more}; on the clock about {duration(total / max(slots, 1))}{more}"
        )
    for source in dict.fromkeys(guesses[c.key].source for c in todo):
        stages = dict.fromkeys(c.stage for c in todo if guesses[c.key].source == source)
        lines.append(f"time and memory of {', '.join(stages)}: {source}")
    return [*lines, "nothing was started"]
