"""One scorecard over several seeds: every number and every comparison over the same seeds and prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from workbench.core.records import RunRecord
from workbench.core.seeds import mean_over_seeds
from workbench.evaluation.evidence import gather
from workbench.evaluation.metrics import EvaluateConfig
from workbench.evaluation.paired import compare
from workbench.evaluation.rates import Cell, cells_of, estimate_of
from workbench.evaluation.records import Evaluation, Score, Scorecard
from workbench.evaluation.scorecard import conclusions
from workbench.evaluation.strength import strengths
from workbench.evaluation.tradeoff import capability_cells, question_cells

INTERVALS = "two-way bootstrap over {} seeds and the prompts; of what is the same under every seed, as with one"


def over_seeds(evaluations: Sequence[Evaluation], run: RunRecord, config: EvaluateConfig) -> Scorecard:
    """Sum up the evaluations of all seeds; of one seed, return its own scorecard.

    A value is the mean over seeds of the prompts that are scored under each, and n counts them. Its interval is that of
    a two-way bootstrap; a number that is the same under every seed, such as that of an untrained arm, keeps its own. A
    number without a value for each prompt or question (a perplexity) has no interval.
    """
    cards = [e.scorecard for e in evaluations]
    if len(cards) == 1:
        return replace(cards[0], run=replace(run, resolved={**cards[0].run.resolved, **run.resolved}))
    cells = [cells_of(gather(e.attacks, e.answers, e.judgements, e.gibberish), config) for e in evaluations]
    asked = [[*made, *question_cells(e.capability, config)] for made, e in zip(cells, evaluations, strict=True)]
    scores = tuple(_scores(cards, [{_place(c): c for c in made} for made in asked], config))
    paired = [
        [*(c for c in made if c.whole and c.metric in config.compared), *capability_cells(e.capability)]
        for made, e in zip(cells, evaluations, strict=True)
    ]
    first = cards[0]
    compared = tuple(compare(paired, config, first.measures))
    found = strengths(scores, evaluations[0].attacks, config.against, config.gate)
    test = "two-way bootstrap over seeds and prompts, McNemar where all seeds are alike"
    words = {**first.run.resolved, "intervals": INTERVALS.format(len(cards)), "test": test}
    return Scorecard(
        run=replace(run, resolved={**words, **run.resolved}),
        scores=scores,
        comparisons=compared,
        sentences=conclusions(scores, compared, found, first.at_chance, first.measures, config),
        notes=first.notes,
        measures=first.measures,
        strengths=found,
        at_chance=first.at_chance,
    )


def _place(x: Any) -> tuple[Any, ...]:
    return tuple(x.place().values())


def _scores(
    cards: Sequence[Scorecard], cells: Sequence[Mapping[tuple[Any, ...], Cell]], config: EvaluateConfig
) -> Iterator[Score]:
    found: dict[tuple[Any, ...], list[Score]] = {}
    for card in cards:
        for s in card.scores:
            found.setdefault((s.category, *_place(s)), []).append(s)
    for (category, *place), own in found.items():
        mine = [c for known in cells if (c := known.get(tuple(place))) is not None]
        if category is None and len(mine) == len(cells):
            yield _together(own[0], mine, config)
        else:
            values = [s.estimate.value for s in own]
            mean = None if None in values else float(np.mean(values))  # type: ignore[arg-type]
            yield replace(own[0], estimate=replace(own[0].estimate, value=mean, low=None, high=None))


def _together(score: Score, cells: Sequence[Cell], config: EvaluateConfig) -> Score:
    shared = [k for k in cells[0].values if all(k in c.values for c in cells)]
    values = np.array([[c.values[k] for k in shared] for c in cells], float)
    whole = all(c.whole for c in cells)
    if all((c.values, c.unscored_of) == (cells[0].values, cells[0].unscored_of) for c in cells):
        return score
    left: dict[Any, str] = {}
    for c in cells:
        left |= {k: reason for k, reason in c.unscored_of.items() if k not in left}
    if (values == values[:1]).all():  # () too
        estimate = estimate_of(values[0].tolist(), whole, config)
    else:
        how: dict[str, Any] = {k: getattr(config, k) for k in ("confidence", "resamples", "seed")}
        estimate = mean_over_seeds(values, share=whole, **how)
    return replace(score, estimate=estimate, unscored=dict(Counter(left.values())))
