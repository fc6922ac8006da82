"""A notebook's code cells run in this process, in order, as a user runs them; parameters replace the first cell's."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.running.parameters import resolve_parameters

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def run_cells(notebook: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Run a notebook by its name and return its names. Raises what a cell raises."""
    path = NOTEBOOKS / f"{notebook}.ipynb"
    cells = ["".join(c["source"]) for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    space: dict[str, Any] = {"__name__": "__main__"}
    values = resolve_parameters(path, given)
    exec(cells[0], space)
    space |= values
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in cells[1:]:
            exec(cell, space)
    return space
