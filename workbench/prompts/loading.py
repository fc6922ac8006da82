"""Prompt sets: built in, from a file (JSONL, JSON, CSV, TSV, plain text) or from the dataset hub.

The set and its report list every decision made while loading: guessed columns, labels, dropped rows, ignored lines.
Unreadable rows raise an error that names their lines, before anything runs.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from workbench.core.configs import at_least, check_fields, takes_fields
from workbench.core.errors import NotPresent, ParameterError, PromptError, UnknownName, nearest
from workbench.core.records import Label
from workbench.prompts.columns import LABELS, Columns, check_label, labels_of, resolve
from workbench.prompts.known import key_of
from workbench.prompts.rows import ENDINGS, Source, SourceRow, read_file, read_hub, refuse, with_first_line
from workbench.prompts.subset import balanced
from workbench.prompts.turns import Unusable, answer_of, split_turns, unwritten, without_end_marks

__all__ = ["PROMPT_SETS", "Dropped", "Prompt", "PromptConfig", "PromptSet", "load_prompts"]

_HERE = Path(__file__).resolve().parent
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[^:/\\]*){0,2}")
_CONTEXT_ABOVE = "\n\n---\n\n"  # how HarmBench sets a context apart from the request
_LISTS = {"turns", "messages", "conversation", "conversations"}
OnLong = Literal["drop", "cut", "error"]
_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class _BuiltIn:
    path: Path
    classroom_safe: bool
    without: str | None


_BUILT_IN = {
    "embedded": _BuiltIn(path=_HERE / "brindle" / "prompts.jsonl", classroom_safe=True, without="train"),
    "everyday": _BuiltIn(path=_HERE / "sets" / "everyday.jsonl", classroom_safe=False, without=None),
    "questions": _BuiltIn(path=_HERE / "sets" / "questions.jsonl", classroom_safe=True, without=None),
    "contrast": _BuiltIn(path=_HERE / "sets" / "contrast.jsonl", classroom_safe=False, without=None),
    "fresh": _BuiltIn(path=_HERE / "sets" / "fresh.jsonl", classroom_safe=False, without=None),
}
PROMPT_SETS: tuple[str, ...] = tuple(_BUILT_IN)
"""The built-in sets: the embedded world, everyday requests with matched harmless ones, harmless questions, harmless
twins of harmful requests with look-alikes, and others of both kinds that are only asked, never trained on.
"""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt: the request, its label, and the source's response to it where it has one.

    Texts are unchanged, spaces included. `messages` are the (role, text) turns before the last user turn, None for a
    single turn. Prompts that share a `pair_id` are matched: same form, harmful and harmless. (A source may give it on
    one side only, as the other's id.) `depth` is the known depth of the alignment on this prompt: how many tokens of
    its harmful answer have to be given until the aligned model goes on; infinity ("never" in a file): none are enough;
    None: not known.
    """

    id: str
    prompt: str
    label: Label
    response: str | None = None
    category: str | None = None
    depth: float | None = None
    pair_id: str | None = None
    split: str | None = None
    messages: tuple[tuple[str, str], ...] | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """One dropped row: its line (None for a dataset of the hub), the reason, and the start of its text."""

    line: int | None
    reason: str
    text: str


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """Prompts in file order, with their source and the decisions made while loading.

    `columns` maps each used column to its role, e.g. {"goal": "prompt (guessed)"}; `notes` are sentences.
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

        Raises ParameterError for an unknown label, PromptError for a split that no prompt of the set has.
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
        """Return plain text for a person: counts, columns, decisions, and every dropped row."""
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
    """Which prompts to load.

    source         a built-in name (PROMPT_SETS), the path of a file, or a hub id "owner/name[:config[:split]]"
    limit          how many prompts, balanced over labels and categories, matched pairs together; None: all
    split          only this split; "all": every split; None: every split of a file, and the held-out part of the
                   embedded set ("heldout" and "heldout_roots", all but "train"), because alignment is judged on topics
                   outside its training
    ..._column     the column of each role; None: guessed from known names and noted
    label          the label of all rows; None: from the label column, or guessed and noted
    max_chars      the longest prompt (earlier turns counted) and response, characters
    on_long        longer ones: "drop" the row and report it, "cut" its text at the end, or "error": refuse the source
    keep_duplicates   keep rows that ask the same: several responses to one request, or variants in case and spacing
    seed           of the choice by limit

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
    on_long: OnLong = "drop"
    keep_duplicates: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.source.strip():
            raise ParameterError(f"source={self.source!r} names no prompts: known sets are {', '.join(PROMPT_SETS)}")
        check_fields(self, limit=at_least(1), max_chars=at_least(1), on_long=get_args(OnLong))
        if self.label is not None:
            check_label(self.label)
            if self.label_column is not None:
                both = f"label={self.label!r} (for all rows) and label_column={self.label_column!r}"
                raise ParameterError(f"{both} were both given: give one of the two")


