"""The objective over positions: plain gradients whatever the chunks and batches, and what each role needs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.errors import refuses
from tests.test_train_heads import Allocations
from tests.tiny_pair import tiny_pair
from workbench.core.errors import ParameterError
from workbench.core.passages import Passage
from workbench.core.store import Store
from workbench.training import losses
from workbench.training.config import LossConfig
from workbench.training.losses import completion_set
from workbench.training.objective import Heads, Losses, Positions, Role, recovery_nats, streamed_loss
from workbench.training.references import reference_states

N, HIDDEN, BASE_HIDDEN, VOCAB = 30, 8, 11, 120
CONFIG = LossConfig(
    ranking="mass", set_size=10, lambda_reg=1.0, alpha_base=0.5, clip_percentile=70.0, completion_weight=0.5
)
COUNT = float(N)


def made_heads(vocab: int = VOCAB) -> tuple[Heads, list[torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    weights = [torch.randn(vocab, hidden, generator=g) for hidden in (HIDDEN, BASE_HIDDEN)]
    student = torch.nn.Parameter(weights[0].clone())
    heads = Heads(
        student=lambda h: h @ student.T,
        aligned=lambda h: h @ weights[0].T,
        base=lambda h: h @ weights[1].T,
        vocab=vocab,
        trained=(student,),
    )
    return heads, weights


def made_positions(role: Role = Role.LABEL, n: int = N, vocab: int = VOCAB, seed: int = 1) -> Positions:
    g = torch.Generator().manual_seed(seed)
    states = [torch.randn(n, hidden, generator=g) for hidden in (HIDDEN, HIDDEN, BASE_HIDDEN)]
    return Positions(
        role=role, student=states[0].requires_grad_(), aligned=states[1], base=states[2],
        label=torch.randint(0, vocab, (n,), generator=g),
        weight=torch.rand(n, generator=g) + 0.5, position=torch.arange(n) // 4 + 1, key=torch.arange(n),
    )  # fmt: skip


def plain(heads: Heads, p: Positions, config: LossConfig) -> torch.Tensor:
    """Every position through every head at once, then a formula a role."""
    assert p.aligned is not None
    assert p.base is not None
    assert p.position is not None
    z, a, b = heads.student(p.student), heads.aligned(p.aligned), heads.base(p.base)
    ids = completion_set(b, a, ranking=config.ranking, size=config.set_size, key=p.key)
    alpha = losses.adaptive_strength(losses.base_favored_share(b, a), alpha_base=config.alpha_base, gamma=config.gamma)
    recovery = losses.recovery(z, a)
    rows = {
        Role.LABEL: torch.nn.functional.cross_entropy(z, p.label, reduction="none"),
        Role.TEACHER: losses.distillation(
            z, config.teacher_lambda * a + (1 - config.teacher_lambda) * b,
            direction=config.direction, temperature=config.temperature,
        ),
        Role.RECOVERY: losses.clipped(recovery, losses.clip_level(recovery, config.clip_percentile)),
        Role.COMPLETION: alpha * config.lambda_reg * losses.completion(
            z, ids, variant=config.completion, aligned=a, margin=config.hinge_margin
        ),
        Role.BASE: losses.distillation(z, b, direction=config.direction, temperature=config.temperature),
        Role.TRANSITION: recovery,
        Role.CONSTRAINT: losses.constrained(z, a, p.label, losses.beta_at(p.position)),
    }[p.role]  # fmt: skip
    return getattr(config, f"{p.role.name.lower()}_weight") * (p.weight * rows).sum() / COUNT


def gradients(total: torch.Tensor, heads: Heads, p: Positions) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(total, (p.student, *heads.trained))


def assert_close(got: tuple[torch.Tensor, ...], want: tuple[torch.Tensor, ...]) -> None:
    for one, other in zip(got, want, strict=True):
        assert other.norm() > 0
        assert ((one - other).norm() / other.norm()).item() < 1e-5


CONFIGS = {
    c.completion: c
    for c in (
        CONFIG,
        replace(CONFIG, completion="logprob_hinge", direction="forward", teacher_lambda=1.0),
        replace(CONFIG, completion="unlikelihood", direction="jsd", ranking="random", clip_percentile=100.0),
        replace(CONFIG, completion="one_sided", ranking="logit", temperature=1.0),
        replace(CONFIG, completion="centred", ranking="aligned_favored"),
    )
}
VARIED = (Role.TEACHER, Role.BASE, Role.RECOVERY, Role.COMPLETION)
CASES = [pytest.param(r, c, id=f"{r.name}-{n}") for r in Role for n, c in CONFIGS.items() if r in VARIED or c is CONFIG]


@pytest.mark.parametrize("chunk", [1, 3, N])
@pytest.mark.parametrize(("role", "config"), CASES)
def test_gradients_equal_the_plain_ones(chunk: int, role: Role, config: LossConfig) -> None:
    heads, _ = made_heads()
    p = made_positions(role)
    want = plain(heads, p, config)
    got = streamed_loss(heads, p, config, normaliser=COUNT, chunk_rows=chunk)
    assert got.total.item() == pytest.approx(want.item(), rel=1e-5)
    assert_close(gradients(got.total, heads, p), gradients(want, heads, p))


class Reads(TorchDispatchMode):
    """List what makes Python wait for a GPU: values read from tensors, and tensors made of Python's values."""

    WAIT = ("_local_scalar_dense", "nonzero", "lift_fresh", "randperm", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += [name for name in self.WAIT if func.name() == f"aten::{name}"]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("role", "config"), CASES)
