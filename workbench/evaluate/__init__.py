"""From what arms answered and judges said to a Scorecard: every number with its interval, every comparison in words."""

from __future__ import annotations

from workbench.evaluate.config import EvaluateConfig
from workbench.evaluate.evaluate import evaluate
from workbench.evaluate.metrics import METRICS
from workbench.evaluate.rows import evaluation_rows
from workbench.evaluate.tradeoff import Tradeoff, safest, tradeoffs

__all__ = ["METRICS", "EvaluateConfig", "Tradeoff", "evaluate", "evaluation_rows", "safest", "tradeoffs"]
