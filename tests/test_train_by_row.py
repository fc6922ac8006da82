"""A teacher for each row and transition distillation: a step's loss against a plain loop, and where rows come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.errors import refuses
from tests.fakes import prompt_set
from tests.test_train_loop import config, ids, texts
from tests.tiny_pair import tiny_pair
from workbench.core.errors import ParameterError
from workbench.core.passages import Sample
from workbench.judging.contract import scored
from workbench.judging.records import Judgement, Measures, Verdict
from workbench.models.chat import turn_end
from workbench.models.generation import generate
from workbench.models.pair import ModelPair, Which
from workbench.training.config import ARMS, PERTURBING, ArmConfig, LossConfig, TrainConfig
from workbench.training.data import TrainingDataConfig, training_texts
from workbench.training.objective import Heads
from workbench.training.references import References, wanted_passages
from workbench.training.rows import RowMaker, Sampler, TrainingTexts, noise_of, random_numbers
from workbench.training.step import StepLoss
from workbench.training.student import Student, student_of

RECOVERY = ARMS["recovery"]


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return tiny_pair("llama", shift=0.3)


def moved(student: Student) -> None:
    """Give the student weights of its own, so that no loss is 0."""
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.05)


def log_p(pair: ModelPair, which: Which, context: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return pair.logits(which, pair.hidden(which, torch.tensor([list(context)])))[0, -1].double().log_softmax(-1)


def student_log_p(student: Student, heads: Heads, context: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        at = torch.tensor([len(context) - 1])
        hidden = student.hidden(torch.tensor([list(context)]), torch.zeros(1, dtype=torch.long), at)
        return heads.student(hidden)[0].double().log_softmax(-1)


def kl(p: torch.Tensor, q: torch.Tensor) -> float:
    return float((p.exp() * (p - q)).sum())


def losses_of(pair: ModelPair, some: TrainingTexts, how: TrainConfig) -> tuple[dict[str, float], dict[str, float]]:
    """Return each part's share of one step's total: the trainer's, and that of a loop over tokens and contexts."""
    sampler = Sampler(some, how)
    (draws,) = sampler.passes(1)
    got: dict[str, float] = {}
    slow: dict[str, list[float]] = {}
    loss = how.chosen.loss
    with student_of(pair, how.chosen.lora, 0) as student:
        moved(student)
        heads = Heads.of(pair, student.peft)
        step = StepLoss(heads, References(pair, some, how, None), how, pair.device)
        counts = step.counts(student, [draws])
        for part in counts.positions:
            only = [replace(d, rows=tuple(r for r in d.rows if r.part == part)) for d in draws]
            got[part] = step(student, [d for d in only if d.rows], counts).total.item()
        for row in (r for d in draws for r in d.rows):
            text = next(t for t in (*some.harmful, *some.utility, *some.harmless) if t.name == row.student.name)
            for j, token in enumerate(row.labels):
                read = row.student.whole("aligned")[: len(row.student.aligned) + row.student.given + j]
                q = student_log_p(student, heads, read)
                if row.part == "transition":
                    assert how.chosen.perturbed or read == text.aligned + text.response[:j]
                    value = loss.transition_weight * kl(log_p(pair, "aligned", text.aligned), q)
                elif row.part == "utility_label":
                    value = -q[token].item()
                elif row.part in ("utility", "utility_base"):
                    which: Which = "base" if row.part == "utility_base" else "aligned"
                    context = text.context(which) + text.response[: row.student.given + j]
                    value = loss.teacher_weight * kl(log_p(pair, which, context), q)
                else:
                    context = row.frozen.aligned + row.frozen.response[:j]
                    value = kl(log_p(pair, "aligned", context), q)
                slow.setdefault(row.part, []).append(value)
    utility = sum(len(v) for part, v in slow.items() if part.startswith("utility"))
    over = {part: utility if part.startswith("utility") else len(v) for part, v in slow.items()}
    return got, {part: math.fsum(v) / over[part] for part, v in slow.items()}


def mixed_texts() -> TrainingTexts:
    """Texts of all three teachers; base reads its own prompt."""
    some = texts()
    teachers: Any = ("aligned", "base", "label")
    utility = tuple(
        replace(t, teacher=teachers[n % 3], base=(*ids(800 + n, 3), *t.aligned)) for n, t in enumerate(some.utility)
    )
    return replace(some, utility=utility, harmless=tuple(replace(t, teacher="base") for t in some.harmless))


