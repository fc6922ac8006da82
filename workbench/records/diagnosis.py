"""What diagnosis and the gradient probe make of traces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int32

from workbench.errors import RecordError
from workbench.records.core import Estimate, Label, Record, RunRecord
from workbench.shapes import Mask, Scores


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
