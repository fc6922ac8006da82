"""One verb that writes a record for other programs: an adapter, an evaluation, or a recommended penalty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

from workbench.core.errors import ParameterError
from workbench.evaluation.card import export_adapter
from workbench.evaluation.exports import export_evaluation
from workbench.evaluation.frontier import save_penalty
from workbench.evaluation.records import ArmComparison, Evaluation, PenaltyChoice, PenaltySweep
from workbench.training.records import Adapter


@singledispatch
def export(record: Any, path: str | Path, about: Any = None) -> Any:
    """Write a record for other programs.

    An Adapter goes into the folder `path` with its model card, and comes back as the Adapter that lies there; `about`
    is an ArmComparison whose results the card shows. An Evaluation goes into the folder `path` as CSV, LaTeX and
    completions, whose paths are returned; `about` are the rows of its method card. A PenaltyChoice goes into the JSON
    file `path`, which is returned and which `load_penalty` reads; `about` is its PenaltySweep. Raises ParameterError
    for another record, StorageFull when the disk is full.
    """
    raise ParameterError(f"adapters, evaluations and recommended penalties are exported, not a {type(record).__name__}")


@export.register(Adapter)
def _(record: Adapter, path: str | Path, about: ArmComparison | None = None) -> Adapter:
    return export_adapter(record, path, about)


@export.register(Evaluation)
def _(record: Evaluation, path: str | Path, about: Sequence[Mapping[str, str]] = ()) -> tuple[Path, ...]:
    return export_evaluation(path, record, about)


@export.register(PenaltyChoice)
def _(record: PenaltyChoice, path: str | Path, about: PenaltySweep) -> Path:
    return save_penalty(path, record, about)
