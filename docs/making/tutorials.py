"""A notebook as a page: its text as Markdown, its code, and its outputs as the static forms that they are."""

from __future__ import annotations

import functools
import html
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docs.making.notebooks import ROOT, Tutorial

_PROGRESS = re.compile(r"^<div>(<span[^>]*>)?<progress\b")
_MARK = '<div class="output" id="{name}"></div>'


@dataclass(frozen=True, kw_only=True)
class TutorialPage:
    """Hold a page's Markdown, and the HTML of its outputs by the name that stands in their place."""

    path: str
    name: str
    text: str
    about: str
    outputs: dict[str, str]


def page_of(tutorial: Tutorial, *, plain: bool) -> TutorialPage:
    """Return the page of a notebook; `plain` shows it without outputs."""
    executed = None if plain else tutorial.executed
    return _page(tutorial.source, executed, tutorial.page, tutorial.lesson)


@functools.cache
def _page(source: Path, executed: Path | None, path: str, lesson: bool) -> TutorialPage:
    cells = json.loads(_portable((executed or source).read_text("utf-8")))["cells"]
    parts, outputs = [], {}
    for number, cell in enumerate(cells):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(_relinked(text))
        elif cell["cell_type"] == "code" and text.strip():
            injected = "injected-parameters" in cell.get("metadata", {}).get("tags", [])
            parts.append(_fenced(text, "The small settings of this page:" if injected else ""))
            made = "\n".join(filter(None, map(_output, cell.get("outputs", []))))
            if made:
                outputs[f"output-{number}"] = made
                parts.append(_MARK.format(name=f"output-{number}"))
    title, body = _title(parts, source)
    where = f"notebooks/{'lessons/' if lesson else ''}{source.name}"
    told = (
        f"This page is `{where}`, run {'' if lesson else 'with its small settings '}on the embedded pair."
        if executed
        else f"This page is `{where}` without its outputs: `make docs` runs it."
    )
    text = f"# {title}\n\n*{told}*\n\n" + "\n\n".join(body)
    about = next((p for p in body if not p.startswith(("#", "`", "<", "*"))), "")
    return TutorialPage(path=path, name=title.partition(":")[0], text=text, about=about, outputs=outputs)


def _portable(notebook: str) -> str:
    """Return a notebook's text with paths from the repository or from `~`, wherever it was run."""
    home, text = os.path.expanduser("~").rstrip("/"), notebook.replace(f"{ROOT}/", "")
    return text.replace(f"{home}/", "~/") if home else text


def _title(parts: list[str], source: Path) -> tuple[str, list[str]]:
    found = re.match(r"#\s+(.+)\n*", parts[0]) if parts else None
    if found is None:
        return source.stem.replace("_", " "), parts
    return found[1].strip(), [parts[0][found.end() :], *parts[1:]]


def _relinked(text: str) -> str:
    """Leave links of the repository as code: their targets are files there, not pages here."""
    return re.sub(r"\[([^\]]+)\]\((?!https://)[^)]*\)", r"\1", text)


def _fenced(text: str, told: str) -> str:
    return (f"{told}\n\n" if told else "") + f"```python\n{text}\n```"


def _output(output: dict[str, Any]) -> str:
    """Return an output as HTML: the static form where there is one, else its text; bars that are full are left out."""
    if output["output_type"] == "stream":
        return f"<pre>{html.escape(''.join(output['text']))}</pre>" if output.get("name") == "stdout" else ""
    data = output.get("data", {})
    rich, plain = "".join(data.get("text/html", "")), "".join(data.get("text/plain", ""))
    if _PROGRESS.match(rich.strip()):
        return ""
    if rich:
        return rich
    if "image/png" in data:
        return f'<img alt="" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    if "text/markdown" in data:
        return f"<pre>{html.escape(''.join(data['text/markdown']))}</pre>"
    return f"<pre>{html.escape(plain)}</pre>" if plain else ""


def with_outputs(page: str, path: str, pages: Sequence[TutorialPage]) -> str:
    """Return a page's HTML with its outputs in their places; a class keeps the theme's look off their tables."""
    for each in pages:
        if each.path == path:
            for name, made in each.outputs.items():
                mark = _MARK.format(name=name)
                assert mark in page, f"{path}: the place of {name} is gone"
                own = made.replace("<table>", '<table class="view">')
                page = page.replace(mark, f'<div class="output" id="{name}">{own}</div>')
    return page


def index(pages: Sequence[TutorialPage]) -> str:
    """Return the page that lists the notebooks and lessons."""

    def listed(some: Sequence[TutorialPage]) -> str:
        return "\n\n".join(f"### [{p.name}]({p.path.removeprefix('tutorials/')})\n\n{p.about}" for p in some)

    lessons = [p for p in pages if "/lessons/" in p.path]
    main = [p for p in pages if "/lessons/" not in p.path]
    text = "# Tutorials\n\nEach page is a notebook of the repository: open it with `make lab`, run it without a screen "
    text += "with `python -m workbench run`.\n\n## Notebooks\n\n" + listed(main)
    if lessons:
        text += "\n\n## Lessons\n\nThe method in short lessons, on the embedded pair or on recorded traces: no "
        text += "download, no GPU.\n\n" + listed(lessons)
    return text
