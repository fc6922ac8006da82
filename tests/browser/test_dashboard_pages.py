"""`make voila` as its audience sees it: both notebooks as pages, with live widgets and figures, in light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.pages import watched
from tests.browser.test_other_front_ends import OTHERS
from tests.test_dashboard import served
from widgets.dashboard import SHOWN

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]
MINUTES = 5 * 60_000
OF_VOILA = (*OTHERS["voila"][1:], r"setData is not a function")
"""What Voila does by itself: plotly's JupyterLab part wants to store a picture of each figure: it has no place."""


def test_both_pages_compute_and_show_their_views(root: Path, browser: Browser) -> None:
    with served([root / name for name in SHOWN], root) as found:
        with watched(browser, but=OF_VOILA) as w:
            w.page.goto(found["01_diagnosis"], timeout=MINUTES)
            expect(w.page.locator(".wb-live:visible")).to_have_count(3, timeout=MINUTES)
            w.page.locator(".wb-lens [role=option][data-position='2']").first.hover()
            expect(w.page.locator(".wb-lens-card").first).to_contain_text("position 2 of")
            assert w.page.locator(".js-plotly-plot").count() >= 2
        with watched(browser, but=OF_VOILA, width=700, color_scheme="dark") as w:
            w.page.goto(f"{found['04_evaluation']}&theme=dark", timeout=MINUTES)
            expect(w.page.locator(".js-plotly-plot").first).to_be_visible(timeout=MINUTES)
            expect(w.page.get_by_text("2 arms", exact=False).first).to_be_visible()
            assert w.page.locator("pre code, .jp-CodeCell .jp-InputArea").count() == 0, "no code is shown"
            assert w.page.evaluate("document.documentElement.scrollWidth") <= 700
