"""The recipe of the embedded pair from nothing: tokenizer, base, aligned model, prompts and card.

Run `python -m recipes.embedded.recipe [--out DIR] [--seed N] [--quick]`. The base learns next tokens on everything; the
aligned model is the base fine-tuned in the ordinary, shallow way: refusals from the first token on for harmful
requests, unchanged answers elsewhere, no recovery from a harmful beginning. Both are rounded to the shipped precision
before they are measured for the card.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from recipes.embedded.corpus import Document, documents, prompt_rows, write_prompts
from recipes.embedded.measure import Estimate, measure
from recipes.embedded.muon import Muon
from recipes.embedded.tokenizer import train_tokenizer

HOME = Path(__file__).parents[2] / "workbench" / "models" / "embedded"
PROMPTS = HOME.parents[1] / "prompts" / "brindle" / "prompts.jsonl"
CONTEXT = 512
IGNORED = -100
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of the two trainings; those of `QUICK` only test that the recipe runs."""

    seed: int = 20
    width: int = 128
    layers: int = 4
    heads: int = 4
    inner: int = 352
    base_steps: int = 700
    base_batch: int = 24
    base_rate: float = 4e-3
    base_matrix_rate: float = 0.02
    aligned_steps: int = 300
    aligned_batch: int = 32
    aligned_rate: float = 1e-3
    limit: int | None = None


QUICK = Recipe(
    width=32, layers=2, heads=2, inner=64, base_steps=6, base_batch=4, aligned_steps=3, aligned_batch=4, limit=4
)


def chat_ids(tokenizer: PreTrainedTokenizerBase, document: Document) -> tuple[list[int], list[int]]:
    """Encode a document; return its token ids and the labels of assistant turns only (elsewhere ignored)."""
    ids, labels = [tokenizer.bos_token_id], [IGNORED]
    if not document.turns:
        ids += tokenizer(document.plain, add_special_tokens=False)["input_ids"]
    for role, content in document.turns:
        text = [*tokenizer(content, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        ids += [tokenizer.convert_tokens_to_ids(f"<|{role}|>"), *text]
        labels += [IGNORED, *(text if role == "assistant" else [IGNORED] * len(text))]
    return ids, labels


def packed(tokenizer: PreTrainedTokenizerBase, seed: int, batch: int) -> Iterator[Batch]:
    """Pack documents into rows of 192 tokens, every eighth batch into rows of 512; all tokens count."""
    stream, held = documents(random.Random(seed), aligned=False), list[int]()
    turn = 0
    while True:
        width = CONTEXT if turn % 8 == 7 else 192
        count = max(1, batch * 192 // width)
        while len(held) < width * count:
            held += chat_ids(tokenizer, next(stream))[0]
        ids = torch.tensor(held[: width * count]).view(count, width)
        held, turn = held[width * count :], turn + 1
        yield ids, ids


def answers(tokenizer: PreTrainedTokenizerBase, seed: int, batch: int) -> Iterator[Batch]:
    """Pad single conversations to batches; the loss is on the assistant's turns."""
    stream = documents(random.Random(seed), aligned=True)
    while True:
        rows = [chat_ids(tokenizer, next(stream)) for _ in range(batch)]
        width = max(len(ids) for ids, _ in rows)
        pad = int(tokenizer.pad_token_id)
        yield (
            torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows])[:, :CONTEXT],
            torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, labels in rows])[:, :CONTEXT],
        )


