"""Every way to complete an alignment, with the same rows, budget and seeds, asked the same prompts, beside aligned."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from workbench.core.configs import at_least, check_fields, takes_fields
from workbench.core.progress import Progress
from workbench.core.provenance import Stopwatch
from workbench.core.records import Row
from workbench.core.store import Store
from workbench.evaluation.attacks import AttackConfig, HarmlessPrefill, ModelArm, NoAttack, Prefill
from workbench.evaluation.capability import CapabilityConfig
from workbench.evaluation.config import EvaluateConfig
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.records import ArmComparison, Score, Scorecard
from workbench.evaluation.rows import evaluation_rows
from workbench.evaluation.setup import attempts_of
from workbench.evaluation.texts import target_of
from workbench.judging.makers import judges_of
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet
from workbench.training.adapter import load_adapter
from workbench.training.config import ARMS, ArmConfig, TrainConfig, arm_named
from workbench.training.distil import distil
from workbench.training.rows import TrainingTexts
from workbench.training.student import student_of, weights_file

UNTRAINED = "aligned"
START = "start"
"""The adapter that all arms are trained from, as it is, where they have one."""

PAPER_EPOCHS, PAPER_BATCH = 15, 32


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Which arms are trained, and how they are asked.

    arms           names of ARMS, or configs; `aligned`, which is not trained, is always there
    train          steps, batch and watching of every arm (its own arm and seed are not used)
    paper_steps    steps of the arm `paper` in batches of its own 32 rows; None: steps and batches of every other arm
    start          adapter that every arm is trained from, and that is asked too, as `start`: one that was degraded, or
                   drawn back from there (the paper's recovery variant). None: a fresh one, or a copy of the pair's own
    seeds          each arm is trained with each of them
    prefix_tokens  response tokens that are given, or "full" for the whole target; the harmless control has the counts
    attacks        more attacks, asked beside those
    adaptive       attacks that are made anew against each arm's own model: a suffix search (GCG), whose result on
                   `aligned` would only be carried over to the others as one of `attacks`
    capability     questions with a right answer that every arm is asked; None: none
    max_tokens     longest answer after the prefix
    judges         None: "exact" and "refusal" for the embedded prompts, else "refusal"
    against        what every other arm is compared with, paired by prompt
    """

    arms: tuple[ArmConfig | str, ...] = tuple(ARMS)
    train: TrainConfig = field(default_factory=TrainConfig)
    paper_steps: int | None = None
    start: str | None = None
    seeds: tuple[int, ...] = (0,)
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
                f"None where {self.train.processes} processes cannot share out the paper's {PAPER_BATCH} rows evenly",
            ),
            (not self.prefix_tokens or odd, "prefix_tokens", "token counts from 1, or 'full'"),
            (self.against not in known, "against", f"one of {', '.join(known)}"),
            paper_steps=at_least(1),
            max_tokens=at_least(1),
        )

    @property
    def untrained(self) -> tuple[str, ...]:
        """Return the arms that are asked as they are."""
        return (UNTRAINED,) if self.start is None else (UNTRAINED, START)

    def training_of(self, arm: ArmConfig, seed: int | None = None) -> TrainConfig:
        """Return how an arm is trained with a seed (None: the first); `paper` in its own batches if asked to."""
        how = replace(self.train, arm=arm, seed=self.seeds[0] if seed is None else seed)
        if arm.name != "paper" or self.paper_steps is None:
            return how
        share = PAPER_BATCH // how.processes
        at_once = max(n for n in range(1, min(share, how.rows_in_a_pass) + 1) if share % n == 0)
        return replace(how, steps=self.paper_steps, batch_size=PAPER_BATCH, micro_batch=at_once)

    @property
    def trained(self) -> tuple[ArmConfig, ...]:
        """Return the trained arms as configs."""
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

    Adapters go to `out/ARM-seed-N`, or each to its own folder in the user's cache (None). Arms that are trained, and
    answers and judgements that are made, are kept, so a comparison that was killed goes on where it stopped. Prompts
    must not be those of the texts: see `leaks`. An arm that cannot learn is trained all the same, so that it is seen to
    fail. Raises what `distil` and `evaluate` raise.
    """
    store = Store.of(store)
    watch = Stopwatch("compare_arms", _settings(config))
    judges = judges_of(config.judges, prompts.name)
    begun = None if config.start is None else pair.with_aligned(config.start)
    attacks = attempts_of(pair, prompts, attacks_for(prompts, config), store=store)
    adapters = train_arms(pair, texts, config, None if out is None else Path(out), store)
    how = EvaluateConfig(against=config.against, compared=("asr", "over_refusal", "continued"), categories=False)
    made = []
    for n in range(len(config.seeds)):
        models = {UNTRAINED: pair} | ({} if begun is None else {START: begun})
        models |= {name: pair.with_aligned(paths[n]) for name, paths in adapters.items()}
        arms = [ModelArm(pair=model, which="aligned", called=name) for name, model in models.items()]
        own = {
            name: attempts_of(model, prompts, config.adaptive, store=store)
            for name, model in models.items()
            if config.adaptive
        }
        made.append(evaluate(arms, attacks, judges, config=how, own=own, capability=config.capability, store=store))
    run = watch.record(
        resolved={"pair": pair.name, "prompts": prompts.name, "judges": judges},
        seed=config.seeds[0],
        device=str(pair.device),
        fingerprint=pair.fingerprint,
    )
    cards = [e.scorecard for e in made]
    said = (*texts.notes, *_said(adapters, config), *cards[0].notes)
    return ArmComparison(
        run=run,
        prompt_set=prompts.name,
        classroom_safe=prompts.classroom_safe,
        arms=(*config.untrained, *adapters),
        seeds=config.seeds,
        budgets=_budgets(texts, config),
        adapters=adapters,
        evaluations=tuple(made),
        scorecard=Scorecard(run=run, scores=_over_seeds(cards), comparisons=(), sentences=(), notes=()),
        leaks=leaks(texts, prompts),
        notes=tuple(dict.fromkeys(said)),
    )


def attacks_for(prompts: PromptSet, config: CompareConfig) -> tuple[AttackConfig, ...]:
    """Return what every arm is asked: all prompts plainly, the prefill attack, and its harmless control."""
    shared = dict(max_tokens=config.max_tokens, system_prompt=config.system_prompt)
    made: list[AttackConfig] = [NoAttack(**shared)]  # type: ignore[arg-type]
    made.append(Prefill(k=config.prefix_tokens, target=target_of(prompts), **shared))  # type: ignore[arg-type]
    counts = tuple(k for k in config.prefix_tokens if k != "full")
    if counts and any(p.label == "harmless" and p.response for p in prompts):
        made.append(HarmlessPrefill(k=counts, **shared))  # type: ignore[arg-type]
    return (*made, *config.attacks)


def comparison_rows(comparison: ArmComparison) -> tuple[Row, ...]:
    """Return every number as tidy rows: all seeds together (seed None), then each seed's scores and paired tests."""
    cards = (
        (None, comparison.scorecard),
        *zip(comparison.seeds, (e.scorecard for e in comparison.evaluations), strict=True),
    )
    return tuple(replace(r, seed=seed) for seed, card in cards for r in evaluation_rows(card))


