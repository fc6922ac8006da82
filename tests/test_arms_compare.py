"""Arms side by side: answers are the evaluation's, KL is a direct computation's, together is as alone."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import torch

import workbench as wb
from tests.hostile_texts import EXECUTABLE
from widgets import ArmsCompare
from workbench.core.errors import ParameterError
from workbench.evaluation.attacks import Arm
from workbench.evaluation.beside import answers_beside, refused_at
from workbench.evaluation.records import AnswersBeside, Evaluation
from workbench.evaluation.together import continue_together
from workbench.models.generation import GenerateConfig
from workbench.models.pair import ModelPair
from workbench.prompts.loading import Prompt

Made = tuple[ModelPair, tuple[Arm, ...], Evaluation, AnswersBeside]


@pytest.fixture(scope="module")
def made() -> Made:
    pair = wb.load_pair(preset="embedded")
    prompts = wb.load_prompts(source="embedded", limit=12)
    arms = wb.arms_of(pair, adapters={"own name": "completed"}, penalties=[2.0])
    attempts = wb.attempts_of(
        pair, prompts, ["prefill", "harmless_prefill"], prefix_tokens=["0", "1", "10"], max_tokens=24
    )
    evaluation = wb.evaluate(arms, attempts)
    return pair, arms, evaluation, answers_beside(evaluation, arms)


def direct(arm: Arm, context: list[int]) -> torch.Tensor:
    """Return an arm's log-probabilities after a context, by one uncached pass of each model, in float64."""
    with torch.inference_mode():
        sides = {}
        for which in ("base", "aligned"):
            with arm.pair.model(which) as model:  # type: ignore[arg-type]
                sides[which] = model(input_ids=torch.tensor([context]), use_cache=False).logits[0, -1].double()
    base, aligned = (sides[w].log_softmax(-1) for w in ("base", "aligned"))
    penalty = getattr(arm, "penalty", None)
    if penalty is None:
        return {"base": base, "aligned": aligned}[arm.which]
    return torch.where(base > aligned, aligned - penalty.strength * (base - aligned), aligned).log_softmax(-1)


def test_answers_are_the_evaluation_s_and_read_as_a_direct_computation_reads_them(made: Made) -> None:
    pair, arms, evaluation, beside = made
    assert beside.arms == ("base", "aligned", "own name", "penalty 2") == tuple(a.name for a in arms)
    assert [one.label for one in beside.asked] == ["harmful"] * 3 + ["harmless"]
    assert beside.asked[0].differs(10)
    assert torch.is_grad_enabled()  # two readers took turns: neither left its mode behind
    assert not torch.is_inference_mode_enabled()
    attempts = {a.attempt_id: a for s in evaluation.attacks for a in s.attempts}
    by = {(s.arm, attempts[c.attempt_id].prompt_id, attempts[c.attempt_id].given): (attempts[c.attempt_id], c)
          for s in evaluation.answers for c in s.completions if attempts[c.attempt_id].attack == "prefill"}  # fmt: skip
    named = {arm.name: arm for arm in arms}
    one = beside.asked[0]
    assert one.givens[:3] == (0, 1, 10)
    for answer in one.answers:
        attempt, completion = by[answer.arm, one.prompt_id, answer.given]
        assert "".join(answer.pieces) == completion.text
        assert one.beginnings[str(answer.given)] == attempt.prefix
        assert len(answer.kl_nats) == len(answer.wanted) == len(answer.pieces)
        context = [*pair.context(Prompt(id="p", prompt=one.prompt, label="harmful")), *attempt.prefix_ids]
        for n in (0, len(answer.pieces) - 1):
            so_far = [*context, *completion.ids[:n]]
            mine, aligned = direct(named[answer.arm], so_far), direct(named["aligned"], so_far)
            assert answer.kl_nats[n] == pytest.approx(float((mine.exp() * (mine - aligned)).sum()), abs=2e-4)
            assert answer.wanted[n][0][1] == pytest.approx(float(mine.exp().max()), abs=1e-4)


def test_without_models_the_answers_are_told_in_words(made: Made) -> None:
    _, _, evaluation, beside = made
    words = answers_beside(evaluation, names=["aligned", "base"], harmful=1, harmless=0)
    assert words.arms == ("aligned", "base")
    assert len(words.asked) == 1
    told = {(a.arm, a.given): "".join(a.pieces) for a in words.asked[0].answers}
    assert told == {(a.arm, a.given): "".join(a.pieces) for a in beside.asked[0].answers if a.arm in words.arms}
    assert all(not a.kl_nats and not a.wanted for a in words.asked[0].answers)
    with pytest.raises(ParameterError, match=r"'algned'.*aligned"):
        answers_beside(evaluation, names=["algned"])


