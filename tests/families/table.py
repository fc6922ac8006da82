"""The families: model type, tokenizer, template and tiny sizes of each, and what is expected of it.

`whole`: notebooks 01 to 04 run. `refused`: it may be refused, before weights are loaded, by a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

LLAMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content'] + "
    "'\n<</SYS>>\n\n' %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ system if loop.first else '' }}{{ m['content'] }} "
    "[/INST]"
    "{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | "
    "trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n"
    "{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST]{{ m['content'] }}[/INST]"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<|user|>\n{{ m['content'] }}<|end|>\n"
    "{% elif m['role'] == 'assistant' %}<|assistant|>\n{{ m['content'] }}<|end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
OLMO = (
    "{{ bos_token or '' }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
DATED = (
    "<|im_start|>system\nToday's date is {{ strftime_now('%d %B %Y') }}.<|im_end|>\n"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n{% endif %}{% endif %}"
)
GRANITE = (
    "<|start_of_role|>system<|end_of_role|>Today's Date: {{ strftime_now('%B %d, %Y') }}.<|end_of_text|>\n"
    "{% for m in messages %}<|start_of_role|>{{ m['role'] }}<|end_of_role|>{{ m['content'] }}<|end_of_text|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
R1 = (
    "{{ bos_token or '' }}{% for m in messages %}{% if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %}<｜Assistant｜>{{ m['content'].split('</think>')[-1] }}{{ eos_token }}"
    "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)
HARMONY = (
    "<|start|>system<|message|>Current date: {{ strftime_now('%Y-%m-%d') }}\n# Valid channels: analysis, "
    "commentary, final."
    "<|end|>{% for m in messages %}{% if m['role'] == 'assistant' %}<|start|>assistant<|channel|>final<|message|>"
    "{{ m['content'] }}<|return|>{% else %}<|start|>{{ 'developer' if m['role'] == 'system' else m['role'] "
    "}}<|message|>"
    "{{ m['content'] }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family: what its checkpoints look like, in small.

    `extra` are the tokens that its control marks add to the nearest tokenizer, `renamed` control tokens that only the
    aligned tokenizer has (old -> new), `added` tokens that it adds; `padded`: head rows beyond the tokenizer's.
    """

    name: str
    type: str
    tokenizer: str
    template: str | None = None
    extra: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    padded: int = 0
    rows: int | None = None
    mode: str = "shared"
    expected: Literal["whole", "refused"] = "whole"
    options: Mapping[str, Any] = field(default_factory=dict)


EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
FAMILIES: tuple[Family, ...] = (
    Family(name="Llama-2", type="llama", tokenizer="llama2", template=LLAMA2, rows=32_000),
    Family(name="Llama-3.1", type="llama", tokenizer="llama3_1", template=LLAMA3),
    Family(name="Llama-3.2", type="llama", tokenizer="llama3_2"),
    Family(name="Qwen2.5", type="qwen2", tokenizer="qwen2_5", padded=271),
    Family(name="Qwen3", type="qwen3", tokenizer="qwen3", padded=267),
    Family(name="Qwen3-MoE", type="qwen3_moe", tokenizer="qwen3",
           options={"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}),
    Family(name="Gemma-2", type="gemma2", tokenizer="gemma2", template=GEMMA, options={"sliding_window": 64}),
    Family(name="Gemma-3 1B", type="gemma3_text", tokenizer="gemma3", rows=262_144, options={"sliding_window": 64}),
    Family(name="Gemma-3 (vision wrapper)", type="gemma3", tokenizer="gemma3", rows=262_208),
    Family(name="Mistral", type="mistral", tokenizer="mistral_nemo", template=MISTRAL),
    Family(name="Mixtral", type="mixtral", tokenizer="mistral_nemo", template=MISTRAL, options=EXPERTS),
    Family(name="Phi-3", type="phi3", tokenizer="llama2", template=PHI3,
           extra=("<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>")),
    Family(name="OLMo-2", type="olmo2", tokenizer="gpt35turbo", template=OLMO),
    Family(name="SmolLM3", type="smollm3", tokenizer="llama3_1", template=DATED,
           extra=("<|im_start|>", "<|im_end|>", "<think>", "</think>")),
    Family(name="Granite-3", type="granite", tokenizer="gpt35turbo", template=GRANITE,
           extra=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>")),
    Family(name="DeepSeek-V3", type="deepseek_v3", tokenizer="deepseek_v3",
           options={"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "q_lora_rank": 16,
                    "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
                    "moe_intermediate_size": 32, "first_k_dense_replace": 1, "num_key_value_heads": 4}),
    Family(name="R1 distill", type="qwen2", tokenizer="qwen2_5", template=R1, padded=271, mode="own",
           renamed={"<|im_start|>": "<｜User｜>", "<|im_end|>": "<｜Assistant｜>"}, added=("<think>", "</think>")),
    Family(name="Tülu-3", type="llama", tokenizer="llama3_1", template=OLMO, added=("<pad>",)),
    Family(name="gpt-oss", type="gpt_oss", tokenizer="gptoss", template=HARMONY, rows=201_088, options=EXPERTS),
    Family(name="Pythia", type="gpt_neox", tokenizer="gpt35turbo", mode="plain"),
    Family(name="Qwen3.5", type="qwen3_5_text", tokenizer="qwen3", expected="refused"),
    Family(name="Qwen3-Next", type="qwen3_next", tokenizer="qwen3", expected="refused",
           options={"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}),
    Family(name="Granite-4", type="granitemoehybrid", tokenizer="gpt35turbo", template=GRANITE, expected="refused",
           extra=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>")),
    Family(name="Mamba-2", type="mamba2", tokenizer="gpt35turbo", mode="plain", expected="refused"),
    Family(name="Falcon-H1", type="falcon_h1", tokenizer="gpt35turbo", mode="plain", expected="refused"),
    Family(name="RWKV", type="rwkv", tokenizer="gpt35turbo", mode="plain", expected="refused"),
    Family(name="GPT-1", type="openai-gpt", tokenizer="gpt35turbo", mode="plain", expected="refused"),
    Family(name="MiniMax", type="minimax", tokenizer="gpt35turbo", mode="plain", expected="refused", options=EXPERTS),
)  # fmt: skip
