"""Every record that is saved, by the room that makes it. Reading a record back needs no torch and no model."""

from __future__ import annotations

from workbench.records.core import SCHEMA, Estimate, Label, Record, Row, RunRecord, load, rows_json, save
from workbench.records.diagnosis import (
    Contrast,
    Curve,
    Diagnosis,
    Divergent,
    GradientProbe,
    HeatMap,
    TokenFrequency,
)
from workbench.records.evaluation import (
    AttackSet,
    Attempt,
    Comparison,
    Completion,
    CompletionSet,
    Judgement,
    JudgementSet,
    Score,
    Scorecard,
    Verdict,
)
from workbench.records.traces import SCALARS, Response, TraceSet, Trajectory

__all__ = [
    "SCALARS",
    "SCHEMA",
    "AttackSet",
    "Attempt",
    "Comparison",
    "Completion",
    "CompletionSet",
    "Contrast",
    "Curve",
    "Diagnosis",
    "Divergent",
    "Estimate",
    "GradientProbe",
    "HeatMap",
    "Judgement",
    "JudgementSet",
    "Label",
    "Record",
    "Response",
    "Row",
    "RunRecord",
    "Score",
    "Scorecard",
    "TokenFrequency",
    "TraceSet",
    "Trajectory",
    "Verdict",
    "load",
    "rows_json",
    "save",
]
