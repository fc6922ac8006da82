"""Training rows, their sampler and the configs: what is trained on, and in which order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.errors import refuses
from workbench.core.errors import ParameterError, PromptError, UnknownName
from workbench.training.config import (
    ARMS,
    ArmConfig,
    LoraSettings,
    LossConfig,
    TrainConfig,
    WatchSettings,
    arm_with,
    values_of,
)
from workbench.training.rows import (
    RowMaker,
    Sampler,
    TrainingText,
    TrainingTexts,
    count_before,
    prepared,
    random_numbers,
)

ASKED, TOLD, SORRY = (1, 2, 3), tuple(range(10, 40)), (50, 51, 52, 53)


def texts(harmful: int = 7, utility: int = 11, harmless: int = 5) -> TrainingTexts:
    """Return made-up texts: prompts of three tokens, responses of thirty, refusals of four."""
    return TrainingTexts(
        harmful=tuple(
            TrainingText(name=f"h{n}", aligned=ASKED, base=(*ASKED, 9), response=TOLD, refusals=(SORRY,))
            for n in range(harmful)
        ),
        utility=tuple(TrainingText(name=f"u{n}", aligned=ASKED, base=ASKED, response=TOLD) for n in range(utility)),
        harmless=tuple(TrainingText(name=f"c{n}", aligned=ASKED, base=ASKED, response=TOLD) for n in range(harmless)),
    )


def maker(arm: str, **changes: object) -> RowMaker:
    return RowMaker(TrainConfig(arm=replace(ARMS[arm], **changes)))


def test_an_impossible_value_is_named() -> None:
    for make, word in [
        (lambda: LossConfig(temperature=0.0), "temperature"),
        (lambda: LossConfig(clip_percentile=0.0), "clip_percentile"),
        (lambda: LossConfig(completion_weight=-1.0), "completion_weight"),
        (lambda: LoraSettings(rank=0), "rank"),
        (lambda: ArmConfig(name="x", harmful="nothing", utility="nothing"), "loss"),
        (lambda: ArmConfig(name="x", harmful="refusal", penalise_rest=True), "penalise_rest"),
        (lambda: ArmConfig(name="x", harmful="recovery", retention=(0.0, 0.0)), "retention"),
        (lambda: TrainConfig(steps=0), "steps"),
        (lambda: TrainConfig(batch_size=8, micro_batch=3), "micro_batch"),
        (lambda: TrainConfig(harmful_share=1.5), "harmful_share"),
        (lambda: WatchSettings(film_every=0, kl_budget_nats=0.1), "kl_budget_nats"),
    ]:
        with pytest.raises(ParameterError, match=word):
            make()  # type: ignore[operator]


def test_arms_are_the_methods_and_readings_name_their_columns() -> None:
    wanted = (
        "refusal_sft augmentation paper paper_tuned completion_only teacher_only random_tokens aligned_favored "
        "recovery transition"
    )
    assert list(ARMS) == wanted.split()
    paper = ARMS["paper"]
    assert (paper.loss.teacher_lambda, paper.loss.temperature, paper.loss.direction) == (1.2, 2.0, "reverse")
    assert (paper.loss.completion, paper.loss.set_size, paper.loss.ranking) == ("squared", 100, "logit")
    assert (paper.loss.lambda_reg, paper.loss.alpha_base, paper.loss.gamma) == (0.01, 0.01, 2.0)
    assert (paper.optimiser.learning_rate, paper.optimiser.weight_decay, paper.optimiser.clip_norm) == (1e-5, 0.01, 1.0)
    assert (paper.lora.rank, paper.lora.alpha, paper.lora.targets) == (32, 8.0, None)
    refuses(lambda: TrainConfig(arm="recovry"), UnknownName, "recovery")


def test_recovery_reads_with_prefix_and_its_teacher_without() -> None:
    make = maker("recovery")
    for n in range(50):
        first, *rest = make.harmful(texts().harmful[0], random_numbers(0, "row", n))
        k = first.first - 1
        assert (first.part, first.role) == ("recovery", "RECOVERY")
        assert first.student.whole("aligned") == ASKED + TOLD[:k] + SORRY
        assert (first.frozen.whole("aligned"), first.frozen.response) == (ASKED + SORRY, SORRY)
        assert first.models == ("aligned",)
        assert first.labels == SORRY
        for row in rest:  # the harmful tokens after the prefix
            assert (row.role, row.first, row.labels) == ("COMPLETION", k + 1, TOLD[k:])
            assert row.models == ("aligned", "base")
            assert row.frozen.context("base") == (*ASKED, 9)
            assert row.frozen.given == row.student.given == k
    make = maker("augmentation")
    drawn = [make.harmful(texts().harmful[0], random_numbers(0, "k", n))[0].first - 1 for n in range(3000)]
    assert abs(drawn.count(0) / 3000 - 0.5) < 0.03
    others = np.bincount([k for k in drawn if k], minlength=31)[1:]
    assert len(others) == 30
    assert others.min() > 25  # 50 expected of each length
    make = maker("recovery")
    firsts = {make.plain(texts().harmless[0], "harmless", random_numbers(0, "c", n))[0].first for n in range(200)}
    assert (min(firsts), max(firsts)) == (1, 30)
    row = make.plain(texts().utility[0], "utility", random_numbers(0, "c", 0))[0]
    assert (row.first, row.labels, row.role) == (1, TOLD, "TEACHER")


@pytest.mark.parametrize("arm", ["completion_only", "paper", "teacher_only"])
def test_arms_without_refusals_train_along_the_harmful_response(arm: str) -> None:
    bare = tuple(replace(t, refusals=()) for t in texts().harmful)
    kept = prepared(replace(texts(), harmful=bare), TrainConfig(arm=arm))
    (row,) = RowMaker(TrainConfig(arm=arm)).harmful(kept.harmful[0], random_numbers(0, "x", 0))
    assert row.labels == TOLD
    assert "base" in row.models


def test_weights_have_mean_one_and_long_rows_are_cut() -> None:
    arm = replace(ARMS["refusal_sft"], retention=(0.2, 0.4, 0.6))
    row = RowMaker(TrainConfig(arm=arm)).harmful(texts().harmful[0], random_numbers(0, "w", 0))[0]
    assert row.weights == pytest.approx((0.5, 1.0, 1.5, 1.5))
    config = TrainConfig(max_tokens=20)
    crowded = TrainingText(name="long", aligned=(1,) * 30, base=(1,), response=TOLD, refusals=(SORRY,))
    made = prepared(replace(texts(), harmful=(crowded, *texts().harmful)), config)
    assert all(len(t.aligned) + len(t.response) <= 20 for t in (*made.harmful, *made.utility))
    said = " ".join(made.notes)
    assert "7 of 7 harmful responses are cut to fit into 20 tokens" in said
    assert "1 of 8 harmful rows are dropped" in said
    for n in range(40):  # the prefix leaves room for the refusal
        for row in RowMaker(config).harmful(made.harmful[0], random_numbers(0, "r", n)):
            assert len(row.student.whole("aligned")) <= 21
    refuses(lambda: prepared(replace(texts(), harmful=()), TrainConfig()), PromptError)
    refuses(lambda: prepared(texts(), TrainConfig(max_tokens=3)), PromptError)
    bare = tuple(replace(t, refusals=()) for t in texts().harmful)
    refuses(lambda: prepared(replace(texts(), harmful=bare), TrainConfig()), PromptError, "7")
    refuses(lambda: prepared(replace(texts(), utility=(), harmless=()), TrainConfig()), PromptError, "utility")


def kinds(sampler: Sampler, size: int, steps: int) -> list[list[str]]:
    return [[sampler[s * size + n].name.split()[0] for n in range(size)] for s in range(steps)]


def test_the_sampler_is_fair_and_repeats() -> None:
    drawn = kinds(Sampler(texts(), TrainConfig(steps=10)), 8, 10)
    assert [row.count("harmful") for row in drawn] == [3, 3, 3, 3, 4] * 2
    others = [k for row in drawn for k in row if k != "harmful"]
    assert others.count("harmless") == others.count("utility") == 24
    config = TrainConfig(steps=50, seed=3)
    one, other = Sampler(texts(), config), Sampler(texts(), config)
    list(map(one.__getitem__, range(100)))
    assert [one[n] for n in (390, 17, 390)] == [other[n] for n in (390, 17, 390)]
    assert Sampler(texts(), replace(config, seed=4))[17] != other[17]
    sampler = Sampler(texts(), TrainConfig(steps=40))
    for kind, count in (("harmful", 7), ("utility", 11), ("harmless", 5)):
        names = [d.name for d in map(sampler.__getitem__, range(len(sampler))) if d.name.startswith(kind)]
        assert len(names) > 2 * count
        assert (len(set(names[:count])), set(names[count : 2 * count])) == (count, set(names[:count]))
        assert names[count : 2 * count] != names[:count]
    one, other = (Sampler(texts(), TrainConfig(arm=a, steps=9)) for a in ("paper", "completion_only"))
    for n in range(72):
        a, b = one[n], other[n]
        if a.name.startswith("harmful"):
            assert a == b
        else:
            assert b.rows == ()
    assert ([count_before(0.4, 8, b) for b in range(6)], count_before(0.3, 10, 1000)) == ([0, 3, 6, 9, 12, 16], 3000)


def test_an_arms_values_change_where_they_stand() -> None:
    made = arm_with(
        "recovery", learning_rate=1e-3, rank=8, teacher_lambda=1.1, teacher_weight=2.0, harmless_share=0.2, alpha=None
    )
    assert (made.optimiser.learning_rate, made.lora.rank, made.harmless_share) == (1e-3, 8, 0.2)
    assert (made.loss.teacher_lambda, made.loss.teacher_weight) == (1.1, 2.0)
    assert made.lora.alpha == ARMS["recovery"].lora.alpha
    refuses(lambda: arm_with("recovery", learning_rat=1e-3), ParameterError, "learning_rate")
    given = ["clip_percentile: 95", "penalise_rest: true", "retention: [0.5, 1.0]", "targets: [q_proj]"]
    read = values_of(given, rank=4)
    assert read == {
        "clip_percentile": 95,
        "penalise_rest": True,
        "retention": (0.5, 1.0),
        "targets": ("q_proj",),
        "rank": 4,
    }
    made = arm_with("recovery", **read)
    assert (made.loss.clip_percentile, made.penalise_rest, made.lora.rank) == (95, True, 4)
    assert arm_with("recovery", **values_of(["retention: measured"], rank=None)).retention == "measured"
    for wrong in ("clip_percentile", "a: 1: 2", "[1]", "3: 4"):
        with pytest.raises(ParameterError):
            values_of([wrong])
    assert arm_with("recovery", **values_of(["learning_rate: 1e-3"])).optimiser.learning_rate == 1e-3  # text to YAML
    refuses(lambda: values_of(["targets: null"]), ParameterError)
    refuses(lambda: values_of(["rank: 8"], rank=4), ParameterError, "'rank: 8'")
    refuses(lambda: values_of(["gamma: 1", "gamma: 1"]), ParameterError, "gamma")
    for name, value, want in (
        ("rank", "x", "whole"),
        ("rank", 2.5, "whole"),
        ("rank", True, "whole"),
        ("learning_rate", "fast", "number"),
        ("penalise_rest", 1, "true or false"),
    ):
        with pytest.raises(ParameterError, match=f"{name} is {value!r}.*{want}"):
            arm_with("recovery", **{name: value})
    assert arm_with("recovery", learning_rate=1).optimiser.learning_rate == 1
