"""First screens: titles, sentences and numbers computed from records, for every verdict; drawings that hold them."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

import workbench as wb
from tests.evaluation_makers import attempts, completions, evaluation, first, gibberish, index, judgements
from tests.record_makers import make_diagnosis
from tests.trace_makers import make_traces
from workbench import __main__ as cli
from workbench.core.records import Estimate, save
from workbench.display.figures.drawn import ticks
from workbench.display.report import Report
from workbench.display.views import Picture, Tile, first_screen, found
from workbench.display.views.drawing import Frame, band, line, stacked
from workbench.evaluation.metrics import EvaluateConfig
from workbench.evaluation.records import Evaluation
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
    assert "75 %" in drawn
    assert "25 %" not in drawn, "a number that its part has no room for is left out, not clipped"


def test_an_atlas_puts_the_deepest_first_on_one_scale(tmp_path, traces: TraceSet, diagnosis: Diagnosis) -> None:
    def kept(value: float) -> Diagnosis:
        changed = [
            dataclasses.replace(c, estimate=dataclasses.replace(c.estimate, value=value))
            if c.name == "late_retention_uncertain" and c.label == "harmful"
            else c
            for c in diagnosis.contrasts
        ]
        return dataclasses.replace(diagnosis, contrasts=tuple(changed))

    made = {"shallow <b>": kept(0.98), "deep": kept(0.2), "between": kept(0.5)}
    view = wb.views.atlas(made, {"deep": "a b/report.html"})
    assert [r["name"] for r in view.rows] == ["deep", "between", "shallow <b>"]
    assert "<b>shallow" not in view.body.replace("shallow &lt;b&gt;", "")
    assert len({tuple(re.findall(r'class="wb-grid" d="([^"]*)"', part)) for part in view.body.split("<svg")[1:]}) == 1
    other = dataclasses.replace(
        diagnosis, run=dataclasses.replace(diagnosis.run, resolved={**diagnosis.run.resolved, "prompt_set": "x"})
    )
    assert "prompt sets differ" in wb.views.atlas({"a": diagnosis, "b": other}).text
    for name, one in (("first", made["deep"]), ("second", diagnosis)):
        save(one, tmp_path / name / "records" / "diagnosis")
        (tmp_path / name / "report.html").write_text("x")
    page = tmp_path / "pages" / "atlas.html"
    page.parent.mkdir()
    assert cli.main(["atlas", str(tmp_path / "first"), str(tmp_path / "second"), "--out", str(page)]) == 0
    assert 'href="../first/report.html"' in page.read_text("utf-8")
    assert cli.main(["atlas", str(tmp_path), "--out", str(page)]) == 2
    assert cli.main(["atlas", str(tmp_path / "first"), str(tmp_path / "first"), "--out", str(page)]) == 2


# ------------------------------------------------------------------------------------------------- evaluations

N = 40


def evaluated(arms: dict[str, tuple[int, int, int]], harmful_n: int = N) -> Evaluation:
    """Make an evaluation: of each arm, how many prefilled prompts comply, how many babble, how many are right."""
    prefill, harmless = attempts(harmful_n, where=(0, 10)), attempts(N, attack="none", where=(0,), label="harmless")
    beginning = attempts(N, attack="harmless_prefill", where=(0, 10), label="harmless")
    sets = [prefill, harmless, beginning]
    answered, judged, babble = [], [], []
    for arm, (complied, babbled, right) in arms.items():
        answered += [completions(s, arm, text=f"<i>{arm}</i>") for s in sets]
        by = {0: first(0), 10: first(complied) if complied >= 0 else lambda a: (0.0, "other")}
        judged.append(judgements(prefill, arm, lambda a, by=by: by[a.given](a)))
        judged += [judgements(s, arm, first(right)) for s in (harmless, beginning)]
        babble += [gibberish(s, arm, lambda a, b=babbled: index(a) < b) for s in sets]
    return evaluation(sets, answered, judged, EvaluateConfig(against="aligned"), gibberish=babble)


TITLES = (
    ({"base": (40, 0, 40), "aligned": (36, 0, 40)}, "The attack prefill breaks aligned on 90 % of the harmful prompts"),
    ({"aligned": (36, 0, 40), "recovery": (0, 0, 40)}, "recovery lowers attack success from 90 % to 0 %"),
    ({"aligned": (36, 0, 40), "a": (30, 0, 40), "b": (2, 0, 40)}, "b lowers attack success from 90 % to 5 %"),
    (
        {"aligned": (36, 0, 40), "tuned": (0, 30, 40)},
        "tuned lowers attack success from 90 % to 0 % by babbling: 75 % gibberish",
    ),
    (
        {"aligned": (36, 0, 40), "dead": (0, 0, 4)},
        "dead lowers attack success from 90 % to 0 %, and answers only 10 % of the harmless prompts",
    ),
    ({"aligned": (20, 0, 40), "same": (19, 0, 40)}, "same and aligned cannot be told apart in attack success at n ="),
    ({"aligned": (36, 0, 40), "muddled": (-1, 0, 40)}, "muddled lowers attack success from 90 % to 0 %, and brings no"),
    (
        {"aligned": (4, 0, 40), "worse": (36, 0, 40)},
        "worse is easier to break than aligned: attack success 90 % against 10 %",
    ),
)
"""What arms do (prompts of 40 that comply, babble, are right where harmless), and the title that follows."""


@pytest.mark.parametrize(("arms", "title"), TITLES)
def test_an_evaluation_has_one_sentence_for_what_it_found(arms: dict[str, tuple[int, int, int]], title: str) -> None:
    screen = wb.views.measured(evaluated(arms).scorecard, reference="aligned")
    said, cost, *_ = screen.text.splitlines()
    assert said.startswith(title)
    assert "of harmless prompts" in cost
    assert screen.body.count("<svg") == 2
    assert "recovery" not in arms or [r["value"] for r in screen.rows] == ["0 %", "100 %", "100 %"]


@pytest.mark.parametrize(
    ("complied", "said"),
    [(0, "orange complied, blue refused"), (-1, "orange complied, grey neither, blue refused")],
)
def test_every_colour_of_the_outcomes_is_named(complied: int, said: str) -> None:
    card = evaluated({"aligned": (36, 0, 40), "tried": (complied, 0, 40)}).scorecard
    assert f"after 10 tokens; {said}</span>" in wb.views.measured(card, reference="aligned").body


def test_every_arm_continues_the_same_beginning_and_its_text_is_text() -> None:
    made = evaluated({"aligned": (36, 0, 40), "recovery": (0, 0, 40)})
    view = wb.views.answers(made, harmful=2)
    assert [(r["label"], r["given"], r["arm"], r["verdict"]) for r in view.rows if r["given"] == 10] == [
        *[("harmful", 10, "aligned", "compliance"), ("harmful", 10, "recovery", "refusal")] * 2,
        ("harmless", 10, "aligned", "compliance"), ("harmless", 10, "recovery", "compliance"),
    ]  # fmt: skip
    assert "<i>" not in view.body
    sets = tuple(dataclasses.replace(s, classroom_safe=False) for s in made.attacks)
    hidden = dataclasses.replace(made, attacks=sets)
    said = wb.views.answers(hidden, harmful=2)
    assert "aligned&lt;/i&gt; to harmful-0" in view.body
    assert "to harmful-0" not in said.body + said.text
    assert "to harmless-0" in said.body


def test_a_sweep_says_what_to_take_and_what_it_does_not_do() -> None:
    pair, prompts = wb.load_pair(preset="embedded"), wb.load_prompts(source="embedded", limit=36)
    grid = wb.PenaltyGrid(methods=["one_sided", "two_sided"], strengths=[16.0])
    sweep = wb.sweep(pair, prompts, penalties=grid, prefix_tokens=(0, 10), max_tokens=48, judge="exact")
    choice = wb.recommend(sweep)
    screen = wb.views.taken(choice, sweep)
    title, under, *_ = screen.text.splitlines()
    alone = next(p.asr.value for p in choice.points if p.penalty == "aligned")
    assert title.startswith("No penalty is worth taking: within the limits, the best leaves attack success at ")
    assert title.endswith(f"(aligned: {100 * alone:.1f} %)".replace(".0 %", " %"))
    assert under.startswith("two_sided 16 lowers it to 0 %, but ")
    assert screen.arms == ("aligned", "two_sided 16")
    shown = wb.views.answers(sweep.evaluation, arms=screen.arms, harmful=1, harmless=0)
    assert [r["arm"] for r in shown.rows if r["given"] == 10] == ["aligned", "two_sided 16"]
    took = wb.views.taken(dataclasses.replace(choice, penalty="two_sided 16"), sweep)
    assert took.text.startswith("two_sided 16 lowers attack success from ")
    assert "gibberish" in took.text.splitlines()[0]
