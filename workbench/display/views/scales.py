"""Which quantity fills the tokens: its levels, their edges, what it means, and the legend that says so."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64

from workbench.core.errors import UnknownName, nearest
from workbench.core.legible import html_text
from workbench.display.views.view import View, disclosure, section
from workbench.tracing.records import TraceSet

ENTROPY_FLOOR_NATS = 0.1
"""Up to this aligned entropy both models are nearly certain and retention says nothing: drawn hatched, unfilled."""

NOTABLE_SHIFT_NATS = 0.1
"""A base-favored token that is less than this likelier under base gets a dotted underline instead of a solid one."""

READING = (
    "Base-favored tokens exist wherever alignment moved anything, so fewer is not better. Incomplete learning shows as "
    "retention near 1 and KL near 0 at late positions of harmful continuations: there the aligned model still is the "
    f"base model. Retention is read together with entropy: where the aligned entropy is at most {ENTROPY_FLOOR_NATS} "
    "nats both models are nearly deterministic, and retention near 1 means nothing."
)
"""What every view says about reading base-favored tokens and retention."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """Describe a quantity that can fill tokens: five rising edges, and one ramp (two when it has a sign)."""

    name: str
    title: str
    short: str
    unit: str
    edges: tuple[float, ...]
    ramp: str
    negative_ramp: str | None
    means: str

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
            spans = [f"{a:,}–{b - 1:,}" if b - 1 > a else f"{a:,}" for a, b in _pairs(self.edges)]
            return ((0, "1"), *((i, s) for i, s in enumerate(spans, 1)), (5, f"{int(self.edges[-1]):,} and beyond"))
        up = [f"{a}–{b}" for a, b in pairwise(edges)] + [f"{edges[-1]} and more"]
        if self.negative_ramp is None:
            return ((0, f"under {edges[0]}"), *enumerate(up, 1))
        plus = [f"+{a} to {b}" for a, b in pairwise(edges)] + [f"+{edges[-1]} and more"]
        minus = [s.replace("+", "−").replace("and more", "and less").replace(" to ", " to −") for s in plus]
        return (*((-i, minus[i - 1]) for i in range(5, 0, -1)), (0, f"within ±{edges[0]}"), *enumerate(plus, 1))


def _pairs(edges: tuple[float, ...]) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in pairwise(edges)]


def _quantity(
    name: str,
    title: str,
    short: str,
    unit: str,
    edges: tuple[float, ...],
    ramp: str,
    means: str,
    negative: str | None = None,
) -> Quantity:
    return Quantity(
        name=name, title=title, short=short, unit=unit, edges=edges, ramp=ramp, negative_ramp=negative, means=means
    )


_RANK_EDGES = (2.0, 4.0, 11.0, 101.0, 1001.0)
_ALL = (
    _quantity(
        "excess_mass",
        "excess mass (total variation), probability 0 to 1",
        "excess mass",
        "probability",
        (0.05, 0.15, 0.3, 0.5, 0.75),
        "orange",
        "How much probability base puts above aligned here: 0 where they agree, 1 where they share nothing.",
    ),
    _quantity(
        "retention",
        "retention = 1 − total variation, 0 to 1",
        "retention",
        "share",
        (0.5, 0.75, 0.9, 0.97, 0.99),
        "slate",
        "1 means that the aligned model still predicts exactly what base predicts at this position.",
    ),
    _quantity(
        "kl_aligned_base_nats",
        "KL(aligned ‖ base), nats",
        "KL(aligned ‖ base)",
        "nats",
        (0.05, 0.2, 0.5, 1.0, 2.0),
        "slate",
        "How far the aligned model's next-token distribution has moved away from base's: 0 where they agree.",
    ),
    _quantity(
        "logprob_shift_nats",
        "log-probability shift of the observed token, aligned − base, nats",
        "shift",
        "nats",
        (0.1, 0.3, 1.0, 2.0, 4.0),
        "purple",
        "Above zero (purple) alignment made the token that stands here likelier, below zero (orange) less likely.",
        "orange",
    ),
    _quantity(
        "rank_base",
        "rank of the observed token under base, 1 = most likely",
        "rank under base",
        "rank",
        _RANK_EDGES,
        "slate",
        "Which choice of the base model the token that stands here would have been.",
    ),
    _quantity(
        "rank_aligned",
        "rank of the observed token under aligned, 1 = most likely",
        "rank under aligned",
        "rank",
        _RANK_EDGES,
        "slate",
        "Which choice of the aligned model the token that stands here would have been.",
    ),
    _quantity(
        "base_favored_count",
        "base-favored tokens in the count space, tokens",
        "base-favored count",
        "tokens",
        (10.0, 25.0, 40.0, 60.0, 80.0),
        "orange",
        "How many tokens of the count space base gives more probability than aligned does, however little more.",
    ),
)
QUANTITIES: dict[str, Quantity] = {q.name: q for q in _ALL}
"""Name -> quantity that can fill the tokens."""


def quantity_named(name: str, traces: TraceSet | None = None) -> Quantity:
    """Return a quantity by name; a count over the whole vocabulary gets the wide edges it needs.

    Raises UnknownName for a name that is none.
    """
    if name not in QUANTITIES:
        raise UnknownName(f"no token quantity {name!r}: {nearest(name, list(QUANTITIES))}")
    found = QUANTITIES[name]
    if name == "base_favored_count" and traces is not None and traces.base_favored_count.max(initial=0) > 250:
        edges = (100.0, 1_000.0, 5_000.0, 20_000.0, 50_000.0)
        return _quantity(found.name, found.title, found.short, found.unit, edges, found.ramp, found.means)
    return found


@dataclass(frozen=True, kw_only=True)
class Sign:
    """Hold one sign of a token text that is no fill: its name, its CSS class, how it looks and what it says."""

    name: str
    css: str
    sample: str
    said: str
    tag: str = "span"

    @property
    def html(self) -> str:
        """Return the sign as it stands in a text."""
        return f'<{self.tag} class="{self.css}">{html_text(self.sample)}</{self.tag}>'


SIGNS = (
    Sign(
        name="favored",
        css="wb-favored",
        sample="underlined",
        said="base-favored: base gives the token that stands here more probability than aligned",
        tag="b",
    ),
    Sign(name="lean", css="wb-lean", sample="dotted", said=f"the same, by less than {NOTABLE_SHIFT_NATS} nats"),
    Sign(
        name="sure",
        css="wb-sure",
        sample="\u00a0hatched\u00a0",
        said="both nearly certain: retention says nothing",
    ),
    Sign(name="partial", css="wb-sign", sample="▫", said="part of a character that a later token completes"),
    Sign(name="hid", css="wb-hid", sample="░░░", said="a token whose text is withheld; all have the same width"),
)
"""What every token text draws beside its fill, live and static."""


def scale_html(quantity: Quantity, title: str | None = None) -> str:
    """Return the swatches of a quantity's levels under its title, or another that says what they stand for."""
    swatches = "".join(
        f'<span class="wb-swatch {quantity.css(level)}">{html_text(said)}</span>' for level, said in quantity.ranges()
    )
    name = html_text(title or quantity.title)
    return f'<div class="wb-legend"><span><b>{name}</b></span><span>{swatches}</span></div>'


