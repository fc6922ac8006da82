"""A response's tokens as the columns of a data frame: the record's numbers, what counts and what matches."""

from __future__ import annotations

from typing import Any

import numpy as np

from widgets.lens_search import FLAGS, Search
from widgets.lens_settings import LensSettings, counting
from workbench.core import legible
from workbench.display.views.responses import COVER
from workbench.tracing.records import TraceSet


def token_values(traces: TraceSet, response: int, settings: LensSettings, *, covered: bool) -> dict[str, Any]:
    """Return columns by name, one entry a token; every name that a search can compare is among them.

    `alternatives` counts those that count under the settings, `match` tells what their search finds (False everywhere
    without one). `covered`: without texts and ids; then no search of text finds anything either.
    """
    r, length = response, int(traces.lengths()[response])
    pieces, partial = traces.pieces[r][:length], traces.partial[r, :length]
    ids, known = traces.token_ids[r, :length], traces.label_of()
    said = [
        legible.label(piece) if piece and not part else legible.label(known.get(i, ""))
        for piece, part, i in zip(pieces, partial.tolist(), ids.tolist(), strict=True)
    ]
    scalars = {name: values[r, :length] for name, values in traces.scalars.items()}
    values: dict[str, Any] = {
        "position": np.arange(1, length + 1),
        "token": [COVER] * length if covered else said,
        "token_id": [None] * length if covered else ids,
        "probability_base": np.exp(scalars["logprob_base_nats"].astype(np.float64)),
        "probability_aligned": np.exp(scalars["logprob_aligned_nats"].astype(np.float64)),
        **scalars,
        "base_favored": scalars["logprob_shift_nats"] < 0,
        "alternatives": counting(traces, r, settings).sum(-1),
        "match": np.zeros(length, bool),
    }
    if settings.search.strip():
        of = traces.responses[r]
        given = of.prefix_tokens if of.trajectory == "free_running" else 0
        flags = {
            "base-favored": values["base_favored"],
            "special": traces.special[r, :length] & (not covered),
            "partial": partial & (not covered),
            "given": values["position"] <= given,
        }
        texts = [""] * length if covered else [legible.prose(piece) for piece in pieces]
        values["match"] = Search(settings.search).matches(values, {name: flags[name] for name in FLAGS}, texts)
    return values
