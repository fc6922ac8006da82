"""How soon the penalty dial answers: from the slider's release to the first token in the page, in a real JupyterLab.

`python -m benchmarks.dial` prints JSON. The time is read in the page, from the slider's event to the frame after the
first generated token of the new text, on the embedded pair; the page's own rest of the hand is part of it. A shorter
time, without browser and messages, is that from the request in Python to the first token told.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.browser.lab import NOTEBOOK, LabPage, server
from tests.browser.module_page import browser_at
from tests.small_notebook import write_notebook

CELLS = (
    "import workbench as wb\n"
    "from workbench.decoding.config import PenaltyConfig\n"
    "from widgets import PenaltyDial\nmodels = wb.load_pair(wb.PairConfig(preset='embedded'))\n"
    "tuning, _ = wb.split_prompts(wb.PromptConfig(source='embedded'), limit=30, held_out_limit=6)",
    "dial = PenaltyDial(models, tuning, PenaltyConfig(strength=1.0))\ndial",
)
MOVE = """
async (to) => {
  const root = document.querySelector(".wb-live > .wb-dial"), slider = root.querySelector("input.wb-strength");
  const title = () => [...root.querySelectorAll(".wb-heads b")].at(-1).textContent;
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const before = title();
  slider.value = to;
  const start = performance.now();
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  slider.dispatchEvent(new Event("change", { bubbles: true }));
  const there = () => title() !== before && root.dataset.state !== "waiting" &&
    root.querySelector("[role=option][data-response='2']:not(.wb-given)");
  while (!there()) {
    if (performance.now() - start > 20000) throw new Error("no token came");
    await frame();
  }
  await frame();
  return performance.now() - start;
}
"""


def in_lab(moves: int) -> list[float]:
    """Return the milliseconds of each move of the slider in JupyterLab; the first, a warm-up, is left out."""
    chromium = next((p for name in ("chromium", "google-chrome") if (p := shutil.which(name))), None)
    if chromium is None:
        raise SystemExit("no Chromium here: install it (Debian: apt-get install chromium) and run this again")
    times = []
    with tempfile.TemporaryDirectory() as name:
        served, scratch = Path(name, "served"), Path(name, "scratch")
        served.mkdir()
        scratch.mkdir()
        write_notebook(served / "dial.ipynb", *CELLS, parameters="")
        with server(served, scratch) as running, browser_at(chromium) as browser:
            running.set(NOTEBOOK, {"windowingMode": "none"})
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.set_default_timeout(60_000)
            lab = LabPage(page=page, server=running)
            lab.open("dial.ipynb")
            lab.run_all()
            dial = page.locator(".wb-live > .wb-dial")
            expect(dial).to_have_attribute("data-state", "finished", timeout=60_000)
            for n in range(moves + 1):
                times.append(page.evaluate(MOVE, 3 + n % 9))
                expect(dial).to_have_attribute("data-state", "finished", timeout=60_000)
    return times[1:]


def in_python(moves: int) -> list[float]:
    """Return the milliseconds from a request to the first token told, without browser and messages."""
    import workbench as wb
    from widgets import PenaltyDial

    pair = wb.load_pair(wb.PairConfig(preset="embedded"))
    tuning, _ = wb.split_prompts(wb.PromptConfig(source="embedded"), limit=30, held_out_limit=6)
    dial = PenaltyDial(pair, tuning, live=False)
    times, asked = [], 0.0

    def told(now: Any) -> None:
        nonlocal asked
        if asked and now.state == "running" and now.tokens == 1:
            times.append(1000 * (time.perf_counter() - asked))
            asked = 0.0

    dial.on_select(told)
    for n in range(moves + 1):
        asked = time.perf_counter()
        dial.set(strength=1.0 + n)
        dial.wait()
    return times[1:]


def measure(moves: int = 12) -> dict[str, Any]:
    """Return both times, in milliseconds."""
    return {
        "slider release to first token in JupyterLab, embedded pair": _said(in_lab(moves)),
        "request to first token in Python, embedded pair": _said(in_python(moves)),
    }


def _said(times: list[float]) -> dict[str, float]:
    return {"median_ms": round(statistics.median(times), 1), "most_ms": round(max(times), 1), "n": len(times)}


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:])), indent=1))
