"""A Scorecard as tidy rows of results.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.core.records import Row
from workbench.evaluation.records import Score, Scorecard


def evaluation_rows(scorecard: Scorecard) -> tuple[Row, ...]:
    """Return every number as one row: scores, then comparisons.

    A category's score is named `metric[category]`. What is unscored is a row of its own, `metric_unscored`, that counts
    prompts (n: scored and unscored together). A comparison is `metric_minus[other arm]`, its corrected p
    `metric_p_holm[other arm]`, the n that would be needed `metric_n_needed[other arm]`.
    """
    seed = scorecard.run.seed
    rows: list[Row] = []
    for s in scorecard.scores:
        name = s.metric if s.category is None else f"{s.metric}[{s.category}]"
        place: dict[str, Any] = dict(arm=s.arm, attack=s.attack, condition=s.condition, judge=s.judge, seed=seed)
        rows.append(Row.of(name, s.estimate, **place))
        if left := sum(s.unscored.values()):
            n = left + s.estimate.n
            rows.append(Row(name=f"{name}_unscored", value=float(left), n=n, unit="prompts", **place))
    for c in scorecard.comparisons:
        place = dict(arm=c.arm, attack=c.attack, condition=c.condition, judge=c.judge, seed=seed)
        n = c.difference.n
        rows.append(Row.of(f"{c.metric}_minus[{c.against}]", c.difference, **place))
        rows.append(Row(name=f"{c.metric}_p_holm[{c.against}]", value=c.p_holm, n=n, unit="1", **place))
        if c.n_needed is not None:
            name = f"{c.metric}_n_needed[{c.against}]"
            rows.append(Row(name=name, value=float(c.n_needed), n=n, unit="prompts", **place))
    return tuple(rows)


def places_in_order(scores: Sequence[Score]) -> list[tuple[str, str]]:
    """Return attacks and conditions for a table: attacks in order of appearance, each one's worst case last."""
    places = list(dict.fromkeys((s.attack, s.condition) for s in scores))
    attacks = list(dict.fromkeys(attack for attack, _ in places))
    return sorted(places, key=lambda p: (attacks.index(p[0]), p[1].startswith("worst of")))
