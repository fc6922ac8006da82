"""A Diagnosis as tidy rows of results.json."""

from __future__ import annotations

from typing import Any

from workbench.core.records import Row
from workbench.tracing.diagnosis.summaries import DIFFERENCE, OWN_REFUSALS
from workbench.tracing.records import Diagnosis


def diagnosis_rows(diagnosis: Diagnosis) -> tuple[Row, ...]:
    """Return every number as one row: curves by position, then contrasts, depths and token frequencies.

    `attack` is None along given responses (teacher-forced) and "prefill" along the model's own, after `given` tokens
    or, for numbers over several lengths, None. A difference between two labels has the second in `against`. The noise
    floor has no label, and its n counts samples. A depth ("alignment_depth") that equals "alignment_depth_measured"
    may be larger. NaN becomes None.
    """
    free = diagnosis.run.resolved.get("trajectory") == "free_running"
    place: dict[str, Any] = dict(attack="prefill" if free else None, seed=diagnosis.run.seed)
    rows: list[Row] = []
    floor = diagnosis.noise_floor
    for c in diagnosis.curves if floor is None else (*diagnosis.curves, floor):
        label = None if c.label == "all" else c.label
        of_curve: dict[str, Any] = dict(label=label, given=c.prefix_tokens, unit=c.unit, **place)
        rows += Row.by_position(c.name, c.value, c.low, c.high, c.n, **of_curve)
    for contrast in diagnosis.contrasts:
        if contrast.name == OWN_REFUSALS:
            how: dict[str, Any] = dict(attack="prefill" if free else "none", given=0, seed=diagnosis.run.seed)
            how["judge"] = diagnosis.run.resolved.get("judge")
            rows.append(Row.of(OWN_REFUSALS, contrast.estimate, arm="aligned", label="harmful", **how))
            continue
        if contrast.label == DIFFERENCE:
            name, labels = f"{contrast.name}_difference", dict(label="harmful", against="harmless")
        else:
            name, labels = contrast.name, dict(label=contrast.label)
        rows.append(Row.of(name, contrast.estimate, given=contrast.prefix_tokens, **labels, **place))
    for d in diagnosis.depths:
        of_depth: dict[str, Any] = dict(label=d.label, category=d.category, **place)
        rows.append(Row.of("alignment_depth", d.estimate, **of_depth))
        measured: dict[str, Any] = dict(value=float(d.measured), n=d.estimate.n, unit=d.estimate.unit)
        rows.append(Row(name="alignment_depth_measured", **measured, **of_depth))
    for f in diagnosis.frequencies:
        place["token"] = f.token_id
        rows.append(Row.of("base_favored_rate", f.rate_harmful, label="harmful", **place))
        rows.append(Row.of("base_favored_rate", f.rate_harmless, label="harmless", **place))
        rows.append(Row.of("base_favored_rate_difference", f.difference, label="harmful", against="harmless", **place))
    return tuple(rows)
