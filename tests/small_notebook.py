"""A notebook for tests, made on the spot: the shape of the real ones, with cells that the test chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PARAMETERS = """\
from typing import Optional
limit: int = 3  # how many prompts
prefix_tokens: list[int] = [0, 5]  # given tokens, one run each
pair: Optional[str] = None  # a preset
strength: float = 1.0  # the paper's alpha
thinking: bool = False  # with its thinking block
out: str = "runs/small"  # the folder to write into"""

WRITE = """\
import json
from pathlib import Path
rows = [{"name": "limit", "value": limit}]
Path(out, "results.json").write_text(json.dumps({"schema": 2, "rows": rows}))
print(out)"""


def write_notebook(
    path: Path, *cells: str, parameters: str = PARAMETERS, smoke: Mapping[str, Any] | None = None
) -> Path:
    """Write a notebook of a parameters cell and the given code cells; a cell that starts with # is markdown."""
    body = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
            "workbench": {"smoke": dict(smoke or {})},
        },
        "cells": [
            _cell(i, source, ["parameters"] if i == 0 and parameters else [])
            for i, source in enumerate([parameters, *cells] if parameters else cells)
        ],
    }
    path.write_text(json.dumps(body), "utf-8")
    return path


def _cell(number: int, source: str, tags: list[str]) -> dict[str, Any]:
    cell: dict[str, Any] = {"id": f"cell-{number}", "metadata": {"tags": tags} if tags else {}, "source": source}
    if source.startswith("# "):
        return {**cell, "cell_type": "markdown"}
    return {**cell, "cell_type": "code", "execution_count": None, "outputs": []}