@takes_fields(PromptConfig)
def load_prompts(config: PromptConfig) -> PromptSet:
    """Load the prompts that the config names.

    A known set is read as its authors mean it (`prompts.known`): a context, an input or a system prompt of its own
    belongs to what is asked. Empty, duplicate (all that is asked is equal but for case and spacing) and over-long rows
    are dropped and reported by line; then split and limit are applied. Raises UnknownName or NotPresent for an unknown
    source, PromptError for one that cannot be read (naming the lines), lacks a column or split, or leaves no prompt.
    """
    built_in = _BUILT_IN.get(config.source)
    source, stated = _open(config.source)
    if config.prompt_column is None:
        source = with_first_line(source)
    if not source.rows:
        raise PromptError(f"{source.name} holds no rows: it has {_count(len(source.columns), 'column')} and no prompt")
    asked = {role: getattr(config, f"{role}_column") for role in ("prompt", "response", "label", "category")}
    columns = resolve(source, asked)  # type: ignore[arg-type]
    labels, label_notes = labels_of(source, columns, config.label)
    parsed, row_notes = _parse(source, columns, labels)
    kept, dropped, keep_notes = _keep(source.name, parsed, config)
    if not kept:
        listed = "; ".join(f"line {d.line}: {d.reason}" if d.line else d.reason for d in dropped[:5])
        raise PromptError(f"{source.name} leaves no prompt: all {_count(len(dropped), 'row')} dropped ({listed})")
    prompts, id_notes = _with_ids(kept, columns.taken.get("id"))
    twins = {p.pair_id for p in prompts}
    prompts = tuple(dataclasses.replace(p, pair_id=p.id) if p.pair_id is None and p.id in twins else p for p in prompts)
    notes = [*source.notes, *columns.notes, *label_notes, *row_notes, *keep_notes, *id_notes]

    if config.split is not None and config.split != "all":
        _check_split(source.name, config.split, prompts)
        notes.append(f"split {config.split!r} (given)")
        prompts = tuple(p for p in prompts if p.split == config.split)
    elif config.split is None and built_in is not None and built_in.without is not None:
        notes.append(f"without the split {built_in.without!r} (the default of this set)")
        prompts = tuple(p for p in prompts if p.split != built_in.without)
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


def _open(name: str) -> tuple[Source, str]:
    """Read a source by its name: a built-in set, an existing path, or a dataset of the hub."""
    if built_in := _BUILT_IN.get(name):
        if not built_in.path.is_file():
            raise NotPresent(f"the built-in prompt set {name!r} is not complete: {str(built_in.path)!r} is missing")
        return read_file(built_in.path), f"built in ({built_in.path.name})"
    path = Path(name).expanduser()
    if os.path.exists(path):  # unlike Path.exists, False for a name that no file can have
        return read_file(path), str(path)
    looks_like_path = path.suffix.lower() in ENDINGS or path.is_absolute() or name[0] in ".~\\"
    if looks_like_path or name.count("/") > 1:
        beside = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        near = nearest(path.name, beside)
        advice = near if near.startswith("did") else "check the path"
        raise NotPresent(f"there is no file {name!r} (looked in {str(path.parent.resolve())!r}): {advice}")
    if _HUB.fullmatch(name):
        return read_hub(name), f"dataset hub: {name}"
    raise UnknownName(
        f"{name!r} is neither a built-in prompt set nor a file nor a dataset id (owner/name): "
        f"{nearest(name, PROMPT_SETS)}"
    )


