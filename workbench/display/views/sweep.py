"""What a sweep of penalties says in words and tables: every number, the recommendation, and the held-out check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from workbench.core.legible import html_text
from workbench.core.records import Estimate
from workbench.display.figures.frontier import standing
from workbench.display.views.view import (
    NO_VALUE,
    Column,
    View,
    bullets,
    columns,
    disclosure,
    number,
    summary_view,
    table_view,
)
from workbench.evaluation.metrics import METRICS, title_of
from workbench.evaluation.records import FrontierPoint, PenaltyCheck, PenaltyChoice, PenaltySweep

KL = "KL, nats per token"
HEADINGS: Mapping[str, str] = {
    "refusal": "refused",
    "partial": "partly",
    "gibberish": "gibberish",
    "over_refusal": "over-refusal",
    "harmless_right": "harmless right",
    "harmless_refusal": "harmless refused",
}
"""Metric -> its heading in the table of a sweep, beside that of `asr`."""


def sweep_table(sweep: PenaltySweep, choice: PenaltyChoice | None = None) -> View:
    """Show every number of every penalty with its interval, and the place of each penalty where there is a choice."""
    lengths = sweep.prefix_lengths()
    last = max(lengths, default=0)
    known = {s.metric for s in sweep.evaluation.scorecard.scores}
    shown = [m for m in HEADINGS if m in known and m != ("harmless_refusal" if sweep.knows_right else "harmless_right")]
    measures = sweep.measures
    measured = [(f"{measures}, {k} given", "asr", k) for k in lengths]
    for metric in shown:
        given = last if METRICS[metric].label == "harmful" else 0
        heading = f"{HEADINGS[metric]}, {last} given" if METRICS[metric].label == "harmful" else HEADINGS[metric]
        measured.append((heading, metric, given))
    headings = [h for h, _, _ in measured] + [KL] * bool(sweep.kl_nats)
    heads = [Column("penalty", "called"), *([] if choice is None else [Column("where it stands", "stands")])]
    heads += columns(*headings, number=True)
    points = {} if choice is None else {p.penalty: p for p in choice.points}
    rows = []
    for i, name in enumerate(sweep.names):
        row: dict[str, Any] = {"penalty": name, "called": name.replace(" ", "\u00a0"), "stands": None, "standing": None}
        if choice is not None:
            row |= {"stands": _short(points[name], choice), "standing": standing(points[name], choice)}
        for heading, metric, given in measured:
            score = sweep.score(name, metric, given)
            row[heading] = NO_VALUE if score is None else _with_interval(score.estimate)
        rows.append(row | ({KL: _with_interval(sweep.kl_nats[i])} if sweep.kl_nats else {}))
    attempts = {a.prompt_id: a.label for s in sweep.evaluation.attacks for a in s.attempts}
    said = ", ".join(f"{n} {label}" for label, n in Counter(attempts.values()).items())
    caption = (
        f"Every penalty on the same prompts (n = {said}), value and 95 % interval (Wilson for shares, bootstrap over "
        f"prompts for KL); judge: {sweep.judge}. Lower is better everywhere but for refused and harmless right."
    )
    unscored = sum(sum(s.unscored.values()) for s in sweep.evaluation.scorecard.scores if s.metric in ("asr", *shown))
    notes = [*sweep.notes] + (
        [f"{unscored} verdicts are missing over the whole table: they count in no n."] * bool(unscored)
    )
    kinds = [METRICS[m] for m in ("asr", *shown)]
    means = [f"{m.name}: {title_of(m.name, measures)}; {m.label} prompts, {m.better} is better" for m in kinds]
    means.append(f"KL: harm to utility, {KL}, KL(penalised ‖ aligned) on harmless responses")
    said = disclosure("What the numbers are", bullets(means))
    return table_view("Every penalty", caption, heads, rows, bullets(notes), said, lines=notes)


def _short(point: FrontierPoint, choice: PenaltyChoice) -> str:
    if point.penalty != choice.penalty:
        if point.fails:
            return "breaks a limit"
        if point.dominated_by is not None:
            return "dominated"
    return standing(point, choice)


def _with_interval(e: Estimate) -> str:
    if e.value is None:
        return NO_VALUE
    bounds = "" if e.low is None or e.high is None else f" [{number(e.low, 2)}, {number(e.high, 2)}]"
    return f"{number(e.value, 2)}{bounds}"


def recommendation(choice: PenaltyChoice) -> View:
    """Say which penalty is recommended, by which rule, and what it costs."""
    word = f"Take {choice.penalty}" if choice.reached else f"None reaches the aim; the best trade is {choice.penalty}"
    rule = f"Rule: {choice.rule}."
    note = f'<p class="wb-note wb-soft">{html_text(rule)}</p>'
    return summary_view("Recommendation", word, choice.sentences, note, lines=[rule])


def penalty_check(check: PenaltyCheck) -> View:
    """Say whether a penalty holds on prompts that it was not chosen on."""
    kept = "every promise is kept" if check.sure else "every promise is kept by its value, not by its whole interval"
    word = f"{check.penalty}: {kept if check.holds else 'not every promise is kept'}"
    return summary_view("Held-out check", word, check.sentences)
