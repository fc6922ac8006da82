"""One continuation of the penalty dial as the page reads it: given and generated tokens, ledger and candidates.

The buffer is that of payload.py. A covered one has numbers only: no text, no ids, no labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from widgets.payload import covered_forms, forms_of, kinds_of, packed, place_among
from workbench.core import legible
from workbench.decoding.records import Continuations

if TYPE_CHECKING:
    from workbench.models.pieces import Piece

NUMBERS = (
    "logprob_base_nats",
    "logprob_aligned_nats",
    "logprob_penalised_nats",
    "strength",
    "risk",
    "excess_mass",
    "leverage",
    "leverage_bound",
)
"""Numbers of the ledger that are sent, NaN at given tokens."""
PLAIN = ("logprob_base_nats", "logprob_aligned_nats", "excess_mass")
"""Those that say something where no penalty is at work."""
RANKS = ("rank_base", "rank_aligned")
PENALISED = 2
"""Which of the columns is the one under the penalty."""


def ledger_column(
    made: Continuations,
    given: Sequence[Piece],
    given_ids: Sequence[int],
    *,
    place: int,
    name: str,
    covered: bool,
    serial: int = 0,
) -> bytes:
    """Return a continuation of one row as a buffer: the given tokens first, then the generated ones.

    `place` is which of the columns it is: 0 base and 1 aligned, without a penalty, 2 the penalised one. `serial` says
    to which state of the dial it belongs. Arrays: NUMBERS and RANKS (token); `changed` (token), 1 where the penalty
    chose another token; `plain` (token), which of `labels` it would have been, -1 for none; `form` (token), which of
    `forms`; `alternative` (token k), which of `labels` could follow, -1 for none, with its three log-probabilities;
    `observed` (token), which of them is the token, 255 for none; `label_ids` (label).
    """
    (c,), (there,), penalised = made.continuations, made.mask, place == PENALISED
    known, size, before = made.label_of(), int(there.sum()), len(given)
    ids, plain = made.token_ids[0, :size], made.plain_ids[0, :size]
    top = made.topk_ids[0, :size]
    seen = np.unique(np.concatenate([top[top >= 0], plain])) if not covered else np.zeros(0, np.int32)
    forms, form = covered_forms(before + size) if covered else _forms(made, given, given_ids)
    header: dict[str, Any] = {
        "response": place,
        "serial": serial,
        "name": name,
        "how": _how(c.stop, size, before),
        "tokens": before + size,
        "given": before,
        "continued_by": name,
        "covered": covered,
        "forms": forms,
        "labels": [legible.label(known.get(i, f"id {i}")) for i in seen.tolist()],
    }
    alternative = np.where(top >= 0, 0 if covered else np.searchsorted(seen, top), -1)
    own = NUMBERS if penalised else PLAIN
    numbers = {n: getattr(made, n)[0, :size] if n in own else np.full(size, np.nan) for n in NUMBERS}
    arrays: dict[str, np.ndarray] = {n: _after(before, values, np.nan, "<f4") for n, values in numbers.items()}
    arrays |= {n: _after(before, getattr(made, n)[0, :size], 0, "<i4") for n in RANKS}
    arrays |= {
        "changed": _after(before, made.changed()[0, :size] & penalised, 0, "u1"),
        "plain": _after(before, np.full(size, -1) if covered else np.searchsorted(seen, plain), -1, "<i4"),
        "form": form,
        "observed": _after(before, place_among((top == ids[:, None]) & (top >= 0)), 255, "u1"),
        "alternative": _after(before, alternative, -1, "<i4"),
        "label_ids": seen.astype("<i4"),
    }
    for which in ("base", "aligned", "penalised"):
        nats = getattr(made, f"topk_logprob_{which}_nats")[0, :size]
        arrays[f"alternative_{which}_nats"] = _after(before, nats, np.nan, "<f4")
    return packed(header, arrays)


def _after(before: int, values: np.ndarray, fill: float, dtype: str) -> np.ndarray:
    """Return values with `before` rows of `fill` put before them."""
    return np.concatenate([np.full((before, *values.shape[1:]), fill, dtype), values.astype(dtype)])


def _forms(made: Continuations, given: Sequence[Piece], given_ids: Sequence[int]) -> tuple[list[list[Any]], np.ndarray]:
    """Return the distinct tokens as they are shown, and which of them is at each position."""
    size, known = int(made.mask[0].sum()), made.label_of()
    kinds = kinds_of(made.special[0, :size], made.partial[0, :size])
    ids = made.token_ids[0, :size].tolist()
    first = ((i, p.text, p.label, 1 if p.special else 2 * p.partial) for i, p in zip(given_ids, given, strict=True))
    then = ((i, text, known.get(i, ""), kind) for i, text, kind in zip(ids, made.pieces[0], kinds, strict=True))
    return forms_of([*first, *then])


def _how(stop: str, size: int, given: int) -> str:
    ended = {"end": "ended by itself", "stopped": "not finished", "context": "the context was full"}.get(stop, "cut")
    return f"{size} tokens after {given} given, {ended}"
