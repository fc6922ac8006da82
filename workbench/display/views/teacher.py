"""What a training's teacher says on harmful texts, token by token, beside what the aligned model says there."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from workbench.core import legible
from workbench.core.quantities import QUANTITIES
from workbench.display.views.responses import (
    HarmfulText,
    as_treated,
    inner_html,
    label_of,
    running_text,
    token_html,
    treatment_of,
)
from workbench.display.views.scales import scale_html
from workbench.display.views.scorecard import in_full
from workbench.display.views.view import (
    Column,
    View,
    disclosure,
    notes,
    number,
    plain_table,
    quoted,
    section,
    table,
    titled,
)
from workbench.training.records import TeacherPreview, TeacherText

FILL = QUANTITIES["kl_aligned_base_nats"]
"""Its levels and colours, used here for KL(teacher ‖ aligned)."""

LEAST = 0.005
"""A token less likely than this is not named, unless it is the likeliest."""

_COLUMNS = (
    Column("position", number=True),
    Column("token in the text", "token", token=True),
    Column("aligned", "student", token=True),
    Column("teacher", token=True),
    Column("another first choice", "flip", token=True),
    Column("KL(teacher ‖ aligned), nats", "kl_nats", number=True),
)
_PUSHED = (
    Column(heading="pushed down (first of M)", key="pushed", token=True),
    Column("aligned's probability on M", "pushed_mass", number=True),
)


def teacher_view(preview: TeacherPreview, *, classroom_safe: bool, harmful_text: HarmfulText = "auto") -> View:
    """Show a preview's texts: each token filled by KL(teacher || aligned), other first choices underlined; with tables.

    `classroom_safe` says whether harmful text may be read as it is where `harmful_text` is "auto"; where it is
    withheld, so are both sides' tokens.
    """
    title = f"What the teacher of {preview.arm} says"
    said = [f"Teacher: {preview.said}."]
    if preview.flip_rate.value is not None:
        said.append(
            f"Share of these positions at which its first choice is not aligned's: {in_full(preview.flip_rate)}, 95 % "
            "interval, n counts positions; at 0 it teaches no other token. Distributions are at temperature 1."
        )
    if preview.hybrid_flips:
        rates = "; ".join(f"lambda {w:g}: {in_full(e)}" for w, e in preview.hybrid_flips)
        said.append(f"The hybrid teacher along all harmful responses, whatever the arm, share of positions: {rates}.")
    parts = [notes(*said, css="wb-note")]
    rows: list[dict[str, Any]] = []
    lines = [title, *said]
    if preview.texts:
        treat = treatment_of("harmful", classroom_safe, harmful_text)
        parts.append(scale_html(FILL, "KL(teacher ‖ aligned), nats"))
        parts.append(
            '<div class="wb-legend wb-soft"><span><b class="wb-favored">underlined</b> the teacher\'s first choice is '
            "another token than aligned's</span></div>"
        )
        for text in preview.texts:
            drawn = as_treated(treat, functools.partial(_scene, text), "text")
            parts.append(titled(legible.sentence(text.name), "harmful") + quoted("prompt", text.prompt) + drawn)
            shown = _rows(text, treat != "show")
            lines += [f"{text.name}: {legible.sentence(text.prompt)}", plain_table(_columns(text), shown)]
            rows += [{"text": text.name, **row} for row in shown]
    return View(title=title, body=section("teacher", title, *parts), text="\n".join(lines), rows=tuple(rows))


def _columns(text: TeacherText) -> tuple[Column, ...]:
    return (*_COLUMNS, *_PUSHED) if any(text.pushed) else _COLUMNS


def _rows(text: TeacherText, covered: bool) -> list[dict[str, Any]]:
    def named(labels: tuple[str, ...], probabilities: np.ndarray) -> str:
        both = list(zip(labels, map(float, probabilities), strict=True))
        kept = both[:1] + [(n, p) for n, p in both[1:] if p >= LEAST]
        return ", ".join(f"{label_of(n, covered)} {number(p, 2)}" for n, p in kept)

    return [
        {
            "position": t + 1,
            "token": label_of(piece, covered),
            "student": named(text.student[t], text.student_probability[t]),
            "teacher": named(text.teacher[t], text.teacher_probability[t]),
            "flip": "yes" if text.flips[t] else "no",
            "kl_nats": float(text.kl_teacher_student_nats[t]),
            "pushed": ", ".join(label_of(n, covered) for n in text.pushed[t]) or None,
            "pushed_mass": float(text.pushed_mass[t]),
        }
        for t, piece in enumerate(text.pieces)
    ]


def _scene(text: TeacherText, covered: bool) -> str:
    rows = _rows(text, covered)
    levels = FILL.levels(text.kl_teacher_student_nats.astype(np.float64))
    tokens = [f'<span class="wb-given">{inner_html(p, covered)}</span>' for p in text.given]
    if text.given:
        tokens.append('<sub class="wb-turn">▸ given; from here on it is taught</sub>')
    for t, row in enumerate(rows):
        card = (
            f"{row['token']}  position {row['position']}\naligned: {row['student']}\nteacher: {row['teacher']}\n"
            f"KL(teacher ‖ aligned) {number(row['kl_nats'])} nats"
            + (f"\npushed down: {row['pushed']}" if row["pushed"] else "")
        )
        piece = inner_html(text.pieces[t], covered)
        held = f"<b>{piece}</b>" if text.flips[t] else piece
        tokens.append(token_html(f"t {FILL.css(int(levels[t]))}", card, held, t))
    running = running_text(f"Text that is taught{', withheld' if covered else ''}", tokens, len(rows))
    caption = f"{legible.sentence(text.name)}: both sides at each position, probabilities; n = {len(rows)} positions."
    data = table(caption, _columns(text), rows, kind="wb-data", tall=True)  # the cards on hover and focus read it
    name = f"{text.name}, taught"
    return section("tokens", name, running, disclosure(f"All {len(rows)} positions as a table", data))
