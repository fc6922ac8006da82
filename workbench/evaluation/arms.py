"""A comparison of training arms: the same rows, budget and seeds, and the same prompts for every arm and aligned."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from workbench.core.configs import at_least, between, check_fields, takes_fields
from workbench.core.errors import PromptError
from workbench.core.progress import Progress
from workbench.core.provenance import Stopwatch
from workbench.core.store import Store
from workbench.evaluation.attacks import AttackConfig, BenignTuning, HarmlessPrefill, ModelArm, NoAttack, Prefill
from workbench.evaluation.attacks.targets import target_of
from workbench.evaluation.capability import CapabilityConfig
from workbench.evaluation.escalation import escalated
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.metrics import EvaluateConfig
from workbench.evaluation.records import ArmComparison
from workbench.evaluation.seeds import over_seeds
from workbench.evaluation.setup import attempts_of
from workbench.judging.makers import judges_of
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet
from workbench.training.adapter import load_adapter
from workbench.training.config import ARMS, ArmConfig, TrainConfig, arm_named
from workbench.training.distil import distil
from workbench.training.rows import TrainingTexts
from workbench.training.scaled import scaled_adapter
from workbench.training.student import student_of, weights_file

UNTRAINED = "aligned"
START = "start"
"""The arm of the adapter from which all arms are trained, before that training."""

PAPER_EPOCHS, PAPER_BATCH = 15, 32


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """The settings of a comparison: which arms are trained, and what they answer.

    arms           names of ARMS, or configs; the untrained `aligned` is always an arm
    train          steps, batch and watching of every arm (its own arm and seed are not used)
    paper_steps    steps of the arm `paper` in batches of 32 rows; None: steps and batches of the other arms
    start          adapter from which every arm is trained, itself an arm `start` (the paper's recovery variant starts
                   from a degraded one); None: a fresh adapter, or a copy of the pair's own
    seeds          each arm is trained with each seed
    scales         shares of each trained arm's change of the weights that are asked too, as arms "recovery x 0.5", so
                   that arms can be compared at equal over-refusal (see `scaled_adapter`)
    prefix_tokens  given response tokens, or "full" for the whole target; the harmless control has the counts
    attacks        further attacks
    adaptive       attacks that are made against each arm's own model, such as a suffix search (GCG), in the form that
                   is strong enough on aligned; in `attacks` its suffixes would be searched on `aligned` and transferred
    capability     questions with a right answer for every arm; None: none
    max_tokens     longest answer after the prefix
    judges         None: "exact" and "refusal" for the embedded prompts, else "refusal"
    against        the arm that every other arm is compared with, paired by prompt
    """

    arms: tuple[ArmConfig | str, ...] = tuple(ARMS)
    train: TrainConfig = field(default_factory=TrainConfig)
    paper_steps: int | None = None
    start: str | None = None
    seeds: tuple[int, ...] = (0,)
    scales: tuple[float, ...] = ()
    prefix_tokens: tuple[int | Literal["full"], ...] = (5, 10, 20)
    attacks: tuple[AttackConfig, ...] = ()
    adaptive: tuple[AttackConfig, ...] = ()
    capability: CapabilityConfig | None = None
    max_tokens: int = 96
    judges: tuple[str, ...] | None = None
    against: str = UNTRAINED
    system_prompt: str | None = None

    def __post_init__(self) -> None:
        if self.start is not None:
            weights_file(self.start)
        chosen = tuple(arm_named(a) if isinstance(a, str) else a for a in self.arms)
        object.__setattr__(self, "arms", chosen)
        names = [a.name for a in chosen]
        twice = len(set(names)) < len(names) or {UNTRAINED, START} & set(names)
        odd = any(k != "full" and not (isinstance(k, int) and k > 0) for k in self.prefix_tokens)
        uneven = self.paper_steps is not None and PAPER_BATCH % self.train.processes != 0
        known = (*self.untrained, *names)
        check_fields(
            self,
            (not chosen, "arms", "at least one arm"),
            (bool(twice), "arms", f"differently named, and not {UNTRAINED!r} or {START!r}"),
            (not self.seeds or len(set(self.seeds)) < len(self.seeds), "seeds", "at least one, each once"),
            (
                uneven,
                "paper_steps",
                f"None where {self.train.processes} processes cannot share {PAPER_BATCH} rows evenly",
            ),
            (not self.prefix_tokens or odd, "prefix_tokens", "token counts from 1, or 'full'"),
            (self.against not in known, "against", f"one of {', '.join(known)}"),
            (len(set(self.scales)) < len(self.scales), "scales", "different shares"),
            scales=between(0, 1),
            paper_steps=at_least(1),
            max_tokens=at_least(1),
        )

    @property
    def untrained(self) -> tuple[str, ...]:
        """The arms that are not trained here."""
        return (UNTRAINED,) if self.start is None else (UNTRAINED, START)

    def training_of(self, arm: ArmConfig, seed: int | None = None) -> TrainConfig:
        """Return the training of an arm with a seed (None: the first); `paper` has its own batches if set."""
        how = replace(self.train, arm=arm, seed=self.seeds[0] if seed is None else seed)
        if arm.name != "paper" or self.paper_steps is None:
            return how
        share = PAPER_BATCH // how.processes
        at_once = max(n for n in range(1, min(share, how.rows_in_a_pass) + 1) if share % n == 0)
        return replace(how, steps=self.paper_steps, batch_size=PAPER_BATCH, micro_batch=at_once)

    @property
    def trained(self) -> tuple[ArmConfig, ...]:
        """The trained arms as configs."""
        return tuple(a for a in self.arms if isinstance(a, ArmConfig))


@takes_fields(CompareConfig)
def compare_arms(
    pair: ModelPair,
    texts: TrainingTexts,
    prompts: PromptSet,
    config: CompareConfig,
    *,
    out: str | Path | None = None,
    store: Store | None = None,
) -> ArmComparison:
    """Train every arm on the same texts with every seed, and let all of them and aligned answer the same prompts.

    Adapters go to `out/ARM-seed-N`, or each to its own folder in the user's cache (None). Trained arms, answers and
    judgements are stored, so a killed comparison resumes where it stopped. The prompts must not be among the texts: see
    `TrainingTexts.leaks`. An arm whose training cannot work is trained without the pre-flight check, so that the result
    shows it. Raises what `distil` and `evaluate` raise.
    """
    store = Store.of(store)
    asked = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("arms", "train")}
    asked |= {"arms": [a.name for a in config.trained], "steps": config.train.steps}
    watch = Stopwatch("compare_arms", {**asked, "batch_size": config.train.batch_size})
    judges = judges_of(config.judges, prompts.name)
    check_rows_apart(texts, prompts, config)
    begun = None if config.start is None else pair.with_aligned(config.start)
    attacks = attempts_of(pair, prompts, attacks_for(prompts, config), judges=judges, store=store)
    adapters = train_arms(pair, texts, config, None if out is None else Path(out), store)
    how = EvaluateConfig(against=config.against, compared=("asr", "over_refusal", "continued"), categories=False)
    adaptive = [escalated(pair, prompts, c, judges[0], gate=how.gate, store=store)[0] for c in config.adaptive]
    fixed = [replace(c, escalations=0) for c in adaptive]
    made = []
    for n in range(len(config.seeds)):
        models = {UNTRAINED: pair} | ({} if begun is None else {START: begun})
        for name, paths in adapters.items():
            models |= {name: pair.with_aligned(paths[n]), **scaled_models(pair, name, paths[n], config.scales)}
        arms = [ModelArm(pair=model, which="aligned", called=name) for name, model in models.items()]
        own = {
            name: attempts_of(model, prompts, fixed, judges=judges, store=store)
            for name, model in models.items()
            if fixed
        }
        made.append(evaluate(arms, attacks, judges, config=how, own=own, capability=config.capability, store=store))
    decided = {"pair": pair.name, "prompts": prompts.name, "judges": judges}
    run = watch.record(pair, resolved=decided, seed=config.seeds[0])
    said = (*texts.notes, *_said(adapters, config), *made[0].scorecard.notes)
    return ArmComparison(
        run=run,
        prompt_set=prompts.name,
        classroom_safe=prompts.classroom_safe,
        arms=tuple(models),
        seeds=config.seeds,
        budgets=_budgets(texts, config),
        adapters=adapters,
        evaluations=tuple(made),
        scorecard=over_seeds(made, run, how),
        leaks=texts.leaks(prompts),
        notes=tuple(dict.fromkeys(said)),
    )


def check_rows_apart(texts: TrainingTexts, prompts: PromptSet, config: CompareConfig) -> None:
    """Raise PromptError where an attack would fine-tune on rows that the arms are trained on."""
    for how in (*config.attacks, *config.adaptive):
        if isinstance(how, BenignTuning):
            for source, rows in how.rows_of(prompts.name).values():
                if shared := texts.shared(rows):
                    raise PromptError(
                        f"{len(shared)} of the {len(rows)} rows of {source!r} that {how.family!r} trains on are among "
                        f"the arms' own training texts (first: {shared[0].id}): name other rows"
                    )


def attacks_for(prompts: PromptSet, config: CompareConfig) -> tuple[AttackConfig, ...]:
    """Return the attacks on every arm: no attack, prefill, its harmless control, and those of the config."""
    shared: dict[str, Any] = {"max_tokens": config.max_tokens, "system_prompt": config.system_prompt}
    made = [NoAttack(**shared), Prefill(k=config.prefix_tokens, target=target_of(prompts), **shared)]
    counts = tuple(k for k in config.prefix_tokens if k != "full")
    if counts and any(p.label == "harmless" and p.response for p in prompts):
        made.append(HarmlessPrefill(k=counts, **shared))
    return (*made, *config.attacks)


def train_arms(
    pair: ModelPair, texts: TrainingTexts, config: CompareConfig, out: Path | None, store: Store
) -> dict[str, tuple[str, ...]]:
    """Train every arm with every seed, and return each arm's adapter folders in the order of the seeds."""
    made: dict[str, tuple[str, ...]] = {}
    for arm in config.trained if config.start is not None else ():  # refuse a wrong start before any training
        with student_of(pair, arm.lora, 0) as student:
            student.begin_at(Path(str(config.start)))
    with Progress("arms", len(config.trained) * len(config.seeds), "trainings") as progress:
        for arm in config.trained:
            for seed in config.seeds:
                how = config.training_of(arm, seed)
                how = replace(how, watch=replace(how.watch, preflight=False))
                folder = None if out is None else out / f"{arm.name}-seed-{seed}"
                done = distil(pair, texts, how, out=folder, store=store, start=config.start)
                made[arm.name] = (*made.get(arm.name, ()), done.path)
                progress.advance()
    return made


