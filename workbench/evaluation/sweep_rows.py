"""A sweep, and the check of what it recommends, as tidy rows of results.json."""

from __future__ import annotations

import numpy as np

from workbench.core.records import Estimate, Row
from workbench.core.statistics import known
from workbench.evaluation.records import PenaltyCheck, PenaltySweep


def sweep_rows(sweep: PenaltySweep, *, where: str | None = None) -> tuple[Row, ...]:
    """Return every score and every leverage by position as one row; `arm` is the penalty.

    `condition` is the label, with `where` ("held out") behind it where it is given. `attack` is `prefill_k` after k
    given tokens, None where nobody attacks.
    """
    rows = [
        Row.of(
            s.metric,
            s.estimate,
            arm=s.penalty,
            attack=None if s.prefix_tokens is None else f"prefill_{s.prefix_tokens}",
            condition=_condition(s.label, where),
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
                    condition=_condition(curve.label, where),
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
    attack = f"prefill_{check.prefix_tokens}"
    found: list[tuple[str, str | None, str, Estimate]] = [
        ("asr_reduction", attack, "harmful", check.asr_reduction),
        ("refusal_change", attack, "harmful", check.refusal_change),
        ("gibberish_change", attack, "harmful", check.gibberish_change),
        ("over_refusal_change", None, "lookalike", check.over_refusal_change),
    ]
    if check.harmless_right_change is not None:
        found.append(("harmless_right_change", None, "harmless", check.harmless_right_change))
    return tuple(
        Row.of(name, e, arm=check.penalty, attack=attacked, condition=_condition(label, where), judge=check.judge)
        for name, attacked, label, e in found
    )


def _condition(label: str, where: str | None) -> str:
    return label if where is None else f"{label}, {where}"
