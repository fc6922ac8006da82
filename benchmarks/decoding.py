"""Speed of penalised generation: cost per token against plain generation of the aligned model alone.

Every comparison is of one process, one context and one number of tokens, the variants in turn. `plain` is our own
`generate` and `transformers` is its own, both on one full model without adapter; a penalised token is compared with the
faster of the two in the same round. `textbook` recomputes the whole prefix for both models at every step. No row ends
early: end-of-turn tokens are taken out.
"""

from __future__ import annotations

import dataclasses
import gc
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.pairs import smollm2
from workbench.decode import DecodeConfig, PenaltyConfig, decode, penalise
from workbench.generate import GenerateConfig, generate
from workbench.pair import ModelPair, PairConfig, load_pair

RANK = 16
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PENALTY = PenaltyConfig(gamma=1.0)
SHAPES = {
    "batch 1, short context": (1, 32, 48),
    "batch 1, long context": (1, 768, 32),
    "batch 16, short context": (16, 32, 16),
    "batch 16, long context": (16, 256, 8),
}
"""Name of each comparison -> rows, context tokens, generated tokens."""

TEXTBOOK_TOKENS, TEXTBOOK_PARTS = 256, 4
"""The textbook loop takes minutes for 256 tokens, so it is timed in parts: the next 64 tokens of a longer context."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Both kinds of pair, and the rows to continue."""

    two: ModelPair
    adapter: ModelPair
    contexts: list[tuple[int, ...]]
    tokens: int
    penalty: PenaltyConfig = PENALTY


def adapter_pair() -> ModelPair:
    """SmolLM2-135M-Instruct with a random LoRA of rank 16 on all linear layers of attention and MLP."""
    from peft import LoraConfig, get_peft_model

    with load_pair(PairConfig(preset="smollm2")).model("base") as model, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LINEAR, task_type="CAUSAL_LM")
        adapted = get_peft_model(model, config)
        noise = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=noise) * 0.01)
        with tempfile.TemporaryDirectory() as folder:
            adapted.save_pretrained(folder, save_embedding_layers=False)
            return load_pair(PairConfig(preset="smollm2", adapter=folder))


def task(batch: int, context: int, tokens: int, penalty: PenaltyConfig = PENALTY) -> Task:
    endless = [dataclasses.replace(pair, eos_ids=frozenset()) for pair in (smollm2(), adapter_pair())]
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(100, endless[0].vocab, (batch, context), generator=draw).tolist()
    contexts = [tuple(row) for row in ids]
    return Task(two=endless[0], adapter=endless[1], contexts=contexts, tokens=tokens, penalty=penalty)


def _drawing(t: Task) -> GenerateConfig:
    return GenerateConfig(max_tokens=t.tokens, batch_tokens=1 << 20)


def plain(t: Task) -> object:
    return generate(t.two, "aligned", t.contexts, _drawing(t), what=None)


def transformers(t: Task) -> object:
    ids = torch.tensor(t.contexts)
    with torch.inference_mode(), t.two.model("aligned") as model:
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=t.tokens,
            max_new_tokens=t.tokens, pad_token_id=2,
        )  # fmt: skip
    assert made.shape[1] == ids.shape[1] + t.tokens
    return made


def two_models(t: Task) -> object:
    return decode(t.two, t.contexts, DecodeConfig(penalty=t.penalty, generation=_drawing(t)), what=None)


def mixed_batch(t: Task) -> object:
    return decode(t.adapter, t.contexts, DecodeConfig(penalty=t.penalty, generation=_drawing(t)), what=None)


def textbook(t: Task) -> object:
    """Both models over the whole sequence for every token, no cache, no ledger."""
    ids = torch.tensor(t.contexts)
    with torch.inference_mode():
        for n in range(t.tokens):
            found = []
            for which in ("base", "aligned"):
                with t.two.model(which) as model:  # type: ignore[arg-type]
                    logits = model(ids, use_cache=False, logits_to_keep=1).logits[:, -1, : t.two.vocab]
                found.append(logits.float().log_softmax(-1))
            chosen = penalise(*found, t.penalty, position=n + 1).argmax(-1)
            ids = torch.cat((ids, chosen.unsqueeze(-1)), -1)
    return ids


VARIANTS: dict[str, Callable[[Task], object]] = {
    "plain": plain,
    "transformers": transformers,
    "two_models": two_models,
    "mixed_batch": mixed_batch,
}


def ms_per_token(t: Task, rounds: int, variants: tuple[str, ...] = tuple(VARIANTS)) -> dict[str, list[float]]:
    """Time the variants in turn, after a short warm-up of each: milliseconds a token of the whole batch, per round."""
    out: dict[str, list[float]] = {name: [] for name in variants}
    for name in variants:
        VARIANTS[name](dataclasses.replace(t, tokens=2))
    for _ in range(rounds):
        for name in variants:
            gc.collect()
            start = time.perf_counter()
            VARIANTS[name](t)
            out[name].append((time.perf_counter() - start) / t.tokens * 1e3)
    return out


def seconds(run: Callable[[Task], object], t: Task) -> float:
    """Time one call, after a short one."""
    run(dataclasses.replace(t, tokens=2))
    gc.collect()
    start = time.perf_counter()
    run(t)
    return time.perf_counter() - start


def textbook_part(part: int, context: int = 32) -> float:
    """Time one part of the textbook loop (0 to TEXTBOOK_PARTS - 1), seconds; their sum is TEXTBOOK_TOKENS tokens."""
    tokens = TEXTBOOK_TOKENS // TEXTBOOK_PARTS
    return seconds(textbook, task(1, context + part * tokens, tokens))


def cached_seconds(context: int = 32) -> dict[str, float]:
    """Time the same TEXTBOOK_TOKENS tokens by both of our ways, seconds."""
    t = task(1, context, TEXTBOOK_TOKENS)
    return {name: seconds(VARIANTS[name], t) for name in ("two_models", "mixed_batch")}


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least and greatest."""
    found = {"median": statistics.median(values), "least": min(values), "greatest": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


def summary(times: dict[str, list[float]]) -> dict[str, object]:
    """Return medians, and each penalised variant's cost over plain generation at its best, round by round."""
    best = [min(pair) for pair in zip(times["plain"], times["transformers"], strict=True)]
    two, mixed = times["two_models"], times["mixed_batch"]
    return {
        "ms_per_token_median": {name: round(statistics.median(v), 2) for name, v in times.items()},
        "rounds": len(best),
        "two_models_over_plain": spread([a / b for a, b in zip(two, best, strict=True)]),
        "mixed_batch_over_plain": spread([a / b for a, b in zip(mixed, best, strict=True)]),
        "mixed_batch_over_two_models": spread([a / b for a, b in zip(mixed, two, strict=True)]),
    }


def measure(shape: str, rounds: int) -> dict[str, object]:
    """Time one of SHAPES."""
    return summary(ms_per_token(task(*SHAPES[shape]), rounds))
