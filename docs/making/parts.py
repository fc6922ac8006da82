"""The generated parts of pages: what stands between two marks of a page, and the command that writes all of them.

`python -m docs.making.parts --write` after whatever they are computed from has changed; a test compares.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from docs.making import arms, embedded, families, gate, gpu, memory

ROOT = Path(__file__).resolve().parents[2]
PARTS: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "README.md": {"answers": embedded.answers, "depth": embedded.depth},
    "docs/index.md": {"answers": embedded.answers, "depth": embedded.depth},
    "docs/results/embedded.md": {"pair": embedded.pair, "completed": embedded.completed, "arms": arms.table},
    "docs/how-to/families.md": {"table": families.table},
    "docs/how-to/gpu-checks.md": {"table": gpu.table},
    "docs/how-to/gate.md": {"tables": gate.tables},
    "docs/how-to/memory.md": {"table": memory.table},
}
"""The generated parts of each page, and what computes them."""


def with_part(page: str, name: str, text: str) -> str:
    """Return a page with `text` between its marks `<!-- NAME -->` and `<!-- end of NAME -->`."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    made = f"{start}\n\n{text}\n\n{end}"
    page, count = re.subn(f"{re.escape(start)}.*{re.escape(end)}", lambda _: made, page, flags=re.DOTALL)
    assert count == 1, f"the page has {count} parts named {name!r}"
    return page


def generated(name: str) -> str:
    """Return a page's text as it should be."""
    page = (ROOT / name).read_text("utf-8")
    for part, compute in PARTS[name].items():
        page = with_part(page, part, compute())
    return page


def main() -> None:
    """Print which pages are not as they should be, or with --write write them."""
    parser = argparse.ArgumentParser(prog="python -m docs.making.parts", description="The generated parts of pages.")
    parser.add_argument("--write", action="store_true", help="write the pages that differ")
    write = parser.parse_args().write
    for name in PARTS:
        made = generated(name)
        if made != (ROOT / name).read_text("utf-8"):
            print(name)
            if write:
                (ROOT / name).write_text(made, "utf-8")


if __name__ == "__main__":
    main()
