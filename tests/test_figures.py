"""Figures of records: axes say unit and direction, missing is not zero, labels are text, one look a label."""

from __future__ import annotations

import dataclasses
import json
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest

from tests.errors import refuses
from tests.hostile_texts import HOSTILE_TEXTS
from tests.record_makers import make_diagnosis, make_probe
from tests.trace_makers import make_traces
from workbench.core import legible, palette
from workbench.core.errors import ParameterError, UnknownName
from workbench.display import figures
from workbench.tracing.records import Diagnosis


@pytest.fixture(scope="module")
def teacher() -> Diagnosis:
    return make_diagnosis(make_traces(tokens=30))


@pytest.fixture(scope="module")
def free() -> Diagnosis:
    return make_diagnosis(make_traces(tokens=24, prefixes=(0, 3, 10)))


def every_figure(diagnosis: Diagnosis) -> list[go.Figure]:
    return [
        figures.curves(diagnosis),
        figures.curves(diagnosis, "retention"),
        figures.curves(diagnosis, "logprob_shift_nats"),
        figures.panel(diagnosis),
        figures.retention_heat_map(diagnosis),
        figures.base_favored_frequencies(diagnosis),
        figures.gradients(make_probe()),
    ]


def _lines(figure: go.Figure) -> dict[str, go.Scatter]:
    return {t.name.split(" ")[0]: t for t in figure.data if t.name and "lines" in (t.mode or "")}


def test_curves_are_the_records_and_look_alike_everywhere(teacher: Diagnosis, free: Diagnosis) -> None:
    figure = figures.curves(teacher, "retention")
    for label, trace in _lines(figure).items():
        curve = next(c for c in teacher.curves if c.name == "retention" and c.label == label)
        np.testing.assert_array_equal(np.asarray(trace.x), curve.position)
        np.testing.assert_array_equal(np.asarray(trace.y), curve.value)
        assert trace.x[0] == 1
        assert "n = " in trace.name
    for figure in (figures.curves(teacher), figures.panel(teacher), figures.curves(teacher, "retention")):
        for label, trace in _lines(figure).items():
            if label in palette.LABELS:
                stroke = palette.LABELS[label]
                assert (trace.line.color, trace.line.dash, trace.marker.symbol) == (
                    stroke.colour,
                    stroke.dash,
                    stroke.marker,
                )
    for diagnosis in (teacher, free):
        for name in ("kl_aligned_base_nats", "retention", "entropy_aligned_nats", "base_favored_count"):
            figure = figures.curves(diagnosis, name)
            titles = [figure.layout[a].title.text for a in figure.layout if a.startswith(("xaxis", "yaxis"))]
            assert any("position" in (t or "") for t in titles)
            assert any(any(u in (t or "") for u in ("nats", "1 =", "count")) for t in titles)


def test_floors_bands_and_facets_show_what_is_measured(teacher: Diagnosis, free: Diagnosis) -> None:
    assert "noise" in _lines(figures.curves(teacher, "kl_aligned_base_nats"))
    assert "noise" not in _lines(figures.curves(teacher, "retention"))
    assert "noise" not in _lines(figures.curves(dataclasses.replace(teacher, noise_floor=None)))
    curve = next(c for c in teacher.curves if c.name == "retention" and c.label == "harmful")
    low, high = curve.low.copy(), curve.high.copy()
    low[5:8] = high[5:8] = np.nan
    changed = dataclasses.replace(teacher, curves=(dataclasses.replace(curve, low=low, high=high),))
    band = figures.curves(changed, "retention").data[0]
    x = np.asarray(band.x)
    assert {6, 7, 8}.isdisjoint(x[np.isfinite(x)].tolist())
    assert np.isnan(x).sum() == 2  # one after each of the two stretches
    titles = [a.text for a in figures.curves(free, "retention").layout.annotations]
    assert titles == [f"free-running, {k} tokens given" for k in (0, 3, 10)]
    assert "10 tokens" in figures.panel(free, prefix_tokens=10).layout.meta["summary"]
    refuses(lambda: figures.panel(free, prefix_tokens=7), ParameterError, "7")


