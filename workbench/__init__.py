# ruff: noqa: F401, PLE0605
"""The deep-alignment workbench: compare a base model with its aligned version, token by token.

The names below are the public ones. They are imported when first used, so `import workbench` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from workbench.core.threads import share_the_cores

if TYPE_CHECKING:
    from workbench.core import comparisons, errors
    from workbench.core.errors import WorkbenchError
    from workbench.core.records import load, save
    from workbench.core.results import load_results
    from workbench.core.store import Store
    from workbench.decoding.config import PenaltyConfig
    from workbench.decoding.penalised import decode
    from workbench.decoding.penalty import penalise
    from workbench.display import figures, views
    from workbench.display.check import check
    from workbench.display.report import Report
    from workbench.evaluation.arms import CompareConfig, compare_arms
    from workbench.evaluation.attacks import HarmlessPrefill, Prefill, answer, attack
    from workbench.evaluation.beside import answers_beside
    from workbench.evaluation.branching import TextJudge
    from workbench.evaluation.capability import measure_capability
    from workbench.evaluation.check import check_penalty
    from workbench.evaluation.evaluate import evaluate
    from workbench.evaluation.example import continue_three_ways, look_at, sampling_surface
    from workbench.evaluation.export import export
    from workbench.evaluation.frontier import Rule, load_penalty, recommend
    from workbench.evaluation.metrics import EvaluateConfig
    from workbench.evaluation.penalties import PenaltyGrid, SweepConfig
    from workbench.evaluation.records import Evaluation, Scorecard
    from workbench.evaluation.setup import arms_of, attempts_of, questions_of
    from workbench.evaluation.sweep import sweep
    from workbench.judging.judging import judge
    from workbench.models.fitting import fit_prompts
    from workbench.models.generation import GenerateConfig
    from workbench.models.pair import ModelPair, PairConfig, load_pair
    from workbench.prompts.loading import Prompt, PromptConfig, PromptSet, load_prompts
    from workbench.prompts.splits import split_prompts
    from workbench.running.runs import RunConfig, run_notebook
    from workbench.tracing import metrics
    from workbench.tracing.continued import continue_openings
    from workbench.tracing.diagnosis.config import DiagnosisConfig
    from workbench.tracing.diagnosis.diagnose import diagnose
    from workbench.tracing.diagnosis.ranking import most_like_base
    from workbench.tracing.gradients import GradientConfig, probe_gradients
    from workbench.tracing.layers import LayersConfig, trace_layers
    from workbench.tracing.reach import within_top
    from workbench.tracing.records import Diagnosis, GradientProbe, LayerTrace, TraceSet
    from workbench.tracing.traces import TraceConfig, trace
    from workbench.training.config import LossConfig, TrainConfig, WatchSettings, arm_with
    from workbench.training.data import TrainingDataConfig, training_texts
    from workbench.training.distil import distil
    from workbench.training.teacher import preview_teacher

__version__ = "0.1.0"

share_the_cores()  # before torch is imported

_VERBS = {
    "core.errors": "WorkbenchError errors",
    "core.records": "load save",
    "core.results": "load_results",
    "prompts.loading": "load_prompts",
    "prompts.splits": "split_prompts",
    "models.pair": "load_pair",
    "tracing.continued": "continue_openings",
    "models.fitting": "fit_prompts",
    "tracing.traces": "trace",
    "tracing.reach": "within_top",
    "tracing.diagnosis.diagnose": "diagnose",
    "tracing.diagnosis.ranking": "most_like_base",
    "tracing.gradients": "probe_gradients",
    "tracing.layers": "trace_layers",
    "decoding.penalised": "decode",
    "decoding.penalty": "penalise",
    "evaluation.sweep": "sweep",
    "evaluation.frontier": "recommend load_penalty",
    "evaluation.check": "check_penalty",
    "evaluation.beside": "answers_beside",
    "evaluation.example": "continue_three_ways look_at sampling_surface",
    "training.data": "training_texts",
    "evaluation.arms": "compare_arms",
    "training.teacher": "preview_teacher",
    "training.config": "arm_with",
    "training.distil": "distil",
    "evaluation.export": "export",
    "evaluation.setup": "arms_of attempts_of questions_of",
    "evaluation.attacks": "attack answer",
    "judging.judging": "judge",
    "evaluation.capability": "measure_capability",
    "evaluation.evaluate": "evaluate",
    "display.report": "Report",
    "display.check": "check",
    "running.runs": "run_notebook",
}
"""What notebooks call, by the module that defines it."""

_MODULES = {
    "tracing.metrics": "metrics",
    "core.comparisons": "comparisons",
    "display.figures": "figures",
    "display.views": "views",
}
"""Rooms' modules that a notebook uses whole: formulas, and ways to draw a record."""

_TYPES = {
    "core.errors": "WorkbenchError",
    "core.store": "Store",
    "prompts.loading": "Prompt PromptSet PromptConfig",
    "models.pair": "ModelPair PairConfig",
    "models.generation": "GenerateConfig",
    "tracing.records": "TraceSet Diagnosis GradientProbe LayerTrace",
    "tracing.traces": "TraceConfig",
    "tracing.diagnosis.config": "DiagnosisConfig",
    "tracing.gradients": "GradientConfig",
    "tracing.layers": "LayersConfig",
    "decoding.config": "PenaltyConfig",
    "evaluation.penalties": "PenaltyGrid SweepConfig",
    "evaluation.frontier": "Rule",
    "evaluation.branching": "TextJudge",
    "training.data": "TrainingDataConfig",
    "training.config": "TrainConfig WatchSettings LossConfig",
    "evaluation.arms": "CompareConfig",
    "evaluation.metrics": "EvaluateConfig",
    "evaluation.attacks": "Prefill HarmlessPrefill",
    "evaluation.records": "Evaluation Scorecard",
    "running.runs": "RunConfig",
}
"""Configs, records and other classes. A verb takes its config's fields by keyword, so notebooks name few of them."""

_ROOM_OF = {
    name: room for table in (_VERBS, _MODULES, _TYPES) for room, names in table.items() for name in names.split()
}
__all__ = sorted(_ROOM_OF)


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"workbench has no public name {name!r}; it has: {', '.join(__all__)}")
    module = importlib.import_module(f"workbench.{_ROOM_OF[name]}")
    value = getattr(module, name, module)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
