"""The film of a training on its texts: each fixed text before training and at a step that a slider chooses."""

from __future__ import annotations

import numpy as np

from workbench.core import legible
from workbench.core.quantities import QUANTITIES, Quantity
from workbench.display.views.responses import (
    HarmfulText,
    Treatment,
    as_treated,
    inner_html,
    label_of,
    running_text,
    token_html,
    treatment_of,
)
from workbench.display.views.scales import scale_html, sign_html
from workbench.display.views.view import View, number, quoted, section, titled
from workbench.training.records import FilmText, TrainingFilm

RETENTION = QUANTITIES["retention"]
PRICE = QUANTITIES["kl_aligned_base_nats"]
"""Its levels and colours, used here for KL(aligned ‖ student)."""
_SAID = {
    "harmful": "retention = 1 − total variation of student and base: coloured is still the base model",
    "harmless": "KL(aligned ‖ student), nats a token: coloured is no longer what aligned says",
}


def film_tokens(film: TrainingFilm | None, *, classroom_safe: bool, harmful_text: HarmfulText = "auto") -> View:
    """Show the film's texts token by token, before training and below it at the step that a slider chooses.

    Harmful texts are filled by retention, which has to fall late in the text, hatched where both models are nearly
    certain; harmless ones by KL(aligned || student),
    which has to stay near 0. Without scripts the last frame is shown. `classroom_safe` says whether harmful text may be
    read as it is where `harmful_text` is "auto". A film with no frame or no text, or no film at all, says so.
    """
    title = "The film on its texts"
    if film is None or not len(film.steps) or not film.texts:
        said = "No film was taken." if film is None else f"The film has no {'frame' if film.texts else 'text'}."
        return View(title=title, body=section("film", title, f"<p>{said}</p>"), text=said)
    steps = film.steps.tolist()
    last = len(steps) - 1
    known = f'data-steps="{" ".join(map(str, steps))}" data-lm-suppress-shortcuts="true"'
    dial = (
        f'<p><label>optimizer step <input class="wb-dial" type="range" min="0" max="{last}" value="{last}" '
        f'aria-valuetext="step {steps[-1]}" {known}></label> <output>{steps[-1]}</output> '
        f'<span class="wb-soft">of {steps[-1]}; {len(steps)} frames</span></p>'
    )
    shown, lines, rows = [dial], [title], []
    for label in dict.fromkeys(t.label for t in film.texts):
        kind = "harmful" if label == "harmful" else "harmless"
        shown.append(scale_html(RETENTION if kind == "harmful" else PRICE, _SAID[kind]))
        if kind == "harmful":
            shown.append(sign_html("sure"))
        for n, text in enumerate(film.texts):
            if text.label != label:
                continue
            quantity, values = _of(film, n)
            covered = treatment_of(label, classroom_safe, harmful_text)
            shown.append(_scene(text, quantity, values, _fills(film, n, quantity, values), steps, covered))
            name = "retention" if quantity is RETENTION else "KL(aligned ‖ student), nats"
            means = [number(float(np.nanmean(values[i]))) if values.size else "–" for i in (0, -1)]
            lines.append(
                f"{text.name} ({label}, {values.shape[1]} tokens): mean {name} {means[0]} before, {means[1]} at the end"
            )
            same = {"text": text.name, "label": label, "quantity": name}
            rows += [
                {**same, "step": step, "position": t + 1, "value": float(value)}
                for step, frame in zip(steps, values, strict=True)
                for t, value in enumerate(frame)
            ]
    return View(title=title, body=section("film", title, *shown), text="\n".join(lines), rows=tuple(rows))


def _of(film: TrainingFilm, n: int) -> tuple[Quantity, np.ndarray]:
    """Return what fills a text, and its values as (step, token), without what lies beyond the text."""
    harmful = film.texts[n].label == "harmful"
    values = (film.retention if harmful else film.kl_aligned_student_nats)[:, n, : len(film.texts[n].pieces)]
    return (RETENTION if harmful else PRICE), values.astype(np.float64)


def _fills(film: TrainingFilm, n: int, quantity: Quantity, values: np.ndarray) -> list[str]:
    """Return each frame's fills, one character a token: its level, or "s" where both models are nearly certain."""
    levels = np.stack([quantity.levels(frame) for frame in values]).astype(str)
    if quantity is RETENTION:
        sure = ~(film.entropy_student_nats[:, n, : values.shape[1]] > film.entropy_floor_nats)
        levels = np.where(sure & (levels != "0"), "s", levels)
    return ["".join(frame) for frame in levels]


def _scene(
    text: FilmText, quantity: Quantity, values: np.ndarray, fills: list[str], steps: list[int], treat: Treatment
) -> str:
    drawn = as_treated(treat, lambda covered: _strips(text, quantity, values, fills, steps, covered), "response")
    return titled(legible.sentence(text.name), text.label) + quoted("prompt", text.prompt) + drawn


def _strips(
    text: FilmText, quantity: Quantity, values: np.ndarray, fills: list[str], steps: list[int], covered: bool
) -> str:
    def strip(frame: int, name: str, moves: bool) -> str:
        tokens = []
        for t, piece in enumerate(text.pieces):
            along = ", ".join(f"{step}: {number(float(v))}" for step, v in zip(steps, values[:, t], strict=True))
            frames = f' data-levels="{"".join(frame[t] for frame in fills)}"' if moves else ""
            fill = fills[frame][t]
            css = f"t {'wb-sure' if fill == 's' else quantity.css(int(fill))}"
            title = f"{label_of(piece, covered)}  position {t + 1}; by step {along}"
            tokens.append(token_html(css, title, inner_html(piece, covered), t, more=frames))
        running = running_text(name, tokens, len(tokens))
        return f'<div class="wb-frame"><span class="wb-soft">{name}</span>{running}</div>'

    return strip(0, "before training", False) + strip(-1, "at the chosen step", True)
