"""What mkdocs calls while it builds: add the generated pages and their place in the menu, and finish the HTML."""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]

from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402
from mkdocs.structure.pages import Page  # noqa: E402

from docs.making import live, reference, tutorials  # noqa: E402
from docs.making.docstrings import as_markdown  # noqa: E402
from docs.making.mathematics import with_mathml  # noqa: E402
from docs.making.notebooks import tutorials as all_tutorials  # noqa: E402
from docs.making.results import relinked, result_pages  # noqa: E402

PLAIN = "DOCS_PLAIN"
"""Set in the environment: notebooks are shown without their outputs, as they are in git."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages where the menu names their folder."""
    shown = tuple(all_tutorials(ROOT))
    lessons = [{each.name: each.path} for each in _tutorial_pages() if "/lessons/" in each.path]
    main = [{each.name: each.path} for each in _tutorial_pages() if "/lessons/" not in each.path]
    inside = {
        "tutorials/": ["tutorials/index.md", *main, *([{"Lessons": lessons}] if lessons else [])],
        "results/": [{page.name: page.path} for page in result_pages()],
        "reference/python/": [{page.name: page.path} for page in reference.rooms()],
    }
    assert shown, "no notebook was found"
    config.nav = _filled(config.nav, inside)
    return config


def _filled(nav: Any, inside: dict[str, list[Any]]) -> Any:
    if isinstance(nav, list):
        return [_filled(each, inside) for each in nav]
    if isinstance(nav, dict):
        return {k: inside.get(v, v) if isinstance(v, str) else _filled(v, inside) for k, v in nav.items()}
    return nav


def _tutorial_pages() -> tuple[tutorials.TutorialPage, ...]:
    plain = bool(os.environ.get(PLAIN))
    return tuple(tutorials.page_of(each, plain=plain) for each in all_tutorials(ROOT))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is generated; a results file is already there and keeps its own text."""
    made = {page.path: page.text for page in (*_tutorial_pages(), *reference.pages(), *result_pages())}
    made["security.md"] = relinked((ROOT / "SECURITY.md").read_text("utf-8"))
    made["tutorials/index.md"] = tutorials.index(_tutorial_pages())
    made["live/index.html"] = live.page()
    for path, text in made.items():
        former = files.get_file_from_path(path)
        if former is not None:
            files.remove(former)
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put files of the repository where a page says `<!-- insert PATH -->`: what is quoted is what is there."""
    return re.sub(r"^<!-- insert (\S+) -->$", lambda m: _quoted(ROOT / m[1]), markdown, flags=re.MULTILINE)


def _quoted(path: Path) -> str:
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        return as_markdown(ast.get_docstring(ast.parse(text)) or "")
    return f"```{path.suffix.strip('.')}\n{text.rstrip()}\n```"


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put formulas as MathML, and a notebook's outputs, into a page."""
    return tutorials.with_outputs(with_mathml(html), page.file.src_uri, _tutorial_pages())
