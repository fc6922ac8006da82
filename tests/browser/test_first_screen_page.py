"""A report's first screen in a browser: dots, curve, list, buttons and address open the same text, with no network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

import workbench as wb
from tests.browser.axe import serious_violations
from widgets import TokenLens
from workbench.display.report import Report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pair = wb.load_pair(preset="embedded")
    traces = wb.trace(pair, wb.load_prompts(source="embedded", limit=36), max_tokens=40)
    made = Report("Diagnosis", {"__annotations__": {"seed": int}, "seed": 0})
    lens = TokenLens(traces, wb.most_like_base(traces)[0], quantity="retention", live=False)
    made.begin(wb.views.found(wb.diagnose(traces, resamples=200), traces), lens)
    return made.write(tmp_path_factory.mktemp("first")).html


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    page, problems = browser.new_page(viewport={"width": 1280, "height": 800}), list[str]()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith(("file:", "blob:")) else problems.append(r.url))
    page.goto(report.as_uri())
    expect(page.locator(".wb-lens .wb-running")).to_be_visible()
    yield page
    assert problems == []
    page.close()


def response(page: Page) -> str:
    return page.locator("select.wb-response").input_value()


def test_what_is_read_first_is_most_like_base_and_everything_follows_a_click(page: Page) -> None:
    first = response(page)
    expect(page.locator(".wb-dot.wb-on")).to_have_attribute("data-response", first)
    assert page.locator(".wb-of").inner_text() == "1 of 36"
    other = page.locator(".wb-dot:not(.wb-on)").first
    number = other.get_attribute("data-response")
    other.click()
    expect(page.locator("select.wb-response")).to_have_value(str(number))
    expect(page.locator(f'.wb-dot.wb-on[data-response="{number}"]')).to_have_count(1)
    assert f"response={number}" in page.url
    page.locator(".wb-after").click()
    expect(page.locator("select.wb-response")).not_to_have_value(str(number))
    page.locator("select.wb-order").select_option(label="most different")
    expect(page.locator(".wb-of")).to_have_text("1 of 36")


def test_a_place_on_the_curve_opens_that_token_and_a_token_is_marked_on_the_curve(page: Page) -> None:
    mark = page.locator(".wb-decay .wb-mark")
    assert mark.get_attribute("hidden") is not None
    page.locator('.wb-lens [data-position="7"]').click()
    expect(mark).not_to_have_attribute("hidden", re.compile(".*"))
    assert "position=7" in page.url
    before = mark.get_attribute("transform")
    box = page.locator(".wb-decay").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + box["height"] / 2)
    expect(mark).not_to_have_attribute("transform", str(before))
    position = re.search(r"position=(\d+)", page.url)
    assert position is not None
    expect(page.locator(f'.wb-lens .wb-here[data-position="{position[1]}"]')).to_have_count(1)


def test_a_link_points_at_a_token(browser: Browser, page: Page, report: Path) -> None:
    page.locator(".wb-dot:not(.wb-on)").first.click()
    page.locator('.wb-lens [data-position="9"]').click()
    page.locator("select.wb-fill").select_option("excess_mass")
    address, shown = page.url, response(page)
    again = browser.new_page()
    again.goto(address)
    expect(again.locator("select.wb-response")).to_have_value(shown)
    expect(again.locator("select.wb-fill")).to_have_value("excess_mass")
    expect(again.locator('.wb-lens .wb-here[data-position="9"]')).to_have_count(1)
    for hash_ in ("#response=99999", "#response=-1&position=x&fill=<b>", "#%%%"):
        again.goto("about:blank")
        again.goto(report.as_uri() + hash_)
        expect(again.locator(".wb-lens .wb-running")).to_be_visible()
    again.close()


def test_keys_alone_reach_every_dot_and_nothing_serious_is_inaccessible(page: Page) -> None:
    page.locator('.wb-dot[tabindex="0"]').focus()
    page.keyboard.press("ArrowLeft")
    focused = page.evaluate("document.activeElement.dataset.response")
    page.keyboard.press("Enter")
    expect(page.locator("select.wb-response")).to_have_value(focused)
    assert serious_violations(page, ".wb-first") == []


@pytest.mark.parametrize("width", [390, 900, 1280])
def test_nothing_is_wider_than_the_page(browser: Browser, report: Path, width: int) -> None:
    for scheme in ("light", "dark"):
        narrow = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
        narrow.goto(report.as_uri())
        expect(narrow.locator(".wb-lens .wb-running")).to_be_visible()
        assert narrow.evaluate("document.documentElement.scrollWidth") <= width
        narrow.close()


def test_the_first_screen_ends_with_the_text_on_one_screen(page: Page) -> None:
    box = page.locator(".wb-lens .wb-running").bounding_box()
    assert box is not None
    assert box["y"] < 720
