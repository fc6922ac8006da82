"""Losses streamed through the heads: the gradients of the plain computation, and nothing of positions x vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tiny_pair import tiny_adapter, tiny_models, tiny_pair, tiny_tokenizer
from workbench.models import weights
from workbench.models.pair import ModelPair
from workbench.models.sources import quiet_libraries
from workbench.training.objective import CHUNK_MIB, Heads, rows_in_a_chunk, streamed


class Allocations(TorchDispatchMode):
    """Record the largest tensor that any operation makes, parameters and views of them left out."""

    def __init__(self, parameters: list[torch.Tensor]) -> None:
        super().__init__()
        self.known = {p.untyped_storage().data_ptr() for p in parameters}
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in self.known:
                self.largest = max(self.largest, made.untyped_storage().nbytes() // made.element_size())
        return out


@pytest.mark.parametrize("size", [1, 3, 10])
def test_gradients_equal_the_plain_ones_for_student_and_a_trained_head(size: int) -> None:
    g = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(50, 8, generator=g))
    hidden = torch.randn(10, 8, generator=g).requires_grad_()
    scale, label = torch.rand(10, generator=g), torch.arange(10)

    def loss(h: torch.Tensor, rows: slice) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(h @ weight.T, label[rows], reduction="none")

    plain = (loss(hidden, slice(None)) * scale).sum()
    (3.0 * plain).backward()
    want = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    total, rows = streamed(loss, hidden, scale, size, (weight,))
    (3.0 * total).backward()
    assert torch.allclose(total, plain)
    assert torch.allclose(rows, loss(hidden, slice(None)))
    assert not rows.requires_grad
    for got, plainly in zip((hidden.grad, weight.grad), want, strict=True):
        assert ((got - plainly).norm() <= 1e-5 * plainly.norm()).item()


def test_nothing_wider_than_a_chunk_is_made() -> None:
    hidden, weight = torch.randn(96, 4).requires_grad_(), torch.randn(1000, 4)
    label = torch.zeros(96, dtype=torch.int64)

    def loss(h: torch.Tensor, rows: slice) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(h @ weight.T, label[rows], reduction="none")

    with Allocations([weight]) as made:
        streamed(loss, hidden, torch.ones(96), 3)[0].backward()
    assert 3 * 1000 <= made.largest < 4 * 1000
    with Allocations([weight]) as made:  # the recorder sees what the plain computation makes
        loss(hidden, slice(None)).sum().backward()
    assert made.largest >= 96 * 1000


def heads_and_states(pair: ModelPair) -> tuple[Heads, torch.Tensor]:
    with pair.model("aligned") as model:
        heads = Heads.of(pair, model)
    return heads, torch.randn(5, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("arch", "options"), [("llama", {}), ("gemma3", {"final_logit_softcapping": 5.0})])
def test_heads_are_those_of_the_pair_cut_to_the_shared_vocabulary(arch: str, options: dict[str, float]) -> None:
    pair = tiny_pair(arch, head_rows=(352, 384), **options)  # type: ignore[arg-type]
    heads, hidden = heads_and_states(pair)
    assert heads.vocab == pair.vocab
    assert torch.equal(heads.student(hidden), pair.logits("aligned", hidden))
    assert torch.equal(heads.aligned(hidden), pair.logits("aligned", hidden))
    assert torch.equal(heads.base(hidden), pair.logits("base", hidden))
    assert not torch.equal(heads.base(hidden), heads.aligned(hidden))


def pair_in(dtype: torch.dtype) -> ModelPair:
    models = (model.to(dtype) for model in tiny_models("llama", 320))
    return ModelPair.from_models(*models, tiny_tokenizer())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("extra", ["plain", "bias", "cap", "scale"])
def test_half_precision_heads_add_up_in_float32_and_are_never_copied(
    dtype: torch.dtype, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "CONVERTED", 32 * 100)
    half = pair_in(dtype)
    with half.model("aligned") as model:
        head, config = model.get_output_embeddings(), model.config
        if extra == "bias":
            head.bias = torch.nn.Parameter(torch.randn(320).to(dtype))
    config.logit_scale = 0.25 if extra == "scale" else None
    config.final_logit_softcapping = 2.0 if extra == "cap" else None
    heads, hidden = heads_and_states(half)
    hidden = hidden.to(dtype).requires_grad_()
    kept = hidden.detach().double().requires_grad_()
    exact = kept @ head.weight.detach().double().T + (0.0 if extra != "bias" else head.bias.detach().double())
    exact = {"scale": exact * 0.25, "cap": torch.tanh(exact / 2) * 2}.get(extra, exact)
    for made in (heads.student, heads.aligned):
        with Allocations(list(head.parameters())) as seen:
            logits = made(hidden)
            assert logits.dtype == torch.float32
            found = torch.autograd.grad(logits.square().sum(), hidden)[0]
        assert seen.largest <= 32 * 100, "a float32 head would have 10,240 numbers"
        assert (logits - exact).abs().max() < 1e-5 * exact.abs().max()
        want = torch.autograd.grad(exact.square().sum(), kept, retain_graph=True)[0]
        assert (found - want).norm() < torch.finfo(dtype).eps * want.norm()
    assert half.logits("aligned", hidden).dtype == dtype  # elsewhere the pair stays as it is


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_on_the_head_is_trained(dtype: torch.dtype) -> None:
    from peft import LoraConfig, get_peft_model

    pair = pair_in(dtype)
    with quiet_libraries(), pair.model("aligned") as aligned:
        student = get_peft_model(aligned, LoraConfig(r=2, target_modules=["lm_head"]), autocast_adapter_dtype=False)
    for name, parameter in student.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    heads = Heads.of(pair, student)
    assert len(heads.trained) == 2
    hidden = torch.randn(5, 32).to(dtype).requires_grad_()
    total, _ = streamed(lambda h, r: heads.student(h).square().sum(-1), hidden, torch.ones(5), 2, heads.trained)
    total.backward()
    own = (hidden.grad, *(p.grad for p in heads.trained))
    assert all(g is not None and g.abs().max() > 0 and g.dtype == dtype for g in own)


def test_a_student_that_is_an_adapter_on_the_aligned_model_has_its_head(tmp_path: Path) -> None:
    pair = tiny_pair("llama")
    with pair.model("aligned") as aligned:
        folder = tiny_adapter(tmp_path / "a", aligned)
    with_adapter = pair.with_aligned(str(folder))
    one = with_adapter._sides["aligned"].weights
    assert one.peft is not None
    heads = Heads.of(with_adapter, one.peft)
    hidden = torch.randn(3, 32)
    assert torch.equal(heads.student(hidden), heads.aligned(hidden))
    assert heads.trained == ()


def test_without_gradients_no_graph_is_made_and_a_chunk_has_a_row_at_least() -> None:
    seen: list[bool] = []

    def loss(h: torch.Tensor, rows: slice) -> torch.Tensor:
        seen.append((h * 2).requires_grad)
        return h.sum(-1)

    hidden = torch.ones(2, 3).requires_grad_()
    with torch.no_grad():
        total, _ = streamed(loss, hidden, torch.ones(2), 1)
    assert not total.requires_grad
    streamed(loss, hidden.detach(), torch.ones(2), 1)
    assert not any(seen)
    cpu = torch.device("cpu")
    assert rows_in_a_chunk(10**9, cpu) == 1
    assert rows_in_a_chunk(151_936, cpu) * 151_936 * 4 <= CHUNK_MIB["cpu"] * 2**20
