"""Which quantity fills the tokens: its levels, their edges, what it means, and the legend that says so."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.core.legible import html_text
from workbench.core.quantities import ENTROPY_FLOOR_NATS, Quantity, quantity_named
from workbench.display.views.view import View, disclosure, section

NOTABLE_SHIFT_NATS = 0.1
"""A base-favored token that is less than this likelier under base gets a dotted underline instead of a solid one."""


def reading(floor_nats: float = ENTROPY_FLOOR_NATS) -> str:
    """Return the note on reading base-favored tokens and retention; `floor_nats` is that of the traces."""
    return (
        "Base-favored tokens exist wherever alignment moved anything, so fewer is not better. Incomplete learning "
        "shows as retention near 1 and KL near 0 at late positions of harmful continuations: there the aligned model "
        "still is the base model. Retention is read together with entropy: where the aligned entropy is at most "
        f"{floor_nats:g} nats both models are nearly deterministic, and retention near 1 means nothing."
    )


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A sign in a token text other than the fill: its name, CSS class, sample and meaning."""

    name: str
    css: str
    sample: str
    said: str
    tag: str = "span"

    @property
    def html(self) -> str:
        """Return the sign as a text shows it."""
        return f'<{self.tag} class="{self.css}">{html_text(self.sample)}</{self.tag}>'


SIGNS = (
    Sign(
        name="favored",
        css="wb-favored",
        sample="underlined",
        said="base-favored: base gives this token more probability than aligned",
        tag="b",
    ),
    Sign(name="lean", css="wb-lean", sample="dotted", said=f"the same, by less than {NOTABLE_SHIFT_NATS} nats"),
    Sign(
        name="sure",
        css="wb-sure",
        sample="\u00a0hatched\u00a0",
        said="both models nearly certain: retention says nothing",
    ),
    Sign(name="partial", css="wb-sign", sample="▫", said="part of a character that a later token completes"),
    Sign(name="hid", css="wb-hid", sample="░░░", said="a token whose text is withheld; all have the same width"),
)
"""The signs of every token text beside its fill, live and static."""


def scale_html(quantity: Quantity, title: str | None = None) -> str:
    """Return the swatches of a quantity's levels under its title, or under another."""
    swatches = "".join(
        f'<span class="wb-swatch {quantity.css(level)}">{html_text(said)}</span>' for level, said in quantity.ranges()
    )
    name = html_text(title or quantity.title)
    return f'<div class="wb-legend"><span><b>{name}</b></span><span>{swatches}</span></div>'


def sign_html(name: str) -> str:
    """Return the legend of one sign."""
    sign = next(s for s in SIGNS if s.name == name)
    return f'<div class="wb-legend wb-soft"><span>{sign.html} {html_text(sign.said)}</span></div>'


def legend_html(quantity: Quantity, *, redacted: bool = False, partial: bool = False) -> str:
    """Return the swatches of a quantity and the signs that a token text uses."""
    there = {"favored": True, "lean": True, "sure": quantity.name == "retention", "partial": partial, "hid": redacted}
    signs = [f"{sign.html} {html_text(sign.said)}" for sign in SIGNS if there[sign.name]]
    lines = "".join(f"<span>{s}</span>" for s in signs)
    return f'{scale_html(quantity)}<div class="wb-legend wb-soft">{lines}</div>'


def legend(quantity: str = "excess_mass") -> View:
    """Explain a quantity's fill, the signs in a token text and how to read them."""
    q = quantity_named(quantity)
    notes = "".join(f'<p class="wb-note">{html_text(note)}</p>' for note in (q.means, reading()))
    body = section("legend", f"Legend: {q.title}", legend_html(q, redacted=True, partial=True), notes)
    ranges = "; ".join(f"level {level}: {said}" for level, said in q.ranges())
    rows = tuple({"quantity": q.name, "level": level, "range": said, "unit": q.unit} for level, said in q.ranges())
    return View(title=f"Legend: {q.title}", body=body, text=f"{q.title}\n{ranges}\n{q.means}\n{reading()}", rows=rows)


def reading_html(floor_nats: float = ENTROPY_FLOOR_NATS) -> str:
    """Return the note on reading retention and base-favored tokens, for the reader to open."""
    return disclosure("How to read this", f'<p class="wb-note">{html_text(reading(floor_nats))}</p>')