def test_a_step_of_all_teachers_is_the_mean_of_a_plain_loop(pair: ModelPair) -> None:
    how = config(replace(RECOVERY, transition=True), batch_size=16, prefix_tokens=6)
    got, slow = losses_of(pair, mixed_texts(), how)
    assert set(got) == {"recovery", "transition", "utility", "utility_base", "utility_label"}
    assert got == pytest.approx(slow, rel=2e-4)
    assert min(got.values()) > 1e-3


def test_a_perturbed_prompt_is_the_students_alone_and_its_teacher_reads_the_clean_one(pair: ModelPair) -> None:
    some = mixed_texts()
    ends = {k: tuple(replace(t, turn_end=3) for t in getattr(some, k)) for k in ("harmful", "utility", "harmless")}
    ready, arm = replace(some, **ends), replace(RECOVERY, transition=True, perturbed=1.0)
    how = config(arm, batch_size=16, prefix_tokens=6)
    got, slow = losses_of(pair, ready, how)
    assert got == pytest.approx(slow, rel=2e-4)
    clean, _ = losses_of(pair, ready, config(replace(arm, perturbed=0.0), batch_size=16, prefix_tokens=6))
    assert all(abs(got[part] - clean[part]) > 1e-4 for part in got)
    noise, put = set(noise_of(ready)), list[int]()
    assert noise <= {i for t in (*some.utility, *some.harmless) for i in t.response[:-1]}
    for n in range(48):
        for row in Sampler(ready, how)[n].rows:
            text = next(t for t in (*ready.harmful, *ready.utility, *ready.harmless) if t.name == row.student.name)
            more = len(row.student.aligned) - len(text.aligned) - (row.first - 1 if row.part == "recovery" else 0)
            assert row.student.aligned[:3] == text.aligned[:3]
            assert row.student.aligned[3 + more :][: len(text.aligned) - 3] == text.aligned[3:]
            assert set(row.student.aligned[3 : 3 + more]) <= noise
            assert row.frozen.aligned == text.aligned
            put.append(more)
    assert (min(put), max(put)) == PERTURBING
    half = [Sampler(ready, replace(how, arm=replace(arm, perturbed=0.5)))[n].rows for n in range(200)]
    touched = sum(len(r[0].student.aligned) - r[0].first * (r[0].part == "recovery") > 8 for r in half if r)
    assert 60 < touched < 140
    assert Sampler(some, how)[3].rows == Sampler(some, replace(how, arm=replace(arm, perturbed=0.0)))[3].rows, (
        "no place"
    )
    refuses(lambda: replace(arm, perturbed=1.5), ParameterError, "perturbed")


@pytest.mark.parametrize("mode", ["shared", "plain"])
def test_the_place_of_random_tokens_is_the_end_of_the_users_turn(mode: Any) -> None:
    pair = tiny_pair(shift=0.3, template_mode=mode)
    asked = prompt_set("the cat sat", response="is it", label="harmless").prompts[0]
    harmful = replace(prompt_set("the sea").prompts[0], id="h")
    both = replace(prompt_set("the sea"), prompts=(harmful, asked))
    made = training_texts(pair, both, harmful_from="given", utility_from="given", judge=Plainly(), refusals=1)
    for text, prompt in zip((*made.harmful, *made.utility), (harmful, asked), strict=True):
        assert text.turn_end is not None
        shown = pair.decode(text.aligned[: text.turn_end]) + "|" + pair.decode(text.aligned[text.turn_end :])
        assert f"{prompt.prompt}|" in shown


class Plainly:
    """A judge to whom every answer complies."""

    name, version = "plainly", "1"
    measures: Measures = "attack success"

    def judge(self, batch: Sequence[Sample]) -> list[Judgement]:
        return [scored(s, verdict="compliance") for s in batch]


def test_only_a_distilling_arm_has_teachers_by_row(pair: ModelPair) -> None:
    labels = RowMaker(TrainConfig(arm="augmentation"))
    for text in mixed_texts().utility:
        (row,) = labels.plain(text, "utility", random_numbers(0, "x", 0))
        assert (row.part, row.role, row.models) == ("utility", "LABEL", ())
    hybrid = wanted_passages(mixed_texts(), replace(RECOVERY, loss=replace(RECOVERY.loss, teacher_lambda=1.2)))
    plainly = wanted_passages(mixed_texts(), RECOVERY)
    assert {p.name for p in plainly["base"]} == {"u1", "u4", "c0", "c1", "c2", "c3"}
    assert {p.name for p in hybrid["base"]} == {"u0", "u3", *(p.name for p in plainly["base"])}


