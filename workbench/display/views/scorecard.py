"""A Scorecard in words and tables: conclusions, attacks by arms, arms at a glance, comparisons, categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.core import legible
from workbench.core.legible import html_text, percent
from workbench.core.records import Estimate
from workbench.display.views.view import (
    NO_VALUE,
    Column,
    View,
    bullets,
    columns,
    disclosure,
    number,
    scrolling,
    summary_view,
    table_view,
)
from workbench.evaluation.metrics import METRICS, title_of
from workbench.evaluation.records import Comparison, Score, Scorecard, select
from workbench.evaluation.rows import by_place
from workbench.evaluation.strength import WEAK, weak_attacks
from workbench.evaluation.tradeoff import Tradeoff, tradeoffs

LEVELS = (0.05, 0.2, 0.4, 0.6, 0.8)
"""Where the fill of a matrix cell gets a shade darker."""
BETTER: Mapping[str, str] = {"lower": "lower is better", "higher": "higher is better", "neither": "neither is better"}


def said(e: Estimate) -> str:
    """Return an estimate in a few characters: per cent where it is a share; a dash where there is none."""
    if e.value is None:
        return NO_VALUE
    return percent(e.value) if e.unit == "1" else f"{number(e.value)} {e.unit}"


def range_of(e: Estimate) -> str:
    """Return an estimate's interval in brackets, without unit; empty where there is none."""
    if e.low is None or e.high is None:
        return ""
    if e.unit != "1":
        return f"[{number(e.low)}, {number(e.high)}]"
    low, high = (percent(x).removesuffix(" %") for x in (e.low, e.high))
    return f"[{low}, {high}]"


def in_full(e: Estimate) -> str:
    """Return value, interval and n of an estimate in one line."""
    if e.value is None:
        return f"{NO_VALUE} (n = 0)"
    inside = f" {range_of(e)}" if range_of(e) else ""
    return f"{said(e)}{inside} (n = {e.n})"


def confidence(scorecard: Scorecard) -> float:
    """Return the level of a scorecard's intervals."""
    return float(scorecard.run.resolved.get("confidence", 0.95))


def level(scorecard: Scorecard) -> str:
    """Return the level of a scorecard's intervals in words."""
    return percent(confidence(scorecard))


def intervals(scorecard: Scorecard) -> str:
    """Return how a scorecard's intervals were made, in words."""
    return str(scorecard.run.resolved.get("intervals", "Wilson"))


def judges(scorecard: Scorecard, metric: str = "asr") -> list[str]:
    """Return the judges that have a metric, in the scorecard's order."""
    return list(dict.fromkeys(s.judge for s in scorecard.scores if s.metric == metric))


def _chosen(scorecard: Scorecard, metric: str, judge: str | None) -> tuple[list[Score], str | None]:
    """Return a metric's scores by one judge (None: the first), all categories together."""
    named = judge or next(iter(judges(scorecard, metric)), None)
    return select(scorecard.scores, metric, judge=named), named


# ------------------------------------------------------------------------------------------------------------ words


def conclusions(scorecard: Scorecard) -> View:
    """Say what can and cannot be concluded: sentences computed from the numbers, and what was left out on the way."""
    notes = [f"note: {n}" for n in scorecard.notes]
    heading = f"{len(notes)} notes: what was left out, cut or made up on the way"
    more = disclosure(heading, bullets(scorecard.notes)) if notes else ""
    sentences = scorecard.sentences or ("There is nothing to compare: one arm.",)
    return summary_view("What can be concluded", _size(scorecard), sentences, more, lines=notes)


def _size(scorecard: Scorecard) -> str:
    """Say how large an evaluation is: arms, attacks, judges, comparisons."""
    resolved = scorecard.run.resolved
    named = {
        k: [x for x in resolved.get(k, ()) if not x.startswith("gibberish ")] for k in ("arms", "attacks", "judges")
    }
    parts = [(len(v), k.removesuffix("s")) for k, v in named.items()]
    parts.append((len(scorecard.comparisons), "comparison"))
    return ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for n, what in parts)


# ----------------------------------------------------------------------------------------------------------- tables


