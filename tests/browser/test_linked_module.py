"""The linked views' own page in a real Chromium, with the real Python side behind it and no Jupyter."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.browser.axe import serious_violations
from tests.browser.module_page import ModulePage, module_page
from tests.hostile_texts import EXECUTABLE
from tests.trace_makers import make_traces
from widgets.linked import LinkedViews
from workbench.tracing.diagnosis import diagnose
from workbench.tracing.records import Diagnosis

pytestmark = pytest.mark.browser

TRACES = make_traces("shallow", prefixes=(0, 5, 10), seed=3)


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    return diagnose(TRACES)


@pytest.fixture
def views(diagnosis: Diagnosis) -> LinkedViews:
    return LinkedViews(TRACES, diagnosis, live=True)


@pytest.fixture
def page(browser: Browser, views: LinkedViews) -> Iterator[ModulePage]:
    with module_page(browser, views.face) as opened:
        yield opened
        opened.assert_clean()


def cell(page: ModulePage, prefix: int, position: int) -> Locator:
    return page.find(f'td[data-prefix="{prefix}"][data-position="{position}"]')


def focused(page: ModulePage, attribute: str) -> str | None:
    return page.page.evaluate("(name) => document.activeElement.getAttribute(name)", attribute)


def test_prompts_are_opened_by_click_and_by_keys_and_filtered_by_label(page: ModulePage, views: LinkedViews) -> None:
    options = page.find("[role=option]")
    listed = views.face.panel["prompts"]  # type: ignore[attr-defined]
    expect(options).to_have_count(len(listed))
    options.nth(2).click()
    page.sync()
    assert (views.selection.response, views.selection.position) == (listed[2]["response"], listed[2]["peak_position"])
    expect(options.nth(2)).to_have_attribute("aria-selected", "true")
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("Enter")
    page.sync()
    assert views.selection.response == listed[4]["response"]
    expect(page.find("[role=option][aria-selected=true]")).to_have_attribute(
        "data-response", str(listed[4]["response"])
    )
    page.page.keyboard.press("End")
    page.page.keyboard.press("ArrowDown")
    assert focused(page, "data-response") == str(listed[-1]["response"])
    page.find(".wb-filter").select_option("harmless")
    shown = [o for o in page.find("[role=option]").all() if o.is_visible()]
    assert shown
    assert all("harmless" in (o.get_attribute("aria-label") or "") for o in shown)
    assert [o.get_attribute("tabindex") for o in shown].count("0") == 1
    page.find(".wb-filter").press("Tab")
    assert "harmless" in str(focused(page, "aria-label"))


def test_a_cell_says_its_value_and_opens_the_text(page: ModulePage, views: LinkedViews) -> None:
    heat = views.face.panel["heat"]  # type: ignore[attr-defined]
    value = heat["value"][1][3]
    cell(page, 5, 4).hover()
    expect(page.find(".wb-where")).to_contain_text(f"position 4, 5 given tokens, given: retention {value:.3g}"[:44])
    cell(page, 5, 4).click()
    page.sync()
    assert (TRACES.responses[views.selection.response].prefix_tokens, views.selection.position) == (5, 4)
    expect(cell(page, 5, 4)).to_have_attribute("aria-selected", "true")
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("Enter")
    page.sync()
    assert (TRACES.responses[views.selection.response].prefix_tokens, views.selection.position) == (10, 5)
    expect(page.find("td[aria-selected=true]")).to_have_count(1)
    page.page.keyboard.press("Home")
    assert (focused(page, "data-prefix"), focused(page, "data-position")) == ("10", "1")
    page.page.keyboard.press("ArrowUp")
    page.page.keyboard.press("ArrowUp")
    page.page.keyboard.press("ArrowUp")
    assert focused(page, "data-prefix") == "0"


def test_positions_are_typed_and_the_other_end_follows(page: ModulePage, views: LinkedViews) -> None:
    start, end, everything = page.find(".wb-from"), page.find(".wb-to"), page.find(".wb-all")
    expect(everything).to_be_disabled()
    start.fill("3")
    start.press("Enter")  # the notebook takes Enter before `change` would come
    page.sync()
    length = int(TRACES.lengths()[views.selection.response])
    assert views.selection.span == (3, length)
    end.fill("6")
    end.press("Tab")
    page.sync()
    assert views.selection.span == (3, 6)
    assert [p for p in range(1, 9) if "wb-in" in (cell(page, 0, p).get_attribute("class") or "")] == [3, 4, 5, 6]
    start.fill("9")
    start.press("Enter")
    page.sync()
    assert views.selection.span == (9, 9)
    end.fill("2")
    end.press("Enter")
    page.sync()
    assert views.selection.span == (2, 2)
    start.fill("")
    start.press("Enter")
    page.sync()
    assert views.selection.span == (1, 2)
    everything.click()
    page.sync()
    assert views.selection.span is None
    expect(everything).to_be_disabled()


def test_curve_prefix_and_a_selection_from_python_are_marked(page: ModulePage, views: LinkedViews) -> None:
    page.find(".wb-quantity").select_option("retention")
    page.find(".wb-prefix").select_option("10")
    page.sync()
    assert (views.selection.quantity, views.selection.prefix_tokens) == ("retention", 10)
    other = next(i for i, r in enumerate(TRACES.responses) if r.prefix_tokens == 10)
    views.lens.show(response=other, position=3, span=(2, 5))
    page.sync()
    expect(page.find(".wb-from")).to_have_value("2")
    expect(page.find(".wb-to")).to_have_value("5")
    expect(page.find(".wb-prefix")).to_have_value("10")
    expect(cell(page, 10, 3)).to_have_attribute("aria-selected", "true")


def test_what_cannot_be_opened_is_said_in_place(page: ModulePage, views: LinkedViews) -> None:
    views._asked({"new": {"do": "cell", "prefix": 5, "position": 999}})
    page.sync()
    expect(page.find(".wb-alert")).to_contain_text("no harmful response with 5 given tokens reaches 999")
    expect(page.find(".wb-alert")).to_have_role("alert")
    cell(page, 5, 2).click()
    page.sync()
    expect(page.find(".wb-alert")).to_be_hidden()


def test_hostile_prompts_are_text(browser: Browser) -> None:
    responses = tuple(
        dataclasses.replace(r, prompt=EXECUTABLE[i % len(EXECUTABLE)]) for i, r in enumerate(TRACES.responses)
    )
    traces = dataclasses.replace(TRACES, responses=responses)
    views = LinkedViews(traces, diagnose(traces), live=True)
    with module_page(browser, views.face) as page:
        shown = [p["prompt"] for p in views.face.panel["prompts"]]  # type: ignore[attr-defined]
        assert page.find("[role=option] .wb-asked").all_text_contents() == shown
        page.assert_clean()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 700])
def test_axe_finds_nothing_serious(browser: Browser, views: LinkedViews, theme: Any, width: int) -> None:
    with module_page(browser, views.face, theme=theme, width=width) as page:
        views.show(span=(2, 5), position=3)
        page.sync()
        assert serious_violations(page.page, ".wb-linked") == []
        assert page.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        page.assert_clean()
