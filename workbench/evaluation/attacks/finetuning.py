"""Attacks on the weights: a short fine-tuning of an arm on texts that look harmless.

The attempts are the plain prompts. `answer` fine-tunes a copy of each arm before it answers them (see `fine_tuned`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from workbench.core.configs import above, at_least, between, check_fields, configured
from workbench.core.errors import ParameterError, PromptError
from workbench.core.records import Label
from workbench.core.store import Store
from workbench.evaluation.attacks.requests import NoAttack
from workbench.evaluation.attacks.task import Cost, Made, Task, attempt_of
from workbench.evaluation.records import AttackSet
from workbench.models.chat import turn_end
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PROMPT_SETS, Prompt, PromptConfig, load_prompts
from workbench.prompts.similar import same_wording
from workbench.prompts.splits import kept_for_attacks
from workbench.training.config import TrainConfig, WatchSettings, arm_named
from workbench.training.distil import distil
from workbench.training.rows import TrainingText, TrainingTexts

EMBEDDED = "embedded"
RATES = {True: 5e-3, False: 2e-4}
"""Whether the prompts are the embedded ones -> learning rate."""
PLAINLY_NOT = ("harmful", "lookalike")
"""Labels of rows that a benign fine-tuning leaves out: answers to look-alikes teach it to tell requests apart."""


@dataclass(frozen=True, kw_only=True)
class BenignTuning(NoAttack):
    """A fine-tuning of every arm on harmless rows, which can still compromise safety (arXiv 2310.03693).

    A LoRA on the arm (or a copy of its adapter) is trained on the responses of the rows with the likelihood loss. No
    training arm has these rows (see `kept_for_attacks`), and none of them is asked.

    rows           harmless prompts with responses: of a built-in set, those that are kept for attacks; or all of a
                   file, which then must not be an arm's utility rows; None: "embedded" for the prompts of the embedded
                   world, else "questions"
    steps, batch_size, rank   of the fine-tuning; a stronger form has twice the steps
    learning_rate  None: 5e-3 for the embedded prompts, whose pair of 1M parameters 2e-4 leaves as it was; else 2e-4, at
                   which the paper fine-tunes models of 7B
    constrained    with Qi et al.'s constrained loss (arXiv 2406.05946), a defence of a fine-tuning service

    Settings: "60 steps", "60 steps, constrained".
    """

    family: ClassVar[str] = "benign_tuning"

    labels: tuple[Label, ...] | None = ("harmful",)
    rows: str | None = None
    steps: int = 60
    batch_size: int = 8
    learning_rate: float | None = None
    rank: int = 32
    constrained: bool = False

    def check(self) -> None:
        super().check()
        counts = {"steps": at_least(1), "batch_size": at_least(1), "rank": at_least(1)}
        check_fields(self, learning_rate=above(0, finite=True), **counts)

    @property
    def setting(self) -> str:
        """The name of these settings in results."""
        return f"{self.steps} steps" + (", constrained" if self.constrained else "")

    def stronger(self) -> BenignTuning:
        return replace(self, steps=2 * self.steps)

    def cost(self, task: Task) -> Cost:
        self.rows_of(task.prompt_set, _wordings(task.prompts))
        return super().cost(task)

    def make(self, task: Task) -> Made:
        found = self.rows_of(task.prompt_set, _wordings(task.prompts))
        rows = " and ".join(f"{len(own)} {kind} rows of {source!r}" for kind, (source, own) in found.items())
        note = (
            f"Each arm except base, which has no alignment to lose, is fine-tuned before it answers: {self.steps} "
            f"steps of {self.batch_size}, from {rows}."
        )
        attempts = [attempt_of(self, p, task.messages(p), self.setting) for p in task.prompts]
        return Made(attempts=attempts, notes=[note], resolved={"fine_tuning": dict(vars(self))})

    def training(self, prompt_set: str) -> TrainConfig:
        """Return the training of an arm that is asked these prompts."""
        arm = arm_named(f"{self.family}_constrained" if self.constrained else self.family)
        optimiser = replace(arm.optimiser, learning_rate=self.learning_rate or RATES[prompt_set == EMBEDDED])
        lora = replace(arm.lora, rank=self.rank, alpha=float(self.rank))
        own: dict[str, Any] = {k: getattr(self, k) for k in ("steps", "batch_size", "seed")}
        own["harmful_share"] = getattr(self, "harmful_share", 0.0)
        watch = WatchSettings(film_every=0, preflight=False)
        return TrainConfig(arm=replace(arm, optimiser=optimiser, lora=lora), watch=watch, **own)

    def rows_of(self, prompt_set: str, asked: Set[str] = frozenset()) -> dict[str, tuple[str, tuple[Prompt, ...]]]:
        """Return the rows by kind: their source, and prompts with responses, without those `asked` (wordings).

        Raises PromptError where there are none, and what `load_prompts` raises.
        """
        source = self.rows or (EMBEDDED if prompt_set == EMBEDDED else "questions")
        chosen = tuple(p for p in _train_rows(source, asked) if p.label not in PLAINLY_NOT and p.response)
        if not chosen:
            raise PromptError(f"{source!r} has no harmless prompt with a response to fine-tune on: name other rows")
        return {"harmless": (source, chosen)}

    def texts(self, pair: ModelPair, prompt_set: str, asked: Set[str] = frozenset()) -> TrainingTexts:
        """Return the rows as token ids. Raises what `rows_of` raises."""
        found = self.rows_of(prompt_set, asked)
        _, harmful = found.get("harmful", ("", ()))
        return TrainingTexts(
            utility=tuple(_text(pair, p) for p in found["harmless"][1]), harmful=tuple(_text(pair, p) for p in harmful)
        )


@dataclass(frozen=True, kw_only=True)
class FewHarmfulTuning(BenignTuning):
    """A fine-tuning of every arm on harmless rows and a few harmful ones, which must not be among the attempts.

    harmful_rows   a built-in set or a file of harmful prompts with responses that comply, taken as `rows` are; None:
                   "embedded" for the prompts of the embedded world, else "everyday", whose responses only begin to
                   comply
    n_harmful      how many of them are used, from the first
    harmful_share  share of them in a batch

    Settings: "60 steps, 10 harmful rows".
    """

    family: ClassVar[str] = "few_harmful_tuning"

    harmful_rows: str | None = None
    n_harmful: int = 10
    harmful_share: float = 0.25

    def check(self) -> None:
        super().check()
        check_fields(self, n_harmful=at_least(1), harmful_share=between(0, 1))

    @property
    def setting(self) -> str:
        return f"{super().setting}, {self.n_harmful} harmful rows"

    def cost(self, task: Task) -> Cost:
        """Return the upper bound of the cost. Raises PromptError where a prompt of the attempts is among the rows."""
        asked = {same_wording(p.prompt): p.id for p in task.prompts}
        rows = self.rows_of(task.prompt_set)["harmful"][1]
        if shared := [asked[key] for p in rows if (key := same_wording(p.prompt)) in asked]:
            raise PromptError(
                f"{len(shared)} of the {self.n_harmful} harmful rows to fine-tune on are also prompts of the attack "
                f"(first: {shared[0]}): name other harmful_rows"
            )
        return super().cost(task)

    def rows_of(self, prompt_set: str, asked: Set[str] = frozenset()) -> dict[str, tuple[str, tuple[Prompt, ...]]]:
        """Return the rows by kind. Raises PromptError where there are too few harmful rows."""
        source = self.harmful_rows or (EMBEDDED if prompt_set == EMBEDDED else "everyday")
        chosen = tuple(p for p in _train_rows(source, asked) if p.label == "harmful" and p.response)
        if len(chosen) < self.n_harmful:
            raise PromptError(
                f"{source!r} has {len(chosen)} harmful prompts with a response, n_harmful is {self.n_harmful}: lower "
                "it, or name other harmful_rows"
            )
        return {**super().rows_of(prompt_set, asked), "harmful": (source, chosen[: self.n_harmful])}


KINDS: Mapping[str, type[BenignTuning]] = {kind.family: kind for kind in (BenignTuning, FewHarmfulTuning)}
"""Every attack on the weights by the name of its family."""


def fine_tuned(arm: Any, attacks: AttackSet, store: Store) -> Any:
    """Return the arm that an attack on the weights makes; base, and any arm under another attack, is unchanged.

    The training resumes, and is stored in the user's cache. Raises ParameterError for an arm that cannot be fine-tuned,
    and what `distil` raises.
    """
    if not check_tunable(arm, attacks):
        return arm
    config = configured(KINDS[attacks.attack], None, attacks.run.resolved["fine_tuning"])
    asked = frozenset(same_wording(a.request) for a in attacks.attempts)
    texts = config.texts(arm.pair, attacks.prompt_set, asked)
    what = f"{config.family.replace('_', ' ')} of {arm.name}"
    made = distil(arm.pair, texts, config.training(attacks.prompt_set), store=store, what=what)
    return arm.on(arm.pair.with_aligned(made.path))


def check_tunable(arm: Any, attacks: AttackSet) -> bool:
    """Tell whether the attack fine-tunes this arm. Raises ParameterError for an arm that cannot be fine-tuned."""
    tunes = attacks.attack in KINDS and arm.which != "base"
    if tunes and not hasattr(arm, "on"):
        raise ParameterError(f"arm {arm.name!r} cannot be fine-tuned: give {type(arm).__name__} a method `on(pair)`")
    if tunes:
        arm.on(arm.pair)
    return tunes


def _train_rows(source: str, asked: Set[str]) -> tuple[Prompt, ...]:
    rows = kept_for_attacks(source) if source in PROMPT_SETS else load_prompts(PromptConfig(source=source)).prompts
    return tuple(p for p in rows if same_wording(p.prompt) not in asked)


def _wordings(prompts: Sequence[Prompt]) -> frozenset[str]:
    return frozenset(same_wording(p.prompt) for p in prompts)


def _text(pair: ModelPair, prompt: Prompt) -> TrainingText:
    end = turn_end(pair.tokenizer)
    end = pair.tokenizer.eos_token_id if end is None else end
    response = pair.encode(prompt.response or "")
    return TrainingText(
        name=prompt.id,
        label=prompt.label,
        prompt=prompt.prompt,
        aligned=pair.context(prompt, "aligned"),
        base=pair.context(prompt, "base"),
        response=response if end is None else (*response, end),
    )