# --------------------------------------------------------------------------------------------------- the rows


_Rows = list[tuple[SourceRow, Prompt]]


def _parse(source: Source, columns: Columns, labels: Sequence[Label]) -> tuple[_Rows, list[str]]:
    """Make a prompt of every row, with notes; or raise PromptError that names the unusable rows."""
    parsed: _Rows = []
    problems: list[tuple[str, str]] = []
    notes: Counter[str] = Counter()
    for row, label in zip(source.rows, labels, strict=True):
        try:
            parsed.append((row, _prompt(row, columns, label, notes)))
        except Unusable as error:
            problems.append((row.where, str(error)))
    if problems:
        refuse(source.name, problems, "Correct or remove these rows, or name another column.")
    return parsed, [f"{note} ({n} of {len(parsed)} rows)" for note, n in notes.items()]


def _prompt(row: SourceRow, columns: Columns, label: Label, notes: Counter[str]) -> Prompt:
    column = columns.taken["prompt"]
    if column not in row.values:
        raise Unusable(f"no {column!r} (it has {', '.join(map(repr, row.values)) or 'nothing'})")
    asked = unwritten(row.values[column], listed=key_of(column) in _LISTS)
    response = answer_of(columns.value(row.values, "response"))
    messages: tuple[tuple[str, str], ...] | None = None
    if isinstance(asked, list):
        if len(asked) > 1 and isinstance(asked[0], str):
            notes["only the first of several user turns is asked: the next ones depend on the answer to it"] += 1
        messages, asked, closing = split_turns(asked)
        response = closing if response is None else response
    texts = {
        "prompt": "" if asked is None else asked,
        "response": response,
        **{role: columns.value(row.values, role) for role in ("context", "system")},
        "category": _category(columns.value(row.values, "category")),
        **{role: _scalar(columns.value(row.values, role)) for role in ("id", "pair_id", "split")},
    }
    for what, text in texts.items():
        if text is not None and not isinstance(text, str):
            raise Unusable(f"the {what} is {type(text).__name__} {str(text)[:40]!r}, not text")
    for text in (*filter(None, texts.values()), *(text for _, text in messages or ())):
        if found := re.search("[\ud800-\udfff]", text):
            raise Unusable(f"half a character (lone surrogate U+{ord(found[0]):04X}): no tokenizer can read it")
    context, system = texts.pop("context"), texts.pop("system")
    if context and context.strip() and texts["prompt"].strip():
        above = key_of(columns.taken["context"]) == "contextstring"
        texts["prompt"] = f"{context}{_CONTEXT_ABOVE}{asked}" if above else f"{asked}\n\n{context}"
        where = "before" if above else "after"
        notes[f"column {columns.taken['context']!r} is part of what is asked, {where} the request"] += 1
    if system and system.strip():
        if messages and messages[0][0] == "system":
            raise Unusable(f"column {columns.taken['system']!r} gives a system prompt, and so do the turns")
        messages = (("system", system), *(messages or ()))
        notes[f"column {columns.taken['system']!r} is sent as the row's own system prompt"] += 1
    if texts["response"] is not None:
        texts["response"], mark = without_end_marks(texts["response"])
        if mark:
            notes[f"end mark {mark!r} at the end of a response is left out"] += 1
        texts["response"] = texts["response"] if texts["response"].strip() else None
    depth = _depth(columns.value(row.values, "depth"))
    return Prompt(id=texts.pop("id") or "", label=label, depth=depth, messages=messages, line=row.line, **texts)


