"""A Diagnosis as tidy rows of results.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.core.records import Row
from workbench.core.statistics import known
from workbench.tracing.diagnosis.summaries import DIFFERENCE
from workbench.tracing.records import Curve, Diagnosis


def diagnosis_rows(diagnosis: Diagnosis) -> tuple[Row, ...]:
    """Return every number as one row: curves by position, then contrasts, then token frequencies.

    `attack` is None along given responses (teacher-forced) and "prefill" along the model's own, after `given` tokens
    or, for numbers over several lengths, None. A difference between two labels has the second in `against`. The noise
    floor has no label, and its n counts samples. NaN is never written: None.
    """
    free = diagnosis.run.resolved.get("trajectory") == "free_running"
    place: dict[str, Any] = dict(attack="prefill" if free else None, seed=diagnosis.run.seed)
    rows: list[Row] = []
    for curve in diagnosis.curves:
        rows += _by_position(curve, place)
    if diagnosis.noise_floor is not None:
        rows += _by_position(diagnosis.noise_floor, place)
    for c in diagnosis.contrasts:
        if c.condition == DIFFERENCE:
            name, labels = f"{c.name}_difference", dict(label="harmful", against="harmless")
        else:
            name, labels = c.name, dict(label=c.condition)
        rows.append(Row.of(name, c.estimate, given=c.prefix_tokens, **labels, **place))
    for f in diagnosis.frequencies:
        place["token"] = f.token_id
        rows.append(Row.of("base_favored_rate", f.rate_harmful, label="harmful", **place))
        rows.append(Row.of("base_favored_rate", f.rate_harmless, label="harmless", **place))
        rows.append(Row.of("base_favored_rate_difference", f.difference, label="harmful", against="harmless", **place))
    return tuple(rows)


def _by_position(curve: Curve, place: Mapping[str, Any]) -> list[Row]:
    return [
        Row(
            name=curve.name,
            label=None if curve.condition == "all" else curve.condition,
            given=curve.prefix_tokens,
            position=int(position),
            value=known(curve.value[i]),
            low=known(curve.low[i]),
            high=known(curve.high[i]),
            n=int(curve.n[i]),
            unit=curve.unit,
            **place,
        )
        for i, position in enumerate(curve.position)
    ]
