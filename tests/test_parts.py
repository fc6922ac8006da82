"""The generated parts of README and docs: answers of the shipped models, tables of cards, runs and simulations."""

from __future__ import annotations

from pathlib import Path

from docs.making import parts


def test_every_generated_part_is_what_its_source_says(root: Path) -> None:
    for name in parts.PARTS:
        page = (root / name).read_text("utf-8")
        assert parts.generated(name) == page, f"{name}: python -m docs.making.parts --write"
    assert parts.with_part("<!-- x -->old<!-- end of x -->", "x", "new") == "<!-- x -->\n\nnew\n\n<!-- end of x -->"
