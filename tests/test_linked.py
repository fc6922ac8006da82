"""The linked views without a browser: every selection reaches every part; static forms; nothing live when headless."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

import numpy as np
import pytest
from ipywidgets import Widget

from tests.errors import refuses
from tests.hostile_texts import EXECUTABLE
from tests.trace_makers import make_traces
from widgets.linked import LinkedSelection, LinkedViews
from widgets.token_lens import TokenLens
from workbench.core.errors import ParameterError, RecordError, UnknownName
from workbench.tracing.diagnosis import diagnose
from workbench.tracing.records import Diagnosis, TraceSet

GIVEN = make_traces("shallow", seed=3)
CONTINUED = make_traces("shallow", prefixes=(0, 5, 10), seed=3)


@pytest.fixture(scope="module")
def diagnoses() -> tuple[Diagnosis, Diagnosis]:
    return diagnose(GIVEN), diagnose(CONTINUED)


@pytest.fixture
def views(diagnoses: tuple[Diagnosis, Diagnosis]) -> LinkedViews:
    return LinkedViews(CONTINUED, diagnoses[1], live=True)


@pytest.fixture
def page(views: LinkedViews) -> LinkedViews:
    """Return the views as a live notebook has displayed them."""
    assert len(views._root().children) == 3
    return views


def asks(views: LinkedViews, **what: Any) -> None:
    """Do what the page does when a person uses a control."""
    views.face.asked = {**what, "n": str(np.random.default_rng().random())}  # type: ignore[attr-defined]


def drags(views: LinkedViews, start: float, end: float) -> None:
    """Do what plotly does when a person drags over the curves."""
    figure = views._figure
    traces = list(range(len(figure.data)))
    nothing = {"trace_indexes": traces, "point_indexes": [0] * len(traces), "xs": [1] * len(traces), "ys": traces}
    selector = {"type": "box", "selector_state": {"xrange": [start, end], "yrange": [0, 1]}}
    figure._js2py_pointsCallback = {
        "event_type": "plotly_selected", "points": nothing, "device_state": None, "selector": selector,
    }  # fmt: skip


def marks(views: LinkedViews) -> list[tuple[str, float, float]]:
    return [(s.type, s.x0, s.x1) for s in views._figure.layout.shapes]


def test_spans_are_dragged_typed_and_marked(page: LinkedViews) -> None:
    drags(page, 2.4, 6.7)
    assert page.lens.selection.span == page.selection.span == (3, 6)
    assert marks(page) == [("rect", 2.5, 6.5)]
    drags(page, 8.2, 8.4)
    assert page.selection.span == (8, 8), "between two positions: the nearest one"
    drags(page, 9.0, -3.0)
    assert page.selection.span == (1, 9), "dragged to the left, beyond the axis"
    assert page.face.state["span"] == [1, 9]  # type: ignore[attr-defined]
    assert page.face.error == ""
    page.lens.show(span=(2, 4), position=3)
    assert (page.selection.span, page.selection.position) == ((2, 4), 3)
    assert marks(page) == [("rect", 1.5, 4.5), ("line", 3, 3)]
    other = next(i for i, r in enumerate(CONTINUED.responses) if r.prefix_tokens == 10)
    page.lens.show(response=other)
    assert page.selection.prefix_tokens == 10, "the curves follow the open text's prefix length"
    assert marks(page) == []
    state = page.face.state  # type: ignore[attr-defined]
    assert (state["response"], state["prefix"], state["span"]) == (other, 10, None)
    asks(page, **{"do": "span", "from": 4, "to": 7})
    assert page.lens.selection.span == (4, 7)
    length = int(CONTINUED.lengths()[page.selection.response])
    asks(page, **{"do": "span", "from": 4, "to": 10_000})
    assert page.lens.selection.span == (4, length)
    asks(page, do="all")
    assert page.selection.span is None
    assert marks(page) == []


def test_prompts_and_cells_open_the_text(page: LinkedViews) -> None:
    listed = page.face.panel["prompts"][2]  # type: ignore[attr-defined]
    asks(page, do="open", response=listed["response"], position=listed["peak_position"])
    assert page.lens.selection.response == page.selection.response == listed["response"]
    assert page.selection.position == listed["peak_position"]
    prompt = CONTINUED.responses[page.selection.response].prompt_id
    same = {r.prefix_tokens: i for i, r in enumerate(CONTINUED.responses) if r.prompt_id == prompt}
    for k in (0, 5, 10):
        asks(page, do="cell", prefix=k, position=4)
        assert (page.selection.response, page.selection.position) == (same[k], 4)
        assert page.selection.prefix_tokens == k
    lengths = CONTINUED.lengths()
    short = min((i for i, r in enumerate(CONTINUED.responses) if r.label == "harmful"), key=lambda i: lengths[i])
    page.show(response=short)
    position = int(lengths.max())
    opened = page.open_cell(5, position)
    fits = [
        i for i, r in enumerate(CONTINUED.responses)
        if (r.label, r.prefix_tokens) == ("harmful", 5) and lengths[i] >= position
    ]  # fmt: skip
    means = {i: float(np.nanmean(CONTINUED.kl_aligned_base_nats[i])) for i in fits}
    assert opened == max(means, key=lambda i: means[i]) == page.selection.response
    refuses(lambda: page.open_cell(5, 999), ParameterError, "5", "999")


def test_the_figure_stays_and_uploads_nothing(page: LinkedViews) -> None:
    figure = page._figure
    page.show(span=(2, 5))
    asks(page, do="quantity", quantity="retention")
    assert page._figure is figure
    assert "retention" in figure.layout.yaxis.title.text
    assert (marks(page), page.lens.selection.quantity) == ([("rect", 1.5, 5.5)], "retention")
    asks(page, do="quantity", quantity="entropy_aligned_nats")
    assert "entropy" in figure.layout.yaxis.title.text
    assert page.lens.selection.quantity == "retention", "the text cannot be filled by it"
    drags(page, 2.4, 6.7)
    assert page.selection.span == (3, 6), "the new curves can be dragged over too"
    asks(page, do="prefix", prefix=0)
    assert page.selection.prefix_tokens == 0
    assert page.lens.selection.span == (3, 6)
    figure = page._figure
    assert (figure._config["showSendToCloud"], figure._config["plotlyServerURL"], figure._config["displaylogo"]) == (
        False, "", False,
    )  # fmt: skip
    assert (figure.layout.dragmode, figure.layout.selectdirection) == ("select", "h")
    assert "select2d" not in figure._config["modeBarButtonsToRemove"]


def test_what_is_not_there_is_refused_and_errors_shown_in_place(page, caplog, views, diagnoses) -> None:
    heard: list[LinkedSelection] = []
    page.on_select(heard.append)
    page.show(position=2)
    assert [s.position for s in heard] == [2]
    with caplog.at_level(logging.ERROR, logger="widgets"):
        asks(page, do="cell", prefix=5, position=999)
    assert page.face.error.startswith("ParameterError: no harmful response with 5 given tokens reaches 999")
    assert "Traceback" in caplog.text
    asks(page, do="cell", prefix=5, position=3)
    assert page.face.error == ""
    now = views.selection
    for wrong in (dict(response=999), dict(position=999), dict(span=(5, 2)), dict(span=(0, 2)), dict(prefix_tokens=7)):
        with pytest.raises(ParameterError):
            views.show(**wrong)  # type: ignore[arg-type]
    refuses(lambda: views.show(quantity="retensions"), UnknownName, "'retention'")
    assert views.selection == now
    refuses(lambda: LinkedViews(CONTINUED, diagnoses[1], quantity="kl"), UnknownName)
    refuses(lambda: LinkedViews(CONTINUED, diagnoses[1], lens=TokenLens(GIVEN)), ParameterError)
    refuses(lambda: LinkedViews(CONTINUED, dataclasses.replace(diagnoses[1], divergent=())), RecordError)


def test_teacher_forced_traces_have_curves_and_prompts_but_no_heat_map(diagnoses: tuple[Diagnosis, Diagnosis]) -> None:
    views = LinkedViews(GIVEN, diagnoses[0], live=True)
    views._root()
    panel = views.face.panel  # type: ignore[attr-defined]
    assert panel["heat"] is None
    assert panel["prefixes"] == [None]
    drags(views, 1.9, 3.1)
    assert views.lens.selection.span == (2, 3)


def test_it_opens_the_most_divergent_and_takes_a_lens(views, diagnoses) -> None:
    top = diagnoses[1].most_divergent()
    assert views.selection == LinkedSelection(
        quantity="kl_aligned_base_nats",
        prefix_tokens=top.prefix_tokens,
        response=top.response,
        position=None,
        span=None,
    )
    assert (views.lens.selection.response, views.lens.selection.quantity) == (top.response, "kl_aligned_base_nats")
    lens = TokenLens(CONTINUED, 4)
    lens.show(position=2)
    views = LinkedViews(CONTINUED, diagnoses[1], lens=lens)
    assert (views.selection.response, views.selection.position) == (4, 2)


def test_a_headless_run_makes_no_figure_no_view_and_no_comm(diagnoses, monkeypatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(Widget, "open", lambda self: made.append(type(self).__name__))
    views = LinkedViews(CONTINUED, diagnoses[1], live=False)
    views.show(span=(2, 3), quantity="retention")
    views.open_cell(5, 4)
    assert set(views._repr_mimebundle_()) == {"text/html", "text/plain"}
    refuses(lambda: views._ipython_display_(), NotImplementedError)
    assert made == []
    assert views._figure is None


def test_the_static_form_has_all_parts_and_to_html_draws_them_alone(views: LinkedViews) -> None:
    static = views.static()
    titles = ("KL(aligned ‖ base) by position", "Retention by prefix length", "Responses on which the models differ")
    for part in titles:
        assert part in static.body
        assert part in static.text
    assert 'class="wb wb-tokens' in static.body
    assert views.to_html() == static.html
    assert static.body.count('<svg class="wb-drawn"') == 2
    assert "http://" not in static.html
    assert "https://" not in static.html


def test_what_is_sent_and_framed_is_plain(page: LinkedViews, views: LinkedViews) -> None:
    face: Any = page.face
    json.dumps([face.panel, face.state], allow_nan=False)
    heat = face.panel["heat"]
    assert [len(row) for row in heat["value"]] == [len(heat["positions"])] * len(heat["prefixes"])
    assert any(v is None for row in heat["value"] for v in row) == bool((np.array(heat["n"]) == 0).any())
    assert [p["rank"] for p in face.panel["prompts"]] == list(range(1, len(face.panel["prompts"]) + 1))
    frame = views.to_frame()
    assert set(frame["given tokens"]) == {views.selection.prefix_tokens}
    assert set(frame["curve"]) == {"kl_aligned_base_nats"}
    views.show(span=(2, 4))
    assert set(views.to_frame()["position"]) == {2, 3, 4}
    assert set(views.to_frame()["prompts"]) == {"harmful", "harmless", "lookalike"}


def unsafe(traces: TraceSet) -> TraceSet:
    """Return traces of a set that is not safe to show, with hostile prompts and pieces."""
    responses = tuple(
        dataclasses.replace(r, prompt=EXECUTABLE[i % len(EXECUTABLE)]) for i, r in enumerate(traces.responses)
    )
    return dataclasses.replace(traces, responses=responses, classroom_safe=False)


def test_hostile_text_is_text_and_harmful_text_is_withheld() -> None:
    traces = unsafe(CONTINUED)
    views = LinkedViews(traces, diagnose(traces), live=True)
    views._root()
    html = views.static().html
    assert "<img src=x" not in html
    assert "window.tripped = 1</script>" not in html
    harmful = [p for p in views.face.panel["prompts"] if p["label"] == "harmful"]  # type: ignore[attr-defined]
    assert {p["around"] for p in harmful} == {"░░░"}
