"""How the token lens looks: both themes, narrow pages, contrast, forced colours, axe; its page without a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.axe import serious_violations
from tests.browser.lens_page import CARD, hover, token
from tests.browser.module_page import module_page
from tests.test_views import harmful_traces
from tests.trace_makers import make_traces
from widgets.token_lens import TokenLens
from workbench.tracing.records import TraceSet

pytestmark = pytest.mark.browser
WHITE, BLACK = "rgb(255, 255, 255)", "rgb(17, 17, 17)"
LOOKS = [
    ("light", None, WHITE),
    ("dark", None, BLACK),
    ("light", "dark", BLACK),  # JupyterLab's theme wins over the system's
    ("dark", "light", WHITE),
]
POOR_CONTRAST = """
() => {
  const parse = (text) => (text.match(/[0-9.]+/g) ?? []).map(Number);
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll("#el *")) {
    const says = [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!says || !node.checkVisibility() || node.matches(":disabled, .wb-hid, option")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(paper(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${node.className}: ${node.textContent.slice(0, 20)}`);
  }
  return poor;
}
"""
PIXEL = '() => [...document.querySelector(".wb-map").getContext("2d").getImageData(2, 3, 1, 1).data].join()'


@pytest.fixture(scope="module")
def traces() -> TraceSet:
    return make_traces("deep", tokens=30)


def style(page: Page, selector: str, name: str) -> str:
    return page.evaluate("([s, n]) => getComputedStyle(document.querySelector(s))[n]", [selector, name])


@pytest.mark.parametrize(("scheme", "theme", "paper"), LOOKS)
@pytest.mark.parametrize("width", [1280, 700])
def test_it_follows_the_theme_fits_and_can_be_read(browser, traces, scheme, theme, paper, width) -> None:
    lens = TokenLens(traces, search="base-favored", minimum_base=0.1)
    lens.pin(2, 7)
    with module_page(browser, lens.face, scheme=scheme, theme=theme, width=width) as opened:
        assert style(opened.page, ".wb-lens", "backgroundColor") == paper
        assert opened.page.evaluate("() => document.documentElement.scrollWidth") <= width
        hover(opened, 9)
        card = opened.find(CARD).bounding_box()
        assert 0 <= card["x"] <= card["x"] + card["width"] <= width
        assert opened.page.evaluate(POOR_CONTRAST) == []
        opened.assert_clean()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, traces: TraceSet, theme: Any) -> None:
    lens = TokenLens(traces, beside=(1, 2), search="base p >= 0 and kl > 0.5", minimum_base=0.1, only_sampled=True)
    lens.pin(3)
    covered = TokenLens(harmful_traces(), granularity="word")
    for shown in (lens, covered):
        with module_page(browser, shown.face, theme=theme) as opened:
            for summary in opened.find("summary").all():
                summary.click()
            token(opened, 2).first.evaluate("(x) => x.focus()")
            assert serious_violations(opened.page, "#el .wb-lens") == []
            opened.assert_clean()


def test_themes_forced_colours_and_reduced_motion_are_honoured(browser: Browser, traces: TraceSet) -> None:
    with module_page(browser, TokenLens(traces).face, theme="light") as opened:
        before = opened.page.evaluate(PIXEL)
        opened.page.evaluate("() => document.body.setAttribute('data-jp-theme-light', 'false')")
        opened.page.wait_for_function(f"(before) => ({PIXEL})() !== before", arg=before)
    with module_page(browser, TokenLens(traces).face, forced_colors="active", reduced_motion="reduce") as opened:
        token(opened, 3).focus()
        assert style(opened.page, ":focus", "outlineStyle") == "solid"
        assert style(opened.page, ":focus", "transitionDuration") == "0s"
        assert style(opened.page, '[data-position="5"]', "backgroundColor") == WHITE
        opened.assert_clean()


@pytest.fixture
def exported(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """Open a page and list what goes wrong in it or is asked of the network."""
    page, problems = browser.new_page(), list[str]()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith(("file:", "blob:")) else problems.append(r.url))
    yield page, problems
    page.close()


def test_the_interactive_page_works_with_no_kernel_and_no_network(browser, traces, exported, tmp_path) -> None:
    page, problems = exported
    path = tmp_path / "lens.html"
    said = TokenLens(traces, 1).to_html(interactive=True)
    path.write_text(f"<!doctype html><meta charset=utf-8><title>lens</title>{said}", "utf-8")
    page.goto(path.as_uri())
    page.locator('.wb-lens [data-position="4"]').click()
    expect(page.locator(".wb-lens .wb-pin")).to_have_count(1)
    expect(page.locator(".wb-still")).to_be_hidden()
    page.locator(".wb-settings > summary").click()
    page.locator(".wb-lens .wb-search").fill("position < 4")
    expect(page.locator(".wb-found")).to_have_text("3 tokens match")
    assert problems == []
    with browser.new_context(java_script_enabled=False) as context:
        still = context.new_page()
        still.goto(path.as_uri())
        expect(still.locator(".wb-tokens .wb-text")).to_be_visible()
        expect(still.locator(".wb-lens")).to_have_count(0)


def test_an_exported_page_can_reveal_only_what_it_was_asked_to_hold(exported, tmp_path) -> None:
    page, problems = exported
    path = tmp_path / "lens.html"
    for harmful_text, buttons in (("auto", 0), ("redact", 0), ("blur", 1)):
        lens = TokenLens(harmful_traces(), harmful_text=harmful_text)  # type: ignore[arg-type]
        path.write_text(f"<!doctype html><meta charset=utf-8>{lens.to_html(interactive=True)}", "utf-8")
        page.goto(path.as_uri())
        expect(page.locator(".wb-lens")).to_have_count(1)
        expect(page.locator(".wb-reveal-button")).to_have_count(buttons)
    expect(page.locator('.wb-lens [data-position="3"]')).not_to_contain_text("glimmer")
    page.locator(".wb-reveal-button").click()
    expect(page.locator('.wb-lens [data-position="3"]')).to_have_text(" glimmer")
    assert problems == []
