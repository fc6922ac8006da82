"""Build the site: `python -m docs.making` runs the notebooks first, `--plain` shows them without outputs."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from docs.making.links import broken
from docs.making.notebooks import execute, tutorials

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Build into site/ with warnings as errors, check every link, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.making", description="Build the site from docs/.")
    parser.add_argument("--plain", action="store_true", help="do not run the notebooks: show them without outputs")
    parser.add_argument("--out", type=Path, default=ROOT / "site", metavar="DIR", help="the site's folder")
    asked = parser.parse_args()
    started = time.perf_counter()
    if asked.plain:
        os.environ["DOCS_PLAIN"] = "1"
    else:
        execute(tutorials(), say=print)
    code = build(asked.out)
    if code:
        return code
    wrong = broken(asked.out)
    for line in wrong:
        print(line, file=sys.stderr)
    pages = len(list(asked.out.rglob("*.html")))
    print(f"{pages} pages in {asked.out} in {time.perf_counter() - started:.0f} s; {len(wrong)} broken links")
    return 1 if wrong else 0


def build(out: Path) -> int:
    """Build with mkdocs, warnings as errors; return its exit code."""
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")  # an advertisement of another version, not a warning of ours
    from mkdocs.__main__ import cli

    try:
        cli(["build", "--strict", "--quiet", "--clean", "-f", str(ROOT / "mkdocs.yml"), "-d", str(out)])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
