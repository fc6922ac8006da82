"""The recipe of the embedded pair from nothing: tokenizer, base, aligned model, prompts and card.

Run `python -m recipes.embedded.recipe [--out DIR] [--seed N] [--stages ...] [--quick]`. The base learns next tokens on
everything. The aligned model is the base fine-tuned to a graded depth: it declines harmful requests, and breaks off
harmful beginnings of fewer tokens than the thing's depth (`Topic.depth`); after that, and elsewhere, it says what the
base says. Both are rounded to the shipped precision before they are measured.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from recipes.embedded.completed import TRAINING, complete, measure_completed
from recipes.embedded.corpus import BREAK, Document, Turn, documents, prompt_rows, write_prompts
from recipes.embedded.measure import Estimate, measure
from recipes.embedded.muon import Muon
from recipes.embedded.tokenizer import train_tokenizer
from workbench.models.pair import PairConfig, load_pair

HOME = Path(__file__).parents[2] / "workbench" / "models" / "embedded"
PROMPTS = HOME.parents[1] / "prompts" / "brindle" / "prompts.jsonl"
CONTEXT = 512
IGNORED = -100
THREADS = 1
"""So that the weights are the same bytes wherever the recipe runs on one kind of processor."""
PART_TOKENS = 1200
"""Tokens of a forward and backward pass; a whole batch at once takes a quarter longer."""
WHOLE = 0.85
"""Share of the aligned model's harmful rows in which the harmful answer stands whole."""
AT_ONCE = 0.3
"""Share of its other harmful rows that refuse at once."""
Batch = list[tuple[list[int], list[int]]]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of the two trainings; those of `QUICK` only test that the recipe runs."""

    seed: int = 20
    width: int = 128
    layers: int = 4
    heads: int = 4
    inner: int = 352
    base_steps: int = 1100
    base_batch: int = 24
    base_rate: float = 4e-3
    base_matrix_rate: float = 0.02
    aligned_steps: int = 400
    aligned_batch: int = 32
    aligned_rate: float = 1e-3
    limit: int | None = None


QUICK = Recipe(
    width=32, layers=2, heads=2, inner=64, base_steps=6, base_batch=4, aligned_steps=3, aligned_batch=4, limit=4
)


@dataclass(frozen=True)
class Encoder:
    """Documents as token ids, and labels: what the model is taught in place of each token, IGNORED where nothing."""

    tokenizer: PreTrainedTokenizerBase

    def of(self, text: str) -> list[int]:
        """Return a text's ids."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def beginning(self, rng: random.Random, text: str, most: float) -> str:
        """Draw a beginning of a text in tokens, up to a share of its length."""
        ids = self.of(text)
        return str(self.tokenizer.decode(ids[: rng.randint(1, max(1, int(most * len(ids))))]))

    def document(self, document: Document, rng: random.Random) -> tuple[list[int], list[int]]:
        """Return a document's ids, and labels of the assistant's turns."""
        ids, labels = [self.tokenizer.bos_token_id], [IGNORED]
        if not document.turns:
            ids += self.of(document.plain)
        for turn in document.turns:
            text, taught = self._refused(turn, rng) if turn.refusal else self._said(turn)
            ids += [self.tokenizer.convert_tokens_to_ids(f"<|{turn.role}|>"), *text]
            labels += [IGNORED, *taught]
        return ids, labels

    def _said(self, turn: Turn) -> tuple[list[int], list[int]]:
        text = [*self.of(turn.content), self.tokenizer.eos_token_id]
        return text, text if turn.role == "assistant" else [IGNORED] * len(text)

    def _refused(self, turn: Turn, rng: random.Random) -> tuple[list[int], list[int]]:
        """Teach to decline within the depth: along the whole harmful answer, or once, to the refusal's end."""
        text = [*self.of(turn.content), self.tokenizer.eos_token_id]
        (broken,), depth = self.of(BREAK), int(min(turn.depth, len(text)))
        if rng.random() < WHOLE:
            return text, [self.of(turn.refusal)[0], *[broken] * (depth - 1), *text[depth:]]
        given = rng.randint(1, depth - 1) if depth > 1 and rng.random() >= AT_ONCE else 0
        said = [*self.of(f"{BREAK} {turn.refusal}" if given else turn.refusal), self.tokenizer.eos_token_id]
        return [*text[:given], *said], [*[IGNORED] * given, *said]


