"""Blind rating in a real JupyterLab: its keys are the widget's, not the notebook's, and each one is on disk."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.lab import NOTEBOOK, LabPage, Server
from tests.browser.pages import watched
from tests.small_notebook import write_notebook

pytestmark = pytest.mark.browser

CELLS = (
    "from tests.judge_makers import answers_of, attempt\n"
    "asked = [attempt(f'Question {i}?') for i in range(4)]\n"
    "arms = {arm: [(a, f'{arm} {i}') for i, a in enumerate(asked)] for arm in ('one', 'two')}",
    "from widgets import Rating\nrating = Rating(answers_of(arms), folder='ratings', rater='ann')\nrating",
)


def test_the_keys_rate_and_do_nothing_to_the_notebook(jupyter: Server, browser: Browser) -> None:
    write_notebook(jupyter.folder / "rating.ipynb", *CELLS, parameters="")
    jupyter.set(NOTEBOOK, {})
    with watched(browser) as w:
        lab = LabPage(page=w.page, server=jupyter)
        lab.open("rating.ipynb")
        lab.run_all()
        root = w.page.locator(".wb-rating")
        expect(root).to_be_visible()
        cells = w.page.locator(".jp-Notebook .jp-Cell").count()
        root.focus()
        for number, key in enumerate(("5", "1", "3"), 1):
            expect(root.locator(".wb-where")).to_contain_text(f"Text {number} of 8")
            w.page.keyboard.press("Enter")
            w.page.keyboard.press(key)
        expect(root.locator(".wb-where")).to_have_text("Text 4 of 8, 3 rated by ann")
        w.page.keyboard.press("ArrowLeft")
        expect(root.locator(".wb-where")).to_contain_text("Text 3 of 8")
        assert w.page.locator(".jp-Notebook .jp-Cell").count() == cells
        assert w.page.locator(".jp-MarkdownCell").count() <= 1  # 1 to 6 make headings of cells in the notebook
        assert lab.run("print(rating.selection.rated)") == "3"
    saved = json.loads((jupyter.folder / "ratings" / "ann.json").read_text("utf-8"))
    assert sorted(e["rating"] for e in saved["ratings"].values()) == [1, 3, 5]
