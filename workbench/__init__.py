"""The deep-alignment workbench: compare a base model with its aligned version, token by token.

The names below are the public ones. They are imported when first used, so `import workbench` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.tracing.diagnosis import DiagnosisConfig, diagnose
    from workbench.core.errors import WorkbenchError
    from workbench.models.generation import GenerateConfig
    from workbench.tracing.gradients import GradientConfig, probe_gradients
    from workbench.models.pair import ModelPair, PairConfig, load_pair
    from workbench.prompts.loading import Prompt, PromptConfig, PromptSet, load_prompts
    from workbench.tracing.records import Diagnosis, GradientProbe, TraceSet
    from workbench.core.records import load, save
    from workbench.display.report import write_report
    from workbench.running.runs import RunConfig, run_notebook
    from workbench.tracing.traces import TraceConfig, trace

__version__ = "0.1.0"

_ROOM_OF = {
    "WorkbenchError": "errors",
    "save": "records",
    "load": "records",
    "Prompt": "prompts",
    "PromptSet": "prompts",
    "PromptConfig": "prompts",
    "load_prompts": "prompts",
    "ModelPair": "pair",
    "PairConfig": "pair",
    "load_pair": "pair",
    "GenerateConfig": "generate",
    "TraceSet": "records",
    "TraceConfig": "traces",
    "trace": "traces",
    "Diagnosis": "records",
    "DiagnosisConfig": "diagnosis",
    "diagnose": "diagnosis",
    "GradientProbe": "records",
    "GradientConfig": "gradients",
    "probe_gradients": "gradients",
    "write_report": "report",
    "RunConfig": "runs",
    "run_notebook": "runs",
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
    "WorkbenchError",
    "diagnose",
    "load",
    "load_pair",
    "load_prompts",
    "probe_gradients",
    "run_notebook",
    "save",
    "trace",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"workbench has no public name {name!r}; it has: {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"workbench.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
