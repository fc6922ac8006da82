"""Prompt sets: built in, from a file (JSONL, JSON, CSV, TSV, plain text) or from the dataset hub.

Everything that had to be decided on the way (columns guessed, labels taken, rows dropped, lines ignored) is stated in
the set and in its report. What cannot be read is an error that names its lines, before anything runs.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.configs import takes_fields
from workbench.core.errors import NotPresent, ParameterError, PromptError, UnknownName, nearest
from workbench.core.records import Label
from workbench.prompts.columns import LABELS, Columns, check_label, labels_of, resolve
from workbench.prompts.rows import ENDINGS, Source, SourceRow, read_file, read_hub, refuse
from workbench.prompts.subset import balanced

__all__ = ["PROMPT_SETS", "Dropped", "Prompt", "PromptConfig", "PromptSet", "load_prompts"]

_HERE = Path(__file__).resolve().parent
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[^:/\\]*){0,2}")
_ROLES = ("system", "user", "assistant")
_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class _BuiltIn:
    path: Path
    classroom_safe: bool
    split: str | None


_BUILT_IN = {
    "embedded": _BuiltIn(path=_HERE / "brindle" / "prompts.jsonl", classroom_safe=True, split="heldout"),
    "everyday": _BuiltIn(path=_HERE / "sets" / "everyday.jsonl", classroom_safe=False, split=None),
    "questions": _BuiltIn(path=_HERE / "sets" / "questions.jsonl", classroom_safe=True, split=None),
}
PROMPT_SETS: tuple[str, ...] = tuple(_BUILT_IN)
"""Names of the built-in sets: the embedded world, everyday requests with matched harmless ones, harmless questions."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Hold one prompt: what is asked, what it is, and a given response where the source has one.

    Texts are as they stand in the source, spaces included. `messages` are the (role, text) turns before the last user
    turn, None for a single turn. Prompts that share a `pair_id` are matched: same form, harmful and harmless.
    """

    id: str
    prompt: str
    label: Label
    response: str | None = None
    category: str | None = None
    pair_id: str | None = None
    split: str | None = None
    messages: tuple[tuple[str, str], ...] | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Name one row that was left out: its line (None for a dataset of the hub), why, and the start of its text."""

    line: int | None
    reason: str
    text: str


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """Hold prompts in file order, with where they came from and what was decided on the way.

    `columns` says which file column was taken as what, e.g. {"goal": "prompt (guessed)"}; `notes` are sentences.
    """

    name: str
    source: str
    prompts: tuple[Prompt, ...]
    dropped: tuple[Dropped, ...] = ()
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    classroom_safe: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    def where(self, *, label: Label | None = None, split: str | None = None) -> PromptSet:
        """Return the set with only the prompts of this label and this split; it may be empty.

        Raises ParameterError for what is no label, PromptError for a split that no prompt of the set has.
        """
        chosen = self.prompts
        if label is not None:
            check_label(label)
            chosen = tuple(p for p in chosen if p.label == label)
        if split is not None:
            _check_split(self.name, split, self.prompts)
            chosen = tuple(p for p in chosen if p.split == split)
        asked = [f"{k} {v!r}" for k, v in (("label", label), ("split", split)) if v is not None]
        note = (f"only {' and '.join(asked)}: {len(chosen)} of {len(self)}",) if asked else ()
        return dataclasses.replace(self, prompts=chosen, notes=self.notes + note)

    def report(self) -> str:
        """Return plain text for a person: counts, columns as taken, what was decided, and every row dropped."""
        lines = [
            f"{self.name}: {_count(len(self), 'prompt')}",
            f"source: {self.source}",
            f"by label: {_counts(p.label for p in self)}",
            f"by split: {_counts(p.split for p in self)}",
            f"with a given response: {sum(p.response is not None for p in self)}",
        ]
        if turns := sum(p.messages is not None for p in self):
            lines.append(f"with earlier turns: {turns}")
        lines.append("columns: " + (", ".join(f"{c} -> {role}" for c, role in self.columns.items()) or "none"))
        lines += [f"note: {note}" for note in self.notes]
        lines.append(f"dropped: {_count(len(self.dropped), 'row')}")
        for row in self.dropped[:_SHOWN]:
            where = "" if row.line is None else f"line {row.line}: "
            lines.append(f"  {where}{row.reason}" + (f": {row.text[:60]!r}" if row.text.strip() else ""))
        if len(self.dropped) > _SHOWN:
            lines.append(f"  and {len(self.dropped) - _SHOWN} more")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Say which prompts to load.

    source         a built-in name (PROMPT_SETS), the path of a file, or a hub id "owner/name[:config[:split]]"
    limit          how many prompts, balanced over labels, matched pairs together; None: all
    split          only this split; "all": every split; None: every split of a file, and the held-out part of the
                   embedded set, because alignment is judged on topics that it was not trained on
    ..._column     which column is what; None: guessed from known names and stated
    label          what all rows of the source are; None: from the label column, or guessed and stated
    max_chars      longer prompts (earlier turns counted) and responses are dropped and reported
    seed           of the choice that limit makes

    Raises ParameterError for an impossible value.
    """

    source: str
    limit: int | None = None
    split: str | None = None
    prompt_column: str | None = None
    response_column: str | None = None
    label_column: str | None = None
    category_column: str | None = None
    label: Label | None = None
    max_chars: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.source.strip():
            raise ParameterError(f"source={self.source!r} names no prompts: known sets are {', '.join(PROMPT_SETS)}")
        for name, value in (("limit", self.limit), ("max_chars", self.max_chars)):
            if value is not None and value < 1:
                raise ParameterError(f"{name}={value} leaves no prompt: give 1 or more")
        if self.label is not None:
            check_label(self.label)
            if self.label_column is not None:
                raise ParameterError(
                    f"label={self.label!r} states what all rows are and label_column={self.label_column!r} that each "
                    "row says so itself: give one of the two"
                )


@takes_fields(PromptConfig)
def load_prompts(config: PromptConfig) -> PromptSet:
    """Load the prompts that the config names.

    Empty, duplicate (same text but for case and spacing) and over-long rows are dropped and reported by line. Then the
    split is chosen, then the limit. Raises UnknownName or NotPresent when there is no such source, PromptError when it
    cannot be read (lines named), lacks a column or split, or leaves no prompt.
    """
    built_in = _BUILT_IN.get(config.source)
    source, stated = _open(config.source)
    if not source.rows:
        raise PromptError(f"{source.name} holds no rows: it has {_count(len(source.columns), 'column')} and no prompt")
    asked = {
        "prompt": config.prompt_column,
        "response": config.response_column,
        "label": config.label_column,
        "category": config.category_column,
    }
    columns = resolve(source, asked)  # type: ignore[arg-type]
    labels, label_notes = labels_of(source, columns, config.label)
    kept, dropped = _keep(_parse(source, columns, labels), config.max_chars)
    if not kept:
        listed = "; ".join(f"line {d.line}: {d.reason}" if d.line else d.reason for d in dropped[:5])
        raise PromptError(f"{source.name} leaves no prompt: all {_count(len(dropped), 'row')} dropped ({listed})")
    prompts, id_notes = _with_ids(kept, columns.taken.get("id"))
    notes = [*source.notes, *columns.notes, *label_notes, *id_notes]

    split = config.split or (built_in.split if built_in else None)
    if split not in (None, "all"):
        assert split is not None
        _check_split(source.name, split, prompts)
        notes.append(f"split {split!r} ({'given' if config.split else 'the default of this set'})")
        prompts = tuple(p for p in prompts if p.split == split)
    if config.limit is not None:
        available = len(prompts)
        if config.limit < available:
            prompts, limit_notes = balanced(prompts, config.limit, config.seed)
            notes += [f"limit {config.limit} of {available} prompts, seed {config.seed}", *limit_notes]
        elif config.limit > available:
            notes.append(f"limit {config.limit} is more than there are: all {available} prompts are in")
    return PromptSet(
        name=config.source if built_in else source.name,
        source=stated,
        prompts=prompts,
        dropped=dropped,
        columns=columns.stated("built in" if built_in else "guessed"),
        classroom_safe=built_in.classroom_safe if built_in else False,
        notes=tuple(notes),
    )


# ------------------------------------------------------------------------------------------------- the source


def _open(name: str) -> tuple[Source, str]:
    """Find a source by its name: a built-in set, else a path that exists, else a dataset of the hub."""
    if built_in := _BUILT_IN.get(name):
        if not built_in.path.is_file():
            raise NotPresent(f"the built-in prompt set {name!r} is not complete: {str(built_in.path)!r} is missing")
        return read_file(built_in.path), f"built in ({built_in.path.name})"
    path = Path(name).expanduser()
    if path.exists():
        return read_file(path), str(path)
    looks_like_path = path.suffix.lower() in ENDINGS or path.is_absolute() or name[0] in ".~\\"
    if looks_like_path or name.count("/") > 1:
        beside = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        near = nearest(path.name, beside)
        raise NotPresent(
            f"there is no file {name!r} (looked in {str(path.parent.resolve())!r})"
            + (f": {near}" if near.startswith("did") else "")
        )
    if _HUB.fullmatch(name):
        return read_hub(name), f"dataset hub: {name}"
    raise UnknownName(
        f"{name!r} is no built-in prompt set, no file here and no dataset id of the form owner/name: "
        f"{nearest(name, PROMPT_SETS)}"
    )


# --------------------------------------------------------------------------------------------------- the rows


_Rows = list[tuple[SourceRow, Prompt]]


def _parse(source: Source, columns: Columns, labels: Sequence[Label]) -> _Rows:
    """Make a prompt of every row; name every row whose values cannot be taken."""
    parsed, problems = [], []
    for row, label in zip(source.rows, labels, strict=True):
        try:
            parsed.append((row, _prompt(row, columns, label)))
        except _Unusable as error:
            problems.append((row.where, str(error)))
    if problems:
        refuse(source.name, problems, "Mend or remove these rows, or name another column.")
    return parsed


class _Unusable(Exception):
    """One row has a value that cannot be taken; the message says which."""


def _prompt(row: SourceRow, columns: Columns, label: Label) -> Prompt:
    column = columns.taken["prompt"]
    if column not in row.values:
        raise _Unusable(f"no {column!r} (it has {', '.join(map(repr, row.values)) or 'nothing'})")
    asked = row.values[column]
    response = columns.value(row.values, "response")
    messages: tuple[tuple[str, str], ...] | None = None
    if isinstance(asked, list):
        messages, asked, closing = _conversation(asked)
        response = closing if response is None else response
    texts = {
        "prompt": "" if asked is None else asked,
        "response": response,
        **{role: _scalar(columns.value(row.values, role)) for role in ("id", "category", "pair_id", "split")},
    }
    for what, text in texts.items():
        if text is not None and not isinstance(text, str):
            raise _Unusable(f"the {what} is {type(text).__name__} {str(text)[:40]!r}, not text")
    for text in (*filter(None, texts.values()), *(text for _, text in messages or ())):
        if found := re.search("[\ud800-\udfff]", text):
            raise _Unusable(f"half a character (lone surrogate U+{ord(found[0]):04X}): no tokenizer can read it")
    if texts["response"] is not None and not texts["response"].strip():
        texts["response"] = None
    return Prompt(id=texts.pop("id") or "", label=label, messages=messages, line=row.line, **texts)


def _scalar(value: Any) -> str | None:
    """Return a value that only names something as text; an empty one is missing."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _conversation(turns: list[Any]) -> tuple[tuple[tuple[str, str], ...] | None, str, str | None]:
    """Take turns {role, content} apart: those before the last user turn, that turn, and the answer that closes them."""
    flat: list[tuple[str, str]] = []
    for turn in turns:
        if not (isinstance(turn, Mapping) and isinstance(turn.get("content"), str) and turn.get("role") in _ROLES):
            raise _Unusable(f"a turn needs a role ({', '.join(_ROLES)}) and its content as text, not {str(turn)[:60]}")
        flat.append((turn["role"], turn["content"]))
    closing = flat.pop()[1] if flat and flat[-1][0] == "assistant" else None
    if not flat or flat[-1][0] != "user":
        raise _Unusable("the turns do not end with a user's (and at most one answer after it)")
    return tuple(flat[:-1]) or None, flat[-1][1], closing


