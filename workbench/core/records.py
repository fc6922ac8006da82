"""Records, their saving and loading, and the records that all others hold. No torch.

A saved record is a folder: `record.json` (schema number, type, fields) and `arrays.safetensors`. It is written under a
temporary name and renamed when complete, so a reader never sees half of one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np

from workbench.core.errors import NotPresent, RecordError
from workbench.core.files import atomic_folder

SCHEMA = 2

Label = Literal["harmful", "harmless", "lookalike", "unlabelled"]
"""What a prompt asks for."""

Given = int | Literal["full"]
"""How many response tokens are given; "full": the whole target."""

_TYPES: dict[str, type[Record]] = {}  # name -> every kind of record that has been defined


class Record:
    """A base class: equality by content, arrays included (NaN equals NaN), and a type that `load` knows by name."""

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
    """The provenance of a record: enough to make it again."""

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
    """A number with its interval (by default a percentile bootstrap over prompts), n and unit.

    `low` and `high` are None where n is too small for an interval (n < 3); `value` is None where n = 0.
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


def where_words(attack: str | None, given: Given | None, setting: str | None, worst_of: int | None) -> str:
    """Return the setting of a measurement in words: "prefill, 5 tokens given"."""
    told = given == "full" or bool(given) or (given == 0 and setting is None and attack != "none")
    tokens = "whole target given" if given == "full" else f"{given} token{'' if given == 1 else 's'} given"
    worst = None if worst_of is None else f"worst of {worst_of}"
    return ", ".join(part for part in (attack, tokens if told else None, setting, worst) if part)


@dataclass(frozen=True, kw_only=True, eq=False)
class Row(Record):
    """One tidy row of results.json. A column that does not apply is None; the columns before `value` are its key.

    name      what was measured; its unit is `unit`
    arm       the model, penalty or adapter that was measured
    against   the arm, or the label, that a difference is taken against
    label     what the prompts ask for: harmful, harmless, lookalike or unlabelled; None: all prompts together
    category  the prompts' category; None: all categories
    attack    the attack's family; "none": asked plainly; None: no attack, responses that were given (teacher-forced)
    given     how many response tokens were given ("full": the whole target); None: several numbers, or nothing is given
    setting   what else identifies the number: a template's name, a task of the harness, "held out"
    judge     the judge's name; "gibberish" for the gibberish check; the harness's name for capability
    seed      the seed of the run, or of the training
    layer     1-based layer of the model
    position  1-based position in the response
    token     a vocabulary element's id
    worst_of  a prompt counts where any of its attempts, at most this many, succeeds; None: it has one
    value     the number, with its interval `low` to `high`; None: no data
    n         how many prompts, or questions, the number is from
    """

    name: str
    arm: str | None = None
    against: str | None = None
    label: str | None = None
    category: str | None = None
    attack: str | None = None
    given: Given | None = None
    setting: str | None = None
    judge: str | None = None
    seed: int | None = None
    layer: int | None = None
    position: int | None = None
    token: int | None = None
    worst_of: int | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    unit: str | None = None

    @classmethod
    def of(cls, name: str, estimate: Estimate, **place: Any) -> Row:
        """Return an estimate as a row; `place` are the other fields."""
        return cls(name=name, **vars(estimate), **place)

    @classmethod
    def by_position(
        cls, name: str, value: np.ndarray, low: np.ndarray, high: np.ndarray, n: np.ndarray, **place: Any
    ) -> list[Row]:
        """Return values by position (from 1) as rows, with bounds and n; numbers that are not finite become None."""
        numbers = [[float(x) if np.isfinite(x) else None for x in array] for array in (value, low, high)]
        return [
            cls(name=name, position=t + 1, value=v, low=lo, high=hi, n=int(count), **place)
            for t, (v, lo, hi, count) in enumerate(zip(*numbers, n, strict=True))
        ]

    @property
    def estimate(self) -> Estimate:
        """Return the value with its interval, n and unit."""
        return Estimate(value=self.value, low=self.low, high=self.high, n=self.n or 0, unit=self.unit or "")

    @property
    def title(self) -> str:
        """Return the row's key as one line of text."""
        against = None if self.against is None else f"against {self.against}"
        where = where_words(self.attack, self.given, self.setting, self.worst_of)
        if self.attack == "none":
            where = ", ".join(("no attack", *where.split(", ")[1:]))
        named = ((k, getattr(self, k)) for k in ("layer", "position", "token", "seed"))
        parts = (self.name, self.arm, against, self.label, self.category, where or None, self.judge)
        return ", ".join([*filter(None, parts), *(f"{k} {v}" for k, v in named if v is not None)])


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
    """Save a record as a folder; an older one is replaced only when the new one is complete. Raises StorageFull."""
    from safetensors.numpy import save_file

    arrays: dict[str, np.ndarray] = {}
    body = {"schema": SCHEMA, "record": _encode(record, type(record).__name__, arrays)}
    with atomic_folder(folder) as partial:
        save_file(arrays, partial / "arrays.safetensors")
        (partial / "record.json").write_text(json.dumps(body, ensure_ascii=False, allow_nan=False), "utf-8")
    return Path(folder)


def load(folder: str | Path, kind: type[R]) -> R:
    """Load a record of the given kind from its folder.

    Raises NotPresent where there is none, RecordError where it is damaged, of another schema or of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    if not (folder / "record.json").is_file():
        raise NotPresent(f"there is no saved record in {str(folder)!r}: it has no record.json")
    try:
        body = json.loads((folder / "record.json").read_text("utf-8"))
        if body.get("schema") != SCHEMA:
            raise RecordError(
                f"{str(folder)!r} has record schema {body.get('schema')!r}, and this version reads {SCHEMA}: make the "
                "record again, or read it with the version that wrote it"
            )
        record = _decode(body["record"], load_file(folder / "arrays.safetensors"))
    except (json.JSONDecodeError, SafetensorError, KeyError, TypeError, FileNotFoundError) as error:
        raise RecordError(f"the record in {str(folder)!r} is damaged ({error}): make it again") from error
    if not isinstance(record, kind):
        raise RecordError(f"{str(folder)!r} holds a {type(record).__name__}, not a {kind.__name__}")
    return record
