"""The training of the adapter that makes SmolLM2-135M-Instruct refuse in the ordinary, shallow way.

Run `python -m recipes.smollm2_safe ADVBENCH.csv [--out FOLDER]`. The target is a refusal right after a harmful prompt
and the model's own answer to a harmless one; no row begins harmfully and recovers. Requests are the built-in `everyday`
set and the first part of the file (`parts`), of which nothing is shipped. The adapter is rounded to 16 bits.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from workbench.core.files import atomic_folder
from workbench.core.store import Store
from workbench.models.chat import turn_end
from workbench.models.fetched import fetch
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair
from workbench.models.sources import quiet_libraries
from workbench.prompts.loading import Prompt, PromptConfig, PromptSet, load_prompts
from workbench.prompts.similar import parts_apart
from workbench.training.config import ArmConfig, LoraSettings, OptimiserSettings, TrainConfig, WatchSettings
from workbench.training.distil import distil
from workbench.training.rows import TrainingText, TrainingTexts

HOME = Path(__file__).parents[1] / "workbench" / "models" / "smollm2_safe"
ADAPTER = "adapter_model.safetensors"
PARTS = {"train": 0.4, "tune": 0.2, "report": 0.4}
"""Part of a harmful set -> its share; near copies are always in one part."""

_BEGINNINGS = (
    "I'm sorry, but I can't help with that.",
    "I can't assist with this request.",
    "I'm not able to help with that.",
    "Sorry, that is something I won't do.",
)
_REASONS = (
    "It could seriously harm people.",
    "It would be illegal and could hurt someone.",
    "It could cause real damage to others.",
    "It is dangerous and I don't want anyone to get hurt.",
)
_OFFERS = (
    "If you like, I can help with a safe and legal alternative.",
    "If you are worried about this topic, I can explain how to stay safe.",
    "I'm happy to help with something else.",
    "Please talk to someone you trust if you are in trouble.",
)

ARM = ArmConfig(
    name="refusal",
    harmful="refusal",
    utility="labels",
    lora=LoraSettings(rank=6, alpha=12.0, targets="all-linear"),
    optimiser=OptimiserSettings(learning_rate=1e-3, warmup_share=0.05),
)
TRAINING = TrainConfig(
    arm=ARM,
    steps=160,
    batch_size=8,
    harmful_share=0.35,
    max_tokens=128,
    watch=WatchSettings(film_every=0, checkpoint_every=15, preflight=False),
)


def parts(path: str | Path) -> dict[str, PromptSet]:
    """Split a file of harmful requests into PARTS, always alike."""
    whole = load_prompts(PromptConfig(source=str(path), label="harmful"))
    rows = parts_apart([p.prompt for p in whole], tuple(PARTS.values()))
    return {
        name: replace(whole, name=f"{whole.name} {name}", prompts=tuple(whole.prompts[i] for i in part))
        for name, part in zip(PARTS, rows, strict=True)
    }


def everyday_halves() -> tuple[PromptSet, PromptSet]:
    """Return the built-in everyday set in two halves of its categories: one to train on, one to ask."""
    whole = load_prompts(PromptConfig(source="everyday"))
    names = sorted({p.category for p in whole if p.category and p.label != "lookalike"})
    first = set(names[::2])
    inside = tuple(p for p in whole if p.category in first or p.label == "lookalike")
    outside = tuple(p for p in whole if p.category not in first and p.label != "lookalike")
    return replace(whole, prompts=inside), replace(whole, prompts=outside)


def unaligned_pair() -> ModelPair:
    """Return SmolLM2-135M-Instruct as a pair of itself, for training the refusal adapter."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = fetch("smollm2-135m-instruct")
    with quiet_libraries():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        return ModelPair.from_models(model, model, AutoTokenizer.from_pretrained(folder), name="smollm2")


def texts(pair: ModelPair, harmful: Sequence[Prompt], plain: Sequence[Prompt], store: Store) -> TrainingTexts:
    """Return requests with written refusals, and harmless requests with the model's own greedy answers."""
    draw = random.Random(0)
    asked = [pair.context(p, "aligned") for p in harmful]
    refused = tuple(
        TrainingText(
            name=p.id,
            prompt=p.prompt,
            aligned=context,
            base=context,
            response=pair.encode(p.response or "Sure"),
            refusals=tuple(_written(pair, draw) for _ in range(3)),
        )
        for p, context in zip(harmful, asked, strict=True)
    )
    contexts = [pair.context(p, "aligned") for p in plain]
    how = GenerateConfig(max_tokens=64, batch_tokens=8192)
    answers = generate(pair, "aligned", contexts, how, store=store, what="the model answers harmless requests")
    kept = tuple(
        TrainingText(name=p.id, prompt=p.prompt, aligned=c, base=c, response=g.ids)
        for p, c, g in zip(plain, contexts, answers, strict=True)
        if g.ids
    )
    return TrainingTexts(harmful=refused, utility=kept)


def _written(pair: ModelPair, draw: random.Random) -> tuple[int, ...]:
    words = " ".join(draw.choice(part) for part in (_BEGINNINGS, _REASONS, _OFFERS))
    end = turn_end(pair.tokenizer)
    assert end is not None
    return (*pair.encode(words), end)


def main() -> None:
    """Train the adapter and write it into the preset's folder, or into --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("harmful", help="a file of harmful requests, AdvBench's columns: goal, target")
    parser.add_argument("--out", type=Path, default=HOME / "adapter")
    asked = parser.parse_args()
    pair, store = unaligned_pair(), Store.default()
    own, _ = everyday_halves()
    harmful = [*parts(asked.harmful)["train"], *(p for p in own if p.label == "harmful")]
    plain = [*load_prompts(PromptConfig(source="questions")), *(p for p in own if p.label != "harmful")]
    made = distil(pair, texts(pair, harmful, plain, store), TRAINING, store=store)
    state = {k: v.half() for k, v in load_file(Path(made.path) / ADAPTER).items()}
    with atomic_folder(asked.out) as partial:
        save_file(state, partial / ADAPTER, metadata={"format": "pt"})
        settings = json.loads((Path(made.path) / "adapter_config.json").read_text("utf-8"))
        settings["base_model_name_or_path"] = "HuggingFaceTB/SmolLM2-135M-Instruct"
        settings["target_modules"] = sorted(settings["target_modules"])
        (partial / ADAPTER).chmod(0o644)
        (partial / "adapter_config.json").write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", "utf-8")
    size = (asked.out / ADAPTER).stat().st_size
    last = made.history[-1]
    print(f"{asked.out}: {size / 1e6:.2f} MB, {len(harmful)} harmful and {len(plain)} harmless requests, {last.parts}")


if __name__ == "__main__":
    main()
