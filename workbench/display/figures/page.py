"""How plotly shows a figure where a notebook is live."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

CONFIG: Mapping[str, Any] = {
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "typesetMath": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "toggleSpikelines"],
}
"""How every figure is shown: no upload, no logo, no LaTeX in labels."""


def figure_spec(figure: go.Figure) -> dict[str, Any]:
    """Return a figure's data and layout as plotly.js takes them, without the table that a view shows beside it."""
    spec = json.loads(str(figure.to_json(engine="json")))
    spec["layout"].pop("meta", None)
    return {"data": spec["data"], "layout": spec["layout"]}
