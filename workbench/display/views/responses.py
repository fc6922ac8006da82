"""One response of a TraceSet: what becomes of harmful text, its name, and the alternatives at a position."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workbench.core import legible
from workbench.core.errors import ParameterError
from workbench.tracing.records import Response, TraceSet

HarmfulText = Literal["auto", "show", "blur", "redact"]
"""What becomes of harmful text: `auto` shows a classroom-safe set and redacts harmful-labelled responses of any other;
`blur` covers it until the reader opens it."""
Treatment = Literal["show", "blur", "redact"]
COVER = "░░░"
"""What stands for every withheld token."""
MOST_TOKENS = 2_000
SHOWN_ALTERNATIVES = 3


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """Hold one vocabulary element at one position under both models. `label` is legible text."""

    token_id: int
    label: str
    base: float
    aligned: float

    @property
    def difference(self) -> float:
        """Return p(base) - p(aligned): above zero it is base-favored."""
        return self.base - self.aligned


def treatment(traces: TraceSet, response: Response, harmful_text: HarmfulText) -> Treatment:
    """Return what becomes of a response's text."""
    return treatment_of(response.label, traces.classroom_safe, harmful_text)


def treatment_of(label: str, classroom_safe: bool, harmful_text: HarmfulText) -> Treatment:
    """Return what becomes of a text under a prompt with this label."""
    if label != "harmful":
        return "show"
    if harmful_text == "auto":
        return "show" if classroom_safe else "redact"
    return harmful_text


def checked(traces: TraceSet, response_index: int, position: int | None = None) -> int:
    """Return the response's length; raise ParameterError for an index or position that is not there."""
    if not 0 <= response_index < len(traces.responses):
        raise ParameterError(
            f"there is no response {response_index}: the traces hold {len(traces.responses)}, numbered from 0"
        )
    length = int(traces.lengths()[response_index])
    if position is not None and not 1 <= position <= length:
        raise ParameterError(f"response {response_index} has no position {position}: it has positions 1 to {length}")
    return length


def alternatives(
    traces: TraceSet, response_index: int, position: int, labels: Mapping[int, str] | None = None
) -> tuple[Alternative, ...]:
    """Return the union of both models' top k at a 1-based position, the most base-favored first."""
    t = position - 1
    known = traces.label_of() if labels is None else labels
    ids = traces.topk_ids[response_index, t]
    base = np.exp(traces.topk_logprob_base_nats[response_index, t].astype(np.float64))
    aligned = np.exp(traces.topk_logprob_aligned_nats[response_index, t].astype(np.float64))
    found = [
        Alternative(token_id=v, label=legible.label(known.get(v, f"id {v}")), base=float(b), aligned=float(a))
        for v, b, a in zip(ids.tolist(), base, aligned, strict=True)
        if v >= 0 and math.isfinite(b) and math.isfinite(a)
    ]
    return tuple(sorted(found, key=lambda a: -a.difference))


def text_digest(traces: TraceSet, response_index: int) -> str:
    """Return the first twelve hexadecimal digits of the SHA-256 of a response's text."""
    text = "".join(traces.pieces[response_index])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def name_of(traces: TraceSet, response_index: int) -> str:
    """Return what a response is called in titles and captions."""
    return f"response {response_index}, prompt {legible.sentence(traces.responses[response_index].prompt_id)}"
