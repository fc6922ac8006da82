"""The role of each column of a source, and the reading of a label column.

A column that the config names has that role. For the other roles the names of NAMES are tried in order, without regard
to case, spaces, hyphens and underscores; the first that the source has is used (of two that fit, the left one). The
set lists every used column as given or guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from workbench.core.errors import ParameterError, PromptError, nearest
from workbench.core.records import Label
from workbench.prompts.rows import Source, refuse

Role = Literal["prompt", "response", "label", "category", "depth", "split", "id", "pair_id"]

NAMES: Mapping[Role, tuple[str, ...]] = {
    "prompt": (
        "prompt", "goal", "instruction", "question", "behavior", "behaviour", "forbidden_prompt", "query",
        "user_input", "request", "input", "text", "messages", "conversation",
    ),
    "response": ("response", "target", "completion", "output", "answer"),
    "label": (
        "label", "is_harmful", "harmful", "is_unsafe", "unsafe", "toxicity", "prompt_harm_label", "is_safe", "safe",
        "is_harmless", "harmless",
    ),
    "category": (
        "category", "semantic_category", "functional_category", "harm_category", "kind", "type", "topic", "subject",
    ),
    "depth": ("depth",),
    "split": ("split",),
    "id": ("id", "prompt_id", "behavior_id"),
    "pair_id": ("pair_id", "pair"),
}  # fmt: skip
"""Known column names of each role, in the order in which they are tried."""

LABELS: tuple[Label, ...] = get_args(Label)

_LABEL_VALUES: Mapping[str, Label] = {
    **dict.fromkeys(("harmful", "unsafe", "toxic", "malicious", "1", "true", "yes"), "harmful"),
    **dict.fromkeys(("harmless", "unharmful", "safe", "benign", "0", "false", "no"), "harmless"),
    "lookalike": "lookalike",
    **dict.fromkeys(("", "unlabelled", "unlabeled"), "unlabelled"),
}
_INVERTED = {"issafe", "safe", "isharmless", "harmless"}
_YES, _NO = {"1", "true", "yes"}, {"0", "false", "no"}


def _key(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The column of each role, and the roles that the config gave."""

    taken: Mapping[Role, str]
    given: frozenset[Role]
    notes: tuple[str, ...]

    def value(self, values: Mapping[str, Any], role: Role) -> Any:
        """Return a row's value for a role; None where it has none."""
        column = self.taken.get(role)
        return None if column is None else values.get(column)

    def stated(self, otherwise: str = "guessed") -> dict[str, str]:
        """Map each used column to its role, e.g. {"goal": "prompt (guessed)"}."""
        return {c: f"{role} ({'given' if role in self.given else otherwise})" for role, c in self.taken.items()}


def resolve(source: Source, asked: Mapping[Role, str | None]) -> Columns:
    """Find the column of each role.

    Raises PromptError where a given column does not exist, one is given for two roles, or none can be the prompt.
    """
    have = ", ".join(map(repr, source.columns)) or "none"
    given = {role: column for role, column in asked.items() if column is not None}
    for role, column in given.items():
        if column not in source.columns:
            near = nearest(column, source.columns)
            raise PromptError(f"{source.name} has no column {column!r} ({role}_column): {near} It has {have}")
    if len(set(given.values())) < len(given):
        stated = ", ".join(f"{role}_column={column!r}" for role, column in given.items())
        raise PromptError(f"one column was given two roles ({stated}): give each role its own column")
    taken: dict[Role, str] = dict(given)
    notes = []
    for role, names in NAMES.items():
        if role in taken:
            continue
        for name in names:
            fitting = [c for c in source.columns if _key(c) == _key(name) and c not in taken.values()]
            if fitting and role == "response" and not _all_text(source, fitting[0]):
                notes.append(f"column {fitting[0]!r} is not used as response: not all its values are text")
            elif fitting:
                taken[role] = fitting[0]
                break
    if "prompt" not in taken:
        raise PromptError(
            f"{source.name} has no column for the prompt (tried {', '.join(NAMES['prompt'])}); it has {have}. "
            "Give one as prompt_column; in a CSV or TSV file the first line names the columns"
        )
    if unused := [column for column in source.columns if column not in taken.values()]:
        notes.append(f"columns not used: {', '.join(map(repr, unused))}")
    ordered = {role: taken[role] for role in NAMES if role in taken}
    return Columns(taken=ordered, given=frozenset(given), notes=tuple(notes))


