"""Attacks of a person's own file, as "module:Class" names them: one that is whole, one that is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: F401 - a class that is no attack
from typing import ClassVar

from workbench.evaluation.attacks.task import AttackConfig, Cost, Made, Task, attempt_of


@dataclass(frozen=True, kw_only=True)
class Shouting(AttackConfig):
    """Ask in capital letters."""

    family: ClassVar[str] = "shouting"

    def cost(self, task: Task) -> Cost:
        return Cost(attempts=len(task.prompts), answer_tokens=self.max_tokens * len(task.prompts))

    def make(self, task: Task) -> Made:
        return Made(attempts=[attempt_of(self, p, task.messages(p, p.prompt.upper()), None) for p in task.prompts])


@dataclass(frozen=True, kw_only=True)
class Silent(AttackConfig):
    """Lack a family and `make`."""

    def cost(self, task: Task) -> Cost:
        return Cost()
