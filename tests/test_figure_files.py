"""Figures as files: each format drawn by a real browser, and what is refused before anything is drawn."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import plotly.graph_objects as go
import pytest

from tests.conftest import CHROMIUM
from tests.errors import refuses
from workbench.core.errors import NotPresent, ParameterError
from workbench.display.figures import save_figure

FIGURE = go.Figure(go.Scatter(x=[1, 2, 3], y=[0.5, 0.1, 0.2], name="<b>bold</b>"), layout={"height": 300})


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install the package `chromium`")
@pytest.mark.parametrize(("ending", "start"), [("svg", b"<svg"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")])
def test_a_figure_is_drawn_into_a_file(tmp_path: Path, ending: str, start: bytes) -> None:
    path = save_figure(FIGURE, tmp_path / "new" / f"x.{ending}", width=640)
    assert path.read_bytes().startswith(start)
    if ending == "PNG":
        width, height = (int.from_bytes(path.read_bytes()[i : i + 4], "big") for i in (16, 20))
        assert (width, height) == (1280, 600)


def test_what_cannot_be_drawn_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses(lambda: save_figure(FIGURE, tmp_path / "x.gif"), ParameterError, "'x.gif'", "'.gif'")
    refuses(lambda: save_figure(FIGURE, tmp_path / "x.svg", width=0), ParameterError, "width=0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refuses(lambda: save_figure(FIGURE, tmp_path / "x.svg"), NotPresent, "deep-alignment-workbench[figures]")
    assert not any(tmp_path.iterdir())
