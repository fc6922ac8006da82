"""Where a suffix goes: the tokens before it, its own, and those after it, all as the chat template writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from workbench.core.errors import ContextOverflow, PromptError
from workbench.evaluation.attacks.task import Task
from workbench.models.pair import ModelPair, Which
from workbench.prompts.loading import Prompt

Allowed = Literal["ascii", "any"]
Suffix = tuple[int, ...]

_FILLERS = ("!", " !", " x", " a")
_TRIED = 500  # tokens that are tried as fillers: where so many do not read back, none will


@dataclass(frozen=True, kw_only=True, eq=False)
class Slot:
    """Hold one prompt around a suffix: its ids are before + suffix + after, the target follows."""

    prompt: Prompt
    before: tuple[int, ...]
    after: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Slots:
    """Hold prompts that one suffix is appended to, and check that what is optimised is what is sent.

    A suffix is sent as text, at the end of the last user turn. It reads back when, for every prompt, the chat template
    and tokenizer make of that text exactly the tokens before + suffix + after.
    """

    task: Task
    which: Which
    slots: tuple[Slot, ...]
    first: Suffix
    _anchor: tuple[int, ...] = field(repr=False)

    def text(self, suffix: Sequence[int]) -> str:
        """Return a suffix as text, with the space that it may begin with."""
        return text_of(self.task.pair, suffix, self._anchor)

    def reads_back(self, suffix: Suffix) -> bool:
        """Tell whether the text of a suffix becomes these very tokens again, in every prompt."""
        text = self.text(suffix)
        return all(_reads(self.task, self.which, s, suffix, text) for s in self.slots)


def text_of(pair: ModelPair, ids: Sequence[int], anchor: tuple[int, ...]) -> str:
    """Return the text that ids add after the anchor: a decoder may drop the first space of a text."""
    return pair.decode((*anchor, *ids))[len(pair.decode(anchor)) :]


def with_suffix(prompt: Prompt, text: str) -> str:
    """Return a prompt's text with a suffix; spaces that end the prompt would merge with it and are dropped."""
    return prompt.prompt.rstrip() + text


def _reads(task: Task, which: Which, slot: Slot, suffix: Suffix, text: str) -> bool:
    if not text.strip():
        return False
    sent = replace(slot.prompt, prompt=with_suffix(slot.prompt, text))
    try:
        return task.context(sent, which) == slot.before + suffix + slot.after
    except ContextOverflow:
        return False


def allowed_ids(pair: ModelPair, allowed: Allowed) -> tuple[int, ...]:
    """List the tokens that a suffix may be made of: none that is added to the vocabulary (control tokens, fillers).

    Control tokens typed into a prompt are sent as ordinary text, so a suffix could never hold one. "ascii": printable
    ASCII only; "any": whatever has a text of its own.
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
    task: Task, which: Which, prompts: Sequence[Prompt], targets: Sequence[tuple[int, ...]], tokens: int,
    allowed: Sequence[int],
) -> Slots:  # fmt: skip
    """Find where a suffix of so many tokens goes in each prompt, and the one that a search starts from.

    That is one token repeated ("! ! ! ..."), the first that reads back in every prompt. Raises PromptError where none
    does, ContextOverflow where prompt, suffix and target exceed the context.
    """
    anchor = task.pair.encode("a")
    bare = [task.context(replace(p, prompt=p.prompt.rstrip()), which) for p in prompts]
    for p, target in zip(prompts, targets, strict=True):
        task.check_room(p, tokens + len(target), f"a suffix of {tokens} and a target of {len(target)}")
        if not target:
            raise PromptError(f"prompt {p.id!r} has an empty target ({p.response!r}): there is nothing to aim at")
    for first in _starts(task.pair, tokens, allowed):
        text = text_of(task.pair, first, anchor)
        found = [
            _split(task, which, p, ids, first, text, target)
            for p, ids, target in zip(prompts, bare, targets, strict=True)
        ]
        if all(found):
            slots = tuple(s for s in found if s is not None)
            return Slots(task=task, which=which, slots=slots, first=first, _anchor=anchor)
    names = ", ".join(repr(p.id) for p in prompts[:3])
    raise PromptError(
        f"no suffix of {tokens} tokens can be put after prompt {names}: whatever token it repeats, the tokenizer joins "
        "it with what is around it. Use another template_mode, or drop that prompt"
    )


def _starts(pair: ModelPair, tokens: int, allowed: Sequence[int]) -> Iterator[Suffix]:
    usual = {ids[-1] for ids in map(pair.encode, _FILLERS) if ids}
    for i in [*(i for i in allowed if i in usual), *allowed[:_TRIED]]:
        yield (i,) * tokens


def _split(
    task: Task, which: Which, prompt: Prompt, bare: tuple[int, ...], suffix: Suffix, text: str, target: tuple[int, ...]
) -> Slot | None:
    """Part a prompt's ids around a suffix; None where the suffix changes the tokens around it or is changed."""
    ids = task.context(replace(prompt, prompt=with_suffix(prompt, text)), which)
    if len(ids) != len(bare) + len(suffix):
        return None
    at = next((n for n, (a, b) in enumerate(zip(ids, bare, strict=False)) if a != b), len(bare))
    if ids[at : at + len(suffix)] != suffix or ids[at + len(suffix) :] != bare[at:]:
        return None
    return Slot(prompt=prompt, before=ids[:at], after=bare[at:], target=target)
