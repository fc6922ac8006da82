"""Experiments: what stands on attacks and judges together. A sweep of penalties, its frontier, and what to take of it.

sweep(pair, prompts, SweepConfig) -> PenaltySweep     every penalty on every prompt, with intervals
recommend(sweep, Rule) -> PenaltyChoice               the frontier, and the penalty that the rule chooses
compare_with_aligned(sweep, name) -> PenaltyCheck     does it hold on prompts that it was not chosen on
"""

from __future__ import annotations

from workbench.experiments.check import Promise, check_penalty, compare_with_aligned
from workbench.experiments.config import ALIGNED, SweepConfig, penalty_grid, retention_for
from workbench.experiments.divergence import MOVES, measure_moves
from workbench.experiments.example import continue_three_ways, look_at
from workbench.experiments.frontier import Rule, bound_sentence, frontier, recommend
from workbench.experiments.penalty_file import load_penalty, save_penalty
from workbench.experiments.rows import check_rows, sweep_rows
from workbench.experiments.splits import tuning_and_held_out
from workbench.experiments.sweep import SweepCost, estimate_sweep, sweep

__all__ = [
    "ALIGNED",
    "MOVES",
    "Promise",
    "Rule",
    "SweepConfig",
    "SweepCost",
    "bound_sentence",
    "check_penalty",
    "check_rows",
    "compare_with_aligned",
    "continue_three_ways",
    "estimate_sweep",
    "frontier",
    "load_penalty",
    "look_at",
    "measure_moves",
    "penalty_grid",
    "recommend",
    "retention_for",
    "save_penalty",
    "sweep",
    "sweep_rows",
    "tuning_and_held_out",
]
