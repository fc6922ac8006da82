"""What a sweep of penalties says in words and tables: every number, the recommendation, and the held-out check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.core import legible
from workbench.core.legible import html_text
from workbench.core.records import Estimate
from workbench.display.figures.frontier import standing
from workbench.display.views.view import NO_VALUE, Column, View, disclosure, number, plain_table, section, table
from workbench.evaluation.records import SWEEP_METRICS, FrontierPoint, PenaltyCheck, PenaltyChoice, PenaltySweep

HEADINGS: Mapping[str, str] = {
    "refusal": "refused",
    "partial": "partly",
    "gibberish": "gibberish",
    "over_refusal": "over-refusal",
    "harmless_right": "harmless right",
    "harmless_refusal": "harmless refused",
    "kl_penalised_aligned_nats": "KL, nats per token",
}
"""Metric -> its heading in the table of a sweep."""


def sweep_table(sweep: PenaltySweep, choice: PenaltyChoice | None = None) -> View:
    """Show every number of every penalty with its interval, and where each stands if there is a choice."""
    columns = [Column(heading="penalty", key="called")]
    measured: list[tuple[str, str, int | None]] = [(f"ASR, {k} given", "asr", k) for k in sweep.prefix_lengths()]
    last = max(sweep.prefix_lengths(), default=0)
    known = {s.metric for s in sweep.scores}
    for metric, heading in HEADINGS.items():
        if metric in known and not (metric == "harmless_refusal" and "harmless_right" in known):
            harmful = metric in ("refusal", "partial", "gibberish")
            measured.append((f"{heading}, {last} given" if harmful else heading, metric, last if harmful else None))
    columns += [Column(heading="where it stands", key="stands")] if choice is not None else []
    columns += [Column(heading=h, key=h, number=True) for h, _, _ in measured]
    points = {} if choice is None else {p.penalty: p for p in choice.points}
    rows = []
    for name in sweep.names:
        row: dict[str, Any] = {"penalty": name, "called": name.replace(" ", "\u00a0"), "stands": None, "standing": None}
        if choice is not None:
            row |= {"stands": _short(points[name], choice), "standing": standing(points[name], choice)}
        for heading, metric, given in measured:
            score = sweep.score(name, metric, given)
            row[heading] = NO_VALUE if score is None else _with_interval(score.estimate)
        rows.append(row)
    counts = {t.label: len(t.prompt_ids) for t in sweep.trials}
    said = ", ".join(f"{n} {label}" for label, n in counts.items())
    caption = (
        f"Every penalty on the same prompts (n = {said}), value and 95 % interval (Wilson for shares, bootstrap over "
        f"prompts for KL); judge: {sweep.judge}. Lower is better everywhere but for refused and harmless right."
    )
    unscored = sum(sum(s.unscored.values()) for s in sweep.scores)
    notes = [*sweep.notes] + (
        [f"{unscored} verdicts are missing over the whole table: they count in no n."] * bool(unscored)
    )
    items = "".join(f"<li>{html_text(legible.sentence(n))}</li>" for n in notes)
    means = "".join(f"<li><b>{html_text(name)}</b>: {html_text(said)}</li>" for name, said in SWEEP_METRICS.items())
    title = "Every penalty"
    body = section(
        "table",
        title,
        table(caption, columns, rows),
        f"<ul>{items}</ul>" if items else "",
        disclosure("What the numbers are", f"<ul>{means}</ul>"),
    )
    return View(title=title, body=body, text="\n".join([caption, plain_table(columns, rows), *notes]), rows=tuple(rows))


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
    return _said("Recommendation", word, choice.sentences, f"Rule: {choice.rule}.")


def penalty_check(check: PenaltyCheck) -> View:
    """Say whether a penalty holds on prompts that it was not chosen on."""
    kept = "every promise is kept" if check.sure else "every promise is kept by its value, not by its whole interval"
    word = f"{check.penalty}: {kept if check.holds else 'not every promise is kept'}"
    return _said("Held-out check", word, check.sentences, None)


def _said(title: str, word: str, sentences: tuple[str, ...], note: str | None) -> View:
    items = "".join(f"<li>{html_text(legible.sentence(s, 2_000))}</li>" for s in sentences)
    body = section(
        "summary",
        title,
        f'<div class="wb-verdict"><p class="wb-word">{html_text(word)}</p><ul>{items}</ul></div>',
        f'<p class="wb-note wb-soft">{html_text(note)}</p>' if note else "",
    )
    text = "\n".join([word, *(f"- {s}" for s in sentences), *([note] if note else [])])
    return View(title=title, body=body, text=text, rows=({"said": word, "sentences": sentences},))
