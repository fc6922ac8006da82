"""A layer trace in numbers: the layer at which the two models part, and every reading as tidy rows. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from workbench.core.records import Estimate, Row
from workbench.core.statistics import PromptSample, interval
from workbench.tracing.records import LayerTrace

READINGS = ("excess_mass", "rank_opening", "rank_base")
"""The arrays of a LayerTrace."""


def parting_layer(
    trace: LayerTrace, *, label: str = "harmful", resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Return the first layer whose mean excess mass at position 1 is at least half of the last layer's.

    Bounds are a percentile bootstrap over prompts; value None where no prompt has this label, or the readings never
    differ.
    """
    mine = [i for i, own in enumerate(trace.labels) if own == label]
    if not mine:
        return Estimate(value=None, low=None, high=None, n=0, unit="layers")
    sample = PromptSample([trace.prompt_ids[i] for i in mine], resamples=resamples, seed=seed, stream=label)
    first = trace.excess_mass[mine, 0, :]
    mean = sample.mean(first, np.isfinite(first))
    if not mean.value[-1] > 0:
        return Estimate(value=None, low=None, high=None, n=int(mean.n[-1]), unit="layers")
    drawn = _half_way(mean.draws)
    tails = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    value = float(_half_way(mean.value[None])[0])
    return Estimate(value=value, low=float(tails[0]), high=float(tails[1]), n=len(mine), unit="layers")


def layer_rows(trace: LayerTrace, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0) -> tuple[Row, ...]:
    """Return every reading by layer and position as tidy rows, with n and a percentile bootstrap over prompts.

    `layer_excess_mass` is a mean; the two ranks are geometric means. `parting_layer` is one row a label.
    """
    rows: list[Row] = []
    for label in dict.fromkeys(trace.labels):
        mine = [i for i, own in enumerate(trace.labels) if own == label]
        sample = PromptSample([trace.prompt_ids[i] for i in mine], resamples=resamples, seed=seed, stream=label)
        length = int(trace.mask[mine].sum(axis=1).max(initial=0))
        place: dict[str, Any] = dict(label=label, seed=trace.run.seed)
        for name in READINGS:
            values = np.asarray(getattr(trace, name)[mine, :length], float)
            ranks = name != "excess_mass"
            mean = sample.mean(np.log(values) if ranks else values, np.isfinite(values))
            low, high = interval(mean, confidence)
            each = [np.exp(x) if ranks else x for x in (mean.value, low, high)]
            for layer in range(trace.layers):
                kept = (x[:, layer] for x in (*each, mean.n))
                unit = "rank" if ranks else "1"
                rows += Row.by_position(f"layer_{name}", *kept, unit=unit, layer=layer + 1, **place)
        rows.append(Row.of("parting_layer", parting_layer(trace, label=label, seed=seed), **place))
    return tuple(rows)


def _half_way(excess_mass: Float[np.ndarray, "draw layer"]) -> Int[np.ndarray, "draw"]:
    """Return the first layer (1-based) at which each draw reaches half of its last layer's value."""
    return np.asarray((excess_mass >= excess_mass[:, -1:] / 2).argmax(axis=1) + 1)