def _depth(value: Any) -> float | None:
    """Return a depth in tokens: a positive whole number, or "never", which is infinity; an empty one is None."""
    text = _scalar(value)
    if text is None or text == "never":
        return None if text is None else math.inf
    if not text.strip().isdecimal() or int(text) < 1:
        raise Unusable(f"the depth is {text[:40]!r}, not a positive number of tokens or 'never'")
    return float(text)


def _category(value: Any) -> str | None:
    """Return a category as text; of a table of flags, as BeaverTails has it, the names of those that are true."""
    if isinstance(value, Mapping) and all(isinstance(flag, bool) for flag in value.values()):
        return "; ".join(name for name, flag in value.items() if flag) or None
    return _scalar(value)


def _scalar(value: Any) -> str | None:
    """Return an id, category or split as text; an empty one is None."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _keep(name: str, rows: _Rows, config: PromptConfig) -> tuple[_Rows, tuple[Dropped, ...], list[str]]:
    """Split rows into those kept, with over-long texts cut if so asked, and those dropped; with notes."""
    kept: _Rows = []
    dropped: list[Dropped] = []
    too_long: list[tuple[str, str]] = []
    first: dict[object, tuple[SourceRow, Prompt]] = {}
    most, same = config.max_chars, 0
    for row, prompt in rows:
        earlier = sum(len(text) for _, text in prompt.messages or ())
        lengths = {"prompt": earlier + len(prompt.prompt), "response": len(prompt.response or "")}
        if over := [f"{what} of {n:,} characters" for what, n in lengths.items() if n > most]:
            too_long.append((row.where, f"{' and '.join(over)}, the limit is {most:,}"))
            if config.on_long == "cut" and earlier < most:
                answer = prompt.response and prompt.response[:most]
                prompt = dataclasses.replace(prompt, prompt=prompt.prompt[: most - earlier], response=answer)
                over = []
        turns = (*(prompt.messages or ()), ("user", prompt.prompt))
        key = tuple((role, " ".join(text.split()).casefold()) for role, text in turns)
        if not prompt.prompt.strip():
            reason = "empty"
        elif over:
            reason = f"too long: {too_long[-1][1]}"
        elif key in first and not config.keep_duplicates:
            before, alike = first[key]
            other = f" (which is {alike.label}, this one {prompt.label})" if alike.label != prompt.label else ""
            reason = f"duplicate of {before.where}{other}"
            same += 1
        else:
            first[key] = row, prompt
            kept.append((row, prompt))
            continue
        at = "" if row.line is not None else f" ({row.where})"
        dropped.append(Dropped(line=row.line, reason=reason + at, text=prompt.prompt[:200]))
    if too_long and config.on_long == "error":
        refuse(name, too_long, "Shorten them, or set on_long to 'drop' or 'cut'.")
    notes = [f"duplicates dropped: {same}; keep_duplicates=True keeps them"] if same else []
    if too_long and config.on_long == "cut":
        notes.append(f"{_count(len(too_long), 'row')} longer than {most:,} characters are cut ({too_long[0][0]} first)")
    return kept, tuple(dropped), notes


def _with_ids(kept: _Rows, column: str | None) -> tuple[tuple[Prompt, ...], tuple[str, ...]]:
    """Give every prompt an id: the source's own where all exist and are unique, else its line, else its row number."""
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
    why = "some are missing" if "" in ids else f"{repeated!r} occurs {times} times"
    return prompts, (f"ids are {'lines' if by_line else 'row numbers'}, not column {column!r}: {why}",)


# ------------------------------------------------------------------------------------------------------ words


def _check_split(name: str, split: str, prompts: Sequence[Prompt]) -> None:
    present = sorted({p.split for p in prompts if p.split is not None})
    if split not in present:
        have = f"it has {', '.join(map(repr, present))}" if present else "it has no splits"
        raise PromptError(f"{name} has no prompt of the split {split!r}: {have}; leave split out for all prompts")


def _counts(values: Iterable[str | None]) -> str:
    counts = Counter(value or "none stated" for value in values)
    order = sorted(counts, key=lambda v: ((*LABELS, v).index(v), v))
    return ", ".join(f"{counts[value]} {value}" for value in order) or "none"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
