"""The verb: penalties x prefix lengths x prompts in, a PenaltySweep out; said before it starts, resumable, in cells."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np

from workbench.core.errors import ParameterError, PromptError
from workbench.core.passages import Passage
from workbench.core.progress import Progress
from workbench.core.provenance import Stopwatch, settings_of
from workbench.core.store import Store
from workbench.evaluation.attacks import NoAttack, Prefill, attack
from workbench.evaluation.experiments.config import SweepConfig
from workbench.evaluation.experiments.divergence import measure_moves
from workbench.evaluation.experiments.scores import leverages, scores_of
from workbench.evaluation.experiments.texts import harmful_texts, harmless_texts, target_of
from workbench.evaluation.experiments.trials import OUTCOMES, Cell, cell_key, run_cell, unscored_counts
from workbench.evaluation.records import Attempt, PenaltySweep, Trials
from workbench.judging.config import JudgeConfig, judge_of
from workbench.judging.contract import Judge
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet


@dataclass(frozen=True, kw_only=True)
class SweepCost:
    """Say what a sweep costs at most: penalties (aligned included), attempts for each, and tokens to generate."""

    penalties: int
    attempts: int
    answer_tokens: int
    finished: int

    def __str__(self) -> str:
        left = self.penalties - self.finished
        done = f" ({self.finished} of them finished before)" if self.finished else ""
        return (
            f"sweep: {self.penalties} penalties{done} x {self.attempts:,} attempts; at most "
            f"{left * self.attempts:,} continuations, {left * self.answer_tokens:,} tokens under both models."
        )


def estimate_sweep(
    pair: ModelPair, prompts: PromptSet, config: SweepConfig, *, store: Store | None = None
) -> SweepCost:
    """Return the most that a sweep can cost, finished cells left out; as text it is one sentence.

    Short targets are lengthened by the base model for that, nothing else runs. Raises what `sweep` raises before it
    works.
    """
    store = Store(None) if store is None else store
    attempts, _ = make_attempts(pair, prompts, config, store)
    return _cost(pair, attempts, config, _judge(prompts, config), store)


def sweep(pair: ModelPair, prompts: PromptSet, config: SweepConfig, *, store: Store | None = None) -> PenaltySweep:
    """Try every penalty on every prompt, after every prefix length, beside aligned alone.

    Harmful prompts are attacked by prefill; harmless ones and look-alikes are asked plainly. Beside that the penalties
    are walked along given responses: KL(penalised || aligned) on harmless ones, leverage by position on both kinds.
    Every finished cell (one penalty on all attempts), continuation and walked response is kept in `store`, also when
    the call is interrupted: a killed sweep resumes there and gives the same record.

    Raises PromptError where the prompts hold no harmful one, ParameterError for a pair that thinks, and what the
    attack, decoding and the judge raise.
    """
    how = _judge(prompts, config)
    watch = Stopwatch(
        "sweep", {**settings_of(config), "judge": how.name, "penalties": [p.title for p in config.arms()]}
    )
    store = Store(None) if store is None else store
    attempts, notes = make_attempts(pair, prompts, config, store)
    arms = config.arms()
    cells: list[Cell] = []
    with Progress("sweep", len(arms), "penalties") as progress:
        progress.note(str(_cost(pair, attempts, config, how, store)))
        for penalty in arms:
            cells.append(run_cell(pair, attempts, penalty, how, batch_tokens=config.batch_tokens, store=store))
            progress.advance()
    trials = _trials(attempts, cells)
    harmful, notes_1 = harmful_texts(
        pair, prompts, system_prompt=config.system_prompt, most=config.text_tokens, store=store
    )
    harmless, notes_2 = harmless_texts(
        pair,
        prompts,
        system_prompt=config.system_prompt,
        most=config.text_tokens,
        batch_tokens=config.batch_tokens,
        store=store,
    )
    texts = [*harmful, *harmless]
    moves = measure_moves(pair, texts, arms, batch_tokens=config.batch_tokens // 2 or 1, store=store)
    names = tuple(p.title for p in arms)
    kl_ids, kl_nats, kl_tokens = _kl(texts, moves, len(arms))
    return PenaltySweep(
        run=watch.record(
            resolved={
                "pair": pair.name,
                "template_mode": pair.template_mode,
                "prompts": prompts.name,
                "prompts_source": prompts.source,
                "prompts_notes": prompts.notes,
                "cells": len(cells),
                "attempts": len(attempts),
            },
            seed=config.seed,
            device=str(pair.device),
            fingerprint=pair.fingerprint,
        ),
        prompt_set=prompts.name,
        classroom_safe=prompts.classroom_safe,
        judge=how.name,
        judge_version=how.version,
        names=names,
        penalties=tuple(settings_of(p) for p in arms),
        trials=trials,
        kl_prompt_ids=kl_ids,
        kl_nats=kl_nats,
        kl_tokens=kl_tokens,
        scores=scores_of(names, trials, (kl_ids, kl_nats, kl_tokens), config),
        leverage=leverages(names, texts, moves, config),
        notes=tuple(dict.fromkeys((*notes, *_judged(prompts, config, how), *notes_1, *notes_2))),
    )


def make_attempts(
    pair: ModelPair, prompts: PromptSet, config: SweepConfig, store: Store
) -> tuple[tuple[Attempt, ...], list[str]]:
    """Return what every penalty answers, and what there is to say about it. Raises as `sweep` does before it works."""
    if pair.thinking:
        raise ParameterError(
            "thinking is on, and a penalty would change the thinking block too: load the pair with thinking=False"
        )
    there = {p.label for p in prompts}
    if "harmful" not in there:
        raise PromptError(
            f"{prompts.name!r} has no harmful prompt (it has {', '.join(sorted(there)) or 'none at all'}), and a sweep "
            "measures an attack: name the label column, or another set"
        )
    shared = dict(max_tokens=config.max_tokens, system_prompt=config.system_prompt, seed=config.seed)
    prefill = Prefill(k=config.prefix_tokens, target=target_of(prompts), **shared)  # type: ignore[arg-type]
    sets = [attack(pair, prompts, prefill, store=store)]
    plain = tuple(label for label in ("harmless", "lookalike") if label in there)
    if plain:
        sets.append(attack(pair, prompts, NoAttack(labels=plain, **shared), store=store))  # type: ignore[arg-type]
    notes = [n for s in sets for n in s.notes if "prompts are" not in n]
    notes += [f"There is no {word} prompt: what is said of them is missing." for word in _missing(there)]
    return tuple(a for s in sets for a in s.attempts), notes


def _missing(there: Set[str]) -> list[str]:
    return [label for label in ("harmless", "lookalike") if label not in there]


def _judge(prompts: PromptSet, config: SweepConfig) -> Judge:
    how = config.judge
    if how is None:
        how = "exact" if prompts.name == "embedded" else "refusal"
    return judge_of(how) if isinstance(how, JudgeConfig | str) else how


def _judged(prompts: PromptSet, config: SweepConfig, how: Judge) -> list[str]:
    chosen = " (chosen for this prompt set; the setting judge names another)" if config.judge is None else ""
    said = [f"Judged by {how.name!r}, version {how.version}{chosen}."]
    if how.name == "refusal":
        said.append(
            "The judge 'refusal' counts any direct attempt as compliance, however poor, so its ASR is an upper bound "
            "of what is harmful."
        )
    return said


def _cost(pair: ModelPair, attempts: Sequence[Attempt], config: SweepConfig, how: Judge, store: Store) -> SweepCost:
    arms = config.arms()
    return SweepCost(
        penalties=len(arms),
        attempts=len(attempts),
        answer_tokens=sum(a.max_tokens for a in attempts),
        finished=sum(cell_key(pair, attempts, p, how) in store for p in arms),
    )


def _trials(attempts: Sequence[Attempt], cells: Sequence[Cell]) -> tuple[Trials, ...]:
    groups: dict[tuple[str, int], list[int]] = {}
    for n, a in enumerate(attempts):
        groups.setdefault((a.label, len(a.prefix_ids)), []).append(n)
    whole = np.stack([c.outcomes for c in cells])
    made = []
    for columns in groups.values():
        first = attempts[columns[0]]
        own = {name: np.ascontiguousarray(whole[:, i, columns]) for i, name in enumerate(OUTCOMES)}
        made.append(
            Trials(
                label=first.label,
                prefix_tokens=len(first.prefix_ids),
                prompt_ids=tuple(attempts[n].prompt_id for n in columns),
                unscored=tuple(unscored_counts(c, columns) for c in cells),
                **own,
            )
        )
    return tuple(made)


def _kl(
    texts: Sequence[Passage], moves: Sequence[np.ndarray], arms: int
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return whose harmless responses were walked, the summed KL (penalty, response) and the tokens of each."""
    own = [(t, m) for t, m in zip(texts, moves, strict=True) if t.label == "harmless"]
    summed = np.array([m[0].sum(-1, dtype=np.float64) for _, m in own], np.float32).reshape(-1, arms).T.copy()
    tokens = np.array([m.shape[-1] for _, m in own], np.int32)
    return tuple(t.name for t, _ in own), summed, tokens
