"""From traces to a Diagnosis: curves by position, headline contrasts, frequent tokens, and what they say."""

from __future__ import annotations

from workbench.tracing.diagnosis.config import DiagnosisConfig
from workbench.tracing.diagnosis.diagnose import diagnose
from workbench.tracing.diagnosis.rows import diagnosis_rows

__all__ = ["DiagnosisConfig", "diagnose", "diagnosis_rows"]
