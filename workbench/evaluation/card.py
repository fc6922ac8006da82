"""What a comparison of arms says of one adapter: the section Results of its model card, for `train.export`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from workbench.core.errors import NotPresent, ParameterError
from workbench.evaluation.arms import START
from workbench.evaluation.metrics import CAPABILITY, HARMLESS_CONTROL, LOSS, MEAN_OF_TASKS, METRICS, title_of
from workbench.evaluation.rates import percent
from workbench.evaluation.records import ArmComparison, Score
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
"""Metric, attack (None: every one), and which of its settings is shown (None: each in a line of its own)."""

_BETTER = {**{name: metric.better for name, metric in METRICS.items()}, "accuracy": "higher", LOSS: "lower"}


def card_results(comparison: ArmComparison, adapter: Adapter) -> str:
    """Return Markdown that shows an adapter's arm beside aligned and every other arm of a comparison.

    Attack success and refusals under every attack and prefix length, gibberish where it is most, over-refusal, harmless
    prompts answered, harmless prefixes continued where they are fewest, and capability where it was asked: by every
    judge, each with its 95 % interval, n and direction. It says which seeds are in the numbers, whether this adapter is
    one of those that were asked, and what leaked. Raises ParameterError for a comparison without this arm, or of
    another pair.
    """
    if adapter.arm not in comparison.arms or adapter.fingerprint != comparison.run.fingerprint:
        raise ParameterError(
            f"the comparison of {', '.join(comparison.arms)} on pair {comparison.run.fingerprint} says nothing of an "
            f"adapter of arm {adapter.arm!r} on pair {adapter.fingerprint}: give one with this arm, on the same pair"
        )
    arms = [adapter.arm, *(a for a in comparison.arms if a != adapter.arm)]
    apart = (
        "Some of them were trained on."
        if comparison.leaks
        else "None of them was trained on, letter case and spaces aside."
    )
    if START in comparison.arms:
        apart += f" What {START}, the adapter that was given, had been trained on is not known here."
    lines = [
        *(f"**{markdown_text(n)}**\n" for n in comparison.leaks),
        f"Prompt set: {markdown_text(comparison.prompt_set)}, asked of every arm alike. {apart}",
        *_seeds(comparison, adapter),
        "In brackets stands the 95 % interval; n counts prompts, for capability questions.",
        "",
        f"| measured | better | judge | {' | '.join(map(markdown_text, arms))} |",
        "|---" * (3 + len(arms)) + "|",
        *_lines(comparison.scorecard.scores, arms),
        "",
        *(f"- {markdown_text(a)}: {markdown_text(comparison.budgets[a])}" for a in arms if a in comparison.budgets),
    ]
    return "\n".join(lines)


def _seeds(comparison: ArmComparison, adapter: Adapter) -> list[str]:
    """Say which seeds are in the numbers, and whether this very adapter is."""
    own, several = _seed_asked(comparison, adapter), len(comparison.seeds) > 1
    said = [f"Number of seeds: {len(comparison.seeds)} ({', '.join(map(str, comparison.seeds))})."]
    if own is None:
        said.append(
            "This very adapter was not asked: what stands under its arm's name was trained apart, as said below."
        )
    elif several:
        said.append(f"This adapter is that of seed {own}; those of the other seeds are in the numbers too.")
    else:
        said.append("It is this adapter's own.")
    if several:
        said.append(
            "A number is the mean over seeds, its interval reaches from the lowest to the highest bound of any seed's "
            "own, and n is that of one seed."
        )
    return said


def _seed_asked(comparison: ArmComparison, adapter: Adapter) -> int | None:
    """Return the seed at which this adapter is in the comparison, wherever it was copied since; None: it is not."""
    paths = comparison.adapters.get(adapter.arm, ())
    for seed, path in zip(comparison.seeds, paths, strict=bool(paths)):
        with suppress(NotPresent):
            if path == adapter.path or load_adapter(path).run == adapter.run:
                return seed
    return None


def _lines(numbers: Sequence[Score], arms: Sequence[str]) -> Iterator[str]:
    shown = [x for x in numbers if x.attack != CAPABILITY or x.setting == MEAN_OF_TASKS]
    for metric, attack, chosen in _TABLE:
        found: dict[tuple[str, str], list[Score]] = {}
        for x in shown:
            if x.metric == metric and attack in (None, x.attack):
                where = _where(x) if chosen is None else f"{'most' if chosen is max else 'least'} after any prefix"
                found.setdefault((x.judge, where), []).append(x)
        for (judge, where), own in found.items():
            cells = [_cell([x for x in own if x.arm == a], chosen) for a in arms]
            named = markdown_text(f"{title_of(metric)}, {where}")
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
