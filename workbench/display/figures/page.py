"""A figure in a page: how plotly shows it, its drawing as HTML, and plotly.js itself, once a page and inline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

CONFIG: Mapping[str, Any] = {
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "typesetMath": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "toggleSpikelines"],
}
"""How every figure is shown: no upload, no logo, no LaTeX in labels."""


def plotlyjs_tag() -> str:
    """Return plotly.js as one inline <script>, for a page that shows figures: once a page, no network."""
    return f'<script>window.PlotlyConfig={{MathJaxConfig:"local"}};</script><script>{get_plotlyjs()}</script>'


def figure_spec(figure: go.Figure) -> dict[str, Any]:
    """Return a figure's data and layout as plotly.js takes them, without the table that a view shows beside it."""
    spec = json.loads(str(figure.to_json(engine="json")))
    spec["layout"].pop("meta", None)
    return {"data": spec["data"], "layout": spec["layout"]}


def figure_html(figure: go.Figure) -> str:
    """Return a figure as an HTML fragment for a page that has `plotlyjs_tag()`; draws when the page has loaded."""
    spec = (
        json.dumps(figure_spec(figure), ensure_ascii=False)
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )
    name = "wb-" + hashlib.sha256(spec.encode()).hexdigest()[:12]
    height = int(figure.layout.height or 400)
    config = json.dumps(CONFIG)
    return (
        f'<div class="wb-plot" id="{name}" style="min-height:{height}px"></div><script>(() => {{ const draw = () => {{ '
        f'const box = document.getElementById("{name}"); if (!window.Plotly || !box) return; const spec = {spec}; '
        f"box.textContent = ''; Plotly.newPlot(box, spec.data, spec.layout, {config}); }}; "
        'if (window.Plotly) draw(); else addEventListener("load", draw); })();</script>'
    )