def _keep(rows: _Rows, max_chars: int) -> tuple[_Rows, tuple[Dropped, ...]]:
    """Part rows into those that stay and those that are empty, too long or already there."""
    kept: _Rows = []
    dropped: list[Dropped] = []
    first: dict[object, tuple[SourceRow, Prompt]] = {}
    for row, prompt in rows:
        turns = (*(prompt.messages or ()), ("user", prompt.prompt))
        key = tuple((role, " ".join(text.split()).casefold()) for role, text in turns)
        lengths = {"prompt": sum(len(text) for _, text in turns), "response": len(prompt.response or "")}
        over = [f"{what} of {n:,} characters" for what, n in lengths.items() if n > max_chars]
        if not prompt.prompt.strip():
            reason = "empty"
        elif over:
            reason = f"too long: {' and '.join(over)}, the limit is {max_chars:,}"
        elif key in first:
            earlier, same = first[key]
            other = f" (which is {same.label}, this one {prompt.label})" if same.label != prompt.label else ""
            reason = f"duplicate of {earlier.where}{other}"
        else:
            first[key] = row, prompt
            kept.append((row, prompt))
            continue
        at = "" if row.line is not None else f" ({row.where})"
        dropped.append(Dropped(line=row.line, reason=reason + at, text=prompt.prompt[:200]))
    return kept, tuple(dropped)


