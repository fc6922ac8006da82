"""Prompts that fit into the context of a pair: the others are dropped, cut or refused, with notes, before any work."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from workbench.core.errors import ContextOverflow, PromptError
from workbench.models.pair import ModelPair
from workbench.prompts.loading import Dropped, OnLong, Prompt, PromptConfig, PromptSet

_TEMPLATE = 1024
"""More tokens than a chat template adds; a text has at most as many tokens as bytes."""


def fit_prompts(
    pair: ModelPair,
    prompts: PromptSet,
    *,
    max_tokens: int,
    prefix_tokens: Sequence[int | str] = (),
    system_prompt: str | None = None,
    on_long: OnLong = "drop",
) -> PromptSet:
    """Return the prompts that leave room in the pair's context for the longest prefix and `max_tokens` more.

    A longer prompt is dropped and reported, or its text is cut at the end ("cut"; its response stays), or all are
    refused ("error"). A prefix "full" is the prompt's own response. Raises ContextOverflow for "error", PromptError
    where no prompt is left, and what `ModelPair.context` raises.
    """
    PromptConfig(source=prompts.name, on_long=on_long)  # refuses another word
    counted = max((int(k) for k in prefix_tokens if str(k).isdigit()), default=0)
    roomy = dataclasses.replace(pair, context_length=sys.maxsize)
    kept: list[Prompt] = []
    dropped: list[Dropped] = []
    cut = 0
    for p in prompts:
        full = len(pair.encode(p.response)) if "full" in prefix_tokens and p.response else 0
        more = max_tokens + max(counted, full)
        said = (system_prompt or "", p.prompt, *(text for _, text in p.messages or ()))
        most = sum(len(text.encode()) for text in said) + _TEMPLATE + more
        beyond = more - pair.context_length
        over = _over(roomy, p, system_prompt, beyond) if most > pair.context_length else 0
        if over <= 0:
            kept.append(p)
            continue
        needs = f"{over - beyond:,} tokens and {more:,} for what follows"
        reason = f"prompt {p.id!r} needs {needs}, and the context holds {pair.context_length:,}"
        if on_long == "error":
            raise ContextOverflow(f"{reason}: shorten it, lower max_tokens, or set on_long to 'drop' or 'cut'")
        short = _cut(roomy, p, system_prompt, beyond, over) if on_long == "cut" else None
        if short is None:
            dropped.append(Dropped(line=p.line, reason=f"too long: {reason}", text=p.prompt[:200]))
        else:
            kept.append(short)
            cut += 1
    if not kept:
        first = dropped[0].reason if dropped else "it has none"
        raise PromptError(f"no prompt of {prompts.name!r} fits ({first}): shorten them, or lower max_tokens")
    notes = list(prompts.notes)
    if dropped:
        notes.append(f"{len(dropped)} of {len(prompts)} prompts are dropped: too long for the context")
    if cut:
        notes.append(f"{cut} of {len(prompts)} prompts are cut at their end to fit into the context")
    return dataclasses.replace(prompts, prompts=tuple(kept), dropped=(*prompts.dropped, *dropped), notes=tuple(notes))


def _over(roomy: ModelPair, prompt: Prompt, system_prompt: str | None, beyond: int) -> int:
    return roomy.passage(prompt, (), system_prompt=system_prompt).length + beyond


def _cut(roomy: ModelPair, prompt: Prompt, system_prompt: str | None, beyond: int, over: int) -> Prompt | None:
    """Return the prompt with as much of its beginning as fits, or None where not even one token does."""
    ids = roomy.encode(prompt.prompt)
    while over > 0:
        ids = ids[: max(0, len(ids) - over)]
        text = roomy.decode(ids).rstrip("\ufffd")
        if not text.strip():
            return None
        prompt = dataclasses.replace(prompt, prompt=text)
        over = _over(roomy, prompt, system_prompt, beyond)
    return prompt
