"""What a record is, how it is saved, and how it comes back; and the records that every other one holds. No torch.

A saved record is a folder: `record.json` (schema number, type, fields) and `arrays.safetensors`. It is written under a
temporary name and renamed when complete, so a half-written record is never mistaken for a finished one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np

from workbench.core.errors import NotPresent, RecordError
from workbench.core.files import atomic_folder

SCHEMA = 1

Label = Literal["harmful", "harmless", "lookalike", "unlabelled"]
"""What a prompt asks for."""

_TYPES: dict[str, type[Record]] = {}  # name -> every kind of record that has been defined


class Record:
    """Give a record equality by content, arrays included (NaN equals NaN), and make its kind known to `load`."""

    def __init_subclass__(cls) -> None:
        _TYPES[cls.__name__] = cls

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        fields = dataclasses.fields(cast(Any, self))
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields)

    __hash__ = None  # type: ignore[assignment]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)) or a.dtype != b.dtype:
            return False
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return bool(a == b)


@dataclass(frozen=True, kw_only=True, eq=False)
class RunRecord(Record):
    """State how a record came about: enough to make it again."""

    verb: str
    asked: Mapping[str, Any]
    resolved: Mapping[str, Any]
    versions: Mapping[str, str]
    commit: str | None
    dirty: bool | None
    seed: int | None
    device: str
    started: str
    seconds: float
    fingerprint: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate(Record):
    """A number with its interval (percentile bootstrap over prompts unless said otherwise), n and unit.

    `low` and `high` are None where no interval can be had (n < 3); `value` is None where n = 0: missing is not zero.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: str

    def __str__(self) -> str:
        if self.value is None:
            return "no data (n = 0)"
        unit = f" {self.unit}" if self.unit and self.unit != "1" else ""
        interval = "" if self.low is None else f" [{self.low:.3g}, {self.high:.3g}]"
        return f"{self.value:.3g}{interval}{unit} (n = {self.n})"


@dataclass(frozen=True, kw_only=True, eq=False)
class Row(Record):
    """Hold one tidy row of results.json. What does not apply is None. `position` is 1-based."""

    name: str
    arm: str | None = None
    attack: str | None = None
    condition: str | None = None
    judge: str | None = None
    seed: int | None = None
    position: int | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    unit: str | None = None

    @classmethod
    def of(cls, name: str, estimate: Estimate, **place: Any) -> Row:
        """Return an estimate as a row, with its interval, n and unit; `place` are the other fields."""
        e = estimate
        return cls(name=name, value=e.value, low=e.low, high=e.high, n=e.n, unit=e.unit, **place)


R = TypeVar("R", bound=Record)


def _encode(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, Record):
        fields = dataclasses.fields(cast(Any, value))
        body = {f.name: _encode(getattr(value, f.name), f"{path}.{f.name}", arrays) for f in fields}
        return {"$record": type(value).__name__, **body}
    if isinstance(value, np.ndarray):
        arrays[path] = np.ascontiguousarray(value)
        return {"$array": path}
    if isinstance(value, tuple | list):
        return [_encode(v, f"{path}.{i}", arrays) for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(k): _encode(v, f"{path}.{k}", arrays) for k, v in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return value


def _decode(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if "$array" in value:
            return arrays[value["$array"]]
        items = {k: _decode(v, arrays) for k, v in value.items() if k != "$record"}
        return _TYPES[value["$record"]](**items) if "$record" in value else items
    if isinstance(value, list):
        return tuple(_decode(v, arrays) for v in value)
    return value


def save(record: Record, folder: str | Path) -> Path:
    """Save a record as a folder, replacing one that is there only when the new one is complete.

    Raises StorageFull when the disk is full; what was there before stays.
    """
    from safetensors.numpy import save_file

    arrays: dict[str, np.ndarray] = {}
    body = {"schema": SCHEMA, "record": _encode(record, type(record).__name__, arrays)}
    with atomic_folder(folder) as partial:
        save_file(arrays, partial / "arrays.safetensors")
        (partial / "record.json").write_text(json.dumps(body, ensure_ascii=False, allow_nan=False), "utf-8")
    return Path(folder)


def load(folder: str | Path, kind: type[R]) -> R:
    """Load a record of the given kind from its folder.

    Raises NotPresent when there is none, RecordError when it is damaged, of another schema or of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    if not (folder / "record.json").is_file():
        raise NotPresent(f"no saved record in {str(folder)!r}: it has no record.json")
    try:
        body = json.loads((folder / "record.json").read_text("utf-8"))
        if body.get("schema") != SCHEMA:
            raise RecordError(
                f"{str(folder)!r} has record schema {body.get('schema')!r}, this version reads {SCHEMA}: "
                "make the record again, or read it with the version that wrote it"
            )
        record = _decode(body["record"], load_file(folder / "arrays.safetensors"))
    except (json.JSONDecodeError, SafetensorError, KeyError, TypeError, FileNotFoundError) as error:
        raise RecordError(f"the record in {str(folder)!r} is damaged ({error}): make it again") from error
    if not isinstance(record, kind):
        raise RecordError(f"{str(folder)!r} holds a {type(record).__name__}, not a {kind.__name__}")
    return record


def rows_json(rows: Iterator[Row] | tuple[Row, ...] | list[Row]) -> str:
    """Return tidy rows as the text of a results.json."""
    body = {"schema": SCHEMA, "rows": [dataclasses.asdict(r) for r in rows]}
    return json.dumps(body, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
