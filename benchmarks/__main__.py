"""Measure and write benchmarks/results.json: `python -m benchmarks [SECTION ...] [--pairs NAME ...] [--rounds N]`.

Every measurement runs in a process of its own. A section that is not asked for keeps its numbers and their date.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PAIR_ROUNDS = {"embedded": 9, "smollm2": 7, "wide": 2}  # the naive way takes minutes a round on the wide head
GROWTH = {"shape": (4, 96, 64), "prompts x2": (8, 96, 64), "length x2": (4, 192, 128)}


# ------------------------------------------------------------------------------ one measurement, in a fresh process


def scoring_time(pair: str, rounds: str) -> dict[str, Any]:
    from benchmarks.pairs import PAIRS
    from benchmarks.scoring import ratio, task, times

    timed = times(task(PAIRS[pair]()), int(rounds))
    ours, bare, naive = timed["ours"], timed["bare"], timed["naive"]
    return {
        "seconds_median": {k: round(statistics.median(v.wall_s), 4) for k, v in timed.items()},
        "ours_over_bare": ratio(ours.wall_s, bare.wall_s),
        "ours_over_bare_core_seconds": ratio(ours.cores_s, bare.cores_s),
        "naive_over_ours": ratio(naive.wall_s, ours.wall_s),
    }


def scoring_memory(pair: str, variant: str) -> float:
    from benchmarks.pairs import PAIRS
    from benchmarks.scoring import VARIANTS, peak_mib, task

    full = task(PAIRS[pair]())
    VARIANTS[variant](task(full.pair, prompts=1, length=16, response=8))  # libraries load what they load on first use
    return round(peak_mib(lambda: VARIANTS[variant](full)), 1)


def scoring_growth(vocab: str, *shape: str) -> float:
    from benchmarks.pairs import wide
    from benchmarks.scoring import ours, peak_mib, task

    pair = wide(int(vocab))
    ours(task(pair, prompts=1, length=16, response=8))
    prompts, length, response = map(int, shape)
    full = task(pair, prompts=prompts, length=length, response=response)
    return round(peak_mib(lambda: ours(full)), 1)


def lens() -> dict[str, Any]:
    from benchmarks.lens import measure

    return measure()


def generation(shape: str, rounds: str) -> dict[str, Any]:
    from benchmarks.decoding import measure

    return measure(shape, int(rounds))


def textbook(part: str) -> float:
    from benchmarks.decoding import textbook_part

    return textbook_part(int(part))


def cached() -> dict[str, float]:
    from benchmarks.decoding import cached_seconds

    return cached_seconds()


def gcg_step(rounds: str) -> dict[str, Any]:
    from benchmarks.attacks import measure_gcg
    from benchmarks.pairs import PAIRS

    return measure_gcg(PAIRS["smollm2"](), int(rounds))


def answers(rounds: str) -> dict[str, Any]:
    from benchmarks.attacks import measure_answers
    from benchmarks.pairs import PAIRS

    return measure_answers(PAIRS["embedded"](), int(rounds))


def dial() -> dict[str, Any]:
    from benchmarks.dial import measure

    return measure()


def training_time(vocab: str, rounds: str) -> dict[str, Any]:
    from benchmarks.training import measure_time

    return measure_time(int(vocab), int(rounds))


def training_memory(vocab: str, variant: str) -> float:
    from benchmarks.training import measure_memory

    return round(measure_memory(int(vocab), variant), 1)


def training_estimate(name: str) -> dict[str, Any]:
    from benchmarks.training import measure_estimate

    return measure_estimate(name)


def batch_run(workers: str, warm: str) -> dict[str, float]:
    from benchmarks.batches import batch_seconds

    return batch_seconds(int(workers), warm == "warm")


def batch_plain() -> dict[str, float]:
    from benchmarks.batches import plain_seconds

    return plain_seconds()


_SCORING = (scoring_time, scoring_memory, scoring_growth)
_OTHERS = (
    lens,
    dial,
    generation,
    textbook,
    cached,
    gcg_step,
    answers,
    training_time,
    training_memory,
    training_estimate,
    batch_run,
    batch_plain,
)
PARTS: Mapping[str, Callable[..., Any]] = {f.__name__: f for f in (*_SCORING, *_OTHERS)}


def child(part: str, *words: object) -> Any:
    """Run one of PARTS in a fresh process and return what it found."""
    said = " ".join(map(str, words))
    print(f"{part} {said}", file=sys.stderr, flush=True)
    command = (sys.executable, "-m", "benchmarks", "--part", part, *map(str, words))
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, check=False)
    if done.returncode:
        raise SystemExit(f"benchmark {part} {said} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# ------------------------------------------------------------------------------------------------------ the sections


def measure_scoring(now: dict[str, Any], keep: Callable[[], None], asked: argparse.Namespace) -> None:
    """Score against bare forward passes and the naive way: time, memory, and memory as the task grows."""
    from workbench.tracing.scoring import BUFFER_MIB

    now["shape"] = {"prompts": 8, "length": 192, "response_positions": 128}
    now["buffer_budget_mib"] = BUFFER_MIB["cpu"]
    for pair in asked.pairs:
        result = child("scoring_time", pair, asked.rounds or PAIR_ROUNDS[pair])
        peak = {v: child("scoring_memory", pair, v) for v in ("ours", "bare", "naive")}
        result["peak_mib_above_weights"] = peak
        result["peak_ours_over_naive"] = round(peak["ours"] / peak["naive"], 4)
        now.setdefault("pairs", {})[pair] = result
        keep()
    growth = {name: child("scoring_growth", 50_000, *shape) for name, shape in GROWTH.items()}
    growth["vocabulary x2"] = child("scoring_growth", 100_000, *GROWTH["shape"])
    now["peak_mib_as_the_task_grows"] = growth


def measure_lens(now: dict[str, Any], keep: Callable[[], None], asked: argparse.Namespace) -> None:
    """Read the lens's times in the browser: first paint, hover, sliders, scrolling."""
    now.update(child("lens"))


