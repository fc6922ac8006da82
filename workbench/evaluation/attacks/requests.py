"""Attacks on the request or the sampling: none, other decoding settings, and jailbreak templates."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import ClassVar

from workbench.core.configs import above, at_least, check_fields
from workbench.core.errors import UnknownName, nearest
from workbench.core.records import Label
from workbench.core.store import key_of
from workbench.evaluation.attacks.task import AttackConfig, Cost, Made, Sampler, Task, attempt_of, count
from workbench.evaluation.attacks.templates import TEMPLATES, JailbreakTemplate, read_templates


@dataclass(frozen=True, kw_only=True)
class NoAttack(AttackConfig):
    """The plain prompts of all labels, answered greedily: the reference for every attack."""

    family: ClassVar[str] = "none"

    labels: tuple[Label, ...] | None = None

    def cost(self, task: Task) -> Cost:
        for p in task.prompts:
            task.check_room(p, self.max_tokens, f"max_tokens={self.max_tokens}")
        return self.bound(len(task.prompts))

    def make(self, task: Task) -> Made:
        return Made(attempts=[attempt_of(self, p, task.messages(p), None) for p in task.prompts])


@dataclass(frozen=True, kw_only=True)
class Decoding(NoAttack):
    """Draws of answers at every setting of a grid (generation exploitation, arXiv 2310.06987).

    The grid is temperatures x top_ps x top_ks with `samples` draws at each. The attack on a prompt succeeds where any
    of its draws does. Temperature 0 is greedy and has one draw. Settings: "t=0.7 p=0.9 k=50"; top-p 1 and top-k 0
    switch those truncations off.
    """

    family: ClassVar[str] = "decoding"

    labels: tuple[Label, ...] | None = ("harmful",)
    temperatures: tuple[float, ...] = (0.5, 0.7, 1.0)
    top_ps: tuple[float, ...] = (0.9, 1.0)
    top_ks: tuple[int, ...] = (0, 20)
    samples: int = 1

    def check(self) -> None:
        super().check()
        empty = [(not getattr(self, n), n, "at least one") for n in ("temperatures", "top_ps", "top_ks")]
        ranges = {"temperatures": at_least(0, finite=True), "top_ps": above(0, 1), "top_ks": at_least(0)}
        check_fields(self, *empty, samples=at_least(1), **ranges)

    def stronger(self) -> Decoding:
        return replace(self, samples=2 * self.samples)

    def grid(self) -> list[Sampler]:
        """Return every draw of the grid once; draws of one setting only differ in `sample` and `seed`."""
        out: dict[tuple[float, float, int, int], Sampler] = {}
        for t, p, k in itertools.product(self.temperatures, self.top_ps, self.top_ks):
            for n in range(self.samples):
                setting = (t, p, k, n) if t > 0 else (0.0, 1.0, 0, 0)
                seed = int(key_of("draw 1", self.seed, n)[:7], 16) if t > 0 else 0
                named = dict(zip(("temperature", "top_p", "top_k", "sample"), setting, strict=True))
                out.setdefault(setting, Sampler(**named, seed=seed))  # type: ignore[arg-type]
        return list(out.values())

    def cost(self, task: Task) -> Cost:
        return self.bound(super().cost(task).attempts * len(self.grid()))

    def make(self, task: Task) -> Made:
        grid = self.grid()
        settings = {(s.temperature, s.top_p, s.top_k) for s in grid}
        attempts = [
            attempt_of(self, p, task.messages(p), f"t={s.temperature:g} p={s.top_p:g} k={s.top_k}", sampler=s)
            for s in grid
            for p in task.prompts
        ]
        note = f"{count(len(grid), 'draw')} of each prompt, over {count(len(settings), 'setting')}."
        return Made(attempts=attempts, notes=[note])


@dataclass(frozen=True, kw_only=True)
class Template(AttackConfig):
    """The request inside jailbreak templates: the built-in ones, or those of a file (see `read_templates`).

    `names` selects some, None: all; `file` is a .json or .jsonl of (name, exploits, source, text) that replaces the
    built-in ones. Settings are the templates' names.
    """

    family: ClassVar[str] = "template"

    names: tuple[str, ...] | None = None
    file: str | None = None

    def check(self) -> None:
        super().check()
        check_fields(self, (self.names is not None and not self.names, "names", "None (all) or at least one name"))

    def stronger(self) -> Template | None:
        return None if self.names is None else replace(self, names=None)

    def templates(self) -> tuple[JailbreakTemplate, ...]:
        """Return the selected templates. Raises UnknownName, and what `read_templates` raises."""
        known = TEMPLATES if self.file is None else read_templates(self.file)
        if self.names is None:
            return known
        by_name = {t.name: t for t in known}
        for name in self.names:
            if name not in by_name:
                raise UnknownName(f"there is no jailbreak template {name!r}: {nearest(name, list(by_name))}")
        return tuple(by_name[n] for n in dict.fromkeys(self.names))

    def cost(self, task: Task) -> Cost:
        templates = self.templates()
        for t, p in itertools.product(templates, task.prompts):
            attacked = replace(p, prompt=t.around(p.prompt))
            task.check_room(attacked, self.max_tokens, f"template {t.name!r} and max_tokens={self.max_tokens}")
        return self.bound(len(task.prompts) * len(templates))

    def make(self, task: Task) -> Made:
        templates = self.templates()
        attempts = [
            attempt_of(self, p, task.messages(p, t.around(p.prompt)), t.name) for t in templates for p in task.prompts
        ]
        return Made(attempts=attempts, resolved={"templates": {t.name: t.text for t in templates}})
