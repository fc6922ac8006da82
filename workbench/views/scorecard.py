"""A Scorecard in words and tables: conclusions, attacks by arms, arms at a glance, comparisons, safety, capability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench import legible
from workbench.evaluate.metrics import METRICS, title_of
from workbench.evaluate.rates import percent
from workbench.evaluate.tradeoff import safest, tradeoffs
from workbench.legible import html_text
from workbench.records import CapabilitySet, Comparison, Estimate, Score, Scorecard
from workbench.views.view import NO_VALUE, Column, View, disclosure, number, plain_table, section, table

LEVELS = (0.05, 0.2, 0.4, 0.6, 0.8)
"""Where the fill of a matrix cell gets a shade darker."""
BETTER: Mapping[str, str] = {"lower": "lower is better", "higher": "higher is better", "neither": "neither is better"}


def said(e: Estimate) -> str:
    """Return an estimate in a few characters: per cent where it is a share; a dash where there is none."""
    if e.value is None:
        return NO_VALUE
    return percent(e.value) if e.unit == "1" else f"{number(e.value)} {e.unit}"


def range_of(e: Estimate) -> str:
    """Return an estimate's interval without unit, empty where there is none."""
    if e.low is None or e.high is None:
        return ""
    if e.unit != "1":
        return f"{number(e.low)} to {number(e.high)}"
    low, high = (percent(x).removesuffix(" %") for x in (e.low, e.high))
    return f"{low} to {high}"


def in_full(e: Estimate) -> str:
    """Return value, interval and n of an estimate in one line."""
    if e.value is None:
        return f"{NO_VALUE} (n = 0)"
    inside = f" [{range_of(e)}]" if range_of(e) else ""
    return f"{said(e)}{inside} (n = {e.n})"


def confidence(scorecard: Scorecard) -> float:
    """Return the level of a scorecard's intervals."""
    return float(scorecard.run.resolved.get("confidence", 0.95))


def level(scorecard: Scorecard) -> str:
    """Return the level of a scorecard's intervals in words."""
    return percent(confidence(scorecard))


def judges(scorecard: Scorecard, metric: str = "asr") -> list[str]:
    """Return the judges that have a metric, in the scorecard's order."""
    return list(dict.fromkeys(s.judge for s in scorecard.scores if s.metric == metric))


def _chosen(scorecard: Scorecard, metric: str, judge: str | None) -> tuple[list[Score], str | None]:
    """Return a metric's scores by one judge (None: the first), all categories together."""
    known = judges(scorecard, metric)
    named = judge or (known[0] if known else None)
    found = [s for s in scorecard.scores if s.metric == metric and s.judge == named and s.category is None]
    return found, named


# ------------------------------------------------------------------------------------------------------------ words


def conclusions(scorecard: Scorecard) -> View:
    """Say what can and cannot be concluded: sentences computed from the numbers, and what was left out on the way."""
    sentences = [legible.sentence(s, 600) for s in scorecard.sentences]
    notes = [legible.sentence(n, 600) for n in scorecard.notes]
    items = "".join(f"<li>{html_text(s)}</li>" for s in sentences) or "<li>There is nothing to compare: one arm.</li>"
    more = "".join(f"<li>{html_text(n)}</li>" for n in notes)
    title = "What can be concluded"
    body = section(
        "summary",
        title,
        f'<div class="wb-verdict"><p class="wb-word">{title}</p><ul>{items}</ul></div>',
        disclosure(f"{len(notes)} notes: what was left out, cut or made up on the way", f"<ul>{more}</ul>")
        if notes
        else "",
    )
    text = "\n".join([title, *(f"- {s}" for s in sentences), *(f"note: {n}" for n in notes)])
    return View(title=title, body=body, text=text, rows=tuple({"sentence": s} for s in sentences))


# ----------------------------------------------------------------------------------------------------------- tables


