"""Estimate the time and memory of a batch: from finished cells where there are any, else from the models' size."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.core.errors import WorkbenchError
from workbench.core.legible import aligned
from workbench.running.batch.drive import Batch, read_record
from workbench.running.batch.plan import Cell
from workbench.running.batch.status import duration

START_SECONDS, BASE_GB = 20.0, 0.9
"""The time and memory of a process with torch and the workbench before a model is loaded."""
FLOPS = {"cpu": 2e10, "gpu": 3e13}
"""Operations a second in practice, of one thread and of one GPU."""
WORK = 12.0
"""Operations for each parameter and token of a cell: two forward passes of two models, and half as much again."""
Expected = tuple[float | None, float | None, str]
"""The expected seconds and GB of a cell, None where unknown, and their source."""


def expected(cell: Cell, finished: Sequence[Mapping[str, Any]], *, gpus: float, threads: int) -> Expected:
    """Return the expected time and memory of a cell.

    They come from finished cells of its stage, else of its notebook (median time, most memory), else from the size of
    its pair: memory is the weights (4 bytes a parameter on a CPU, 2 on a GPU, both models) and half as much again, plus
    0.9 GB; time is an order of magnitude, from its `limit` and `max_tokens`.
    """
    for field, value in (("stage", cell.stage), ("notebook", str(cell.notebook))):
        if records := [r for r in finished if r.get(field) == value]:
            source = f"{len(records)} finished cell{'' if len(records) == 1 else 's'} of its {field}"
            peaks = [float(r["peak_gb"]) for r in records if r.get("peak_gb") is not None]
            return statistics.median(float(r["seconds"]) for r in records), max(peaks, default=None), source
    if not (size := _parameters(cell)):
        return None, None, "unknown: there is no finished cell, and no pair of known size"
    limit, tokens = (cell.parameters.get(name) for name in ("limit", "max_tokens"))
    read = (limit if isinstance(limit, int) else 100) * ((tokens if isinstance(tokens, int) else 64) + 64)
    seconds = START_SECONDS + WORK * size * read / (FLOPS["gpu"] if gpus else FLOPS["cpu"] * threads)
    source = f"a guess from 2 x {size / 1e6:,.0f}M parameters, time to an order of magnitude"
    return seconds, BASE_GB + 1.5 * 2 * size * (2 if gpus else 4) / 1e9, source


def _parameters(cell: Cell) -> int | None:
    """Return the parameters of one model of the pair that a cell names, None where they are unknown."""
    from workbench.models.presets import preset

    name = cell.parameters.get("pair") or cell.defaults.get("pair")
    with contextlib.suppress(WorkbenchError):
        return preset(str(name)).parameters if name and cell.parameters.get("base") is None else None
    return None


def plan_text(batch: Batch) -> str:
    """Return the plan as text: each cell with its values, needs, state, time and memory; then the sums."""
    plan, threads = batch.plan, batch.pool.threads
    gpus = {c.key: c.gpus or 0.0 for c in plan.cells}
    finished = [r for p in (plan.out / "cells").glob("*/cell.json") if not (r := read_record(p.parent)).get("cause")]
    guesses = {c.key: expected(c, finished, gpus=gpus[c.key], threads=threads) for c in plan.cells}
    states = {"done": "finished, skipped", "failed": "failed before (--retry)", "waiting": "to run"}
    lines = [("cell", "values", "needs", "state", "time", "memory", "GPUs")]
    for cell in plan.cells:
        (seconds, gb, _), state = guesses[cell.key], batch.states[cell.key]
        needs = ", ".join(plan.by_key[n].name for n in cell.needs) or "-"
        took, held = "?" if seconds is None else duration(seconds), "?" if gb is None else f"{gb:.1f} GB"
        lines.append((cell.name, cell.said(), needs, states.get(state, state), took, held, f"{gpus[cell.key]:g}"))
    todo = [c for c in plan.cells if batch.states[c.key] == "waiting"]
    known = {c.key: s for c in todo if (s := guesses[c.key][0]) is not None}
    sums = [f"{len(todo)} of {len(plan.cells)} cells to run, {batch.pool.slots} at once, into {plan.out}"]
    if known:
        more = f", and {len(todo) - len(known)} cells of unknown length" if len(known) < len(todo) else ""
        hours = sum(seconds * (gpus[key] or 1.0) for key, seconds in known.items()) / 3600
        clock, kind = duration(sum(known.values()) / batch.pool.slots), "GPU" if any(gpus.values()) else "CPU worker"
        sums.append(f"{kind} hours: about {hours:.2g}{more}; on the clock about {clock}{more}")
    for source in dict.fromkeys(guesses[c.key][2] for c in todo):
        stages = dict.fromkeys(c.stage for c in todo if guesses[c.key][2] == source)
        sums.append(f"time and memory of {', '.join(stages)}: {source}")
    return "\n".join([aligned(lines), "", *sums, "nothing was started"])
