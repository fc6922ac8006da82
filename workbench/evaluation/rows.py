"""A Scorecard as tidy rows of results.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.core.records import Row
from workbench.evaluation.records import Score, Scorecard


def evaluation_rows(scorecard: Scorecard) -> tuple[Row, ...]:
    """Return every number as one row: scores, then comparisons.

    `metric_unscored` counts the prompts that a score leaves out (n: scored and unscored together). A comparison of two
    arms is `metric_difference`, its corrected p `metric_p_holm`, and the n that would be needed `metric_n_needed`.
    """
    seed = scorecard.run.seed
    rows: list[Row] = []
    for s in scorecard.scores:
        place = {**s.place(without=("metric",)), "category": s.category, "seed": seed}
        rows.append(Row.of(s.metric, s.estimate, **place))
        if left := sum(s.unscored.values()):
            n = left + s.estimate.n
            rows.append(Row(name=f"{s.metric}_unscored", value=float(left), n=n, unit="prompts", **place))
    for c in scorecard.comparisons:
        place, n = {**c.place(without=("metric",)), "against": c.against, "seed": seed}, c.difference.n
        rows.append(Row.of(f"{c.metric}_difference", c.difference, **place))
        rows.append(Row(name=f"{c.metric}_p_holm", value=c.p_holm, n=n, unit="1", **place))
        if c.n_needed is not None:
            rows.append(Row(name=f"{c.metric}_n_needed", value=float(c.n_needed), n=n, unit="prompts", **place))
    return tuple(rows)


def by_place(scores: Sequence[Score]) -> list[list[Score]]:
    """Group scores for a table, a line each: attacks in order of appearance, each one's worst case last."""
    groups: dict[tuple[Any, ...], list[Score]] = {}
    for s in scores:
        groups.setdefault((s.attack, s.given, s.setting, s.worst_of), []).append(s)
    attacks = list(dict.fromkeys(s.attack for s in scores))
    return sorted(groups.values(), key=lambda group: (attacks.index(group[0].attack), group[0].over_settings))
