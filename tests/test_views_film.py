"""The film on its texts: what fills a token at each step, what is covered, and what the slider has to know."""

from __future__ import annotations

import re

import numpy as np
import pytest

from workbench.display.views import film_tokens
from workbench.training.records import FilmText, TrainingFilm

STEPS = np.array([0, 20, 40], np.int32)


def film(text: str = "wires") -> TrainingFilm:
    """Make a film of three frames on a harmful text of three tokens and a harmless one of two."""
    nothing = np.nan
    retention = [
        [[1.0, 0.98, 0.95], [0.9, 0.9, nothing]],
        [[0.6] * 3, [0.9, 0.9, nothing]],
        [[0.1] * 3, [0.9, 0.9, nothing]],
    ]
    price = [[[9.0] * 3, [0.0, 0.0, nothing]], [[9.0] * 3, [0.1, 0.0, nothing]], [[9.0] * 3, [0.3, 3.0, nothing]]]
    return TrainingFilm(
        texts=(
            FilmText(name="h", label="harmful", prompt="Say it <now>", pieces=("cut ", "the ", text)),
            FilmText(name="q", label="harmless", prompt="Greet", pieces=("good ", "day")),
        ),
        steps=STEPS,
        kl_student_base_nats=np.zeros((3, 2, 3), np.float32),
        retention=np.array(retention, np.float32),
        kl_aligned_student_nats=np.array(price, np.float32),
        entropy_student_nats=np.array([[[0.5, 0.05, 0.5], [0.0] * 3]] + [[[0.05] * 3, [0.0] * 3]] * 2, np.float32),
    )


def test_the_film_keeps_levels_and_numbers() -> None:
    view = film_tokens(film(), classroom_safe=True)
    assert re.findall(r'data-levels="(\w+)"', view.body) == ["5s0", "ss0", "3s0", "012", "005"]
    moving = re.findall(r'<span class="t ?([^"]*)" data-levels', view.body)
    assert moving == ["", "", "", "wb-slate2", "wb-slate5"], "without a script the last frame is shown"
    still = re.findall(r'<span class="t ?([^"]*)"(?: tabindex="0")? title', view.body)
    assert still == ["wb-slate5", "wb-sure", "wb-slate3", "", ""], "above it, what was there before training"
    assert "both models nearly certain" in view.body
    assert 'data-steps="0 20 40"' in view.body
    assert "<output>40</output>" in view.body
    assert "by step 0: 0.980, 20: 0.600, 40: 0.100" in view.body
    view = film_tokens(film(), classroom_safe=True)
    assert "retention = 1 − total variation of student and base" in view.body
    assert "KL(aligned ‖ student), nats a token" in view.body
    assert len(view.rows) == 3 * (3 + 2)
    row = {"text": "h", "label": "harmful", "quantity": "retention", "step": 0, "position": 3}
    assert view.rows[2] == {**row, "value": pytest.approx(0.95)}
    assert "h (harmful, 3 tokens): mean retention 0.977 before, 0.100 at the end" in view.text
    assert "q (harmless, 2 tokens): mean KL(aligned ‖ student), nats 0 before, 1.65 at the end" in view.text


def test_harmful_text_is_covered_and_text_is_text() -> None:
    hidden = film_tokens(film(), classroom_safe=False)
    assert "wires" not in hidden.html
    assert "good" in hidden.html
    blurred = film_tokens(film(), classroom_safe=False, harmful_text="blur")
    assert "Reveal this harmful response" in blurred.body
    assert blurred.body.index("wires") < blurred.body.index("wb-covered")
    assert "wires" in film_tokens(film(), classroom_safe=True).html
    view = film_tokens(film("<img src=x onerror=alert(1)>"), classroom_safe=True)
    assert "<img" not in view.body
    assert "&lt;img" in view.body
    assert "Say it &lt;now&gt;" in view.body
    none = film()
    shape = np.zeros((0, 2, 3), np.float32)
    empty = TrainingFilm(
        texts=none.texts,
        steps=np.zeros(0, np.int32),
        kl_student_base_nats=shape,
        retention=shape,
        kl_aligned_student_nats=shape,
        entropy_student_nats=shape,
    )
    assert film_tokens(empty, classroom_safe=True).text == "The film has no frame."
