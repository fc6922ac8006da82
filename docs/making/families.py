"""The table of model families: what of each was run, from the results that `make families` writes.

`python -m docs.making.families` prints the table; `--write` puts it into docs/how-to/families.md.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "families.md"
RESULTS = ROOT / "tests" / "families" / "results.json"
MARKS = ("<!-- table -->", "<!-- end of table -->")
COLUMNS = {
    "01_diagnosis": "diagnosis", "02_penalty_tuning": "penalty", "03_distillation": "distillation",
    "04_evaluation": "evaluation", "reference": "numbers against the reference",
}  # fmt: skip


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the table as Markdown, and the sentences of what is refused below it."""
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


def with_table(page: str) -> str:
    """Return the page with the table between its two marks."""
    made = table(json.loads(RESULTS.read_text("utf-8")))
    start, end = map(re.escape, MARKS)
    return re.sub(f"{start}.*{end}", lambda _: f"{MARKS[0]}\n\n{made}\n\n{MARKS[1]}", page, flags=re.DOTALL)


def main() -> None:
    """Print the table, or write it into its page."""
    parser = argparse.ArgumentParser(prog="python -m docs.making.families", description="The table of model families.")
    parser.add_argument("--write", action="store_true", help=f"write it into {PAGE.name}")
    if parser.parse_args().write:
        PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")
    else:
        print(table(json.loads(RESULTS.read_text("utf-8"))))


if __name__ == "__main__":
    main()