def test_what_is_not_there_is_blank_and_never_zero(free: Diagnosis, teacher: Diagnosis) -> None:
    value = free.heat_map.value.copy()
    value[1, 4:] = np.nan
    changed = dataclasses.replace(free, heat_map=dataclasses.replace(free.heat_map, value=value))
    figure = figures.retention_heat_map(changed)
    heat = figure.data[0]
    assert np.isnan(np.asarray(heat.z)[1, 4:]).all()
    assert heat.hoverongaps is False
    assert (heat.zmin, heat.zmax, heat.x[0]) == (0, 1, 1)
    assert list(figure.layout.yaxis.ticktext) == ["0", "3", "10"]
    bare = dataclasses.replace(teacher, curves=(), frequencies=(), heat_map=None)
    for figure in (
        figures.curves(bare),
        figures.panel(bare),
        figures.retention_heat_map(bare),
        figures.base_favored_frequencies(bare),
    ):
        assert len(figure.data) == 0
        assert figure.layout.annotations[0].text
    first = teacher.frequencies[0]
    nothing = dataclasses.replace(first.rate_harmless, value=None, low=None, high=None, n=0)
    changed = dataclasses.replace(teacher, frequencies=(dataclasses.replace(first, rate_harmless=nothing),))
    figure = figures.base_favored_frequencies(changed)
    assert np.isnan(np.asarray(figure.data[1].x, float)).all()
    assert "no data (n = 0)" in str(figure.data[1].customdata)


def test_kinds_and_gradients_show_every_response(teacher: Diagnosis) -> None:
    figure = figures.base_favored_frequencies(teacher)
    symbols = {t.name: t.marker.symbol for t in figure.data}
    assert len(set(symbols.values())) == len(symbols)
    assert all(("-open" in s) == ("harmless" in n) for n, s in symbols.items())
    probe = make_probe(responses=3)
    figure = figures.gradients(probe)
    assert len([t for t in figure.data if t.type == "scatter"]) == 3 * (3 + 1)
    mean = next(t for t in figure.data if t.mode == "lines+markers")
    expected = np.nanmean(probe.grad_norm.astype(float), axis=0)
    np.testing.assert_allclose(np.asarray(mean.y, float), expected, rtol=1e-5)
    for word in (probe.model, probe.loss, probe.parameters):
        assert word in figure.layout.meta["summary"]


def test_labels_are_text_and_impossible_axes_refused(teacher: Diagnosis) -> None:
    refuses(lambda: figures.curves(teacher, "logprob_shift_nats", log_y=True), ParameterError, "0")
    curve = next(c for c in teacher.curves if c.name == "kl_aligned_base_nats")
    positive = dataclasses.replace(curve, value=curve.value + 1, low=curve.value + 0.5, high=curve.value + 2)
    figure = figures.curves(dataclasses.replace(teacher, curves=(positive,)), log_y=True)
    assert figure.layout.yaxis.type == "log"
    refuses(lambda: figures.curves(teacher, "retension"), UnknownName, "'retention'")
    frequencies = tuple(
        dataclasses.replace(teacher.frequencies[0], token_id=i, label=text) for i, text in enumerate(HOSTILE_TEXTS)
    )
    figure = figures.base_favored_frequencies(dataclasses.replace(teacher, frequencies=frequencies), limit=99)
    shown = [*figure.layout.yaxis.ticktext, *(str(row[0]) for t in figure.data for row in t.customdata)]
    for text in shown:
        inner = text.split("  <i>")[0]
        assert "<" not in inner
        assert "$" not in inner
        assert "%{" not in inner
    assert figures.CONFIG["typesetMath"] is False
    assert legible.plotly_text("<s>&$x$%{y}") == "&lt;s&gt;&amp;&#36;x&#36;&#37;{y}"


def test_figures_are_self_contained_with_their_numbers(teacher: Diagnosis, free: Diagnosis) -> None:
    for diagnosis in (teacher, free):
        for figure in every_figure(diagnosis):
            drawn = figures.figure_svg(figure)
            assert ElementTree.fromstring(drawn).tag == "svg"
            assert "script" not in drawn
            assert "http" not in drawn
            assert "nan" not in drawn
            assert len(drawn) < 120_000
    for figure in (*every_figure(teacher), *every_figure(free)):
        meta = figure.layout.meta
        assert meta["summary"]
        assert all(len(row) == len(meta["columns"]) for row in meta["rows"])
        json.dumps(meta, allow_nan=False)
        assert "meta" not in figures.figure_spec(figure)["layout"]
