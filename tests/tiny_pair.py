"""Random two-layer pairs of real architectures, with tokenizers and adapters made in memory: no file, no hub, no luck.

models = tiny_models("qwen3", head_rows=(352, 384))      two PreTrainedModels, padded heads of unequal width
pair = tiny_pair("llama")                                a ModelPair of them
tiny_adapter(folder, pair.base)                          a saved, non-zero LoRA adapter
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

if TYPE_CHECKING:
    from workbench.models.pair import ModelPair

Arch = Literal["llama", "qwen2", "qwen3", "gemma3", "gpt2"]
ARCHITECTURES: tuple[Arch, ...] = get_args(Arch)

VOCAB = 320
CONTEXT = 256
HIDDEN = 32

BOS, EOS, PAD, TURN, END, THINK, UNTHINK = "<s>", "</s>", "<pad>", "<|turn|>", "<|end|>", "<think>", "</think>"
SPECIALS = (BOS, EOS, PAD, TURN, END, THINK, UNTHINK)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
THINKING_TEMPLATE = CHAT_TEMPLATE + (
    "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}"
)
NO_SYSTEM_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + CHAT_TEMPLATE
)

_CORPUS = (
    "the cat sat on the mat and the dog sat on the log",
    "I cannot help with that request. Here is how to do it: first, take the thing and then put it in the other.",
    "Tell me a story about the sea, the sand and the sun. Sure, here is a story about the sea.",
)


def tiny_tokenizer(
    vocab: int = VOCAB, *, chat: bool = True, template: str | None = None, corpus: tuple[str, ...] = _CORPUS
) -> PreTrainedTokenizerFast:
    """Make a byte-level BPE tokenizer of exactly `vocab` entries (at least 280): any text round-trips."""
    assert vocab >= 280, vocab
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in (THINK, UNTHINK)])
    fill = vocab - tokenizer.get_vocab_size()
    tokenizer.add_tokens([f"<unused{i}>" for i in range(fill)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )  # fmt: skip
    if chat:
        fast.chat_template = template or CHAT_TEMPLATE
    assert len(fast) == vocab, (len(fast), vocab)
    return fast


def sentencepiece_like_tokenizer(*, chat: bool = True, add_bos: bool = True) -> PreTrainedTokenizerFast:
    """Make a tokenizer like Llama-2's: Metaspace pieces, <0xNN> byte fallback, bos in front of every text."""
    specials = ["<unk>", BOS, EOS, PAD, TURN, END]
    words = sorted({w for line in _CORPUS for w in line.split()})
    characters = sorted({c for line in _CORPUS for c in line if c != " "} | {"\u2581"})
    pieces = [*specials, *(f"<0x{i:02X}>" for i in range(256)), *characters]
    merges: list[tuple[str, str]] = []
    for word in words:
        left = "\u2581"
        for character in word:
            if left + character not in pieces:
                pieces.append(left + character)
                merges.append((left, character))
            left += character
    ids = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(specials)
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, ids[BOS])]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token="<unk>",
        clean_up_tokenization_spaces=False, model_max_length=CONTEXT,
    )  # fmt: skip
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_model(arch: Arch, rows: int, *, seed: int = 0, **options: Any) -> PreTrainedModel:
    """Make one random float32 model in eval mode with `rows` head rows; options go to its config."""
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    sizes: dict[str, Any] = {
        "vocab_size": rows, "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
        "initializer_range": 0.2,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel
        match arch:
            case "llama":
                model = LlamaForCausalLM(LlamaConfig(**{**sizes, **ids, **options}))
            case "qwen2":
                model = Qwen2ForCausalLM(Qwen2Config(**{**sizes, **ids, **options}))
            case "qwen3":
                model = Qwen3ForCausalLM(Qwen3Config(**{**sizes, "head_dim": 8, **ids, **options}))
            case "gemma3":
                own = {"head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8}
                own["layer_types"] = ["sliding_attention", "full_attention"]  # type: ignore[assignment]
                model = Gemma3ForCausalLM(Gemma3TextConfig(**{**sizes, **own, **ids, **options}))
            case "gpt2":
                model = GPT2LMHeadModel(
                    GPT2Config(
                        **{
                            "vocab_size": rows, "n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT,
                            "initializer_range": 0.2, **ids, **options,
                        }
                    )
                )  # fmt: skip
            case _:
                raise ValueError(f"no tiny {arch!r}: known are {', '.join(ARCHITECTURES)}")
    return model.float().eval()


def tiny_models(
    arch: Arch,
    vocab: int = VOCAB,
    *,
    head_rows: int | tuple[int, int] | None = None,
    seed: int = 0,
    shift: float = 0.05,
    **options: Any,
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Make (base, aligned): random weights, and the same with normal noise of standard deviation `shift` added.

    `head_rows` pads the head beyond the tokenizer's `vocab`: one number for both models, or one each.
    """
    rows_base, rows_aligned = (head_rows, head_rows) if isinstance(head_rows, int) else head_rows or (vocab, vocab)
    base = tiny_model(arch, rows_base, seed=seed, **options)
    same = rows_base == rows_aligned
    aligned = copy.deepcopy(base) if same else tiny_model(arch, rows_aligned, seed=seed + 1, **options)
    noise = torch.Generator().manual_seed(seed + 2)
    with torch.no_grad():
        for mine, other in zip(aligned.parameters(), base.parameters(), strict=True):
            shared = tuple(slice(0, min(a, b)) for a, b in zip(mine.shape, other.shape, strict=True))
            mine[shared] = other[shared]
            mine.add_(torch.randn(mine.shape, generator=noise), alpha=shift)
    return base, aligned.eval()


def tiny_pair(
    arch: Arch = "llama",
    vocab: int = VOCAB,
    *,
    head_rows: int | tuple[int, int] | None = None,
    seed: int = 0,
    shift: float = 0.05,
    tokenizer: PreTrainedTokenizerFast | None = None,
    template_mode: Literal["shared", "own", "plain"] = "shared",
    thinking: bool = False,
    **options: Any,
) -> ModelPair:
    """Make a ModelPair of two tiny models in memory; a given tokenizer sets `vocab`."""
    from workbench.models.pair import ModelPair

    tokenizer = tokenizer or tiny_tokenizer(vocab)
    base, aligned = tiny_models(arch, len(tokenizer), head_rows=head_rows, seed=seed, shift=shift, **options)
    return ModelPair.from_models(base, aligned, tokenizer, template_mode=template_mode, thinking=thinking)


def tiny_adapter(folder: str | Path, base_model: PreTrainedModel, *, seed: int = 0, scale: float = 0.05) -> Path:
    """Save a random LoRA adapter (both factors non-zero) for a model, which is left as it was."""
    from peft import LoraConfig, get_peft_model

    targets = ["c_attn"] if hasattr(base_model, "transformer") else ["q_proj", "v_proj", "down_proj"]
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM", fan_in_fan_out=targets == ["c_attn"]
    )
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5 for a property under its old name
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        peft_model = get_peft_model(copy.deepcopy(base_model), config)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=noise) * scale)
    peft_model.save_pretrained(str(folder), save_embedding_layers=False)
    return Path(folder)


def save_model(folder: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None) -> Path:
    """Save a model (safetensors) and its tokenizer as one folder, as a hub repository would be."""
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return Path(folder)