def _all_text(source: Source, column: str) -> bool:
    return all(isinstance(row.values.get(column), str | None) for row in source.rows)


def check_label(label: str) -> None:
    """Raise ParameterError for an unknown label."""
    if label not in LABELS:
        raise ParameterError(f"label={label!r} is not a label: {nearest(str(label), LABELS)}")


def labels_of(source: Source, columns: Columns, stated: Label | None) -> tuple[tuple[Label, ...], tuple[str, ...]]:
    """Return each row's label, and sentences that say how they were found.

    In this order: the config's label for all rows; the label column (in a column called is_safe, safe, is_harmless or
    harmless, true means harmless; elsewhere true means harmful); XSTest's columns (its safe rows are look-alikes);
    splits that are named after labels; AdvBench's columns goal and target (all harmful); else unlabelled. An empty
    value is unlabelled. Raises PromptError for values that are not labels, naming their lines.
    """
    column = columns.taken.get("label")
    if stated is not None:
        ignored = f"; its column {column!r} is not read" if column else ""
        return _all(stated, source), (f"every row is labelled {stated} (given){ignored}",)
    if column is not None:
        return _from_column(source, column)
    splits = {str(columns.value(row.values, "split") or "") for row in source.rows}
    if "split" in columns.taken and all(_key(s) in _LABEL_VALUES and _key(s) and not s.isdigit() for s in splits):
        labels = tuple(_LABEL_VALUES[_key(str(columns.value(row.values, "split")))] for row in source.rows)
        return labels, (f"labels are taken from the splits {', '.join(map(repr, sorted(splits)))} (guessed)",)
    if (_key(columns.taken["prompt"]), _key(columns.taken.get("response", ""))) == ("goal", "target"):
        note = "every row is labelled harmful (guessed: the columns 'goal' and 'target' are those of AdvBench)"
        return _all("harmful", source), (note,)
    note = "no column says what is harmful: give label (for all rows) or label_column to contrast them"
    return _all("unlabelled", source), (note,)


def _all(label: Label, source: Source) -> tuple[Label, ...]:
    return (label,) * len(source.rows)


def _from_column(source: Source, column: str) -> tuple[tuple[Label, ...], tuple[str, ...]]:
    keys = {_key(name) for name in source.columns}
    xstest = {"prompt", "type", "label", "focus"} <= keys and _key(column) == "label"
    labels: list[Label] = []
    problems: dict[str, list[str]] = {}
    flags = False
    for row in source.rows:
        raw = row.values.get(column)
        value = _flag(raw)
        if value in _YES | _NO:
            flags = True
            if _key(column) in _INVERTED:
                value = "harmless" if value in _YES else "harmful"
        label = _LABEL_VALUES.get(_key(value))
        if label is None:
            problems.setdefault(repr(raw), []).append(row.where)
        else:
            labels.append("lookalike" if xstest and label == "harmless" else label)
    if problems:
        listed = [(", ".join(where[:5]) + (" ..." if len(where) > 5 else ""), v) for v, where in problems.items()]
        known = ", ".join(sorted(filter(None, _LABEL_VALUES)))
        wrong = [(where, f"{value} in column {column!r} is not a label") for where, value in listed]
        refuse(source.name, wrong, f"Use one of {known}, or give label (for all rows) or another label_column.")
    notes = []
    if xstest:
        notes.append("the columns are those of XSTest: its safe rows are labelled look-alikes, its unsafe ones harmful")
    if flags:
        notes.append(f"in column {column!r}, 1 or true means {'harmless' if _key(column) in _INVERTED else 'harmful'}")
    return tuple(labels), tuple(notes)


def _flag(value: Any) -> str:
    """Return a label value as plain text: null is empty, 1.0 is 1."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().casefold()
