"""The results pages: what is in docs/results/, and the tables of the README, which stay where they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_OF_README = ("The embedded pair", "Results", "Speed")


@dataclass(frozen=True, kw_only=True)
class ResultPage:
    """Hold one page of results."""

    path: str
    name: str
    text: str


def result_pages(root: Path = ROOT) -> tuple[ResultPage, ...]:
    """Return the README's sections of results as one page, then every file of docs/results/."""
    readme = (root / "README.md").read_text("utf-8")
    sections = [s for s in re.split(r"^(?=## )", readme, flags=re.MULTILINE) if s.startswith(_opening())]
    text = "# Results\n\nThese are the README's results. `LOG.md` lists what we tried, with commands and negative "
    text += "results.\n\n" + "\n".join(relinked(s) for s in sections)
    found = [ResultPage(path="results/index.md", name="Embedded pair and speed", text=text)]
    for path in sorted((root / "docs" / "results").glob("*.md")):
        body = path.read_text("utf-8")
        title = re.search(r"^# (.+)$", body, re.MULTILINE)
        name = title[1] if title else path.stem
        found.append(ResultPage(path=f"results/{path.name}", name=name, text=body))
    return tuple(found)


def _opening() -> tuple[str, ...]:
    return tuple(f"## {name}" for name in _OF_README)


def relinked(text: str) -> str:
    """Point what the README links inside the repository to the site where it has it, else leave its name."""
    return re.sub(r"\[([^\]]+)\]\((?!https://)(?!#)[^)]*\)", r"`\1`", text)
