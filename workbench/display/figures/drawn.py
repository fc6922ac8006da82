"""A plotly figure as a drawing of its own: SVG that follows the theme, prints, and needs no script.

It draws what this project's figures are made of: scatter lines, markers, bands, error bars and texts, heat maps with
their scale, horizontal and vertical marks, annotations, a legend, panels. What else a figure might hold is left out; a
test draws every figure of the project. Plotly itself draws where a notebook is live.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.core.legible import html_text, percent
from workbench.core.palette import ALIGNED, BASE, LABELS, THEMES

Number = int | float
WIDTH = 960
LETTER = 6.9
"""About the width of one letter, pixels."""
MOST_TITLES = 1_500
"""The number of points or cells up to which each says its value on hover."""

_VARIABLES = {light: f"var(--wb-{name}, {light})" for name, (light, _) in THEMES.items()}
_VARIABLES |= {stroke.colour: f"var(--wb-{name}, {stroke.colour})" for name, stroke in LABELS.items()}
_VARIABLES |= {BASE: f"var(--wb-base-mid, {BASE})", ALIGNED: f"var(--wb-aligned-mid, {ALIGNED})"}
_DASHES = {"dash": "6 4", "dot": "2 3", "dashdot": "6 3 2 3", "longdash": "10 5", "longdashdot": "10 4 2 4"}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def figure_svg(figure: go.Figure) -> str:
    """Return a figure as one <svg> of WIDTH by its own height, which scales with its place."""
    spec = _listed(figure.to_dict())
    return _Drawing(spec["data"], spec["layout"]).svg()


def _listed(value: Any) -> Any:
    """Return a tree with lists in the place of arrays, packed ones included."""
    if isinstance(value, dict):
        if set(value) >= {"dtype", "bdata"}:
            array = np.frombuffer(base64.b64decode(value["bdata"]), np.dtype(value["dtype"]))
            shape = str(value.get("shape", array.size)).split(",")
            return array.reshape([int(n) for n in shape]).tolist()
        return {k: _listed(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_listed(v) for v in value] if isinstance(value, list | tuple) else value


@dataclass
class _Axis:
    """One axis: where it lies (pixels), what it covers (linear values: logarithms, places of categories), its marks."""

    name: str
    spec: Mapping[str, Any]
    vertical: bool
    log: bool = False
    categories: list[str] = field(default_factory=list)
    low: float = 0.0
    high: float = 1.0
    start: float = 0.0
    stop: float = 1.0

    def linear(self, value: Any) -> float:
        """Return a value on the axis' linear scale; NaN where it has no place."""
        if value is None:
            return math.nan
        if self.categories:
            return float(self.categories.index(str(value))) if str(value) in self.categories else _number(value)
        number = _number(value)
        if self.log:
            return math.log10(number) if number > 0 else math.nan
        return number

    def at(self, value: Any) -> float:
        """Return the pixel of a value."""
        return self.start + (self.stop - self.start) * (self.linear(value) - self.low) / (self.high - self.low or 1.0)

    def marks(self) -> list[tuple[float, str]]:
        """Return (pixel, text) of each tick."""
        if self.spec.get("visible") is False or self.spec.get("showticklabels") is False:
            return []
        given = self.spec.get("tickvals")
        if given is not None:
            texts = self.spec.get("ticktext") or [_said(v) for v in given]
            found = [(self.at(v), _plain(str(t))) for v, t in zip(given, texts, strict=False)]
        elif self.categories:
            found = [(self.at(c), _plain(c)) for c in self.categories]
        elif self.log:
            steps = range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)
            found = [(self.at(10.0**e), "10" + str(e).translate(_SUPERSCRIPTS)) for e in steps]
        else:
            shares = str(self.spec.get("tickformat", "")).endswith("%")
            found = [
                (self.at(v), percent(v) if shares else _said(v))
                for v in ticks(min(self.low, self.high), max(self.low, self.high), 4 if self.vertical else 7)
            ]
        first, last = sorted((self.start, self.stop))
        return [(at, said) for at, said in found if first - 0.5 <= at <= last + 0.5]


