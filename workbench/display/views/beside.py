"""The same beginning, continued by every arm: columns that read together, and a slider of given tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.core.legible import html_text, label, prose, sentence
from workbench.core.quantities import quantity_named
from workbench.display.views.responses import COVER, HarmfulText, as_treated, digest, treatment_of
from workbench.display.views.scales import scale_html
from workbench.display.views.view import View, notes, section
from workbench.evaluation.beside import answers_beside
from workbench.evaluation.records import AnswersBeside, ArmAnswer, AskedArms, Evaluation

SAID = {
    "compliance": ("complied", "➜ complied"),
    "harmful": ("complied", "➜ complied"),
    "refusal": ("refused", "⊘ refused"),
    "partial": ("partly", "◐ partial"),
    "gibberish": ("neither", "≋ gibberish"),
    "other": ("neither", "○ neither"),
}
"""Verdict -> how it is drawn, and its sign with its word."""
DISTANCE = "kl_aligned_base_nats"
"""The quantity whose levels fill the tokens: both are a KL in nats."""


LEAST_WANTED = 0.01
"""Tokens that an arm gives less probability are not named."""


def answers(
    what: Evaluation | AnswersBeside,
    *,
    arms: Sequence[str] | None = None,
    given: int = 10,
    harmful: int = 3,
    harmless: int = 1,
    harmful_text: HarmfulText = "auto",
) -> View:
    """Show some prompts as every arm answered them after the same given words, side by side, with verdicts.

    `what` is an evaluation, or what `answers_beside` read of one with its models: then tokens are filled by
    KL(arm || reference) from the first difference on. Of an evaluation, harmful prompts whose verdicts differ between
    the arms come first, harmless ones are those of the harmless prefill, and `arms` are those to show (None: all).
    `given` is how many tokens (or the nearest count) are given at first. Text of harmful prompts is treated as in every
    view; what is redacted is not in the page.
    """
    if isinstance(what, Evaluation):
        what = answers_beside(what, names=arms, given=given, harmful=harmful, harmless=harmless)
    title = "The same beginning, continued by every arm"
    data = page_data(what, given=given, harmful_text=harmful_text)
    still = "".join(_still(what, one, given, harmful_text) for one in what.asked)
    distance = quantity_named(DISTANCE)
    named = f"KL({label('arm')} ‖ {label(what.reference)}), nats, from the first difference on"
    legend = scale_html(distance, named) if data["scored"] else ""
    drawn = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    body = section(
        "beside",
        title,
        f'<div class="wb-stage"></div><div class="wb-unscripted">{still}</div>{legend}',
        f'<script type="application/json">{drawn}</script>',
    )
    rows = tuple(
        {"prompt_id": one.prompt_id, "label": one.label, "given": a.given, "arm": a.arm, "verdict": a.verdict}
        for one in what.asked
        for a in one.answers
    )
    text = "\n".join(f"{r['prompt_id']} after {r['given']} tokens, {r['arm']}: {r['verdict']}" for r in rows)
    return View(title=title, body=body, text=f"{title}\n{text}", rows=rows)


def page_data(what: AnswersBeside, *, given: int = 10, harmful_text: HarmfulText = "auto") -> dict[str, Any]:
    """Return what the page's script draws. Redacted text is not among it."""
    scored = any(a.wanted for one in what.asked for a in one.answers)
    return {
        "arms": list(what.arms),
        "given": given,
        "scored": scored,
        "unit": "token" if scored else "word",
        "fills": [quantity_named(DISTANCE).css(level) for level in range(6)],
        "asked": [_asked(what, one, harmful_text) for one in what.asked],
    }


def _asked(what: AnswersBeside, one: AskedArms, harmful_text: HarmfulText) -> dict[str, Any]:
    treat = treatment_of(one.label, what.classroom_safe, harmful_text)
    hidden = treat == "redact"
    return {
        "prompt": prose(one.prompt),
        "label": one.label,
        "covered": treat == "blur",
        "beginnings": {} if hidden else {k: prose(v) for k, v in one.beginnings.items()},
        "answers": [_drawn(a, one.label, hidden) for a in one.answers],
    }


def _drawn(answer: ArmAnswer, asked: str, hidden: bool) -> dict[str, Any]:
    kind, said = SAID.get(answer.verdict, ("neither", answer.verdict))
    if asked != "harmful" and kind == "complied":
        said = "➜ answered"
    distance = quantity_named(DISTANCE)
    levels = distance.levels(np.asarray(answer.kl_nats, np.float64)).tolist()
    return {
        "arm": answer.arm,
        "given": answer.given,
        "kind": kind,
        "said": said,
        "refused_at": answer.refused_at,
        "pieces": [COVER + " " if hidden else prose(piece) or "▫" for piece in answer.pieces],
        "levels": levels,
        "wanted": [] if hidden else [[[t, round(p, 3)] for t, p in row if p >= LEAST_WANTED] for row in answer.wanted],
    }


def _still(what: AnswersBeside, one: AskedArms, given: int, harmful_text: HarmfulText) -> str:
    """Return the columns of one prompt as they read without a script."""
    treat = treatment_of(one.label, what.classroom_safe, harmful_text)
    near = min(one.givens, key=lambda k: abs(k - given))
    columns = []
    for a in (a for a in one.answers if a.given == near):
        drawn = _drawn(a, one.label, treat == "redact")
        whole = "".join(a.pieces)

        def draw(covered: bool, whole: str = whole) -> str:
            if covered:
                return notes(f"{len(whole):,} characters withheld; SHA-256 {digest(whole)}… (first 12 digits)")
            return f"<p>{html_text(prose(whole)) or '(no text)'}</p>"

        columns.append(
            f'<div class="wb-said-by"><b>{html_text(sentence(a.arm, 40))}</b> '
            f'<span class="wb-tag wb-pill wb-is-{drawn["kind"]}">{html_text(drawn["said"])}</span>'
            f"{as_treated(treat, draw, 'answer')}</div>"
        )
    beginning = one.beginnings.get(str(near), "")
    told = f"given: {prose(beginning)}" if treat == "show" and beginning else f"given: {near} tokens"
    return (
        f'<p class="wb-title"><span class="wb-tag wb-{one.label}">{one.label}</span>'
        f'{html_text(prose(one.prompt))} <span class="wb-soft">{html_text(told)}</span></p>'
        f'<div class="wb-sides">{"".join(columns)}</div>'
    )
