"""Prompts to tune on, and held-out prompts to check on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from workbench.core.configs import takes_fields
from workbench.core.errors import PromptError
from workbench.prompts.loading import PROMPT_SETS, Prompt, PromptConfig, PromptSet, load_prompts
from workbench.prompts.similar import parts_apart, same_wording
from workbench.prompts.subset import balanced

TUNING = "train"
"""The split to tune on, where a set names its splits."""
KEPT_ONE_IN = 5
"""One in so many training prompts of a built-in set is kept for attacks by fine-tuning."""

ASKED_ONLY = ("fresh",)
"""Built-in sets that are only asked: no arm and no attack is trained on their prompts."""


@takes_fields(PromptConfig)
def split_prompts(
    config: PromptConfig, *, limit: int | None = None, held_out_limit: int | None = None
) -> tuple[PromptSet, PromptSet]:
    """Load prompts and split them: the split "train" to tune on, and the held-out rest to check on.

    A set without a split of this name is halved by the config's seed; matched pairs and near copies (see
    `prompts.similar`) stay together, so that the held-out part has no copy of a tuning prompt. `limit` and
    `held_out_limit` take a part of each, balanced over labels. Raises PromptError where either part has no harmful
    prompt, and what `load_prompts` raises.
    """
    whole = load_prompts(dataclasses.replace(config, split="all", limit=None))
    named = any(p.split == TUNING for p in whole)
    if named:
        first = {p.id for p in whole if p.split == TUNING}
        how = f"tuned on the split {TUNING!r}, checked on the others"
    else:
        first = _half(whole.prompts, config.seed)
        how = f"the set has no split {TUNING!r}: halved by seed {config.seed}, matched pairs and near copies together"
    parts = []
    for inside, most in ((True, limit), (False, held_out_limit)):
        chosen = tuple(p for p in whole if (p.id in first) is inside)
        notes = [*whole.notes, how]
        if most is not None and most < len(chosen):
            notes.append(f"limit {most} of {len(chosen)} prompts, seed {config.seed}")
            chosen, more = balanced(chosen, most, config.seed)
            notes += more
        if not any(p.label == "harmful" for p in chosen):
            word = "to tune on" if inside else "to check on"
            raise PromptError(
                f"{whole.name!r} has no harmful prompt left {word} ({len(chosen)} of {len(whole)} prompts): raise the "
                "limit, or give a larger set"
            )
        parts.append(dataclasses.replace(whole, prompts=chosen, notes=tuple(notes)))
    return parts[0], parts[1]


def kept_for_attacks(source: str) -> tuple[Prompt, ...]:
    """Return the prompts of a built-in set that no training arm has: attacks by fine-tuning train on them.

    None of a set that is only asked (ASKED_ONLY), on which nothing is trained.

    They are every fifth of the matched pairs and single prompts, in their order; of a set with splits, of its training
    split. The set's other prompts stay for training.
    """
    if source in ASKED_ONLY:
        return ()
    prompts = load_prompts(PromptConfig(source=source, split="all"))
    named = any(p.split == TUNING for p in prompts)
    units: dict[str, list[Prompt]] = {}
    for p in prompts:
        if p.split == TUNING or not named:
            units.setdefault(p.pair_id or p.id, []).append(p)
    return tuple(p for unit in list(units.values())[::KEPT_ONE_IN] for p in unit)


@functools.cache
def kept_wordings() -> frozenset[str]:
    """Return the wording of every prompt that is kept for attacks or only asked, so that it is known in any set."""
    asked = [p for source in ASKED_ONLY for p in load_prompts(PromptConfig(source=source))]
    kept = [p for source in PROMPT_SETS for p in kept_for_attacks(source)]
    return frozenset(same_wording(p.prompt) for p in (*asked, *kept))


def _half(prompts: Sequence[Prompt], seed: int) -> set[str]:
    """Return the ids of one half, with matched pairs and near copies in the same half."""
    units: dict[str, list[Prompt]] = {}
    for p in prompts:
        units.setdefault(p.pair_id or p.id, []).append(p)
    each = list(units.values())
    first, _ = parts_apart([" ".join(p.prompt for p in unit) for unit in each], (0.5, 0.5), seed=seed)
    return {p.id for n in first for p in each[n]}
