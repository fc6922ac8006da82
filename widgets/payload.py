"""One response of a TraceSet as the lens in the page reads it: one buffer with what is text first, then the arrays.

    4 bytes   length of the header, little endian
    header    JSON in UTF-8: the texts, and for each array its type, where it lies and how many entries it has
    arrays    little endian, each at a multiple of 8 bytes from the buffer's beginning

Numbers travel as numbers: NaN never passes through JSON, and a text has no lone surrogate in it. Where a response is
covered the buffer has scores only: no text, no ids, nothing that has the tokens' length or kind.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from workbench.core import legible
from workbench.core.quantities import QUANTITIES
from workbench.display.views.responses import checked, text_digest
from workbench.display.views.tokens import how_it_came
from workbench.tracing.records import TraceSet

DERIVED = ("retention", "logprob_shift_nats")
"""Quantities that the page computes from others; every other one of `core.quantities` is sent."""
SENT = tuple(name for name in QUANTITIES if name not in DERIVED)
SCALAR_BYTES = 4 * len(SENT) + 4 + 1
"""Bytes a token, all but the alternatives: the scalars, which of the texts it is, and its place among them."""

ALIGN = 8
Treatment = Literal["show", "blur", "redact"]


def column(traces: TraceSet, response: int, *, name: str, treatment: Treatment, covered: bool) -> bytes:
    """Return one response as a buffer. `covered`: without its text; `treatment` tells the page what may become of it.

    Arrays: SENT (token); `form` (token), which of `forms` a token is; `observed` (token), at which of the
    alternatives it stands, 255 for none; `alternative` (token k), which of `labels`, -1 for none, and both of their
    log-probabilities, `alternative_base_nats` and `alternative_aligned_nats` (token k); `label_ids` (label). A form is
    [running text, one-line label, kind, id] with kind 0 text, 1 special, 2 part of a character.
    """
    length, of = checked(traces, response), traces.responses[response]
    forms, which = covered_forms(length) if covered else _forms(traces, response, length)
    labels, arrays = _alternatives(traces, response, length, covered)
    header: dict[str, Any] = {
        "response": response,
        "name": legible.sentence(name, 80),
        "prompt_id": legible.label(of.prompt_id),
        "label": of.label,
        "how": how_it_came(of, length),
        "prompt": legible.prose(of.prompt),
        "system": legible.prose(of.system_prompt) if of.system_prompt else "",
        "segment": of.segment,
        "tokens": length,
        "given": min(of.prefix_tokens, length) if of.trajectory == "free_running" else 0,
        "continued_by": of.continued_by if of.trajectory == "free_running" else "",
        "treatment": treatment,
        "covered": covered,
        "digest": "" if treatment == "show" else text_digest(traces, response),
        "forms": forms,
        "labels": labels,
    }
    types = {n: "<i4" if QUANTITIES[n].count else "<f4" for n in SENT}
    scores = {n: getattr(traces, n)[response, :length].astype(types[n]) for n in SENT}
    return packed(header, {**scores, "form": which, **arrays})


def packed(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return header and arrays as one buffer. Raises ValueError for NaN in the header."""
    layout: dict[str, tuple[str, int, int]] = {}
    parts: list[bytes] = []
    at = 0
    for name, array in arrays.items():
        data = np.ascontiguousarray(array).tobytes()
        layout[name] = (array.dtype.str, at, array.size)
        parts.append(data + bytes(-len(data) % ALIGN))
        at += len(parts[-1])
    text = json.dumps({**header, "arrays": layout}, ensure_ascii=False, allow_nan=False).encode()
    text += b" " * (-(4 + len(text)) % ALIGN)
    return b"".join((struct.pack("<I", len(text)), text, *parts))


def forms_of(tokens: Iterable[tuple[int, str, str, int]]) -> tuple[list[list[Any]], np.ndarray]:
    """Return the distinct tokens of (id, piece, label, kind) as they are shown, and which is at each position."""
    found: dict[tuple[int, str, str, int], int] = {}
    which = np.array([found.setdefault(token, len(found)) for token in tokens], "<i4")
    shown = [
        [legible.prose(piece), legible.label(piece if piece and kind != 2 else label), kind, i]
        for i, piece, label, kind in found
    ]
    return shown or [["", "", 0, -1]], which


def kinds_of(special: np.ndarray, partial: np.ndarray) -> list[int]:
    """Return each token's kind: 0 text, 1 special, 2 part of a character."""
    return np.where(special, 1, np.where(partial, 2, 0)).tolist()


def covered_forms(length: int) -> tuple[list[list[Any]], np.ndarray]:
    """Return forms that say nothing of the tokens."""
    return [["", "", 0, -1]], np.zeros(length, "<i4")


def place_among(is_observed: np.ndarray) -> np.ndarray:
    """Return which of the alternatives each token is, 255 for none."""
    if not is_observed.shape[-1]:
        return np.full(len(is_observed), 255, "u1")
    return np.where(is_observed.any(-1), is_observed.argmax(-1), 255).astype("u1")


def _forms(traces: TraceSet, r: int, length: int) -> tuple[list[list[Any]], np.ndarray]:
    known, ids = traces.label_of(), traces.token_ids[r, :length].tolist()
    labels = [known.get(i, "") for i in ids]
    kinds = kinds_of(traces.special[r, :length], traces.partial[r, :length])
    return forms_of(zip(ids, traces.pieces[r][:length], labels, kinds, strict=True))


def _alternatives(traces: TraceSet, r: int, length: int, covered: bool) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the labels that occur among a response's alternatives, and the alternatives with their scores."""
    ids = traces.topk_ids[r, :length]
    base, aligned = traces.topk_logprob_base_nats[r, :length], traces.topk_logprob_aligned_nats[r, :length]
    there = (ids >= 0) & np.isfinite(base) & np.isfinite(aligned)
    if covered:
        labels: list[str] = []
        which, seen = np.where(there, 0, -1), np.zeros(0, np.int32)
    else:
        seen, inverse = np.unique(ids[there], return_inverse=True)
        which = np.full(ids.shape, -1)
        which[there] = inverse
        known = traces.label_of()
        labels = [legible.label(known.get(i, f"id {i}")) for i in seen.tolist()]
    return labels, {
        "observed": place_among(there & (ids == traces.token_ids[r, :length, None])),
        "alternative": which.astype("<i4"),
        "alternative_base_nats": base.astype("<f4"),
        "alternative_aligned_nats": aligned.astype("<f4"),
        "label_ids": seen.astype("<i4"),
    }
