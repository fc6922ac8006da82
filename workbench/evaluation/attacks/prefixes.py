"""Attacks on the beginning of the answer: a compliant prefix, its harmless control, a harmful span in a refusal."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from workbench.core.configs import at_least, check_fields
from workbench.core.errors import PromptError
from workbench.core.records import Given, Label
from workbench.core.store import key_of
from workbench.evaluation.attacks.targets import TargetedConfig, find_targets, with_given
from workbench.evaluation.attacks.task import GREEDY, Cost, Made, Sampler, Task, attempt_of, count
from workbench.evaluation.records import Attempt
from workbench.models.generation import GenerateConfig, generate
from workbench.prompts.loading import Prompt
from workbench.tracing.trajectories import prefixes


@dataclass(frozen=True, kw_only=True)
class Prefill(TargetedConfig):
    """The first k tokens of a compliant answer as its beginning (arXiv 2406.05946, arXiv 2511.12155).

    `k` lists token counts and "full", the whole target. The base model continues a target that is shorter than k, and
    the prompt is left out at this k where the continuation is still too short. Notes count both.
    """

    family: ClassVar[str] = "prefill"

    k: tuple[Given, ...] = (0, 3, 5, 7, 10, 20, 40, "full")

    def check(self) -> None:
        super().check()
        odd = any(str(k) != "full" if isinstance(k, str) else k < 0 for k in self.k)
        wrong = not self.k or odd or len(set(self.k)) < len(self.k)
        check_fields(self, (wrong, "k", "token counts from 0 and 'full', each once"))

    def stronger(self) -> Prefill | None:
        longest = max((k for k in self.k if k != "full"), default=0)
        return replace(self, k=(*self.k, 2 * longest)) if longest else None

    def draws(self) -> tuple[tuple[str | None, Sampler], ...]:
        """Return how each prefix is continued: the settings' names in results, and their sampling."""
        return ((None, GREEDY),)

    def cost(self, task: Task) -> Cost:
        counts, draws = [k for k in self.k if k != "full" and k > 0], len(self.draws())
        chosen = with_given(task, self) if counts or "full" in self.k else ()
        given = self.target == "given"
        lengths = {p.id: len(task.pair.encode(p.response or "")) if given else self.target_tokens for p in chosen}
        for p in task.prompts:
            longest = max([*counts, lengths[p.id] if "full" in self.k else 0]) if p.id in lengths else 0
            task.check_room(p, longest + self.max_tokens, f"a prefix of {longest} and an answer of {self.max_tokens}")
        short = sum(n < k for k in counts for n in lengths.values())
        attempts = draws * sum(len(task.prompts) if k == 0 else len(chosen) for k in self.k)
        return self.bound(attempts, continuations=short if given else len(chosen) * (1 + len(counts)))

    def make(self, task: Task) -> Made:
        targets = find_targets(task, self) if any(k != 0 for k in self.k) else None
        notes = list(targets.notes) if targets else []
        attempts: list[Attempt] = []
        continuations = targets.generated if targets else 0
        for k in self.k:
            if k == 0:
                attempts += [
                    attempt_of(self, p, task.messages(p), setting, sampler=sampler)
                    for setting, sampler in self.draws()
                    for p in task.prompts
                ]
                continue
            assert targets is not None
            if k == "full":
                found, extended = list(targets.ids), 0
            else:
                contexts = [task.context(p, "base") for p in targets.prompts]
                found, extended = prefixes(task.pair, contexts, targets.ids, k, task.store)
            continuations += extended
            whole = [(p, ids) for p, ids in zip(targets.prompts, found, strict=True) if k == "full" or len(ids) == k]
            notes.append(_said(k, len(whole), extended, len(found) - len(whole)))
            for (setting, sampler), (p, ids) in itertools.product(self.draws(), whole):
                prefix: dict[str, Any] = {"given": k, "prefix_ids": ids, "prefix": task.pair.decode(ids)}
                attempts.append(attempt_of(self, p, task.messages(p), setting, **prefix, sampler=sampler))
        return Made(attempts=attempts, cost=Cost(continuations=continuations), notes=notes)


def _said(k: Given, n: int, extended: int, ended: int) -> str:
    said = f"{'full target' if k == 'full' else f'k = {k}'}: n = {n}"
    if extended:
        said += f", {count(extended, 'shorter target')} continued by the base model"
    return said + (f", {ended} left out because that ended too early." if ended else ".")


