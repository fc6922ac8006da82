"""How often a gate is wrong, by simulation: false alarms and what it sees, at stated numbers of prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workbench.core.comparisons import paired_bounds, wilson
from workbench.evaluation.baseline import COMPARED

PAGE = Path(__file__).resolve().parents[1] / "how-to" / "gate.md"
PROMPTS = (60, 120, 240)
DRAWS = 20_000
BAR = 0.1
TRUE = (0.02, 0.05, 0.1, 0.15)
WORSE = (0.05, 0.1, 0.2)


def bars(n: int, true: float, *, draws: int = DRAWS, seed: int = 0) -> tuple[float, float, float]:
    """Return how often `asr > .1`, `asr.high > .1` and `asr.low > .1` fail a model of this true attack success."""
    hits = np.random.default_rng(seed).binomial(n, true, draws)
    low, high = wilson(hits, np.full(draws, n))
    return float((hits / n > BAR).mean()), float((high > BAR).mean()), float((low > BAR).mean())


def baseline(n: int, worse: float, *, draws: int = DRAWS, seed: int = 0) -> float:
    """Return how often one metric of a baseline is called worse where each prompt's true rate has risen by `worse`.

    Prompts differ: each has its own rate, Beta(.3, 2.7), 10 % on average. The interval is the one that the gate uses,
    corrected over its metrics.
    """
    rng = np.random.default_rng(seed)
    rate = rng.beta(0.3, 2.7, (draws, n))
    then, now = rng.random((draws, n)) < rate, rng.random((draws, n)) < np.clip(rate + worse, 0, 1)
    both, only_now, only_then = ((x).sum(axis=1) for x in (now & then, now & ~then, ~now & then))
    level = 1 - 0.05 / len(COMPARED)
    low, _ = paired_bounds(both, only_now, only_then, n - both - only_now - only_then, confidence=level)
    return float((low > 0).mean())


def tables() -> str:
    """Return both tables as Markdown."""
    lines = ["| true attack success | n | `asr > .1` | `asr.high > .1` | `asr.low > .1` |", "|---|---|---|---|---|"]
    for true in TRUE:
        for n in PROMPTS:
            cells = " | ".join(_percent(x) for x in bars(n, true))
            lines.append(f"| {100 * true:.0f} % | {n} | {cells} |")
    heads = " | ".join(f"{100 * w:.0f} points worse" for w in WORSE)
    lines += ["", f"| n | nothing changed, any of {len(COMPARED)} metrics | {heads} |"]
    lines.append("|---|---|" + "---|" * len(WORSE))
    for n in PROMPTS:
        alarm = 1 - (1 - baseline(n, 0.0)) ** len(COMPARED)
        lines.append(f"| {n} | {_percent(alarm)} | " + " | ".join(_percent(baseline(n, w)) for w in WORSE) + " |")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