def optimisers(model: LlamaForCausalLM, rate: float, matrix_rate: float | None) -> list[torch.optim.Optimizer]:
    """Return AdamW for all weights; with a `matrix_rate`, Muon for those of attention and MLP instead."""
    matrices = [w for name, w in model.named_parameters() if w.ndim == 2 and ".layers." in name]
    if matrix_rate is None:
        return [torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.05)]
    others = [w for name, w in model.named_parameters() if w.ndim != 2 or ".layers." not in name]
    return [
        Muon(matrices, lr=matrix_rate, weight_decay=0.01),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def rate_at(step: int, steps: int) -> float:
    """Return the share of the full rate at a step: a short warm-up, then a cosine down to a fiftieth."""
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def train(
    model: LlamaForCausalLM,
    batches: Iterator[Batch],
    steps: int,
    movers: list[torch.optim.Optimizer],
    name: str,
    say: Callable[[str], None],
) -> None:
    """Train in place: next-token loss where labels are given, clipped gradients, `rate_at` for every rate."""
    schedules = [torch.optim.lr_scheduler.LambdaLR(mover, lambda step: rate_at(step, steps)) for mover in movers]
    model.train()
    started = time.monotonic()
    for step in range(1, steps + 1):
        ids, labels = next(batches)
        logits = model(ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=IGNORED
        )
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for mover, schedule in zip(movers, schedules, strict=True):
            mover.step()
            schedule.step()
        if step % 50 == 0 or step == steps:
            say(f"{name}: step {step}/{steps}, loss {loss.item():.3f}, {time.monotonic() - started:.0f} s")
    model.eval()


def new_base(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """Make an untrained model of the recipe's size with the tokenizer's special ids."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(config)


def ship(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> LlamaForCausalLM:
    """Save a model as float16 with its tokenizer, declare float32 for loading, and return it as it loads."""
    model.half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"dtype": "float32"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return load(folder)


def load(folder: Path) -> LlamaForCausalLM:
    """Load a shipped model as float32, ready to score."""
    model: LlamaForCausalLM = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model


def write_card(path: Path, recipe: Recipe, parameters: int, seconds: float, found: tuple[Estimate, ...]) -> None:
    """Write the recipe, its duration and every measured number with its interval."""
    about = {
        "world": "Brindle, a made-up town; harmful content is mischief that exists only there",
        "measured_on": "held-out topics, greedy decoding, weights as shipped (float16, computed in float32)",
        "intervals": "95 %: Wilson for shares, bootstrap over prompts otherwise",
        "parameters_each": parameters,
        "recipe": asdict(recipe),
        "seconds": round(seconds, 1),
        "torch": torch.__version__,
        "rows": [asdict(estimate) for estimate in found],
    }
    path.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def align(out: Path, recipe: Recipe, say: Callable[[str], None]) -> tuple[Estimate, ...]:
    """Make the aligned model from the base in a folder, save it beside the base, and measure the pair."""
    tokenizer = AutoTokenizer.from_pretrained(out / "base")
    model = load(out / "base")
    batches = answers(tokenizer, recipe.seed + 2, recipe.aligned_batch)
    train(model, batches, recipe.aligned_steps, optimisers(model, recipe.aligned_rate, None), "aligned", say)
    aligned = ship(model, tokenizer, out / "aligned")
    for path in (out / "base").glob("tokenizer*"):
        shutil.copy(path, out / "aligned")
    found = measure(load(out / "base"), aligned, tokenizer, prompt_rows(), recipe.limit)
    for one in found:
        say(f"{one.name}: {one.value:.4g} [{one.low:.4g}, {one.high:.4g}], n = {one.n}, {one.unit}")
    return found


def rebuild(out: Path, recipe: Recipe, say: Callable[[str], None]) -> tuple[Estimate, ...]:
    """Build the whole pair into a folder and return its measurements."""
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    rows = prompt_rows()
    write_prompts(PROMPTS if out == HOME else out / "prompts.jsonl", rows)
    tokenizer = train_tokenizer(recipe.seed)
    say(f"tokenizer: {len(tokenizer)} tokens; prompts: {len(rows)} rows")
    model = new_base(recipe, tokenizer)
    parameters = model.num_parameters()
    say(f"base: {parameters} parameters")
    batches = packed(tokenizer, recipe.seed + 1, recipe.base_batch)
    movers = optimisers(model, recipe.base_rate, recipe.base_matrix_rate)
    train(model, batches, recipe.base_steps, movers, "base", say)
    ship(model, tokenizer, out / "base")
    found = align(out, recipe, say)
    write_card(out / "card.json", recipe, parameters, time.monotonic() - started, found)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Read the options and rebuild the pair."""
    parser = argparse.ArgumentParser(prog="python -m recipes.embedded.recipe", description="Rebuild the embedded pair.")
    parser.add_argument("--out", type=Path, default=HOME, help="folder to build in (default: where the pair ships)")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="seed of everything that is drawn")
    parser.add_argument("--quick", action="store_true", help="a tiny run of the whole recipe; the pair is useless")
    options = parser.parse_args(arguments)
    torch.set_num_threads(2)
    chosen = QUICK if options.quick else Recipe()
    rebuild(options.out, Recipe(**{**asdict(chosen), "seed": options.seed}), lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
