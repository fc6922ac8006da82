"""The table of model families: what of each was run, from the results that `make families` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests" / "families" / "results.json"
COLUMNS = {
    "01_diagnosis": "diagnosis", "02_penalty_tuning": "penalty", "03_distillation": "distillation",
    "04_evaluation": "evaluation", "reference": "numbers against the reference",
}  # fmt: skip


def table(results: dict[str, dict[str, Any]] | None = None) -> str:
    """Return the table as Markdown, and the sentences of what is refused below it."""
    if results is None:
        if not RESULTS.exists():
            return "Not run yet."
        results = json.loads(RESULTS.read_text("utf-8"))
    heads = ["family", *COLUMNS.values(), "date"]
    lines = [heads, ["---"] * len(heads)]
    said: dict[str, list[str]] = {}
    for name, found in results.items():
        cells = [str(found.get(key, "not run")) for key in COLUMNS]
        for cell in cells:
            if ": " in cell:
                said.setdefault(cell.partition(": ")[2], []).append(name)
        lines.append([name, *(cell.partition(":")[0] for cell in cells), found["date"]])
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    reasons = "\n".join(f"- {', '.join(dict.fromkeys(names))}: `{text}`" for text, names in said.items())
    return f"{rows}\n\n{reasons}" if reasons else rows
