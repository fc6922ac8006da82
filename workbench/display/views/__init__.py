"""Static HTML of records: text with its tokens filled, tables, legend, verdict. Needs no torch, kernel or network.

Each function returns a `View`, which displays itself in a notebook (`text/html` and `text/plain`). Text from models and
prompts is text everywhere, never markup.
"""

from __future__ import annotations

from workbench.display.views.atlas import atlas
from workbench.display.views.beside import answers
from workbench.display.views.branches import branch_tree
from workbench.display.views.capability import capability_table, tradeoff_table
from workbench.display.views.continuations import ledger_table, side_by_side
from workbench.display.views.distributions import top_k_table
from workbench.display.views.film import film_tokens
from workbench.display.views.first import FirstScreen, Picture, Tile, first_screen
from workbench.display.views.found import found
from workbench.display.views.look import penalty_look
from workbench.display.views.measured import measured, taken
from workbench.display.views.method import card_rows, evaluation_card, paper_table
from workbench.display.views.plots import FigureView, figure_view
from workbench.display.views.responses import HarmfulText
from workbench.display.views.samples import samples_view
from workbench.display.views.scales import legend
from workbench.display.views.scorecard import (
    arms_table,
    attack_matrix,
    categories_table,
    comparisons_table,
    conclusions,
)
from workbench.display.views.summaries import (
    contrasts_table,
    depth_table,
    divergent_table,
    frequency_table,
    method_card,
    prompt_summary,
    verdict,
)
from workbench.display.views.sweep import penalty_check, recommendation, sweep_table
from workbench.display.views.teacher import teacher_view
from workbench.display.views.tokens import token_view, tokens_table
from workbench.display.views.training import arms_comparison, training_summary
from workbench.display.views.view import View

__all__ = [
    "FigureView",
    "FirstScreen",
    "HarmfulText",
    "Picture",
    "Tile",
    "View",
    "answers",
    "arms_comparison",
    "arms_table",
    "atlas",
    "attack_matrix",
    "branch_tree",
    "capability_table",
    "card_rows",
    "categories_table",
    "comparisons_table",
    "conclusions",
    "contrasts_table",
    "depth_table",
    "divergent_table",
    "evaluation_card",
    "figure_view",
    "film_tokens",
    "first_screen",
    "found",
    "frequency_table",
    "ledger_table",
    "legend",
    "measured",
    "method_card",
    "paper_table",
    "penalty_check",
    "penalty_look",
    "prompt_summary",
    "recommendation",
    "samples_view",
    "side_by_side",
    "sweep_table",
    "taken",
    "teacher_view",
    "token_view",
    "tokens_table",
    "top_k_table",
    "tradeoff_table",
    "training_summary",
    "verdict",
]
