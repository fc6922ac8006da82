"""Small drawings as SVG that follow the page's theme: a curve by position, dots on a scale, bars of shares.

No script and no library: they read the same on GitHub, in print and from a file. Numbers become coordinates here and
nowhere else; every drawing has its words as a title for those who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from workbench.core.legible import html_text
from workbench.display.figures.drawn import Number

Point = tuple[Number, Number]
ROOM_FOR_NUMBER = 40
"""Width in pixels from which a part of a bar holds its own number."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The area of a drawing: its size in pixels, the margins, and the values at its edges; `root` bends the y axis."""

    width: int
    height: int
    x: Point
    y: Point
    left: int = 44
    right: int = 8
    top: int = 22
    bottom: int = 26
    root: bool = False

    def at_x(self, value: Number) -> float:
        """Return the horizontal place of a value."""
        low, high = self.x
        return self.left + (self.width - self.left - self.right) * (value - low) / (high - low or 1.0)

    def at_y(self, value: Number) -> float:
        """Return the vertical place of a value."""
        bend: Callable[[Number], float] = (lambda v: math.sqrt(max(v, 0.0))) if self.root else float
        low, high = map(bend, self.y)
        share = (bend(value) - low) / (high - low or 1.0)
        return self.height - self.bottom - (self.height - self.top - self.bottom) * share


def svg(
    width: int, height: int, title: str, parts: Iterable[str], *, css: str = "", role: str = "img", **data: Number
) -> str:
    """Return parts as a drawing that scales with its place; `title` says what is in it, `data` goes to the script.

    A drawing with parts to click has the `role` "group".
    """
    more = "".join(f' data-{name}="{value:.6g}"' for name, value in data.items())
    return (
        f'<svg class="wb-drawing {css}" viewBox="0 0 {width} {height}" role="{role}" '
        f'aria-label="{html_text(title)}"{more}>{"".join(parts)}</svg>'
    )


def line(points: Sequence[Point], css: str) -> str:
    """Return a line through points, broken where one is not a number."""
    path, drawing = [], False
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            drawing = False
            continue
        path.append(f"{'L' if drawing else 'M'}{x:.1f} {y:.1f}")
        drawing = True
    return f'<path class="{css}" fill="none" d="{"".join(path)}"/>' if path else ""


def band(low: Sequence[Point], high: Sequence[Point], css: str) -> str:
    """Return the area between two lines; places where either is not a number are left out."""
    both = [(a, b) for a, b in zip(low, high, strict=True) if all(map(math.isfinite, (*a, *b)))]
    if len(both) < 2:
        return ""
    round_trip = [a for a, _ in both] + [b for _, b in reversed(both)]
    return f'<path class="{css}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in round_trip)}Z"/>'


def text(x: Number, y: Number, said: str, css: str = "wb-said", anchor: str = "start") -> str:
    """Return a text at a place; model text is text here too."""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html_text(said)}</text>'


def rectangle(x: Number, y: Number, width: Number, height: Number, css: str) -> str:
    """Return a rectangle, never of negative size."""
    return f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{max(0, width):.1f}" height="{max(0, height):.1f}"/>'


def stacked(rows: Sequence[tuple[str, Mapping[str, float]]], kinds: Mapping[str, str], title: str, width: int) -> str:
    """Return one horizontal bar a row, its parts shares that sum to 1; `kinds` maps a part's name to its class."""
    height, name_width, row = 8 + 30 * len(rows), 150, 30
    scale = width - name_width - 8
    parts = []
    for i, (name, shares) in enumerate(rows):
        top, left = 4 + i * row, float(name_width)
        parts.append(text(name_width - 8, top + 16, name, anchor="end"))
        for kind, css in kinds.items():
            share = shares.get(kind, 0.0)
            parts.append(rectangle(left, top, scale * share, 22, f"wb-part {css}"))
            if scale * share >= ROOM_FOR_NUMBER:
                parts.append(text(left + 6, top + 15, f"{100 * share:.0f} %", "wb-said wb-inside"))
            left += scale * share
    return svg(width, height, title, parts)
