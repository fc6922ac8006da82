"""Where training weighs most: w_t, the measured retention on harmful texts at position t."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.core.passages import Passage
from workbench.core.quantities import QUANTITIES
from workbench.core.store import Store
from workbench.models.pair import ModelPair
from workbench.tracing.scoring import ScoreConfig, score
from workbench.training.rows import HarmfulText

FEWEST = 3
"""A position that fewer texts reach has the value of the last one that as many do."""


def measured_retention(
    pair: ModelPair, texts: Sequence[HarmfulText], *, store: Store | None = None
) -> tuple[float, ...]:
    """Return mean retention 1 - TV(base, aligned) by position of the harmful responses, for ArmConfig.retention.

    Positions go as far as FEWEST texts reach (all texts, where there are fewer); () without a text.
    """
    items = [Passage(name=t.name, base=t.base, aligned=t.aligned, response=t.response) for t in texts if t.response]
    made = score(pair, items, ScoreConfig(top_k=1, shown_k=1), store=store, what="retention by position")
    row = list(QUANTITIES).index("retention")
    reach = sorted((len(i.response) for i in items), reverse=True)
    longest = reach[min(FEWEST, len(reach)) - 1] if reach else 0
    by_position = [[float(s.scalars[row, t]) for s in made if s.scalars.shape[-1] > t] for t in range(longest)]
    return tuple(float(np.clip(np.mean(values), 0.0, 1.0)) for values in by_position)
