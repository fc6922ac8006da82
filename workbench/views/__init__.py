"""Static HTML of records: text with its tokens filled, tables, legend, verdict. Needs no torch, kernel or network.

Each function returns a `View`, which displays itself in a notebook (`text/html` and `text/plain`). Text from models and
prompts is text everywhere, never markup.
"""

from __future__ import annotations

from workbench.views.distributions import top_k_table
from workbench.views.plots import FigureView, figure_view
from workbench.views.responses import HarmfulText
from workbench.views.scales import QUANTITIES, READING, legend
from workbench.views.summaries import (
    contrasts_table,
    divergent_table,
    frequency_table,
    method_card,
    prompt_summary,
    verdict,
)
from workbench.views.tokens import token_view, tokens_table
from workbench.views.view import View

__all__ = [
    "QUANTITIES",
    "READING",
    "FigureView",
    "HarmfulText",
    "View",
    "contrasts_table",
    "divergent_table",
    "figure_view",
    "frequency_table",
    "legend",
    "method_card",
    "prompt_summary",
    "token_view",
    "tokens_table",
    "top_k_table",
    "verdict",
]
