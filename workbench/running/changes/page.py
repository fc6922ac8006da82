"""A comparison of two runs as one HTML page that needs no network, and as lines for a terminal."""

from __future__ import annotations

from pathlib import Path

from workbench.core.files import atomic_file
from workbench.core.provenance import Stopwatch
from workbench.display.report import Section, page
from workbench.display.views import HarmfulText, View
from workbench.running.changes.differences import RunComparison
from workbench.running.changes.texts import text_sections
from workbench.running.changes.views import changes_table, numbers_table, only_table, sentences

LINES = 25
"""Numbers that the terminal shows at most."""


def terminal_text(compared: RunComparison, *, lines: int = LINES) -> str:
    """Return the comparison as plain text: what was asked and made differently, and the clearest differences."""
    parts = [
        f"first   {compared.first.folder}\nsecond  {compared.second.folder}",
        *(
            changes_table(title, changes, compared).text
            for title, changes in (("Settings", compared.settings), ("Versions and origin", compared.made))
        ),
        numbers_table(compared, most=lines).text,
        "\n".join(sentences(compared)),
    ]
    return "\n\n".join(parts)


def write_comparison(compared: RunComparison, file: str | Path, *, harmful_text: HarmfulText = "auto") -> Path:
    """Write the comparison as a page and return its path; text is withheld as in every report.

    Raises StorageFull when the disk is full.
    """
    watch = Stopwatch("compare", {"first": str(compared.first.folder), "second": str(compared.second.folder)})
    alone = only_table(compared)
    sections = [
        Section(title="In short", text=sentences(compared)),
        Section(title="Settings", parts=(changes_table("Settings", compared.settings, compared),)),
        Section(title="Versions and origin", parts=(changes_table("Versions and origin", compared.made, compared),)),
        Section(title="Numbers", parts=(numbers_table(compared), *((alone,) if alone else ()))),
        *text_sections(compared, harmful_text=harmful_text),
    ]
    views = [[part for part in s.parts if isinstance(part, View)] for s in sections]
    title = f"What changed: {compared.first.name} and {compared.second.name}"
    with atomic_file(file) as partial:
        partial.write_text(page(title, sections, views, watch.record()), "utf-8")
    return Path(file)
