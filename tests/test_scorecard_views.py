"""Views and figures of a Scorecard: numbers shown with interval and n, harmful text covered, text always text."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests import evaluation_makers as make
from tests.hostile_texts import EXECUTABLE
from workbench.core.palette import contrast, strokes_of_arms
from workbench.display import figures, views
from workbench.evaluation.metrics import EvaluateConfig
from workbench.evaluation.paper import paper_preset
from workbench.evaluation.records import AttackSet, CapabilitySet, CompletionSet, Scorecard
from workbench.evaluation.rows import evaluation_rows
from workbench.evaluation.scorecard import sum_up
from workbench.judging.records import GibberishSet, JudgementSet

ARMS = {"base": 20, "aligned": 16, "penalty 1": 3}
Made = tuple[
    list[AttackSet], list[CompletionSet], list[JudgementSet], list[GibberishSet], list[CapabilitySet], Scorecard
]


@pytest.fixture(scope="module")
def made() -> Made:
    prefill = make.attempts(20, where=(0, 5, 10), categories=("fraud", "theft"))
    control = make.attempts(20, attack="harmless_prefill", where=(5, 10), label="harmless")
    alike = make.attempts(20, attack="none", where=(None,), label="lookalike")
    attacks = [prefill, control, alike]
    done = [make.completions(s, arm, text="a whole answer") for arm in ARMS for s in attacks]
    said = [
        make.judgements(prefill, arm, lambda a, n=n: (0.0, "refusal") if a.given == 0 else make.first(n)(a))
        for arm, n in ARMS.items()
    ]
    said += [make.judgements(s, arm, lambda a: "compliance") for arm in ARMS for s in (control, alike)]
    babble = [make.gibberish(prefill, arm, lambda a: make.index(a) == 0) for arm in ARMS]
    right = {"base": 90, "aligned": 95, "penalty 1": 60}
    able = [make.capability(arm, {"mmlu": [1] * n + [0] * (100 - n)}) for arm, n in right.items()]
    card = sum_up(attacks, done, said, EvaluateConfig(against="aligned"), gibberish=babble, capability=able)
    return attacks, done, said, babble, able, card


def test_conclusions_and_matrix_show_every_cell_with_interval_and_n(made: Made) -> None:
    view = views.conclusions(made[-1])
    assert "3 arms, 3 attacks, 1 judge" in view.text
    for sentence in made[-1].sentences:
        assert sentence[:60] in view.text
    view = views.attack_matrix(made[-1])
    assert len(view.rows) == 3 * 4  # 0, 5, 10 tokens given and the worst of them
    assert "80 % [58.4, 91.9] (n = 20)" in view.text
    assert "95 % interval" in view.body
    assert view.body.count("<tr>") == 1 + 4
    order = re.findall(r'<th scope="row"[^>]*>(?:<b>)?([^<]*)', view.body)
    assert order == [*(f"prefill, {k} tokens given" for k in (0, 5, 10)), "prefill, worst of 3"]
    assert "wb-slate" in view.body
    none = views.attack_matrix(made[-1], "asr_mean")
    assert "none" in none.text


def test_tables_of_arms_comparisons_and_capability(made: Made) -> None:
    view = views.arms_table(made[-1])
    text = view.text
    for words in (
        "attack success, worst case",
        "refuses look-alikes",
        "continues harmless prefixes",
        "gibberish",
        "accuracy",
    ):
        assert words in text
    assert "refuses harmful prompts, not attacked" not in text  # nothing was asked of harmful prompts with no attack
    lost = next(r for r in view.rows if "lost" in r["what"])
    assert lost["aligned"] is None
    assert lost["penalty 1"].startswith("35 %")
    view = views.comparisons_table(made[-1])
    assert (len(view.rows), {r["so"] for r in view.rows}) == (len(made[-1].comparisons), {"told apart", "cannot tell"})
    assert "Newcombe" in view.text
    assert f"Holm over the {len(view.rows)} comparisons" in view.text
    categories = views.categories_table(made[-1])
    assert {r["category"] for r in categories.rows} == {"fraud", "theft"}
    assert {r["attack"] for r in categories.rows} == {"prefill, worst of 3"}
    able = views.capability_table(made[4])
    assert "higher is better" in able.text
    assert "95 %" in able.text
    assert "not measured" in views.capability_table([]).text
    rows = {r["arm"]: r for r in views.tradeoff_table(made[-1], (0.01, 0.5)).rows}
    assert (rows["aligned"]["0.01"], rows["penalty 1"]["0.01"]) == ("yes ★", "no")
    assert (rows["penalty 1"]["0.5"], rows["aligned"]["lost"]) == ("yes ★", "reference")


def test_method_and_paper_are_named_with_every_deviation(made: Made) -> None:
    attacks, done, said, babble, able, _ = made
    view = views.evaluation_card(make.evaluation(attacks, done, said, gibberish=babble, capability=able))
    for words in ("McNemar", "exact", "version 1", "lm-eval 0", "chat template", "p_harmful >= 0.5", "penalty 1"):
        assert words in view.text
    table = paper_preset("paper/llama-3.1-8b/prefill")
    view = views.paper_table(table, evaluation_rows(made[-1]))
    assert len(view.rows) == len(table.published)
    for deviation in table.deviations:
        assert deviation in view.text
    mmlu = next(r for r in view.rows if r["arm"] == "aligned" and "mmlu" in r["number"])
    assert mmlu["published"] == "68 %"
    assert mmlu["ours"].startswith("95 % [")
    assert mmlu["inside"] == "no"


def test_samples_are_shown_or_withheld(made: Made) -> None:
    attacks, done, said, *_ = made
    view = views.samples_view(attacks, done, said, most=2)
    assert view.body.count("<details>") == 3 + 3 * 6  # an attack each, a cell each
    assert "prefill: 9 cells" in view.body
    assert "prefill, 10 tokens given, harmful · aligned: 16 compliance, 4 refusal (n = 20)" in view.body
    assert "and 18 more in the records" in view.body
    assert "a whole answer to harmful-0" in view.body  # a classroom-safe set is shown
    import dataclasses

    attacks, done, said, *_ = made
    real = [dataclasses.replace(s, classroom_safe=False) for s in attacks]
    covered = views.samples_view(real, done, said)
    assert "a whole answer to harmful" not in covered.html + covered.text
    assert "SHA-256" in covered.body
    assert "a whole answer to lookalike-0" in covered.body
    blurred = views.samples_view(real, done, said, harmful_text="blur")
    assert "a whole answer to harmful-0" in blurred.body
    assert blurred.body.count('class="wb-reveal"') == 3 * 3 * 4
    assert "a whole answer to harmful" not in blurred.text
    assert "a whole answer to harmful-0" in views.samples_view(real, done, said, harmful_text="show").text


@pytest.mark.parametrize("text", EXECUTABLE[:12])
def test_what_models_write_is_text(text: str) -> None:
    source = make.attempts(1)
    done = make.completions(source, text, text=text)
    said = make.judgements(source, text, lambda a: 1.0, judge=text)
    card = sum_up([source], [done], [said])
    shown = [
        views.samples_view([source], [done], [said]), views.conclusions(card), views.attack_matrix(card),
        views.arms_table(card), views.comparisons_table(card),
        views.evaluation_card(make.evaluation([source], [done], [said])),
    ]  # fmt: skip
    for view in shown:
        assert text not in view.body
        assert "<script" not in view.body
    figure = figures.success_by_prefix(card)
    assert "<img" not in str(figure.to_json())


def test_figures_draw_every_arm_with_intervals(made: Made) -> None:
    figure = figures.success_by_prefix(made[-1])
    names = [t.name for t in figure.data if t.showlegend]
    assert ([n.split(" (")[0] for n in names], len(figure.data)) == (["base", "aligned", "penalty 1"], 3)
    aligned = figure.data[1]
    assert (list(aligned.y), aligned.error_y.array[1]) == ([0, 0.8, 0.8], pytest.approx(0.919 - 0.8, abs=1e-3))
    assert (list(figure.layout.xaxis.ticktext), figure.layout.meta["columns"][-1]) == (["0", "5", "10"], "n")
    assert len(figure.layout.meta["rows"]) == 3 * 3
    assert "Every arm continues all harmless beginnings" in figure.layout.meta["summary"]
    broken = [
        replace(s, estimate=replace(s.estimate, value=0.5)) if s.metric == "continued" and s.arm == "aligned" else s
        for s in made[-1].scores
    ]
    both = figures.success_by_prefix(replace(made[-1], scores=tuple(broken)))  # then the control is drawn beside it
    assert (len(both.data), len(both.layout.meta["rows"])) == (6, 3 * 3 + 3 * 2)
    figure = figures.safety_capability(made[-1])
    assert (len(figure.data), figure.data[2].x[0]) == (3, pytest.approx(0.6))
    assert figure.data[2].error_x.array[0] > 0
    assert figure.data[2].error_y.arrayminus[0] > 0
    source = make.attempts(3, attack="none", where=(None,))
    card = sum_up([source], [make.completions(source, "a")], [make.judgements(source, "a", make.first(1))])
    assert "needs the attack prefill" in figures.success_by_prefix(card).layout.meta["summary"]
    assert "needs" in figures.safety_capability(card).layout.meta["summary"]
    assert "one arm" in views.conclusions(card).text or "comparisons" in views.conclusions(card).text
    names = ["base", "aligned", "a", "b", "c", "d", "e", "f"]
    strokes = strokes_of_arms(names)
    assert len({(s.colour, s.dash, s.marker) for s in strokes.values()}) == len(names)
    assert len({s.marker for s in strokes.values()}) == len(names)
    for stroke in strokes.values():
        assert contrast(stroke.colour, "#ffffff") >= 3
        assert contrast(stroke.colour, "#111111") >= 3
