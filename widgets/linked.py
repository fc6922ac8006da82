"""Curves, heat map, prompts and text in one panel: what is selected in one of them is selected in all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import traitlets
from ipywidgets import DOMWidget, VBox

from widgets.token_lens import LensSelection, TokenLens
from widgets.window import Face, Window, source
from workbench.core.errors import ParameterError, UnknownName, nearest
from workbench.core.palette import FOCUS, THEMES, tint
from workbench.core.quantities import FILLS, QUANTITIES
from workbench.display.figures import CONFIG, curves, figure_spec, retention_heat_map
from workbench.display.figures.look import axis
from workbench.display.views import HarmfulText, View, divergent_table, figure_view
from workbench.display.views.responses import checked
from workbench.display.views.view import style_text
from workbench.tracing.records import Diagnosis, TraceSet

HEAT = QUANTITIES["retention"]
LIVE_CONFIG: Mapping[str, Any] = {
    **CONFIG,
    "modeBarButtonsToRemove": [b for b in CONFIG["modeBarButtonsToRemove"] if b != "select2d"],
}
"""As every figure is shown, with the tool that selects positions."""


@dataclass(frozen=True, kw_only=True)
class LinkedSelection:
    """Hold what is selected in a panel.

    `quantity` and `prefix_tokens` say which curves are drawn (None: teacher-forced). `response` indexes the TraceSet;
    `position` and the ends of `span` (both included) are 1-based positions in it, None for none.
    """

    quantity: str
    prefix_tokens: int | None
    response: int
    position: int | None
    span: tuple[int, int] | None


class LinkedFace(Face):
    """The panel's own controls, heat map and prompt list. `asked` is what the page asks for, `state` what it shows."""

    _esm = source("parts/dom.js", "linked.js")
    _css = style_text() + source("parts/controls.css", "linked.css")
    panel = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)


