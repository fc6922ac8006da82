"""What an attack aims at: a compliant answer to each prompt, given with the prompt or made by the base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from workbench.core.configs import at_least, check_fields
from workbench.core.errors import PromptError
from workbench.evaluation.attacks.task import AttackConfig, Task, count
from workbench.models.generation import GenerateConfig, generate
from workbench.prompts.loading import Prompt

Target = Literal["given", "base"]

OPENING = "Sure, here is"
"""How the base model's own answer is made to begin, so that it complies."""


@dataclass(frozen=True, kw_only=True)
class TargetedConfig(AttackConfig):
    """Settings of attacks that aim at a compliant answer.

    target          "given": each prompt's own response, prompts without one are left out and counted;
                    "base": the base model's greedy continuation of `opening`
    opening         how an answer by the base model begins
    target_tokens   longest answer that the base model makes, the opening included
    """

    target: Target = "given"
    opening: str = OPENING
    target_tokens: int = 128

    def check(self) -> None:
        """Raise ParameterError for an impossible setting."""
        super().check()
        check_fields(self, target=get_args(Target), target_tokens=at_least(1))


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The prompts that have a target, the targets' ids, and how many of them a model had to generate."""

    prompts: tuple[Prompt, ...]
    ids: tuple[tuple[int, ...], ...]
    generated: int
    notes: list[str]


def with_given(task: Task, config: TargetedConfig) -> tuple[Prompt, ...]:
    """Return the prompts that will have a target. Raises PromptError where none will."""
    if config.target == "base":
        return task.prompts
    found = tuple(p for p in task.prompts if p.response)
    if not found:
        raise PromptError(
            f"none of the {count(len(task.prompts), 'prompt')} of {task.prompt_set!r} has a response, and attack "
            f"{config.family!r} aims at a compliant one: name the column that holds it, or set target='base'"
        )
    return found


def find_targets(task: Task, config: TargetedConfig) -> Targets:
    """Return a target for each prompt. An end-of-turn token is no part of it; an empty target leaves its prompt out."""
    chosen, notes = with_given(task, config), list[str]()
    if config.target == "given":
        ids = [task.pair.encode(p.response or "") for p in chosen]
        if len(chosen) < len(task.prompts):
            notes.append(
                f"{len(task.prompts) - len(chosen)} of {count(len(task.prompts), 'prompt')} have no response to aim at "
                "and are left out."
            )
        return Targets(prompts=chosen, ids=tuple(ids), generated=0, notes=notes)
    opening = task.pair.encode(config.opening)[: config.target_tokens]
    made = generate(
        task.pair,
        "base",
        [task.context(p, "base") + opening for p in chosen],
        GenerateConfig(max_tokens=config.target_tokens - len(opening)),
        store=task.store,
        what="making targets",
    )
    ids = [opening + (g.ids[:-1] if g.stop == "end" else g.ids) for g in made]
    notes.append(
        f"{count(len(ids), 'target')} made by the base model: {config.opening!r} and its greedy continuation, at most "
        f"{config.target_tokens} tokens."
    )
    there = [n for n, i in enumerate(ids) if i]
    if len(there) < len(ids):
        notes.append(f"{len(ids) - len(there)} of these are empty: their prompts are left out.")
    return Targets(
        prompts=tuple(chosen[n] for n in there), ids=tuple(ids[n] for n in there), generated=len(ids), notes=notes
    )
