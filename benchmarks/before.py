"""Tokens a second and reads a step, before and after issue 19: the four ways to decode, scoring, a training step.

The old code is unpacked from git and runs in processes of its own (`python before.py`, with its tree as PYTHONPATH), in
turn with the new one. Both use this file, the same random pair and the same rows; no row ends early.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEFORE = "5754c60"
ROWS, CONTEXT, TOKENS = 4, 32, 24
SAMPLED = {"temperature": 0.9, "top_p": 0.95, "seed": 3}
MODES: dict[str, tuple[bool, dict[str, Any]]] = {
    "greedy": (False, {}),
    "sampled": (False, SAMPLED),
    "penalised": (True, {}),
    "penalised and sampled": (True, SAMPLED),
}
"""Name -> with a penalty, settings of GenerateConfig."""


def measure(vocab: int) -> dict[str, dict[str, float]]:
    """Measure the code that this process imports: tokens a second, and reads of a device a step."""
    import torch

    from benchmarks import scoring, training
    from benchmarks.pairs import wide
    from workbench.decoding.config import PenaltyConfig
    from workbench.decoding.contexts import DecodeConfig
    from workbench.decoding.penalised import decode
    from workbench.models.generation import GenerateConfig, generate

    pair = wide(vocab)
    endless = dataclasses.replace(pair, eos_ids=frozenset())
    drawn = torch.randint(8, vocab, (ROWS, CONTEXT), generator=torch.Generator().manual_seed(0)).tolist()
    contexts = [tuple(row) for row in drawn]

    def run(tokens: int, mode: str) -> None:
        with_penalty, settings = MODES[mode]
        drawing = GenerateConfig(max_tokens=tokens, **settings)
        if with_penalty:
            penalty = PenaltyConfig(gamma=1.0, strength=2.0)
            decode(endless, contexts, DecodeConfig(penalty=penalty, generation=drawing), what=None)
        else:
            generate(endless, "aligned", contexts, drawing, what=None)

    out = {}
    for mode in MODES:
        few, many = (reads(lambda n=n, mode=mode: run(n, mode)) for n in (4, 8))  # type: ignore[misc]
        start = time.perf_counter()
        run(TOKENS, mode)
        out[mode] = _rate(ROWS * TOKENS, start) | {"reads_a_step": (many - few) / 4}
    for name, task, work in (
        ("scoring", scoring.task(pair), scoring.ours),
        ("training step", training.task(49_152), lambda t: training.step(t, "ours")),
    ):
        seen = reads(lambda work=work, task=task: work(task))  # type: ignore[misc]
        start = time.perf_counter()
        work(task)  # type: ignore[operator]
        out[name] = _rate(len(task.ids) * task.response, start) | {"reads_a_step": float(seen)}
    return out


def _rate(tokens: int, start: float) -> dict[str, float]:
    return {"tokens_a_second": round(tokens / (time.perf_counter() - start), 1)}


def reads(run: Callable[[], object]) -> int:
    """Count by this tree's own counter, which the old tree does not have."""
    spec = importlib.util.spec_from_file_location("reads", Path(__file__).with_name("reads.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.Reads() as counted:
        run()
    count: int = counted.count
    return count


def compare(vocab: int, rounds: int) -> dict[str, Any]:
    """Run both in turn and return the medians of their rates, how often each step reads, and after over before."""
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(("git", "archive", BEFORE), cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(("tar", "-x", "-C", folder), input=packed, check=True)
        found: dict[str, list[dict[str, Any]]] = {"before": [], "after": []}
        for _ in range(rounds):
            for name, tree in (("before", folder), ("after", str(ROOT))):
                # GOMP_SPINCOUNT: set for both, since only the new tree sets it
                own = os.environ | {"PYTHONPATH": tree, "GOMP_SPINCOUNT": "1000", "CUDA_VISIBLE_DEVICES": ""}
                words = (sys.executable, "-P", __file__, str(vocab))
                done = subprocess.run(words, cwd=tree, env=own, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
    out: dict[str, Any] = {"commit_before": BEFORE, "vocabulary": vocab, "rounds": rounds}
    for what in found["after"][0]:
        rates = {n: [one[what]["tokens_a_second"] for one in each] for n, each in found.items()}
        ratios = [a / b for a, b in zip(rates["after"], rates["before"], strict=True)]
        out[what] = {
            "tokens_a_second": {n: statistics.median(r) for n, r in rates.items()},
            "after_over_before": {
                "median": round(statistics.median(ratios), 2),
                "least": round(min(ratios), 2),
                "greatest": round(max(ratios), 2),
            },
            "reads_a_step": {n: each[0][what]["reads_a_step"] for n, each in found.items()},
        }
    return out


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
