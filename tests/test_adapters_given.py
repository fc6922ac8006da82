"""Adapters as people give them: every kind that switches off, of this base, by the right parameter; else a sentence."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import HRAConfig, IA3Config, LoraConfig, PeftConfig, PromptTuningConfig, VBLoRAConfig, VeraConfig
from peft import get_peft_model as on_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from tests.errors import refuses
from tests.tiny_pair import save_model, tiny_adapter, tiny_model, tiny_models, tiny_tokenizer
from workbench.core.errors import NotPresent, PairError, WorkbenchError
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.models.sources import quiet_libraries

IDS = torch.tensor([[0, 70, 81, 300, 301, 2, 114]])

KINDS: dict[str, PeftConfig] = {
    "vera": VeraConfig(target_modules=["q_proj"], r=4),
    "vb-lora": VBLoRAConfig(target_modules=["q_proj"], num_vectors=8, vector_length=8),
    "ia3": IA3Config(target_modules=["v_proj"], feedforward_modules=[]),
    "householder": HRAConfig(target_modules=["q_proj"], r=4),
    "on the head": LoraConfig(target_modules=["q_proj", "lm_head"], r=4),
    "on the embedding": LoraConfig(target_modules=["q_proj", "embed_tokens"], r=4),
}


def saved(model: PreTrainedModel, config: PeftConfig, folder: Path) -> torch.Tensor:
    """Save a random adapter as PEFT saves it by default; return its logits."""
    noise = torch.Generator().manual_seed(1)
    with quiet_libraries(), torch.no_grad():
        one = on_model(copy.deepcopy(model), copy.deepcopy(config)).eval()
        for parameter in one.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.1)
        one.save_pretrained(str(folder))
        return one(input_ids=IDS).logits  # type: ignore[no-any-return]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_model(tmp_path / "base", tiny_model("llama", 320), tiny_tokenizer())


def loaded(base: Path) -> PreTrainedModel:
    model: Any = type(tiny_model("llama", 320))
    return model.from_pretrained(base)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_many_kinds_give_their_logits_and_switch_off(kind: str, base: Path, tmp_path: Path) -> None:
    model = loaded(base)
    want, alone = saved(model, KINDS[kind], tmp_path / "a"), model(input_ids=IDS).logits.detach()
    pair = load_pair(PairConfig(base=str(base), adapter=str(tmp_path / "a"), device="cpu"))
    with torch.no_grad():
        assert torch.equal(pair.logits("base", pair.hidden("base", IDS)), alone)
        torch.testing.assert_close(pair.logits("aligned", pair.hidden("aligned", IDS)), want)
    assert (want - alone).abs().max() > 1e-3
    assert not any("trained on" in note for note in pair.notes)


def test_adapters_that_change_the_model_itself_are_refused(base: Path, tmp_path: Path) -> None:
    model = loaded(base)
    saved(model, LoraConfig(target_modules=["q_proj", "lm_head"], r=4), tmp_path / "head")
    saved(model, PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"), tmp_path / "prompt")
    grown = loaded(base)
    grown.resize_token_embeddings(330)
    saved(grown, LoraConfig(target_modules=["q_proj", "embed_tokens"], r=4), tmp_path / "grown")
    refuses(lambda: load_pair(base=str(base), adapter=str(tmp_path / "prompt")), PairError, "PROMPT_TUNING")
    refuses(lambda: load_pair(base=str(base), adapter=str(tmp_path / "grown")), PairError, "embed_tokens", "[330, 32]")
    other = save_model(tmp_path / "other", tiny_model("llama", 320, seed=5), tiny_tokenizer())
    refuses(
        lambda: load_pair(base=str(other), adapter=str(tmp_path / "head")),
        PairError, "lm_head", "save_embedding_layers=False",
    )  # fmt: skip


def test_adapter_files_are_whole_and_a_refused_one_leaves_the_model_as_it_was(base: Path, tmp_path: Path) -> None:
    adapter = tiny_adapter(tmp_path / "a", loaded(base))
    pair = load_pair(PairConfig(base=str(base), aligned=str(base), device="cpu"))
    with torch.no_grad():
        alone = pair.hidden("aligned", IDS)
    state = load_file(adapter / "adapter_model.safetensors")
    one = next(k for k in state if "layers.1." in k)
    for name, change, said in (
        ("compiled", {k.replace("base_model.model.", "base_model.model._orig_mod."): v for k, v in state.items()},
         "_orig_mod."),
        ("wrapped twice", {f"base_model.model.{k}": v for k, v in state.items()}, "base_model.model."),
        ("lacking", {k: v for k, v in state.items() if k != one}, "layers.1."),
        ("more", {**state, **{k.replace("layers.1.", "layers.7."): v for k, v in state.items()}}, "layers.7."),
        ("shape", {**state, one: state[one][:, :-1].clone()}, "63"),
    ):  # fmt: skip
        shutil.copytree(adapter, tmp_path / name)
        save_file({k: v.clone() for k, v in change.items()}, tmp_path / name / "adapter_model.safetensors")
        refuses(lambda: pair.with_aligned(str(tmp_path / name)), PairError, str(tmp_path / name), said)  # noqa: B023
        with torch.no_grad():
            assert torch.equal(pair.hidden("aligned", IDS), alone)
    assert not any("lora_" in n for n, _ in pair._sides["aligned"].weights.model.named_modules())
    assert pair.with_aligned(str(adapter)).fingerprint != pair.fingerprint


def test_an_adapter_of_another_model_is_noted(tmp_path: Path) -> None:
    models = tiny_models("llama")
    base, aligned = (save_model(tmp_path / n, m, tiny_tokenizer()) for n, m in zip("ba", models, strict=True))
    one = tiny_adapter(tmp_path / "one", loaded(aligned))

    def notes(trained_on: str | None, on: Path) -> list[str]:
        file = one / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": trained_on}))
        pairs = load_pair(base=str(on), adapter=str(one)), load_pair(base=str(base), aligned=str(on))
        found = [[n for n in p.notes if "trained on" in n] for p in (pairs[0], pairs[1].with_aligned(str(one)))]
        assert found[0] == found[1]
        return found[0]

    assert notes(str(aligned), aligned) == notes(None, base) == notes("someone/B", base) == []
    moved = shutil.copytree(aligned, tmp_path / "elsewhere" / "other name")
    assert notes(str(moved), aligned) == []
    for other in (str(aligned), "someone/a", "meta-llama/Llama-2-7b-hf"):
        (note,) = notes(other, base)
        assert other in note
        assert str(base) in note


def test_what_is_given_by_the_wrong_parameter_is_named(base: Path, tmp_path: Path) -> None:
    adapter = tiny_adapter(tmp_path / "a", loaded(base))
    for n in (5, 10):
        shutil.copytree(adapter, tmp_path / "trained" / f"checkpoint-{n}")
        shutil.copytree(base, tmp_path / "tuned" / f"checkpoint-{n}")
    both = shutil.copytree(base, tmp_path / "both")
    shutil.copy(adapter / "adapter_config.json", both)
    asked: list[tuple[dict[str, str], type[WorkbenchError], tuple[str, ...]]] = [
        ({"base": str(base), "aligned": str(adapter)}, PairError, ("adapter, not a model", "parameter adapter")),
        ({"base": str(adapter), "aligned": str(base)}, PairError, ("adapter, not a model", "parameter adapter")),
        ({"base": str(base), "adapter": str(base)}, PairError, ("parameter aligned",)),
        ({"base": str(base), "aligned": str(both)}, PairError, ("adapter_config.json",)),
        ({"base": str(base), "adapter": str(tmp_path / "trained")}, NotPresent, ("(checkpoint-5, checkpoint-10)",)),
        ({"base": str(base), "aligned": str(tmp_path / "tuned")}, NotPresent, ("(checkpoint-5, checkpoint-10)",)),
    ]
    for settings, error, said in asked:
        refuses(lambda: load_pair(**settings), error, *said)  # noqa: B023
    pair = ModelPair.from_models(loaded(base), loaded(base), tiny_tokenizer())
    refuses(lambda: pair.with_aligned(str(tmp_path / "trained")), NotPresent, "checkpoint-10")
