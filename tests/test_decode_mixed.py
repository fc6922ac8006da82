"""Base and aligned rows of an adapter pair in one forward pass: equal to two models, and nothing left behind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from tests.errors import refuses
from tests.tiny_pair import ARCHITECTURES, Arch, tiny_adapter, tiny_model, tiny_tokenizer
from workbench.core.store import Store
from workbench.decoding import paired as room
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.ledger import Entry
from workbench.decoding.mixed import THIN_ROWS, mixed, thin
from workbench.decoding.penalised import decode
from workbench.decoding.records import LEDGER, Continuations
from workbench.models.generation import GenerateConfig, generate, left_padded
from workbench.models.pair import ModelPair
from workbench.models.sources import quiet_libraries

CONTEXTS = [(0, 20, 30), (0, 41, 52, 63, 74, 85, 96), (5,), (0, 9, 9, 9)]
CONFIG = DecodeConfig(penalty=PenaltyConfig(strength=2.0), generation=GenerateConfig(max_tokens=10))
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted(model: PreTrainedModel, *, seed: int = 0, scale: float = 0.2, **settings: Any) -> PeftModel:
    """Put a random adapter on a model, in memory."""
    gpt2 = hasattr(model, "transformer")
    targets = ["c_attn", "c_fc", "c_proj"] if gpt2 else LINEAR
    common = {"r": 4, "lora_alpha": 8, "target_modules": targets, "task_type": "CAUSAL_LM", "fan_in_fan_out": gpt2}
    with quiet_libraries():
        made = get_peft_model(model, LoraConfig(**{**common, **settings})).eval()
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=noise) * scale)
    return made


def adapter_pair(arch: Arch = "llama", head_rows: int = 320, **settings: Any) -> ModelPair:
    model = adapted(tiny_model(arch, head_rows), **settings)
    return ModelPair.from_models(model, model, tiny_tokenizer())


def two_models(pair: ModelPair) -> ModelPair:
    """Take the adapter pair apart: two full models, the second with the adapter merged into its weights."""
    one = pair.one_copy()
    assert one[0].peft is not None
    merged = copy.deepcopy(one[0].peft).merge_and_unload().eval()
    base = copy.deepcopy(one[0].peft).unload().eval()
    return ModelPair.from_models(base, merged, pair.tokenizer)


def ids_of(made: Continuations) -> list[tuple[int, ...]]:
    return [tuple(ids[there].tolist()) for ids, there in zip(made.token_ids, made.mask, strict=True)]


def assert_same(made: Continuations, other: Continuations) -> None:
    assert ids_of(made) == ids_of(other)
    assert (made.plain_ids == other.plain_ids).all()
    for name in set(LEDGER) - {"risk", "leverage_bound"}:  # sums over B_t, which has no threshold: rounding moves them
        assert np.allclose(getattr(made, name), getattr(other, name), atol=2e-3, equal_nan=True), name


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record by which way each batch is computed."""
    seen: list[str] = []
    for name in ("OnePass", "TwoPasses"):
        original = getattr(room, name)
        monkeypatch.setattr(room, name, lambda *a, n=name, o=original: (seen.append(n), o(*a))[1])
    return seen


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_one_mixed_pass_equals_two_full_models(arch: Arch, passes: list[str]) -> None:
    pair = adapter_pair(arch, head_rows=352)
    made = decode(pair, CONTEXTS, CONFIG, what=None)
    assert passes == ["OnePass"]
    assert_same(made, decode(two_models(pair), CONTEXTS, CONFIG, what=None))
    assert passes == ["OnePass", "TwoPasses"]
    assert made.leverage[made.mask].max() > 0.01


