"""Models that are not one stack of linear maps with a key-value cache: they work, or are refused before work starts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    PreTrainedModel,
)

import workbench as wb
from tests.errors import refuses
from tests.fakes import prompt_set
from tests.tiny_pair import tiny_models, tiny_pair, tiny_tokenizer
from workbench.core.errors import PairError
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair
from workbench.tracing.gradients import GradientConfig, probe_gradients
from workbench.tracing.suffix.objective import Objective
from workbench.tracing.suffix.slots import Slot
from workbench.training.config import LoraSettings
from workbench.training.student import student_of

SIZES: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2, "pad_token_id": 2,
}  # fmt: skip


def made(kind: str, **options: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES | options)
    return AutoModelForCausalLM.from_config(config).float().eval()  # type: ignore[no-any-return]


def shifted(model: PreTrainedModel) -> PreTrainedModel:
    other, noise = copy.deepcopy(model), torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.05)
    return other


def pair_of(kind: str, **options: Any) -> ModelPair:
    base = made(kind, **options)
    return ModelPair.from_models(base, shifted(base), tiny_tokenizer())


def wrapped_pair() -> tuple[ModelPair, ModelPair]:
    """Return Gemma 3 inside its vision wrapper, and the same text models alone."""
    torch.manual_seed(0)
    alone = tiny_models("gemma3")
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    both = []
    for model in alone:
        config = Gemma3Config(text_config=model.config.to_dict(), vision_config=vision, mm_tokens_per_image=4)
        one = Gemma3ForConditionalGeneration(config).float().eval()
        one.model.language_model.load_state_dict(model.model.state_dict())
        one.lm_head.load_state_dict(model.lm_head.state_dict())
        both.append(one)
    return ModelPair.from_models(*both, tiny_tokenizer()), ModelPair.from_models(*alone, tiny_tokenizer())


def test_a_vision_wrapper_is_its_text_decoder() -> None:
    pair, alone = wrapped_pair()
    some = prompt_set("the cat", "the dog")
    found, want = (probe_gradients(p, some, GradientConfig(max_tokens=6)) for p in (pair, alone))
    assert found.grad_norm_by_layer.shape == want.grad_norm_by_layer.shape
    for name in ("grad_norm", "influence", "error", "output_error"):
        np.testing.assert_allclose(getattr(found, name), getattr(want, name), rtol=1e-4)
    for targets in ("all-linear", ("q_proj", "v_proj")):
        names = []
        for one in (pair, alone):
            with student_of(one, LoraSettings(rank=2, alpha=4.0, targets=targets), seed=0) as student:  # type: ignore[arg-type]
                adapted = [n for n, m in student.one.model.named_modules() if hasattr(m, "lora_A")]
                names.append({n.replace("language_model.", "") for n in adapted})
        assert names[0] == names[1] != set()


def test_the_share_of_weights_in_adapted_layers() -> None:
    pair = tiny_pair("llama")
    with pair.model("aligned") as model:
        sizes = {n: p.numel() for n, p in model.named_parameters()}
    for targets, inside in (("all-linear", "_proj"), (("q_proj",), "q_proj")):
        with student_of(pair, LoraSettings(rank=2, alpha=4.0, targets=targets), seed=0) as student:  # type: ignore[arg-type]
            want = sum(n for name, n in sizes.items() if inside in name) / sum(sizes.values())
            assert student.reach() == pytest.approx(want)
    experts = pair_of("mixtral", num_local_experts=4)
    with student_of(experts, LoraSettings(rank=2, alpha=4.0, targets=("q_proj", "v_proj")), seed=0) as student:
        assert 0 < student.reach() < 0.1
    with student_of(experts, LoraSettings(rank=2, alpha=4.0, targets="all-linear"), seed=0) as student:
        assert 0 < student.reach() <= 1


def test_what_cannot_be_computed_is_named_in_its_section_and_the_rest_is_written(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"__annotations__": {"seed": int}, "seed": 0}
    for kind, options in (
        ("mixtral", {"num_local_experts": 4}),
        ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}),
    ):
        pair, some = pair_of(kind, **options), prompt_set("the cat")
        report = wb.Report("Diagnosis", asked)
        probe = report.attempt(probe_gradients, pair, some, section="Signal")
        assert probe is None
        shown = report.show(probe, section="Signal")
        assert "experts" in str(shown)
        paths = report.write(tmp_path / kind, gradients=probe)
        assert "fused mixture of experts" in paths.html.read_text("utf-8")
    report = wb.Report("Diagnosis", asked)
    settings = GradientConfig(max_tokens=2)
    probe = report.attempt(probe_gradients, tiny_pair(), some, settings, section="Signal")
    assert probe is not None
    assert report.show(None, section="Signal") is None


RIGHT: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "gpt_neox": {},
    "olmo2": {},
    "deepseek_v3": {
        "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
        "first_k_dense_replace": 1, "num_key_value_heads": 4,
    },
}  # fmt: skip
NOT_YET: dict[str, dict[str, Any]] = {
    "rwkv": {"attention_hidden_size": 32},
    "openai-gpt": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "minimax": {"num_local_experts": 2, "block_size": 16, "head_dim": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1},
}


@pytest.mark.parametrize("kind", [*RIGHT, *NOT_YET])
def test_batched_generation_is_right_or_refused_at_loading(kind: str) -> None:
    try:
        pair = pair_of(kind, **(RIGHT | NOT_YET)[kind])
    except PairError:
        if kind in RIGHT:
            raise
        return
    contexts = [tuple(range(5, 5 + n)) for n in (4, 9, 6)]
    for length in (8, 3):  # rows end at different steps where they are cut
        found = generate(pair, "aligned", contexts, GenerateConfig(max_tokens=length), what=None)
        with pair.model("aligned") as model, torch.no_grad():
            for context, one in zip(contexts, found, strict=True):
                ids = list(context)
                for _ in one.ids:
                    ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1, : pair.vocab].argmax()))
                assert list(one.ids) == ids[len(context) :]


def test_suffixes_are_searched_only_where_embeddings_are_all_that_is_read_of_a_token() -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    shared: dict[str, Any] = {"num_hidden_layers": 4, "layer_types": kinds, "sliding_window": 16, "head_dim": 8,
                              "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 320}  # fmt: skip
    own = {"num_kv_shared_layers": 2, "laurel_rank": 8, "altup_num_inputs": 2, "activation_sparsity_pattern": [0.0] * 4,
           "intermediate_size": [64] * 4}  # fmt: skip
    slot = Slot(prompt=prompt_set("the cat").prompts[0], before=(5, 6), after=(7,), target=(8, 9))
    nested = pair_of("gemma3n_text", **shared, **own)
    refuses(lambda: Objective(nested, "aligned", [slot]), PairError, "Gemma3nForCausalLM")
    for kind, options in (
        ("gemma2", {"head_dim": 8, "sliding_window": 16}),
        ("granite", {"embedding_multiplier": 12.0}),
    ):
        pair = pair_of(kind, **options)
        objective = Objective(pair, "aligned", [slot])
        loss, found = objective.losses([(11, 12)], 1)[0], objective.gradient((11, 12), 1)
        with pair.model("aligned") as model:
            table = model.get_input_embeddings()
            x = table(torch.tensor([[5, 6, 11, 12, 7, 8]])).detach().requires_grad_()
            nll = -model(inputs_embeds=x).logits[0, -2:].log_softmax(-1)[[0, 1], [8, 9]].mean()
            (to_x,) = torch.autograd.grad(nll, x)
            want = to_x[0, 2:4] @ table(torch.arange(320)).detach().T
        assert loss.item() == pytest.approx(nll.item(), rel=1e-4)
        torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-5)


def test_a_cache_that_forgets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    base, aligned = tiny_models("llama")
    plain = type(base.model).forward

    def forgetful(self: Any, *args: Any, **options: Any) -> Any:
        for name in ("past_key_values", "cache"):
            options.pop(name, None)
        options["attention_mask"] = None
        return plain(self, *args, **options)

    monkeypatch.setattr(type(base.model), "forward", forgetful)
    refuses(lambda: ModelPair.from_models(base, aligned, tiny_tokenizer()), PairError, "LlamaForCausalLM", "%")