class LinkedViews(Window[LinkedSelection]):
    """Show curves by position, the heat map, the prompts ranked by divergence and the text of one response, linked.

    Dragging over the curves (or typing two positions) selects a span of positions in the text; a span or position
    selected in the text is marked on the curves. A cell of the heat map opens the text with that many given tokens at
    that position: of the prompt that is open, or else of the most divergent one. A prompt of the list opens its
    response. `quantity` names the curve; the text is filled by it where it can be. `lens` is the text's own view, made
    where none is given. Raises UnknownName for a quantity that the diagnosis has no curve of, RecordError where nothing
    was traced, ParameterError for a lens of other traces.
    """

    def __init__(
        self,
        traces: TraceSet,
        diagnosis: Diagnosis,
        *,
        quantity: str = "kl_aligned_base_nats",
        harmful_text: HarmfulText = "auto",
        lens: TokenLens | None = None,
        live: bool | None = None,
    ) -> None:
        self.traces, self.diagnosis, self.harmful_text = traces, diagnosis, harmful_text
        self.quantities = tuple(dict.fromkeys(c.name for c in diagnosis.curves))
        first = diagnosis.most_divergent().response
        self._check_quantity(quantity)
        if lens is not None and lens.traces is not traces:
            raise ParameterError("the given lens shows other traces: make it of the traces that the panel shows")
        fill = quantity if quantity in FILLS else "excess_mass"
        self.lens = lens or TokenLens(traces, first, quantity=fill, harmful_text=harmful_text, live=live)
        self._figure: go.FigureWidget | None = None
        self._box: VBox | None = None
        self._drawn: tuple[str, int | None] | None = None
        opened = self.lens.selection
        super().__init__(
            LinkedSelection(
                quantity=quantity,
                prefix_tokens=self._prefix_of(opened.response),
                response=opened.response,
                position=opened.position,
                span=opened.span,
            ),
            live=live,
        )
        self.lens.on_select(self._lens_changed)

    # --------------------------------------------------------------------------------------------- for programs

    def show(
        self,
        response: int | None = None,
        position: int | None = None,
        span: tuple[int, int] | None = None,
        quantity: str | None = None,
        prefix_tokens: int | None = None,
    ) -> None:
        """Select from Python what a person can select on the page; what is None stays as it is.

        Raises ParameterError for a response, position, span or prefix length that is not there, UnknownName for a
        quantity without a curve.
        """
        chosen = self.selection.response if response is None else response
        checked(self.traces, chosen, position)
        if quantity is not None:
            self._check_quantity(quantity)
        if prefix_tokens is not None and prefix_tokens not in self.prefixes:
            raise ParameterError(f"no curves with {prefix_tokens} given tokens: there are {list(self.prefixes)}")
        if span is not None:
            length = self._length(chosen)
            if not 1 <= span[0] <= min(span[1], length):
                raise ParameterError(
                    f"response {chosen} has positions 1 to {length}: there is no span from {span[0]} to {span[1]} in it"
                )
            span = (span[0], min(span[1], length))
        asked: dict[str, Any] = {"quantity": quantity, "prefix_tokens": prefix_tokens}
        if changes := {name: value for name, value in asked.items() if value is not None}:
            self._change(dataclasses.replace(self.selection, **changes))
        fill = quantity if quantity in FILLS else None
        if any(v is not None for v in (response, position, span, fill)):
            self.lens.show(response=response, position=position, span=span, quantity=fill)

    def open_cell(self, prefix_tokens: int, position: int) -> int:
        """Open the text behind a cell of the heat map and return which response it is.

        It is the response of the open prompt with that many given tokens, or else the most divergent one of those that
        reach the position. Raises ParameterError where there is none.
        """
        prompt = self.traces.responses[self.selection.response].prompt_id
        label = None if self.diagnosis.heat_map is None else self.diagnosis.heat_map.label
        lengths = self.traces.lengths()
        kl = self.traces.kl_aligned_base_nats.astype(np.float64)
        found = [
            (r.prompt_id != prompt, -float(np.nanmean(kl[i, : lengths[i]])), i)
            for i, r in enumerate(self.traces.responses)
            if r.trajectory == "free_running"
            and (r.segment, r.prefix_tokens, r.label) == ("answer", prefix_tokens, label)
            and lengths[i] >= position >= 1
        ]
        if not found:
            raise ParameterError(f"no {label} response with {prefix_tokens} given tokens reaches {position}")
        response = min(found)[-1]
        self.lens.show(response=response, position=position)
        return response

    @property
    def prefixes(self) -> tuple[int | None, ...]:
        """Return the prefix lengths that there are curves of; (None,) where the traces are teacher-forced."""
        return tuple(dict.fromkeys(c.prefix_tokens for c in self.diagnosis.curves))

    @property
    def last(self) -> int:
        """Return the last position of the drawn curves."""
        return max((int(c.position[-1]) for c in self._curves() if c.position.size), default=1)

    def to_frame(self) -> Any:
        """Return the drawn curves as a data frame: one row a prompt label and position, only the selected span."""
        import pandas as pd

        drawn = curves(self._chosen(), self.selection.quantity).layout.meta or {}
        frame = pd.DataFrame(list(drawn.get("rows", ())), columns=list(drawn.get("columns", ())))
        if self.selection.span is not None and len(frame):
            frame = frame[frame["position"].between(*self.selection.span)].reset_index(drop=True)
        return frame

    def static(self) -> View:
        """Return curves, heat map, prompts and the open response as one view, from the functions of the report."""
        now = self.selection
        parts = [figure_view(curves(self.diagnosis, now.quantity))]
        if self.diagnosis.heat_map is not None:
            parts.append(figure_view(retention_heat_map(self.diagnosis)))
        listed = divergent_table(self.diagnosis, self.traces, harmful_text=self.harmful_text)
        shown = (*parts, listed, self.lens.static())
        return View(
            title="Linked views",
            body="".join(v.body for v in shown),
            text="\n\n".join(v.text for v in shown),
            rows=listed.rows,
        )

    # --------------------------------------------------------------------------------------------- state

    def _check_quantity(self, quantity: str) -> None:
        if quantity not in self.quantities:
            raise UnknownName(f"the diagnosis has no curve {quantity!r}: {nearest(quantity, self.quantities)}")

    def _prefix_of(self, response: int) -> int | None:
        """Return the curves' prefix length that a response belongs to, the first there is where it has none."""
        r = self.traces.responses[response]
        wanted = r.prefix_tokens if r.trajectory == "free_running" else None
        return wanted if wanted in self.prefixes else self.prefixes[0]

    def _chosen(self) -> Diagnosis:
        return dataclasses.replace(self.diagnosis, curves=tuple(self._curves()))

    def _curves(self) -> list[Any]:
        return [c for c in self.diagnosis.curves if c.prefix_tokens == self.selection.prefix_tokens]

    def _span(self, one: float, other: float) -> tuple[int, int]:
        """Return the whole positions between two places on the axis, at least one, inside the drawn ones."""
        low, high = sorted((one, other))
        start, end = int(np.ceil(low)), int(np.floor(high))
        if end < start:
            start = end = round((low + high) / 2)
        return min(max(start, 1), self.last), min(max(end, 1), self.last)

    def _change(self, selection: LinkedSelection) -> None:
        self._select(selection)
        self._draw()

    def _lens_changed(self, opened: LensSelection) -> None:
        moved = opened.response != self.selection.response
        self._change(
            dataclasses.replace(
                self.selection,
                prefix_tokens=self._prefix_of(opened.response) if moved else self.selection.prefix_tokens,
                response=opened.response,
                position=opened.position,
                span=opened.span,
            )
        )

    def _length(self, response: int) -> int:
        return int(self.traces.lengths()[response])

    # --------------------------------------------------------------------------------------------- live

    def _face(self) -> LinkedFace:
        return LinkedFace(panel=self._panel(), state=self._state())

    def _root(self) -> DOMWidget:
        """Return figure, controls and text above one another: the one live figure is made here."""
        if self._box is None:
            self._figure = go.FigureWidget(layout=dict(height=330))
            self._figure._config = dict(LIVE_CONFIG)
            self._figure.add_class("wb-plot")
            self._box = VBox([self._figure, self.face, self.lens.face])
            self._box.add_class("wb").add_class("wb-linked-panel")
            self._draw()
        return self._box

    def _do(self, asked: Mapping[str, Any]) -> None:
        match asked.get("do"):
            case "open":
                self.show(response=int(asked["response"]), position=int(asked["position"]))
            case "cell":
                self.open_cell(int(asked["prefix"]), int(asked["position"]))
            case "span":
                self.show(span=(int(asked["from"]), int(asked["to"])))
            case "all":
                self._everything()
            case "quantity":
                self.show(quantity=str(asked["quantity"]))
            case "prefix":
                self.show(prefix_tokens=int(asked["prefix"]))
            case "hello":  # answered by the echo alone: from then on the page is heard while a cell runs
                pass

    def _draw(self) -> None:
        """Bring curves, marks and controls in line with the selection, where there is a page."""
        if self._shown is not None:
            self._shown.state = self._state()
        if self._figure is None:
            return
        now, figure = self.selection, self._figure
        if self._drawn != (now.quantity, now.prefix_tokens):
            made = go.Figure(figure_spec(curves(self._chosen(), now.quantity)))  # packed: JSON has no NaN
            made.update_layout(meta=None, dragmode="select", selectdirection="h")
            # what is not selected keeps its ink: the span is drawn as a band
            made.update_traces(unselected=dict(marker=dict(opacity=1)), selector=dict(type="scatter"))
            figure.data = ()
            figure.add_traces(list(made.data))
            figure.layout = made.layout
            for first in figure.data[:1]:  # plotly tells every line of the same drag
                first.on_selection(self._brushed)
                first.on_deselect(lambda *_: self._everything())
            self._drawn = (now.quantity, now.prefix_tokens)
        figure.layout.shapes = self._marks()

    def _brushed(self, trace: Any, points: Any, selector: Any) -> None:
        """Take a range that was dragged over the curves."""
        dragged = getattr(selector, "xrange", None)
        if self._figure is None or not dragged:
            return
        with self._errors_shown():
            self._figure.layout.selections = ()
            self.show(span=self._span(*dragged))

    def _everything(self) -> None:
        self.show(span=(1, self._length(self.selection.response)))

    def _marks(self) -> list[dict[str, Any]]:
        """Return the band of the selected span and the line of the selected position as plotly shapes."""
        now, colour = self.selection, THEMES[FOCUS][0]
        common = dict(type="rect", xref="x", yref="paper", y0=0, y1=1, layer="below")
        marks: list[dict[str, Any]] = []
        if now.span is not None:
            start, end = now.span
            line = dict(color=colour, width=1)
            marks.append(dict(common, x0=start - 0.5, x1=end + 0.5, fillcolor=tint(colour, 0.14), line=line))
        if now.position is not None:
            line = dict(color=colour, width=2, dash="dot")
            marks.append(dict(common, type="line", x0=now.position, x1=now.position, line=line))
        return marks

    def _state(self) -> dict[str, Any]:
        now = self.selection
        return {
            "quantity": now.quantity,
            "prefix": now.prefix_tokens,
            "response": now.response,
            "opened_prefix": self.traces.responses[now.response].prefix_tokens,
            "position": now.position,
            "span": None if now.span is None else list(now.span),
            "last": self.last,
        }

    def _panel(self) -> dict[str, Any]:
        """Return what the page draws once: the choices, the heat map and the list."""
        listed = divergent_table(self.diagnosis, self.traces, harmful_text=self.harmful_text).rows
        return {
            "quantities": [[q, axis(q)] for q in self.quantities],
            "prefixes": list(self.prefixes),
            "prompts": [dict(row) for row in listed],
            "heat": self._heat(),
        }

    def _heat(self) -> dict[str, Any] | None:
        heat = self.diagnosis.heat_map
        if heat is None or heat.value.size == 0:
            return None
        levels = HEAT.levels(heat.value.astype(np.float64).ravel()).reshape(heat.value.shape)
        return {
            "label": heat.label,
            "prefixes": heat.prefix_tokens.tolist(),
            "positions": heat.position.tolist(),
            "value": [[float(v) if np.isfinite(v) else None for v in row] for row in heat.value],
            "n": heat.n.tolist(),
            "css": [[HEAT.css(int(level)) for level in row] for row in levels],
            "legend": [[HEAT.css(level), said] for level, said in HEAT.ranges()],
        }
