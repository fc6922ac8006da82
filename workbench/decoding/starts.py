"""What is continued: token ids as both models see them, from prompts or as they are given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from workbench.core.errors import ContextOverflow, ParameterError, PromptError
from workbench.models.pair import ModelPair
from workbench.prompts.loading import Prompt, PromptSet


@dataclass(frozen=True, kw_only=True)
class Start:
    """Hold one context to continue: token ids up to the response, and the response tokens that are given.

    `base` is what base sees where that differs (template mode "own"), None for the same ids. `prompt` is what was
    asked, None where nobody asked.
    """

    name: str
    aligned: tuple[int, ...]
    base: tuple[int, ...] | None = None
    prefix: tuple[int, ...] = ()
    prompt: Prompt | None = None

    def aligned_ids(self) -> tuple[int, ...]:
        """Return all that aligned sees."""
        return self.aligned + self.prefix

    def base_ids(self) -> tuple[int, ...]:
        """Return all that base sees."""
        return (self.aligned if self.base is None else self.base) + self.prefix


Contexts = PromptSet | Iterable[Prompt] | Iterable[Start] | Iterable[Sequence[int]]
"""What can be continued: a prompt set, prompts, starts, or contexts of token ids that hold everything already."""


def starts_of(
    pair: ModelPair, contexts: Contexts, *, prefix_tokens: int, prefill: str, system_prompt: str | None
) -> tuple[list[Start], list[str]]:
    """Return what to continue, and what there is to say about it.

    Each response starts with `prefill`, or with the first `prefix_tokens` tokens of the prompt's given response;
    prompts whose response is shorter are left out and counted. Raises PromptError for an empty prompt or context, and
    where no prompt is left; ParameterError for a prefix of contexts that are token ids already.
    """
    given = list(contexts)
    prompts = [c for c in given if isinstance(c, Prompt)]
    if len(prompts) < len(given):
        if prefix_tokens or prefill or system_prompt is not None or prompts:
            raise ParameterError(
                "prefix_tokens, prefill and system_prompt belong to prompts, and contexts of token ids were given: "
                "put the tokens into Start(aligned=..., prefix=...)"
            )
        starts = [
            c if isinstance(c, Start) else Start(name=f"context {n + 1}", aligned=tuple(cast(Sequence[int], c)))
            for n, c in enumerate(given)
        ]
        for n, s in enumerate(starts):
            if not s.aligned_ids() or not s.base_ids():
                raise PromptError(f"context {n + 1} of {len(starts)} is empty: there is nothing to continue")
        return starts, []
    if pair.thinking:
        raise ParameterError(
            "thinking is on, and a penalty would change the thinking block too: load the pair with thinking=False, or "
            "give contexts that hold the block"
        )
    fixed = pair.encode(prefill) if prefill else ()
    responses = [pair.encode(p.response) if p.response else () for p in prompts]
    long = [len(r) >= prefix_tokens for r in responses]
    if given and not any(long):
        raise PromptError(
            f"none of the {len(given)} prompts has a response of {prefix_tokens} tokens to take a prefix from: name "
            "the column that holds it, or ask for prefix_tokens=0"
        )
    short, notes = len(long) - sum(long), []
    if short:
        notes.append(f"{short} of {len(given)} prompts have no response of {prefix_tokens} tokens and are left out.")
    starts = [
        Start(
            name=f"prompt {p.id!r}",
            aligned=pair.context(p, "aligned", system_prompt=system_prompt),
            base=pair.context(p, "base", system_prompt=system_prompt) if pair.template_mode == "own" else None,
            prefix=fixed or r[:prefix_tokens],
            prompt=p,
        )
        for p, r, enough in zip(prompts, responses, long, strict=True)
        if enough
    ]
    return starts, notes


def check_room(pair: ModelPair, starts: Sequence[Start]) -> None:
    """Raise ContextOverflow where a context leaves no room for a single token."""
    for s in starts:
        longest = max(len(s.aligned_ids()), len(s.base_ids()))
        if longest >= pair.context_length:
            raise ContextOverflow(
                f"{s.name} is {longest:,} tokens long with what is given of its response, and the context of "
                f"{pair.name} holds {pair.context_length:,}: shorten it"
            )
