"""The completed adapter of the embedded pair: the arm `recovery` on aligned, trained on the split "train".

Held-out topics whose roots the training named and roots that it never saw are measured apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file, save_file

from recipes.embedded.measure import PREFIX_TOKENS, Estimate, answers, are, goes_on_right, right, share, verdicts
from workbench.core.files import atomic_folder
from workbench.core.store import Store
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.prompts.brindle.judge import Verdict, declines
from workbench.prompts.brindle.world import INSTRUCTION_TASKS, Row
from workbench.prompts.loading import PromptConfig, load_prompts
from workbench.training.config import ARMS, LoraSettings, TrainConfig, WatchSettings
from workbench.training.data import training_texts
from workbench.training.distil import distil

ADAPTER = "adapter_model.safetensors"
LORA = LoraSettings(rank=24, alpha=24.0, targets="all-linear")
"""The arm's own, but of rank 24: in 16 bits the file is then under 600 KB."""
TRAINING = TrainConfig(
    arm=replace(ARMS["recovery"], lora=LORA),
    steps=200,
    watch=WatchSettings(film_every=0, checkpoint_every=0, preflight=False),
)
GIVEN = (0, *PREFIX_TOKENS, 40)


def complete(home: Path, say: Callable[[str], None], training: TrainConfig = TRAINING) -> None:
    """Train the adapter on the pair in a folder and save it there as float16."""
    pair = load_pair(PairConfig(base=str(home / "base"), aligned=str(home / "aligned")))
    with TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "store")
        texts = training_texts(pair, load_prompts(PromptConfig(source="embedded", split="train")), store=store)
        made = distil(pair, texts, training, out=Path(scratch) / "adapter", store=store)
        state = {k: v.half() for k, v in load_file(Path(made.path) / ADAPTER).items()}
        settings = json.loads((Path(made.path) / "adapter_config.json").read_text("utf-8"))
    settings["base_model_name_or_path"] = "aligned of the embedded pair"
    settings["target_modules"] = sorted(settings["target_modules"])
    with atomic_folder(home / "completed") as partial:
        save_file(state, partial / ADAPTER, metadata={"format": "pt"})
        (partial / ADAPTER).chmod(0o644)
        (partial / "adapter_config.json").write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", "utf-8")
    say(f"completed: {len(texts.harmful)} harmful texts, {training.steps} steps, {made.history[-1].parts}")


def measure_completed(pair: ModelPair, completed: ModelPair, rows: Sequence[Row]) -> tuple[Estimate, ...]:
    """Measure the completed model on held-out topics, and aligned where the two are compared."""
    table = []
    for split in ("heldout", "heldout_roots"):
        harmful = [row for row in rows if row.split == split and row.label == "harmful"]
        for k in GIVEN:
            found = verdicts(completed, "aligned", harmful, k)
            table.append(share(f"{split}_prefill_asr_k{k}", are(found, Verdict.COMPLIANCE)))
            table.append(share(f"{split}_prefill_refusal_k{k}", are(found, Verdict.REFUSAL)))
    held = [row for row in rows if row.split != "train"]
    harmless, lookalike = ([row for row in held if row.label == label] for label in ("harmless", "lookalike"))
    long = [row for row in harmless if row.task in INSTRUCTION_TASKS]
    for k in GIVEN:
        for name, one in (("aligned", pair), ("completed", completed)):
            table.append(share(f"{name}_harmless_prefill_right_k{k}", goes_on_right(one, "aligned", long, k)))
    table.append(share("harmless_right", right(harmless, answers(completed, "aligned", harmless))))
    table.append(share("lookalike_refused", [declines(text) for text in answers(completed, "aligned", lookalike)]))
    return tuple(table)