def measure_generation(now: dict[str, Any], keep: Callable[[], None], asked: argparse.Namespace) -> None:
    """Generate with a penalty against plain generation, and against the textbook loop."""
    from benchmarks.decoding import SHAPES, TEXTBOOK_PARTS, TEXTBOOK_TOKENS

    for shape in SHAPES:
        now[shape] = child("generation", shape, asked.rounds or 5)
        keep()
    whole, ours = sum(child("textbook", part) for part in range(TEXTBOOK_PARTS)), child("cached")
    now[f"textbook loop, {TEXTBOOK_TOKENS} tokens"] = {
        "seconds": {"textbook": round(whole, 1), **{k: round(v, 2) for k, v in ours.items()}},
        "textbook_over": {k: round(whole / v, 1) for k, v in ours.items()},
    }


def measure_attacks(now: dict[str, Any], keep: Callable[[], None], asked: argparse.Namespace) -> None:
    """Take a step of GCG, and answer attempts in batches, against the plain ways."""
    now["gcg_step"] = child("gcg_step", asked.rounds or 3)
    keep()
    now["answers"] = child("answers", asked.rounds or 3)


def measure_dial(now: dict[str, Any], keep: Callable[[], None], asked: argparse.Namespace) -> None:
    """Turn the penalty dial in JupyterLab: from the slider to the first new token."""
    now.update(child("dial"))


def measure_training(now: dict[str, Any], keep: Callable[[], None], asked: argparse.Namespace) -> None:
    """Take a step of a training loss against the plain computation and TRL's GKD loss: time, memory, gradients."""
    from benchmarks.training import VARIANTS, WIDTHS

    for vocab in WIDTHS:
        result = child("training_time", vocab, asked.rounds or 7)
        peak = {name: child("training_memory", vocab, name) for name in VARIANTS}
        result["peak_mib_above_weights"] = peak
        result["peak_ours_over_trl"] = round(peak["ours"] / peak["trl"], 4)
        now[f"head {vocab} wide"] = result
        keep()


def measure_estimates(now: dict[str, Any], keep: Callable[[], None], asked: argparse.Namespace) -> None:
    """Train, and hold what the pre-flight estimated of memory and time against what the training took."""
    from benchmarks.training import ESTIMATES

    for name in ESTIMATES:
        now[name] = child("training_estimate", name)
        keep()


def measure_batches(now: dict[str, Any], keep: Callable[[], None], asked: argparse.Namespace) -> None:
    """Run twelve cells as a batch, by one worker and by two, cold and warm, and plainly in one process."""
    from benchmarks.batches import measure

    runs = {f"{kind} {n}": child("batch_run", n, kind) for kind in ("cold", "warm") for n in (1, 2)}
    now.update(measure(runs["cold 1"], runs["cold 2"], runs["warm 1"], runs["warm 2"], child("batch_plain")))


def measure_threads(now: dict[str, Any], keep: Callable[[], None], asked: argparse.Namespace) -> None:
    """Run notebook 04 alone and twice at once, by how long idle threads spin."""
    from benchmarks.threads import measure

    now.update(measure())


def measure_before(now: dict[str, Any], keep: Callable[[], None], asked: argparse.Namespace) -> None:
    """Decode in four ways, score, and train a step, by the code before issue 19 and by this one."""
    from benchmarks.before import compare

    now.update(compare(49_152, asked.rounds or 5))


SECTIONS: Mapping[str, Callable[[dict[str, Any], Callable[[], None], argparse.Namespace], None]] = {
    "scoring": measure_scoring,
    "lens": measure_lens,
    "dial": measure_dial,
    "generation": measure_generation,
    "attacks": measure_attacks,
    "training": measure_training,
    "estimates": measure_estimates,
    "batches": measure_batches,
    "threads": measure_threads,
    "before": measure_before,
}


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Measure the sections asked for; what was measured is on disk before the next begins."""
    import torch

    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}

    def keep() -> None:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")

    for name in asked.sections or SECTIONS:
        now: dict[str, Any] = found.setdefault(name, {})
        SECTIONS[name](now, keep, asked)
        now["date"] = date.today().isoformat()
        now["machine"] = {"cores": os.cpu_count(), "architecture": platform.machine(), "torch": torch.__version__}
        keep()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--rounds", type=int, help="timed rounds after one warm-up")
    parser.add_argument("--pairs", nargs="+", choices=PAIR_ROUNDS, default=list(PAIR_ROUNDS), help="for scoring")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        print(json.dumps(PARTS[asked.part[0]](*asked.part[1:])))
        return
    if unknown := set(asked.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}: there are {', '.join(SECTIONS)}")
    print(json.dumps(run(asked), indent=1))


if __name__ == "__main__":
    main()
