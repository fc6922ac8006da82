"""A plotly figure as a view: interactive where a notebook is live, a drawing and its numbers as a table everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from workbench.core.legible import html_text
from workbench.display.figures import CONFIG, figure_spec, figure_svg
from workbench.display.views.view import Column, View, cell, disclosure, plain_table, section, style_text, table

PLOTLY_MIME = "application/vnd.plotly.v1+json"


@dataclass(frozen=True, kw_only=True)
class FigureView(View):
    """A view of a figure. JupyterLab draws it with plotly; elsewhere it is SVG, which needs no script.

    JupyterLab also fits it to its output: plotly doing the same would let its height collapse at the first resize. A
    notebook holds the figure's numbers already, so there the HTML is the drawing `alone`, without their table.
    """

    figure: go.Figure
    alone: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        plain = {"text/html": f"<style>{style_text()}</style>{self.alone}", "text/plain": self.text}
        if (self.figure.layout.meta or {}).get("still"):
            return plain
        spec = figure_spec(self.figure)
        live = {"data": spec["data"], "layout": spec["layout"], "config": {**CONFIG, "responsive": False}}
        return {PLOTLY_MIME: live, **plain}


def figure_view(figure: go.Figure, title: str | None = None) -> FigureView:
    """Return a figure as a view: caption, drawing, and the drawn numbers as a data table."""
    meta: Mapping[str, Any] = figure.layout.meta or {}
    title = str(meta.get("title", "Figure")) if title is None else title
    summary = str(meta.get("summary", ""))
    names = [str(c) for c in meta.get("columns", ())]
    rows = tuple(dict(zip(names, row, strict=True)) for row in meta.get("rows", ()))
    fixed = {n: rows[0][n] for n in names if len(rows) > 1 and len({r[n] for r in rows}) == 1}
    same = "".join(f"; {n}: {cell(v)}" for n, v in fixed.items())
    columns = [
        Column(heading=n, key=n, number=any(isinstance(r[n], int | float) for r in rows), token=n == "token")
        for n in names
        if n not in fixed
    ]
    data = (
        disclosure(
            f"The {len(rows):,} drawn numbers as a table",
            table(f"{summary.rstrip('.')}{same}.", columns, rows, kind="wb-data", tall=True),
        )
        if rows
        else ""
    )
    drawn = (
        f'<figure><figcaption><b class="wb-title">{html_text(title)}.</b> {html_text(summary)}</figcaption>'
        f"{figure_svg(figure)}</figure>"
    )
    body, alone = section("figure", title, drawn, data), section("figure", title, drawn)
    text = f"{title}. {summary}\n{plain_table(columns, rows[:20])}"
    text += f"\n({len(rows) - 20} more rows)" if len(rows) > 20 else ""
    return FigureView(title=title, body=body, text=text, rows=rows, figure=figure, alone=alone)