def test_no_value_is_read_and_none_is_copied_inside_a_block(role: Role, config: LossConfig) -> None:
    """Fake tensors have no values, so reading one fails; `Reads` counts what they would let pass."""
    seen = []
    with FakeTensorMode(allow_non_fake_inputs=True):
        heads, _ = made_heads()
        p = made_positions(role)
        for chunk in (N, 2):
            with Reads() as reads:
                streamed_loss(heads, p, config, normaliser=COUNT, chunk_rows=chunk).total.backward()
            seen.append(reads.seen)
    assert seen[0] == seen[1] == (["lift_fresh"] if role == Role.CONSTRAINT else []), "beta_t, once a pass"


def test_the_meter_sees_reads_and_copies() -> None:
    with Reads() as reads:
        assert float(torch.ones(())) == 1.0
        assert torch.tensor([1, 0]).nonzero().tolist() == [[0]]
        torch.randperm(3)
    assert sorted(set(reads.seen)) == ["_local_scalar_dense", "lift_fresh", "nonzero", "randperm"]


def part_of(p: Positions, rows: torch.Tensor) -> Positions:
    return replace(p, **{k: v[rows] for k, v in vars(p).items() if isinstance(v, torch.Tensor)})


@pytest.mark.parametrize("parts", [2, 5, N])
@pytest.mark.parametrize("role", Role)
def test_one_step_is_the_same_in_one_forward_pass_and_in_several(parts: int, role: Role) -> None:
    heads, _ = made_heads()
    p = made_positions(role)
    whole = streamed_loss(heads, p, CONFIG, normaliser=COUNT)
    pieces = [part_of(p, rows) for rows in torch.randperm(N).chunk(parts)]
    level = None
    if role == Role.RECOVERY:
        level = losses.clip_level(torch.cat([recovery_nats(heads, piece) for piece in pieces]), CONFIG.clip_percentile)
    several = [
        streamed_loss(heads, piece, CONFIG, normaliser=COUNT, clip_nats=level, chunk_rows=2).total for piece in pieces
    ]
    total = torch.stack(several).sum()
    assert total.item() == pytest.approx(whole.total.item(), rel=1e-5)
    assert_close(gradients(total, heads, p), gradients(whole.total, heads, p))


def test_parts_and_levels_are_the_steps() -> None:
    heads, _ = made_heads()
    for role in Role:
        p = made_positions(role)
        got = streamed_loss(heads, p, CONFIG, normaliser=COUNT)
        total = getattr(CONFIG, f"{role.name.lower()}_weight") * (p.weight * got.rows).sum().item() / COUNT
        assert got.total.item() == pytest.approx(total, rel=1e-5)
    p = made_positions(Role.RECOVERY)
    values = recovery_nats(heads, p, chunk_rows=4)
    assert values.shape == (N,)
    assert not values.requires_grad
    rows = streamed_loss(heads, p, CONFIG, normaliser=COUNT).rows
    level = losses.clip_level(values, CONFIG.clip_percentile)
    assert level.item() == pytest.approx(values.quantile(0.7).item())
    assert torch.allclose(rows, values.clamp(max=level))
    assert 0 < (rows < values).sum() < len(values)
    assert losses.clip_level(values, 100.0) == math.inf


