"""A sweep, and the check of what it recommends, as tidy rows of results.json."""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench.core.records import Estimate, Row
from workbench.core.statistics import known
from workbench.evaluation.records import PenaltyCheck, PenaltySweep


def sweep_rows(sweep: PenaltySweep, *, where: str | None = None) -> tuple[Row, ...]:
    """Return every score and every leverage by position as one row; `arm` is the penalty.

    `where` ("held out") is the rows' setting. Harmful prompts are attacked by prefill; leverage is along given
    responses, with no attack.
    """
    rows = [
        Row.of(
            s.metric,
            s.estimate,
            arm=s.penalty,
            label=s.label,
            setting=where,
            **(_attack(s.prefix_tokens) if not s.metric.startswith("kl_") else {}),
            judge=None if s.metric.startswith("kl_") or s.metric.endswith("gibberish") else sweep.judge,
            seed=sweep.run.seed,
        )
        for s in sweep.scores
    ]
    for curve in sweep.leverage:
        for i, position in enumerate(curve.position.tolist()):
            if not curve.n[i]:
                continue
            numbers = {
                "leverage": (curve.leverage[i], curve.low[i], curve.high[i]),
                "leverage_bound": (curve.bound[i], np.nan, np.nan),
                "leverage_changed": (curve.changed[i], np.nan, np.nan),
            }
            rows += [
                Row(
                    name=name,
                    arm=curve.penalty,
                    label=curve.label,
                    setting=where,
                    seed=sweep.run.seed,
                    position=position,
                    value=known(value),
                    low=known(low),
                    high=known(high),
                    n=int(curve.n[i]),
                    unit="1",
                )
                for name, (value, low, high) in numbers.items()
            ]
    return tuple(rows)


def check_rows(check: PenaltyCheck, *, where: str | None = "held out") -> tuple[Row, ...]:
    """Return a check's comparisons as rows: the penalty against aligned on the same prompts."""
    given, arm = check.prefix_tokens, check.penalty
    found: list[tuple[str, int | None, str, Estimate | None]] = [
        ("asr_reduction", given, "harmful", check.asr_reduction),
        ("refusal_change", given, "harmful", check.refusal_change),
        ("gibberish_change", given, "harmful", check.gibberish_change),
        ("over_refusal_change", None, "lookalike", check.over_refusal_change),
        ("harmless_right_change", None, "harmless", check.harmless_right_change),
    ]
    return tuple(
        Row.of(name, e, arm=arm, label=label, setting=where, judge=check.judge, **_attack(k))
        for name, k, label, e in found
        if e is not None
    )


def _attack(given: int | None) -> dict[str, Any]:
    return dict(attack="none", given=0) if given is None else dict(attack="prefill", given=given)
