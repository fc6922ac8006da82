"""The film on its texts, in a page by itself: the slider by mouse and by keys, and what a reader hears."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.axe import serious_violations
from tests.browser.pages import watched
from tests.test_views_film import film
from workbench.display.views import film_tokens


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 700])
def test_the_slider_chooses_the_frame(browser: Browser, theme: Any, width: int, tmp_path: Path) -> None:
    page_file = tmp_path / "film.html"
    html = film_tokens(film(), classroom_safe=True).html
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>film</title>'
    page_file.write_text(f"{head}<main>{html}</main></html>", "utf-8")
    with watched(browser, width=width, color_scheme=theme) as w:
        w.page.goto(page_file.as_uri())
        dial, first = w.page.get_by_label("optimizer step"), w.page.locator("[data-levels]").first
        expect(first).to_have_class("t ")
        dial.focus()
        dial.press("Home")
        expect(first).to_have_class("t wb-slate5")
        expect(w.page.locator("output")).to_have_text("0")
        dial.press("ArrowRight")
        expect(first).to_have_class("t wb-sure")
        expect(w.page.locator("output")).to_have_text("20")
        expect(dial).to_have_attribute("aria-valuetext", "step 20")
        expect(w.page.locator(".wb-frame .t").first).to_have_class("t wb-slate5")
        assert w.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
        assert serious_violations(w.page, ".wb-film") == []