def train_arms(
    pair: ModelPair, texts: TrainingTexts, config: CompareConfig, out: Path | None, store: Store
) -> dict[str, tuple[str, ...]]:
    """Train every arm with every seed, and return each arm's adapter folders in the order of the seeds."""
    made: dict[str, tuple[str, ...]] = {}
    for arm in config.trained if config.start is not None else ():  # before the first is paid for
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


def _over_seeds(cards: Sequence[Scorecard]) -> tuple[Score, ...]:
    """Return every score over all seeds: the mean, within the lowest and the highest bound of any seed's interval."""
    found: dict[tuple[Any, ...], list[Score]] = {}
    for card in cards:
        for s in card.scores:
            found.setdefault(tuple(s.place().values()), []).append(s)
    made = []
    for each in found.values():
        own = each[:1] if each[0].arm in (UNTRAINED, START) else each
        values, lows, highs = (
            [x for s in own if (x := getattr(s.estimate, name)) is not None] for name in ("value", "low", "high")
        )
        together = replace(
            own[0].estimate,
            value=math.fsum(values) / len(values) if values else None,
            low=min(lows, default=None),
            high=max(highs, default=None),
            n=max(s.estimate.n for s in own),
        )
        made.append(replace(own[0], estimate=together))
    return tuple(made)


def _budgets(texts: TrainingTexts, config: CompareConfig) -> Mapping[str, str]:
    said = {UNTRAINED: "not trained"}
    if config.start is not None:
        said[START] = f"the given adapter (folder {Path(config.start).name!r}) as it is; the others began with it"
    for arm in config.trained:
        how = config.training_of(arm)
        said[arm.name] = (
            f"{how.steps} steps of {how.batch_size} rows, learning rate {arm.optimiser.learning_rate:g}, "
            f"LoRA rank {arm.lora.rank}, alpha {arm.lora.alpha:g}"
        )
        if arm.name == "paper":
            own = math.ceil(PAPER_EPOCHS * (len(texts.harmful) + len(texts.utility)) / PAPER_BATCH)
            said[arm.name] += f"; its own schedule on these texts: {own} steps of {PAPER_BATCH} rows"
    return said


def _said(adapters: Mapping[str, Sequence[str]], config: CompareConfig) -> tuple[str, ...]:
    """Return what the trainings noted, and which of them stopped before their last step."""
    notes: list[str] = []
    for name, paths in adapters.items():
        for seed, path in zip(config.seeds, paths, strict=True):
            made = load_adapter(path)
            notes += made.notes
            notes += [f"{name}, seed {seed}: training {made.stopped}."] if made.stopped else []
    return tuple(notes)


def leaks(texts: TrainingTexts, prompts: PromptSet) -> tuple[str, ...]:
    """Return a warning where prompts to be asked were trained on (case and spaces aside); () where none was."""
    own = {" ".join(t.prompt.lower().split()) for t in (*texts.harmful, *texts.utility, *texts.harmless)}
    shared = [p for p in prompts if " ".join(p.prompt.lower().split()) in own]
    if not shared:
        return ()
    return (
        f"LEAK: {len(shared)} of the {len(prompts)} prompts were trained on (first: {shared[0].id}), so the numbers on "
        "them are not about unseen prompts. Take another split.",
    )


def _settings(config: CompareConfig) -> dict[str, object]:
    whole = dataclasses.asdict(config)
    return {k: v for k, v in whole.items() if k not in ("arms", "train")} | {
        "arms": tuple(a.name for a in config.trained),
        "steps": config.train.steps,
        "batch_size": config.train.batch_size,
    }
