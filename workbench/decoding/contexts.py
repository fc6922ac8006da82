"""DecodeConfig, and the passages to continue under a penalty, from prompts or token ids."""

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
"""A prompt set, prompts, passages, or complete contexts of token ids. A continuation follows a passage's response."""


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """The settings of penalised generation.

    `generation` is as for `generate`. Each response starts with the first `prefix_tokens` tokens of the prompt's own
    response, or with the text `prefill`; both count as positions of the response. `shown_k` of the most likely tokens,
    with and without the penalty, are stored for every token.
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
            both = f"prefix_tokens={self.prefix_tokens} and prefill={self.prefill[:40]!r} were both given"
            raise ParameterError(f"{both}: give one of them")


def passages_of(
    pair: ModelPair, contexts: Sequence[object], config: DecodeConfig
) -> tuple[list[Passage], list[Prompt | None], list[str]]:
    """Return the passages to continue, the prompt of each (None for token ids), and notes.

    Prompts whose response is shorter than `prefix_tokens` are skipped and counted. Raises PromptError for an empty
    prompt or context, and where no prompt is left; ParameterError for a prefix of contexts of token ids;
    ContextOverflow where a context leaves no room for a single token.
    """
    prefix_tokens, prefill, system_prompt = config.prefix_tokens, config.prefill, config.system_prompt
    prompts = [c for c in contexts if isinstance(c, Prompt)]
    if len(prompts) < len(contexts):
        if prefix_tokens or prefill or system_prompt is not None or prompts:
            apply = "prefix_tokens, prefill and system_prompt apply to prompts only, and token ids were given"
            raise ParameterError(f"{apply}: put the tokens into Passage(aligned=..., response=...)")
        passages = [
            c if isinstance(c, Passage) else Passage(name=f"context {n + 1}", aligned=tuple(cast(Sequence[int], c)))
            for n, c in enumerate(contexts)
        ]
        check_continues(pair, passages)
        return passages, [None] * len(passages), []
    if pair.thinking:
        changed = "thinking is on, and a penalty would change the thinking block too"
        raise ParameterError(f"{changed}: load the pair with thinking=False, or give contexts that hold the block")
    fixed = pair.encode(prefill) if prefill else ()
    responses = [pair.encode(p.response) if p.response else () for p in prompts]
    long = [len(r) >= prefix_tokens for r in responses]
    if prompts and not any(long):
        raise PromptError(
            f"none of the {len(prompts)} prompts has a response of {prefix_tokens} tokens for the prefix: give its "
            "column as response_column, or use prefix_tokens=0"
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
            raise PromptError(f"context {n + 1} of {len(passages)} is empty: give it at least one token")
    check_room(passages, pair.context_length, more=1)
