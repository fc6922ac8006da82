"""A figure as a file for a paper: PNG, SVG or PDF."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import plotly.graph_objects as go

from workbench.core.errors import NotPresent, ParameterError
from workbench.core.files import atomic_file
from workbench.display.figures.page import figure_spec

FORMATS = ("png", "svg", "pdf")
INSTALL = "install it with `pip install 'deep-alignment-workbench[figures]'`"


def save_figure(figure: go.Figure, path: str | Path, *, width: int = 900, scale: float = 2.0) -> Path:
    """Draw a figure into a file, PNG, SVG or PDF by its ending, and return its path. Needs no network.

    `width` is in pixels (points in a PDF); the height is the figure's own. `scale` multiplies the pixels of a PNG.
    Raises ParameterError for another ending or sizes below 1, NotPresent where kaleido or a Chrome is missing.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise ParameterError(f"{path.name!r} ends in {path.suffix!r}; a figure is saved as {', '.join(FORMATS)}")
    if width < 1 or not scale > 0:
        raise ParameterError(f"width={width} and scale={scale}; both must be above 0")
    if importlib.util.find_spec("kaleido") is None:
        raise NotPresent(f"figures are drawn into files by kaleido, which is not installed: {INSTALL}")
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    size = {"width": width, "height": int(figure.layout.height or 400), "scale": scale if kind == "png" else 1}
    try:  # its page would ask the network for MathJax
        drawn = kaleido.calc_fig_sync(figure_spec(figure), opts={"format": kind, **size}, kopts={"mathjax": False})
    except ChromeNotFoundError as error:
        raise NotPresent(
            "figures are drawn into files by a Chrome or Chromium, and none was found: install one, or name it in the "
            "environment variable BROWSER_PATH"
        ) from error
    with atomic_file(path) as partial:
        partial.write_bytes(drawn)
    return path
