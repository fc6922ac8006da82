"""Photograph the demo's report, light and dark, wide and narrow: `python -m benchmarks.screenshots`.

Pictures go to runs/screenshots; the one that the README shows goes to docs/report.png. Runs the demo where it is not
there yet.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from workbench.runs import RunConfig, run_notebook

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "runs" / "demo" / "report.html"
OUT = ROOT / "runs" / "screenshots"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def shoot(page: Page, name: str) -> None:
    """Photograph the whole page and its section with a highlighted response."""
    page.goto(REPORT.as_uri())
    page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot .main-svg').length > 0")
    page.screenshot(path=OUT / f"{name}.png", full_page=True)
    page.locator("section", has=page.locator("#reading-a-response, h2:text('Reading a response')")).first.screenshot(
        path=OUT / f"{name}-reading.png"
    )


def main() -> None:
    """Take every picture."""
    browser_path = next((p for n in ("chromium", "google-chrome") if (p := shutil.which(n))), None)
    if browser_path is None:
        sys.exit("no Chromium here: install it (Debian: apt-get install chromium) and run this again")
    if not REPORT.is_file():
        run_notebook(RunConfig(notebook=ROOT / "notebooks" / "01_diagnosis.ipynb", out=REPORT.parent))
    OUT.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=browser_path, args=FLAGS)
        for scheme in ("light", "dark"):
            for width in (1280, 700):
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                shoot(page, f"{scheme}-{width}")
                page.close()
        browser.close()
    (ROOT / "docs").mkdir(exist_ok=True)
    shutil.copy(OUT / "light-1280-reading.png", ROOT / "docs" / "report.png")
    print(f"pictures are in {OUT.relative_to(ROOT)}, the README's is docs/report.png")


if __name__ == "__main__":
    main()
