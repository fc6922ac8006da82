"""The records of tracing and diagnosis; loading them needs no torch and no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int32

from workbench.core.errors import RecordError
from workbench.core.quantities import QUANTITIES
from workbench.core.records import Estimate, Label, Record, RunRecord
from workbench.core.shapes import Mask, Scores, Tokens, TopIds, TopScores

Trajectory = Literal["teacher_forced", "free_running"]
Verdict = Literal["identical", "shallow", "deep", "differs_early", "undetermined"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Response(Record):
    """One response (one row of a TraceSet): its prompt and how it was made.

    `prefix_tokens` is the number of leading tokens that were given, not generated: k for a free-running response, the
    whole length for a teacher-forced one. `stop` is "end" (end of turn), "length", "stopped" (by a person) or "given".
    `continued_by` and `temperature` (0 is greedy) say how the tokens after the prefix were chosen.
    """

    prompt_id: str
    prompt: str
    label: Label
    category: str | None
    pair_id: str | None
    trajectory: Trajectory
    prefix_tokens: int
    segment: Literal["answer", "thinking"]
    stop: Literal["end", "length", "stopped", "given"]
    context_tokens: int
    system_prompt: str | None
    continued_by: Literal["base", "aligned"] = "aligned"
    temperature: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnAnswer(Record):
    """The aligned model's own greedy answer to a harmful prompt, with no token given, and whether it is a refusal.

    `refused` is None where the judge left it unscored; `why` has the judge's reason either way.
    """

    prompt_id: str
    text: str
    judge: str
    refused: bool | None
    why: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenRecord(Record):
    """The common fields of records of tokens: ids, display pieces, and both models' most likely tokens.

    Arrays are (response, token), padded on the right; where `mask` is False a float is NaN, an id is -1, a count, rank
    or position is 0. `labels[i]` is the printable form of vocabulary element `label_ids[i]`, for every id that occurs
    in the record.
    """

    run: RunRecord
    prompt_set: str
    classroom_safe: bool
    template_mode: str
    pieces: tuple[tuple[str, ...], ...]
    token_ids: Tokens
    mask: Mask
    partial: Mask
    special: Mask
    topk_ids: TopIds
    topk_logprob_base_nats: TopScores
    topk_logprob_aligned_nats: TopScores
    label_ids: Int32[np.ndarray, "label"]
    labels: tuple[str, ...]

    def lengths(self) -> Int32[np.ndarray, "response"]:
        """Count each response's tokens."""
        return self.mask.sum(axis=1).astype(np.int32)

    def label_of(self) -> dict[int, str]:
        """Map every id that occurs in the record to its printable form."""
        return dict(zip(self.label_ids.tolist(), self.labels, strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class TraceSet(TokenRecord):
    """Two models' token-level comparison along responses. It reloads without a model.

    `scalars` holds an array (response, token) for each quantity of `core.quantities`; each is an attribute too, such as
    `traces.retention`. Row t is the distribution that *predicted* token t. Where the aligned entropy is at most
    `entropy_floor_nats` both models are nearly certain, and retention has no meaning. `topk_ids` is the union of both
    models' top k (base's first, -1 where the union is shorter). `detected_*` is a sparse table with one line for each
    response and vocabulary element: the number of positions at which the element was detected as base-favored, and its
    summed p_b - p_a. `noise_kl_nats` is KL between the same model scored in two batch layouts (NaN where not measured).
    `own_answers` are aligned's own answers to the harmful prompts, judged; empty where they were not asked for.
    """

    count_space: str
    ranking: str
    warnings: tuple[str, ...]
    responses: tuple[Response, ...]
    scalars: Mapping[str, np.ndarray]
    entropy_floor_nats: float
    detected_response: Int32[np.ndarray, "entry"]
    detected_token: Int32[np.ndarray, "entry"]
    detected_count: Int32[np.ndarray, "entry"]
    detected_mass: Float32[np.ndarray, "entry"]
    noise_kl_nats: Float32[np.ndarray, "sample token"]
    own_answers: tuple[OwnAnswer, ...] = ()

    def __post_init__(self) -> None:
        for name, values in self.scalars.items():
            if values.shape != self.mask.shape:
                raise RecordError(f"{name} has the shape {values.shape}, the mask has {self.mask.shape}: trace again")

    def __getattr__(self, name: str) -> np.ndarray:
        if name not in QUANTITIES:
            raise AttributeError(name)
        if name not in self.scalars:
            raise RecordError(f"these traces were saved without {name}: trace again")
        return self.scalars[name]


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve(Record):
    """One quantity by position: mean over responses with its interval. `position` is 1-based.

    `label` is the prompts' label; `prefix_tokens` the prefix length of a free-running curve, None when
    teacher-forced. NaN in `low`/`high` where n < 3.
    """

    name: str
    label: str
    prefix_tokens: int | None
    unit: str
    position: Int32[np.ndarray, "position"]
    value: Float32[np.ndarray, "position"]
    low: Float32[np.ndarray, "position"]
    high: Float32[np.ndarray, "position"]
    n: Int32[np.ndarray, "position"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Contrast(Record):
    """One headline number: its name, prompts, title and estimate.

    `prefix_tokens` is a free-running group's prefix length; None when teacher-forced, or pooled over several lengths.
    """

    name: str
    label: str
    title: str
    estimate: Estimate
    prefix_tokens: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenFrequency(Record):
    """The rate at which one vocabulary element is detected as base-favored (share of positions, per prompt label).

    `mass` is its p_b - p_a summed over the answer positions where it was detected; for `kind` see
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
    """Mean retention on harmful prompts by prefix length (rows) and position (columns, 1-based); NaN where n = 0."""

    name: str
    label: str
    prefix_tokens: Int32[np.ndarray, "prefix"]
    position: Int32[np.ndarray, "position"]
    value: Float32[np.ndarray, "prefix position"]
    n: Int32[np.ndarray, "prefix position"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Divergent(Record):
    """One of the most divergent responses: index into the TraceSet, mean KL, and the place of its peak (1-based)."""

    response: int
    prompt_id: str
    label: Label
    prefix_tokens: int
    mean_kl_nats: float
    peak_position: int
    peak_kl_nats: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Depth(Record):
    """How far the alignment acts on harmful answers: the tokens up to the last position of large KL(aligned || base).

    `category` None is all of them. `estimate` is in tokens; 0: at no position. It is `throughout` where it equals
    `measured`, the last position that at least half of the prompts reach: the true depth may be larger.
    """

    label: str
    category: str | None
    estimate: Estimate
    measured: int

    @property
    def throughout(self) -> bool:
        """Tell whether KL is large up to the last measured position."""
        return self.measured > 0 and self.estimate.value == self.measured


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis(Record):
    """The summary of traces: curves, contrasts, depths, frequencies, heat map, most divergent prompts and the verdict.

    Retention is ignored where the aligned entropy is at most `entropy_floor_nats`. `depths` (teacher-forced only) has
    all harmful prompts first, then each category. `verdict` is one word for programs; `sentences` explain it, each
    computed from the numbers.
    """

    run: RunRecord
    curves: tuple[Curve, ...]
    noise_floor: Curve | None
    contrasts: tuple[Contrast, ...]
    frequencies: tuple[TokenFrequency, ...]
    heat_map: HeatMap | None
    divergent: tuple[Divergent, ...]
    entropy_floor_nats: float
    verdict: Verdict
    sentences: tuple[str, ...]
    depths: tuple[Depth, ...] = ()

    def most_divergent(self, label: Label = "harmful") -> Divergent:
        """Return the most divergent response of a label, or of all where the label is not listed.

        Raises RecordError where nothing was traced.
        """
        if not self.divergent:
            raise RecordError("this diagnosis lists no response: trace some prompts first")
        return next((d for d in self.divergent if d.label == label), self.divergent[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientProbe(Record):
    """Gradient magnitudes by response position (response, token), NaN where there is no token.

    `grad_norm` is ||d log p(y_t) / d theta||_2 over attention and MLP weights, `output_error` is ||softmax -
    onehot||_2, `grad_norm_by_layer` is (response token layer). `context_asymmetry` is ||d sum_{t>=i} L_t / d h_i|| *
    ||h_i|| / (number of terms), `influence` is mean over i < t of ||d log p(y_t) / d h_i|| * ||h_i||, and `error` is
    sum_{i<t} KL_i * influence(i->t), all at the middle layer; `error_per_term` is `error` / (t - 1).
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


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerTrace(Record):
    """Both models read at every layer (logit lens), by response position; NaN where there is no token.

    Arrays are (response token layer). `excess_mass` is the total variation between aligned's and base's reading,
    `rank_base` aligned's rank of the token that base finally likes best, and `rank_opening` its rank of the token that
    opens aligned's own answer (`openings`, one text a response; where aligned refuses, the refusal's first token).
    """

    run: RunRecord
    prompt_ids: tuple[str, ...]
    labels: tuple[str, ...]
    openings: tuple[str, ...]
    mask: Mask
    excess_mass: Float32[np.ndarray, "response token layer"]
    rank_base: Float32[np.ndarray, "response token layer"]
    rank_opening: Float32[np.ndarray, "response token layer"]

    @property
    def layers(self) -> int:
        """Count the layers."""
        return int(self.excess_mass.shape[2])
