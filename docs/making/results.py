"""The results pages: every file of docs/results/, in the order of the menu."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class ResultPage:
    """One page of results."""

    path: str
    name: str
    text: str


def result_pages(root: Path = ROOT) -> tuple[ResultPage, ...]:
    """Return every file of docs/results/ as a page, under its own title."""
    found = []
    for path in sorted((root / "docs" / "results").glob("*.md")):
        body = path.read_text("utf-8")
        title = re.search(r"^# (.+)$", body, re.MULTILINE)
        found.append(ResultPage(path=f"results/{path.name}", name=title[1] if title else path.stem, text=body))
    return tuple(found)


def relinked(text: str) -> str:
    """Point what the README links inside the repository to the site where it has it, else leave its name."""
    return re.sub(r"\[([^\]]+)\]\((?!https://)(?!#)[^)]*\)", r"`\1`", text)