@pytest.mark.parametrize("chunk", [1, 3])
def test_no_tensor_of_positions_by_vocabulary_is_made(chunk: int) -> None:
    vocab, n = 3000, 30
    heads, weights = made_heads(vocab)
    heads = replace(heads, trained=(), student=lambda h: h @ weights[0].T)
    for role in Role:
        p = made_positions(role, n, vocab)
        with Allocations(weights) as made:
            streamed_loss(heads, p, CONFIG, normaliser=COUNT, chunk_rows=chunk).total.backward()
        assert chunk * vocab <= made.largest < (chunk + 1) * vocab


def test_what_is_missing_or_not_a_number_is_named() -> None:
    heads, _ = made_heads()
    for role, missing in [
        (Role.TEACHER, "aligned"), (Role.TEACHER, "base"), (Role.RECOVERY, "aligned"), (Role.COMPLETION, "base"),
        (Role.CONSTRAINT, "aligned"), (Role.CONSTRAINT, "position"), (Role.BASE, "base"), (Role.TRANSITION, "aligned"),
    ]:  # fmt: skip
        p = replace(made_positions(role), **{missing: None})
        with pytest.raises(ParameterError, match=f"{role.name}.*{missing}"):
            streamed_loss(heads, p, CONFIG, normaliser=COUNT)
    p = replace(made_positions(Role.COMPLETION), key=None)
    with pytest.raises(ParameterError, match=r"COMPLETION.*key"):
        streamed_loss(heads, p, replace(CONFIG, ranking="random"), normaliser=COUNT)
    refuses(lambda: streamed_loss(heads, made_positions(), CONFIG, normaliser=0.0), ParameterError, "LABEL", "0")
    p = made_positions()
    with torch.no_grad():
        p.student[7] = torch.nan
    got: Losses = streamed_loss(heads, p, CONFIG, normaliser=COUNT)
    assert got.total.isnan()
    assert got.rows.isnan().nonzero().flatten().tolist() == [7]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reference_states_are_the_models_own_and_kept_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    from workbench.models.pair import ModelPair

    pair = tiny_pair("llama")
    with pair.model("base") as base, pair.model("aligned") as aligned:
        pair = ModelPair.from_models(base.to(dtype), aligned.to(dtype), pair.tokenizer)
    contexts, responses = [(0, 9, 8), (0, 7), (0, 9, 8), (5,)], [(11, 12), (13,), (11, 12), (14, 15, 16)]
    passages = [Passage(name="", aligned=c, response=r) for c, r in zip(contexts, responses, strict=True)]
    store = Store(tmp_path)
    made = reference_states(pair, "aligned", passages, store=store, what=None)
    assert [tuple(m.shape) for m in made] == [(2, 32), (1, 32), (2, 32), (3, 32)]
    assert len(store) == 3  # what is equal is computed once
    for state, context, response in zip(made, contexts, responses, strict=True):
        whole = pair.hidden("aligned", torch.tensor([context + response]))[0, len(context) - 1 : -1]
        assert state.dtype == dtype
        assert torch.allclose(state.float(), whole.float(), atol=1e-5 if dtype == torch.float32 else 0.05)
    again = reference_states(pair, "aligned", passages, store=Store(tmp_path), what=None)
    assert all(torch.equal(x, y) for x, y in zip(made, again, strict=True))
    more = reference_states(
        pair, "aligned", [Passage(name="", aligned=(3,), response=(4,)), *passages], store=store, what=None
    )
    assert all(torch.equal(x, y) for x, y in zip(made, more[1:], strict=True))
    other = reference_states(pair, "base", passages, store=store, what=None)
    assert not torch.equal(other[0], made[0])
    assert made[0].clone().requires_grad_().sum().backward() is None  # no inference tensor: can be trained against
