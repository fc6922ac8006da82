"""Measure everything and write benchmarks/results.json: `python -m benchmarks [--rounds N] [--pairs NAME ...]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
ROUNDS = {"embedded": 9, "smollm2": 7, "wide": 2}  # the naive way takes minutes a round on the wide head
GROWTH = {"shape": (4, 96, 64), "prompts x2": (8, 96, 64), "length x2": (4, 192, 128)}


def child(*words: str) -> Any:
    """Run one measurement in a fresh process and return what it printed, as JSON."""
    done = subprocess.run(
        (sys.executable, "-m", "benchmarks", *words), capture_output=True, text=True, cwd=HERE.parent, check=False
    )
    if done.returncode:
        raise SystemExit(f"benchmark {' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_time(pair: str, rounds: int) -> dict[str, Any]:
    from benchmarks.pairs import PAIRS
    from benchmarks.scoring import ratio, task, times

    timed = times(task(PAIRS[pair]()), rounds)
    ours, bare, naive = timed["ours"], timed["bare"], timed["naive"]
    return {
        "seconds_median": {k: round(statistics.median(v.wall_s), 4) for k, v in timed.items()},
        "ours_over_bare": ratio(ours.wall_s, bare.wall_s),
        "ours_over_bare_core_seconds": ratio(ours.cores_s, bare.cores_s),
        "naive_over_ours": ratio(naive.wall_s, ours.wall_s),
    }


def measure_memory(pair: str, variant: str) -> float:
    from benchmarks.pairs import PAIRS
    from benchmarks.scoring import VARIANTS, peak_mib, task

    full, small = task(PAIRS[pair]()), None
    small = task(full.pair, prompts=1, length=16, response=8)
    VARIANTS[variant](small)  # libraries load what they load on first use
    return peak_mib(lambda: VARIANTS[variant](full))


def measure_growth(vocab: int, prompts: int, length: int, response: int) -> float:
    from benchmarks.pairs import wide
    from benchmarks.scoring import ours, peak_mib, task

    pair = wide(vocab)
    ours(task(pair, prompts=1, length=16, response=8))
    t = task(pair, prompts=prompts, length=length, response=response)
    return peak_mib(lambda: ours(t))


def run_all(pairs: list[str], rounds: int | None) -> dict[str, Any]:
    import torch

    from workbench.scoring import BUFFER_MIB

    kept = json.loads(RESULTS.read_text()).get("scoring", {}) if RESULTS.exists() else {}
    out: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "torch": torch.__version__},
        "shape": {"prompts": 8, "length": 192, "response_positions": 128},
        "buffer_budget_mib": BUFFER_MIB["cpu"],
        "scoring": kept,
    }
    for pair in pairs:
        print(f"{pair}: time", file=sys.stderr, flush=True)
        result = child("--time", pair, "--rounds", str(rounds or ROUNDS[pair]))
        print(f"{pair}: memory", file=sys.stderr, flush=True)
        peak = {v: round(child("--memory", pair, v), 1) for v in ("ours", "bare", "naive")}
        result["peak_mib_above_weights"] = peak
        result["peak_ours_over_naive"] = round(peak["ours"] / peak["naive"], 4)
        out["scoring"][pair] = result
        write(out)  # what was measured is kept when the rest is interrupted
    print("growth", file=sys.stderr, flush=True)
    growth = {name: round(child("--growth", "50000", *map(str, shape)), 1) for name, shape in GROWTH.items()}
    growth["vocabulary x2"] = round(child("--growth", "100000", *map(str, GROWTH["shape"])), 1)
    out["peak_mib_as_the_task_grows"] = growth
    return out


def write(results: dict[str, Any]) -> str:
    """Write benchmarks/results.json and return its text."""
    text = json.dumps(results, indent=1)
    RESULTS.write_text(text + "\n")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help=f"timed rounds after one warm-up (default {ROUNDS})")
    parser.add_argument("--pairs", nargs="+", choices=ROUNDS, default=list(ROUNDS))
    parser.add_argument("--time", help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--growth", nargs=4, type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.time:
        print(json.dumps(measure_time(asked.time, asked.rounds or ROUNDS[asked.time])))
    elif asked.memory:
        print(json.dumps(measure_memory(*asked.memory)))
    elif asked.growth:
        print(json.dumps(measure_growth(*asked.growth)))
    else:
        print(write(run_all(asked.pairs, asked.rounds)))


if __name__ == "__main__":
    main()
