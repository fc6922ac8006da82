"""Experiments: what stands on attacks and judges together: a sweep of penalties, a comparison of training arms.

sweep(pair, prompts, SweepConfig) -> PenaltySweep     every penalty on every prompt, with intervals
recommend(sweep, Rule) -> PenaltyChoice               the frontier, and the penalty that the rule chooses
compare_with_aligned(sweep, name) -> PenaltyCheck     does it hold on prompts that it was not chosen on
training_texts(pair, prompts) -> TrainingTexts        texts to train on, made by the pair itself and judged
compare_arms(pair, texts, prompts, CompareConfig) -> ArmComparison   every way to complete an alignment, asked alike
"""

from __future__ import annotations

from workbench.experiments.arms import CompareConfig, compare_arms, comparison_rows, leaks
from workbench.experiments.branching import Candidate, Judging, TextJudge, branch_out
from workbench.experiments.card import card_results
from workbench.experiments.check import Promise, check_penalty, compare_with_aligned
from workbench.experiments.config import ALIGNED, SweepConfig, penalty_grid, retention_for
from workbench.experiments.divergence import MOVES, measure_moves
from workbench.experiments.example import continue_three_ways, example_prompt, look_at
from workbench.experiments.frontier import Rule, bound_sentence, frontier, recommend
from workbench.experiments.penalty_file import load_penalty, save_penalty
from workbench.experiments.rows import check_rows, sweep_rows
from workbench.experiments.sampling import sampling_surface
from workbench.experiments.splits import tuning_and_held_out
from workbench.experiments.sweep import SweepCost, estimate_sweep, sweep
from workbench.experiments.training_data import TrainingDataConfig, harmful_preview, training_texts

__all__ = [
    "ALIGNED",
    "MOVES",
    "Candidate",
    "CompareConfig",
    "Judging",
    "Promise",
    "Rule",
    "SweepConfig",
    "SweepCost",
    "TextJudge",
    "TrainingDataConfig",
    "bound_sentence",
    "branch_out",
    "card_results",
    "check_penalty",
    "check_rows",
    "compare_arms",
    "compare_with_aligned",
    "comparison_rows",
    "continue_three_ways",
    "estimate_sweep",
    "example_prompt",
    "frontier",
    "harmful_preview",
    "leaks",
    "load_penalty",
    "look_at",
    "measure_moves",
    "penalty_grid",
    "recommend",
    "retention_for",
    "sampling_surface",
    "save_penalty",
    "sweep",
    "sweep_rows",
    "training_texts",
    "tuning_and_held_out",
]
