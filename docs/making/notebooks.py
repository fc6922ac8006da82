"""The notebooks of the site: executed once, then kept until they or the code change."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workbench.running.runs import RunConfig, run_notebook

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "docs-notebooks"
"""Where executed notebooks are kept between builds; not in git."""


@dataclass(frozen=True, kw_only=True)
class Tutorial:
    """Name one notebook of the site: its source, its page, and where it lies executed, if it does."""

    source: Path
    lesson: bool

    @property
    def page(self) -> str:
        """Return the page's path below docs/."""
        return f"tutorials/{'lessons/' if self.lesson else ''}{self.source.stem}.md"

    @property
    def folder(self) -> Path:
        """Return the run's folder: another one for other code, so that an old run is never shown for new code."""
        return KEPT / f"{self.source.stem}-{_key(self.source)}"

    @property
    def executed(self) -> Path | None:
        """Return the executed notebook, None where it was not run yet."""
        path = self.folder / self.source.name
        return path if path.is_file() else None


def tutorials(root: Path = ROOT) -> tuple[Tutorial, ...]:
    """Return every notebook of notebooks/, then those of notebooks/lessons/ that a student gets."""
    main = [Tutorial(source=p, lesson=False) for p in sorted(root.glob("notebooks/[0-9]*.ipynb"))]
    lessons = [
        Tutorial(source=p, lesson=True)
        for p in sorted(root.glob("notebooks/lessons/*.ipynb"))
        if "instructor" not in p.stem and "solution" not in p.stem
    ]
    return (*main, *lessons)


def execute(found: tuple[Tutorial, ...], say: Callable[[str], None]) -> None:
    """Run what has not been run since it or the code changed; what was kept of it before goes.

    Notebooks run with their own small settings, lessons in full: their words speak of the numbers.
    """
    for each in found:
        if each.executed is not None:
            say(f"{each.source.name}: as it was run before")
            continue
        say(f"{each.source.name}: running {'in full' if each.lesson else 'with its small settings'}")
        KEPT.mkdir(parents=True, exist_ok=True)
        run_notebook(RunConfig(notebook=each.source, out=each.folder, smoke=not each.lesson), say=lambda line: None)
        for former in KEPT.glob(f"{each.source.stem}-*"):
            if former != each.folder:
                shutil.rmtree(former)


def _key(source: Path) -> str:
    code = sorted(p for room in ("workbench", "widgets") for p in (ROOT / room).rglob("*") if p.suffix in _CODE)
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in (source, *code):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


_CODE = (".py", ".js", ".css")
