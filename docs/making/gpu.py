"""The table of `make gpu`: what each check of a device found, from benchmarks/gpu.json."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.json"
WORDS = {True: "holds", False: "**fails**", None: "not measured"}


def table() -> str:
    """Return a table for each pair and device; and that no GPU was there yet, where none was."""
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    parts = []
    for name, run in kept.items():
        rows = [f"| {c['name']} | {c['expected']} | {c['found']} | {WORDS[c['holds']]} |" for c in run["checks"]]
        head = f"**{name}** ({run['device']}, torch {run['torch']}, {run['date']})"
        parts.append("\n".join([head, "", "| check | expected | found | |", "| --- | --- | --- | --- |", *rows]))
    if not any("on cuda" in name for name in kept):
        parts.insert(0, "No GPU was there yet: nothing below is measured on one.")
    return "\n\n".join(parts)