def _with_ids(kept: _Rows, column: str | None) -> tuple[tuple[Prompt, ...], tuple[str, ...]]:
    """Give every prompt an id: the source's own where all are there and unique, else its line, else its row number."""
    ids = Counter(prompt.id for _, prompt in kept)
    repeated, times = ids.most_common(1)[0]
    if column is not None and times == 1 and "" not in ids:
        return tuple(prompt for _, prompt in kept), ()
    lines = {row.line for row, _ in kept}
    by_line = None not in lines and len(lines) == len(kept)
    prompts = tuple(
        dataclasses.replace(prompt, id=f"line-{row.line}" if by_line else f"row-{row.number}") for row, prompt in kept
    )
    if column is None:
        return prompts, ()
    why = "some are missing" if "" in ids else f"{repeated!r} stands there {times} times"
    return prompts, (f"ids are {'lines' if by_line else 'row numbers'}, not column {column!r}: {why}",)


# ------------------------------------------------------------------------------------------------------ words


def _check_split(name: str, split: str, prompts: Sequence[Prompt]) -> None:
    present = sorted({p.split for p in prompts if p.split is not None})
    if split not in present:
        have = f"it has {', '.join(map(repr, present))}" if present else "it has no splits"
        raise PromptError(f"{name} has no prompt of the split {split!r}: {have}; leave split out to take what is there")


def _counts(values: Iterable[str | None]) -> str:
    counts = Counter(value or "none stated" for value in values)
    return ", ".join(f"{n} {value}" for value, n in sorted(counts.items(), key=_by_label)) or "none"


def _by_label(item: tuple[str, int]) -> tuple[int, str]:
    return (LABELS.index(item[0]) if item[0] in LABELS else len(LABELS), item[0])


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
