"""The gradient probe against finite differences and a naive loop that asks autograd for every gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.errors import refuses
from tests.tiny_pair import ARCHITECTURES, Arch, tiny_adapter, tiny_models, tiny_pair, tiny_tokenizer
from workbench.core.errors import ContextOverflow, NonFiniteLogits, PairError, ParameterError, PromptError
from workbench.core.records import Label, load, save
from workbench.models.pair import ModelPair, Which
from workbench.prompts.loading import Prompt, PromptSet
from workbench.tracing.gradients import QUANTITIES, GradientConfig, probe_gradients, probe_rows
from workbench.tracing.records import GradientProbe

RESPONSE = (40, 7, 99, 150, 23, 61)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices are faster without threads, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def prompt_set(*prompts: Prompt) -> PromptSet:
    return PromptSet(name="in memory", source="test", prompts=prompts, dropped=(), columns={}, classroom_safe=True)


def prompts(*texts: str, label: Label = "harmful") -> PromptSet:
    return prompt_set(*(Prompt(id=f"p{i}", prompt=t, label=label) for i, t in enumerate(texts)))


def double_pair(arch: Arch = "llama", **options: Any) -> ModelPair:
    base, aligned = tiny_models(arch, **options)
    return ModelPair.from_models(base.double(), aligned.double(), tiny_tokenizer())


def is_theta(name: str) -> bool:
    inside = any(part in name for part in (".self_attn.", ".attn.", ".mlp."))
    return inside and name.endswith("weight") and "norm" not in name and "lora_" not in name


def layer_of(name: str) -> int:
    return next(int(part) for part in name.split(".") if part.isdigit())


def naive(
    pair: ModelPair, which: Which, prompt: Prompt, response: tuple[int, ...], layer: int
) -> dict[str, np.ndarray]:
    """One fresh forward and one whole backward pass a position, parameter gradients kept: slow and obvious."""
    context = pair.context(prompt, which)
    ids = torch.tensor([[*context, *response]])
    first = len(context) - 1
    length = len(response)
    out = {n: np.full(length, np.nan) for n in (*QUANTITIES,)}
    with torch.no_grad():
        logprobs = {}
        for w in ("base", "aligned"):
            own = torch.tensor([[*pair.context(prompt, w), *response]])
            with pair.model(w) as model:
                at = len(pair.context(prompt, w)) - 1
                logprobs[w] = model(own).logits[0, at : at + length, : pair.vocab].log_softmax(-1)
        kl = (logprobs["aligned"].exp() * (logprobs["aligned"] - logprobs["base"])).sum(-1).numpy()

    def forward(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        kept: list[torch.Tensor] = []
        blocks = model.transformer.h if hasattr(model, "transformer") else model.model.layers
        handle = blocks[layer - 1].register_forward_hook(
            lambda m, a, o: kept.append(o if isinstance(o, torch.Tensor) else o[0])
        )
        logits = model(ids).logits[0, first : first + length, : pair.vocab]
        handle.remove()
        return logits.log_softmax(-1), kept[0]

    with pair.model(which) as model:
        theta = {n: p.requires_grad_() for n, p in model.named_parameters() if is_theta(n)}  # an adapter freezes them
        layers = 1 + max(map(layer_of, theta))
        by_layer = np.zeros((length, layers))
        for t in range(length):
            logp, h = forward(model)
            grads = torch.autograd.grad(logp[t, response[t]], [h, *theta.values()])
            for name, g in zip(theta, grads[1:], strict=True):
                by_layer[t, layer_of(name)] += float(g.square().sum())
            p = logp[t].exp().detach()
            p[response[t]] -= 1
            out["output_error"][t] = float(p.norm())
            reach = [float(grads[0][0, first + i].norm() * h[0, first + i].detach().norm()) for i in range(t)]
            out["influence"][t] = np.mean(reach) if t else np.nan
            out["error"][t] = sum(k * r for k, r in zip(kl[:t], reach, strict=True))
            out["error_per_term"][t] = out["error"][t] / t if t else np.nan
        for i in range(length):
            logp, h = forward(model)
            loss = -sum(logp[t, response[t]] for t in range(i, length))
            (g,) = torch.autograd.grad(loss, [h])
            size = float(g[0, first + i].norm() * h[0, first + i].detach().norm())
            out["context_asymmetry"][i] = size / (length - i)
    out["grad_norm"] = np.sqrt(by_layer.sum(1))
    out["grad_norm_per_error"] = out["grad_norm"] / out["output_error"]
    out["by_layer"] = np.sqrt(by_layer)
    return out


def assert_equals_naive(probe: GradientProbe, row: int, want: dict[str, np.ndarray], rtol: float) -> None:
    length = int(probe.mask[row].sum())
    for name in QUANTITIES:
        np.testing.assert_allclose(getattr(probe, name)[row, :length], want[name], rtol=rtol, err_msg=name)
    np.testing.assert_allclose(probe.grad_norm_by_layer[row, :length], want["by_layer"], rtol=rtol)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("which", ["base", "aligned"])
def test_equals_naive_loop(arch: Arch, which: Which) -> None:
    pair, asked = double_pair(arch), prompts("the cat sat on the mat", "a")
    config = GradientConfig(model=which, layer=1)
    probe = probe_gradients(pair, asked, config, responses=[RESPONSE, RESPONSE[:2]])
    for row, response in enumerate((RESPONSE, RESPONSE[:2])):
        want = naive(pair, which, asked.prompts[row], response, layer=1)
        assert_equals_naive(probe, row, want, rtol=1e-5)  # float64 inside, stored as float32


def test_equals_the_naive_loop_at_the_last_layer_and_with_an_adapter(tmp_path: Any) -> None:
    pair, asked = tiny_pair("qwen3"), prompts("tell me a story about the sea")
    probe = probe_gradients(pair, asked, GradientConfig(layer=2), responses=[RESPONSE])
    assert_equals_naive(probe, 0, naive(pair, "base", asked.prompts[0], RESPONSE, layer=2), rtol=2e-3)
    base, _ = tiny_models("llama")
    pair = ModelPair.from_models(base, base, tiny_tokenizer()).with_aligned(str(tiny_adapter(tmp_path / "a", base)))
    asked = prompts("the dog sat")
    for which in ("base", "aligned"):
        probe = probe_gradients(pair, asked, GradientConfig(model=which, layer=1), responses=[RESPONSE])
        assert_equals_naive(probe, 0, naive(pair, which, asked.prompts[0], RESPONSE, layer=1), rtol=2e-3)
    assert float(np.nanmax(probe.error)) > 0


def gpt2_in_float64(**sizes: Any) -> ModelPair:
    """GPT-2 computes in float64 throughout; the Llama family's norms go through float32, too rough for differences."""
    return double_pair("gpt2", n_embd=4, n_layer=1, n_head=2, n_inner=4, **sizes)