class _Drawing:
    """One figure being drawn."""

    def __init__(self, traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> None:
        self.traces = [t for t in traces if t.get("visible", True) is True]
        self.layout = layout
        self.height = int(layout.get("height") or 400)
        self.entries = list(self._legend_entries())
        margin = layout.get("margin", {})
        bars = any(t["type"] == "heatmap" and t.get("showscale", True) for t in self.traces)
        self.rows = self._legend_rows()
        titled = any(a.get("yref") == "paper" and _number(a.get("y")) >= 1 for a in layout.get("annotations", ()))
        self.top = 14.0 + 22 * self.rows + (20 if titled else 6)
        self.axes = {name: self._axis(name) for name in self._axis_names()}
        self.left = max(46.0, 26 + LETTER * self._longest("y"))
        self.right, self.bottom = (74.0 if bars else 18.0), float(margin.get("b", 56))
        self._scale()
        self.titles = sum(len(t.get("x") or ()) for t in self.traces) <= MOST_TITLES

    # ------------------------------------------------------------------------------------------------- axes

    def _axis_names(self) -> list[str]:
        named = [t.get(k) or k[0] for t in self.traces for k in ("xaxis", "yaxis")]
        kept = [k.replace("axis", "") for k in self.layout if re.fullmatch(r"[xy]axis\d*", k)]
        return list(dict.fromkeys((*named, *(n for n in kept if n in named or len(kept) <= 2), "x", "y")))

    def _axis(self, name: str) -> _Axis:
        spec = self.layout.get(f"{name[0]}axis{name[1:]}", {})
        axis = _Axis(name=name, spec=spec, vertical=name[0] == "y", log=spec.get("type") == "log")
        values = list(self._values(name))
        if spec.get("type") == "category" or any(isinstance(v, str) and math.isnan(_number(v)) for v in values):
            asked = spec.get("categoryarray") or ()
            axis.categories = list(dict.fromkeys([*map(str, asked), *(str(v) for v in values if v is not None)]))
        return axis

    def _values(self, name: str) -> Iterator[Any]:
        key = name[0]
        for t in self.traces:
            if (t.get(f"{key}axis") or key) == name:
                yield from t.get(key) or ()

    def _reach(self, axis: _Axis) -> tuple[float, float]:
        """Return the linear ends of an axis: those asked for, else those of its data with a little room."""
        asked = axis.spec.get("range")
        if asked and None not in asked:
            return float(asked[0]), float(asked[1])
        peers = [a for a in self.axes.values() if self._leader(a) == self._leader(axis)]
        known: list[float] = []
        for peer in peers:
            known += [v for v in map(peer.linear, self._values(peer.name)) if math.isfinite(v)]
            known += self._errors(peer)
            if any(
                t["type"] == "heatmap" and (t.get(f"{peer.name[0]}axis") or peer.name[0]) == peer.name
                for t in self.traces
            ):
                known += [min(known) - 0.5, max(known) + 0.5] if known else []
        if axis.categories:
            low, high = -0.6, len(axis.categories) - 0.4
        elif not known:
            low, high = 0.0, 1.0
        else:
            low, high = min(known), max(known)
            room = 0.05 * (high - low) or 0.5
            low, high = low - room, high + room
            if axis.spec.get("rangemode") == "tozero" and not axis.log:
                low = min(0.0, low + room) if low + room < 0 else 0.0
        return (high, low) if axis.spec.get("autorange") == "reversed" else (low, high)

    def _leader(self, axis: _Axis) -> str:
        return str(axis.spec.get("matches") or axis.name)

    def _errors(self, axis: _Axis) -> list[float]:
        key, found = axis.name[0], []
        for t in self.traces:
            bars = t.get(f"error_{key}")
            if bars and bars.get("array") and (t.get(f"{key}axis") or key) == axis.name:
                downs = bars.get("arrayminus") or bars["array"]
                for v, up, down in zip(t.get(key) or (), bars["array"], downs, strict=False):
                    ends = (axis.linear(_number(v) + (up or 0)), axis.linear(_number(v) - (down or 0)))
                    found += [e for e in ends if math.isfinite(e)]
        return found

    def _longest(self, kind: str) -> int:
        texts = [
            len(part)
            for a in self.axes.values()
            if a.vertical == (kind == "y") and a.spec.get("domain", [0])[0] == 0
            for c in (a.categories or a.spec.get("ticktext") or ["1,000"])
            for part in _lines(str(c))
        ]
        return min(34, max(texts, default=5))

    def _scale(self) -> None:
        for axis in self.axes.values():
            axis.low, axis.high = self._reach(axis)
            low, high = axis.spec.get("domain", (0.0, 1.0))
            if axis.vertical:
                span = self.height - self.top - self.bottom
                axis.start, axis.stop = self.height - self.bottom - span * low, self.height - self.bottom - span * high
            else:
                span = WIDTH - self.left - self.right
                axis.start, axis.stop = self.left + span * low, self.left + span * high

    # ---------------------------------------------------------------------------------------------- drawing

    def svg(self) -> str:
        """Return the whole drawing."""
        panels = list(dict.fromkeys((t.get("xaxis") or "x", t.get("yaxis") or "y") for t in self.traces))
        parts = [part for x, y in panels or [("x", "y")] for part in self._panel(self.axes[x], self.axes[y])]
        before = [s for s in self.layout.get("shapes", ()) if s.get("layer") == "below"]
        after = [s for s in self.layout.get("shapes", ()) if s.get("layer") != "below"]
        parts += map(self._shape, before)
        parts += [self._trace(i, t) for i, t in enumerate(self.traces)]
        parts += map(self._shape, after)
        parts += map(self._annotation, self.layout.get("annotations", ()))
        parts.append(self._legend())
        meta = self.layout.get("meta") or {}
        said = html_text(f"{meta.get('title', 'Figure')}. {meta.get('summary', '')}")
        return (
            f'<svg class="wb-drawn" viewBox="0 0 {WIDTH} {self.height}" role="img" '
            f'aria-label="{said}">{"".join(parts)}</svg>'
        )

    def _panel(self, x: _Axis, y: _Axis) -> Iterator[str]:
        left, right, bottom, top = x.start, x.stop, y.start, y.stop
        for axis in (x, y):
            if axis.spec.get("visible") is False:
                continue
            for at, said in axis.marks():
                if axis.vertical:
                    if axis.spec.get("showgrid", True):
                        yield _path(f"M{left:.1f} {at:.1f}H{right:.1f}", THEMES["rule"][0], 1)
                    for i, part in enumerate(_lines(said)):
                        yield _text(left - 7, at + 4 + 14 * i, part, anchor="end")
                else:
                    if axis.spec.get("showgrid", True):
                        yield _path(f"M{at:.1f} {top:.1f}V{bottom:.1f}", THEMES["rule"][0], 1)
                    for i, part in enumerate(_lines(said)):
                        yield _text(at, bottom + 18 + 14 * i, part, anchor="middle")
            title = _plain(str(axis.spec.get("title", {}).get("text") or ""))
            if title and axis.vertical:
                place = left - 15 - LETTER * min(34, max((len(s) for _, s in axis.marks()), default=4))
                yield _text(max(12.0, place), (top + bottom) / 2, title, anchor="middle", turned=True)
            elif title:
                yield _text((left + right) / 2, bottom + 38, title, anchor="middle")
        if x.spec.get("visible") is not False:
            yield _path(f"M{left:.1f} {bottom:.1f}H{right:.1f}", THEMES["soft"][0], 1.2)

    def _trace(self, index: int, t: Mapping[str, Any]) -> str:
        x, y = self.axes[t.get("xaxis") or "x"], self.axes[t.get("yaxis") or "y"]
        if t["type"] == "heatmap":
            return self._heatmap(t, x, y)
        points = [(x.at(a), y.at(b)) for a, b in zip(t.get("x") or (), t.get("y") or (), strict=False)]
        line, mode = t.get("line", {}), str(t.get("mode") or "lines")
        parts = []
        if t.get("fill") in ("toself", "tonexty"):
            parts.append(self._area(index, t, points))
        if "lines" in mode and float(line.get("width", 2)) > 0:
            path = _through(points, steps=line.get("shape") == "hv")
            dash = _DASHES.get(str(line.get("dash")), "")
            parts.append(_path(path, line.get("color"), float(line.get("width", 2)), dash, t.get("opacity")))
        parts += self._bars(t, points, x, y)
        if "markers" in mode:
            parts += self._markers(t, points)
        if "text" in mode:
            where = str(t.get("textposition") or "top center")
            lift = -9 if "top" in where else 15 if "bottom" in where else 4
            aside = -9 if "left" in where else 9 if "right" in where else 0
            anchor = "end" if "left" in where else "start" if "right" in where else "middle"
            for (px, py), said in zip(points, _each(t.get("text"), len(points)), strict=True):
                if said and math.isfinite(px) and math.isfinite(py):
                    parts.append(_text(px + aside, py + lift, _plain(str(said)), anchor=anchor))
        return "".join(parts)

    def _area(self, index: int, t: Mapping[str, Any], points: Sequence[tuple[float, float]]) -> str:
        round_trip = list(points)
        if t.get("fill") == "tonexty" and index:
            before = self.traces[index - 1]
            x, y = self.axes[before.get("xaxis") or "x"], self.axes[before.get("yaxis") or "y"]
            both = zip(before.get("x") or (), before.get("y") or (), strict=False)
            round_trip = [*points, *reversed([(x.at(a), y.at(b)) for a, b in both])]
        known = [(a, b) for a, b in round_trip if math.isfinite(a) and math.isfinite(b)]
        if len(known) < 3:
            return ""
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in known) + "Z"
        return f'<path d="{path}" fill="{_colour(t.get("fillcolor"))}" stroke="none"/>'

    def _bars(self, t: Mapping[str, Any], points: Sequence[tuple[float, float]], x: _Axis, y: _Axis) -> Iterator[str]:
        for key, axis in (("x", x), ("y", y)):
            bars = t.get(f"error_{key}")
            if not bars or not bars.get("array"):
                continue
            downs = bars.get("arrayminus") or bars["array"]
            for (px, py), v, up, down in zip(points, t.get(key) or (), bars["array"], downs, strict=False):
                if not (math.isfinite(px) and math.isfinite(py)) or not (up or down):
                    continue
                low, high = axis.at(_number(v) - (down or 0)), axis.at(_number(v) + (up or 0))
                if math.isfinite(low) and math.isfinite(high):
                    path = f"M{px:.1f} {low:.1f}V{high:.1f}" if axis.vertical else f"M{low:.1f} {py:.1f}H{high:.1f}"
                    yield _path(path, bars.get("color"), float(bars.get("thickness", 1.5)))

    def _markers(self, t: Mapping[str, Any], points: Sequence[tuple[float, float]]) -> Iterator[str]:
        marker, n = t.get("marker", {}), len(points)
        each = zip(
            points, t.get("x") or (), t.get("y") or (), *(_each(marker.get(k), n) for k in ("symbol", "size", "color")),
            _each(t.get("hovertext") or t.get("text"), n), strict=False,
        )  # fmt: skip
        for (px, py), vx, vy, symbol, size, colour, said in each:
            if not (math.isfinite(px) and math.isfinite(py)):
                continue
            name = _plain(str(t.get("name") or ""))
            words = _plain(str(said)) if said else f"{name + ': ' if name else ''}{_said(vx)}, {_said(vy)}"
            title = f"<title>{html_text(words.replace(chr(10), ', '))}</title>" if self.titles else ""
            stroke = marker.get("line", {}).get("width", 1)
            yield _symbol(
                str(symbol or "circle"), px, py, float(size or 6) / 2, _colour(colour), float(stroke or 1), title
            )

    def _heatmap(self, t: Mapping[str, Any], x: _Axis, y: _Axis) -> str:
        rows, scale = t.get("z") or [], t.get("colorscale") or []
        flat = [v for row in rows for v in row if isinstance(v, int | float) and math.isfinite(v)]
        low = float(t["zmin"]) if t.get("zmin") is not None else min(flat, default=0.0)
        high = float(t["zmax"]) if t.get("zmax") is not None else max(flat, default=1.0)
        stops = [(float(p), str(c)) for p, c in scale] or [(0.0, "#ffffff"), (1.0, "#000000")]
        if t.get("reversescale"):
            stops = [(1 - p, c) for p, c in reversed(stops)]
        width, height = (_pitch([a.at(v) for v in t.get(k) or ()]) for a, k in ((x, "x"), (y, "y")))
        titles = len(flat) <= MOST_TITLES
        parts = []
        for vy, row in zip(t.get("y") or range(len(rows)), rows, strict=False):
            for vx, value in zip(t.get("x") or range(len(row)), row, strict=False):
                if not isinstance(value, int | float) or not math.isfinite(value):
                    continue
                fill = _between(stops, (value - low) / (high - low or 1.0))
                left, top = x.at(vx) - width / 2, y.at(vy) - height / 2
                title = f"<title>{_said(vx)}, {_said(vy)}: {_said(value)}</title>" if titles else ""
                parts.append(
                    f'<rect x="{left + 0.5:.1f}" y="{top + 0.5:.1f}" width="{max(0.5, width - 1):.1f}" '
                    f'height="{max(0.5, height - 1):.1f}" fill="{fill}">{title}</rect>'
                )
        if t.get("showscale", True):
            parts.append(self._colour_bar(t, stops, low, high))
        return "".join(parts)

    def _colour_bar(self, t: Mapping[str, Any], stops: Sequence[tuple[float, str]], low: float, high: float) -> str:
        bar = t.get("colorbar", {})
        span = WIDTH - self.left - self.right
        left = min(self.left + span * float(bar.get("x", 1.0)) + 8, WIDTH - 62.0)
        whole = self.height - self.top - self.bottom
        tall = whole * float(bar.get("len", 1.0))
        top = self.top + whole * (1 - float(bar.get("y", 0.5))) - tall / 2
        parts = []
        for i in range(24):
            fill = _between(stops, 1 - (i + 0.5) / 24)
            y = top + tall * i / 24
            parts.append(f'<rect x="{left:.1f}" y="{y:.1f}" width="12" height="{tall / 24 + 0.6:.1f}" fill="{fill}"/>')
        values = bar.get("tickvals") or ticks(low, high, 4)
        texts = bar.get("ticktext") or [_said(v) for v in values]
        for value, said in zip(values, texts, strict=False):
            at = top + tall * (1 - (float(value) - low) / (high - low or 1.0))
            if top - 1 <= at <= top + tall + 1:
                parts.append(_text(left + 16, at + 4, _plain(str(said))))
        title = _plain(str(bar.get("title", {}).get("text") or ""))
        parts += [_text(left, top - 22 + 13 * i, part) for i, part in enumerate(_lines(title)[:2])]
        return "".join(parts)

    def _place(self, ref: str, value: Any, *, vertical: bool) -> float:
        if ref == "paper":
            low, high = (self.height - self.bottom, self.top) if vertical else (self.left, WIDTH - self.right)
            return low + (high - low) * _number(value)
        name, _, kind = ref.partition(" ")
        axis = self.axes.get(name) or self.axes["y" if vertical else "x"]
        return axis.start + (axis.stop - axis.start) * _number(value) if kind == "domain" else axis.at(value)

    def _shape(self, s: Mapping[str, Any]) -> str:
        xs = [self._place(str(s.get("xref") or "x"), s.get(k), vertical=False) for k in ("x0", "x1")]
        ys = [self._place(str(s.get("yref") or "y"), s.get(k), vertical=True) for k in ("y0", "y1")]
        if not all(map(math.isfinite, (*xs, *ys))):
            return ""
        line = s.get("line", {})
        if s.get("type") == "line":
            path = f"M{xs[0]:.1f} {ys[0]:.1f}L{xs[1]:.1f} {ys[1]:.1f}"
            return _path(path, line.get("color"), float(line.get("width", 2)), _DASHES.get(str(line.get("dash")), ""))
        left, top = min(xs), min(ys)
        return (
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{abs(xs[1] - xs[0]):.1f}" height="{abs(ys[1] - ys[0]):.1f}" '
            f'fill="{_colour(s.get("fillcolor"))}" opacity="{float(s.get("opacity", 1)):g}"/>'
        )

    def _annotation(self, a: Mapping[str, Any]) -> str:
        x = self._place(str(a.get("xref") or "x"), a.get("x"), vertical=False) + float(a.get("xshift", 0))
        y = self._place(str(a.get("yref") or "y"), a.get("y"), vertical=True) - float(a.get("yshift", 0))
        if not (math.isfinite(x) and math.isfinite(y)):
            return ""
        anchor = {"left": "start", "right": "end"}.get(str(a.get("xanchor")), "middle")
        lines = _lines(_plain(str(a.get("text") or "")))
        rise = {"bottom": -5 - 14 * (len(lines) - 1), "top": 12}.get(str(a.get("yanchor")), 4)
        return "".join(_text(x, y + rise + 14 * i, said, anchor=anchor) for i, said in enumerate(lines))

    # ----------------------------------------------------------------------------------------------- legend

    def _legend_entries(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if self.layout.get("showlegend") is False:
            return
        seen: set[str] = set()
        several = sum(bool(t.get("name")) for t in self.traces) > 1
        for t in self.traces:
            name = _plain(str(t.get("name") or ""))
            if t["type"] == "scatter" and name and name not in seen and t.get("showlegend", several):
                seen.add(name)
                yield name, t

    def _legend_rows(self) -> int:
        return 1 + max((row for row, _, _, _ in self._legend_places()), default=-1)

    def _legend_places(self) -> Iterator[tuple[int, float, str, Mapping[str, Any]]]:
        row, at = 0, 46.0
        for name, t in self.entries:
            width = 40 + LETTER * len(name)
            if at + width > WIDTH - 18 and at > 46:
                row, at = row + 1, 46.0
            yield row, at, name, t
            at += width

    def _legend(self) -> str:
        parts = []
        for row, at, name, t in self._legend_places():
            y, line, marker = 14.0 + 20 * row, t.get("line", {}), t.get("marker", {})
            mode = str(t.get("mode") or "lines")
            if "lines" in mode and float(line.get("width", 2)) > 0:
                dash = _DASHES.get(str(line.get("dash")), "")
                parts.append(_path(f"M{at:.1f} {y:.1f}h24", line.get("color"), float(line.get("width", 2)), dash))
            elif t.get("fillcolor"):
                parts.append(
                    f'<rect x="{at:.1f}" y="{y - 5:.1f}" width="24" height="10" fill="{_colour(t["fillcolor"])}"/>'
                )
            if "markers" in mode:
                symbol, colour = (next(iter(_each(marker.get(k), 1)), None) for k in ("symbol", "color"))
                parts.append(_symbol(str(symbol or "circle"), at + 12, y, 4.5, _colour(colour), 1.0, ""))
            parts.append(_text(at + 29, y + 4, name))
        return "".join(parts)


# ------------------------------------------------------------------------------------------------------ strokes


def _number(value: Any) -> float:
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError):
        return math.nan


