"""A training in words and tables: what was found before it, how it ended, and every arm of a comparison."""

from __future__ import annotations

from typing import Any

from workbench.core.legible import html_text, sentence
from workbench.core.records import Given
from workbench.display.views.scorecard import in_full, intervals
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
from workbench.evaluation.records import ArmComparison, select
from workbench.training.records import Adapter

_PLAIN = (
    ("over_refusal", "none", "over-refusal"),
    ("harmless_right", "none", "harmless answered"),
)


def training_summary(adapter: Adapter) -> View:
    """Say how a training went: pre-flight, steps, parts of the loss at its ends, why it stopped, where it is."""
    first, last = (adapter.history[0], adapter.history[-1]) if adapter.history else (None, None)
    said = list(adapter.preflight.sentences) if adapter.preflight else []
    if first is not None and last is not None:
        said.append(
            f"{len(adapter.history)} steps in {adapter.run.seconds:,.0f} s on {adapter.run.device}. Parts of the loss, "
            "first step to last: "
            + ", ".join(f"{k} {number(first.parts.get(k))} to {number(v)}" for k, v in last.parts.items())
            + "."
        )
    if adapter.stopped is not None:
        said.append(f"Training {adapter.stopped}.")
    if adapter.film is not None and len(adapter.film.steps):
        before, after = (float(x) for x in adapter.film.mean("retention", "harmful")[[0, -1]])
        kept = float(adapter.film.mean("kl_aligned_student_nats", "harmless")[-1])
        harmful, harmless = (sum(t.label == label for t in adapter.film.texts) for label in ("harmful", "harmless"))
        said.append(
            f"On the {harmful} fixed harmful texts mean retention was {number(before)} before and is {number(after)} "
            f"after (1: still the base model; lower is better). On the {harmless} harmless ones KL(aligned ‖ student) "
            f"is {number(kept)} nats a token (0: still aligned). These are the texts that are watched, not a sample."
        )
    said.append(f"The adapter is in {adapter.path}.")
    notes = disclosure(f"{len(adapter.notes)} notes on the data", bullets(adapter.notes)) if adapter.notes else ""
    title = f"Training of {adapter.arm}"
    return summary_view(title, title, said, notes, lines=adapter.notes)


def arms_comparison(comparison: ArmComparison, *, judge: str | None = None) -> View:
    """Show every arm in one row: `asr` and refusals at every prefix length, and what that costs.

    By one judge (None: the first); gibberish is measured apart, at the prefix length where it is highest, harmless
    prefixes continued at the length where they are fewest.
    """
    scores = comparison.scorecard.scores
    judges = list(dict.fromkeys(x.judge for x in scores if x.metric == "asr"))
    chosen = judge or (judges[0] if judges else None)
    found = [x for x in scores if x.judge in (chosen, "gibberish")]
    lengths = list(dict.fromkeys(x.given for x in found if x.attack == "prefill" and x.given is not None))
    wanted: list[tuple[str, str, Given, str]] = []
    measures = comparison.scorecard.measured_by(chosen)
    for metric in ("asr", "refusal"):
        word = measures if metric == "asr" else "refused"
        wanted += [(metric, "prefill", k, f"{word}, {k} given") for k in lengths]
    wanted += [(m, a, 0, heading) for m, a, heading in _PLAIN]
    extremes = (
        ("gibberish", "prefill", "gibberish, most", max),
        ("continued", "harmless_prefill", "harmless prefix continued, least", min),
    )
    heads = (Column("arm"), *columns(*(h for *_, h in wanted), *(h for _, _, h, _ in extremes), number=True))
    rows: list[dict[str, Any]] = []
    for arm in comparison.arms:
        own = [x for x in found if x.arm == arm]
        row: dict[str, Any] = {"arm": arm}
        for metric, attack, given, heading in wanted:
            one = select(own, metric, attack=attack, given=given)
            row[heading] = in_full(one[0].estimate) if one else NO_VALUE
        for metric, attack, heading, best in extremes:
            some = [x for x in select(own, metric, attack=attack) if x.estimate.value is not None]
            row[heading] = in_full(best(some, key=lambda x: x.estimate.value or 0.0).estimate) if some else NO_VALUE
        rows.append(row)
    asked = {x.estimate.n for x in found if (x.metric, x.attack) == ("asr", "prefill")}
    seeds = len(comparison.seeds)
    caption = (
        f"Every arm on the same prompts of {comparison.prompt_set} (n = {max(asked, default=0)} harmful ones), judged "
        f"by {chosen}; mean over {seeds} seed{'' if seeds == 1 else 's'}, in brackets the 95 % interval "
        f"({intervals(comparison.scorecard)}). Lower is better for {measures}, over-refusal and gibberish, higher for "
        "the rest."
    )
    notes = [*comparison.scorecard.sentences, *comparison.leaks, *comparison.notes]
    means = [f"{title_of(m.name, measures)}: {m.better} is better" for m in METRICS.values() if m.paired]
    budgets = [f"{arm}: {said}" for arm, said in comparison.budgets.items()]
    heading = f"{len(notes)} sentences: paired tests over all seeds, and what was dropped or cut"
    return table_view(
        "Training arms compared",
        caption,
        heads,
        rows,
        disclosure("What each arm was trained with", bullets(budgets)),
        disclosure(heading, bullets(notes)) if notes else "",
        disclosure("What the numbers are", bullets(means)),
        before="".join(f"<p><b>{html_text(sentence(n, 600))}</b></p>" for n in comparison.leaks),
        lines=[*budgets, *notes],
    )
