"""From traces to a Diagnosis: curves by position, headline contrasts, frequent tokens, and what they say."""

from __future__ import annotations

from workbench.diagnosis.config import DiagnosisConfig
from workbench.diagnosis.diagnose import diagnose
from workbench.diagnosis.rows import diagnosis_rows

__all__ = ["DiagnosisConfig", "diagnose", "diagnosis_rows"]
