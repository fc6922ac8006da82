"""Every record as tidy rows of results.json, so that notebooks assemble no rows by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from workbench.core.records import Record, Row
from workbench.core.statistics import known
from workbench.evaluation.records import ArmComparison, Evaluation, PenaltyCheck, PenaltySweep, Score, Scorecard
from workbench.tracing.diagnosis.rows import diagnosis_rows
from workbench.tracing.parting import layer_rows
from workbench.tracing.records import Diagnosis, GradientProbe, LayerTrace


def evaluation_rows(scorecard: Scorecard) -> tuple[Row, ...]:
    """Return every number as one row: scores, then comparisons.

    `metric_unscored` counts the prompts that a score leaves out (n: scored and unscored together). A comparison of two
    arms is `metric_difference`, its corrected p `metric_p_holm`, and the n that would be needed at the observed effect
    `metric_n_needed`. `attack_too_weak` is 1 where an attack measures no defence, by its success on this arm, else 0.
    """
    seed = scorecard.run.seed
    rows: list[Row] = []
    for s in scorecard.scores:
        place = {**s.place(without=("metric",)), "category": s.category, "seed": seed}
        rows.append(Row.of(s.metric, s.estimate, **place))
        if left := sum(s.unscored.values()):
            n = left + s.estimate.n
            rows.append(Row(name=f"{s.metric}_unscored", value=float(left), n=n, unit="prompts", **place))
    for k in scorecard.strengths:
        place = {"arm": k.arm, "label": "harmful", "attack": k.attack, "judge": k.judge, "seed": seed}
        rows.append(Row(name="attack_too_weak", value=float(k.weak), n=k.success.n, unit="1", **place))
    for c in scorecard.comparisons:
        place, n = {**c.place(without=("metric",)), "against": c.against, "seed": seed}, c.difference.n
        rows.append(Row.of(f"{c.metric}_difference", c.difference, **place))
        rows.append(Row(name=f"{c.metric}_p_holm", value=c.p_holm, n=n, unit="1", **place))
        if c.n_needed is not None:
            rows.append(Row(name=f"{c.metric}_n_needed", value=float(c.n_needed), n=n, unit="prompts", **place))
    return tuple(rows)


def by_place(scores: Sequence[Score]) -> list[list[Score]]:
    """Group scores into the lines of a table: attacks in order of appearance, the worst case of each last."""
    groups: dict[tuple[Any, ...], list[Score]] = {}
    for s in scores:
        groups.setdefault((s.attack, s.given, s.setting, s.worst_of), []).append(s)
    attacks = list(dict.fromkeys(s.attack for s in scores))
    return sorted(groups.values(), key=lambda group: (attacks.index(group[0].attack), group[0].over_settings))


def sweep_rows(sweep: PenaltySweep, *, where: str | None = None) -> tuple[Row, ...]:
    """Return every score, comparison, KL, and the leverage, bound and changed share by position; `arm` is the penalty.

    `where` ("held out") goes into `setting`, so that the rows of two sweeps in one run differ.
    """
    rows = list(evaluation_rows(sweep.evaluation.scorecard))
    for name, e in zip(sweep.names, sweep.kl_nats, strict=False):
        rows.append(Row.of("kl_penalised_aligned_nats", e, arm=name, label="harmless"))
    for c in sweep.leverage:
        for i in np.flatnonzero(c.n).tolist():
            place: dict[str, Any] = {"arm": c.penalty, "label": c.label, "n": int(c.n[i]), "unit": "1"}
            place["position"] = int(c.position[i])
            value, low, high, bound, changed = (known(x[i]) for x in (c.leverage, c.low, c.high, c.bound, c.changed))
            rows.append(Row(name="leverage", value=value, low=low, high=high, **place))
            rows.append(Row(name="leverage_bound", value=bound, **place))
            rows.append(Row(name="leverage_changed", value=changed, **place))
    return tuple(replace(r, setting=where or r.setting, seed=sweep.run.seed) for r in rows)


def check_rows(check: PenaltyCheck, *, where: str | None = "held out") -> tuple[Row, ...]:
    """Return the relative reduction of ASR as a row; the paired differences are rows of the check's own sweep."""
    place = {"attack": "prefill", "given": check.prefix_tokens, "setting": where, "judge": check.judge}
    return (Row.of("asr_reduction", check.asr_reduction, arm=check.penalty, label="harmful", **place),)


def comparison_rows(comparison: ArmComparison) -> tuple[Row, ...]:
    """Return every number as rows: all seeds together (seed None), then the scores and paired tests of each seed."""
    each = zip(comparison.seeds, (e.scorecard for e in comparison.evaluations), strict=True)
    cards = ((None, comparison.scorecard), *each)
    return tuple(replace(r, seed=seed) for seed, card in cards for r in evaluation_rows(card))


def _probe_rows(probe: GradientProbe) -> tuple[Row, ...]:
    from workbench.tracing.gradients import probe_rows  # loads torch

    return probe_rows(probe)


ROWS: Mapping[type[Record], Callable[..., tuple[Row, ...]]] = {
    Diagnosis: diagnosis_rows,
    GradientProbe: _probe_rows,
    LayerTrace: layer_rows,
    Scorecard: evaluation_rows,
    Evaluation: lambda evaluation: (*evaluation.agreement, *evaluation_rows(evaluation.scorecard)),
    PenaltySweep: sweep_rows,
    PenaltyCheck: check_rows,
    ArmComparison: comparison_rows,
}


def rows_of(record: Record, setting: str | None = None) -> tuple[Row, ...]:
    """Return a record's rows, () where its kind has none; `setting` says where its numbers hold ("held out")."""
    rows = ROWS.get(type(record))
    if rows is None:
        return ()
    return rows(record) if setting is None else rows(record, where=setting)