def test_equals_finite_differences() -> None:
    """The whole gradient of two log-probabilities, one weight at a time, central differences."""
    pair, asked, response = gpt2_in_float64(), prompts("a"), RESPONSE[:2]
    probe = probe_gradients(pair, asked, responses=[response])
    context = pair.context(asked.prompts[0], "base")
    ids = torch.tensor([[*context, *response]])
    squares, step = np.zeros(2), 1e-6
    with torch.no_grad(), pair.model("base") as model:

        def observed() -> np.ndarray:
            logp = model(ids).logits[0, len(context) - 1 : -1].log_softmax(-1)
            return logp[torch.arange(2), list(response)].numpy()

        for name, p in model.named_parameters():
            flat = p.data.view(-1)
            for i in range(p.numel()) if is_theta(name) else ():
                at, ends = float(flat[i]), []
                for sign in (1, -1):
                    flat[i] = at + sign * step
                    ends.append(observed())
                flat[i] = at
                squares += ((ends[0] - ends[1]) / (2 * step)) ** 2
    np.testing.assert_allclose(probe.grad_norm[0], np.sqrt(squares), rtol=1e-5)


def test_influence_equals_finite_differences() -> None:
    """Shift the hidden state that predicts token 1 and watch log p(y_2), in a model of two layers."""
    pair, asked = double_pair("gpt2"), prompts("the cat")
    probe = probe_gradients(pair, asked, GradientConfig(layer=1), responses=[RESPONSE[:2]])
    context = pair.context(asked.prompts[0], "base")
    ids = torch.tensor([[*context, *RESPONSE[:2]]])
    row, step, by, size = len(context) - 1, 1e-6, torch.zeros(32, dtype=torch.float64), 0.0

    def shift(module: Any, arguments: Any, output: Any) -> Any:
        nonlocal size
        h = (output if isinstance(output, torch.Tensor) else output[0]).clone()
        size = float(h[0, row].norm())
        h[0, row] += by
        return h if isinstance(output, torch.Tensor) else (h, *output[1:])

    gradient = []
    with torch.no_grad(), pair.model("base") as model:
        handle = model.transformer.h[0].register_forward_hook(shift)
        for j in range(32):
            ends = []
            for sign in (1, -1):
                by.zero_()
                by[j] = sign * step
                ends.append(float(model(ids).logits[0, row + 1].log_softmax(-1)[RESPONSE[1]]))
            gradient.append((ends[0] - ends[1]) / (2 * step))
        by.zero_()
        model(ids)
        handle.remove()
    assert probe.influence[0, 1] == pytest.approx(np.linalg.norm(gradient) * size, rel=1e-5)


