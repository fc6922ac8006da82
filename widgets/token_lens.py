"""A response read token by token, live: fill, thresholds, search, cards, pins and responses side by side."""

from __future__ import annotations

import dataclasses
import gzip
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import traitlets

from widgets.lens_frame import token_values
from widgets.lens_settings import LensSettings, stored_k
from widgets.payload import Treatment, column
from widgets.window import Face, Window, source
from workbench.core import legible
from workbench.core.errors import ParameterError, UnknownName, nearest
from workbench.core.quantities import FILLS, SEARCH_WORDS, Quantity, quantity_named
from workbench.display.views import HarmfulText, View, token_view
from workbench.display.views.responses import COVER, checked, treatment
from workbench.display.views.scales import NOTABLE_SHIFT_NATS, SIGNS, reading
from workbench.display.views.view import style_text
from workbench.tracing.diagnosis.ranking import most_different, most_like_base
from workbench.tracing.records import Response, TraceSet

READER = (
    *(f"parts/{name}.js" for name in ("dom", "column", "running_text", "hands", "reader")),
    *("lens_card.js", "lens_controls.js"),
)
"""The scripts of every view of token texts: the dial's begin with them too."""
SCRIPTS = (*READER, "lens_search.js", "lens_alternatives.js", "lens_map.js", "token_lens.js")
STYLES = ("parts/controls.css", "token_lens.css")
SEALED_MIB = 6.0
"""Most data of responses in an interactive page, MiB in base64; a page of so much opens in about a second."""
_CONTROLS = tuple(f.name for f in dataclasses.fields(LensSettings))


@dataclass(frozen=True, kw_only=True)
class LensSelection:
    """Hold what a person has selected in a lens.

    `response` indexes the TraceSet; `position` (the current token), `pinned` and the ends of `span` (both included) are
    1-based positions in it. `quantity` is what fills the tokens.
    """

    response: int
    position: int | None
    pinned: tuple[int, ...]
    span: tuple[int, int] | None
    quantity: str


class LensFace(Face):
    """The page's side: what seldom changes, one buffer a shown response, and the state, which both sides change.

    `asked` rises when the page asks for the text of covered responses.
    """

    _esm = source(*SCRIPTS)
    _css = style_text() + source(*STYLES)
    lens = traitlets.Dict().tag(sync=True)
    columns: traitlets.List[bytes] = traitlets.List().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    asked = traitlets.Int(0).tag(sync=True)