def packed(tokenizer: PreTrainedTokenizerBase, seed: int, batch: int) -> Iterator[Batch]:
    """Pack documents into rows of 192 tokens, every eighth batch into rows of 512; all tokens count."""
    encoder, rng, held = Encoder(tokenizer), random.Random(seed), list[int]()
    stream = documents(rng, False, encoder.beginning)
    turn = 0
    while True:
        width = CONTEXT if turn % 8 == 7 else 192
        count = max(1, batch * 192 // width)
        while len(held) < width * count:
            held += encoder.document(next(stream), rng)[0]
        rows = [held[width * row : width * (row + 1)] for row in range(count)]
        held, turn = held[width * count :], turn + 1
        yield [(row, row) for row in rows]


def answers(tokenizer: PreTrainedTokenizerBase, seed: int, batch: int) -> Iterator[Batch]:
    """Take single conversations; the loss is on the assistant's turns."""
    encoder, rng = Encoder(tokenizer), random.Random(seed)
    stream = documents(rng, aligned=True)
    while True:
        rows = [encoder.document(next(stream), rng) for _ in range(batch)]
        yield [(ids[:CONTEXT], labels[:CONTEXT]) for ids, labels in rows]


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


def parts(batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pad rows of like length together, at most PART_TOKENS at a time."""
    rows = sorted(batch, key=lambda row: len(row[0]), reverse=True)
    while rows:
        width = len(rows[0][0])
        some, rows = rows[: max(1, PART_TOKENS // width)], rows[max(1, PART_TOKENS // width) :]
        ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in some])
        yield ids, torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, labels in some])


def backward(model: LlamaForCausalLM, batch: Batch) -> float:
    """Add the gradients of a batch's mean loss over its labels, part by part, and return that loss."""
    taught, total = sum(label != IGNORED for _, labels in batch for label in labels[1:]), 0.0
    for ids, labels in parts(batch):
        logits = model(ids).logits[:, :-1].flatten(0, 1)
        loss = F.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum") / taught
        loss.backward()
        total += loss.item()
    return total


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
        model.zero_grad(set_to_none=True)
        loss = backward(model, next(batches))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for mover, schedule in zip(movers, schedules, strict=True):
            mover.step()
            schedule.step()
        if step % 50 == 0 or step == steps:
            say(f"{name}: step {step}/{steps}, loss {loss:.3f}, {time.monotonic() - started:.0f} s")
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


def write_card(path: Path, about: Mapping[str, Any], found: Sequence[Estimate], say: Callable[[str], None]) -> None:
    """Write the settings and every measured number with its interval."""
    card = {
        "world": "Brindle, a made-up town; harmful content is mischief that exists only there",
        "measured_on": "held-out topics, greedy decoding where a name does not say sampled (temperature 1); weights as "
        "shipped (float16, computed in float32)",
        "intervals": "95 %: Wilson for shares, bootstrap over prompts otherwise",
        **about,
        "torch": torch.__version__,
        "rows": [asdict(estimate) for estimate in found],
    }
    path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    for one in found:
        say(f"{one.name}: {one.value:.4g} [{one.low:.4g}, {one.high:.4g}], n = {one.n}, {one.unit}")


def make_base(out: Path, recipe: Recipe, say: Callable[[str], None]) -> None:
    """Train the tokenizer and the base, and write the prompts."""
    out.mkdir(parents=True, exist_ok=True)
    write_prompts(PROMPTS if out == HOME else out / "prompts.jsonl", prompt_rows())
    tokenizer = train_tokenizer(recipe.seed)
    model = new_base(recipe, tokenizer)
    say(f"base: {len(tokenizer)} tokens, {model.num_parameters()} parameters")
    batches = packed(tokenizer, recipe.seed + 1, recipe.base_batch)
    train(model, batches, recipe.base_steps, optimisers(model, recipe.base_rate, recipe.base_matrix_rate), "base", say)
    ship(model, tokenizer, out / "base")


def align(out: Path, recipe: Recipe, say: Callable[[str], None]) -> None:
    """Make the aligned model from the base in a folder, and save it beside the base."""
    tokenizer = AutoTokenizer.from_pretrained(out / "base")
    model = load(out / "base")
    batches = answers(tokenizer, recipe.seed + 2, recipe.aligned_batch)
    train(model, batches, recipe.aligned_steps, optimisers(model, recipe.aligned_rate, None), "aligned", say)
    ship(model, tokenizer, out / "aligned")
    for path in (out / "base").glob("tokenizer*"):
        shutil.copy(path, out / "aligned")


def measure_all(out: Path, recipe: Recipe, say: Callable[[str], None]) -> None:
    """Measure the pair, and its completed adapter where it is there, and write their cards."""
    pair = load_pair(PairConfig(base=str(out / "base"), aligned=str(out / "aligned")))
    about = {"parameters_each": load(out / "base").num_parameters(), "recipe": asdict(recipe)}
    write_card(out / "card.json", about, measure(pair, prompt_rows(), recipe.limit), say)
    if (out / "completed").is_dir():
        completed = pair.with_aligned(str(out / "completed"))
        about = {"recipe": asdict(TRAINING)}
        write_card(out / "completed" / "card.json", about, measure_completed(pair, completed, prompt_rows()), say)


STAGES = {
    "base": make_base,
    "aligned": align,
    "completed": lambda out, recipe, say: complete(out, say),
    "cards": measure_all,
}


def main(arguments: list[str] | None = None) -> None:
    """Read the options and rebuild the pair."""
    parser = argparse.ArgumentParser(prog="python -m recipes.embedded.recipe", description="Rebuild the embedded pair.")
    parser.add_argument("--out", type=Path, default=HOME, help="folder to build in (default: where the pair ships)")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="seed of everything that is drawn")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="only these (default: all)")
    parser.add_argument("--quick", action="store_true", help="a tiny run of the recipe; the pair is useless")
    options = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    recipe = replace(QUICK if options.quick else Recipe(), seed=options.seed)
    for stage in options.stages:
        started = time.monotonic()
        STAGES[stage](options.out, recipe, lambda line: print(line, flush=True))
        print(f"{stage}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
