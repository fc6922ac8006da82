"""The response texts along which penalties are measured: harmful ones that comply, and harmless answers."""

from __future__ import annotations

from workbench.core.passages import Passage
from workbench.core.store import Store
from workbench.evaluation.attacks import Prefill
from workbench.evaluation.attacks.targets import Target, find_targets
from workbench.evaluation.attacks.task import Task
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet


def target_of(prompts: PromptSet) -> Target:
    """Return where an attack takes its compliant answers from: "given" where any harmful prompt has one, else base."""
    return "given" if any(p.response for p in prompts if p.label == "harmful") else "base"


def harmful_texts(
    pair: ModelPair, prompts: PromptSet, *, system_prompt: str | None, most: int, store: Store
) -> tuple[list[Passage], list[str]]:
    """Return each harmful prompt's compliant answer, cut to `most` tokens, and what there is to say about it."""
    how = Prefill(k=("full",), target=target_of(prompts), system_prompt=system_prompt)
    found = find_targets(Task.of(pair, prompts, how, store), how)
    texts = [
        pair.passage(p, ids[:most], system_prompt=system_prompt)
        for p, ids in zip(found.prompts, found.ids, strict=True)
        if ids
    ]
    return texts, found.notes


def harmless_texts(
    pair: ModelPair, prompts: PromptSet, *, system_prompt: str | None, most: int, batch_tokens: int, store: Store
) -> tuple[list[Passage], list[str]]:
    """Return an answer to each harmless prompt: the given one, or aligned's own greedy one, counted in the notes."""
    chosen = [p for p in prompts if p.label == "harmless"]
    alone = [p for p in chosen if not p.response]
    contexts = [pair.context(p, "aligned", system_prompt=system_prompt) for p in alone]
    drawing = GenerateConfig(max_tokens=most, batch_tokens=batch_tokens)
    made = generate(pair, "aligned", contexts, drawing, store=store, what="answering harmless prompts")
    own = {p.id: g.ids for p, g in zip(alone, made, strict=True)}
    texts = [
        pair.passage(p, (own.get(p.id) or pair.encode(p.response or ""))[:most], system_prompt=system_prompt)
        for p in chosen
    ]
    notes = []
    if alone:
        notes.append(
            f"{len(alone)} of {len(chosen)} harmless prompts have no given response: KL is measured along aligned's "
            "own greedy answers to them."
        )
    return [t for t in texts if t.response], notes
