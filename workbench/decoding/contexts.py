"""What is continued under a penalty, and how: passages, from prompts or token ids, and DecodeConfig."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from workbench.core.configs import at_least, check_fields
from workbench.core.errors import ParameterError, PromptError
from workbench.core.passages import Passage, check_room
from workbench.decoding.config import PenaltyConfig
from workbench.models.generation import GenerateConfig
from workbench.models.pair import ModelPair
from workbench.prompts.loading import Prompt, PromptSet

Contexts = PromptSet | Iterable[Prompt] | Iterable[Passage] | Iterable[Sequence[int]]
"""What can be continued: a prompt set, prompts, passages, or contexts of token ids that hold everything already.

A passage's response is what is given: the continuation follows it."""


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """How prompts are continued under a penalty.

    `generation` is how tokens are chosen, as for `generate`. `prefix_tokens` gives each response the first tokens of
    the prompt's own response, `prefill` the same text for all; both count as positions of the response. `shown_k`
    entries of the most likely tokens, with and without the penalty, are kept for every token; 0 keeps none.
    """

    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    generation: GenerateConfig = field(default_factory=GenerateConfig)
    prefix_tokens: int = 0
    prefill: str = ""
    system_prompt: str | None = None
    shown_k: int = 10

    def __post_init__(self) -> None:
        check_fields(self, prefix_tokens=at_least(0), shown_k=at_least(0))
        if self.prefix_tokens and self.prefill:
            raise ParameterError(
                f"prefix_tokens={self.prefix_tokens} and prefill={self.prefill[:40]!r} were both given: a response "
                "starts with one of them"
            )


def passages_of(
    pair: ModelPair, contexts: Sequence[object], config: DecodeConfig
) -> tuple[list[Passage], list[Prompt | None], list[str]]:
    """Return what to continue, the prompt of each (None for token ids), and what there is to say about it.

    Each response starts with `prefill`, or with the first `prefix_tokens` tokens of the prompt's given response;
    prompts whose response is shorter are left out and counted. Raises PromptError for an empty prompt or context, and
    where no prompt is left; ParameterError for a prefix of contexts that are token ids already; ContextOverflow where a
    context leaves no room for a single token.
    """
    prefix_tokens, prefill, system_prompt = config.prefix_tokens, config.prefill, config.system_prompt
    prompts = [c for c in contexts if isinstance(c, Prompt)]
    if len(prompts) < len(contexts):
        if prefix_tokens or prefill or system_prompt is not None or prompts:
            raise ParameterError(
                "prefix_tokens, prefill and system_prompt belong to prompts, and contexts of token ids were given: "
                "put the tokens into Passage(aligned=..., response=...)"
            )
        passages = [
            c if isinstance(c, Passage) else Passage(name=f"context {n + 1}", aligned=tuple(cast(Sequence[int], c)))
            for n, c in enumerate(contexts)
        ]
        check_continues(pair, passages)
        return passages, [None] * len(passages), []
    if pair.thinking:
        raise ParameterError(
            "thinking is on, and a penalty would change the thinking block too: load the pair with thinking=False, or "
            "give contexts that hold the block"
        )
    fixed = pair.encode(prefill) if prefill else ()
    responses = [pair.encode(p.response) if p.response else () for p in prompts]
    long = [len(r) >= prefix_tokens for r in responses]
    if prompts and not any(long):
        raise PromptError(
            f"none of the {len(prompts)} prompts has a response of {prefix_tokens} tokens to take a prefix from: name "
            "the column that holds it, or ask for prefix_tokens=0"
        )
    short, notes = len(long) - sum(long), []
    if short:
        notes.append(f"{short} of {len(prompts)} prompts have no response of {prefix_tokens} tokens and are left out.")
    kept = [(p, fixed or r[:prefix_tokens]) for p, r, enough in zip(prompts, responses, long, strict=True) if enough]
    passages = [pair.passage(p, prefix, system_prompt=system_prompt) for p, prefix in kept]
    check_continues(pair, passages)
    return passages, [p for p, _ in kept], notes


def check_continues(pair: ModelPair, passages: Sequence[Passage]) -> None:
    """Raise PromptError for a passage without a token, ContextOverflow for one without room for another token."""
    for n, p in enumerate(passages):
        if not p.whole("aligned") or not p.whole("base"):
            raise PromptError(f"context {n + 1} of {len(passages)} is empty: there is nothing to continue")
    check_room(passages, pair.context_length, more=1)
