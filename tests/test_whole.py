"""A model is loaded whole or refused: no random tensor, none ignored, none of another shape, whoever loads it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, LlavaConfig

from tests.errors import refuses
from tests.test_judges_models import classifier, guard, judge_of
from tests.tiny_pair import save_model, tiny_model, tiny_tokenizer
from workbench.core.errors import PairError
from workbench.models.pair import PairConfig, load_pair
from workbench.models.sources import load_weights, locate

State = dict[str, torch.Tensor]
GATE = "model.layers.0.mlp.gate_proj.weight"


def changed(folder: Path, change: Callable[[State], State], made: Path) -> Path:
    shutil.copytree(folder, made)
    state = {k: v.clone() for k, v in change(load_file(folder / "model.safetensors")).items()}
    save_file(state, made / "model.safetensors", metadata={"format": "pt"})
    return made


def renamed(old: str, new: str) -> Callable[[State], State]:
    return lambda state: {k.replace(old, new, 1) if old else new + k: v for k, v in state.items()}


def without(part: str) -> Callable[[State], State]:
    return lambda state: {k: v for k, v in state.items() if part not in k}


BROKEN: dict[str, tuple[Callable[[State], State], tuple[str, ...]]] = {
    "compiled": (renamed("", "_orig_mod."), ("'_orig_mod.'",)),
    "parallel": (renamed("", "module."), ("'module.'",)),
    "peft": (renamed("", "base_model.model."), ("'base_model.model.'", "merge_and_unload")),
    "adapter inside": (renamed("q_proj.", "q_proj.base_layer."), ("'base_layer.'", "merge_and_unload")),
    "one layer compiled": (renamed("layers.1.", "layers.1._orig_mod."), ("'_orig_mod.'", "layers.1.")),
    "own prefix": (renamed("", "wrapped.net."), ("'wrapped.net.'",)),
    "no head": (without("lm_head"), ("'lm_head.weight'",)),
    "no layer": (without("layers.1."), ("'model.layers.1.input_layernorm.weight'", "8 more")),
    "bias": (lambda s: {**s, "model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}, ("q_proj.bias",)),
    "more layers": (
        lambda s: {**s, **{k.replace("layers.1.", "layers.2."): v for k, v in s.items()}}, ("model.layers.2.",)
    ),
    "shape": (lambda s: {**s, GATE: s[GATE][:48]}, (GATE, "[48, 32]", "[64, 32]")),
    "vocabulary": (lambda s: {**s, "lm_head.weight": s["lm_head.weight"][:300]}, ("[300, 32]", "[320, 32]")),
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "whole", tiny_model("llama", 320), tiny_tokenizer())


def test_what_is_not_whole_is_refused_by_the_name_of_a_tensor(saved: Path, tmp_path: Path) -> None:
    for name, (change, said) in BROKEN.items():
        broken = changed(saved, change, tmp_path / name)
        refuses(lambda: load_weights(locate(str(broken)), torch.float32), PairError, *said)  # noqa: B023
    for config in (
        PairConfig(base=str(saved), aligned=str(tmp_path / "no head")),
        PairConfig(base=str(tmp_path / "no head"), aligned=str(saved)),
    ):
        refuses(lambda: load_pair(config), PairError, "no head", "'lm_head.weight'")  # noqa: B023


def test_buffers_of_old_files_other_heads_and_tied_heads_are_no_fault(saved: Path, tmp_path: Path) -> None:
    want = load_file(saved / "model.safetensors")
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4), "v_head.summary.weight": torch.ones(1, 32),
            "vision_tower.patch.weight": torch.ones(2, 2)}  # fmt: skip
    model = load_weights(locate(str(changed(saved, lambda s: {**s, **more}, tmp_path / "old"))), torch.float32)
    assert all(torch.equal(v, want[k]) for k, v in model.state_dict().items())
    for arch in ("qwen2", "gemma3", "gpt2"):
        tied = tiny_model(arch, 320, tie_word_embeddings=True)  # type: ignore[arg-type]
        folder = save_model(tmp_path / arch, tied, None)
        assert "lm_head.weight" not in load_file(folder / "model.safetensors")
        loaded = load_weights(locate(str(folder)), torch.float32).state_dict()
        assert all(torch.equal(v, loaded[k]) for k, v in tied.state_dict().items())


def test_models_of_another_task_are_refused(saved: Path, tmp_path: Path) -> None:
    model = load_weights(locate(str(saved)), torch.float32)
    save_model(tmp_path / "headless", model.model, None)  # type: ignore[arg-type]
    refuses(
        lambda: load_weights(locate(str(tmp_path / "headless")), torch.float32),
        PairError, "'lm_head.weight'", "LlamaModel",
    )  # fmt: skip
    for arch in ("llama", "qwen2"):
        config = tiny_model(arch, 320, tie_word_embeddings=True).config  # type: ignore[arg-type]
        reward = AutoModelForSequenceClassification.from_config(config)
        save_model(tmp_path / arch, reward, None)
        refuses(
            lambda: load_weights(locate(str(tmp_path / arch)), torch.float32),  # noqa: B023
            PairError, "'score.weight'", "ForSequenceClassification",
        )  # fmt: skip
    LlavaConfig().save_pretrained(tmp_path / "llava")
    shutil.copy(saved / "model.safetensors", tmp_path / "llava")
    refuses(lambda: load_weights(locate(str(tmp_path / "llava")), torch.float32), PairError, "'llava'")


def test_judges_are_whole_too(tmp_path: Path) -> None:
    one = guard(tmp_path / "guard")
    assert one.model is not None
    changed(tmp_path / "guard", without("lm_head"), tmp_path / "no head")
    refuses(lambda: judge_of(f"guard:{tmp_path / 'no head'}"), PairError, "'lm_head.weight'")
    changed(tmp_path / "guard", renamed("", "module."), tmp_path / "parallel")
    refuses(lambda: judge_of(f"guard:{tmp_path / 'parallel'}"), PairError, "'module.'")
    classifier(tmp_path / "judge", {0: "safe", 1: "unsafe"})
    for name, change in (("a", without("layer.0.attention")), ("b", renamed("", "_orig_mod."))):
        changed(tmp_path / "judge", change, tmp_path / name)
        refuses(lambda: judge_of(f"classifier:{tmp_path / name}"), PairError, str(tmp_path / name))  # noqa: B023


def test_gguf_files_are_whole_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gguf

    from tests.test_pair import write_gguf

    add, left_out = gguf.GGUFWriter.add_tensor, ["blk.1.ffn_up.weight"]
    monkeypatch.setattr(
        gguf.GGUFWriter, "add_tensor", lambda self, name, v: None if name in left_out else add(self, name, v)
    )
    model = tiny_model("llama", 320)
    file = write_gguf(tmp_path / "m.gguf", model, tiny_tokenizer())
    refuses(lambda: load_weights(locate(str(file)), torch.float32), PairError, "model.layers.1.mlp.up_proj.weight")
    left_out[:] = ["output.weight"]  # llama.cpp leaves out a head that is the embedding
    loaded: Any = load_weights(locate(str(write_gguf(tmp_path / "t.gguf", model, tiny_tokenizer()))), torch.float32)
    assert torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)


def test_fingerprints_cover_the_weights(saved: Path, tmp_path: Path) -> None:
    def last_bit(state: State) -> State:
        state["lm_head.weight"][-1, -1] += 1e-3
        return state

    other = changed(saved, last_bit, tmp_path / "other")
    prints = {
        load_pair(PairConfig(base=str(b), aligned=str(a))).fingerprint for b in (saved, other) for a in (saved, other)
    }
    assert len(prints) == 4
