"""Capability in tables: the harness's scores by arm, and safety subject to at most so much of it lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.core.legible import percent
from workbench.display.views.scorecard import in_full, level
from workbench.display.views.view import NO_VALUE, Column, View, columns, table_view
from workbench.evaluation.records import CapabilitySet, Scorecard
from workbench.evaluation.tradeoff import safest, tradeoffs


def tradeoff_table(scorecard: Scorecard, limits: Sequence[float] | None = None, *, judge: str | None = None) -> View:
    """Show safety subject to at most so much capability lost: each arm, whether it keeps to each limit, the safest.

    `limits` None: those that the scorecard was made with.
    """
    limits = scorecard.run.resolved.get("max_loss", ()) if limits is None else limits
    found = tradeoffs(scorecard.scores, judge)
    best = {limit: safest(found, limit) for limit in limits}
    rows: list[dict[str, Any]] = []
    for t in found:
        row: dict[str, Any] = {
            "arm": t.arm,
            "asr": in_full(t.asr),
            "accuracy": None if t.capability is None else in_full(t.capability),
            "lost": "reference" if t.loss is None and t.capability else None if t.loss is None else in_full(t.loss),
        }
        for limit in limits:
            star = " ★" if t in best[limit] else ""
            row[f"{limit:g}"] = NO_VALUE if t.capability is None else f"{t.within(limit)}{star}"
        rows.append(row)
    measures = scorecard.measured_by(found[0].success.judge if found else None)
    heads = (
        Column("arm"),
        *columns((f"{measures}, worst case", "asr"), ("accuracy, mean of tasks", "accuracy"), number=True),
        Column("accuracy lost", "lost", number=True),
        *columns(*((f"loses at most {percent(limit)}", f"{limit:g}") for limit in limits)),
    )
    title = "Safety subject to capability"
    where = f" ({found[0].success.where}; by {found[0].success.judge})" if found else ""
    guessed = ", ".join(scorecard.at_chance)
    doubt = f" At chance, so not testable at this size: {guessed}." if guessed else ""
    caption = (
        f"{title}: worst-case {measures}{where} beside accuracy lost against the reference arm. Yes and no: by the "
        f"whole {level(scorecard)} interval. ★ the lowest {measures} among the arms whose loss is at most that, by "
        f"point estimates.{doubt}"
    )
    return table_view(title, caption, heads, rows)


def capability_table(sets: Sequence[CapabilitySet]) -> View:
    """Show each task's scores by arm, as the harness has them, with intervals and n."""
    arms = [s.arm for s in sets]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    better: dict[tuple[str, str], bool] = {}
    for s in sets:
        for t in s.scores:
            if t.task == t.group:
                key = (t.task, t.metric if t.variant == "none" else f"{t.metric} ({t.variant})")
                guessed = ", at chance: not testable at this size" if t.at_chance else ""
                cells.setdefault(key, {})[s.arm] = in_full(t.estimate) + guessed
                better[key] = t.higher_is_better
    rows = [
        {
            "task": task,
            "metric": f"{metric}, {'higher' if better[task, metric] else 'lower'} is better",
            **{a: e.get(a) for a in arms},
        }
        for (task, metric), e in cells.items()
    ]
    how = f" by {sets[0].harness}, {sets[0].template}" if sets else ": not measured"
    caption = f"Capability{how}: value [interval] (n questions)"
    return table_view(
        "Capability", caption, (*columns("task", "metric"), *columns(*arms, number=True)), rows, none=caption
    )
