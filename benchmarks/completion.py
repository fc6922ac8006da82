"""Every way to complete an alignment, on SmolLM2-135M-Instruct: docs/results/smollm2.md says what is measured and why.

python -m benchmarks.completion DATA --part tune|report [--arms NAME[@LEARNING_RATE] ...] [--out FOLDER]

DATA is a folder with advbench_dev.csv, xstest_prompts.csv, bbh/, mmlu_redux.jsonl and gsm8k_dev.jsonl.  Everything that
is trained, answered and judged is kept in the user's cache: a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import workbench as wb
from recipes.smollm2_safe import everyday_halves, parts
from workbench.core.files import atomic_file
from workbench.core.passages import Passage
from workbench.core.store import Store
from workbench.display import views
from workbench.evaluation.arms import comparison_rows, train_arms
from workbench.evaluation.attacks import GCG, Budget, Insertion, ModelArm
from workbench.evaluation.capability import CapabilityConfig
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.prompts.loading import Prompt, PromptConfig, PromptSet, load_prompts
from workbench.training.config import ArmConfig, TrainConfig, WatchSettings, arm_named
from workbench.training.rows import TrainingTexts

COMPARED = ("refusal_sft", "paper", "paper_tuned", "augmentation", "recovery")
TRAINING = TrainConfig(
    steps=60,
    batch_size=8,
    harmful_share=0.5,
    max_tokens=120,
    prefix_tokens=48,
    watch=WatchSettings(film_every=0, checkpoint_every=10, preflight=False),
)
ANSWER_TOKENS = 24
SHOTS = 3
"""Examples before a BBH question: without any, a model this small does not answer in the form that is asked for."""

ANSWERS = 60
"""Problems of GSM8K whose written answers are scored."""

SUFFIX = GCG(
    universal=4,
    budget=Budget(steps=100, candidates=32, top_k=64, buffer=4, save_every=2),
    suffix_tokens=20,
    target_tokens=8,
    max_tokens=ANSWER_TOKENS,
)
"""One suffix for all prompts, searched on the first four of them against each arm's own weights."""


def arm_of(word: str) -> ArmConfig:
    """Return an arm by its name, or with another learning rate: "paper_tuned@3e-4"."""
    name, _, rate = word.partition("@")
    arm = arm_named(name)
    if not rate:
        return arm
    return replace(arm, name=word, optimiser=replace(arm.optimiser, learning_rate=float(rate)))


def training_texts(pair: ModelPair, data: Path, store: Store) -> TrainingTexts:
    """Return AdvBench's first part and the built-in harmless questions.

    Each harmful prompt comes twice: with base's own answer, and with its target, continued by base.
    """
    own, _ = everyday_halves()
    harmful = parts(data / "advbench_dev.csv")["train"]
    plain = (*(p for p in own if p.label != "harmful"), *load_prompts(PromptConfig(source="questions")))
    how = wb.TrainingDataConfig(opening="Sure, here is", refusals=2, max_tokens=56, batch_tokens=8192)
    first = wb.training_texts(pair, replace(harmful, prompts=(*harmful.prompts, *plain)), how, store=store)
    more = wb.training_texts(pair, harmful, replace(how, harmful_from="continued"), store=store)
    targets = (replace(t, name=f"{t.name}, its target") for t in more.harmful)
    told = {name: (*getattr(first, name), *getattr(more, name)) for name in ("notes", "sources")}
    return replace(first, harmful=(*first.harmful, *targets), **told)


def asked(data: Path, part: str) -> PromptSet:
    """Return what every arm is asked: a part of AdvBench, XSTest's safe prompts, and harmless prompts to be continued.

    The tune part has no XSTest prompt in it: those are asked once.
    """
    harmful = parts(data / "advbench_dev.csv")[part]
    _, others = everyday_halves()
    harmless = tuple(p for p in others if p.label == "harmless")
    safe: tuple[Prompt, ...] = ()
    if part == "report":
        whole = load_prompts(PromptConfig(source=str(data / "xstest_prompts.csv")))
        safe = tuple(replace(p, id=f"xstest-{p.id}") for p in whole if p.label != "harmful")[::2]
    return replace(harmful, prompts=(*harmful.prompts, *harmless, *safe))


def nats_per_token(arm: ModelArm, items: Sequence[Passage]) -> np.ndarray:
    """Return the mean negative log-probability of each text's tokens under an arm, nats."""
    found = []
    with torch.inference_mode():
        for item in items:
            ids = torch.tensor([[*item.aligned, *item.response[:-1]]], device=arm.pair.device)
            logits = arm.pair.logits(arm.which, arm.pair.hidden(arm.which, ids)[0, len(item.aligned) - 1 :])
            picked = logits.float().log_softmax(-1).gather(-1, torch.tensor(item.response)[:, None])
            found.append(-float(picked.mean()))
    return np.array(found)


