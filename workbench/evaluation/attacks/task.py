"""The parts of every attack: its settings, its prompts, its cost, and its attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, get_args

from workbench.core.configs import at_least, check_fields
from workbench.core.errors import PromptError
from workbench.core.passages import check_fits
from workbench.core.records import Given, Label
from workbench.core.store import Store, key_of
from workbench.evaluation.records import Attempt
from workbench.models import chat
from workbench.models.pair import ModelPair, Which
from workbench.prompts.loading import Prompt, PromptSet

Messages = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of an attack: upper bounds before it starts, the true cost after it.

    attempts         attempts that each arm answers
    answer_tokens    tokens that an arm generates for all answers, at most
    continuations    texts that a model of the pair generates for the attack (targets, refusals, longer prefixes)
    queries          computed target losses of suffixes, counted for each prompt
    forward_passes   sequences through the model for the search: the queries, and one for each gradient
    backward_passes  gradients, counted for each prompt
    """

    attempts: int = 0
    answer_tokens: int = 0
    continuations: int = 0
    queries: int = 0
    forward_passes: int = 0
    backward_passes: int = 0

    def __str__(self) -> str:
        make = [f"{self.continuations:,} continuations"] if self.continuations else []
        if self.queries:
            make.append(
                f"{self.queries:,} queries ({self.forward_passes:,} forward and {self.backward_passes:,} backward "
                "passes of one sequence)"
            )
        work = f"; to make them at most {' and '.join(make)}" if make else ""
        return f"{self.attempts:,} attempts{work}; to answer them at most {self.answer_tokens:,} tokens for each arm"

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Made:
    """The result of an attack: its attempts, their cost, notes, and the resolved settings for its record."""

    attempts: list[Attempt]
    cost: Cost = field(default_factory=Cost)
    notes: list[str] = field(default_factory=list)
    resolved: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """The settings of every attack; a kind of attack adds its own, `cost` and `make`.

    labels          labels of the prompts that it attacks; None: all
    system_prompt   put before every prompt; None: none
    max_tokens      longest answer of an arm after the prefix, tokens
    seed            of every draw
    escalations     budget: how many stronger forms (see `stronger`) are tried where the attack is too weak on aligned
    """

    family: ClassVar[str]

    labels: tuple[Label, ...] | None = ("harmful",)
    system_prompt: str | None = None
    max_tokens: int = 128
    seed: int = 0
    escalations: int = 1

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise ParameterError for an impossible setting; a kind of attack also checks its own."""
        none = self.labels is not None and not self.labels
        wrong = (none, "labels", "None (all prompts) or at least one label")
        counts = {"max_tokens": at_least(1), "seed": at_least(0), "escalations": at_least(0)}
        check_fields(self, wrong, labels=get_args(Label), **counts)

    def stronger(self) -> AttackConfig | None:
        """Return the next stronger form of the attack, the same for every arm; None: it has none."""
        return None

    def cost(self, task: Task) -> Cost:
        """Return the upper bound of the cost. Raises what `make` raises at its start."""
        raise NotImplementedError

    def make(self, task: Task) -> Made:
        """Make the attempts; `attack` calls `cost` before."""
        raise NotImplementedError

    def bound(self, attempts: int, **more: int) -> Cost:
        """Return the cost of so many attempts, with the tokens of their longest answers."""
        return Cost(attempts=attempts, answer_tokens=attempts * self.max_tokens, **more)


@dataclass(frozen=True, kw_only=True)
class Task:
    """The input of an attack: the pair (thinking off), the prompts with its labels, and a store for finished work."""

    pair: ModelPair
    prompts: tuple[Prompt, ...]
    prompt_set: str
    system_prompt: str | None
    store: Store

    @classmethod
    def of(cls, pair: ModelPair, prompts: PromptSet, config: AttackConfig, store: Store) -> Task:
        """Choose the prompts with an attack's labels. Raises PromptError where none is left."""
        labels = config.labels
        chosen = tuple(p for p in prompts if labels is None or p.label in labels)
        if not chosen:
            counts = Counter(p.label for p in prompts)
            there = ", ".join(f"{n} {label}" for label, n in counts.items()) or "none at all"
            wanted = "" if labels is None else " or ".join(labels) + " "
            raise PromptError(
                f"attack {config.family!r} needs {wanted}prompts, and {prompts.name!r} has none of them (it has "
                f"{there}): load other prompts, label them when you load them, or set labels"
            )
        made: dict[str, Any] = {
            "prompts": chosen,
            "prompt_set": prompts.name,
            "system_prompt": config.system_prompt,
            "store": store,
        }
        return cls(pair=replace(pair, thinking=False), **made)

    def messages(self, prompt: Prompt, text: str | None = None) -> Messages:
        """Return system prompt, earlier turns and the prompt (or `text` instead of it) as (role, text)."""
        turns = chat.conversation(prompt, self.system_prompt)
        last = prompt.prompt if text is None else text
        return (*((m["role"], m["content"]) for m in turns[:-1]), ("user", last))

    def context(self, prompt: Prompt, which: Which) -> tuple[int, ...]:
        """Return a prompt's token ids under the template of one model."""
        return self.pair.context(prompt, which, system_prompt=self.system_prompt)

    def check_room(self, prompt: Prompt, more: int, what: str) -> None:
        """Raise ContextOverflow where a prompt and `more` tokens exceed the context; `what` names those tokens."""
        bare = self.pair.passage(prompt, (), system_prompt=self.system_prompt)
        check_fits(f"prompt {prompt.id!r} with {what}", bare.length, self.pair.context_length, more)


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """The sampling of an answer; temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    sample: int = 0
    seed: int = 0


GREEDY = Sampler()


def attempt_of(
    config: AttackConfig,
    prompt: Prompt,
    messages: Messages,
    setting: str | None,
    *,
    given: Given | None = 0,
    prefix_ids: Sequence[int] = (),
    prefix: str = "",
    sampler: Sampler = GREEDY,
) -> Attempt:
    """Return an attempt on a prompt; its id is the hash of its content."""
    content: dict[str, Any] = {"attack": config.family, "given": given, "setting": setting, "prompt_id": prompt.id}
    content |= {name: getattr(prompt, name) for name in ("label", "category", "pair_id")}
    content |= {"request": prompt.prompt, "messages": messages, "prefix_ids": tuple(prefix_ids), "prefix": prefix}
    content |= {"max_tokens": config.max_tokens, **vars(sampler)}
    return Attempt(attempt_id=key_of("attempt 2", content), **content)


def as_prompt(attempt: Attempt) -> Prompt:
    """Return the prompt of an attempt, with system prompt and earlier turns."""
    *turns, (_, text) = attempt.messages
    return Prompt(id=attempt.prompt_id, prompt=text, label=attempt.label, messages=tuple(turns) or None)


def count(n: int, what: str) -> str:
    """Return "1 prompt", "2 prompts"."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"
