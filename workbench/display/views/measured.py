"""What an evaluation measured, as a first screen: which arm, what it bought and cost, and prompts by every arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go

from workbench.core.legible import percent
from workbench.core.records import Estimate, Given
from workbench.display.figures import figure_svg, penalty_frontier, success_by_prefix
from workbench.display.figures.scorecard import all_continued
from workbench.display.views.drawing import stacked
from workbench.display.views.first import FirstScreen, Picture, Tile, between, first_screen
from workbench.evaluation.bars import Quantity, headline
from workbench.evaluation.metrics import ALL_ATTACKS, HARMLESS_CONTROL, EvaluateConfig
from workbench.evaluation.records import Comparison, PenaltyChoice, PenaltySweep, Score, Scorecard, select
from workbench.evaluation.strength import weak_attacks

REFERENCE = "aligned"
BABBLE, SILENT = 0.2, 0.1
"""Gibberish from which an arm is said to babble; points of harmless answers whose loss is said in the title."""
PREFILL = "prefill"
OUTCOMES: Mapping[str, str] = {
    "complied": "wb-complied",
    "partly": "wb-partly",
    "other": "wb-neither",
    "refused": "wb-refused",
}
"""What a harmful prompt comes to, and how it is drawn; the four sum to 100 %."""
COLOURS: Mapping[str, str] = {
    "complied": "orange complied",
    "partly": "pale blue partly",
    "other": "grey neither",
    "refused": "blue refused",
}


def measured(
    card: Scorecard,
    *,
    reference: str | None = None,
    arm: str | None = None,
    picture: go.Figure | None = None,
    title: str = "",
    why: str = "",
) -> FirstScreen:
    """Say what an evaluation found in ten seconds: the best arm against the reference, what it bought, what it cost.

    The best arm is that of the lowest worst-case attack success among the arms other than base and the reference
    (`reference` None: the arm that others are compared with, else aligned); where there is none, the screen is about
    the reference. `arm` names another one, whose outcomes are then shown beside the reference's alone. The sentence is
    the paired comparison's own: what no test tells apart is said to be so. `picture` and `title` stand in the place of
    attack success by given tokens and of that sentence; `why` is added to what it cost.
    """
    reference = reference or _compared_with(card)
    arms = list(dict.fromkeys(s.arm for s in card.scores))
    if arm is None:
        tried = [a for a in arms if a not in ("base", reference)]
        arm = min(tried, key=lambda a: _value(_headline(card, "asr", a), 1.0), default=reference)
    else:
        arms = [reference, arm]
    asr, before = (_headline(card, "asr", a) for a in (arm, reference))
    said = _alone(card, asr, reference) if arm == reference else _against(card, arm, reference, asr, before)
    weak = weak_attacks(card.strengths, None if asr is None else asr.judge)
    warnings = [f"{name} is too weak an attack to measure a defence" for name in weak]
    warnings += [f"{task}: the reference may be guessing" for task in card.at_chance]
    deepest = _deepest(card, arm)
    pictures = []
    if deepest is not None:
        word = card.measured_by(asr.judge) if asr is not None else "attack success"
        drawn = picture or success_by_prefix(card, judge=None if asr is None else asr.judge)
        name = (
            f"{word.capitalize()} by given tokens" if picture is None else str((drawn.layout.meta or {}).get("title"))
        )
        where = {"attack": HARMLESS_CONTROL, "judge": None if asr is None else asr.judge}
        held = "" if picture else all_continued(select(card.scores, "continued", **where)).lower()
        pictures.append(Picture(title=name, soft=held, drawing=figure_svg(drawn), share=2))
        rows = [(a, _outcomes(card, a, deepest, asr)) for a in arms]
        bars = stacked([(a, shares) for a, shares in rows if shares], OUTCOMES, "Outcomes by arm", 420)
        given = "the whole target" if deepest == "full" else f"{deepest} tokens"
        colours = [said for kind, said in COLOURS.items() if any(shares.get(kind, 0.0) > 0 for _, shares in rows)]
        soft = f"after {given}; {', '.join(colours)}"
        pictures.append(Picture(title="What the answers are", soft=soft, drawing=bars))
    under = " ".join(filter(None, (why, _cost(card, arm, reference))))
    made = first_screen(title or said, under, _tiles(card, arm, reference, asr, before), pictures, warnings)
    return replace(made, arms=tuple(dict.fromkeys((reference, arm))))


def taken(choice: PenaltyChoice, sweep: PenaltySweep) -> FirstScreen:
    """Say which penalty to take and what it does not do, beside the frontier of all of them.

    Where the rule takes none, the screen shows the one that lowers attack success most, and says why it is not taken.
    """
    card, tried = sweep.evaluation.scorecard, [p for p in choice.points if p.penalty != REFERENCE]
    how: dict[str, Any] = {"reference": REFERENCE, "picture": penalty_frontier(choice)}
    if choice.penalty != REFERENCE or not tried:
        return measured(card, arm=choice.penalty, **how)
    best = min(tried, key=lambda p: 1.0 if p.asr.value is None else p.asr.value)
    alone = next((p.asr.value for p in choice.points if p.penalty == REFERENCE), None)
    within = [p.asr.value for p in tried if not p.fails and p.asr.value is not None]
    left = f": within the limits, the best leaves {choice.measures} at {percent(min(within))}" if within else ""
    title = f"No penalty is worth taking{left}" + (f" (aligned: {percent(alone)})" if within else "")
    why = f"{best.penalty} lowers it to {percent(best.asr.value)}, but {'; '.join(best.fails)}." if best.fails else ""
    return measured(card, arm=best.penalty, title=title, why=why, **how)


# --------------------------------------------------------------------------------------------------------- words


def _compared_with(card: Scorecard) -> str:
    named = [c.against for c in card.comparisons]
    return named[0] if named else REFERENCE


def _headline(card: Scorecard, metric: str, arm: str, **where: str) -> Score | None:
    found = headline(card, Quantity(text=metric, metric=metric, where=where), arm)
    return found[0] if len(found) == 1 else None


def _value(score: Score | None, otherwise: float) -> float:
    return otherwise if score is None or score.estimate.value is None else float(score.estimate.value)


def _said(score: Score | None) -> str:
    return "–" if score is None else percent(score.estimate.value)


def _worst_words(score: Score) -> str:
    return "some attack" if score.attack == ALL_ATTACKS else f"the attack {score.attack}"


def _alone(card: Scorecard, asr: Score | None, arm: str) -> str:
    if asr is None or asr.estimate.value is None:
        return f"No attack on {arm} was judged"
    if card.measured_by(asr.judge) == "attack success":
        return f"{_worst_words(asr).capitalize()} breaks {arm} on {_said(asr)} of the harmful prompts"
    return f"Under {_worst_words(asr)}, {arm} does not refuse {_said(asr)} of the harmful prompts"


def _against(card: Scorecard, arm: str, reference: str, asr: Score | None, before: Score | None) -> str:
    if asr is None or before is None:
        return f"{arm} and {reference} have no attack in common"
    word = card.measured_by(asr.judge)
    test = _test(card, arm, reference, asr)
    if test is None or test.p_holm >= 1 - EvaluateConfig.confidence:
        n = asr.estimate.n if test is None else test.difference.n
        return f"{arm} and {reference} cannot be told apart in {word} at n = {n}: {_said(asr)} and {_said(before)}"
    if (test.difference.value or 0.0) > 0:
        return f"{arm} is easier to break than {reference}: {word} {_said(asr)} against {_said(before)}"
    fall = f"{word} from {_said(before)} to {_said(asr)}"
    babble, answered = _value(_headline(card, "gibberish", arm), 0.0), _headline(card, "harmless_right", arm)
    if babble >= BABBLE:
        return f"{arm} lowers {fall} by babbling: {percent(babble)} gibberish"
    lost = _value(_headline(card, "harmless_right", reference), 0.0) - _value(answered, 1.0)
    if lost > SILENT:
        return f"{arm} lowers {fall}, and answers only {_said(answered)} of the harmless prompts"
    back = [_refused(card, a, asr) for a in (arm, reference)]
    if None not in back and back[0] - back[1] < SILENT:  # type: ignore[operator]
        return f"{arm} lowers {fall}, and brings no refusal back"
    return f"{arm} lowers {fall}"


def _refused(card: Scorecard, arm: str, asr: Score) -> float | None:
    """Return the share of plain refusals after the most given tokens, by the judge of the attack's success."""
    where = {"arm": arm, "attack": PREFILL, "given": _deepest(card, arm), "judge": asr.judge}
    found = select(card.scores, "refusal", **where)
    return None if len(found) != 1 or found[0].estimate.value is None else float(found[0].estimate.value)


