"""Responses that only begin a compliant answer, continued by the base model, so that late positions exist."""

from __future__ import annotations

from dataclasses import replace

from workbench.core.store import Store
from workbench.judging.makers import EMBEDDED
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet


def continue_openings(
    pair: ModelPair,
    prompts: PromptSet,
    *,
    tokens: int = 64,
    system_prompt: str | None = None,
    seed: int = 0,
    store: Store | None = None,
) -> PromptSet:
    """Return the set with the base model's continuation of every harmful response that is shorter than `tokens` tokens.

    Sets like `everyday` ship no harmful text: their responses to harmful prompts stop where content would begin. The
    continuation is drawn at temperature 1, is up to `tokens` long with the opening, and may end earlier; nothing judges
    it. The set's notes count the prompts. The answers of the embedded set are whole, and it is returned as it is; so is
    any set for `tokens` 0. Raises what `generate` raises.
    """
    given = {p.id: pair.encode(p.response) for p in prompts if p.label == "harmful" and p.response}
    short = [] if prompts.name == EMBEDDED else [p for p in prompts if 0 < len(given.get(p.id, ())) < tokens]
    if not short:
        return prompts
    made = generate(
        pair,
        "base",
        [pair.context(p, "base", system_prompt=system_prompt) + given[p.id] for p in short],
        GenerateConfig(max_tokens=tokens - min(len(given[p.id]) for p in short), temperature=1.0, seed=seed),
        store=Store.of(store),
        what="base continues openings",
    )
    longer: dict[str, str] = {}
    for p, g in zip(short, made, strict=True):
        own = [i for i in g.ids if i not in pair.eos_ids][: tokens - len(given[p.id])]
        longer[p.id] = (p.response or "") + pair.decode((*given[p.id], *own))[len(pair.decode(given[p.id])) :]
    note = (
        f"The base model continued {len(short)} of {len(given)} responses to harmful prompts up to {tokens} tokens "
        f"(temperature 1, seed {seed})."
    )
    kept = tuple(replace(p, response=longer.get(p.id, p.response)) for p in prompts)
    return replace(prompts, prompts=kept, notes=(*prompts.notes, note))
