"""The verb: penalties x prefix lengths x prompts in, a PenaltySweep out: an evaluation with one arm a penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from workbench.core.configs import takes_fields
from workbench.core.errors import ParameterError, PromptError
from workbench.core.passages import Passage
from workbench.core.provenance import Stopwatch, settings_of
from workbench.core.records import Estimate, Row
from workbench.core.statistics import PromptSample, estimate
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.model import PenalisedModel
from workbench.evaluation.attacks import NoAttack, Prefill, attack
from workbench.evaluation.config import EvaluateConfig
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.leverage import Moves, leverage_rows, leverages, measure_moves
from workbench.evaluation.penalties import SweepConfig, pair_under
from workbench.evaluation.records import AttackSet, PenaltySweep
from workbench.evaluation.rows import evaluation_rows
from workbench.evaluation.texts import harmful_texts, harmless_texts, target_of
from workbench.judging.contract import Judge
from workbench.judging.makers import the_judge
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet

COMPARED = ("asr", "refusal", "gibberish", "over_refusal", "harmless_right")
"""Metrics in which every penalty is compared with aligned, prompt by prompt."""


@takes_fields(SweepConfig)
def sweep(pair: ModelPair, prompts: PromptSet, config: SweepConfig, *, store: Store | None = None) -> PenaltySweep:
    """Let aligned under every penalty answer every prompt after every prefix length, beside aligned alone.

    Harmful prompts are attacked by prefill; harmless ones and look-alikes are asked plainly. Beside that the penalties
    are walked along given responses: KL(penalised || aligned) on harmless ones, leverage by position on both kinds.
    Every answer, judgement and walked response is kept in `store` as soon as it is made: a killed sweep resumes there
    and gives the same record.

    Raises PromptError where the prompts hold no harmful one, ParameterError for a pair that thinks, and what the
    attack, decoding and the judge raise.
    """
    store, how = Store.of(store), the_judge(config.judge, prompts.name)
    arms = config.arms()
    watch = Stopwatch("sweep", {**settings_of(config), "judge": how.name, "penalties": [p.title for p in arms]})
    attempts = attempts_for(pair, prompts, config, store)
    pairs = pairs_under(pair, arms, config.expert)
    scoring = EvaluateConfig(
        against=arms[0].title, compared=COMPARED, categories=False, confidence=config.confidence, seed=config.seed
    )
    models = [PenalisedModel(on, p) for on, p in zip(pairs, arms, strict=True)]
    evaluation = evaluate(
        models, attempts, [how], config=scoring, store=store, batch_tokens=config.batch_tokens, what="sweep"
    )
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
    texts = (*harmful, *harmless)
    moves = _walk(pair, pairs, arms, texts, config, store)
    names, notes = tuple(p.title for p in arms), _notes(prompts, config, how, attempts)
    return PenaltySweep(
        run=watch.record(
            resolved={
                "pair": pair.name,
                "template_mode": pair.template_mode,
                "prompts": prompts.name,
                "prompts_source": prompts.source,
                "prompts_notes": prompts.notes,
                "attempts": sum(len(s.attempts) for s in attempts),
            },
            seed=config.seed,
            device=str(pair.device),
            fingerprint=pair.fingerprint,
        ),
        prompt_set=prompts.name,
        classroom_safe=prompts.classroom_safe,
        judge=how.name,
        names=names,
        penalties=tuple(settings_of(p) for p in arms),
        evaluation=evaluation,
        kl_nats=_kl(texts, moves, config),
        leverage=leverages(names, texts, moves, config),
        notes=tuple(dict.fromkeys((*notes, *notes_1, *notes_2))),
    )


def attempts_for(pair: ModelPair, prompts: PromptSet, config: SweepConfig, store: Store) -> tuple[AttackSet, ...]:
    """Return what every penalty answers. Raises PromptError and ParameterError as `sweep` does."""
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
    how = Prefill(
        k=config.prefix_tokens,
        target=target_of(prompts),
        max_tokens=config.max_tokens,
        system_prompt=config.system_prompt,
        seed=config.seed,
    )
    sets = [attack(pair, prompts, how, store=store)]
    if plain := tuple(label for label in ("harmless", "lookalike") if label in there):
        asked = NoAttack(
            labels=plain, max_tokens=config.max_tokens, system_prompt=config.system_prompt, seed=config.seed
        )
        sets.append(attack(pair, prompts, asked, store=store))
    return tuple(sets)


def pairs_under(pair: ModelPair, arms: Sequence[PenaltyConfig], expert: str | None) -> list[ModelPair]:
    """Return the pair that each penalty works on, an expert loaded once: see `pair_under`."""
    safe = next((p for p in arms if p.method == "safe_decoding"), None)
    own = pair if safe is None else pair_under(pair, safe, expert)
    return [own if p.method == "safe_decoding" else pair for p in arms]


def _notes(prompts: PromptSet, config: SweepConfig, how: Judge, attempts: Sequence[AttackSet]) -> list[str]:
    there = {p.label for p in prompts}
    notes = [note for s in attempts for note in s.notes]
    missing = [label for label in ("harmless", "lookalike") if label not in there]
    notes += [f"There is no {label} prompt, so nothing is measured on such prompts." for label in missing]
    chosen = " (chosen for this prompt set; the setting judge names another)" if config.judge is None else ""
    notes.append(f"Judged by {how.name!r}, version {how.version}{chosen}.")
    if how.name == "refusal":
        notes.append(
            "The judge 'refusal' counts any direct attempt as compliance, however poor, so its ASR is an upper bound "
            "of what is harmful."
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
    """Measure every penalty along every response; one that has an expert, on the pair of aligned and that expert."""
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


def sweep_rows(sweep: PenaltySweep, *, where: str | None = None) -> tuple[Row, ...]:
    """Return every score, comparison, KL and leverage by position as rows; `arm` is the penalty.

    `where` ("held out") goes into `setting`, so that two sweeps of one run keep apart.
    """
    kl = [
        Row.of("kl_penalised_aligned_nats", e, arm=name, label="harmless")
        for name, e in zip(sweep.names, sweep.kl_nats, strict=False)
    ]
    rows = (*evaluation_rows(sweep.evaluation.scorecard), *kl, *leverage_rows(sweep.leverage))
    return tuple(replace(r, setting=where or r.setting, seed=sweep.run.seed) for r in rows)
