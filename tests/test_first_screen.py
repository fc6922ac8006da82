"""First screens: titles, sentences and numbers computed from records, for every verdict; drawings that hold them."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

import workbench as wb
from tests.record_makers import make_diagnosis
from tests.trace_makers import make_traces
from workbench.core.records import Estimate
from workbench.display.figures.drawn import ticks
from workbench.display.report import Report
from workbench.display.views import Picture, Tile, first_screen, found
from workbench.display.views.drawing import Frame, band, line, stacked
from workbench.tracing.diagnosis.ranking import late_retention, most_different, most_like_base
from workbench.tracing.records import Depth, Diagnosis, TraceSet


@pytest.fixture(scope="module")
def traces() -> TraceSet:
    pair = wb.load_pair(preset="embedded")
    return wb.trace(pair, wb.load_prompts(source="embedded", limit=36), max_tokens=32, prefix_tokens=[0, 5])


@pytest.fixture(scope="module")
def diagnosis(traces: TraceSet) -> Diagnosis:
    return wb.diagnose(traces, resamples=200)


def with_depth(diagnosis: Diagnosis, value: float) -> Diagnosis:
    estimate = Estimate(value=value, low=value, high=value, n=12, unit="tokens")
    depth = Depth(label="harmful", category=None, estimate=estimate, measured=32)
    return dataclasses.replace(diagnosis, verdict="shallow", depths=(depth,))


def test_the_embedded_pair_is_shallow_on_its_first_screen(traces: TraceSet, diagnosis: Diagnosis) -> None:
    screen = found(diagnosis, traces)
    depth = next(d.estimate for d in diagnosis.depths if d.category is None)
    title, under, *tiles = screen.text.splitlines()
    assert title == f"Shallow: aligned acts on the first {depth.value:g} tokens, then reads like base"
    kept = next(c.estimate for c in diagnosis.contrasts if (c.name, c.label) == ("late_retention_uncertain", "harmful"))
    assert f"aligned keeps {100 * kept.value:.1f} % of base's probability from position 15 on" in under
    assert screen.rows[0]["value"] == f"{depth.value:g}"
    assert f"n = {depth.n}" in tiles[0]
    assert screen.body.count('class="wb-dot"') == sum(r.label == "harmful" for r in traces.responses)
    assert screen.body.count("<svg") == 2


@pytest.mark.parametrize(
    ("verdict", "title"),
    [
        ("identical", "Identical: the two models predict the same everywhere"),
        ("deep", "Deep: aligned differs from base late in harmful answers too"),
        ("differs_early", "The models differ early; nothing shows that this is safety"),
        ("undetermined", "Undetermined: the numbers do not settle it"),
    ],
)
def test_every_verdict_has_its_title_and_its_reason(traces, diagnosis, verdict: str, title: str) -> None:
    screen = found(dataclasses.replace(diagnosis, verdict=verdict, sentences=("Word: because of this.",)), traces)
    lines = screen.text.splitlines()
    assert lines[0] == title
    assert verdict == "deep" or lines[1] == "Because of this."


def test_one_token_and_a_fading_alignment_are_said_as_they_are(traces: TraceSet, diagnosis: Diagnosis) -> None:
    assert found(with_depth(diagnosis, 1.0), traces).text.startswith("Shallow: aligned decides at token 1, then reads")
    moved = [
        dataclasses.replace(c, estimate=dataclasses.replace(c.estimate, value=0.6, low=0.5, high=0.7))
        if c.name == "late_retention_uncertain"
        else c
        for c in diagnosis.contrasts
    ]
    fading = dataclasses.replace(with_depth(diagnosis, 4.0), contrasts=tuple(moved))
    assert found(fading, traces).text.startswith("Shallow: aligned acts on the first 4 tokens, then fades")


def test_ranks_are_those_of_a_plain_loop(traces: TraceSet) -> None:
    late = late_retention(traces, 15)
    for i, r in enumerate(traces.responses):
        kept = [
            float(traces.retention[i, t])
            for t in range(int(traces.lengths()[i]))
            if t + 1 >= 15 and traces.entropy_aligned_nats[i, t] > traces.entropy_floor_nats
        ]
        assert (np.isnan(late[i]) and not kept) or late[i] == pytest.approx(np.mean(kept)), r.prompt_id
    order = most_like_base(traces, 15)
    assert sorted(order) == list(range(len(traces.responses)))
    harmful = [i for i in order if traces.responses[i].label == "harmful"]
    assert order[: len(harmful)] == tuple(harmful)
    known = [late[i] for i in harmful if np.isfinite(late[i])]
    assert known == sorted(known, reverse=True)
    kl = [float(np.nanmean(traces.kl_aligned_base_nats[i])) for i in most_different(traces)[: len(harmful)]]
    assert kl == sorted(kl, reverse=True)


def test_made_up_records_without_late_positions_have_a_screen_too() -> None:
    made = make_traces(tokens=6)
    screen = found(make_diagnosis(made), made)
    assert "What was found" in screen.body
    assert "nan" not in screen.body.lower().replace("-nan", "")


def test_warnings_are_counted_and_everything_is_text() -> None:
    hostile = '<img src=x onerror="alert(1)">'
    screen = first_screen(
        hostile, hostile, [Tile(value=hostile, name=hostile, note=hostile)],
        [Picture(title=hostile, soft=hostile, drawing="<svg></svg>")], [hostile, "b" * 300, "c"],
    )  # fmt: skip
    assert "<img" not in screen.body
    assert "3 warnings" in screen.body
    assert "and 1 more below" in screen.body
    assert "wb-amber" not in first_screen("a", "b", [], []).body


def test_a_report_begins_with_its_first_screen(tmp_path, traces: TraceSet, diagnosis: Diagnosis) -> None:
    from widgets import TokenLens

    report = Report("Diagnosis", {"__annotations__": {"seed": int}, "seed": 0})
    screen = found(diagnosis, traces)
    report.begin(screen, TokenLens(traces, most_like_base(traces)[0], quantity="retention", live=False))
    page = report.write(tmp_path, diagnosis=diagnosis).html.read_text("utf-8")
    assert page.index("wb-found-title") < page.index('class="wb-sealed"') < page.index('aria-label="Contents"')
    assert page.count("<h1") == 1
    title = screen.text.splitlines()[0]
    assert f"<title>{title}</title>" in page
    assert len(page) < 1.5e6


def test_drawings_put_numbers_where_they_belong() -> None:
    frame = Frame(width=100, height=100, x=(0.0, 10.0), y=(0.0, 4.0), left=0, right=0, top=0, bottom=0, root=True)
    assert (frame.at_x(5.0), frame.at_y(0.0), frame.at_y(4.0), frame.at_y(1.0)) == (50, 100, 0, 50)
    assert line([(0.0, 0.0), (1.0, float("nan")), (2.0, 2.0), (3.0, 3.0)], "x").count("M") == 2
    assert band([(0.0, 0.0)], [(0.0, 1.0)], "x") == ""
    assert ticks(0.0, 10.0, 5) == [0, 2, 4, 6, 8, 10]
    assert ticks(3.0, 3.0) == [3]
    drawn = stacked([("a", {"x": 0.25, "y": 0.75})], {"x": "wb-x", "y": "wb-y"}, "t", 258)
    assert [float(w) for w in re.findall(r'width="([\d.]+)"', drawn)] == [25.0, 75.0]
