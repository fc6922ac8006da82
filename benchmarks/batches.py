"""What a batch adds to its notebooks, and what a second worker buys: twelve cells of notebook 01 on the embedded pair.

Each figure is a whole process from its start to its end, with an empty cache and one torch thread a worker. `plain` is
one process that runs the same twelve notebooks' cells one after the other: it imports torch once, loads the pair once,
and makes no kernel, no executed notebook and no page.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CELLS = 12
GRID = f"""\
gpus: 0
stages:
  see:
    notebook: notebooks/01_diagnosis.ipynb
    parameters: {{limit: 24, max_tokens: 48}}
    grid: {{seed: {list(range(CELLS))}}}
"""


def timed(words: list[str], folder: Path) -> float:
    """Run a command in the repository with an empty cache and one thread; return its seconds."""
    environment = {**os.environ, "WORKBENCH_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    started = time.perf_counter()
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - started


def batch_seconds(workers: int, warm: bool) -> dict[str, float]:
    """Run the twelve cells as a batch; return its seconds, and those that the cells took by their records."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "grid.yaml").write_text(GRID)
        words = [sys.executable, "-m", "workbench", "batch", str(folder / "grid.yaml"), "--out", str(folder / "out")]
        words += ["--workers", str(workers), "--threads", "1", *(["--warm"] if warm else [])]
        seconds = timed(words, folder)
        lines = [json.loads(p.read_text()) for p in (folder / "out").glob("cells/*/cell.json")]
        assert len(lines) == CELLS
        return {"seconds": round(seconds, 2), "cells": round(sum(line["seconds"] for line in lines), 2)}


def plain_seconds() -> dict[str, float]:
    """Run the same cells in one process; return its seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "grid.yaml").write_text(GRID)
        words = [sys.executable, "-m", "benchmarks.batches", str(folder / "grid.yaml"), str(folder / "out")]
        return {"seconds": round(timed(words, folder), 2)}


def run_plain(grid: str, out: str) -> None:
    """Run every cell of a grid in this process: each notebook in a fresh namespace, what it displays captured."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    from workbench.running.batch import plan_of, read_grid
    from workbench.running.batch.keys import code_of
    from workbench.running.batch.warm import keep_pairs

    keep_pairs()
    shell = InteractiveShell.instance()
    for cell in plan_of(read_grid(grid), out).cells:
        shell.reset(new_session=True)
        settings, *code = code_of(cell.notebook)
        given = "\n".join(f"{n} = {v!r}" for n, v in {**cell.parameters, "out": f"{out}/{cell.name}"}.items())
        for source in (settings, given, *code):
            with capture_output():
                shell.run_cell(source).raise_error()
        assert Path(out, cell.name, "results.json").is_file()


def measure(one_cold: Any, two_cold: Any, one_warm: Any, two_warm: Any, plain: Any) -> dict[str, Any]:
    """Return the seconds, and the two ratios that are promised."""
    return {
        "cells": CELLS,
        "seconds": {
            "plain": plain["seconds"],
            "one worker": one_cold["seconds"],
            "two workers": two_cold["seconds"],
            "one warm worker": one_warm["seconds"],
            "two warm workers": two_warm["seconds"],
        },
        "one_worker_over_two": round(one_cold["seconds"] / two_cold["seconds"], 3),
        "one_warm_worker_over_two": round(one_warm["seconds"] / two_warm["seconds"], 3),
        "warm_over_plain": round(one_warm["seconds"] / plain["seconds"], 3),
        "cold_over_plain": round(one_cold["seconds"] / plain["seconds"], 3),
    }


if __name__ == "__main__":
    run_plain(*sys.argv[1:])
