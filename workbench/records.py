"""Every record that is saved, how it is saved, and how it comes back. Needs no torch.

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
from jaxtyping import Float32, Int32

from workbench.errors import NotPresent, RecordError
from workbench.files import atomic_folder
from workbench.shapes import Counts, Mask, Scores, Tokens, TopIds, TopScores

SCHEMA = 1

Label = Literal["harmful", "harmless", "lookalike", "unlabelled"]
Trajectory = Literal["teacher_forced", "free_running"]


class Record:
    """Give a record equality by content, arrays included (NaN equals NaN)."""

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


# ------------------------------------------------------------------------------------------------- traces


@dataclass(frozen=True, kw_only=True, eq=False)
class Response(Record):
    """Describe one response (one row of a TraceSet): what was asked and how the response came about.

    `prefix_tokens` is the number of leading tokens that were given, not generated: k for a free-running response, the
    whole length for a teacher-forced one. `stop` is "end" (end of turn), "length", or "given".
    """

    prompt_id: str
    prompt: str
    label: Label
    category: str | None
    pair_id: str | None
    trajectory: Trajectory
    prefix_tokens: int
    segment: Literal["answer", "thinking"]
    stop: Literal["end", "length", "given"]
    context_tokens: int
    system_prompt: str | None


SCALARS: dict[str, str] = {
    "kl_aligned_base_nats": "KL(aligned || base), nats",
    "kl_base_aligned_nats": "KL(base || aligned), nats",
    "js_nats": "Jensen-Shannon divergence, nats (at most ln 2)",
    "excess_mass": "probability that base puts above aligned = total variation, 0 to 1",
    "retention": "1 - total variation, 0 to 1: 1 means that aligned still is the base model",
    "base_favored_count": "base-favored tokens in the count space, tokens",
    "entropy_base_nats": "entropy of base, nats",
    "entropy_aligned_nats": "entropy of aligned, nats",
    "logprob_base_nats": "log-probability of the observed token under base, nats",
    "logprob_aligned_nats": "log-probability of the observed token under aligned, nats",
    "logprob_shift_nats": "aligned minus base log-probability of the observed token, nats",
    "rank_base": "rank of the observed token under base, 1 = most likely",
    "rank_aligned": "rank of the observed token under aligned, 1 = most likely",
}
"""Name of each exact full-vocabulary scalar of a TraceSet -> what it is, with unit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TraceSet(Record):
    """Hold two models' token-level comparison along responses. Reloads with no model.

    Arrays are (response, token), padded on the right; where `mask` is False a float is NaN, an id is -1, a count or
    rank is 0. Row t is the distribution that *predicted* token t. `topk_ids` is the union of both models' top k
    (base's first, -1 where the union is shorter). `detected_*` is a sparse table, one line a response and vocabulary
    element: at how many positions of that response the element was detected as base-favored, and its summed p_b - p_a.
    `noise_kl_nats` is KL between the same model scored in two batch layouts (NaN where not measured).
    `labels[i]` is the printable form of vocabulary element `label_ids[i]`, for every id that occurs in the record.
    """

    run: RunRecord
    prompt_set: str
    classroom_safe: bool
    template_mode: str
    count_space: str
    ranking: str
    warnings: tuple[str, ...]
    responses: tuple[Response, ...]
    pieces: tuple[tuple[str, ...], ...]
    token_ids: Tokens
    mask: Mask
    partial: Mask
    special: Mask
    topk_ids: TopIds
    topk_logprob_base_nats: TopScores
    topk_logprob_aligned_nats: TopScores
    kl_aligned_base_nats: Scores
    kl_base_aligned_nats: Scores
    js_nats: Scores
    excess_mass: Scores
    retention: Scores
    base_favored_count: Counts
    entropy_base_nats: Scores
    entropy_aligned_nats: Scores
    logprob_base_nats: Scores
    logprob_aligned_nats: Scores
    logprob_shift_nats: Scores
    rank_base: Counts
    rank_aligned: Counts
    detected_response: Int32[np.ndarray, "entry"]
    detected_token: Int32[np.ndarray, "entry"]
    detected_count: Int32[np.ndarray, "entry"]
    detected_mass: Float32[np.ndarray, "entry"]
    noise_kl_nats: Float32[np.ndarray, "sample token"]
    label_ids: Int32[np.ndarray, "label"]
    labels: tuple[str, ...]

    def lengths(self) -> Int32[np.ndarray, "response"]:
        """Count each response's tokens."""
        return self.mask.sum(axis=1).astype(np.int32)

    def label_of(self) -> dict[int, str]:
        """Map every id that occurs in the record to its printable form."""
        return dict(zip(self.label_ids.tolist(), self.labels, strict=True))


