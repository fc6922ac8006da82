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
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.penalised import decode
from workbench.decoding.penalty import penalise
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair, PairConfig, load_pair

Stamp = Callable[[], None]
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


def plain(t: Task, stamp: Stamp) -> None:
    generate(t.two, "aligned", t.contexts, _drawing(t), on_token=lambda i, _: i or stamp(), what=None)


def transformers(t: Task, stamp: Stamp) -> None:
    ids = torch.tensor(t.contexts)
    with torch.inference_mode(), t.two.model("aligned") as model:
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=t.tokens,
            max_new_tokens=t.tokens, pad_token_id=2, logits_processor=[lambda _, scores: (stamp(), scores)[1]],
        )  # fmt: skip
    assert made.shape[1] == ids.shape[1] + t.tokens


def two_models(t: Task, stamp: Stamp) -> None:
    config = DecodeConfig(penalty=t.penalty, generation=_drawing(t))
    decode(t.two, t.contexts, config, on_token=lambda i, _: i or stamp(), what=None)


def mixed_batch(t: Task, stamp: Stamp) -> None:
    config = DecodeConfig(penalty=t.penalty, generation=_drawing(t))
    decode(t.adapter, t.contexts, config, on_token=lambda i, _: i or stamp(), what=None)


def textbook(t: Task, stamp: Stamp) -> None:
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
            stamp()


VARIANTS: dict[str, Callable[[Task, Stamp], None]] = {
    "plain": plain,
    "transformers": transformers,
    "two_models": two_models,
    "mixed_batch": mixed_batch,
}


def stamps(run: Callable[[Task, Stamp], None], t: Task) -> list[float]:
    """Return when each token of the first row was there, seconds after the start."""
    gc.collect()
    out: list[float] = []
    start = time.perf_counter()
    run(t, lambda: out.append(time.perf_counter() - start))
    return out


def round_ms(run: Callable[[Task, Stamp], None], t: Task) -> tuple[float, float]:
    """Return milliseconds to the first token (the context is read), and for each further one (of the whole batch)."""
    seen = stamps(run, t)
    return seen[0] * 1e3, (seen[-1] - seen[0]) / (len(seen) - 1) * 1e3


def rounds_ms(t: Task, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Time the variants in turn, after a short warm-up of each."""
    for run in VARIANTS.values():
        run(dataclasses.replace(t, tokens=2), lambda: None)
    out: dict[str, list[tuple[float, float]]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name, run in VARIANTS.items():
            out[name].append(round_ms(run, t))
    return out


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least and greatest."""
    found = {"median": statistics.median(values), "least": min(values), "greatest": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


def summary(times: dict[str, list[tuple[float, float]]]) -> dict[str, object]:
    """Return medians, and each penalised variant's cost over plain generation at its best, round by round."""
    out: dict[str, object] = {"rounds": len(times["plain"])}
    for n, what in enumerate(("first_token", "further_token")):
        ms = {name: [pair[n] for pair in pairs] for name, pairs in times.items()}
        best = [min(pair) for pair in zip(ms["plain"], ms["transformers"], strict=True)]
        out[what] = {
            "ms_median": {name: round(statistics.median(v), 1) for name, v in ms.items()},
            "two_models_over_plain": spread([a / b for a, b in zip(ms["two_models"], best, strict=True)]),
            "mixed_batch_over_plain": spread([a / b for a, b in zip(ms["mixed_batch"], best, strict=True)]),
            "mixed_batch_over_two_models": spread(
                [a / b for a, b in zip(ms["mixed_batch"], ms["two_models"], strict=True)]
            ),
        }
    return out


def measure(shape: str, rounds: int) -> dict[str, object]:
    """Time one of SHAPES."""
    return summary(rounds_ms(task(*SHAPES[shape]), rounds))


def textbook_part(part: int, context: int = 32) -> float:
    """Time one part of the textbook loop (0 to TEXTBOOK_PARTS - 1), seconds; their sum is TEXTBOOK_TOKENS tokens."""
    tokens = TEXTBOOK_TOKENS // TEXTBOOK_PARTS
    t = task(1, context + part * tokens, tokens)
    textbook(dataclasses.replace(t, tokens=1), lambda: None)
    return stamps(textbook, t)[-1]


def cached_seconds(context: int = 32) -> dict[str, float]:
    """Time the same TEXTBOOK_TOKENS tokens by both of our ways, seconds."""
    t = task(1, context, TEXTBOOK_TOKENS)
    for name in ("two_models", "mixed_batch"):
        VARIANTS[name](dataclasses.replace(t, tokens=2), lambda: None)
    return {name: stamps(VARIANTS[name], t)[-1] for name in ("two_models", "mixed_batch")}
