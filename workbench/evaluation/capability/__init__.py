"""Capability of an arm by lm-evaluation-harness on the live pair, on its tasks or on local files."""

from __future__ import annotations

from workbench.evaluation.capability.config import SHAPES, CapabilityConfig
from workbench.evaluation.capability.measure import measure_capability

__all__ = ["SHAPES", "CapabilityConfig", "measure_capability"]