def scaled_models(pair: ModelPair, arm: str, path: str, scales: Sequence[float]) -> dict[str, ModelPair]:
    """Return the pairs with shares of a trained arm's change, by arm; their adapters are written beside its own."""
    folders = {x: Path(path).with_name(f"{Path(path).name}-x-{x:g}") for x in scales}
    return {
        f"{arm} x {x:g}": pair.with_aligned(str(scaled_adapter(pair, path, x, folder))) for x, folder in folders.items()
    }


def _budgets(texts: TrainingTexts, config: CompareConfig) -> Mapping[str, str]:
    said = {UNTRAINED: "not trained"}
    if config.start is not None:
        said[START] = f"the given adapter (folder {Path(config.start).name!r}); the other arms were trained from it"
    for arm in config.trained:
        how = config.training_of(arm)
        said[arm.name] = (
            f"{how.steps} steps of {how.batch_size} rows, learning rate {arm.optimiser.learning_rate:g}, "
            f"LoRA rank {arm.lora.rank}, alpha {arm.lora.alpha:g}"
        )
        if arm.name == "paper":
            own = math.ceil(PAPER_EPOCHS * (len(texts.harmful) + len(texts.utility)) / PAPER_BATCH)
            said[arm.name] += f"; its own schedule on these texts: {own} steps of {PAPER_BATCH} rows"
        for x in config.scales:
            said[f"{arm.name} x {x:g}"] = f"{x:g} of the change of {arm.name}, not trained by itself"
    return said


def _said(adapters: Mapping[str, Sequence[str]], config: CompareConfig) -> tuple[str, ...]:
    """Return the notes of the trainings, and which of them stopped before the last step."""
    notes: list[str] = []
    for name, paths in adapters.items():
        for seed, path in zip(config.seeds, paths, strict=True):
            made = load_adapter(path)
            notes += made.notes
            notes += [f"{name}, seed {seed}: training {made.stopped}."] if made.stopped else []
    return tuple(notes)
