"""Short trainings of the embedded pair under one change at a time: docs/results/tuning_log.md has what they showed.

python -m benchmarks.tuning [NAME ...] [--steps 200] [--seed 0] [--scales 0.5] [--limit 240] [--out FILE]

Each NAME is a line of TRIED below. What is trained, answered and judged is kept in the user's cache, so a killed run
goes on where it stopped. The table has a line for each arm, per cent [95 % Wilson], n in the head.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import workbench as wb
from workbench.core.files import atomic_file
from workbench.core.records import Estimate
from workbench.core.store import Store
from workbench.evaluation.attacks import RankAssisted
from workbench.evaluation.records import ArmComparison
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.prompts.loading import PromptConfig
from workbench.prompts.splits import split_prompts
from workbench.training.config import ArmConfig, RowTeacher, TrainConfig, WatchSettings, arm_with

K = (5, 10, 20)
TOPS = (5, 20, 100)
METRICS: Mapping[str, tuple[str, str, int, str | None]] = {
    **{f"ASR k={k}": ("asr", "prefill", k, None) for k in K},
    **{f"rank-assisted {top}": ("asr", "rank_assisted", 5, f"top {top}") for top in TOPS},
    "over-refusal": ("over_refusal", "none", 0, None),
    **{f"beginnings k={k}": ("continued", "harmless_prefill", k, None) for k in K[1:]},
    "harmless right": ("harmless_right", "none", 0, None),
    "gibberish k=10": ("gibberish", "prefill", 10, None),
}
"""Column -> metric, attack, given tokens and setting."""


@dataclass(frozen=True)
class Tried:
    """One change: the arm that it starts from, its values, and the teacher of safe rows that aligned refuses."""

    arm: str
    values: tuple[str, ...] = ()
    refused: RowTeacher = "aligned"

    def config(self, name: str) -> ArmConfig:
        return replace(arm_with(self.arm, self.values), name=name)


TRIED: Mapping[str, Tried] = {
    "refusal_sft": Tried("refusal_sft"),
    "augmentation": Tried("augmentation"),
    "recovery": Tried("recovery"),
    "transition .1": Tried("transition"),
    "transition .3": Tried("transition", ("transition_weight: 0.3",)),
    "transition 1": Tried("transition", ("transition_weight: 1.0",)),
    "recovery, base": Tried("recovery", refused="base"),
    "recovery, label": Tried("recovery", refused="label"),
    "transition .1, base": Tried("transition", refused="base"),
    "recovery, perturbed .5": Tried("recovery", ("perturbed: 0.5",)),
    "transition .1, perturbed .5": Tried("transition", ("perturbed: 0.5",)),
}


def compared(pair: ModelPair, refused: RowTeacher, arms: list[ArmConfig], asked: argparse.Namespace) -> ArmComparison:
    """Train the arms that share their rows, and ask them the held-out prompts."""
    store = Store.default()
    training, held_out = split_prompts(PromptConfig(source="embedded"), held_out_limit=asked.limit)
    texts = wb.training_texts(pair, training, refused_teacher=refused, store=store)
    print(*texts.notes, sep="\n", flush=True)
    config = wb.CompareConfig(
        arms=tuple(arms),
        train=TrainConfig(steps=asked.steps, watch=WatchSettings(film_every=0, checkpoint_every=0, preflight=False)),
        seeds=(asked.seed,),
        scales=tuple(asked.scales),
        prefix_tokens=K,
        attacks=(RankAssisted(k=(5,), tops=TOPS, max_tokens=96, escalations=0),),
        max_tokens=96,
        judges=("exact",),
    )
    return wb.compare_arms(pair, texts, held_out, config, store=store)


def percent(found: Estimate) -> str:
    """Return a share as "12 [8, 17]"."""
    if found.value is None:
        return "not measured"
    return f"{100 * found.value:.1f} [{100 * (found.low or 0):.0f}, {100 * (found.high or 0):.0f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(TRIED))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scales", nargs="*", type=float, default=[], help="shares of each change that are asked too")
    parser.add_argument("--limit", type=int, default=240, help="held-out prompts, balanced over labels")
    parser.add_argument("--out", type=Path, default=Path("runs/tuning.md"))
    asked = parser.parse_args()
    pair = load_pair(PairConfig(preset="embedded"))
    lines: list[str] = []
    for refused in ("aligned", "base", "label"):
        chosen = [TRIED[n].config(n) for n in asked.names if TRIED[n].refused == refused]
        if not chosen:
            continue
        made = compared(pair, refused, chosen, asked)
        for arm in made.arms:
            if arm == "aligned" and lines:
                continue
            found = {
                head: made.scorecard.estimate(metric, arm=arm, attack=attack, given=given, setting=setting)
                for head, (metric, attack, given, setting) in METRICS.items()
            }
            if not lines:
                heads = [f"{head} (n={one.n})" for head, one in found.items()]
                lines += ["| arm | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
            lines.append(f"| {arm} | " + " | ".join(map(percent, found.values())) + " |")
            print(lines[-1], flush=True)
        with atomic_file(asked.out) as partial:
            partial.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