def test_laws_at_the_ends() -> None:
    probe = probe_gradients(tiny_pair(), prompts("the cat"), responses=[(7,)])
    assert probe.mask.tolist() == [[True]]
    assert probe.error[0, 0] == 0.0  # an empty sum
    assert np.isnan(probe.influence[0, 0])
    assert np.isnan(probe.error_per_term[0, 0])
    assert probe.grad_norm[0, 0] > 0
    assert probe.context_asymmetry[0, 0] > 0
    # With logits all equal: sqrt((V - 1) / V^2 + (1 - 1/V)^2) = sqrt(1 - 1/V).
    base, aligned = tiny_models("llama")
    with torch.no_grad():
        base.lm_head.weight.zero_()
    pair = ModelPair.from_models(base, aligned, tiny_tokenizer())
    probe = probe_gradients(pair, prompts("the cat"), responses=[RESPONSE])
    np.testing.assert_allclose(probe.output_error[0], np.sqrt(1 - 1 / pair.vocab), rtol=1e-6)
    np.testing.assert_allclose(probe.grad_norm[0], 0.0, atol=1e-6)
    base, _ = tiny_models("llama")
    pair = ModelPair.from_models(base, base, tiny_tokenizer())
    probe = probe_gradients(pair, prompts("the cat"), responses=[RESPONSE])
    assert np.all(np.abs(probe.error[probe.mask]) < 1e-4)
    assert np.all(probe.influence[0, 1:] > 0)