def test_arms_together_write_what_each_writes_alone(made: Made) -> None:
    pair, arms, _, beside = made
    given = pair.encode("Sure, here is how to")
    passages = [a.pair.passage(Prompt(id="p", prompt=beside.asked[0].prompt, label="harmful"), given) for a in arms]
    texts, distances = [list[int]() for _ in arms], [list[float | None]() for _ in arms]
    for step in continue_together(arms, passages, max_tokens=16):
        texts[step.arm].append(step.token_id)
        distances[step.arm].append(step.kl_nats)
    for n, arm in enumerate(arms):
        how = GenerateConfig(max_tokens=16)
        (alone,) = arm.continue_([passages[n]], how, store=wb.Store(None), on_token=None, what=None)
        assert texts[n] == [i for i in alone.ids if i not in pair.eos_ids]
    assert set(distances[1]) == {0.0}  # aligned is the reference
    turned = distances[2].index(max(distances[2]))
    context = [*passages[2].whole("aligned"), *texts[2][:turned]]
    mine, aligned = direct(arms[2], context), direct(arms[1], context)
    assert distances[2][turned] == pytest.approx(float((mine.exp() * (mine - aligned)).sum()), rel=1e-3)
    steps = continue_together(arms, passages, max_tokens=16, cancelled=lambda: True)
    assert list(steps) == []
    alone = continue_together(arms[2:3], passages[2:3], max_tokens=1)  # no reference among the arms
    assert [s.kl_nats for s in alone] == [None]


def test_where_a_refusal_begins() -> None:
    refusing = ("First", ", take it", ". ", "I'm sorry", ", but I can't help", " with that.")
    assert refused_at(refusing, "partial") == 3
    assert refused_at(refusing[3:], "refusal") == 0
    assert refused_at(refusing, "compliance") is None
    assert refused_at((), "refusal") == 0


def test_withheld_text_is_not_in_the_page_and_hostile_text_is_text(made: Made) -> None:
    beside = made[3]
    harmful = "".join(beside.asked[0].answers[0].pieces)[:30]
    shown = wb.views.answers(beside)
    assert "complied" in shown.html
    assert "‖ aligned" in shown.html
    data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', shown.body, re.DOTALL)[0])
    assert harmful in "".join(data["asked"][0]["answers"][0]["pieces"])
    real = dataclasses.replace(beside, classroom_safe=False, asked=beside.asked[:3])
    gone = wb.views.answers(real).html
    assert [t for a in beside.asked[0].answers if a.arm == "base" and (t := "".join(a.pieces)[-30:]) in gone] == []
    withheld = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', gone, re.DOTALL)[0])
    assert withheld["asked"][0]["beginnings"] == {}
    assert withheld["asked"][0]["answers"][0]["wanted"] == []
    assert "".join(withheld["asked"][0]["answers"][0]["pieces"]).strip("░ ") == ""
    assert wb.views.answers(real, harmful_text="blur").body.count('"covered":true') == 3
    answer = dataclasses.replace(beside.asked[0].answers[0], pieces=tuple(EXECUTABLE), kl_nats=(), wanted=())
    hostile = dataclasses.replace(beside.asked[0], prompt=EXECUTABLE[0], answers=(answer,))
    html = wb.views.answers(dataclasses.replace(beside, arms=("base",), asked=(hostile,))).body
    assert not re.search(r"<(img|iframe|svg)\b", html)
    assert html.count("<script") == html.count("</script>") == 1


def test_the_widget_keeps_what_is_typed(made: Made) -> None:
    _, arms, _, beside = made
    widget = ArmsCompare(arms, beside, live=False, max_tokens=12)
    widget.start(prompt=beside.asked[0].prompt, beginning="Sure, here is how to")
    assert widget.wait(60)
    assert (widget.selection.state, len(widget.record.asked)) == ("finished", len(beside.asked) + 1)
    typed = widget.record.asked[-1]
    assert typed.beginnings == {str(typed.answers[0].given): "Sure, here is how to"}
    assert {a.arm: a.verdict for a in typed.answers}["own name"] == "refusal"
    frame = widget.to_frame()
    assert set(frame["arm"]) == set(beside.arms)
    assert frame[frame["prompt_id"] == "typed"]["kl_nats"].notna().all()
    assert "typed" in str(widget.static().rows)
    with pytest.raises(ParameterError, match="empty"):
        widget.start(prompt=" ")
    with pytest.raises(ParameterError, match="no arm"):
        ArmsCompare([])
