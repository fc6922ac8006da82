"""The deep-alignment workbench: compare a base model with its aligned version, token by token.

The names below are the public ones. They are imported when first used, so `import workbench` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.core.errors import WorkbenchError
    from workbench.core.records import load, save
    from workbench.display import figures, views
    from workbench.display.check import check
    from workbench.display.report import write_report
    from workbench.evaluation.arms import CompareConfig, compare_arms, comparison_rows, leaks
    from workbench.evaluation.branching import TextJudge
    from workbench.evaluation.card import card_results
    from workbench.evaluation.check import check_penalty, check_rows, compare_with_aligned
    from workbench.evaluation.example import continue_three_ways, look_at
    from workbench.evaluation.frontier import Rule, recommend
    from workbench.evaluation.penalties import SweepConfig, pair_under, penalty_grid, retention_for
    from workbench.evaluation.penalty_file import load_penalty, save_penalty
    from workbench.evaluation.sampling import sampling_surface
    from workbench.evaluation.splits import tuning_and_held_out
    from workbench.evaluation.sweep import sweep, sweep_rows
    from workbench.evaluation.training_data import TrainingDataConfig, harmful_preview, training_texts
    from workbench.models.generation import GenerateConfig
    from workbench.models.pair import ModelPair, PairConfig, load_pair
    from workbench.prompts.loading import Prompt, PromptConfig, PromptSet, load_prompts
    from workbench.running.runs import RunConfig, run_notebook
    from workbench.tracing.diagnosis.config import DiagnosisConfig
    from workbench.tracing.diagnosis.diagnose import diagnose
    from workbench.tracing.gradients import GradientConfig, probe_gradients
    from workbench.tracing.records import Diagnosis, GradientProbe, TraceSet
    from workbench.tracing.traces import TraceConfig, trace
    from workbench.training.adapter import export
    from workbench.training.config import LossConfig, TrainConfig, WatchSettings, arm_named, arm_with, values_of
    from workbench.training.distil import distil
    from workbench.training.teacher import preview_teacher, teacher_flips

__version__ = "0.1.0"

_ROOM_OF = {
    "WorkbenchError": "core.errors",
    "save": "core.records",
    "load": "core.records",
    "Prompt": "prompts.loading",
    "PromptSet": "prompts.loading",
    "PromptConfig": "prompts.loading",
    "load_prompts": "prompts.loading",
    "ModelPair": "models.pair",
    "PairConfig": "models.pair",
    "load_pair": "models.pair",
    "GenerateConfig": "models.generation",
    "TraceSet": "tracing.records",
    "TraceConfig": "tracing.traces",
    "trace": "tracing.traces",
    "Diagnosis": "tracing.records",
    "DiagnosisConfig": "tracing.diagnosis.config",
    "diagnose": "tracing.diagnosis.diagnose",
    "GradientProbe": "tracing.records",
    "GradientConfig": "tracing.gradients",
    "probe_gradients": "tracing.gradients",
    "distil": "training.distil",
    "export": "training.adapter",
    "preview_teacher": "training.teacher",
    "arm_named": "training.config",
    "arm_with": "training.config",
    "TrainConfig": "training.config",
    "values_of": "training.config",
    "teacher_flips": "training.teacher",
    "LossConfig": "training.config",
    "WatchSettings": "training.config",
    "SweepConfig": "evaluation.penalties",
    "penalty_grid": "evaluation.penalties",
    "retention_for": "evaluation.penalties",
    "pair_under": "evaluation.penalties",
    "TextJudge": "evaluation.branching",
    "CompareConfig": "evaluation.arms",
    "compare_arms": "evaluation.arms",
    "comparison_rows": "evaluation.arms",
    "leaks": "evaluation.arms",
    "card_results": "evaluation.card",
    "check_penalty": "evaluation.check",
    "compare_with_aligned": "evaluation.check",
    "check_rows": "evaluation.check",
    "sweep_rows": "evaluation.sweep",
    "continue_three_ways": "evaluation.example",
    "look_at": "evaluation.example",
    "Rule": "evaluation.frontier",
    "recommend": "evaluation.frontier",
    "load_penalty": "evaluation.penalty_file",
    "save_penalty": "evaluation.penalty_file",
    "sampling_surface": "evaluation.sampling",
    "tuning_and_held_out": "evaluation.splits",
    "sweep": "evaluation.sweep",
    "TrainingDataConfig": "evaluation.training_data",
    "harmful_preview": "evaluation.training_data",
    "training_texts": "evaluation.training_data",
    "write_report": "display.report",
    "check": "display.check",
    "RunConfig": "running.runs",
    "run_notebook": "running.runs",
    "figures": "display.figures",
    "views": "display.views",
}

__all__ = [
    "CompareConfig",
    "Diagnosis",
    "DiagnosisConfig",
    "GenerateConfig",
    "GradientConfig",
    "GradientProbe",
    "LossConfig",
    "ModelPair",
    "PairConfig",
    "Prompt",
    "PromptConfig",
    "PromptSet",
    "Rule",
    "RunConfig",
    "SweepConfig",
    "TextJudge",
    "TraceConfig",
    "TraceSet",
    "TrainConfig",
    "TrainingDataConfig",
    "WatchSettings",
    "WorkbenchError",
    "arm_named",
    "arm_with",
    "card_results",
    "check",
    "check_penalty",
    "check_rows",
    "compare_arms",
    "compare_with_aligned",
    "comparison_rows",
    "continue_three_ways",
    "diagnose",
    "distil",
    "export",
    "figures",
    "harmful_preview",
    "leaks",
    "load",
    "load_pair",
    "load_penalty",
    "load_prompts",
    "look_at",
    "pair_under",
    "penalty_grid",
    "preview_teacher",
    "probe_gradients",
    "recommend",
    "retention_for",
    "run_notebook",
    "sampling_surface",
    "save",
    "save_penalty",
    "sweep",
    "sweep_rows",
    "teacher_flips",
    "trace",
    "training_texts",
    "tuning_and_held_out",
    "values_of",
    "views",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"workbench has no public name {name!r}; it has: {', '.join(__all__)}")
    module = importlib.import_module(f"workbench.{_ROOM_OF[name]}")
    value = getattr(module, name, module)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