# ---------------------------------------------------------------------------------------------- diagnosis


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve(Record):
    """Hold one quantity by position: mean over responses with its interval. `position` is 1-based.

    `condition` is the prompts' label; `prefix_tokens` the prefix length of a free-running curve, None when
    teacher-forced. NaN in `low`/`high` where n < 3.
    """

    name: str
    condition: str
    prefix_tokens: int | None
    unit: str
    position: Int32[np.ndarray, "position"]
    value: Float32[np.ndarray, "position"]
    low: Float32[np.ndarray, "position"]
    high: Float32[np.ndarray, "position"]
    n: Int32[np.ndarray, "position"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Contrast(Record):
    """Hold one headline number: what it is, on which prompts, its estimate, and what it was computed from.

    `prefix_tokens` is a free-running group's prefix length; None when teacher-forced, or pooled over several lengths.
    """

    name: str
    condition: str
    title: str
    estimate: Estimate
    prefix_tokens: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenFrequency(Record):
    """Hold how often one vocabulary element is detected as base-favored (share of positions, per prompt label).

    `mass` is its p_b - p_a summed over the answer positions at which it was detected. For `kind` see
    diagnosis.frequencies.
    """

    token_id: int
    label: str
    rate_harmful: Estimate
    rate_harmless: Estimate
    difference: Estimate
    mass: float
    kind: Literal["safety", "style", "undecided"]


@dataclass(frozen=True, kw_only=True, eq=False)
class HeatMap(Record):
    """Hold mean retention by prefix length (rows) and position (columns, 1-based), harmful prompts; NaN where n = 0."""

    name: str
    condition: str
    prefix_tokens: Int32[np.ndarray, "prefix"]
    position: Int32[np.ndarray, "position"]
    value: Float32[np.ndarray, "prefix position"]
    n: Int32[np.ndarray, "prefix position"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Divergent(Record):
    """Name one response among the most divergent: index into the TraceSet, its mean KL and where it peaks (1-based)."""

    response: int
    prompt_id: str
    label: Label
    prefix_tokens: int
    mean_kl_nats: float
    peak_position: int
    peak_kl_nats: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis(Record):
    """Hold what the traces say: curves, contrasts, frequencies, heat map, most divergent prompts and the verdict.

    `verdict` is one word for programs; `sentences` say it in words, each computed from the numbers.
    """

    run: RunRecord
    curves: tuple[Curve, ...]
    noise_floor: Curve | None
    contrasts: tuple[Contrast, ...]
    frequencies: tuple[TokenFrequency, ...]
    heat_map: HeatMap | None
    divergent: tuple[Divergent, ...]
    verdict: Literal["identical", "shallow", "deep", "undetermined"]
    sentences: tuple[str, ...]

    def most_divergent(self, label: Label = "harmful") -> Divergent:
        """Return the most divergent response of a label, or of all where none of the listed ones has it.

        Raises RecordError when nothing was traced.
        """
        if not self.divergent:
            raise RecordError("this diagnosis lists no response: nothing was traced")
        return next((d for d in self.divergent if d.label == label), self.divergent[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientProbe(Record):
    """Hold gradient magnitudes by response position (response, token), NaN where there is no token.

    `grad_norm` is ||d log p(y_t) / d theta||_2 over attention and MLP weights, `output_error` is
    ||softmax - onehot||_2, `grad_norm_by_layer` is (response token layer). `context_asymmetry` is
    ||d sum_{t>=i} L_t / d h_i|| * ||h_i|| / (number of terms), `influence` is
    mean over i < t of ||d log p(y_t) / d h_i|| * ||h_i||, and `error` is sum_{i<t} KL_i * influence(i->t),
    all at the middle layer; `error_per_term` is `error` / (t - 1).
    """

    run: RunRecord
    model: str
    loss: str
    response_kind: str
    parameters: str
    layer: int
    prompt_ids: tuple[str, ...]
    labels: tuple[str, ...]
    mask: Mask
    grad_norm: Scores
    grad_norm_by_layer: Float32[np.ndarray, "response token layer"]
    output_error: Scores
    grad_norm_per_error: Scores
    context_asymmetry: Scores
    influence: Scores
    error: Scores
    error_per_term: Scores


# ---------------------------------------------------------------------------------------------- save, load

_TYPES: dict[str, type[Record]] = {
    t.__name__: t
    for t in (RunRecord, Estimate, Row, Response, TraceSet, Curve, Contrast, TokenFrequency, HeatMap, Divergent)
    + (Diagnosis, GradientProbe)
}
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
