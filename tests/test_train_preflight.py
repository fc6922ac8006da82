"""What the pre-flight estimates, against what a training does: rows, bytes for the way back, logits, and the clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.test_train_loop import LORA, QUIET, config, ids, parameters, same, texts
from tests.tiny_pair import ARCHITECTURES, Arch, tiny_models, tiny_pair, tiny_tokenizer
from workbench.models.pair import ModelPair
from workbench.training import memory
from workbench.training.config import ARMS, FURTHER, ArmConfig, Direction, LossConfig, TrainConfig
from workbench.training.film import Camera, scenes_of
from workbench.training.heads import Heads
from workbench.training.memory import LOGITS, memory_mib
from workbench.training.objective import Positions, Role, streamed_loss
from workbench.training.preflight import TIMED_STEPS, filmed, timed
from workbench.training.references import References, states_mib, wanted_passages
from workbench.training.rows import Draw, Sampler, prepared
from workbench.training.step import StepLoss
from workbench.training.student import student_of

EVERY_ARM: dict[str, ArmConfig] = {
    **ARMS,
    **FURTHER,
    "recovery, the rest too": replace(ARMS["recovery"], penalise_rest=True),
}


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return tiny_pair("llama")


@pytest.mark.parametrize("arm", EVERY_ARM.values(), ids=EVERY_ARM)
def test_no_pass_that_is_drawn_is_larger_than_the_estimated_one(arm: ArmConfig) -> None:
    some = texts()
    harmful = [replace(t, response=ids(900 + n, 20 + 9 * n)) for n, t in enumerate(some.harmful)]
    some = replace(some, harmful=tuple(harmful))
    for more in ({}, {"micro_batch": 2}, {"harmful_share": 1.0}, {"max_tokens": 40, "prefix_tokens": 7}):
        how: TrainConfig = config(arm, steps=40, **more)
        kept = prepared(some, how)
        sampler, size = Sampler(kept, how), how.rows_in_a_pass
        passes = [[sampler[n + m] for m in range(size)] for n in range(0, len(sampler), size)]
        drawn = [[r for d in one for r in d.rows] for one in passes]
        estimated = max(map(memory._tokens, memory._passes(kept, how)))
        largest = max(len(rows) * max(len(r.student.whole("aligned")) - 1 for r in rows) for rows in drawn if rows)
        assert largest <= estimated <= 1.5 * largest
        logits = max(n * row.positions for one in memory._passes(kept, how) for n, row in one)
        parts = [{p: sum(len(r.labels) for r in rows if r.part == p) for p in (r.part for r in rows)} for rows in drawn]
        assert max(n for found in parts for n in found.values()) <= logits


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_what_the_way_back_needs_is_estimated_for_every_architecture(arch: Arch, attention: str) -> None:
    models = tiny_models(arch, 320)
    for model in models:
        model.set_attn_implementation(attention)
    pair, how = ModelPair.from_models(*models, tiny_tokenizer()), config()
    passes = memory._passes(texts(), how)
    rows, tokens = sum(n for n, _ in passes[0]), max(row.tokens for _, row in passes[0])
    with student_of(pair, LORA, 0) as student:
        weights = {t.untyped_storage().data_ptr() for t in (*student.peft.parameters(), *student.peft.buffers())}
        kept: dict[int, torch.Tensor] = {}  # by storage; held, so that no address is given out twice

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        student.train(True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            first = torch.zeros(1, dtype=torch.long)
            student.hidden(torch.tensor([ids(0, tokens)] * rows), first, first)
    real = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in weights)
    assert 0.75 < memory._body_mib(pair, passes, how) * 2**20 / real < 1.5


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("direction", get_args(Direction))
def test_a_chunk_of_logits_lives_in_as_many_buffers_as_are_counted(pair: ModelPair, role: Role, direction: Any) -> None:
    labels = role in (Role.LABEL, Role.CONSTRAINT)
    counted = LOGITS["labels" if labels else direction if role == Role.TEACHER else "reverse"]
    n, width = 64, 32
    with pair.model("aligned") as model:
        heads = replace(Heads.of(pair, model), trained=())
    given = {name: torch.randn(n, width) for name in ("aligned", "base")}

    def one_chunk() -> None:
        positions = Positions(
            student=torch.randn(n, width, requires_grad=True),
            label=torch.zeros(n, dtype=torch.long),
            role=torch.full((n,), int(role)),
            weight=torch.ones(n),
            position=torch.arange(1, n + 1),
            **given,
        )
        streamed_loss(heads, positions, LossConfig(direction=direction), normalisers={role: float(n)}, chunk_rows=n)

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        one_chunk()
    events = sorted((e.start_ns(), e.nbytes()) for e in seen.profiler.kineto_results.events() if e.name() == "[memory]")
    peak = float(np.cumsum([size for _, size in events]).max())
    buffers = peak / (4 * n * pair.vocab)
    assert counted - 1.5 < buffers < counted + 1.5


def test_states_that_are_not_kept_are_not_counted_and_are_read_in_every_pass(
    pair: ModelPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = config("paper")
    kept, states = memory_mib(pair, 0, texts(), how), states_mib(pair, wanted_passages(texts(), how.chosen))
    monkeypatch.setattr(memory, "KEPT_MIB", 0)
    read = memory_mib(pair, 0, texts(), how)
    assert states > 0.0
    assert read >= kept - states
    labels = config("augmentation")  # reads nothing
    assert memory_mib(pair, 0, texts(), labels) > 0.0


class Counted(Sampler):
    """Remember which rows were drawn."""

    drawn: list[int]

    def __getitem__(self, number: int) -> Draw:
        self.drawn.append(number)
        return super().__getitem__(number)


def test_steps_are_timed_all_over_the_training(pair: ModelPair) -> None:
    for steps, expected in ((60, [10, 30, 50]), (3, [0, 1, 2]), (2, [0, 1]), (1, [0])):
        how = config(steps=steps)
        with student_of(pair, LORA, 0) as student:
            loss = StepLoss(Heads.of(pair, student.peft), References(pair, texts(), how, None), how, pair.device)
            sampler = Counted(texts(), how)
            sampler.drawn = []
            assert timed(student, loss, sampler, how) > 0.0
        assert sorted({n // how.batch_size for n in sampler.drawn}) == expected
        assert len(sampler.drawn) == how.batch_size * min(TIMED_STEPS, steps)


def test_the_clock_leaves_weights_modes_and_random_numbers_alone(pair: ModelPair) -> None:
    how = replace(config(), watch=replace(QUIET, film_every=2))
    dropout = replace(LORA, dropout=0.5)  # draws random numbers where it is on
    before = parameters(pair)
    with student_of(pair, dropout, 0) as student:
        heads = Heads.of(pair, student.peft)
        loss, sampler = StepLoss(heads, References(pair, texts(), how, None), how, pair.device), Sampler(texts(), how)
        student.train(True)
        adapter, modes = student.state(), [m.training for m in student.peft.modules()]
        numbers, others = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
        assert timed(student, loss, sampler, how) > 0.0
        assert filmed(pair, student, heads, scenes_of(texts(), 99), how) > 0.0
        assert same(adapter, student.state())
        assert all(p.grad is None for p in student.parameters())
        assert modes == [m.training for m in student.peft.modules()]
        assert torch.equal(numbers, torch.get_rng_state())  # beartype draws Python's own, so these are not compared
        assert others == np.random.get_state()[1].tolist()  # type: ignore[index]
    assert same(before, parameters(pair))


def test_one_frame_stands_for_the_film(pair: ModelPair, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(Camera, "take", lambda self, step: taken.append(step))
    with student_of(pair, LORA, 0) as student:
        heads = Heads.of(pair, student.peft)
        scenes = scenes_of(texts(), 99)
        assert filmed(pair, student, heads, scenes, config()) == 0.0
        assert taken == []
        assert filmed(pair, student, heads, scenes, replace(config(), watch=replace(QUIET, film_every=1))) > 0.0
        assert taken == [0]