@dataclass(frozen=True, kw_only=True)
class HarmlessPrefill(Prefill):
    """The control of `Prefill`: a harmless request with the beginning of its own answer, which must be continued.

    Under `Prefill` alone, a defence that refuses after any prefix would look safe.
    """

    family: ClassVar[str] = "harmless_prefill"

    labels: tuple[Label, ...] | None = ("harmless",)

    def stronger(self) -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class Insertion(TargetedConfig):
    """A harmful span in the middle of a refusal (random insertion, arXiv 2606.04168).

    The prefix is the first `position` tokens of a refusal, `length` tokens of the target from token `skip` on, and the
    refusal's next `tail` tokens. A position "random" is drawn for each prompt from 1 to the refusal's length - tail.
    The refusal is the text `refusal`, or None: the aligned model's greedy answer of at most `refusal_tokens` tokens,
    which is not judged. Settings: "at=10 length=5 tail=0".
    """

    family: ClassVar[str] = "insertion"

    positions: tuple[int | Literal["random"], ...] = (5, 10, "random")
    lengths: tuple[int, ...] = (5, 10)
    tail: int = 0
    skip: int = 0
    refusal: str | None = None
    refusal_tokens: int = 48

    def check(self) -> None:
        super().check()
        odd = any(p != "random" if isinstance(p, str) else p < 0 for p in self.positions)
        twice = len(set(self.positions)) < len(self.positions)
        check_fields(
            self,
            (not self.positions or odd or twice, "positions", "token counts from 0 and 'random', each once"),
            (not self.lengths, "lengths", "at least one token count"),
            (len(set(self.lengths)) < len(self.lengths), "lengths", "different token counts"),
            (self.refusal is not None and not self.refusal.strip(), "refusal", "None or a text"),
            lengths=at_least(1),
            tail=at_least(0),
            skip=at_least(0),
            refusal_tokens=at_least(1),
        )

    def stronger(self) -> Insertion:
        return replace(self, lengths=(*self.lengths, 2 * max(self.lengths)))

    def cost(self, task: Task) -> Cost:
        chosen = with_given(task, self)
        longest = max(
            self.refusal_tokens if p == "random" else min(p + self.tail, self.refusal_tokens) for p in self.positions
        ) + max(self.lengths)
        for p in chosen:
            task.check_room(p, longest + self.max_tokens, f"a prefix of {longest} and an answer of {self.max_tokens}")
        attempts = len(chosen) * len(self.positions) * len(self.lengths)
        made = (self.target == "base") + (self.refusal is None)
        return self.bound(attempts, continuations=len(chosen) * int(made))

    def make(self, task: Task) -> Made:
        targets = find_targets(task, self)
        refusals = self._refusals(task, targets.prompts)
        notes, attempts = list(targets.notes), list[Attempt]()
        if self.refusal is None:
            notes.append("Refusals are the aligned model's own greedy answers, which are not judged.")
        for position in self.positions:
            for length in self.lengths:
                setting = f"at={position} length={length} tail={self.tail}"
                given = None if position == "random" else position + length + self.tail
                before = len(attempts)
                for p, target, refusal in zip(targets.prompts, targets.ids, refusals, strict=True):
                    span = target[self.skip : self.skip + length]
                    at = self._place(p, length, len(refusal)) if position == "random" else position
                    if len(span) < length or at is None or at + self.tail > len(refusal):
                        continue
                    ids = refusal[:at] + span + refusal[at : at + self.tail]
                    prefix: dict[str, Any] = {"given": given, "prefix_ids": ids, "prefix": task.pair.decode(ids)}
                    attempts.append(attempt_of(self, p, task.messages(p), setting, **prefix))
                made = len(attempts) - before
                left = len(targets.prompts) - made
                short = f", {left} left out (target or refusal too short)" if left else ""
                notes.append(f"{setting}: n = {made}{short}.")
        if not attempts:
            raise PromptError(
                f"of {count(len(targets.prompts), 'prompt')} none has a target and a refusal that are long enough for "
                f"positions={list(self.positions)}, lengths={list(self.lengths)}, tail={self.tail}: set smaller ones"
            )
        made = targets.generated + (len(targets.prompts) if self.refusal is None else 0)
        return Made(attempts=attempts, cost=Cost(continuations=made), notes=notes)

    def _refusals(self, task: Task, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        if self.refusal is not None:
            return [task.pair.encode(self.refusal)[: self.refusal_tokens]] * len(prompts)
        contexts = [task.context(p, "aligned") for p in prompts]
        config = GenerateConfig(max_tokens=self.refusal_tokens)
        made = generate(task.pair, "aligned", contexts, config, store=task.store, what="drawing refusals")
        return [g.ids[:-1] if g.stop == "end" else g.ids for g in made]

    def _place(self, prompt: Prompt, length: int, tokens: int) -> int | None:
        last = tokens - self.tail
        draw = random.Random(key_of("insertion 1", self.seed, prompt.id, length))
        return draw.randint(1, last) if last >= 1 else None
