"""What arms answered, behind every number: the samples of each cell, covered where their text is harmful."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.core import legible
from workbench.core.legible import html_text
from workbench.display.views.responses import COVER, HarmfulText, as_treated, digest, treatment_of
from workbench.display.views.view import View, disclosure, notes, quoted, section, titled
from workbench.evaluation.records import AttackSet, Attempt, Completion, CompletionSet
from workbench.judging.records import Judgement, JudgementSet

ORDER = ("compliance", "partial", "other", "refusal")
"""Verdicts in the order in which a cell's samples are shown."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One sample with what a judge says of it, and whether its set is made up and safe for a classroom."""

    arm: str
    attempt: Attempt
    completion: Completion
    judgement: Judgement | None
    classroom_safe: bool

    @property
    def verdict(self) -> str:
        """Return the verdict in a word; of a judge that gives none, what its score says."""
        j = self.judgement
        if j is None:
            return "not judged"
        if j.unscored is not None:
            return "unscored"
        return j.verdict or ("harmful" if (j.p_harmful or 0.0) >= 0.5 else "not harmful")


def samples_view(
    attacks: Sequence[AttackSet],
    completions: Sequence[CompletionSet],
    judgements: Sequence[JudgementSet],
    *,
    judge: str | None = None,
    arm: str | None = None,
    attack: str | None = None,
    most: int = 4,
    harmful_text: HarmfulText = "auto",
) -> View:
    """Show the samples behind every cell of the matrix, `most` of each, those that succeed first.

    One disclosure a cell. `judge` None: the first. `arm` and `attack` choose some cells. Text of harmful prompts is
    shown for a classroom-safe set, withheld of any other unless `harmful_text` says otherwise ("blur": covered until
    opened, "show").
    """
    named = judge or (judgements[0].judge if judgements else None)
    cells: dict[tuple[str, str, str, str], list[Shown]] = {}
    for s in shown_samples(attacks, completions, judgements, named):
        if arm in (None, s.arm) and attack in (None, s.attempt.attack):
            cells.setdefault((s.attempt.attack, s.attempt.where, s.attempt.label, s.arm), []).append(s)
    families: dict[str, list[str]] = {}
    rows = []
    for family, where, label, who in sorted(cells, key=lambda c: _place(c, list(cells))):
        inside = cells[family, where, label, who]
        chosen = sorted(inside, key=lambda s: ORDER.index(s.verdict) if s.verdict in ORDER else len(ORDER))[:most]
        counts = Counter(s.verdict for s in inside)
        tally = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
        body = "".join(_sample(s, harmful_text) for s in chosen)
        left = len(inside) - len(chosen)
        more = notes(f"and {left} more in the records") if left else ""
        head = legible.sentence(f"{where}, {label} · {who}: {tally} (n = {len(inside)})")
        families.setdefault(family, []).append(
            disclosure(head, f'<div style="padding-inline-start:1rem">{body}{more}</div>')
        )
        rows += [_row(s, harmful_text) for s in chosen]
    parts = [
        disclosure(
            f"{legible.sentence(family)}: {len(inside)} cells",
            f'<div style="padding-inline-start:1.2rem">{"".join(inside)}</div>',
        )
        for family, inside in families.items()
    ]
    title = "Samples behind the numbers"
    said = f"Judged by {named}: {len(cells)} cells, at most {most} samples of each."
    lines = [f"{r['where']} · {r['arm']} · {r['verdict']}: {r['text']}" for r in rows]
    return View(
        title=title,
        body=section("samples", title, titled(title, soft=said), *parts),
        text="\n".join([f"{title}. {said}", *lines]),
        rows=tuple(rows),
    )


def _place(cell: tuple[str, ...], cells: Sequence[tuple[str, ...]]) -> tuple[int, ...]:
    """Return where a cell stands: attacks, settings, labels, then arms, each in the order in which it came."""
    return tuple([c[i] for c in cells].index(cell[i]) for i in range(len(cell)))


def shown_samples(
    attacks: Sequence[AttackSet],
    completions: Sequence[CompletionSet],
    judgements: Sequence[JudgementSet],
    judge: str | None,
) -> list[Shown]:
    """Return every completion of these attempts with what one judge says of it."""
    known = {a.attempt_id: (a, s.classroom_safe) for s in attacks for a in s.attempts}
    said: Mapping[tuple[str, str], Judgement] = {
        (j.arm, one.attempt_id): one for j in judgements if j.judge == judge for one in j.judgements
    }
    return [
        Shown(
            arm=done.arm,
            attempt=known[c.attempt_id][0],
            completion=c,
            judgement=said.get((done.arm, c.attempt_id)),
            classroom_safe=known[c.attempt_id][1],
        )
        for done in completions
        for c in done.completions
        if c.attempt_id in known
    ]


def _sample(s: Shown, harmful_text: HarmfulText) -> str:
    a, c = s.attempt, s.completion
    treat = treatment_of(a.label, s.classroom_safe, harmful_text)
    sent = "" if a.messages == (("user", a.request),) else quoted("sent", "\n".join(text for _, text in a.messages))
    answer = as_treated(treat, lambda covered: withheld(s) if covered else sent + _answer(a.prefix, c.text), "answer")
    judged = s.judgement
    why = "" if judged is None else judged.unscored or judged.why or ""
    score = "" if judged is None or judged.p_harmful is None else f", p(harmful) = {judged.p_harmful:g}"
    return (
        f'<p class="wb-title"><span class="wb-tag wb-{a.label}">{a.label}</span>'
        f'<span class="wb-tag">{html_text(s.verdict)}</span>{html_text(legible.label(a.prompt_id))} '
        f'<span class="wb-soft">{html_text(legible.sentence(why + score, 200))}</span></p>'
        f"{quoted('prompt', a.request)}{answer}"
    )


def _answer(prefix: str, text: str) -> str:
    given = f'<span class="t wb-given">{html_text(legible.prose(prefix))}</span>' if prefix else ""
    turn = '<sub class="wb-turn">▸ continues</sub>' if prefix else ""
    silent = '<span class="wb-soft">(no text)</span>' if not text else ""
    return (
        '<div class="wb-text" style="font-size:14px;line-height:1.75">'
        f'{given}{turn}<span class="t">{html_text(legible.prose(text))}</span>{silent}</div>'
    )


def withheld(s: Shown) -> str:
    """Return what stands in the place of a withheld answer: its length and hash."""
    text = s.attempt.prefix + s.completion.text
    return f'<div class="wb-text" style="font-size:14px"><span class="wb-hid">{COVER * 8}</span></div>' + notes(
        f"{len(text):,} characters withheld; SHA-256 {digest(text)}… (first 12 digits)"
    )


def _row(s: Shown, harmful_text: HarmfulText) -> dict[str, Any]:
    treat = treatment_of(s.attempt.label, s.classroom_safe, harmful_text)
    return {
        "arm": s.arm,
        "attack": s.attempt.attack,
        "where": s.attempt.where,
        "prompt_id": s.attempt.prompt_id,
        "verdict": s.verdict,
        "text": legible.sentence(s.completion.text, 300) if treat == "show" else COVER,
    }
