"""The settings of a diagnosis, with the thresholds of its verdict."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.core.configs import above, at_least, between, check_fields

IDENTICAL_KL_NATS = 1e-5
"""The least KL floor, where the measured noise is lower (total variation at most 0.0022, by Pinsker)."""


@dataclass(frozen=True, kw_only=True)
class DiagnosisConfig:
    """The settings of a diagnosis.

    Early positions are 1 to `early`, late ones `late_from` and later (free-running: and after the prefix). `tokens` is
    the length of the frequency list. Intervals are of `resamples` seeded bootstrap draws of prompts at level
    `confidence`. The verdict's thresholds are `shallow_ratio` (early KL over late KL), `half_retention` and
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
        check_fields(
            self,
            (self.late_from <= self.early, "late_from", f"above early = {self.early}"),
            early=at_least(1),
            tokens=at_least(0),
            shallow_ratio=above(1),
            half_retention=between(0, 1),
            moved_nats=above(0),
            resamples=at_least(1),
            confidence=between(0, 1),
            seed=at_least(0),
        )