def test_one_pass_is_plain_generation_at_strength_0_and_by_single_rows() -> None:
    pair = adapter_pair()
    for drawing in (GenerateConfig(max_tokens=12), GenerateConfig(max_tokens=12, temperature=1.0, top_p=0.9, seed=2)):
        for penalty, which in ((PenaltyConfig(strength=0.0), "aligned"), (PenaltyConfig.family(0.0), "base")):
            if which == "base" and drawing.temperature:
                continue  # base's own draws have seeds of their own
            made = decode(pair, CONTEXTS, DecodeConfig(penalty=penalty, generation=drawing), what=None)
            assert ids_of(made) == [g.ids for g in generate(pair, which, CONTEXTS, drawing, what=None)]  # type: ignore[arg-type]
    pair = adapter_pair("qwen3")
    together = decode(pair, CONTEXTS, CONFIG, what=None)
    for row, context in enumerate(CONTEXTS):
        assert ids_of(decode(pair, [context], CONFIG, what=None)) == ids_of(together)[row : row + 1]


def test_every_row_has_its_own_adapters_at_once(tmp_path: Path) -> None:
    """Aligned = one adapter, expert = that one and a second: the pair that SafeDecoding steps."""
    pair = adapter_pair()
    path = tiny_adapter(tmp_path / "safety", tiny_model("llama", 320), seed=5, scale=0.3)
    expert = pair.with_expert(str(path))
    shared = expert.one_copy()
    assert [len(on) for on in shared[1:]] == [1, 2]
    ids, mask = left_padded(CONTEXTS * 2, pair.device)
    with torch.inference_mode(), mixed(expert) as run:
        together = run.logits(ids, mask, mask.cumsum(-1).sub(1).clamp(min=0), None)
        for which, made in zip(("base", "aligned"), together, strict=True):
            alone = expert.logits(which, expert.hidden(which, ids[:4], attention_mask=mask[:4])[:, -1])  # type: ignore[arg-type]
            torch.testing.assert_close(made, alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(*together)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
    ],
    ids=["DoRA", "a fully trained head", "on the embeddings"],
)
def test_what_cannot_be_mixed_takes_two_passes(settings: dict[str, Any], passes: list[str]) -> None:
    pair = adapter_pair(**settings)
    made = decode(pair, CONTEXTS, CONFIG, what=None)
    assert passes == ["TwoPasses"]
    assert ids_of(decode(pair, CONTEXTS, DecodeConfig(penalty=PenaltyConfig(strength=0.0)), what=None)) == [
        g.ids for g in generate(pair, "aligned", CONTEXTS, GenerateConfig(), what=None)
    ]
    assert made.leverage[made.mask].max() > 1e-3


def test_rows_that_do_not_stay_apart_are_noticed(passes: list[str]) -> None:
    """A layer that gets rows in another order, as experts of a mixture do, would have the adapter on the wrong ones."""
    pair = adapter_pair()
    with pair.model("base") as model:
        mlp = model.model.layers[0].mlp
        forward = mlp.forward
        mlp.forward = lambda x: forward(x.flip(0)).flip(0)
        made = decode(pair, CONTEXTS, CONFIG, what=None)
        assert passes == ["TwoPasses"]
        del mlp.forward
    assert_same(made, decode(two_models(pair), CONTEXTS, CONFIG, what=None))


def test_heads_dtypes_and_biases_are_mixed_too(passes: list[str]) -> None:
    pair = adapter_pair(target_modules=["q_proj", "lm_head"], scale=0.05)
    made = decode(pair, CONTEXTS, CONFIG, what=None)
    assert passes == ["OnePass"]
    assert_same(made, decode(two_models(pair), CONTEXTS, CONFIG, what=None))
    passes.clear()
    model = adapted(tiny_model("qwen2", 320).to(torch.bfloat16), lora_bias=True, target_modules=["q_proj", "v_proj"])
    assert next(p for n, p in model.named_parameters() if "lora_A" in n).dtype == torch.float32
    pair = ModelPair.from_models(model, model, tiny_tokenizer())
    passes.clear()
    made = decode(pair, CONTEXTS, CONFIG, what=None)
    assert passes == ["OnePass"]
    with torch.inference_mode():
        ids = torch.tensor([CONTEXTS[1]])
        alone = pair.logits("aligned", pair.hidden("aligned", ids)[:, -1]).float().log_softmax(-1)
    first = made.topk_ids[1, 0, :5]
    assert np.allclose(made.topk_logprob_aligned_nats[1, 0, :5], alone[0, first].numpy(), atol=0.1)


