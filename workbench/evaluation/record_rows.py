"""Which rows of results.json each kind of record has: one table, so that notebooks assemble none by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from workbench.core.records import Record, Row
from workbench.evaluation.arms import comparison_rows
from workbench.evaluation.check import check_rows
from workbench.evaluation.records import ArmComparison, Evaluation, PenaltyCheck, PenaltySweep, Scorecard
from workbench.evaluation.rows import evaluation_rows
from workbench.evaluation.sweep import sweep_rows
from workbench.tracing.diagnosis.rows import diagnosis_rows
from workbench.tracing.gradients import probe_rows
from workbench.tracing.records import Diagnosis, GradientProbe

ROWS: Mapping[type[Record], Callable[..., tuple[Row, ...]]] = {
    Diagnosis: diagnosis_rows,
    GradientProbe: probe_rows,
    Scorecard: evaluation_rows,
    Evaluation: lambda evaluation: evaluation_rows(evaluation.scorecard),
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
