"""Every colour, dash and marker that a person sees: the same colour means the same thing everywhere.

Prompt labels and models have one mid-tone each, readable on white and on near-black. Token fills are ramps of five
levels per theme under ordinary ink; orange means base, purple aligned, slate neither. Colour is never the only channel:
labels differ in dash and marker, base-favored tokens are underlined, levels are written out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stroke:
    """The drawing style of one label: colour, line dash and marker."""

    colour: str
    dash: str
    marker: str


LABELS: Mapping[str, Stroke] = {
    "harmful": Stroke(colour="#c02b53", dash="solid", marker="circle"),
    "harmless": Stroke(colour="#2f7fc1", dash="dash", marker="diamond"),
    "lookalike": Stroke(colour="#27a38c", dash="dot", marker="square"),
    "unlabelled": Stroke(colour="#7a7a7a", dash="dashdot", marker="cross"),
}
"""Prompt label -> how it is drawn."""

BASE, ALIGNED = "#c56a12", "#8063bf"
"""The two models. Orange is base and what base favors, purple is aligned and what aligned favors."""

OTHER_ARMS: tuple[Stroke, ...] = (
    Stroke(colour="#4f8a10", dash="dash", marker="diamond"),
    Stroke(colour="#b8399a", dash="dot", marker="triangle-up"),
    Stroke(colour="#1f8fa8", dash="dashdot", marker="cross"),
    Stroke(colour="#8d5b3a", dash="longdash", marker="triangle-down"),
    Stroke(colour="#5469d4", dash="longdashdot", marker="star"),
    Stroke(colour="#7a7a7a", dash="dash", marker="hexagon"),
)
"""How arms that are neither base nor aligned are drawn, in their order."""

KIND_MARKERS: Mapping[str, str] = {"safety": "square", "style": "circle", "undecided": "diamond"}
"""Kind of base-favored token -> marker shape."""

PAPER, INK, SOFT, RULE, PANEL, FOCUS = "paper", "ink", "soft", "rule", "panel", "focus"
THEMES: Mapping[str, tuple[str, str]] = {
    PAPER: ("#ffffff", "#111111"),
    INK: ("#1b1b1f", "#e9e9ec"),
    SOFT: ("#5c5c66", "#a6a6b0"),
    RULE: ("#d9d9df", "#38383f"),
    PANEL: ("#f5f5f7", "#1b1b1f"),
    FOCUS: ("#0b57d0", "#8ab4ff"),
    "base": ("#a85508", "#f0a04b"),
    "aligned": ("#6a4bb0", "#b9a3ee"),
    "noise": ("#8a8a94", "#8a8a94"),
}
"""Name -> (colour on light, colour on dark). `base` and `aligned` here are for text and underlines."""

RAMPS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "orange": (
        ("#fdf0e0", "#fddcb5", "#fbc286", "#f3a24f", "#de8327"),
        ("#2b2116", "#432e15", "#5d3c13", "#774a10", "#8d560c"),
    ),
    "purple": (
        ("#f0edf8", "#dfd8f0", "#c8bce5", "#b09fd8", "#9a85cb"),
        ("#211c2e", "#302747", "#413464", "#534283", "#64509f"),
    ),
    "slate": (
        ("#e8f0f6", "#cfe1ee", "#abcce2", "#82b2d3", "#5d9ac3"),
        ("#16222c", "#1c3244", "#21435b", "#265573", "#2b678b"),
    ),
}
"""Ramp -> (five levels on light, five on dark), weakest first; ordinary ink stays readable on each."""

SLATE_SCALE = ((0.0, "#eef4f9"), (0.25, "#bcd6e8"), (0.5, "#7fb0d2"), (0.75, "#3f7fae"), (1.0, "#123f66"))
"""The single-hue sequential scale of heat maps: darker is more."""


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb by WCAG 2, 0 to 1."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the WCAG 2 contrast ratio of two colours, 1 to 21; 4.5 is AA for text, 3 for graphics."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def css_variables() -> str:
    """Return the colours as CSS custom properties `--wb-NAME`, each with its light and dark value."""

    def line(name: str, light: str, dark: str) -> str:
        return f"--wb-{name}: light-dark({light}, {dark});"

    lines = [line(name, light, dark) for name, (light, dark) in THEMES.items()]
    for ramp, (light, dark) in RAMPS.items():
        lines += [line(f"{ramp}-{i}", a, b) for i, (a, b) in enumerate(zip(light, dark, strict=True), 1)]
    lines += [f"--wb-{name}: {stroke.colour};" for name, stroke in LABELS.items()]
    lines += [f"--wb-base-mid: {BASE};", f"--wb-aligned-mid: {ALIGNED};"]
    return "\n".join(lines)


def tint(colour: str, alpha: float) -> str:
    """Return #rrggbb as rgba(...) with the given opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def stroke_of(label: str) -> Stroke:
    """Return how a label is drawn; an unknown one is drawn as `unlabelled`."""
    return LABELS.get(label, LABELS["unlabelled"])


def strokes_of_arms(arms: Iterable[str]) -> dict[str, Stroke]:
    """Return how each arm of a comparison is drawn: base and aligned in their own colours, the others in turn."""
    known = {
        "base": Stroke(colour=BASE, dash="solid", marker="circle"),
        "aligned": Stroke(colour=ALIGNED, dash="solid", marker="square"),
    }
    named = list(dict.fromkeys(arms))
    others = [arm for arm in named if arm not in known]
    given = {arm: OTHER_ARMS[i % len(OTHER_ARMS)] for i, arm in enumerate(others)}
    return {arm: known.get(arm) or given[arm] for arm in named}
