"""How to summarise traces, and the thresholds of the verdict."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.core.errors import ParameterError

IDENTICAL_KL_NATS = 1e-5
"""KL that counts as none where the measured noise floor is lower still (total variation at most 0.0022, by
Pinsker)."""


@dataclass(frozen=True, kw_only=True)
class DiagnosisConfig:
    """Say how to summarise.

    Early positions are 1 to `early`, late ones `late_from` and later (free-running: and after the prefix).
    `tokens` is the length of the frequency list. Intervals: `resamples` bootstrap draws of prompts at level
    `confidence`, seeded. The verdict's thresholds are `shallow_ratio` (early KL over late KL), `half_retention` and
    `moved_nats`; see `diagnosis.verdict`.
    """

    early: int = 3
    late_from: int = 15
    tokens: int = 30
    shallow_ratio: float = 3.0
    half_retention: float = 0.5
    moved_nats: float = 0.1
    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        bad = [
            (self.early < 1, "early", "at least 1"),
            (self.late_from <= self.early, "late_from", f"above early = {self.early}"),
            (self.tokens < 0, "tokens", "at least 0"),
            (not self.shallow_ratio > 1, "shallow_ratio", "above 1"),
            (not 0 < self.half_retention < 1, "half_retention", "between 0 and 1"),
            (not self.moved_nats > 0, "moved_nats", "above 0"),
            (self.resamples < 1, "resamples", "at least 1"),
            (not 0 < self.confidence < 1, "confidence", "between 0 and 1"),
            (self.seed < 0, "seed", "at least 0"),
        ]
        for wrong, name, want in bad:
            if wrong:
                raise ParameterError(f"{name} is {getattr(self, name)!r}; it must be {want}")
