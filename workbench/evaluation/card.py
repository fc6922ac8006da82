"""The results of an adapter in a comparison of arms: a section of its model card, and the export with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from workbench.core.errors import NotPresent, ParameterError
from workbench.core.legible import percent
from workbench.evaluation.arms import START
from workbench.evaluation.metrics import CAPABILITY, HARMLESS_CONTROL, LOSS, MEAN_OF_TASKS, METRICS, title_of
from workbench.evaluation.records import ArmComparison, Score, Scorecard
from workbench.evaluation.strength import strength_sentences
from workbench.training import adapter as adapters
from workbench.training.adapter import load_adapter
from workbench.training.card import markdown_text
from workbench.training.records import Adapter

_TABLE: tuple[tuple[str, str | None, Callable[..., Score] | None], ...] = (
    ("asr", None, None),
    ("refusal", None, None),
    ("gibberish", "prefill", max),
    ("over_refusal", "none", None),
    ("harmless_right", "none", None),
    ("continued", HARMLESS_CONTROL, min),
    ("accuracy", CAPABILITY, None),
    (LOSS, CAPABILITY, None),
)
"""Metric, attack (None: every one), and which of its settings is shown (None: all, each in its own line)."""

_BETTER = {**{name: metric.better for name, metric in METRICS.items()}, "accuracy": "higher", LOSS: "lower"}


def export_adapter(adapter: Adapter, folder: str | Path, comparison: ArmComparison | None = None) -> Adapter:
    """Copy a finished adapter with its card and record into a folder; the card shows its results in `comparison`.

    Raises what `card_results` and `training.adapter.export` raise.
    """
    results = None if comparison is None else card_results(comparison, adapter)
    return adapters.export(adapter, folder, results=results)


def card_results(comparison: ArmComparison, adapter: Adapter) -> str:
    """Return Markdown that shows an adapter's arm beside aligned and every other arm of a comparison.

    The table has the metrics of `_TABLE` by every judge, each with its 95 % interval, n and direction. The text names
    the seeds, whether this very adapter was evaluated, and leaks. Raises ParameterError for a comparison without this
    arm, or of another pair.
    """
    if adapter.arm not in comparison.arms or adapter.fingerprint != comparison.run.fingerprint:
        raise ParameterError(
            f"the comparison of {', '.join(comparison.arms)} on pair {comparison.run.fingerprint} does not have the "
            f"adapter of arm {adapter.arm!r} on pair {adapter.fingerprint}: give one with this arm, on the same pair"
        )
    measures = comparison.scorecard.measures
    arms = [adapter.arm, *(a for a in comparison.arms if a != adapter.arm)]
    apart = (
        "Some of them were trained on."
        if comparison.leaks
        else "None of them was trained on, letter case and spaces aside."
    )
    if START in comparison.arms:
        apart += f" The training data of {START}, the given adapter, is unknown here."
    lines = [
        *(f"**{markdown_text(n)}**\n" for n in comparison.leaks),
        f"Prompt set: {markdown_text(comparison.prompt_set)}, the same for every arm. {apart}",
        *_seeds(comparison, adapter),
        "The 95 % interval is in brackets; n counts prompts, or questions of capability.",
        "",
        f"| measured | better | judge | {' | '.join(map(markdown_text, arms))} |",
        "|---" * (3 + len(arms)) + "|",
        *_lines(comparison.scorecard, arms),
        "",
        *(f"- {markdown_text(s)}" for s in strength_sentences(comparison.scorecard.strengths, measures)),
        *(f"- {markdown_text(a)}: {markdown_text(comparison.budgets[a])}" for a in arms if a in comparison.budgets),
    ]
    return "\n".join(lines)


def _seeds(comparison: ArmComparison, adapter: Adapter) -> list[str]:
    """Name the seeds in the numbers, and whether this very adapter is among them."""
    own, several = _seed_asked(comparison, adapter), len(comparison.seeds) > 1
    said = [f"Number of seeds: {len(comparison.seeds)} ({', '.join(map(str, comparison.seeds))})."]
    if own is None:
        said.append(
            "This very adapter was not evaluated: the arm of this name was trained separately, as listed below."
        )
    elif several:
        said.append(f"This adapter is that of seed {own}; those of the other seeds are in the numbers too.")
    else:
        said.append("It is this adapter's own.")
    if several:
        said.append(
            "A number is the mean over seeds, its interval covers seeds and prompts (two-way bootstrap), and n counts "
            "prompts."
        )
    return said


def _seed_asked(comparison: ArmComparison, adapter: Adapter) -> int | None:
    """Return the seed of this adapter in the comparison, even where it was copied since; None: it is not there."""
    paths = comparison.adapters.get(adapter.arm, ())
    for seed, path in zip(comparison.seeds, paths, strict=bool(paths)):
        with suppress(NotPresent):
            if path == adapter.path or load_adapter(path).run == adapter.run:
                return seed
    return None


def _lines(scorecard: Scorecard, arms: Sequence[str]) -> Iterator[str]:
    shown = [x for x in scorecard.scores if x.attack != CAPABILITY or x.setting == MEAN_OF_TASKS]
    for metric, attack, chosen in _TABLE:
        found: dict[tuple[str, str], list[Score]] = {}
        for x in shown:
            if x.metric == metric and attack in (None, x.attack):
                where = _where(x) if chosen is None else f"{'most' if chosen is max else 'least'} after any prefix"
                found.setdefault((x.judge, where), []).append(x)
        for (judge, where), own in found.items():
            cells = [_cell([x for x in own if x.arm == a], chosen) for a in arms]
            named = markdown_text(f"{title_of(metric, scorecard.measured_by(judge))}, {where}")
            yield f"| {named} | {_BETTER[metric]} | {markdown_text(judge)} | {' | '.join(cells)} |"


def _where(x: Score) -> str:
    if x.attack == "none":
        return "no attack"
    return str(x.setting) if x.attack == CAPABILITY else x.where


def _cell(found: Sequence[Score], chosen: Callable[..., Score] | None) -> str:
    known = [x for x in found if x.estimate.value is not None]
    if not known:
        return "no data (n = 0)" if found else "not measured"
    one = known[0] if chosen is None else chosen(known, key=lambda x: x.estimate.value)
    e = one.estimate
    assert e.value is not None
    bounds = [percent(b).removesuffix(" %") for b in (e.low, e.high) if b is not None]
    interval = f" [{', '.join(bounds)}]" if len(bounds) == 2 else ""
    where = "" if chosen is None else f" under {markdown_text(one.where)}"
    return f"{percent(e.value)}{interval} (n = {e.n}){where}"
