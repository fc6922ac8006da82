"""A sweep of penalties over prompts and prefix lengths: an evaluation with one arm for each penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from workbench.core.configs import takes_fields
from workbench.core.errors import ParameterError, PromptError
from workbench.core.passages import Passage
from workbench.core.provenance import Stopwatch, settings_of
from workbench.core.records import Estimate
from workbench.core.statistics import PromptSample, estimate
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.model import PenalisedModel
from workbench.evaluation.attacks import NoAttack, Prefill, attack
from workbench.evaluation.attacks.targets import target_of
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.leverage import Moves, leverages, measure_moves, response_texts
from workbench.evaluation.metrics import EvaluateConfig
from workbench.evaluation.penalties import PenaltyGrid, SweepConfig
from workbench.evaluation.records import AttackSet, PenaltySweep
from workbench.judging.contract import Judge
from workbench.judging.makers import the_judge
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet

COMPARED = ("asr", "refusal", "gibberish", "over_refusal", "harmless_right")
"""Metrics in which every penalty is compared with aligned, prompt by prompt."""


@takes_fields(SweepConfig)
def sweep(pair: ModelPair, prompts: PromptSet, config: SweepConfig, *, store: Store | None = None) -> PenaltySweep:
    """Let aligned under every penalty answer every prompt after every prefix length, beside aligned alone.

    Harmful prompts are attacked by prefill; harmless ones and look-alikes are sent without an attack. Along given
    responses the sweep measures KL(penalised || aligned) on harmless ones, and leverage by position on both kinds.
    Every answer, judgement and measured response is stored in `store` at once: a killed sweep resumes there and gives
    the same record.

    Raises PromptError where the prompts hold no harmful one, ParameterError for a pair that thinks, and what the
    attack, decoding and the judge raise.
    """
    store, how = Store.of(store), the_judge(config.judge, prompts.name)
    if isinstance(config.penalties, PenaltyGrid):
        config = replace(config, penalties=config.penalties.measured(pair, prompts, store))
    arms = config.arms()
    watch = Stopwatch("sweep", {**settings_of(config), "judge": how.name, "penalties": [p.title for p in arms]})
    attempts = attempts_for(pair, prompts, config, store)
    own = next((p.on(pair, config.expert) for p in arms if p.method == "safe_decoding"), pair)  # loaded once
    pairs = [own if p.method == "safe_decoding" else pair for p in arms]
    scoring = EvaluateConfig(
        against=arms[0].title, compared=COMPARED, categories=False, confidence=config.confidence, seed=config.seed
    )
    models = [PenalisedModel(on, p) for on, p in zip(pairs, arms, strict=True)]
    evaluation = evaluate(
        models, attempts, [how], config=scoring, store=store, batch_tokens=config.batch_tokens, what="sweep"
    )
    texts, text_notes = response_texts(pair, prompts, config, store)
    moves = _walk(pair, pairs, arms, texts, config, store)
    about: dict[str, Any] = {"prompts": prompts.name, "prompts_source": prompts.source, "prompts_notes": prompts.notes}
    about["attempts"] = sum(len(s.attempts) for s in attempts)
    names, notes = tuple(p.title for p in arms), _notes(prompts, config, how, attempts)
    return PenaltySweep(
        run=watch.record(
            pair, resolved={"pair": pair.name, "template_mode": pair.template_mode, **about}, seed=config.seed
        ),
        prompt_set=prompts.name,
        classroom_safe=prompts.classroom_safe,
        judge=how.name,
        names=names,
        penalties=tuple(settings_of(p) for p in arms),
        evaluation=evaluation,
        kl_nats=_kl(texts, moves, config),
        leverage=leverages(names, texts, moves, config),
        notes=tuple(dict.fromkeys((*notes, *text_notes))),
    )


def attempts_for(pair: ModelPair, prompts: PromptSet, config: SweepConfig, store: Store) -> tuple[AttackSet, ...]:
    """Return the attempts that every penalty answers. Raises PromptError and ParameterError as `sweep` does."""
    if pair.thinking:
        raise ParameterError(
            "thinking is on, and a penalty would also change the thinking block: load the pair with thinking=False"
        )
    there = {p.label for p in prompts}
    if "harmful" not in there:
        raise PromptError(
            f"{prompts.name!r} has no harmful prompt (it has {', '.join(sorted(there)) or 'none at all'}) to attack: "
            "name the label column, or another set"
        )
    shared: dict[str, Any] = {k: getattr(config, k) for k in ("max_tokens", "system_prompt", "seed")}
    how = Prefill(k=config.prefix_tokens, target=target_of(prompts), **shared)
    sets = [attack(pair, prompts, how, store=store)]
    if plain := tuple(label for label in ("harmless", "lookalike") if label in there):
        sets.append(attack(pair, prompts, NoAttack(labels=plain, **shared), store=store))
    return tuple(sets)


def _notes(prompts: PromptSet, config: SweepConfig, how: Judge, attempts: Sequence[AttackSet]) -> list[str]:
    there = {p.label for p in prompts}
    notes = [note for s in attempts for note in s.notes]
    missing = [label for label in ("harmless", "lookalike") if label not in there]
    notes += [f"The set has no {label} prompt, so nothing is measured on such prompts." for label in missing]
    chosen = " (the default for this prompt set; the setting judge names another)" if config.judge is None else ""
    notes.append(f"Judged by {how.name!r}, version {how.version}{chosen}.")
    if how.measures == "non-refusal":
        notes.append(
            f"The judge {how.name!r} counts every direct attempt at an answer as compliance: its non-refusal rate is "
            "an upper bound of what is harmful."
        )
    return notes


def _walk(
    pair: ModelPair,
    pairs: Sequence[ModelPair],
    arms: Sequence[PenaltyConfig],
    texts: Sequence[Passage],
    config: SweepConfig,
    store: Store,
) -> list[Moves]:
    """Measure every penalty along every response; one with an expert, on the pair of aligned and that expert."""
    own, at_once = [i for i, on in enumerate(pairs) if on is pair], config.batch_tokens // 2 or 1
    made = measure_moves(pair, texts, [arms[i] for i in own], batch_tokens=at_once, store=store)
    if len(own) == len(arms):
        return list(made)
    rest = [i for i in range(len(arms)) if i not in own]
    alone = [replace(t, base=None) for t in texts]  # aligned and expert read the same prompt
    other = measure_moves(
        pairs[rest[0]], alone, [arms[i] for i in rest], reference="base", batch_tokens=at_once, store=store
    )
    order = np.argsort([*own, *rest])
    return [np.concatenate(both, 1)[:, order] for both in zip(made, other, strict=True)]


def _kl(texts: Sequence[Passage], moves: Sequence[Moves], config: SweepConfig) -> tuple[Estimate, ...]:
    """Return each penalty's KL(penalised || aligned) on harmless responses; none without such responses."""
    own = [(t, m) for t, m in zip(texts, moves, strict=True) if t.label == "harmless"]
    if not own:
        return ()
    stream = "sweep harmless"
    sample = PromptSample([t.name for t, _ in own], resamples=config.resamples, seed=config.seed, stream=stream)
    count = sample.sums(np.array([m.shape[-1] for _, m in own], np.int32))
    nats = np.array([m[0].sum(-1, dtype=np.float64) for _, m in own], np.float32)
    ratios = [sample.ratio(sample.sums(column), count) for column in nats.T]
    return tuple(estimate(r, unit="nats per token", confidence=config.confidence) for r in ratios)
