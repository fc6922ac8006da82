"""Attacks by a searched suffix: GCG (arXiv 2307.15043), and random suffixes as its baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

from workbench.core.configs import at_least, check_fields
from workbench.core.errors import PairError, RecordError
from workbench.core.progress import Progress
from workbench.evaluation.attacks.targets import TargetedConfig, Targets, find_targets, with_given
from workbench.evaluation.attacks.task import Cost, Made, Task, attempt_of
from workbench.evaluation.records import AttackSet
from workbench.models.pair import Which
from workbench.tracing.suffix.objective import Objective
from workbench.tracing.suffix.search import BUDGETS, Budget, Found, Method, Search, Stopped
from workbench.tracing.suffix.slots import Allowed, Slots, allowed_ids, open_slots, with_suffix


@dataclass(frozen=True, kw_only=True)
class SuffixSearch:
    """One finished search.

    `loss` is the best target loss so far by step, nats (mean over target tokens and prompts), before the first step and
    after each; a universal search adds prompts step by step, and its curve rises where it adds one. `says_target`:
    greedily, the model generates the targets of the first `prompts_active` prompts. `stopped` is "target" (so it does
    for all of them), "loss" or "budget".
    """

    prompt_ids: tuple[str, ...]
    suffix: str
    suffix_ids: tuple[int, ...]
    loss: tuple[float, ...]
    says_target: bool
    prompts_active: int
    stopped: Stopped
    queries: int
    forward_passes: int
    backward_passes: int


@dataclass(frozen=True, kw_only=True)
class GCG(TargetedConfig):
    """A search for a suffix after which a model begins the target: greedy coordinate gradient (arXiv 2307.15043).

    budget         "smoke", "short", "paper", or a Budget
    suffix_tokens  length of the suffix
    target_tokens  how many tokens of the target the loss covers
    model          the model whose loss is minimised; its suffixes are transferred to other arms
    universal      None: a suffix for each prompt; n: one for all, searched on the first n prompts, added one by one
    tokens         "ascii": printable ASCII only; "any": every token with its own text
    stop           "target": once greedy decoding gives the target; a loss in nats; "never": at the end of the budget

    Settings: "single", or "universal, searched on" and "universal, held out".
    """

    family: ClassVar[str] = "gcg"
    method: ClassVar[Method] = "gcg"

    target_tokens: int = 20
    budget: str | Budget = "short"
    suffix_tokens: int = 20
    model: Which = "aligned"
    universal: int | None = None
    tokens: Allowed = "ascii"
    stop: Literal["target", "never"] | float = "target"

    def check(self) -> None:
        super().check()
        if isinstance(self.budget, str):
            check_fields(self, budget=tuple(BUDGETS))
        named = vars(self.spends)
        positive = all(named[n] >= 1 for n in ("steps", "candidates", "top_k", "save_every")) and named["buffer"] >= 0
        stops = self.stop in ("target", "never") or (not isinstance(self.stop, str) and self.stop >= 0)
        check_fields(
            self,
            (not positive, "budget", "counts of at least 1 (buffer: at least 0)"),
            (not stops, "stop", "'target', 'never' or a loss in nats, at least 0"),
            suffix_tokens=at_least(1),
            universal=at_least(1),
            model=("base", "aligned"),
            tokens=("ascii", "any"),
        )

    def stronger(self) -> GCG:
        return replace(self, budget=replace(self.spends, steps=2 * self.spends.steps))

    @property
    def spends(self) -> Budget:
        return BUDGETS[self.budget] if isinstance(self.budget, str) else self.budget

    def cost(self, task: Task) -> Cost:
        chosen = with_given(task, self)
        longest = self.suffix_tokens + max(self.target_tokens, self.max_tokens)
        for p in chosen:
            task.check_room(p, longest, f"a suffix of {self.suffix_tokens} and {longest - self.suffix_tokens} after it")
        attempts = len(task.prompts) if self.universal else len(chosen)
        on = min(self.universal or 1, len(chosen))
        searches = 1 if self.universal else len(chosen)
        each = self.spends
        kept = max(1, each.buffer)
        queries = searches * (1 + each.steps * each.candidates * on + kept * sum(range(2, on + 1)))
        gradients = searches * each.steps * on if self.method == "gcg" else 0
        passes = {"queries": queries, "forward_passes": queries + gradients, "backward_passes": gradients}
        return self.bound(attempts, continuations=len(chosen) if self.target == "base" else 0, **passes)

    def make(self, task: Task) -> Made:
        targets = find_targets(task, self)
        allowed = allowed_ids(task.pair, self.tokens)
        if not allowed:
            raise PairError(f"the vocabulary of {task.pair.name} has no token that tokens={self.tokens!r} allows")
        every = list(range(len(targets.prompts)))
        groups = [[n] for n in every] if self.universal is None else [every[: self.universal]]
        steps = len(groups) * self.spends.steps
        found: list[tuple[Slots, Found]] = []
        what = "searching a suffix" if len(groups) == 1 else f"searching {len(groups)} suffixes"
        with Progress(what, steps, "steps") as bar:
            for n, group in enumerate(groups):
                prompts, system = [targets.prompts[i] for i in group], task.system_prompt
                ids = [targets.ids[i][: self.target_tokens] for i in group]
                aims = [task.pair.passage(p, own, system_prompt=system) for p, own in zip(prompts, ids, strict=True)]
                slots = open_slots(
                    task.pair, self.model, prompts, aims, self.suffix_tokens, allowed, system_prompt=system
                )
                search = Search(
                    slots=slots,
                    objective=Objective(task.pair, self.model, slots.slots, note=bar.note),
                    allowed=allowed,
                    budget=self.spends,
                    method=self.method,
                    stop=self.stop,
                    seed=self.seed,
                    store=task.store,
                    on_step=lambda f, n=n: bar.advance(n * self.spends.steps + f.step - bar.done),
                )
                found.append((slots, search.run()))
                bar.advance((n + 1) * self.spends.steps - bar.done)
        return self._made(task, targets, found)

    def _made(self, task: Task, targets: Targets, found: list[tuple[Slots, Found]]) -> Made:
        notes, attempts = list(targets.notes), []
        for slots, f in found:
            text = slots.text(f.kept[0][1])
            seen = {s.prompt.id for s in slots.slots}
            chosen = [s.prompt for s in slots.slots] if self.universal is None else list(task.prompts)
            for p in chosen:
                setting = "single"
                if self.universal is not None:
                    setting = "universal, searched on" if p.id in seen else "universal, held out"
                attempts.append(attempt_of(self, p, task.messages(with_suffix(p, text)), setting))
        won = sum(f.said and f.active == len(s.slots) for s, f in found)
        notes.append(
            f"{won} of {len(found)} searches end with a suffix after which the {self.model} model says its target."
        )
        searches = tuple(_search(s, f) for s, f in found)
        spent = {n: sum(getattr(s, n) for s in searches) for n in ("queries", "forward_passes", "backward_passes")}
        cost = Cost(continuations=targets.generated, **spent)
        resolved = {"budget": vars(self.spends), "searches": tuple(asdict(s) for s in searches)}
        return Made(attempts=attempts, cost=cost, notes=notes, resolved=resolved)


@dataclass(frozen=True, kw_only=True)
class RandomSuffix(GCG):
    """The best of random suffixes, with as many queries as GCG of the same budget: the baseline of GCG.

    Each step draws `candidates` new suffixes; `top_k` is not used.
    """

    family: ClassVar[str] = "random_suffix"
    method: ClassVar[Method] = "random"


def _search(slots: Slots, found: Found) -> SuffixSearch:
    assert found.stopped is not None
    best = found.kept[0][1]
    return SuffixSearch(
        prompt_ids=tuple(s.prompt.id for s in slots.slots),
        suffix=slots.text(best),
        suffix_ids=best,
        loss=found.curve,
        says_target=found.said,
        prompts_active=found.active,
        stopped=found.stopped,
        queries=found.queries,
        forward_passes=found.queries + found.gradients,
        backward_passes=found.gradients,
    )


def searches(attacks: AttackSet) -> tuple[SuffixSearch, ...]:
    """Return the searches of a gcg or random_suffix attack. Raises RecordError for another attack."""
    saved: tuple[Mapping[str, Any], ...] | None = attacks.run.resolved.get("searches")
    if saved is None:
        raise RecordError(f"attack {attacks.attack!r} has no suffix search: only gcg and random_suffix have one")
    return tuple(SuffixSearch(**s) for s in saved)