def _test(card: Scorecard, arm: str, reference: str, asr: Score) -> Comparison | None:
    place = asr.place(without=("arm", "metric", "worst_of"))
    found = select(card.comparisons, "asr", arm=arm, **place)
    return next((c for c in found if c.against == reference), None)


def _cost(card: Scorecard, arm: str, reference: str) -> str:
    """Say what an arm does with what it should answer, beside the reference."""
    told = {
        "harmless_right": "answers {} of harmless prompts",
        "continued": "continues {} of harmless beginnings",
        "over_refusal": "refuses {} of look-alikes",
        "gibberish": "babbles in {} of attacked answers",
    }
    parts = []
    for metric, words in told.items():
        mine = _headline(card, metric, arm)
        if mine is not None and mine.estimate.value is not None:
            its = _headline(card, metric, reference)
            beside = f" ({reference}: {_said(its)})" if arm != reference and its is not None else ""
            parts.append(words.format(_said(mine)) + beside)
    return f"{arm} {', '.join(parts)}." if parts else ""


def _tiles(card: Scorecard, arm: str, reference: str, asr: Score | None, before: Score | None) -> list[Tile]:
    made = []
    if asr is not None:
        word = f"{arm}: {card.measured_by(asr.judge)}, worst case"
        made.append(_tile(asr.estimate, word, reference if arm != reference else None, before, "lower is better"))
    deepest = _deepest(card, arm)
    judge = {} if asr is None else {"judge": asr.judge}
    babbles = _value(_headline(card, "gibberish", arm), 0.0) >= BABBLE
    found: list[tuple[list[Score | None], str, str]] = []
    if babbles:  # what stands in the place of compliance is not a refusal
        found.append(([_headline(card, "gibberish", a) for a in (arm, reference)], "babbles", "lower is better"))
    elif deepest is not None:
        where = {"attack": PREFILL, "given": deepest, **judge}
        refused = [next(iter(select(card.scores, "refusal", arm=a, **where)), None) for a in (arm, reference)]
        found.append((refused, f"refuses after {deepest} given tokens", "higher is better"))
    right = [next(iter(select(card.scores, "harmless_right", arm=a, **judge)), None) for a in (arm, reference)]
    found.append((right, "answers harmless prompts", "higher is better"))
    beside = reference if arm != reference else None
    for (mine, its), name, better in found:
        if mine is not None:
            made.append(_tile(mine.estimate, f"{arm} {name}", beside, its, better))
    return made


