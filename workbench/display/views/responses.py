"""One response of a TraceSet: what becomes of harmful text, its name, and the alternatives at a position."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workbench.core import legible
from workbench.core.errors import ParameterError
from workbench.core.legible import html_text
from workbench.display.views.view import disclosure
from workbench.tracing.records import Response, TraceSet

HarmfulText = Literal["auto", "show", "blur", "redact"]
"""What becomes of harmful text: `auto` shows a classroom-safe set and redacts harmful-labelled responses of any other;
`blur` covers it until the reader opens it."""
Treatment = Literal["show", "blur", "redact"]
COVER = "░░░"
"""The cover of every withheld token."""
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


def as_treated(treat: Treatment, draw: Callable[[bool], str], what: str) -> str:
    """Return what `draw(covered)` makes of a harmful text: open, covered, or covered until the reader opens it."""
    if treat != "blur":
        return draw(treat == "redact")
    opened = disclosure(f"Reveal this harmful {what}", draw(False), "wb-reveal")
    return f'{opened}<div class="wb-covered">{draw(True)}</div>'


def label_of(text: str | None, covered: bool) -> str:
    """Return a token on one line, or its cover."""
    return COVER if covered else legible.label(text or "")


def inner_html(piece: str, covered: bool) -> str:
    """Return a token of a running text, or its cover."""
    return f'<span class="wb-hid">{COVER}</span> ' if covered else html_text(legible.prose(piece)) or "▫"


def running_text(label: str, tokens: Sequence[str], n: int) -> str:
    """Return tokens as a text that arrow keys walk through; `n` of them can be walked to."""
    said = f"{label}: {n} tokens, arrow keys move from token to token"
    return f'<div class="wb-text" role="group" aria-label="{said}">{"".join(tokens)}</div>'


def token_html(css: str, title: str, inner: str, place: int, *, tag: str = "span", more: str = "") -> str:
    """Return a token with its fill and what it says on hover; Tab reaches the first (`place` 0)."""
    first = "" if place else ' tabindex="0"'
    return f'<{tag} class="{css}"{more}{first} title="{html_text(title)}">{inner}</{tag}>'


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
    return digest("".join(traces.pieces[response_index]))


def digest(text: str) -> str:
    """Return the first twelve hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def name_of(traces: TraceSet, response_index: int) -> str:
    """Return what a response is called in titles and captions."""
    return f"response {response_index}, prompt {legible.sentence(traces.responses[response_index].prompt_id)}"
