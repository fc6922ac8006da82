"""A Diagnosis as tidy rows of results.json."""

from __future__ import annotations

from workbench.core.records import Row
from workbench.core.statistics import known
from workbench.tracing.records import Curve, Diagnosis


def diagnosis_rows(diagnosis: Diagnosis) -> tuple[Row, ...]:
    """Return every number as one row: curves by position, then contrasts, then token frequencies.

    `condition` is the label ("harmful_minus_harmless" for differences, "all" for the noise floor, whose n counts
    samples). `attack` is None when teacher-forced, `prefill_k` after a prefix of k tokens, `prefill` for numbers pooled
    over several prefix lengths. A token's rate is named `base_favored_rate[token id]`. NaN is never written: None.
    """
    free = diagnosis.run.resolved.get("trajectory") == "free_running"
    seed = diagnosis.run.seed
    pooled = "prefill" if free else None
    rows: list[Row] = []
    for curve in diagnosis.curves:
        rows += _by_position(curve, _attack(curve.prefix_tokens, None), seed)
    if diagnosis.noise_floor is not None:
        rows += _by_position(diagnosis.noise_floor, None, seed)
    for c in diagnosis.contrasts:
        attack = _attack(c.prefix_tokens, pooled)
        rows.append(Row.of(c.name, c.estimate, condition=c.condition, attack=attack, seed=seed))
    for f in diagnosis.frequencies:
        for condition, rate in (
            ("harmful", f.rate_harmful),
            ("harmless", f.rate_harmless),
            ("harmful_minus_harmless", f.difference),
        ):
            name = f"base_favored_rate[{f.token_id}]"
            rows.append(Row.of(name, rate, condition=condition, attack=pooled, seed=seed))
    return tuple(rows)


def _attack(prefix_tokens: int | None, otherwise: str | None) -> str | None:
    return otherwise if prefix_tokens is None else f"prefill_{prefix_tokens}"


def _by_position(curve: Curve, attack: str | None, seed: int | None) -> list[Row]:
    return [
        Row(
            name=curve.name,
            attack=attack,
            condition=curve.condition,
            seed=seed,
            position=int(position),
            value=known(curve.value[i]),
            low=known(curve.low[i]),
            high=known(curve.high[i]),
            n=int(curve.n[i]),
            unit=curve.unit,
        )
        for i, position in enumerate(curve.position)
    ]
