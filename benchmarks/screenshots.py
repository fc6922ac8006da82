"""Photograph the lens in JupyterLab and the demo's report, light and dark, wide and narrow: `make screenshots`.

Pictures go to runs/screenshots; those that the README shows go to docs/. Runs the demo where it is not there yet.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.browser.first_notebook import write_first_notebook
from tests.browser.lab import FLAGS, LabPage, server
from tests.conftest import CHROMIUM
from workbench.running.runs import RunConfig, run_notebook

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "runs" / "demo" / "report.html"
OUT = ROOT / "runs" / "screenshots"
DOCS = {"lab-light-1280-lens": "lens", "report-light-1280-first": "report"}
"""Picture -> its name in docs/."""
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
WIDTHS = (1280, 700)


def photograph(part: Locator, name: str) -> None:
    """Photograph an element with what floats above it."""
    part.scroll_into_view_if_needed()
    part.page.wait_for_timeout(400)  # figures draw once more after they are resized
    part.screenshot(path=OUT / f"{name}.png", animations="disabled")


def report(browser: Browser) -> None:
    """Photograph the whole report and its section with a highlighted response."""
    for scheme in THEMES:
        for width in WIDTHS:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(REPORT.as_uri())
            page.locator(".wb-lens .wb-running").wait_for()
            page.screenshot(path=OUT / f"report-{scheme}-{width}.png", full_page=True)
            page.screenshot(path=OUT / f"report-{scheme}-{width}-first.png")
            page.close()


def lab(browser: Browser) -> None:
    """Run notebook 01 in JupyterLab, pin a token and hover another, and photograph each widget."""
    scratch = Path(tempfile.mkdtemp(prefix="screenshots-"))
    served = scratch / "served"
    served.mkdir()
    write_first_notebook(served / "first.ipynb", limit=12, max_tokens=48, prefix_tokens=[0, 5, 10])
    with server(served, scratch) as running:
        page = browser.new_page(viewport={"width": WIDTHS[0], "height": 1000})
        page.set_default_timeout(120_000)
        opened = LabPage(page=page, server=running)
        opened.open("first.ipynb")
        opened.run_all()
        lens = page.locator(".jp-OutputArea-output > .wb-live > .wb-lens").first
        expect(lens).to_be_visible()
        opened.run("lens.pin(5)")
        probe(page)
        for scheme, theme in THEMES.items():
            page.evaluate("t => window.jupyterapp.commands.execute('apputils:change-theme', {theme: t})", theme)
            expect(page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 1000})
                name = f"lab-{scheme}-{width}"
                photograph(page.locator(".wb-linked-panel"), f"{name}-linked")
                photograph(page.locator(".wb-probe-panel"), f"{name}-probe")
                lens.scroll_into_view_if_needed()
                lens.locator("[role=option][data-position='16']").hover()
                page.screenshot(path=OUT / f"{name}.png")
                photograph(lens, f"{name}-lens")
                page.mouse.move(2, 2)
        page.close()


def probe(page: Page) -> None:
    """Let base continue something typed."""
    form = page.locator(".wb-probe")
    form.locator(".wb-prompt-text").fill("How do I find the market?")
    form.locator(".wb-start").click()
    expect(form).to_have_attribute("data-state", "finished")


def main() -> None:
    """Take every picture."""
    if CHROMIUM is None:
        sys.exit("no Chromium here: install it (Debian: apt-get install chromium) and run this again")
    if not REPORT.is_file():
        run_notebook(RunConfig(notebook=ROOT / "notebooks" / "01_diagnosis.ipynb", out=REPORT.parent))
    OUT.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        report(browser)
        lab(browser)
        browser.close()
    (ROOT / "docs").mkdir(exist_ok=True)
    for picture, name in DOCS.items():
        shutil.copy(OUT / f"{picture}.png", ROOT / "docs" / f"{name}.png")
    print(f"pictures are in {OUT.relative_to(ROOT)}; in docs: {', '.join(sorted(DOCS.values()))}")


if __name__ == "__main__":
    main()
