"""The quantities of one token position: name, meaning, and how views fill, draw and search them.

A quantity is one row of `QUANTITIES` and a formula of that name in `tracing.metrics.compare`. Records, figures, views,
the live lens and its search all read the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64

from workbench.core.errors import UnknownName, nearest

ENTROPY_FLOOR_NATS = 0.1
"""The default floor: up to this aligned entropy both models are nearly certain and retention says nothing."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One number per token position: its name with unit, its titles and meaning, and how it is shown.

    `unit` is "1" for a share. `axis` is the axis title of its curve; without one it has no curve. `edges` are the five
    rising edges of its fill; without them it fills no token. `ramp` is the fill's colour, `negative_ramp` the colour
    below zero of a signed quantity. `column` is its heading in the table of tokens. `words` name it in a search.
    `count` quantities are whole numbers, 0 where missing; the others are float32, NaN where missing.
    """

    name: str
    title: str
    short: str
    unit: str
    means: str
    axis: str | None = None
    edges: tuple[float, ...] = ()
    ramp: str = "slate"
    negative_ramp: str | None = None
    column: str | None = None
    words: tuple[str, ...] = ()
    count: bool = False

    def levels(self, values: Float64[np.ndarray, "token"]) -> Int64[np.ndarray, "token"]:
        """Return each value's level: 0 for none, 1 to 5, negative where a signed quantity is below zero."""
        size = np.abs(values) if self.negative_ramp else values
        level = np.searchsorted(np.asarray(self.edges), np.nan_to_num(size, nan=-np.inf), side="right")
        return np.where((values < 0) & (self.negative_ramp is not None), -level, level).astype(np.int64)

    def css(self, level: int) -> str:
        """Return the CSS class of a level, empty for none."""
        if level == 0:
            return ""
        ramp = self.ramp if level > 0 else self.negative_ramp
        return f"wb-{ramp}{abs(level)}"

    def ranges(self) -> tuple[tuple[int, str], ...]:
        """Return the levels from lowest to highest, each with its range as text."""
        edges = [f"{e:,g}" for e in self.edges]
        if self.unit == "rank":
            whole = pairwise(int(e) for e in self.edges)
            spans = [f"{a:,}–{b - 1:,}" if b - 1 > a else f"{a:,}" for a, b in whole]
            return ((0, "1"), *((i, s) for i, s in enumerate(spans, 1)), (5, f"{int(self.edges[-1]):,} and beyond"))
        up = [f"{a}–{b}" for a, b in pairwise(edges)] + [f"{edges[-1]} and more"]
        if self.negative_ramp is None:
            return ((0, f"under {edges[0]}"), *enumerate(up, 1))
        plus = [f"+{a} to {b}" for a, b in pairwise(edges)] + [f"+{edges[-1]} and more"]
        minus = [s.replace("+", "−").replace("and more", "and less").replace(" to ", " to −") for s in plus]
        return (*((-i, minus[i - 1]) for i in range(5, 0, -1)), (0, f"within ±{edges[0]}"), *enumerate(plus, 1))