def gsm8k(pair: ModelPair, data: Path) -> list[Passage]:
    """Return the first problems with their written answers, at most 160 tokens of each."""
    lines = (data / "gsm8k_dev.jsonl").read_text("utf-8").splitlines()[:ANSWERS]
    rows = [json.loads(line) for line in lines]
    made = []
    for n, row in enumerate(rows):
        context = pair.context(Prompt(id=str(n), prompt=row["question"], label="harmless"), "aligned")
        answer = pair.encode(row["answer"])[:160]
        made.append(Passage(name=str(n), aligned=context, response=answer))
    return made


def questions(which: str, data: Path, folder: Path) -> CapabilityConfig:
    """Return every ninth MMLU question, of all subjects, or 40 of each BBH task, and write them to a folder."""
    if which == "mmlu":
        files = {"mmlu.jsonl": "\n".join((data / "mmlu_redux.jsonl").read_text("utf-8").splitlines()[::9]) + "\n"}
    else:
        bodies = {f.name: json.loads(f.read_text("utf-8")) for f in sorted((data / "bbh").glob("*.json"))}
        files = {f"bbh/{n}": json.dumps({**b, "examples": b["examples"][: 40 + SHOTS]}) for n, b in bodies.items()}
    for name, text in files.items():
        with atomic_file(folder / name) as partial:
            partial.write_text(text, "utf-8")
    if which == "mmlu":
        return CapabilityConfig(tasks=(f"mmlu:{folder / 'mmlu.jsonl'}",))
    return CapabilityConfig(tasks=(f"bbh:{folder / 'bbh'}",), shots=SHOTS, max_tokens=8)


def paired_interval(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Return mean(a) / mean(b) - 1 over the same texts with its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).integers(0, len(a), (2000, len(a)))
    ratios = a[draws].mean(1) / b[draws].mean(1) - 1
    return (a.mean() / b.mean() - 1, *np.quantile(ratios, [0.025, 0.975]).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--part", choices=("tune", "report"), default="tune")
    parser.add_argument("--arms", nargs="+", default=list(COMPARED))
    parser.add_argument("--steps", type=int, default=TRAINING.steps, help="optimizer steps of every arm")
    parser.add_argument("--train-only", action="store_true", help="train the arms and stop")
    parser.add_argument("--gcg", action="store_true", help="also search a suffix against each arm")
    parser.add_argument(
        "--capability", choices=("mmlu", "bbh"), help="also ask these questions, and score GSM8K answers"
    )
    parser.add_argument("--k", nargs="+", default=["5", "10", "20", "full"])
    parser.add_argument("--against", default="aligned", help="the arm that every other is compared with, pair by pair")
    parser.add_argument("--out", type=Path, default=Path("runs/completion"))
    asked_for = parser.parse_args()
    store = Store.default()
    pair = load_pair(PairConfig(preset="smollm2-safe"))
    texts = training_texts(pair, asked_for.data, store)
    print(*texts.notes, sep="\n", flush=True)
    which = asked_for.capability
    lengths: Any = tuple(k if k == "full" else int(k) for k in asked_for.k)
    insertion = Insertion(positions=("random",), lengths=(10,), refusal_tokens=32, max_tokens=ANSWER_TOKENS)
    config = wb.CompareConfig(
        arms=tuple(map(arm_of, asked_for.arms)),
        train=replace(TRAINING, steps=asked_for.steps),
        prefix_tokens=lengths,
        attacks=(insertion,) if asked_for.part == "report" else (),
        adaptive=(SUFFIX,) if asked_for.gcg else (),
        capability=questions(which, asked_for.data, asked_for.out / "questions") if which else None,
        max_tokens=ANSWER_TOKENS,
        judges=("refusal",),
        against=asked_for.against,
    )
    if asked_for.train_only:
        for name, paths in train_arms(pair, texts, config, None, store).items():
            print(name, *paths, flush=True)
        return
    prompts = asked(asked_for.data, asked_for.part)
    made = wb.compare_arms(pair, texts, prompts, config, store=store)
    arms = [ModelArm(pair=pair, which="aligned", called="aligned")]
    arms += [ModelArm(pair=pair.with_aligned(p[0]), which="aligned", called=n) for n, p in made.adapters.items()]
    nats_said: list[str] = []
    if which:
        items = gsm8k(pair, asked_for.data)
        nats = {arm.name: nats_per_token(arm, items) for arm in arms}
        for name, own in nats.items():
            value, low, high = paired_interval(own, nats["aligned"])
            nats_said.append(
                f"{name}: {own.mean():.4f} nats a token on {len(items)} GSM8K answers, {value:+.2%} of aligned's "
                f"[{low:+.2%}, {high:+.2%}]."
            )
    rows = [vars(r) for r in comparison_rows(made)]
    body = {
        "rows": rows,
        "sentences": [*made.evaluations[0].scorecard.sentences, *nats_said],
        "notes": made.notes,
        "budgets": made.budgets,
    }
    file = asked_for.out / f"{asked_for.part}.json"
    with atomic_file(file) as partial:
        partial.write_text(json.dumps(body, indent=1, default=str), "utf-8")
    print(views.arms_comparison(made).text, *nats_said, f"{file}", sep="\n")


if __name__ == "__main__":
    main()
