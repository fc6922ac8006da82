"""The role of each column of a source, and the reading of a label column.

A column that the config names has that role. For the other roles the names of NAMES are tried in order, without regard
to case, spaces, hyphens and underscores; the first that the source has is used (of two that fit, the left one). A known
set's own roles come before these. The set lists every used column as given or guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from workbench.core.errors import ParameterError, PromptError, nearest
from workbench.core.records import Label
from workbench.prompts.known import KnownSet, key_of, known_set
from workbench.prompts.rows import Source, refuse
from workbench.prompts.turns import is_turn

Role = Literal["prompt", "response", "label", "category", "depth", "split", "id", "pair_id", "context", "system"]

NAMES: Mapping[Role, tuple[str, ...]] = {
    "prompt": (
        "prompt", "goal", "instruction", "question", "behavior", "behaviour", "forbidden_prompt", "query",
        "user_input", "request", "turns", "input", "text", "messages", "conversation", "conversations",
    ),
    "response": ("response", "target", "completion", "output", "answer"),
    "label": (
        "label", "is_harmful", "harmful", "is_unsafe", "unsafe", "toxicity", "prompt_harm_label", "is_safe", "safe",
        "is_harmless", "harmless",
    ),
    "category": (
        "category", "semantic_category", "functional_category", "harm_category", "subcategory", "kind", "type", "topic",
        "subject",
    ),
    "depth": ("depth",),
    "split": ("split",),
    "id": ("id", "prompt_id", "behavior_id"),
    "pair_id": ("pair_id", "pair"),
    "context": ("context_string", "context"),
    "system": ("system_prompt", "system"),
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


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The column of each role, the roles that the config gave, and the known set that the source is."""

    taken: Mapping[Role, str]
    given: frozenset[Role]
    notes: tuple[str, ...]
    known: KnownSet | None = None

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
    known = known_set(source)
    own = known.roles if known else {}
    for role, names in sorted(NAMES.items(), key=lambda item: item[0] not in own):
        if role in taken:
            continue
        for name in (own[role],) if role in own else names:
            fitting = [c for c in source.columns if key_of(c) == key_of(name) and c not in taken.values()]
            if not fitting or (known and role == "label" and key_of(name) == known.answers):
                continue
            free = role in ("response", "context", "system")
            if free and not _all_text(source, fitting[0], turns=role == "response"):
                notes.append(f"column {fitting[0]!r} is not used as {role}: not all its values are text")
            else:
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
    return Columns(taken=ordered, given=frozenset(given), notes=tuple(notes), known=known)


def _all_text(source: Source, column: str, *, turns: bool) -> bool:
    """Tell whether a column holds text only, or where `turns` is true text and lists of turns."""
    kinds = (str, type(None), list) if turns else (str, type(None))
    values = [row.values.get(column) for row in source.rows]
    return all(isinstance(v, kinds) and (not isinstance(v, list) or all(map(is_turn, v))) for v in values)


def check_label(label: str) -> None:
    """Raise ParameterError for an unknown label."""
    if label not in LABELS:
        raise ParameterError(f"label={label!r} is not a label: {nearest(str(label), LABELS)}")


