"""Passage and Sample: the token ids that models read, and the texts that judges read. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from workbench.core.errors import ContextOverflow
from workbench.core.records import Label

Ids = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A prompt as both models see it, with a response; it can be scored, continued, trained on or filmed.

    name       for messages: the prompt's id
    aligned    the prompt's token ids under the aligned model's template
    base       the prompt's token ids under the base model's template; None where they are the same
    response   the response's token ids
    given      how many leading response tokens were given, not generated
    label      what the prompt asks for
    """

    name: str
    aligned: Ids
    base: Ids | None = None
    response: Ids = ()
    given: int = 0
    label: Label = "unlabelled"

    def context(self, which: Literal["base", "aligned"]) -> Ids:
        """Return the prompt's token ids as that model sees them."""
        return self.aligned if which == "aligned" or self.base is None else self.base

    def whole(self, which: Literal["base", "aligned"]) -> Ids:
        """Return the prompt's and the response's token ids as that model sees them."""
        return self.context(which) + self.response

    @property
    def length(self) -> int:
        """Count the tokens of prompt and response under the longer of the two templates."""
        return max(len(self.aligned), len(self.context("base"))) + len(self.response)

    def __str__(self) -> str:
        after = f" after {self.given} given tokens" if 0 < self.given < len(self.response) else ""
        return f"prompt {self.name!r}{after}"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One text to judge, with all that a judge may know: never its attack or the arm that answered.

    id         the attempt's id
    request    what was asked
    prefix     the part of the answer that was given, not generated
    text       the rest of the answer
    label      what the prompt asks for
    category   the prompt's category; None where it has none
    """

    id: str
    request: str
    text: str
    prefix: str = ""
    label: Label = "unlabelled"
    category: str | None = None


def check_room(passages: Iterable[Passage], context_length: int, more: int = 0) -> None:
    """Raise ContextOverflow for the first passage that leaves no room in the context for `more` tokens."""
    for passage in passages:
        check_fits(str(passage), passage.length, context_length, more)


def check_fits(name: str, tokens: int, context_length: int, more: int = 0) -> None:
    """Raise ContextOverflow where `tokens` and `more` generated ones exceed the model's context."""
    if tokens + more > context_length:
        needs = f"{name} needs {tokens:,} tokens" + (f" and {more:,} for what is generated" if more else "")
        raise ContextOverflow(f"{needs}, and the context holds {context_length:,}: shorten it, or lower max_tokens")
