"""The curves that stand under a training's progress bar."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from workbench.core.progress import Progress
from workbench.training.live import HEIGHT, WIDTH, live_curves
from workbench.training.records import StepRecord


def step(n: int, **parts: float) -> StepRecord:
    return StepRecord(
        step=n, loss=1.0, parts=parts, positions={}, learning_rate=1e-3, gradient_norm=1.0, seconds=0.1
    )  # fmt: skip


def panels(made: str) -> list[Any]:
    return list(ElementTree.fromstring(made).iter("figure"))


def test_curves_have_their_points_and_nothing_is_made_up() -> None:
    history = [step(n, recovery=2.0 / n, utility=0.01 * n) for n in range(1, 1001)]
    looks = [(0, 0.99, 0.0), (500, 0.4, 0.01), (1000, 0.25, 0.02)]
    made = live_curves(history, looks, 1000)
    loss, harmful, harmless = panels(made)
    assert len(list(loss.iter("polyline"))) == 2
    for line in ElementTree.fromstring(made).iter("polyline"):
        points = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
        assert len(points) <= 300
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert "recovery</b> 0.002" in made
    assert "utility</b> 10" in made
    first, *_, last = next(harmful.iter("polyline")).attrib["points"].split()
    assert float(first.split(",")[1]) < float(last.split(",")[1]), "retention falls: lower on the screen is less"
    assert "".join(harmful.itertext()).endswith("harmful 0.25")
    assert "nats" in "".join(harmless.itertext())
    (only,) = panels(live_curves([], [], 10))
    assert "".join(only.itertext()).endswith("now nothing")
    nothing = float("nan")
    assert len(panels(live_curves([step(1, recovery=1.0)], [(0, 0.9, nothing)], 10))) == 2
    broken = live_curves([step(1, recovery=nothing), step(2, recovery=0.0)], [], 10)
    assert "nan" not in broken


def test_the_bar_shows_what_it_is_given_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            shown.append(data["text/html"])

    class Display:
        @staticmethod
        def display(data: dict[str, str], **_: Any) -> Handle:
            shown.append(data["text/html"])
            return Handle()

    monkeypatch.setattr("workbench.core.progress._in_kernel", lambda: True)
    monkeypatch.setitem(__import__("sys").modules, "IPython.display", Display)
    with Progress("training", 2, "steps", every_s=0.0) as progress:
        progress.picture = lambda: f"<svg>{progress.done}</svg>"
        progress.advance(2)
    assert "svg" not in shown[0]
    assert re.search(r"2/2 steps.*<svg>2</svg>$", shown[-1])