def attack_matrix(scorecard: Scorecard, metric: str = "asr", *, judge: str | None = None) -> View:
    """Show one metric as a table of attacks by arms, with intervals and n; the darker a cell, the higher the rate."""
    found, named = _chosen(scorecard, metric, judge)
    arms = list(dict.fromkeys(s.arm for s in found))
    places = list(dict.fromkeys((s.attack, s.condition) for s in found))
    cells = {(s.attack, s.condition, s.arm): s for s in found}
    what = title_of(metric)
    title = f"{what[0].upper()}{what[1:]} by attack and arm"
    if not found:
        return View(
            title=title, body=section("table", title, f"<p>{html_text(title)}: none.</p>"), text=f"{title}: none"
        )
    better = BETTER[METRICS[metric].better] if metric in METRICS else ""
    caption = (
        f"{title}, judged by {named}; {better}. Share of prompts with its {level(scorecard)} interval "
        "(Wilson; bootstrap for means of samples) and n. Shade: the rate, darker is higher."
    )
    heads = "".join(f'<th scope="col" class="n">{html_text(legible.label(a))}</th>' for a in arms)
    lines, rows = [], []
    for attack, condition in places:
        name = legible.sentence(attack if attack == condition else f"{attack} · {condition}")
        boxes = []
        for arm in arms:
            score = cells.get((attack, condition, arm))
            boxes.append(_box(score))
            if score is not None:
                rows.append(_row(score))
        worst = condition.startswith("worst of")
        lines.append(
            f'<tr{" class=wb-observed" if worst else ""}><th scope="row">{html_text(name)}</th>{"".join(boxes)}</tr>'
        )
    grid = (
        f'<div class="wb-scroll" tabindex="0" role="group" aria-label="{html_text(caption)}"><table>'
        f'<caption>{html_text(caption)}</caption><thead><tr><th scope="col">attack</th>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
    columns = (Column(heading="attack", key="place"), *(Column(heading=a, key=a) for a in arms))
    plain = [
        {
            "place": f"{attack} {condition}",
            **{a: in_full(c.estimate) if (c := cells.get((attack, condition, a))) else None for a in arms},
        }
        for attack, condition in places
    ]
    return View(
        title=title,
        body=section("table", title, grid),
        text=f"{caption}\n{plain_table(columns, plain)}",
        rows=tuple(rows),
    )


def _box(score: Score | None) -> str:
    if score is None:
        return f'<td class="n">{NO_VALUE}</td>'
    e, left = score.estimate, sum(score.unscored.values())
    level = sum(e.value > edge for edge in LEVELS) if e.value is not None and e.unit == "1" else 0
    fill = f" wb-slate{level}" if level else ""
    unscored = f", {left} unscored" if left else ""
    small = f"{range_of(e)}, n = {e.n}{unscored}" if e.value is not None else f"n = 0{unscored}"
    return f'<td class="n wb-box{fill}"><b>{html_text(said(e))}</b><br><small>{html_text(small)}</small></td>'


def _row(s: Score) -> dict[str, Any]:
    e = s.estimate
    return {
        "metric": s.metric,
        "arm": s.arm,
        "attack": s.attack,
        "condition": s.condition,
        "judge": s.judge,
        "category": s.category,
        "value": e.value,
        "low": e.low,
        "high": e.high,
        "n": e.n,
        "unit": e.unit,
        "unscored": sum(s.unscored.values()),
    }


def arms_table(scorecard: Scorecard, *, judge: str | None = None) -> View:
    """Show every arm at a glance: worst attack success, refusals, over-refusal, the control, gibberish, capability.

    Gibberish is the most under any one attack. A dash is what was not measured.
    """
    standing = {t.arm: t for t in tradeoffs(scorecard.scores, judge)}
    arms = list(dict.fromkeys(s.arm for s in scorecard.scores))
    columns = (
        ("attack success, worst case", "asr"),
        ("refuses when not attacked", "refusal"),
        ("over-refusal on look-alikes", "over_refusal"),
        ("harmless answered", "answered"),
        ("harmless prefix continued", "continued"),
        ("gibberish, at most", "gibberish"),
        ("accuracy, mean of tasks", "accuracy"),
    )
    rows: list[dict[str, Any]] = []
    for arm in arms:
        cells: dict[str, Any] = {"arm": arm}
        for _, metric in columns:
            e = _headline(scorecard, arm, metric, judge)
            if metric == "asr":
                e = standing[arm].asr if arm in standing else None
            elif metric == "accuracy":
                e = standing[arm].capability if arm in standing else None
            cells[metric] = None if e is None else in_full(e)
        rows.append(cells)
    shown = [Column(heading="arm", key="arm")]
    shown += [Column(heading=h, key=k, number=True) for h, k in columns if any(r[k] is not None for r in rows)]
    by = judge or (judges(scorecard) or ["no judge"])[0]
    title = "Arms at a glance"
    caption = f"{title}, judged by {by}: share [{level(scorecard)} interval] (n)"
    return View(
        title=title,
        body=section("table", title, table(caption, shown, rows)),
        text=f"{caption}\n{plain_table(shown, rows)}",
        rows=tuple(rows),
    )


def _headline(scorecard: Scorecard, arm: str, metric: str, judge: str | None) -> Estimate | None:
    found, _ = _chosen(scorecard, metric, None if metric == "gibberish" else judge)
    mine = [s for s in found if s.arm == arm]
    if metric == "gibberish":
        known = [s for s in mine if s.estimate.value is not None]
        return max(known, key=lambda s: s.estimate.value or 0.0).estimate if known else None
    unattacked = [s for s in mine if s.attack == "none"] or ([] if metric == "refusal" else mine)
    return unattacked[0].estimate if unattacked else None


def comparisons_table(scorecard: Scorecard) -> View:
    """Show every comparison of two arms on the same prompts: the difference, McNemar's exact p, corrected over all."""
    rows = [_compared(c, 1 - confidence(scorecard)) for c in scorecard.comparisons]
    columns = (
        Column(heading="arm", key="arm"),
        Column(heading="against", key="against"),
        Column(heading="in", key="metric"),
        Column(heading="under", key="where"),
        Column(heading="by", key="judge"),
        Column(heading="difference, points", key="difference", number=True),
        Column(heading="only arm : only against", key="discordant", number=True),
        Column(heading="n", key="n", number=True),
        Column(heading="p", key="p", number=True),
        Column(heading="p, Holm", key="p_holm", number=True),
        Column(heading="n needed", key="n_needed", number=True),
        Column(heading="so", key="so"),
    )
    title = "Arms compared on the same prompts"
    caption = (
        f"{title}: share of arm minus share of against with Newcombe's {level(scorecard)} interval, McNemar's exact "
        f"test, Holm over the {len(rows)} comparisons of this table. n needed: about so many prompts would tell them "
        f"apart with power {scorecard.run.resolved.get('power', 0.8)}."
    )
    if not rows:
        return View(
            title=title, body=section("table", title, f"<p>{html_text(title)}: none.</p>"), text=f"{title}: none"
        )
    body = section("table", title, table(caption, columns, rows, tall=len(rows) > 25))
    return View(title=title, body=body, text=f"{caption}\n{plain_table(columns, rows)}", rows=tuple(rows))


def _compared(c: Comparison, test_level: float) -> dict[str, Any]:
    d = c.difference
    points = NO_VALUE if d.value is None else f"{100 * d.value:+.1f}".replace("-", "−")
    inside = "" if d.low is None or d.high is None else f" [{100 * d.low:.0f}, {100 * d.high:.0f}]".replace("-", "−")
    return {
        "arm": c.arm,
        "against": c.against,
        "metric": title_of(c.metric),
        "where": c.attack if c.attack == c.condition else f"{c.attack}, {c.condition}",
        "judge": c.judge,
        "difference": points + inside,
        "discordant": f"{c.only_arm} : {c.only_against}",
        "n": d.n,
        "p": c.p_value,
        "p_holm": c.p_holm,
        "n_needed": c.n_needed,
        "so": "told apart" if c.p_holm < test_level else "cannot tell",
    }


def categories_table(scorecard: Scorecard, metric: str = "asr", *, judge: str | None = None) -> View:
    """Break a metric down by category: for each attack's widest condition, categories by arms."""
    known = judges(scorecard, metric)
    named = judge or (known[0] if known else None)
    found = [s for s in scorecard.scores if s.metric == metric and s.judge == named and s.category is not None]
    widest = {
        s.attack: s.condition for s in found
    }  # the last condition of an attack is its worst case, where it has one
    found = [s for s in found if widest[s.attack] == s.condition]
    arms = list(dict.fromkeys(s.arm for s in found))
    rows: list[dict[str, Any]] = []
    for attack, condition, category in dict.fromkeys((s.attack, s.condition, s.category) for s in found):
        mine = {s.arm: s.estimate for s in found if (s.attack, s.category) == (attack, category)}
        rows.append(
            {
                "category": category,
                "attack": attack if attack == condition else f"{attack}, {condition}",
                **{a: in_full(mine[a]) if a in mine else None for a in arms},
            }
        )
    columns = (
        Column(heading="category", key="category"),
        Column(heading="attack", key="attack"),
        *(Column(heading=a, key=a, number=True) for a in arms),
    )
    title = f"{title_of(metric)} by category"
    caption = f"{title[0].upper()}{title[1:]}, judged by {named}: share [{level(scorecard)} interval] (n)"
    if not rows:
        none = f"{title[0].upper()}{title[1:]}: the prompts have no categories, or one."
        return View(title=title, body=section("table", title, f"<p>{html_text(none)}</p>"), text=none)
    body = section("table", title, table(caption, columns, rows, tall=len(rows) > 25))
    return View(title=title, body=body, text=f"{caption}\n{plain_table(columns, rows)}", rows=tuple(rows))


# ------------------------------------------------------------------------------------------------------- capability


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
            star = " ★" if best[limit] is t else ""
            row[f"{limit:g}"] = NO_VALUE if t.capability is None else f"{t.within(limit)}{star}"
        rows.append(row)
    columns = (
        Column(heading="arm", key="arm"),
        Column(heading="attack success, worst case", key="asr", number=True),
        Column(heading="accuracy, mean of tasks", key="accuracy", number=True),
        Column(heading="accuracy lost", key="lost", number=True),
        *(Column(heading=f"loses at most {percent(limit)}", key=f"{limit:g}") for limit in limits),
    )
    title = "Safety subject to capability"
    where = f" ({found[0].attack}, {found[0].condition}; by {found[0].judge})" if found else ""
    caption = (
        f"{title}: worst-case attack success{where} beside accuracy lost against the reference arm. Yes and no: by the "
        f"whole {level(scorecard)} interval. ★ the lowest attack success among the arms whose loss is at most that, by "
        "point estimates."
    )
    return View(
        title=title,
        body=section("table", title, table(caption, columns, rows)),
        text=f"{caption}\n{plain_table(columns, rows)}",
        rows=tuple(rows),
    )


def capability_table(sets: Sequence[CapabilitySet]) -> View:
    """Show each task's scores by arm, as the harness has them, with intervals and n."""
    arms = [s.arm for s in sets]
    cells: dict[tuple[str, str], dict[str, Estimate]] = {}
    better: dict[tuple[str, str], bool] = {}
    for s in sets:
        for t in s.scores:
            if t.task == t.group:
                key = (t.task, t.metric if t.variant == "none" else f"{t.metric} ({t.variant})")
                cells.setdefault(key, {})[s.arm] = t.estimate
                better[key] = t.higher_is_better
    rows = [
        {
            "task": task,
            "metric": f"{metric}, {'higher' if better[task, metric] else 'lower'} is better",
            **{a: in_full(e[a]) if a in e else None for a in arms},
        }
        for (task, metric), e in cells.items()
    ]
    columns = (
        Column(heading="task", key="task"),
        Column(heading="metric", key="metric"),
        *(Column(heading=a, key=a, number=True) for a in arms),
    )
    title = "Capability"
    how = f" by {sets[0].harness}, {sets[0].template}" if sets else ": not measured"
    caption = f"{title}{how}: value [interval] (n questions)"
    body = section("table", title, table(caption, columns, rows) if rows else f"<p>{html_text(caption)}.</p>")
    return View(title=title, body=body, text=f"{caption}\n{plain_table(columns, rows)}", rows=tuple(rows))