@pytest.mark.parametrize("rows", [1, 2, 5, THIN_ROWS, THIN_ROWS + 1])
@pytest.mark.parametrize("bias", [False, True])
def test_thin_products_equal_the_layer(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(48, 70, bias=bias)
    for x in (torch.randn(rows, 48), torch.randn(rows, 1, 48)):
        with torch.inference_mode():
            made = thin(x, layer)
            assert made.is_contiguous()
            torch.testing.assert_close(made, layer(x))


def state(pair: ModelPair) -> tuple[Any, ...]:
    one = pair.one_copy()
    layers = [(layer.disable_adapters, tuple(layer.active_adapters), layer.merged) for layer in one[0].layers()]
    patched = [n for n, m in one[0].model.named_modules() if "forward" in vars(m)]
    flags = [p.requires_grad for p in one[0].model.parameters()]
    return layers, patched, flags, one[0].model.training, one[0].on()


def logits(pair: ModelPair) -> list[torch.Tensor]:
    ids = torch.tensor([CONTEXTS[1]])
    with torch.inference_mode():
        return [pair.logits(w, pair.hidden(w, ids)) for w in ("base", "aligned")]  # type: ignore[arg-type]


class Oops(Exception):
    pass


@pytest.mark.parametrize("error", [Oops, KeyboardInterrupt, torch.OutOfMemoryError])
@pytest.mark.parametrize("training", [False, True])
def test_whatever_happens_models_and_adapters_are_as_before(error, training, tmp_path) -> None:
    pair = adapter_pair()
    one = pair.one_copy()
    if training:
        one[0].model.train()
    before, were = state(pair), logits(pair)
    weights = {n: p.clone() for n, p in one[0].model.state_dict().items()}
    tokens = 0

    def fail(_index: int, _entry: Entry) -> None:
        nonlocal tokens
        tokens += 1
        if tokens > 6:
            raise error("in the callback")

    refuses(lambda: decode(pair, CONTEXTS[:1], CONFIG, on_token=fail, store=Store(tmp_path), what=None), error)
    assert (tokens, state(pair)) == (7, before)
    assert all(torch.equal(a, b) for a, b in zip(were, logits(pair), strict=True))
    assert all(torch.equal(p, weights[n]) for n, p in one[0].model.state_dict().items())
    whole = decode(pair, CONTEXTS, CONFIG, what=None)
    assert (state(pair), ids_of(whole)) == (before, ids_of(decode(adapter_pair(), CONTEXTS, CONFIG, what=None)))


def test_an_interrupt_inside_the_forward_pass_leaves_all_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = adapter_pair()
    decode(pair, CONTEXTS, CONFIG, what=None)  # checked once
    before, were = state(pair), logits(pair)
    addmm = torch.Tensor.addmm_
    calls = 0

    def interrupted(self: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 40:
            raise KeyboardInterrupt
        return addmm(self, *args, **options)

    monkeypatch.setattr(torch.Tensor, "addmm_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode(pair, CONTEXTS, CONFIG, what=None)
    monkeypatch.undo()
    assert (calls, state(pair)) == (40, before)
    assert all(torch.equal(a, b) for a, b in zip(were, logits(pair), strict=True))


def test_a_callback_may_use_the_pair() -> None:
    pair = adapter_pair()
    plain = {w: generate(pair, w, CONTEXTS, GenerateConfig(max_tokens=3), what=None) for w in ("base", "aligned")}  # type: ignore[arg-type]
    whole = decode(pair, CONTEXTS, CONFIG, what=None)
    answers = []

    def look(_index: int, _entry: Entry) -> None:
        if len(answers) < 4:
            answers.append({w: generate(pair, w, CONTEXTS, GenerateConfig(max_tokens=3), what=None) for w in plain})  # type: ignore[arg-type]

    assert (ids_of(decode(pair, CONTEXTS, CONFIG, on_token=look, what=None)), answers) == (ids_of(whole), [plain] * 4)
