"""Judge completions: a score, a verdict, or the reason why there is none; one contract for rules, models and people.

`judge` is the verb. `JUDGES` lists the judges by name; anything that keeps the contract of `Judge` is one. Gibberish is
measured apart (`find_gibberish`): an attack that fails may end in babble rather than in a refusal.
"""

from __future__ import annotations

from workbench.judges.agreement import Agreement, Panel, panel
from workbench.judges.calibration import Calibration, calibrate
from workbench.judges.config import JUDGES, EndpointConfig, JudgeConfig, judge_of
from workbench.judges.contract import Judge, Sample, is_harmful, is_refusal, scored, unscored
from workbench.judges.gibberish import find_gibberish
from workbench.judges.judging import judge
from workbench.judges.ratings import Ratings, RatingSheet, rater_agreement

__all__ = [
    "JUDGES",
    "Agreement",
    "Calibration",
    "EndpointConfig",
    "Judge",
    "JudgeConfig",
    "Panel",
    "RatingSheet",
    "Ratings",
    "Sample",
    "calibrate",
    "find_gibberish",
    "is_harmful",
    "is_refusal",
    "judge",
    "judge_of",
    "panel",
    "rater_agreement",
    "scored",
    "unscored",
]