def _said(value: Any) -> str:
    """Return a value on an axis or in a title: up to four digits, thousands separated."""
    number = _number(value)
    if math.isnan(number):
        return html_text("" if value is None else str(value))
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _plain(text: str) -> str:
    """Return plotly's text (escaped, with <br> and <b>) as plain text with line breaks."""
    return html.unescape(re.sub(r"<[^>]*>", "", re.sub(r"<br\s*/?>", "\n", text)))


def _lines(text: str) -> list[str]:
    return _plain(text).split("\n") if "<" in text else text.split("\n")


def _each(value: Any, n: int) -> list[Any]:
    return list(value)[:n] if isinstance(value, list) else [value] * n


def _colour(colour: Any) -> str:
    return html_text(_VARIABLES.get(str(colour).lower(), str(colour))) if colour else "currentColor"


def _path(d: str, colour: Any, width: Number, dash: str = "", opacity: Any = None) -> str:
    if not d:
        return ""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    faint = f' opacity="{float(opacity):g}"' if opacity is not None else ""
    return f'<path d="{d}" fill="none" stroke="{_colour(colour)}" stroke-width="{width:g}"{dashed}{faint}/>'


def _text(x: Number, y: Number, said: str, *, anchor: str = "start", turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}>{html_text(said)}</text>'


