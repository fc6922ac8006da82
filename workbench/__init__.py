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
    from workbench.models.generation import GenerateConfig
    from workbench.models.pair import ModelPair, PairConfig, load_pair
    from workbench.prompts.loading import Prompt, PromptConfig, PromptSet, load_prompts
    from workbench.running.runs import RunConfig, run_notebook
    from workbench.tracing.diagnosis.config import DiagnosisConfig
    from workbench.tracing.diagnosis.diagnose import diagnose
    from workbench.tracing.gradients import GradientConfig, probe_gradients
    from workbench.tracing.records import Diagnosis, GradientProbe, TraceSet
    from workbench.tracing.traces import TraceConfig, trace
    from workbench.training.config import LossConfig, TrainConfig, WatchSettings, arm_named, arm_with, values_of
    from workbench.training.loop import distil, export
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
    "distil": "training.loop",
    "export": "training.loop",
    "preview_teacher": "training.teacher",
    "arm_named": "training.config",
    "arm_with": "training.config",
    "TrainConfig": "training.config",
    "values_of": "training.config",
    "teacher_flips": "training.teacher",
    "LossConfig": "training.config",
    "WatchSettings": "training.config",
    "write_report": "display.report",
    "check": "display.check",
    "RunConfig": "running.runs",
    "run_notebook": "running.runs",
    "figures": "display.figures",
    "views": "display.views",
}

__all__ = [
    "Diagnosis",
    "DiagnosisConfig",
    "GenerateConfig",
    "GradientConfig",
    "GradientProbe",
    "ModelPair",
    "PairConfig",
    "Prompt",
    "PromptConfig",
    "PromptSet",
    "RunConfig",
    "TraceConfig",
    "TraceSet",
    "TrainConfig",
    "WorkbenchError",
    "arm_named",
    "arm_with",
    "check",
    "diagnose",
    "distil",
    "export",
    "figures",
    "load",
    "load_pair",
    "load_prompts",
    "preview_teacher",
    "probe_gradients",
    "run_notebook",
    "save",
    "trace",
    "views",
    "values_of",
    "teacher_flips",
    "LossConfig",
    "WatchSettings",
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