class TokenLens(Window[LensSelection]):
    """Show a response of a record token by token, filled by a quantity, with everything that is known of each token.

    `response` None is the first. `beside`: further responses of the same record, in columns, aligned by position; of
    another prompt that is opened, the same kinds of response are beside it. `arms` names responses. `quantity` is one
    of workbench.core.quantities.FILLS. `controls` are the fields of LensSettings.

    `harmful_text` "auto" shows a classroom-safe set; of any other it covers harmful responses until a person reveals
    them in the page (their text is sent when the page asks for it, and is no part of the widget's saved state), and
    withholds them from every export. "show", "blur" and "redact" hold for both. Raises ParameterError for a response,
    position or control that is impossible, UnknownName for a quantity that is none.
    """

    def __init__(
        self,
        traces: TraceSet,
        response: int | None = None,
        *,
        beside: Sequence[int] = (),
        quantity: str = "excess_mass",
        harmful_text: HarmfulText = "auto",
        arms: Mapping[int, str] | None = None,
        live: bool | None = None,
        **controls: Any,
    ) -> None:
        self.traces, self.harmful_text, self.arms = traces, harmful_text, dict(arms or {})
        first = 0 if response is None else response
        for r in (first, *beside):
            checked(traces, r)
        self._beside = tuple(dict.fromkeys(r for r in beside if r != first))
        self._settings = _changed(LensSettings(), controls)
        chosen = quantity_named(quantity).name
        super().__init__(LensSelection(response=first, position=None, pinned=(), span=None, quantity=chosen), live=live)

    # --------------------------------------------------------------------------------------------- for programs

    @property
    def settings(self) -> LensSettings:
        """Return thresholds, granularity and search as they are now, set by code or in the page."""
        return self._settings

    @property
    def shown(self) -> tuple[int, ...]:
        """Return the responses that are shown, the one that is read first."""
        return (self.selection.response, *self._beside)

    def show(
        self,
        response: int | None = None,
        position: int | None = None,
        span: tuple[int, int] | None = None,
        quantity: str | None = None,
    ) -> None:
        """Move the lens; what is None stays as it is, but another response starts with nothing selected in it.

        A span of all positions selects none in particular. Raises ParameterError for what is not there.
        """
        now = self.selection
        chosen = now.response if response is None else response
        self._check(chosen, () if position is None else (position,), span)
        if chosen != now.response:
            now = dataclasses.replace(now, response=chosen, position=None, pinned=(), span=None)
        if position is not None:
            now = dataclasses.replace(now, position=position)
        if span is not None:
            now = dataclasses.replace(now, span=self._part(chosen, span))
        if quantity is not None:
            now = dataclasses.replace(now, quantity=quantity_named(quantity).name)
        self._take(now, self._settings)

    def pin(self, *positions: int) -> None:
        """Pin these positions of the response, and no others, for comparison below the text."""
        self._check(self.selection.response, positions, None)
        kept = tuple(sorted(dict.fromkeys(positions)))
        self._take(dataclasses.replace(self.selection, pinned=kept), self._settings)

    def set(self, **controls: Any) -> None:
        """Set thresholds, granularity or search: the fields of LensSettings."""
        self._take(self.selection, _changed(self._settings, controls))

    def read(self, traces: TraceSet) -> None:
        """Read another state of the same record, such as one that has grown; what is still there stays selected."""
        now = self.selection
        length = checked(traces, now.response)
        self.traces = traces
        self._beside = tuple(r for r in self._beside if r < len(traces.responses))
        here = now.position if now.position is not None and now.position <= length else None
        span = None if now.span is None or now.span[1] > length else now.span
        kept = dataclasses.replace(now, position=here, pinned=tuple(p for p in now.pinned if p <= length), span=span)
        if self._shown is not None:
            with self._shown.hold_sync():
                self._shown.lens = self._lens()
                self._shown.columns = self._columns()
        self._take(kept, self._settings)

    def to_frame(self) -> Any:
        """Return a data frame: one row a token of the responses shown, with what is selected, matches and counts.

        `current`, `pinned` and `in_span` mark the selection, `match` the search (False everywhere without one),
        `alternatives` is how many stored alternatives count under the settings. Covered text is not in it.
        """
        import pandas as pd

        frames = [pd.DataFrame({"response": r, "arm": self._name(r), **self._values(r)}) for r in self.shown]
        return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]

    def static(self) -> View:
        """Return the static form: the token view of the report, one of each response shown."""
        now = self.selection
        parts = [
            token_view(
                self.traces,
                r,
                quantity=now.quantity,
                harmful_text=self.harmful_text,
                position=now.position if now.position is not None and now.position <= self._length(r) else None,
            )
            for r in self.shown
        ]
        if len(parts) == 1:
            return parts[0]
        return View(
            title="; ".join(v.title for v in parts),
            body="".join(v.body for v in parts),
            text="\n\n".join(v.text for v in parts),
            rows=tuple({"response": r, **row} for r, v in zip(self.shown, parts, strict=True) for row in v.rows),
        )

    def to_html(self, interactive: bool = False) -> str:
        """Return the static form as a self-contained piece of HTML.

        `interactive` adds the lens itself for a page with no kernel and no network, with all responses of the record
        to choose from where none is beside another (as many as fit into SEALED_MIB, those most like base late first);
        where scripts do not run the static form is there alone. Harmful text is withheld as in every export.
        """
        still = super().to_html()
        return self._sealed(still) if interactive else still

    def sealed(self) -> View:
        """Return the interactive form as a view, for a report."""
        still = self.static()
        return dataclasses.replace(still, body=self._sealed(still.html))

    def _sealed(self, still: str) -> str:
        orders = self._orders()
        columns: dict[int, str] = {}
        room = int(SEALED_MIB * 2**20)
        for r in dict.fromkeys((*self.shown, *(() if self._beside else orders[0][1]))):
            packed = self._packed(r)
            room -= len(packed)
            if room < 0 and columns:
                break
            columns[r] = packed
        kept = [[title, [r for r in order if r in columns]] for title, order in orders]
        lens = {**self._lens(), "sealed": True, "orders": [] if self._beside else kept}
        lens["responses"] = [one for one in lens["responses"] if one[0] in columns]
        left = len(self.traces.responses) - len(columns)
        lens["left_out"] = 0 if self._beside else left
        sealed = {
            "module": source(*SCRIPTS),
            "state": {"lens": lens, "state": self._state(), "asked": 0, "error": ""},
            "shown": self.shown,
            "columns": columns,
            "texts": {
                r: self._packed(r, covered=False) for r in columns if self._treatment(r, export=True) == "blur"
            },
        }
        data = json.dumps(sealed, allow_nan=False).replace("<", "\\u003c")
        return (
            f'<div class="wb-sealed"><style>{style_text()}{source(*STYLES)}</style><div class="wb-live"></div>'
            f'<div class="wb-still">{still}</div><script type="application/json">{data}</script>'
            f"<script>{source('lens_page.js')}</script></div>"
        )

    def _packed(self, r: int, covered: bool | None = None) -> str:
        """Return one response's buffer as a page holds it: compressed, in base64."""
        return b64encode(gzip.compress(self._column(r, export=True, covered=covered), mtime=0)).decode()

    def _orders(self) -> list[tuple[str, tuple[int, ...]]]:
        """Return the orders in which a page can list the responses, the first at the start."""
        return [
            ("most like base late", most_like_base(self.traces)),
            ("most different", most_different(self.traces)),
            ("as in the set", tuple(range(len(self.traces.responses)))),
        ]

    # --------------------------------------------------------------------------------------------- state

    def _length(self, response: int) -> int:
        return int(self.traces.lengths()[response])

    def _check(self, response: int, positions: Sequence[int], span: tuple[int, int] | None) -> None:
        """Raise ParameterError unless all is there: a position in any of the responses that would be shown."""
        length = checked(self.traces, response)
        reach = max(map(self._length, self.shown)) if response == self.selection.response else length
        for position in positions:
            if not 1 <= position <= reach:
                checked(self.traces, response, position)
        if span is not None and not 1 <= span[0] <= span[1] <= length:
            raise ParameterError(
                f"response {response} has positions 1 to {length}: there is no span from {span[0]} to {span[1]} in it"
            )

    def _part(self, response: int, span: tuple[int, int]) -> tuple[int, int] | None:
        return None if span == (1, self._length(response)) else (int(span[0]), int(span[1]))

    def _take(self, selection: LensSelection, settings: LensSettings) -> None:
        """Make this the state; tell the listeners, and the page what is new to it."""
        opened = selection.response != self.selection.response
        if opened:
            self._beside = self._counterparts(selection.response)
        self._settings = settings
        self._select(selection)
        if self._shown is not None:
            with self._shown.hold_sync():
                if opened:
                    self._shown.columns = self._columns()
                self._shown.state = self._state()

    def _counterparts(self, response: int) -> tuple[int, ...]:
        """Return the responses beside one: those beside now, or of another prompt the same kinds of response."""
        responses = self.traces.responses
        new, shown = responses[response], self.shown
        if new.prompt_id == responses[shown[0]].prompt_id:
            return tuple(shown[0] if r == response else r for r in shown[1:])
        kinds = [_kind(responses[r]) for r in shown[1:]]
        found = {_kind(of): i for i, of in enumerate(responses) if of.prompt_id == new.prompt_id and i != response}
        return tuple(dict.fromkeys(found[kind] for kind in kinds if kind in found))

    def _treatment(self, response: int, *, export: bool) -> Treatment:
        found = treatment(self.traces, self.traces.responses[response], self.harmful_text)
        return "blur" if found == "redact" and self.harmful_text == "auto" and not export else found

    def _name(self, response: int) -> str:
        of = self.traces.responses[response]
        given = "given text" if of.trajectory == "teacher_forced" else f"{of.continued_by} continues"
        after = f" after {of.prefix_tokens} tokens" if of.trajectory == "free_running" and of.prefix_tokens else ""
        return self.arms.get(response, f"{given}{after}{', thinking' if of.segment == 'thinking' else ''}")

    def _values(self, r: int) -> dict[str, Any]:
        covered = treatment(self.traces, self.traces.responses[r], self.harmful_text) != "show"
        now = self.selection
        position = np.arange(1, self._length(r) + 1)
        low, high = now.span or (1, 0)
        return {
            **token_values(self.traces, r, self._settings, covered=covered),
            "current": position == now.position,
            "pinned": np.isin(position, now.pinned),
            "in_span": (position >= low) & (position <= high),
        }

    # --------------------------------------------------------------------------------------------- live

    def _face(self) -> LensFace:
        face = LensFace(lens=self._lens(), columns=self._columns(), state=self._state())
        face.observe(self._moved, "state")
        return face

    def _moved(self, change: Any) -> None:
        """Take what was selected or set in the page; what cannot be is refused and the page told."""
        said = change["new"]
        if said == self._state():
            return
        try:
            with self._errors_shown():
                self._heed(said)
        finally:
            if self._shown is not None and self._shown.state != self._state():
                self._shown.state = self._state()

    def _heed(self, said: Mapping[str, Any]) -> None:
        response = int(said["response"])
        if response != self.selection.response:
            self.show(response=response, quantity=str(said["quantity"]))
            return
        position = None if said["position"] is None else int(said["position"])
        pinned = tuple(int(p) for p in said["pinned"])
        span = None if said["span"] is None else (int(said["span"][0]), int(said["span"][1]))
        self._check(response, [p for p in (position, *pinned) if p is not None], span)
        selection = LensSelection(
            response=response,
            position=position,
            pinned=pinned,
            span=None if span is None else self._part(response, span),
            quantity=quantity_named(str(said["quantity"])).name,
        )
        self._take(selection, _changed(self._settings, {name: said[name] for name in _CONTROLS}))

    def _asked(self, change: Any) -> None:
        """Send the text of covered responses that may be revealed: as messages, so that it is no part of the state."""
        with self._errors_shown(wish=False):
            for r in self.shown:
                if self._shown is not None and self._treatment(r, export=False) == "blur":
                    self._shown.send({"do": "text"}, [self._column(r, export=False, covered=False)])

    def _columns(self) -> list[bytes]:
        return [self._column(r, export=False) for r in self.shown]

    def _column(self, r: int, *, export: bool, covered: bool | None = None) -> bytes:
        treat = self._treatment(r, export=export)
        hidden = treat != "show" if covered is None else covered
        return column(self.traces, r, name=self._name(r), treatment=treat, covered=hidden)

    def _state(self) -> dict[str, Any]:
        now = self.selection
        return {
            "response": now.response,
            "position": now.position,
            "pinned": list(now.pinned),
            "span": None if now.span is None else list(now.span),
            "quantity": now.quantity,
            **dataclasses.asdict(self._settings),
        }

    def _lens(self) -> dict[str, Any]:
        """Return what the page needs once: the choices, the scales, the legend, and what is stored."""
        largest = float(self.traces.base_favored_count.max(initial=0))
        return {
            "responses": [[r, self._listed(r)] for r in range(len(self.traces.responses))],
            "quantities": [scale(quantity_named(name, largest)) for name in FILLS],
            "signs": [[sign.css, sign.sample, sign.said] for sign in SIGNS],
            "reading": reading(self.traces.entropy_floor_nats),
            "search_words": dict(SEARCH_WORDS),
            "entropy_floor_nats": self.traces.entropy_floor_nats,
            "notable_shift_nats": NOTABLE_SHIFT_NATS,
            "cover": COVER,
            "stored_k": stored_k(self.traces),
            "count_space": self.traces.count_space,
            "template_mode": self.traces.template_mode,
            "sealed": False,
            "orders": [],
            "left_out": 0,
        }

    def _listed(self, r: int) -> str:
        of = self.traces.responses[r]
        prompt = legible.sentence(of.prompt, 60)
        return legible.sentence(f"{of.label} · {prompt} · {of.prompt_id} · {self._name(r)}", 160)


def _kind(of: Response) -> tuple[Any, ...]:
    return (of.trajectory, of.prefix_tokens, of.continued_by, of.segment, of.temperature)


def _changed(settings: LensSettings, controls: Mapping[str, Any]) -> LensSettings:
    for name in controls:
        if name not in _CONTROLS:
            raise UnknownName(f"the lens has no control {name!r}: {nearest(name, _CONTROLS)}")
    return dataclasses.replace(settings, **controls)


def scale(q: Quantity) -> dict[str, Any]:
    """Return a quantity as the page draws it: edges, and from the lowest level up its class and range in words."""
    return {
        "name": q.name,
        "title": q.title,
        "short": q.short,
        "unit": q.unit,
        "edges": list(q.edges),
        "signed": q.negative_ramp is not None,
        "means": q.means,
        "levels": [[level, q.css(level), said] for level, said in q.ranges()],
    }