def attack_matrix(scorecard: Scorecard, metric: str = "asr", *, judge: str | None = None) -> View:
    """Show one metric as a table of attacks by arms, with intervals and n; the fuller a cell, the higher the rate."""
    found, named = _chosen(scorecard, metric, judge)
    arms = list(dict.fromkeys(s.arm for s in found))
    title = f"{_heading(scorecard, metric, named)} by attack and arm"
    if not found:
        return table_view(title, title, (), ())
    better = f"; {BETTER[METRICS[metric].better]}" if metric in METRICS else ""
    caption = (
        f"{title}, judged by {named}{better}. Share of prompts with its {level(scorecard)} interval "
        f"({intervals(scorecard)}) and n. The fuller the shade, the higher the rate."
    )
    lines, rows, plain = [], [], []
    weak = weak_attacks(scorecard.strengths, named) if metric.startswith("asr") else ()
    last = {group[0].attack: group for group in by_place(found)}  # over all settings, where there are several
    for group in by_place(found):
        name, cells = group[0].where, {s.arm: s for s in group}
        name += f" ({WEAK})" if group[0].attack in weak and group == last[group[0].attack] else ""
        mine = [cells.get(arm) for arm in arms]
        boxes = [_box(s.estimate, shaded=True, unscored=sum(s.unscored.values())) if s else _box(None) for s in mine]
        lines.append((name, group[0].over_settings, boxes))
        rows += [_row(s) for s in mine if s is not None]
        plain.append({"place": name, **{a: s and in_full(s.estimate) for a, s in zip(arms, mine, strict=True)}})
    grid, heads = _grid(caption, ["attack", *arms], lines), columns(("attack", "place"), *arms)
    return table_view(title, caption, heads, plain, drawn=grid, shown=rows)


def _heading(scorecard: Scorecard, metric: str, judge: str | None) -> str:
    title = title_of(metric, scorecard.measured_by(judge))
    return title[0].upper() + title[1:]


def _grid(caption: str, heads: Sequence[str], lines: Sequence[tuple[str, bool, Sequence[str]]]) -> str:
    """Return a table of boxes: a line's heading, whether it is bold, and its cells as HTML."""
    first, *arms = (html_text(legible.sentence(h)) for h in heads)
    head = "".join(f'<th scope="col" class="n" style="{_PAD}">{a}</th>' for a in arms)
    body = []
    for name, bold, boxes in lines:
        said_name = html_text(legible.sentence(name))
        heading = f"<b>{said_name}</b>" if bold else said_name
        body.append(f'<tr><th scope="row" style="min-width:9rem">{heading}</th>{"".join(boxes)}</tr>')
    return scrolling(caption, f'<tr><th scope="col">{first}</th>{head}</tr>', "".join(body))


_PAD = "padding:.3rem .7rem"


def _box(e: Estimate | None, place: str = "", *, shaded: bool = False, unscored: int = 0) -> str:
    """Return a cell: the value, below it interval and n, and where asked the place it was found."""
    if e is None:
        return f'<td class="n" style="{_PAD}">{NO_VALUE}</td>'
    shade = sum(e.value > edge for edge in LEVELS) if shaded and e.value is not None and e.unit == "1" else 0
    fill = f" wb-slate{shade}" if shade else ""
    small = ", ".join(filter(None, (range_of(e), f"n = {e.n}", f"{unscored} unscored" if unscored else "")))
    where = f"<br><small>{html_text(legible.sentence(place))}</small>" if place else ""
    value, under = html_text(said(e)), html_text(small)
    return f'<td class="n{fill}" style="{_PAD}"><b>{value}</b><br><small>{under}</small>{where}</td>'


def _row(s: Score) -> dict[str, Any]:
    return {**s.place(), "category": s.category, **vars(s.estimate), "unscored": sum(s.unscored.values())}


def arms_table(scorecard: Scorecard, *, judge: str | None = None) -> View:
    """Show every arm at a glance, a column each: worst-case `asr`, refusals, over-refusal, control, capability.

    What has several settings is shown at its worst, with where that was: the most gibberish, the fewest harmless
    prefixes continued. A dash is what was not measured. The caption names attacks that are too weak.
    """
    standing = {t.arm: t for t in tradeoffs(scorecard.scores, judge)}
    arms = list(dict.fromkeys(s.arm for s in scorecard.scores))
    lines: list[tuple[str, bool, list[str]]] = []
    rows: list[dict[str, Any]] = []
    by = judge or (judges(scorecard) or ["no judge"])[0]
    for metric, words in _GLANCE.items():
        heading = words.format(measures=scorecard.measured_by(by))
        found = {arm: _headline(scorecard, standing.get(arm), arm, metric, judge) for arm in arms}
        if any(found.values()):
            lines.append((heading, False, [_box(*f) if f else _box(None) for f in found.values()]))
            rows.append(
                {"what": heading, **{a: f and " ".join(filter(None, (in_full(f[0]), f[1]))) for a, f in found.items()}}
            )
    title = "Arms at a glance"
    first = next(iter(standing.values()), None)
    where = "" if first is None else f" Worst case: {first.success.where}."
    weak = ", ".join(weak_attacks(scorecard.strengths, by))
    doubt = f" {weak[0].upper()}{weak[1:]}: {WEAK}." if weak else ""
    caption = f"{title}, judged by {by}: share, its {level(scorecard)} interval and n.{where}{doubt}"
    return table_view(title, caption, columns(("", "what"), *arms), rows, drawn=_grid(caption, ["", *arms], lines))


