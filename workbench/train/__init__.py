"""Complete the alignment of a pair: texts that are judged already and a config in, a trained adapter out.

distil(pair, texts, config, out=...) -> Adapter      one arm; `ARMS` has every arm of the comparison by name
preview_teacher(pair, texts, config) -> TeacherPreview   what the teacher says before anything is paid for
export, merge                                       the adapter elsewhere, or merged into a model of its own
"""

from __future__ import annotations

from workbench.train.card import load_line
from workbench.train.config import (
    ARMS,
    ArmConfig,
    LoraSettings,
    LossConfig,
    LossWeights,
    OptimiserSettings,
    TrainConfig,
    WatchSettings,
    arm_named,
    arm_with,
    values_of,
)
from workbench.train.loop import distil, export, load_adapter
from workbench.train.merge import merge
from workbench.train.objective import Role
from workbench.train.rows import HarmfulText, PlainText, TrainingTexts
from workbench.train.teacher import preview_teacher, teacher_flips

__all__ = [
    "ARMS",
    "ArmConfig",
    "HarmfulText",
    "LoraSettings",
    "LossConfig",
    "LossWeights",
    "OptimiserSettings",
    "PlainText",
    "Role",
    "TrainConfig",
    "TrainingTexts",
    "WatchSettings",
    "arm_named",
    "arm_with",
    "distil",
    "export",
    "load_adapter",
    "load_line",
    "merge",
    "preview_teacher",
    "teacher_flips",
    "values_of",
]
