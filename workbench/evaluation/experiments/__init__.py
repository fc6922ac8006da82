"""Experiments: what stands on attacks and judges together: a sweep of penalties, a comparison of training arms.

sweep(pair, prompts, SweepConfig) -> PenaltySweep     every penalty on every prompt, with intervals
recommend(sweep, Rule) -> PenaltyChoice               the frontier, and the penalty that the rule chooses
compare_with_aligned(sweep, name) -> PenaltyCheck     does it hold on prompts that it was not chosen on
training_texts(pair, prompts) -> TrainingTexts        texts to train on, made by the pair itself and judged
compare_arms(pair, texts, prompts, CompareConfig) -> ArmComparison   every way to complete an alignment, asked alike
"""

from __future__ import annotations

from workbench.evaluation.experiments.arms import CompareConfig, compare_arms, comparison_rows, leaks
from workbench.evaluation.experiments.branching import Candidate, Judging, TextJudge, branch_out
from workbench.evaluation.experiments.card import card_results
from workbench.evaluation.experiments.check import Promise, check_penalty, compare_with_aligned
from workbench.evaluation.experiments.config import ALIGNED, SweepConfig, penalty_grid, retention_for
from workbench.evaluation.experiments.divergence import MOVES, measure_moves
from workbench.evaluation.experiments.example import continue_three_ways, example_prompt, look_at
from workbench.evaluation.experiments.frontier import Rule, bound_sentence, frontier, recommend
from workbench.evaluation.experiments.penalty_file import load_penalty, save_penalty
from workbench.evaluation.experiments.rows import check_rows, sweep_rows
from workbench.evaluation.experiments.sampling import sampling_surface
from workbench.evaluation.experiments.splits import tuning_and_held_out
from workbench.evaluation.experiments.sweep import SweepCost, estimate_sweep, sweep
from workbench.evaluation.experiments.training_data import TrainingDataConfig, harmful_preview, training_texts

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