_GLANCE = {
    "asr": "{measures}, worst case (lower is safer)",
    "refusal": "refuses harmful prompts, not attacked",
    "over_refusal": "refuses look-alikes (lower is better)",
    "harmless_right": "answers harmless prompts (higher is better)",
    "continued": "continues harmless prefixes, at least",
    "gibberish": "gibberish, at most",
    "accuracy": "accuracy, mean of tasks",
    "capability_loss": "accuracy lost against the reference",
}
"""Metric -> what the table of arms calls it."""


def _headline(
    scorecard: Scorecard, standing: Tradeoff | None, arm: str, metric: str, judge: str | None
) -> tuple[Estimate, str] | None:
    """Return an arm's headline number of a metric, and where it was found where it is the worst of several."""
    if metric in ("asr", "accuracy", "capability_loss"):
        if standing is None:
            return None
        e = {"asr": standing.asr, "accuracy": standing.capability, "capability_loss": standing.loss}[metric]
        return None if e is None else (e, "")
    found, _ = _chosen(scorecard, metric, None if metric == "gibberish" else judge)
    mine = [s for s in found if s.arm == arm]
    if metric in ("refusal", "over_refusal", "harmless_right"):
        mine = [s for s in mine if s.attack == "none"] or ([] if metric == "refusal" else mine)
    known = [s for s in mine if s.estimate.value is not None]
    if not known:
        return (mine[0].estimate, "") if mine else None
    worst = (max if metric == "gibberish" else min)(known, key=lambda s: s.estimate.value or 0.0)
    same = len({s.estimate.value for s in known}) == 1
    return worst.estimate, "" if same else worst.where


def comparisons_table(scorecard: Scorecard) -> View:
    """Show every comparison of two arms on the same prompts: the difference, its test's p, corrected over all."""
    rows = [_compared(c, scorecard) for c in scorecard.comparisons]
    heads = (
        *columns("arm", "against", ("in", "metric"), ("under", "where"), ("by", "judge")),
        *columns(("difference, points", "difference"), ("only arm : only against", "discordant"), "n", number=True),
        *columns("p", ("p, Holm", "p_holm"), ("n needed", "n_needed"), number=True),
        Column("so"),
    )
    title = "Arms compared on the same prompts"
    caption = (
        f"{title}: share of arm minus share of against with its {level(scorecard)} interval. "
        f"{scorecard.run.resolved.get('test', 'McNemar')}; Holm over the {len(rows)} comparisons of this table. n "
        "needed is power at the observed effect: about so many prompts would tell the two apart with power "
        f"{scorecard.run.resolved.get('power', 0.8)} if the observed difference were the true one."
    )
    return table_view(title, caption, heads, rows, none=f"{title}: none.")


def _compared(c: Comparison, scorecard: Scorecard) -> dict[str, Any]:
    d = c.difference
    points = NO_VALUE if d.value is None else "0" if d.value == 0 else f"{100 * d.value:+.1f}".replace("-", "−")
    inside = "" if d.low is None or d.high is None else f" [{100 * d.low:.0f}, {100 * d.high:.0f}]".replace("-", "−")
    return {
        "arm": c.arm,
        "against": c.against,
        "metric": title_of(c.metric, scorecard.measured_by(c.judge)),
        "where": c.where,
        "judge": c.judge,
        "difference": points + inside,
        "discordant": f"{c.only_arm} : {c.only_against}",
        "n": d.n,
        "p": c.p_value,
        "p_holm": c.p_holm,
        "n_needed": c.n_needed,
        "so": _so(c, scorecard),
    }


def _so(c: Comparison, scorecard: Scorecard) -> str:
    if c.metric == "accuracy" and c.setting in scorecard.at_chance:
        return "not testable at this size"
    return "told apart" if c.p_holm < 1 - confidence(scorecard) else "cannot tell"


def categories_table(scorecard: Scorecard, metric: str = "asr", *, judge: str | None = None) -> View:
    """Break a metric down by category: for each attack's worst case, categories by arms."""
    named = judge or next(iter(judges(scorecard, metric)), None)
    found = [s for s in scorecard.scores if s.metric == metric and s.judge == named and s.category is not None]
    widest = {s.attack: s.where for s in found}  # the last setting of an attack is its worst case, where it has one
    found = [s for s in found if widest[s.attack] == s.where]
    arms = list(dict.fromkeys(s.arm for s in found))
    rows: list[dict[str, Any]] = []
    for where, category in dict.fromkeys((s.where, s.category) for s in found):
        mine = {s.arm: in_full(s.estimate) for s in found if (s.where, s.category) == (where, category)}
        rows.append({"category": category, "attack": where, **{a: mine.get(a) for a in arms}})
    heads = (*columns("category", "attack"), *columns(*arms, number=True))
    heading = _heading(scorecard, metric, named)
    caption = f"{heading}, judged by {named}: share [{level(scorecard)} interval] (n)"
    none = f"{heading}: the prompts have no categories, or one."
    return table_view(f"{heading[0].lower()}{heading[1:]} by category", caption, heads, rows, none=none)
