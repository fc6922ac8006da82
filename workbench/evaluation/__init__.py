"""From what arms answered and judges said to a Scorecard: every number with its interval, every comparison in words."""

from __future__ import annotations

from workbench.evaluation.config import EvaluateConfig
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.metrics import METRICS
from workbench.evaluation.rows import evaluation_rows
from workbench.evaluation.tradeoff import Tradeoff, safest, tradeoffs

__all__ = ["METRICS", "EvaluateConfig", "Tradeoff", "evaluate", "evaluation_rows", "safest", "tradeoffs"]