def test_transition_rows_go_along_what_is_drawn_and_fit(pair: ModelPair) -> None:
    text = texts().harmful[2]
    for most, room, length in ((100, 512, len(text.response)), (4, 512, 4), (100, len(text.aligned) + 7, 7)):
        how = TrainConfig(arm=replace(RECOVERY, transition=True), prefix_tokens=most, max_tokens=room)
        row = RowMaker(how).after(text, 0, text.refusals[0])[-1]
        assert (row.role, row.labels, row.first) == ("TRANSITION", text.response[:length], 1)
    off = replace(RECOVERY, transition=True, loss=replace(RECOVERY.loss, transition_weight=0.0))
    assert len(RowMaker(TrainConfig(arm=off)).after(text, 0, text.refusals[0])) == 1
    assert ARMS["transition"] == replace(RECOVERY, name="transition", transition=True)
    for use in ("nothing", "compliance"):
        refuses(lambda use=use: ArmConfig(name="x", harmful=use, transition=True), ParameterError, "transition")  # type: ignore[misc]
    refuses(lambda: LossConfig(transition_weight=-0.1), ParameterError, "transition_weight")


class Knows:
    """A judge that knows each model's answers: aligned refuses "first" and "second", base complies but for "second"."""

    name, version = "knows", "1"
    measures: Measures = "attack success"

    def __init__(self, aligned: dict[str, str]) -> None:
        self.aligned = aligned

    def judge(self, batch: Sequence[Sample]) -> list[Judgement]:
        return [scored(s, verdict=self.verdict(s)) for s in batch]

    def verdict(self, sample: Sample) -> Verdict:
        if sample.label == "harmful":
            return "refusal" if sample.text == self.aligned[sample.request] else "compliance"
        if sample.text == self.aligned[sample.request]:
            return "refusal" if sample.request in ("the cat sat", "the dog") else "compliance"
        return "other" if sample.request == "the dog" else "compliance"


def made_of(pair: ModelPair, teacher: Any, source: Any) -> TrainingTexts:
    asked = prompt_set("the cat sat", "the dog", "on the mat", "the sea", response="is it")
    labels = ("harmless", "harmless", "harmless", "harmful")
    asked = replace(asked, prompts=tuple(replace(p, label=x) for p, x in zip(asked, labels, strict=True)))  # type: ignore[arg-type]
    own = generate(pair, "aligned", [pair.context(p, "aligned") for p in asked], max_tokens=8)
    said = {p.prompt: pair.decode([i for i in g.ids if i not in pair.eos_ids]) for p, g in zip(asked, own, strict=True)}
    how = TrainingDataConfig(utility_from=source, refused_teacher=teacher, judge=Knows(said), max_tokens=8, refusals=1)
    return training_texts(pair, asked, how)


@pytest.mark.parametrize("source", ["aligned", "given"])
def test_a_safe_prompt_that_aligned_refuses_gets_the_teacher_asked_for(pair: ModelPair, source: Any) -> None:
    given = [(*pair.encode("is it" + " again" * n), turn_end(pair.tokenizer)) for n in range(3)]
    teachers = {}
    for teacher in ("aligned", "base", "label"):
        made = made_of(pair, teacher, source).utility
        teachers[teacher] = [t.teacher for t in made]
        first, second, third = made
        base = generate(pair, "base", [pair.context(prompt_set("the cat sat").prompts[0], "base")], max_tokens=8)[0]
        assert first.response == (base.ids if teacher == "base" else given[0])
        assert second.response == given[1], "base does not answer it well"
        assert (third.response == given[2]) == (source == "given")
    assert teachers == {
        "aligned": ["aligned"] * 3, "base": ["base", "label", "aligned"], "label": ["label", "label", "aligned"]
    }  # fmt: skip
    said = " ".join((*made_of(pair, "base", source).notes, *made_of(pair, "base", source).sources))
    assert "Their teachers: 1 base, 1 label." in said
    assert "teacher is base" in said
