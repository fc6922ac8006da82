"""The search for a suffix: greedy coordinate gradient (arXiv 2307.15043), or random suffixes with the same queries.

A step proposes candidates that read back (`slots`), computes their losses and keeps the best few. All randomness of a
step comes from the search's content and the step's number, so a killed search resumes from its last saved step and ends
with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.provenance import settings_of
from workbench.core.store import Store, key_of
from workbench.tracing.suffix.objective import Objective
from workbench.tracing.suffix.slots import Slots, Suffix

Method = Literal["gcg", "random"]
Stopped = Literal["target", "loss", "budget"]
STOPPED: tuple[Stopped, ...] = get_args(Stopped)

DRAWS = 32
"""A step draws at most this many times its number of candidates before it continues with fewer."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The budget of a suffix search.

    steps       steps of the search
    candidates  suffixes whose loss is computed in a step
    top_k       tokens with the most promising gradient from which a position's replacement is drawn
    buffer      best suffixes that are kept. A step starts from the best one, and after s steps without a better one
                from the s-th next in the list, cyclically. 0: from the best of the step before, better or not (the
                paper)
    save_every  steps between two saved states
    """

    steps: int
    candidates: int
    top_k: int
    buffer: int
    save_every: int


BUDGETS: dict[str, Budget] = {
    "smoke": Budget(steps=5, candidates=16, top_k=32, buffer=4, save_every=5),
    "short": Budget(steps=100, candidates=128, top_k=64, buffer=8, save_every=10),
    "paper": Budget(steps=500, candidates=512, top_k=256, buffer=0, save_every=25),
}
"""Budgets by name: a smoke test, a short search, and that of arXiv 2307.15043."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The state of a search after its last step.

    `kept` are (loss, suffix), best first; the next step starts from `start`. `curve` is the best loss so far, nats, of
    the prompts active then, before the first step and after each. `stale` counts steps since the last better suffix.
    `said`: with the best suffix, the model would say the active prompts' targets.
    """

    start: Suffix
    kept: tuple[tuple[float, Suffix], ...]
    curve: tuple[float, ...]
    active: int
    stale: int = 0
    queries: int = 0
    gradients: int = 0
    said: bool = False
    stopped: Stopped | None = None

    @property
    def step(self) -> int:
        return len(self.curve) - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """The search of one suffix for all prompts of `slots`, which join the loss one after another, as they are won.

    `stop` ends it before the budget does: "target" (the model would say every target greedily), a loss in nats (reached
    over all prompts), or "never".
    """

    slots: Slots
    objective: Objective
    allowed: tuple[int, ...]
    budget: Budget
    method: Method
    stop: Literal["target", "never"] | float
    seed: int
    store: Store
    on_step: Callable[[Found], None] = field(default=lambda _: None)

    def run(self) -> Found:
        """Search until the budget is spent or the stop is reached; resume from the last state in the store."""
        key = self._key()
        found = self._resumed(key) or self._judged(self._begin())
        self.on_step(found)
        while found.stopped is None and found.step < self.budget.steps:
            found = self._step(key, found)
            if found.stopped or found.step % self.budget.save_every == 0 or found.step == self.budget.steps:
                self.store.write({self._place(key, found.step): _entry(found)})
            self.on_step(found)
        return found if found.stopped else replace(found, stopped="budget")

    def _begin(self) -> Found:
        first = self.slots.first
        losses, said = self.objective.losses([first], 1)
        loss = float(losses[0])
        return Found(start=first, kept=((loss, first),), curve=(loss,), active=1, queries=1, said=bool(said[0]))

    def _step(self, key: str, found: Found) -> Found:
        draw = torch.Generator().manual_seed(int(key_of(key, "step", found.step)[:15], 16))
        gradients = 0
        if self.method == "gcg":
            gradients = found.active
            best = self._promising(self.objective.gradient(found.start, found.active))
            drawn = self._replacements(found.start, best, draw)
        else:
            drawn = self._random(draw)
        candidates = self._candidates(drawn, {found.start, *(s for _, s in found.kept)})
        kept, said, stale, start = found.kept, found.said, found.stale + 1, found.start
        if candidates:
            losses, hits = self.objective.losses(candidates, found.active)
            order = losses.argsort(stable=True).tolist()
            if float(losses[order[0]]) < kept[0][0]:
                stale, said = 0, bool(hits[order[0]])
            pool = [*kept, *((float(losses[i]), candidates[i]) for i in order)]
            kept = tuple(sorted(pool, key=lambda each: each[0])[: max(1, self.budget.buffer)])
            start = candidates[order[0]] if self.budget.buffer == 0 else kept[stale % len(kept)][1]
        after = replace(
            found,
            start=start,
            kept=kept,
            curve=(*found.curve, kept[0][0]),
            stale=stale,
            said=said,
            queries=found.queries + len(candidates) * found.active,
            gradients=found.gradients + gradients,
        )
        return self._judged(after)

    def _judged(self, found: Found) -> Found:
        """Add the next prompt where the active ones are won; stop where all are."""
        threshold = None if isinstance(self.stop, str) else float(self.stop)
        won = found.said if threshold is None else found.kept[0][0] <= threshold
        if not won:
            return found
        if found.active < len(self.slots.slots):
            return self._widened(found)
        if self.stop == "never":
            return found
        return replace(found, stopped="target" if threshold is None else "loss")

    def _widened(self, found: Found) -> Found:
        active = found.active + 1
        suffixes = [s for _, s in found.kept]
        losses, said = self.objective.losses(suffixes, active)
        order = losses.argsort(stable=True).tolist()
        kept = tuple((float(losses[i]), suffixes[i]) for i in order)
        return replace(
            found,
            active=active,
            kept=kept,
            start=kept[0][1],
            said=bool(said[order[0]]),
            stale=0,
            curve=(*found.curve[:-1], kept[0][0]),
            queries=found.queries + len(suffixes) * active,
        )

    def _promising(self, gradient: Float[Tensor, "position vocab"]) -> list[list[int]]:
        """Return, for each position, the allowed tokens that lower the loss most by the gradient."""
        allowed = torch.tensor(self.allowed, device=gradient.device)
        k = min(self.budget.top_k, len(self.allowed))
        return allowed[(-gradient[:, allowed]).topk(k, dim=-1).indices].tolist()

    def _replacements(self, start: Suffix, best: list[list[int]], draw: torch.Generator) -> Iterator[Suffix]:
        """Draw suffixes that differ from `start` in one token."""
        while True:
            position = int(torch.randint(len(start), (1,), generator=draw))
            token = best[position][int(torch.randint(len(best[position]), (1,), generator=draw))]
            yield (*start[:position], token, *start[position + 1 :])

    def _random(self, draw: torch.Generator) -> Iterator[Suffix]:
        while True:
            picked = torch.randint(len(self.allowed), (len(self.slots.first),), generator=draw)
            yield tuple(self.allowed[i] for i in picked.tolist())

    def _candidates(self, drawn: Iterator[Suffix], known: set[Suffix]) -> list[Suffix]:
        """Collect new suffixes that read back, as many as a step may have, or fewer where they are rare."""
        seen = set(known)
        found: list[Suffix] = []
        for _ in range(DRAWS * self.budget.candidates):
            if len(found) == self.budget.candidates:
                break
            suffix = next(drawn)
            if suffix not in seen:
                seen.add(suffix)
                if self.slots.reads_back(suffix):
                    found.append(suffix)
        return found

    def _key(self) -> str:
        """Hash all that the search's steps depend on, without its end."""
        parts = [(s.before, s.after, s.target) for s in self.slots.slots]
        budget = {k: v for k, v in settings_of(self.budget).items() if k not in ("steps", "save_every")}
        place = (self.slots.pair.fingerprint, self.slots.which, parts, self.slots.first)
        return key_of("suffix search 1", self.method, *place, key_of(self.allowed), (budget, self.seed))

    def _place(self, key: str, step: int) -> str:
        return key_of(key, "saved", self.stop, step)

    def _resumed(self, key: str) -> Found | None:
        for step in range(self.budget.steps, 0, -1):
            if (at := self._place(key, step)) in self.store:
                return _read(self.store.read(at))
        return None


def _entry(found: Found) -> dict[str, np.ndarray]:
    stopped = -1 if found.stopped is None else STOPPED.index(found.stopped)
    counts = (found.active, found.stale, found.queries, found.gradients, int(found.said), stopped)
    return {
        "start": np.array(found.start, np.int32),
        "kept": np.array([s for _, s in found.kept], np.int32),
        "losses": np.array([loss for loss, _ in found.kept], np.float64),
        "curve": np.array(found.curve, np.float64),
        "counts": np.array(counts, np.int64),
    }


def _read(entry: dict[str, np.ndarray]) -> Found:
    active, stale, queries, gradients, said, stopped = entry["counts"].tolist()
    kept = zip(entry["losses"].tolist(), map(tuple, entry["kept"].tolist()), strict=True)
    return Found(
        start=tuple(entry["start"].tolist()),
        kept=tuple(kept),
        curve=tuple(entry["curve"].tolist()),
        active=active,
        stale=stale,
        queries=queries,
        gradients=gradients,
        said=bool(said),
        stopped=None if stopped < 0 else STOPPED[stopped],
    )