def legend_html(quantity: Quantity, *, redacted: bool = False, partial: bool = False) -> str:
    """Return the swatches of a quantity and every sign that a token text uses."""
    there = {"favored": True, "lean": True, "sure": quantity.name == "retention", "partial": partial, "hid": redacted}
    signs = [f"{sign.html} {html_text(sign.said)}" for sign in SIGNS if there[sign.name]]
    lines = "".join(f"<span>{s}</span>" for s in signs)
    return f'{scale_html(quantity)}<div class="wb-legend wb-soft">{lines}</div>'


def legend(quantity: str = "excess_mass") -> View:
    """Explain a quantity's fill, the signs in a token text and how to read them."""
    q = quantity_named(quantity)
    reading = f'<p class="wb-note">{html_text(q.means)}</p><p class="wb-note">{html_text(READING)}</p>'
    body = section("legend", f"Legend: {q.title}", legend_html(q, redacted=True, partial=True), reading)
    ranges = "; ".join(f"level {level}: {said}" for level, said in q.ranges())
    rows = tuple({"quantity": q.name, "level": level, "range": said, "unit": q.unit} for level, said in q.ranges())
    return View(title=f"Legend: {q.title}", body=body, text=f"{q.title}\n{ranges}\n{q.means}\n{READING}", rows=rows)


def reading_html() -> str:
    """Return the note on reading retention and base-favored tokens, for the reader to open."""
    return disclosure("How to read this", f'<p class="wb-note">{html_text(READING)}</p>')
