"""The place of a suffix in the chat template: the tokens before it, its own, and those after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from workbench.core.errors import ContextOverflow, PromptError
from workbench.core.passages import Ids, Passage, check_room
from workbench.models.pair import ModelPair, Which
from workbench.prompts.loading import Prompt

Allowed = Literal["ascii", "any"]
Suffix = Ids

_FILLERS = ("!", " !", " x", " a")
_TRIED = 500  # the most tokens that are tried as fillers


@dataclass(frozen=True, kw_only=True, eq=False)
class Slot:
    """One prompt around a suffix: its ids are before + suffix + after, the target follows."""

    prompt: Prompt
    before: Ids
    after: Ids
    target: Ids


@dataclass(frozen=True, kw_only=True, eq=False)
class Slots:
    """The prompts that one suffix is appended to, with a check that the optimised tokens are those sent.

    A suffix is sent as text, at the end of the last user turn. It reads back where, for every prompt, the chat template
    and tokenizer turn that text into exactly the tokens before + suffix + after.
    """

    pair: ModelPair
    which: Which
    system_prompt: str | None
    slots: tuple[Slot, ...]
    first: Suffix
    _anchor: Ids = field(repr=False)

    def text(self, suffix: Sequence[int]) -> str:
        """Return a suffix as text, with its leading space."""
        return text_of(self.pair, suffix, self._anchor)

    def reads_back(self, suffix: Suffix) -> bool:
        """Tell whether the text of a suffix becomes the same tokens again in every prompt."""
        text = self.text(suffix)
        try:
            return bool(text.strip()) and all(
                self.pair.context(with_suffix(s.prompt, text), self.which, system_prompt=self.system_prompt)
                == s.before + suffix + s.after
                for s in self.slots
            )
        except ContextOverflow:
            return False


def text_of(pair: ModelPair, ids: Sequence[int], anchor: Ids) -> str:
    """Return the text that ids add after the anchor, since a decoder may drop the first space of a text."""
    return pair.decode((*anchor, *ids))[len(pair.decode(anchor)) :]


def with_suffix(prompt: Prompt, text: str) -> Prompt:
    """Return a prompt with a suffix; spaces at the prompt's end would merge with it and are dropped."""
    return replace(prompt, prompt=prompt.prompt.rstrip() + text)


def allowed_ids(pair: ModelPair, allowed: Allowed) -> tuple[int, ...]:
    """List the tokens that a suffix may contain, without those added to the vocabulary (control tokens, fillers).

    Control tokens typed into a prompt are sent as ordinary text, so a suffix could never hold one. "ascii": printable
    ASCII only; "any": every token with its own text.
    """
    anchor = pair.encode("a")
    start = len(pair.decode(anchor))
    added = set(pair.tokenizer.added_tokens_decoder)
    ids = [i for i in range(min(pair.vocab, len(pair.tokenizer))) if i not in added]
    texts = pair.tokenizer.batch_decode(
        [[*anchor, i] for i in ids], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    found = []
    for i, whole in zip(ids, texts, strict=True):
        text = whole[start:]
        if text.strip() and "\ufffd" not in text and (allowed == "any" or (text.isascii() and text.isprintable())):
            found.append(i)
    return tuple(found)


def open_slots(
    pair: ModelPair,
    which: Which,
    prompts: Sequence[Prompt],
    targets: Sequence[Passage],
    tokens: int,
    allowed: Sequence[int],
    *,
    system_prompt: str | None = None,
) -> Slots:
    """Find the place of a suffix of `tokens` tokens in each prompt, and the suffix that a search starts from.

    `targets` are the prompts with the responses to aim at. The first suffix is one token repeated ("! ! ! ..."), the
    first that reads back in every prompt. Raises PromptError where none does, ContextOverflow where prompt, suffix and
    target exceed the context.
    """
    check_room(targets, pair.context_length, tokens)
    for p, target in zip(prompts, targets, strict=True):
        if not target.response:
            raise PromptError(f"prompt {p.id!r} has an empty target ({p.response!r}): give it a response to aim at")
    anchor = pair.encode("a")

    def contexts(text: str) -> list[Ids]:
        return [pair.context(with_suffix(p, text), which, system_prompt=system_prompt) for p in prompts]

    bare = contexts("")
    for first in _starts(pair, tokens, allowed):
        split = [_split(*ids, first) for ids in zip(contexts(text_of(pair, first, anchor)), bare, strict=True)]
        if all(split):
            slots = tuple(
                Slot(prompt=p, before=around[0], after=around[1], target=target.response)
                for p, around, target in zip(prompts, split, targets, strict=True)
                if around is not None
            )
            return Slots(pair=pair, which=which, system_prompt=system_prompt, slots=slots, first=first, _anchor=anchor)
    names = ", ".join(repr(p.id) for p in prompts[:3])
    raise PromptError(
        f"no suffix of {tokens} tokens fits after prompt {names}, because the tokenizer joins it with the text around "
        "it: use another template_mode, or drop that prompt"
    )


def _starts(pair: ModelPair, tokens: int, allowed: Sequence[int]) -> Iterator[Suffix]:
    usual = {ids[-1] for ids in map(pair.encode, _FILLERS) if ids}
    for i in [*(i for i in allowed if i in usual), *allowed[:_TRIED]]:
        yield (i,) * tokens


def _split(ids: Ids, bare: Ids, suffix: Suffix) -> tuple[Ids, Ids] | None:
    """Split a prompt's ids around a suffix; None where the suffix changes the tokens around it or is changed."""
    if len(ids) != len(bare) + len(suffix):
        return None
    at = next((n for n, (a, b) in enumerate(zip(ids, bare, strict=False)) if a != b), len(bare))
    if ids[at : at + len(suffix)] != suffix or ids[at + len(suffix) :] != bare[at:]:
        return None
    return ids[:at], bare[at:]
