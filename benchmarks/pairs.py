"""The pairs that the benchmarks measure on."""

from __future__ import annotations

import copy

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from workbench.models.pair import ModelPair, PairConfig, load_pair


def embedded() -> ModelPair:
    return load_pair(PairConfig(preset="embedded"))


def smollm2() -> ModelPair:
    """SmolLM2-135M-Instruct and a slightly shifted full copy of it: two sets of weights, as a real pair has."""
    loaded = load_pair(PairConfig(preset="smollm2"))
    with loaded.model("base") as base:
        aligned = copy.deepcopy(base)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in aligned.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=g), alpha=1e-3)
    return ModelPair.from_models(base, aligned, loaded.tokenizer, name="smollm2, two copies")


def wide(vocab: int = 151_936, hidden: int = 256) -> ModelPair:
    """A random two-layer pair with a wide head (Qwen's width)."""
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocab, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=1024, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        )  # fmt: skip
        models.append(LlamaForCausalLM(config).eval())
    return ModelPair.from_models(*models, _tokenizer(vocab), name=f"random, {vocab} wide")


def _tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{i}": i for i in range(vocab)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="w0", eos_token="w1", pad_token="w2", unk_token="w3",
        chat_template="{{ bos_token }}{% for m in messages %} {{ m['content'] }}{% endfor %}",
    )  # fmt: skip


PAIRS = {"embedded": embedded, "smollm2": smollm2, "wide": wide}
