"""Rows of a prompt source, each with the line it starts on: JSONL, JSON, CSV, TSV, plain text, dataset hub.

A broken file is refused as a whole, before anything runs, and the error names its first broken lines. Lines are those
of the file, counted from 1.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from workbench.core.errors import NotPresent, PromptError

_LINE_END = re.compile(r"\r\n|\n|\r")
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """One row of a source, unchanged. `line` is None where the source has no lines (dataset hub)."""

    number: int
    line: int | None
    values: Mapping[str, Any]

    @property
    def where(self) -> str:
        """Name the row for a person: its line, or its number where there are no lines."""
        return f"line {self.line}" if self.line is not None else f"row {self.number}"


@dataclass(frozen=True, kw_only=True)
class Source:
    """All rows of one source, its columns in order, and notes from reading it."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[SourceRow, ...]
    notes: tuple[str, ...] = ()


def refuse(name: str, problems: Sequence[tuple[str, str]], remedy: str) -> NoReturn:
    """Raise a PromptError that names the first few broken rows; `problems` are (where, what is wrong)."""
    listed = "; ".join(f"{where}: {what}" for where, what in problems[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise PromptError(f"{name} cannot be used, so nothing was run: {listed}{more}. {remedy}")


def read_file(path: Path) -> Source:
    """Read a UTF-8 file: .jsonl, .json (a list), .csv, .tsv or .txt (one prompt a line).

    Raises PromptError for a folder, another ending, an empty file, and any line that cannot be read.
    """
    if path.is_dir():
        raise PromptError(f"{str(path)!r} is a folder: name a file in it ({', '.join(_READERS)})")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise PromptError(f"{str(path)!r} ends in {path.suffix!r}, an unknown format: save it as one of {known}")
    text = _text(path)
    if not text.strip():
        raise PromptError(f"{str(path)!r} is empty: it holds no prompt")
    return reader(path.name, text)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PromptError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PromptError(f"{path.name} starts with a UTF-16 mark: save it as UTF-8")
    try:
        if b"\0" not in data:
            return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    problems = []
    for number, line in enumerate(re.split(rb"\r\n|\n|\r", data), start=1):
        if b"\0" in line:
            problems.append((f"line {number}", f"a NUL byte at byte {line.index(0) + 1}"))
            continue
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            broken = line[error.start]
            problems.append((f"line {number}", f"not UTF-8 (byte 0x{broken:02X} at byte {error.start + 1})"))
    refuse(path.name, problems, "Save the file as UTF-8 text.")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield every line with its number, without the empty rest after the last line end."""
    lines = _LINE_END.split(text)
    yield from enumerate(lines if lines[-1].strip() else lines[:-1], start=1)


def _blank_note(blank: Sequence[int]) -> tuple[str, ...]:
    if not blank:
        return ()
    shown = ", ".join(map(str, blank[:_SHOWN])) + (f" and {len(blank) - _SHOWN} more" if len(blank) > _SHOWN else "")
    return (f"{len(blank)} blank line{'s' * (len(blank) > 1)} ignored (line {shown})",)


def _read_txt(name: str, text: str) -> Source:
    full = [(number, line) for number, line in _lines(text) if line.strip()]
    rows = tuple(SourceRow(number=n, line=at, values={"text": line}) for n, (at, line) in enumerate(full, start=1))
    blank = [number for number, line in _lines(text) if not line.strip()]
    return Source(name=name, columns=("text",), rows=rows, notes=_blank_note(blank))


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} occurs twice")
    return found


def _as_values(element: Any) -> dict[str, Any]:
    if isinstance(element, dict):
        return element
    if isinstance(element, str):
        return {"text": element}
    raise ValueError(f"holds {_kind(element)}, not an object with named values")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)


def _json_problem(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg} at character {error.colno})"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _read_jsonl(name: str, text: str) -> Source:
    rows: list[SourceRow] = []
    blank, problems = [], []
    for number, line in _lines(text):
        if not line.strip():
            blank.append(number)
            continue
        try:
            values = _as_values(json.loads(line, object_pairs_hook=_unique_keys))
        except (ValueError, RecursionError) as error:
            problems.append((f"line {number}", _json_problem(error)))
            continue
        rows.append(SourceRow(number=len(rows) + 1, line=number, values=values))
    if problems:
        refuse(name, problems, "Each line must be one JSON object: correct or remove these lines.")
    return Source(name=name, columns=_columns(rows), rows=tuple(rows), notes=_blank_note(blank))


def _read_json(name: str, text: str) -> Source:
    try:
        whole = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        at = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
        hint = "If it holds one object a line, rename it to .jsonl."
        raise PromptError(f"{name} cannot be read, so nothing was run: {at}{_json_problem(error)}. {hint}") from error
    if not isinstance(whole, list):
        keys = f" (keys: {', '.join(map(repr, list(whole)[:_SHOWN]))})" if isinstance(whole, dict) else ""
        raise PromptError(f"{name} holds {_kind(whole)}{keys}, not a list: a .json file must be one list of objects")
    rows: list[SourceRow] = []
    problems = []
    for number, (line, element) in enumerate(_elements(text), start=1):
        try:
            rows.append(SourceRow(number=number, line=line, values=_as_values(element)))
        except ValueError as error:
            problems.append((f"line {line}", str(error)))
    if problems:
        refuse(name, problems, "Each element of the list must be an object: correct or remove these.")
    return Source(name=name, columns=_columns(rows), rows=tuple(rows))


def _elements(text: str) -> Iterator[tuple[int, Any]]:
    """Yield each element of a valid JSON list, with the line it starts on."""
    space, decoder = re.compile(r"[\s,]*"), json.JSONDecoder()
    at, counted, line = text.index("[") + 1, 0, 1
    while True:
        at = space.match(text, at).end()  # type: ignore[union-attr]
        if text[at] == "]":
            return
        line, counted = line + len(_LINE_END.findall(text, counted, at)), at
        element, at = decoder.raw_decode(text, at)
        yield line, element


def _columns(rows: Sequence[SourceRow]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in rows for name in row.values))


# ------------------------------------------------------------------------------------------------------ CSV


def _read_csv(name: str, text: str) -> Source:
    return _read_separated(name, text, ",")


def _read_tsv(name: str, text: str) -> Source:
    return _read_separated(name, text, "\t")


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield (line, fields) of every record; a csv.Error in place of the fields is the last."""
    limit = csv.field_size_limit(2**31 - 1)  # over-long rows are dropped and reported later, with their line
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, error
                return
            yield line, fields
    finally:
        csv.field_size_limit(limit)


def _read_separated(separator: str, name: str, text: str) -> Source:
    rows: list[SourceRow] = []
    header: tuple[str, ...] = ()
    blank, problems = [], []
    for line, fields in list(_records(text, separator)):
        if isinstance(fields, csv.Error):
            what = "a quote opened here is never closed" if "end of data" in str(fields) else str(fields)
            problems.append((f"line {line}", f"{what}; the lines after it were not read"))
        elif not fields or (len(fields) == 1 and not fields[0].strip() and len(header) > 1):
            blank.append(line)
        elif not header:
            header = _header(name, fields)
        elif len(fields) != len(header):
            count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
            problems.append((f"line {line}", f"{count}, the header has {len(header)}"))
        else:
            values = dict(zip(header, fields, strict=True))
            rows.append(SourceRow(number=len(rows) + 1, line=line, values=values))
    if problems:
        hint = " Are the fields separated by semicolons?" if len(header) == 1 and ";" in header[0] else ""
        refuse(name, problems, f"Put text with a separator, quote or line end in double quotes.{hint}")
    return Source(name=name, columns=header, rows=tuple(rows), notes=_blank_note(blank))


def _header(name: str, fields: list[str]) -> tuple[str, ...]:
    header = tuple(field.strip() for field in fields)
    if twice := sorted({column for column in header if header.count(column) > 1}):
        raise PromptError(f"{name} names the column {twice[0]!r} twice in its first line: rename one of them")
    return header


def with_first_line(source: Source) -> Source:
    """Return a source whose only column is named by a sentence with that sentence as its first row, as HEx-PHI has it.

    A sentence has four words or more, or ends as one. Any other source is returned unchanged.
    """
    if len(source.columns) != 1 or not re.search(r"\S(\s+\S+){3}|\s.*[.?!]$", source.columns[0]):
        return source
    (name,) = source.columns
    rest = (SourceRow(number=r.number + 1, line=r.line, values={"text": r.values.get(name)}) for r in source.rows)
    rows = (SourceRow(number=1, line=1, values={"text": name}), *rest)
    note = "the first line is a prompt, not the name of a column: give prompt_column if it is the name"
    return Source(name=source.name, columns=("text",), rows=rows, notes=(*source.notes, note))


# ------------------------------------------------------------------------------------------------ dataset hub


def read_hub(identifier: str) -> Source:
    """Read a dataset of the hub: "owner/name", "owner/name:config" or "owner/name:config:split".

    Without a split, all splits are read in order, and a column `split` names each row's (unless the dataset has such a
    column). No code of the dataset runs. Raises NotPresent where it cannot be reached or loaded.
    """
    import datasets

    repository, config, split = (*identifier.split(":"), "", "")[:3]
    try:
        loaded = datasets.load_dataset(repository, config or None, split=split or None)
    except Exception as error:  # the hub client raises errors of many unrelated kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise NotPresent(
            f"the dataset {identifier!r} could not be loaded from the hub ({reason}): check its name, config, split "
            "and the network, or download it and give the path of a file"
        ) from error
    parts = loaded if isinstance(loaded, Mapping) else {split: loaded}
    rows: list[SourceRow] = []
    for part, table in parts.items():
        names = {column: f.names for column, f in (table.features or {}).items() if hasattr(f, "names")}
        for record in table:
            values = {"split": str(part), **record}
            for column, known in names.items():
                if isinstance(values[column], int) and 0 <= values[column] < len(known):
                    values[column] = known[values[column]]
            rows.append(SourceRow(number=len(rows) + 1, line=None, values=values))
    return Source(name=identifier, columns=_columns(rows), rows=tuple(rows))


_READERS: Mapping[str, Callable[[str, str], Source]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": functools.partial(_read_separated, ","),
    ".tsv": functools.partial(_read_separated, "\t"),
    ".txt": _read_txt,
}
ENDINGS = tuple(_READERS)
"""The endings of files that can be read."""