def _through(points: Sequence[tuple[float, float]], *, steps: bool = False) -> str:
    path, drawing = [], False
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            drawing = False
            continue
        path.append((f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}") if drawing else f"M{x:.1f} {y:.1f}")
        drawing = True
    return "".join(path)


def ticks(low: Number, high: Number, count: int = 5) -> list[float]:
    """Return about `count` round values from low to high."""
    span = high - low
    if not span > 0:
        return [float(low)]
    rough = span / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(s * size for s in (1, 2, 5, 10) if s * size >= rough)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _pitch(places: Sequence[float]) -> float:
    """Return the distance between neighbouring places, that of a lone one 24 pixels."""
    ordered = sorted(set(places))
    return min((b - a for a, b in pairwise(ordered)), default=24.0)


def _between(stops: Sequence[tuple[float, str]], share: float) -> str:
    """Return the colour of a scale at a share of its length."""
    share = min(1.0, max(0.0, share))
    for (low, one), (high, other) in pairwise(stops):
        if share <= high:
            part = (share - low) / (high - low or 1.0)
            pairs = [(int(one[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
            return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in pairs)
    return stops[-1][1]


_SHAPES: Mapping[str, Sequence[tuple[float, float]]] = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
    "triangle-up": [(0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
    "triangle-down": [(0, 1.2), (1.15, -0.9), (-1.15, -0.9)],
    "cross": [(-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4), (0.4, 1.1), (-0.4, 1.1),
              (-0.4, 0.4), (-1.1, 0.4), (-1.1, -0.4), (-0.4, -0.4)],
    **{name: [(1.15 * math.sin(2 * math.pi * i / n), -1.15 * math.cos(2 * math.pi * i / n)) for i in range(n)]
       for name, n in (("pentagon", 5), ("hexagon", 6))},
    "star": [((1.3 if i % 2 == 0 else 0.55) * math.sin(math.pi * i / 5),
              -(1.3 if i % 2 == 0 else 0.55) * math.cos(math.pi * i / 5)) for i in range(10)],
}  # fmt: skip


def _symbol(symbol: str, x: Number, y: Number, size: Number, colour: str, stroke: Number, title: str) -> str:
    """Return a marker: its shape, open (outlined on paper) or filled, with an x inside where its name says so."""
    kind = symbol.replace("-open", "").replace("-dot", "").replace("-x", "")
    fill = "var(--wb-paper, #fff)" if "-open" in symbol else colour
    ink = f'fill="{fill}" stroke="{colour}" stroke-width="{stroke:g}"'
    if kind in _SHAPES:
        corners = " ".join(f"{x + a * size:.1f},{y + b * size:.1f}" for a, b in _SHAPES[kind])
        drawn = f'<polygon points="{corners}" {ink}>{title}</polygon>'
    elif kind == "x":
        drawn = f'<path d="{_crossed(x, y, size)}" {ink}>{title}</path>'
    else:
        drawn = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" {ink}>{title}</circle>'
    if "-x" in symbol:
        drawn += f'<path d="{_crossed(x, y, 0.6 * size)}" {ink}/>'
    return drawn


def _crossed(x: Number, y: Number, size: Number) -> str:
    """Return the path of an x."""
    return (
        f"M{x - size:.1f} {y - size:.1f}l{2 * size:.1f} {2 * size:.1f}m0 {-2 * size:.1f}l{-2 * size:.1f} {2 * size:.1f}"
    )
