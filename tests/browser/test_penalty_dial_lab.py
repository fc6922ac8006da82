"""The penalty dial in a real JupyterLab: turned by keys, branched, stopped, read by Python, and gone when reloaded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.browser.axe import serious_violations
from tests.browser.lab import LabPage, Server, ran
from tests.browser.pages import watched
from tests.small_notebook import write_notebook

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PATIENCE_MS = 60_000
"""Longest wait for a text: other work may hold the machine."""
NO_MODEL = ("widget model not found", "reading .kernel.")
CELLS = (
    "import workbench as wb\n"
    "from workbench.decoding.config import PenaltyConfig\n"
    "from widgets import PenaltyDial\nmodels = wb.load_pair(wb.PairConfig(preset='embedded'))\n"
    "tuning, _ = wb.split_prompts(wb.PromptConfig(source='embedded'), limit=30, held_out_limit=6)",
    "judge = wb.TextJudge.of(None, tuning)\n"
    "dial = PenaltyDial(models, tuning, PenaltyConfig(strength=64.0), judge=judge)\ndial",
)


@pytest.fixture(scope="module")
def lab(jupyter: Server, browser: Browser) -> Iterator[LabPage]:
    write_notebook(jupyter.folder / "dial.ipynb", *CELLS, parameters="")
    with ran(jupyter, browser, "dial.ipynb") as opened:
        expect(dial_of(opened)).to_be_visible(timeout=PATIENCE_MS)
        expect(dial_of(opened)).to_have_attribute("data-state", "finished", timeout=PATIENCE_MS)
        yield opened


def dial_of(lab: LabPage) -> Locator:
    return lab.page.locator(".wb-live > .wb-dial")


def test_a_slider_turned_by_keys_writes_the_text_anew(lab: LabPage) -> None:
    dial = dial_of(lab)
    expect(lab.page.locator(".wb-still").first).to_be_hidden()
    dial.locator("input.wb-strength").focus()
    lab.page.keyboard.press("Home")
    expect(dial.locator(".wb-heads b").last).to_have_text("one_sided 0", timeout=PATIENCE_MS)
    expect(dial).to_have_attribute("data-state", "finished", timeout=PATIENCE_MS)
    lab.reads("dial.selection.penalty.strength", "0.0")
    dial.locator("input.wb-strength").focus()  # running a cell took it away
    for key in ("End", "ArrowLeft", "End", "ArrowLeft", "ArrowLeft", "Home", "ArrowRight"):  # fast
        lab.page.keyboard.press(key)
    expect(dial.locator(".wb-heads b").last).to_have_text("one_sided 0.1", timeout=PATIENCE_MS)
    expect(dial).to_have_attribute("data-state", "finished", timeout=PATIENCE_MS)
    lab.reads("dial.selection.penalty.strength", "0.1")
    assert lab.page.locator(".jp-Notebook .jp-Cell").count() >= 2


def test_two_fast_moves_never_show_the_older_result(lab: LabPage) -> None:
    dial = dial_of(lab)
    lab.page.evaluate(
        """() => { window.titles = []; const root = document.querySelector('.wb-live > .wb-dial');
        const look = () => { const b = [...root.querySelectorAll('.wb-heads b')].at(-1)?.textContent;
            const written = root.querySelectorAll("[role=option][data-response='2']:not(.wb-given)").length;
            if (b && root.dataset.state !== 'waiting') window.titles.push([b, written]); };
        new MutationObserver(look).observe(root, {subtree: true, childList: true, attributes: true}); }"""
    )
    move = """x => { const slider = document.querySelector('input.wb-strength'); slider.value = x;
        slider.dispatchEvent(new Event('input', {bubbles: true})); }"""
    lab.page.evaluate(move, 13)
    lab.page.wait_for_timeout(130)  # the first is on its way, or being written
    lab.page.evaluate(move, 4)
    at = lab.page.evaluate("() => window.titles.length")
    expect(dial.locator(".wb-heads b").last).to_have_text("one_sided 0.75", timeout=PATIENCE_MS)
    expect(dial).to_have_attribute("data-state", "finished", timeout=PATIENCE_MS)
    lab.page.wait_for_timeout(500)
    titles = lab.page.evaluate("() => window.titles")[at:]
    assert {t for t, _ in titles} == {"one_sided 0.75"}
    lab.reads("dial.selection.penalty.strength", "0.75")


def test_another_token_is_taken_and_judged(lab: LabPage) -> None:
    dial = dial_of(lab)
    dial.locator("input.wb-strength").focus()
    lab.page.keyboard.press("End")
    expect(dial.locator(".wb-heads b").last).to_have_text("one_sided 64", timeout=PATIENCE_MS)
    expect(dial).to_have_attribute("data-state", "finished", timeout=PATIENCE_MS)
    dial.locator("[role=option][data-response='2'][data-position='13']").click()
    dial.locator(".wb-token-panel .wb-branch").first.click()
    expect(dial.locator("[role=treeitem]")).to_have_count(2, timeout=PATIENCE_MS)
    expect(dial.locator("[role=treeitem]").nth(1)).to_contain_text("position 13")
    lab.reads("len(dial.tree.branches), dial.tree.branches[1].position", "2 13")
    assert lab.run("print(dial.tree.branches[1].verdict)") in ("compliance", "partial", "refusal", "other")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_nothing_serious(lab: LabPage, theme: str) -> None:
    lab.page.evaluate("t => window.jupyterapp.commands.execute('apputils:change-theme', {theme: t})", theme)
    expect(lab.page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
    assert serious_violations(lab.page, ".wb-dial") == []


def test_the_saved_notebook_reads_alone(lab: LabPage, jupyter: Server, browser: Browser) -> None:
    saved = lab.save()
    assert "widgets" not in saved["metadata"]
    lab.shut_down_kernel()
    with watched(browser, but=NO_MODEL) as w:
        reader = LabPage(page=w.page, server=jupyter)
        reader.open_without_kernel("dial.ipynb")
        still = w.page.locator(".wb-still")
        expect(still).to_be_visible()
        expect(still).to_contain_text("as it was written")
        expect(w.page.locator(".wb-dial")).to_have_count(0)