def labels_of(source: Source, columns: Columns, stated: Label | None) -> tuple[tuple[Label, ...], tuple[str, ...]]:
    """Return each row's label, and sentences that say how they were found.

    In this order: the config's label for all rows; the label column (in a column called is_safe, safe, is_harmless or
    harmless, true means harmless; elsewhere true means harmful); what the table of known sets says; splits that are
    named after labels, but for a known set; else unlabelled. An empty value is unlabelled. Raises PromptError for
    values that are not labels, naming their lines.
    """
    column, known = columns.taken.get("label"), columns.known
    if stated is not None:
        ignored = f"; its column {column!r} is not read" if column else ""
        return _all(stated, source), (f"every row is labelled {stated} (given){ignored}",)
    found = f"the columns are those of {known.name}" if known else ""
    if column is not None:
        labels, notes = _from_column(source, column, known.harmless if known else "harmless")
        return labels, ((found, *notes) if known else notes)
    splits = {str(columns.value(row.values, "split") or "") for row in source.rows}
    named = all(key_of(s) in _LABEL_VALUES and key_of(s) and not s.isdigit() for s in splits)
    if named and "split" in columns.taken and not (known and known.by):
        labels = tuple(_LABEL_VALUES[key_of(str(columns.value(row.values, "split")))] for row in source.rows)
        return labels, (f"labels are taken from the splits {', '.join(map(repr, sorted(splits)))} (guessed)",)
    if known and known.label:
        return _all(known.label, source), (f"every row is labelled {known.label} (guessed: {found})",)
    if known and known.by:
        labels = _by(source, columns, known.by)
        counts = " and ".join(f"{labels.count(each)} {each}" for each in LABELS if each in labels)
        where = f"column {known.by[0]!r}" if known.by[0] else "its name and splits"
        remedy = "" if "unlabelled" not in labels else ": give label (for all rows) to contrast them"
        return labels, (f"{found}; {where} says: {counts}{remedy}",)
    note = "no column says what is harmful: give label (for all rows) or label_column to contrast them"
    if known and known.answers:
        judged = f"column {_column(source, known.answers)!r} says whether the response is safe, not what is asked"
        return _all("unlabelled", source), (f"{found}: {judged}", note)
    return _all("unlabelled", source), ((found, note) if known else (note,))


def _by(source: Source, columns: Columns, by: tuple[str, tuple[tuple[str, Label], ...]]) -> tuple[Label, ...]:
    """Label each row by the first pattern that its value matches; unlabelled where none does."""
    column = _column(source, by[0]) if by[0] else None

    def label(values: Mapping[str, Any]) -> Label:
        text = f"{columns.value(values, 'split') or ''} {source.name}" if column is None else str(values.get(column))
        return next((label for pattern, label in by[1] if re.search(pattern, text, re.IGNORECASE)), "unlabelled")

    return tuple(label(row.values) for row in source.rows)


def _column(source: Source, key: str) -> str:
    return next(column for column in source.columns if key_of(column) == key)


def _all(label: Label, source: Source) -> tuple[Label, ...]:
    return (label,) * len(source.rows)


def _from_column(source: Source, column: str, harmless: Label) -> tuple[tuple[Label, ...], tuple[str, ...]]:
    labels: list[Label] = []
    problems: dict[str, list[str]] = {}
    flags = False
    for row in source.rows:
        raw = row.values.get(column)
        value = _flag(raw)
        if value in _YES | _NO:
            flags = True
            if key_of(column) in _INVERTED:
                value = "harmless" if value in _YES else "harmful"
        label = _LABEL_VALUES.get(key_of(value))
        if label is None:
            problems.setdefault(repr(raw), []).append(row.where)
        else:
            labels.append(harmless if label == "harmless" else label)
    if problems:
        listed = [(", ".join(where[:5]) + (" ..." if len(where) > 5 else ""), v) for v, where in problems.items()]
        known = ", ".join(sorted(filter(None, _LABEL_VALUES)))
        wrong = [(where, f"{value} in column {column!r} is not a label") for where, value in listed]
        refuse(source.name, wrong, f"Use one of {known}, or give label (for all rows) or another label_column.")
    notes = []
    if harmless != "harmless" and harmless in labels:
        notes.append(f"its harmless rows are labelled {harmless}")
    if flags:
        means = "harmless" if key_of(column) in _INVERTED else "harmful"
        notes.append(f"in column {column!r}, 1 or true means {means}")
    return tuple(labels), tuple(notes)


def _flag(value: Any) -> str:
    """Return a label value as plain text: null and NaN are empty, 1.0 is 1."""
    text = "" if value is None else str(value).strip().casefold()
    return "" if text == "nan" else re.sub(r"^([01])\.0*$", r"\1", text)