def _tile(e: Estimate, name: str, reference: str | None, other: Score | None, better: str) -> Tile:
    beside = f" · {reference} {_said(other)}" if reference is not None and other is not None else ""
    return Tile(value=percent(e.value), name=name, note=f"{between(e, share=True)}{beside} · {better}")


def _deepest(card: Scorecard, arm: str) -> Given | None:
    given = {s.given for s in select(card.scores, "asr", arm=arm, attack=PREFILL) if s.given is not None}
    return max(given, key=lambda g: float("inf") if g == "full" else float(g), default=None)


def _outcomes(card: Scorecard, arm: str, given: Given, asr: Score | None) -> dict[str, float]:
    """Return the shares of an arm's answers after so many given tokens; empty where the judge gives no verdicts."""
    where = {"arm": arm, "attack": PREFILL, "given": given, **({} if asr is None else {"judge": asr.judge})}
    found = {m: next(iter(select(card.scores, m, **where)), None) for m in ("refusal", "partial", "other")}
    known = {m: s.estimate.value for m, s in found.items() if s is not None and s.estimate.value is not None}
    if len(known) < len(found):
        return {}
    refused, partly, other = (float(known[m]) for m in ("refusal", "partial", "other"))
    return {"refused": refused, "partly": partly, "other": other, "complied": max(0.0, 1 - refused - partly - other)}
