"""Plotly figures of records. Positions are 1-based, axes say unit and direction, estimates show n and interval.

A figure has dark ink on a white card, so that it reads in any front end; inside our own pages the style sheet of
`views` makes ink and grid follow the theme. `layout.meta` holds a title, a summary and the drawn numbers as a table.
"""

from __future__ import annotations

from workbench.display.figures.curves import curves, panel
from workbench.display.figures.drawn import figure_svg
from workbench.display.figures.files import save_figure
from workbench.display.figures.frequencies import base_favored_frequencies
from workbench.display.figures.frontier import penalty_frontier, penalty_leverage
from workbench.display.figures.gradients import gradients
from workbench.display.figures.heat_map import retention_heat_map
from workbench.display.figures.layers import layers
from workbench.display.figures.page import CONFIG, figure_spec
from workbench.display.figures.sampling import sampling_surface
from workbench.display.figures.scorecard import safety_capability, success_by_prefix
from workbench.display.figures.training import training_curves, training_film

__all__ = [
    "CONFIG",
    "base_favored_frequencies",
    "curves",
    "figure_spec",
    "figure_svg",
    "gradients",
    "layers",
    "panel",
    "penalty_frontier",
    "penalty_leverage",
    "retention_heat_map",
    "safety_capability",
    "sampling_surface",
    "save_figure",
    "success_by_prefix",
    "training_curves",
    "training_film",
]
