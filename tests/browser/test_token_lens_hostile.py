"""Hostile texts are texts in the lens, in its static and interactive pages, and in plotly's hover: none executes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from plotly.offline import get_plotlyjs

from tests.browser.lens_page import token
from tests.browser.module_page import FOREIGN, module_page
from tests.errors import refuses
from tests.hostile_texts import EXECUTABLE, HOSTILE_TEXTS
from tests.record_makers import make_diagnosis
from tests.test_views import hostile_traces
from tests.trace_makers import make_traces
from widgets.token_lens import TokenLens
from workbench.core import legible
from workbench.display import figures

pytestmark = pytest.mark.browser
UNSAFE = """
export default { render({ model, el }) {
  for (const text of model.get("texts")) {
    const box = document.createElement("div");
    box.innerHTML = text;
    el.append(box);
  }
} };
"""
CARDS = """() => [...document.querySelectorAll("#el [role=option]")].map((token) => {
  token.scrollIntoView({ block: "center" });
  token.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
  return document.querySelector(".wb-card-token").textContent;
})"""
HOVERED = """async ([spec, config]) => {
  await Plotly.newPlot("plot", spec.data, spec.layout, config);
  const plot = document.getElementById("plot");
  const points = spec.data.flatMap((d, curveNumber) => d.y.map((_, pointNumber) => ({ curveNumber, pointNumber })));
  Plotly.Fx.hover(plot, points);
  await new Promise((done) => setTimeout(done, 120)); // plotly waits 50 ms between hovers
  return [...plot.querySelectorAll(".hoverlayer text")].map((x) => x.textContent);
}"""
ODD = "img, iframe, object, embed, link, base, form, #plot a, #plot image, #plot foreignObject, #plot script"


def watched(page: Page) -> list[str]:
    """List what goes wrong in a page or is asked of the network."""
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "blob:", "data:")) else problems.append(r.url))
    page.on("dialog", lambda dialog: (problems.append("dialog"), dialog.dismiss()))
    return problems


def test_hostile_text_is_text_in_the_widget_and_the_corpus_is_large(browser: Browser) -> None:
    assert len(set(HOSTILE_TEXTS)) == len(HOSTILE_TEXTS) >= 150
    made = hostile_traces()
    lens = TokenLens(made, arms={0: EXECUTABLE[0]})
    every = range(1, len(HOSTILE_TEXTS) + 1, 12)
    with module_page(browser, lens.face) as opened:
        texts = opened.page.eval_on_selector_all("#el [role=option]", "all => all.map((x) => x.textContent)")
        for t, (text, said) in enumerate(zip(HOSTILE_TEXTS, texts, strict=True)):
            assert said == (legible.label(text) if made.special[0, t] else legible.prose(text)), t
        assert opened.page.evaluate(CARDS) == [legible.label(text) for text in HOSTILE_TEXTS]
        for position in every:
            token(opened, position).evaluate("(x) => x.focus()")
            opened.page.keyboard.press("Enter")
        for granularity in ("word", "sentence"):
            opened.find("select.wb-granularity").select_option(granularity)
        opened.find(".wb-search").fill('"<img src=x onerror=window.tripped=1>"')
        expect(opened.find(".wb-found")).to_contain_text("match")
        opened.sync(300)
        expect(opened.find(".wb-pin")).to_have_count(len(every))
        opened.assert_clean()


def test_an_unsafe_renderer_trips_the_same_detector(browser: Browser) -> None:
    texts = [text for text in EXECUTABLE if "http" not in text]
    with module_page(browser, module=UNSAFE, state={"texts": texts}) as opened:
        opened.page.wait_for_function("() => window.tripped")
        assert opened.foreign()
        refuses(lambda: opened.assert_clean(), AssertionError)
    with module_page(browser, module=UNSAFE, state={"texts": ["<img src=https://example.invalid/a.png>"]}) as opened:
        opened.page.wait_for_timeout(200)
        assert any("request https://example.invalid" in said for said in opened.problems)


@pytest.mark.parametrize("interactive", [False, True])
def test_hostile_text_is_text_in_exported_pages(browser: Browser, tmp_path: Path, interactive: bool) -> None:
    path, page = tmp_path / "lens.html", browser.new_page()
    problems = watched(page)
    said = TokenLens(hostile_traces()).to_html(interactive=interactive)
    path.write_text(f"<!doctype html><meta charset=utf-8><title>x</title><main>{said}</main>", "utf-8")
    page.goto(path.as_uri())
    if interactive:
        expect(page.locator(".wb-lens")).to_have_count(1)
        assert page.evaluate(FOREIGN, page.query_selector(".wb-lens")) == []
    for found in page.locator(".wb-lens .wb-t" if interactive else ".wb-tokens .t").all()[::25]:
        found.hover(force=True)
    assert not page.evaluate("() => Boolean(window.tripped)")
    assert (page.locator(ODD).count(), problems) == (0, [])
    page.close()


def test_hostile_text_is_text_in_plotly_s_hover(browser: Browser, tmp_path: Path) -> None:
    few, one = 24, make_diagnosis(make_traces())
    path, page = tmp_path / "figure.html", browser.new_page()
    problems = watched(page)
    start = "<!doctype html><meta charset=utf-8><title>x</title>"
    path.write_text(f"{start}<script>{get_plotlyjs()}</script><div id=plot>", "utf-8")
    page.goto(path.as_uri())
    for part in range(0, len(HOSTILE_TEXTS), few):
        texts = HOSTILE_TEXTS[part : part + few]
        found = tuple(dataclasses.replace(one.frequencies[0], token_id=i, label=t) for i, t in enumerate(texts))
        figure = figures.base_favored_frequencies(dataclasses.replace(one, frequencies=found), limit=few)
        figure.update_layout(height=3_000)  # plotly leaves out hover labels that would overlap
        hovered = page.evaluate(HOVERED, [figures.figure_spec(figure), dict(figures.CONFIG)])
        for text in texts:
            assert any(legible.label(text)[:12] in said for said in hovered), text
        assert page.locator(ODD).count() == 0
        assert not page.evaluate("() => Boolean(window.tripped)")
    assert problems == []
    page.close()