def test_responses_are_aligneds_own_by_default_and_rows_stay_apart() -> None:
    from workbench.models.generation import GenerateConfig, generate

    pair, asked = tiny_pair(), prompts("the cat", "the dog")
    contexts = [pair.context(p, "aligned") for p in asked]
    made = generate(pair, "aligned", contexts, GenerateConfig(max_tokens=5))
    drawn = probe_gradients(pair, asked, GradientConfig(max_tokens=5))
    given = probe_gradients(pair, asked, GradientConfig(max_tokens=5), responses=[g.ids for g in made])
    assert (drawn.response_kind, given.response_kind) == ("greedy aligned", "given")
    np.testing.assert_array_equal(drawn.grad_norm, given.grad_norm)
    pair, asked = tiny_pair(), prompts("the cat", "the dog", "a log")
    probe = probe_gradients(pair, asked, responses=[RESPONSE, (), RESPONSE[:3]])
    assert probe.mask.sum(axis=1).tolist() == [6, 0, 3]
    for name in QUANTITIES:
        values = getattr(probe, name)
        assert np.isnan(values[~probe.mask]).all()
    alone = probe_gradients(pair, prompts("the cat"), responses=[RESPONSE])
    np.testing.assert_array_equal(alone.grad_norm[0], probe.grad_norm[0])


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_parameters_and_hooks_are_left_as_they_were(trainable, fails, monkeypatch) -> None:
    pair = tiny_pair()
    with pair.model("base") as model:
        for i, p in enumerate(model.parameters()):
            p.requires_grad_(trainable and i % 2 == 0)
            p.grad = torch.ones_like(p) if p.requires_grad and i % 4 == 0 else None
        before = [
            (p.requires_grad, None if p.grad is None else p.grad.clone(), p.detach().clone())
            for p in model.parameters()
        ]
    if fails:
        real: Callable[..., Any] = torch.autograd.grad
        calls: list[int] = []

        def breaks(*args: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("on purpose")
            return real(*args, **options)

        monkeypatch.setattr(torch.autograd, "grad", breaks)
        monkeypatch.setattr("workbench.tracing.gradients.BATCH_TARGETS", 2)
        refuses(lambda: probe_gradients(pair, prompts("the cat"), responses=[RESPONSE]), RuntimeError, "on purpose")
    else:
        probe_gradients(pair, prompts("the cat"), responses=[RESPONSE])
    with pair.model("base") as model:
        for (wanted, grad, value), p in zip(before, model.parameters(), strict=True):
            assert (p.requires_grad, p.grad is None) == (wanted, grad is None)
            assert grad is None or torch.equal(p.grad, grad)
            assert torch.equal(p, value)
        assert not any(m._forward_hooks for m in model.modules())


def test_one_position_at_a_time_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, asked = double_pair(), prompts("the cat")
    together = probe_gradients(pair, asked, responses=[RESPONSE])
    for targets, size in ((1, 2**28), (4, 2**28), (8, 1)):
        monkeypatch.setattr("workbench.tracing.gradients.BATCH_TARGETS", targets)
        monkeypatch.setattr("workbench.tracing.gradients.BATCH_BYTES", size)
        apart = probe_gradients(pair, asked, responses=[RESPONSE])
        for name in QUANTITIES:
            np.testing.assert_allclose(getattr(apart, name), getattr(together, name), rtol=1e-6)


def test_frozen_parameters_and_inference_mode_change_nothing() -> None:
    asked = prompts("the cat")
    free = probe_gradients(tiny_pair(), asked, responses=[RESPONSE])
    pair = tiny_pair()
    for which in ("base", "aligned"):
        with pair.model(which) as model:
            model.requires_grad_(False)
    frozen = probe_gradients(pair, asked, responses=[RESPONSE])
    np.testing.assert_array_equal(free.grad_norm, frozen.grad_norm)
    np.testing.assert_array_equal(free.influence, frozen.influence)
    pair, asked = tiny_pair(), prompts("the cat")
    outside = probe_gradients(pair, asked, responses=[RESPONSE])
    with torch.inference_mode():
        inside = probe_gradients(pair, asked, responses=[RESPONSE])
    np.testing.assert_array_equal(outside.grad_norm, inside.grad_norm)


def test_prompts_are_harmful_ones_or_a_seeded_subset() -> None:
    both = prompt_set(
        Prompt(id="good", prompt="the cat", label="harmless"), Prompt(id="bad", prompt="the dog", label="harmful")
    )
    probe = probe_gradients(tiny_pair(), both, responses=[RESPONSE, RESPONSE[:2]])
    assert (probe.prompt_ids, probe.labels, int(probe.mask.sum())) == (("bad",), ("harmful",), 2)
    only = prompts("the cat", label="unlabelled")
    assert probe_gradients(tiny_pair(), only, responses=[RESPONSE]).labels == ("unlabelled",)
    asked = prompts(*(f"the cat {i}" for i in range(9)))
    config = GradientConfig(limit=3, seed=1, max_tokens=1)
    ids = [probe_gradients(tiny_pair(), asked, config, responses=[(7,)] * 9).prompt_ids for _ in range(2)]
    assert (ids[0], len(ids[0])) == (ids[1], 3)


def test_errors_name_what_is_wrong_and_rows_are_saved() -> None:
    pair, asked = tiny_pair(), prompts("the cat")
    refuses(lambda: probe_gradients(pair, asked, responses=[(1,), (2,)]), ParameterError, "2", "1")
    with pytest.raises(ParameterError, match=r"layer is 3.*2"):
        probe_gradients(pair, asked, GradientConfig(layer=3), responses=[(7,)])
    refuses(lambda: probe_gradients(pair, asked, responses=[(9999,)]), ParameterError, "id 9999")
    refuses(lambda: probe_gradients(pair, prompts()), PromptError, "empty")
    with pytest.raises(ContextOverflow, match="256"):
        probe_gradients(pair, asked, GradientConfig(max_tokens=300), responses=[(7,) * 300])
    refuses(lambda: GradientConfig(limit=0), ParameterError, "limit is 0")
    with torch.no_grad(), pair.model("base") as model:
        model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    refuses(lambda: probe_gradients(pair, asked, responses=[(7,)]), NonFiniteLogits, "NaN", "'p0'")
    from workbench.tracing.gradients import _weights_of

    refuses(lambda: _weights_of(torch.nn.Linear(2, 2)), PairError, "MLP")


def test_rows_and_record(tmp_path: Any) -> None:
    pair, asked = tiny_pair(), prompts("the cat", "the dog", "a log", "a mat")
    probe = probe_gradients(pair, asked, responses=[RESPONSE, RESPONSE[:5], RESPONSE[:4], RESPONSE[:2]])
    assert load(save(probe, tmp_path / "probe"), GradientProbe) == probe
    rows = probe_rows(probe, resamples=200)
    assert rows == probe_rows(probe, resamples=200)
    at = {(r.name, r.position): r for r in rows if r.layer is None}
    assert {r.name for r in rows} == set(QUANTITIES)
    assert {r.layer for r in rows if r.name == "grad_norm"} == {None, 1, 2}
    third = at["grad_norm", 3]
    assert (third.value, third.n) == (pytest.approx(probe.grad_norm[:3, 2].mean()), 3)
    assert third.low <= third.value <= third.high
    assert (at["grad_norm", 5].n, at["grad_norm", 5].low) == (2, None)
    assert (at["influence", 1].n, at["influence", 1].value) == (0, None)
    assert (at["error", 1].n, at["error", 1].value) == (4, 0.0)
    assert third.label == "harmful"
