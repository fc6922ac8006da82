"""A merged model is the adapter's model, whatever the adapter changed, or it is not written."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedModel

from tests.errors import refuses
from tests.tiny_pair import tiny_model, tiny_tokenizer
from workbench.core.errors import PairError
from workbench.models.pair import ModelPair
from workbench.models.sources import quiet_libraries
from workbench.training import adapter as finished
from workbench.training.adapter import merge
from workbench.training.config import LoraSettings
from workbench.training.student import student_of

IDS = torch.tensor([[0, 70, 81, 300, 301, 2, 114, 125, 319]])

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "head saved": {"modules_to_save": ["lm_head"]},
    "embedding saved": {"modules_to_save": ["embed_tokens"]},
    "both saved": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "tokens": {"trainable_token_indices": [300, 301]},
    "on the head": {"target_modules": ["q_proj", "lm_head"]},
    "on the embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "dora, own ranks": {"use_dora": True, "rank_pattern": {"v_proj": 2}},
}


def adapted(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    """Save a random LoRA adapter of these options, all of its tensors moved."""
    settings = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **options}
    noise = torch.Generator().manual_seed(3)
    with quiet_libraries(), torch.no_grad():
        one = get_peft_model(copy.deepcopy(model), LoraConfig(**settings))
        for parameter in one.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.1)
        one.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def own_logits(model: PreTrainedModel, adapter: Path) -> torch.Tensor:
    with quiet_libraries(), torch.no_grad():
        return PeftModel.from_pretrained(copy.deepcopy(model), str(adapter)).eval()(input_ids=IDS).logits  # type: ignore[no-any-return]


def written_logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(input_ids=IDS).logits  # type: ignore[no-any-return]


def mixture() -> PreTrainedModel:
    torch.manual_seed(0)
    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, num_local_experts=4, max_position_embeddings=256, initializer_range=0.2,
        )
    ).eval()  # fmt: skip


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied"])
@pytest.mark.parametrize("case", CASES)
def test_the_merged_model_says_what_the_adapter_says(case: str, tied: bool, tmp_path: Path) -> None:
    model = tiny_model("qwen2", 320, tie_word_embeddings=tied)
    adapter = adapted(model, tmp_path / "a", **CASES[case])
    pair = ModelPair.from_models(copy.deepcopy(model), model, tiny_tokenizer())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    want = own_logits(tiny_model("qwen2", 320, tie_word_embeddings=tied), adapter)
    merge(pair, adapter, tmp_path / "m")
    assert (written_logits(tmp_path / "m") - want).abs().max() < 1e-4
    with pair.model("aligned") as now, torch.no_grad():
        alone = now(input_ids=IDS).logits
        assert torch.equal(alone, tiny_model("qwen2", 320, tie_word_embeddings=tied)(input_ids=IDS).logits)
    assert (alone - want).abs().max() > 0.01
    kept = {k.replace(".base_layer.", "."): v for k, v in model.state_dict().items()}
    assert all(torch.equal(v, kept[k]) for k, v in before.items() if k in kept)


def test_mixtures_of_experts_gpt2_and_biases(tmp_path: Path) -> None:
    base = mixture()
    pair = ModelPair.from_models(copy.deepcopy(base), base, tiny_tokenizer())
    with student_of(pair, LoraSettings(rank=4, alpha=8.0, targets="all-linear"), seed=0) as student, torch.no_grad():
        noise = torch.Generator().manual_seed(3)
        for parameter in student.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.05)
        want = student.one.model(input_ids=IDS).logits.clone()
        student.save(tmp_path / "experts")
    merge(pair, tmp_path / "experts", tmp_path / "m0")
    assert (written_logits(tmp_path / "m0") - want).abs().max() < 1e-4

    for n, (model, options) in enumerate((
        (tiny_model("gpt2", 320), {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
        (tiny_model("qwen2", 320), {"lora_bias": True}),  # its query and value maps have a bias
        (mixture(), {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    )):  # fmt: skip
        adapter = adapted(model, tmp_path / f"a{n + 1}", **options)
        want = own_logits(model, adapter)
        merge(ModelPair.from_models(model, model, tiny_tokenizer()), adapter, tmp_path / f"m{n + 1}")
        assert (written_logits(tmp_path / f"m{n + 1}") - want).abs().max() < 1e-4


def test_what_cannot_be_merged_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", 320)
    adapter = adapted(model, tmp_path / "bias", lora_bias=True)  # its maps have none
    pair = ModelPair.from_models(model, model, tiny_tokenizer())
    refuses(lambda: merge(pair, adapter, tmp_path / "m"), PairError, "LORA", "bias")
    plain, merged = adapted(model, tmp_path / "plain"), finished._merged_copy

    def damaged(peft: PeftModel) -> PreTrainedModel:
        made = merged(peft)
        with torch.no_grad():
            made.get_input_embeddings().weight[2].add_(1.0)  # one control token
        return made

    monkeypatch.setattr(finished, "_merged_copy", damaged)
    refuses(lambda: merge(pair, plain, tmp_path / "m"), PairError, str(plain))
    assert not list(tmp_path.glob("m*"))