_RANK_EDGES = (2.0, 4.0, 11.0, 101.0, 1001.0)
_TABLE = (
    Quantity(
        name="kl_aligned_base_nats", title="KL(aligned ‖ base), nats", short="KL(aligned ‖ base)", unit="nats",
        means="How far the aligned model's next-token distribution has moved away from base's: 0 where they agree.",
        axis="KL(aligned ‖ base), nats", edges=(0.05, 0.2, 0.5, 1.0, 2.0), column="KL(aligned ‖ base), nats",
        words=("kl",),
    ),
    Quantity(
        name="kl_base_aligned_nats", title="KL(base ‖ aligned), nats", short="KL(base ‖ aligned)", unit="nats",
        means="The divergence in the other direction: large where aligned gives up what base would say.",
        axis="KL(base ‖ aligned), nats",
    ),
    Quantity(
        name="js_nats", title="Jensen-Shannon divergence, nats (at most ln 2)", short="Jensen-Shannon", unit="nats",
        means="A symmetric, bounded divergence: 0 where the two agree, ln 2 = 0.693 where they share nothing.",
        axis="Jensen-Shannon, nats (at most ln 2)", words=("js",),
    ),
    Quantity(
        name="excess_mass", title="excess mass (total variation), probability 0 to 1", short="excess mass", unit="1",
        means="How much probability base puts above aligned here: 0 where they agree, 1 where they share nothing.",
        axis="excess mass, 0 to 1", edges=(0.05, 0.15, 0.3, 0.5, 0.75), ramp="orange", column="excess mass",
        words=("excess mass", "excess"),
    ),
    Quantity(
        name="retention", title="retention = 1 − total variation, 0 to 1", short="retention", unit="1",
        means="1 means that the aligned model still predicts exactly what base predicts at this position.",
        axis="retention, 1 = still base", edges=(0.5, 0.75, 0.9, 0.97, 0.99), column="retention",
        words=("retention",),
    ),
    Quantity(
        name="base_favored_count", title="base-favored tokens in the count space, tokens",
        short="base-favored count", unit="tokens",
        means="How many tokens of the count space base gives more probability than aligned does, however little more.",
        axis="base-favored tokens, count", edges=(10.0, 25.0, 40.0, 60.0, 80.0), ramp="orange",
        column="base-favored tokens", words=("count",), count=True,
    ),
    Quantity(
        name="entropy_base_nats", title="entropy of base, nats", short="entropy of base", unit="nats",
        means="How uncertain base is of the next token: 0 where it is certain.", axis="entropy of base, nats",
        words=("base entropy",),
    ),
    Quantity(
        name="entropy_aligned_nats", title="entropy of aligned, nats", short="entropy of aligned", unit="nats",
        means="How uncertain aligned is of the next token: 0 where it is certain.", axis="entropy of aligned, nats",
        column="entropy aligned, nats", words=("aligned entropy", "entropy"),
    ),
    Quantity(
        name="logprob_base_nats", title="log-probability of the observed token under base, nats",
        short="log p(base)", unit="nats",
        means="How likely base finds the token at this position: 0 where it is certain of it.",
    ),
    Quantity(
        name="logprob_aligned_nats", title="log-probability of the observed token under aligned, nats",
        short="log p(aligned)", unit="nats",
        means="How likely aligned finds the token at this position: 0 where it is certain of it.",
    ),
    Quantity(
        name="logprob_shift_nats", title="log-probability shift of the observed token, aligned − base, nats",
        short="shift", unit="nats",
        means="Above zero (purple) alignment made the token here more likely, below zero (orange) less likely.",
        axis="shift aligned − base, nats", edges=(0.1, 0.3, 1.0, 2.0, 4.0), ramp="purple", negative_ramp="orange",
        column="shift aligned − base, nats", words=("shift",),
    ),
    Quantity(
        name="rank_base", title="rank of the observed token under base, 1 = most likely", short="rank under base",
        unit="rank", means="The rank of this token among the base model's choices: 1 is its first choice.",
        edges=_RANK_EDGES, column="rank, base", words=("base rank",), count=True,
    ),
    Quantity(
        name="rank_aligned", title="rank of the observed token under aligned, 1 = most likely",
        short="rank under aligned", unit="rank",
        means="The rank of this token among the aligned model's choices: 1 is its first choice.", edges=_RANK_EDGES,
        column="rank, aligned", words=("aligned rank",), count=True,
    ),
)  # fmt: skip
QUANTITIES: Mapping[str, Quantity] = {q.name: q for q in _TABLE}
"""Name -> quantity, in the order in which records store them."""
FILLS: tuple[str, ...] = tuple(
    sorted((q.name for q in _TABLE if q.edges), key=lambda name: name not in ("excess_mass", "retention"))
)
"""Names of the quantities that can fill the tokens of a text; the two most important come first."""
SEARCH_WORDS: Mapping[str, str] = {
    "base p": "probability_base",
    "aligned p": "probability_aligned",
    **{word: q.name for q in _TABLE for word in q.words},
    "alternatives": "alternatives",
    "position": "position",
}
"""Word of a search -> the value that it compares; `alternatives` counts those above the lens's thresholds."""


def quantity_named(name: str, largest: float = 0) -> Quantity:
    """Return a quantity that can fill tokens, or raise UnknownName; a count with values above 250 gets wide edges."""
    if name not in FILLS:
        raise UnknownName(f"no token quantity {name!r}: {nearest(name, FILLS)}")
    found = QUANTITIES[name]
    wide = name == "base_favored_count" and largest > 250
    return replace(found, edges=(100.0, 1_000.0, 5_000.0, 20_000.0, 50_000.0)) if wide else found
