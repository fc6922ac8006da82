"""Notebook 01 in a real JupyterLab, as its reader uses it: hover, pin, keys, sliders, brush, probe, reload."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.axe import serious_violations
from tests.browser.first_notebook import write_first_notebook
from tests.browser.lab import LabPage, Server, ran
from tests.browser.pages import watched

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

NO_MODEL = ("widget model not found", "reading .kernel.")
"""What ipywidgets says to the console where a saved view has no kernel."""
LENS = ".jp-OutputArea-output > .wb-live > .wb-lens"
EVERYDAY = """
everyday = wb.trace(models, wb.load_prompts(wb.PromptConfig(source="everyday", limit=6)), wb.TraceConfig(max_tokens=24))
harmful = [r.label for r in everyday.responses].index("harmful")
covered = TokenLens(everyday, harmful)
covered"""


@pytest.fixture(scope="module")
def first(jupyter: Server, browser: Browser) -> Iterator[LabPage]:
    """Open notebook 01 with small settings and run all of it."""
    write_first_notebook(jupyter.folder / "first.ipynb")
    with ran(jupyter, browser, "first.ipynb") as lab:
        expect(lens_of(lab.page)).to_be_visible(timeout=60_000)
        yield lab


def lens_of(page: Page) -> Locator:
    return page.locator(LENS).first


def token(lens: Locator, position: int) -> Locator:
    return lens.locator(f"[role=option][data-position='{position}']")


def test_every_cell_runs_and_each_view_is_seen_once(first: LabPage) -> None:
    page = first.page
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts() == []
    expect(page.locator("[data-mime-type='application/vnd.jupyter.error']")).to_have_count(0)
    for css in (LENS, ".wb-linked-panel .wb-linked", ".wb-linked-panel .wb-lens", ".wb-probe"):
        expect(page.locator(css)).to_have_count(1)
        expect(page.locator(css)).to_be_visible()
    still = page.locator(".wb-still")
    expect(still).to_have_count(3)
    for i in range(3):
        expect(still.nth(i)).to_be_hidden()


def test_hovering_pinning_and_keys_are_heard_by_python(first: LabPage) -> None:
    lens = lens_of(first.page)
    card = lens.locator(".wb-lens-card")
    token(lens, 3).hover()
    expect(card).to_be_visible()
    expect(card).to_contain_text("position 3 of")
    expect(card).to_contain_text("p(base)")
    first.page.mouse.move(2, 2)
    expect(card).to_be_hidden()
    lens = lens_of(first.page)
    token(lens, 3).click()
    token(lens, 6).click()
    expect(lens.locator(".wb-pin")).to_have_count(2)
    expect(token(lens, 6)).to_have_attribute("aria-selected", "true")
    first.reads("lens.selection.pinned, lens.selection.position", "(3, 6) 6")
    lens.locator(".wb-pin[data-position='3'] .wb-unpin").click()
    expect(lens.locator(".wb-pin")).to_have_count(1)
    first.reads("lens.selection.pinned", "(6,)")
    assert first.run("lens.pin(1, 4)") == ""
    expect(token(lens, 4)).to_have_attribute("aria-selected", "true")
    page, lens = first.page, lens_of(first.page)
    first.run("lens.pin()\nlens.show(position=1)")
    lens.locator(".wb-to").focus()  # the control before the text
    while not page.evaluate("() => document.activeElement.matches('[role=option]')"):
        page.keyboard.press("Tab")
    page.keyboard.press("Home")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    expect(lens.locator(".wb-lens-card")).to_contain_text("position 2 of")
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    first.reads("lens.selection.pinned", "(2, 3)")


@pytest.mark.parametrize(
    ("css", "key", "setting", "expected"),
    [
        ("wb-minimum-base", "ArrowRight", "minimum_base", "0.001"),
        ("wb-ratio", "ArrowRight", "ratio", "1.1"),
        ("wb-top-k", "ArrowLeft", "top_k", "9"),
    ],
)
def test_each_slider_counts_anew_and_python_reads_it(first, css, key, setting, expected) -> None:
    lens = lens_of(first.page)
    first.run("lens.set(minimum_base=0.0, ratio=1.0, top_k=None)")
    before = lens.locator(".wb-counted").inner_text()
    lens.locator(f"input.{css}").focus()
    first.page.keyboard.press(key)
    expect(lens.locator(".wb-counted")).not_to_have_text(before)
    first.reads(f"lens.settings.{setting}", expected)


def test_fill_and_search_work_in_place(first: LabPage) -> None:
    lens = lens_of(first.page)
    lens.locator("select.wb-fill").select_option("retention")
    lens.locator("input.wb-search").fill("base-favored")
    expect(lens.locator(".wb-found")).to_contain_text("of")
    lens.locator("input.wb-search").fill("base p > ")
    expect(lens.locator(".wb-search-error")).to_be_visible()
    lens.locator("input.wb-search").fill("")
    expect(lens.locator(".wb-search-error")).to_be_hidden()
    first.reads("lens.selection.quantity", "retention")


def test_a_span_brushed_on_the_curves_is_selected_in_the_text_and_back(first: LabPage) -> None:
    panel = first.page.locator(".wb-linked-panel")
    drag = panel.locator(".js-plotly-plot .nsewdrag").first
    drag.scroll_into_view_if_needed()
    box = drag.bounding_box()
    middle = box["y"] + box["height"] / 2
    first.page.mouse.move(box["x"] + box["width"] * 0.2, middle)
    first.page.mouse.down()
    for share in (0.3, 0.4, 0.5):
        first.page.mouse.move(box["x"] + box["width"] * share, middle)
    first.page.mouse.up()
    expect(panel.locator(".wb-linked .wb-all")).to_be_enabled()
    start, end = first.run("print(*linked.selection.span)").split()
    assert 1 < int(start) < int(end)
    expect(panel.locator(".wb-lens .wb-from")).to_have_value(start)
    panel.locator(".wb-lens .wb-from").fill("2")
    panel.locator(".wb-lens .wb-from").press("Enter")
    first.reads("linked.selection.span", f"(2, {end})")
    expect(panel.locator(".wb-linked .wb-from")).to_have_value("2")
    panel.locator(".wb-linked .wb-all").click()
    expect(panel.locator(".wb-lens .wb-all")).to_be_disabled()


def test_a_cell_of_the_heat_map_and_a_prompt_of_the_list_open_the_text(first: LabPage) -> None:
    panel = first.page.locator(".wb-linked-panel")
    panel.locator("td[data-prefix='5'][data-position='7']").click()
    expect(panel.locator(".wb-lens [role=option].wb-here")).to_have_attribute("data-position", "7")
    first.reads("again.responses[linked.selection.response].prefix_tokens", "5")
    choice = panel.locator(".wb-linked [role=option][aria-selected=false]").last
    response = choice.get_attribute("data-response")
    choice.click()
    expect(panel.locator(".wb-linked [role=option][aria-selected=true]")).to_have_attribute(
        "data-response", str(response)
    )
    first.reads("linked.selection.response", str(response))


def test_errors_of_python_are_said_in_place_and_charts_stay_here(first: LabPage) -> None:
    expect(first.page.locator(".wb-linked-panel .modebar-btn").first).to_be_attached()
    names = first.page.locator(".modebar-btn").evaluate_all("all => all.map(b => b.dataset.title ?? b.href)")
    assert names
    assert [n for n in names if any(w in n.lower() for w in ("share", "cloud", "edit in", "plotly"))] == []
    first.run("stop = linked.on_select(lambda selection: 1 / 0)")
    panel = first.page.locator(".wb-linked-panel .wb-linked")
    panel.locator(".wb-from").fill("3")
    panel.locator(".wb-from").press("Enter")
    expect(panel.locator(".wb-alert")).to_have_text("ZeroDivisionError: division by zero")
    first.run("stop()")
    panel.locator(".wb-all").click()
    expect(panel.locator(".wb-alert")).to_be_hidden()


def test_harmful_text_is_covered_until_it_is_revealed(first: LabPage) -> None:
    first.run(EVERYDAY)
    lens = first.page.locator(LENS).last
    words = first.run("print(*[p.strip() for p in everyday.pieces[harmful] if len(p.strip()) > 3][:3])").split()
    expect(token(lens, 1)).to_be_visible()
    shown = lens.locator("[role=listbox]")
    assert not any(word in shown.inner_text() for word in words)
    lens.locator("button.wb-reveal-button").click()
    expect(shown).to_contain_text(words[0])
    lens.locator("button.wb-reveal-button").click()
    expect(shown).not_to_contain_text(words[0])
    assert words


def test_the_probe_streams_stops_and_says_what_is_wrong(first: LabPage) -> None:
    probe = first.page.locator(".wb-probe")
    probe.locator(".wb-start").click()
    expect(probe.locator(".wb-alert")).to_contain_text("empty")
    probe.locator(".wb-prompt-text").fill("How do I find the market?")
    probe.locator(".wb-longest").fill("400")
    probe.locator(".wb-temperature").fill("4")
    probe.locator(".wb-start").click()
    expect(probe).to_have_attribute("data-state", "running")
    probe.locator(".wb-stop").click()
    expect(probe).to_have_attribute("data-state", "stopped")
    probe.locator(".wb-longest").fill("12")
    probe.locator(".wb-prompt-text").press("Control+Enter")
    expect(probe).to_have_attribute("data-state", "finished")
    expect(first.page.locator(".wb-probe-panel .wb-lens [role=option]").first).to_be_visible()
    first.reads("live_probe.selection.tokens <= 12", "True")


def test_figures_keep_their_height_when_the_window_changes(first: LabPage) -> None:
    figures = first.page.locator(".jp-RenderedPlotly.js-plotly-plot")
    heights = figures.evaluate_all("all => all.map(f => f.clientHeight)")
    assert min(heights) > 300
    for width in (1000, 1280):
        first.page.set_viewport_size({"width": width, "height": 1000})
        first.page.wait_for_timeout(800)  # plotly draws anew a moment later
        assert figures.evaluate_all("all => all.map(f => f.clientHeight)") == heights


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_nothing_serious_in_our_views(first: LabPage, theme: str) -> None:
    first.page.evaluate("t => window.jupyterapp.commands.execute('apputils:change-theme', {theme: t})", theme)
    expect(first.page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
    assert serious_violations(first.page, ".wb-lens", ".wb-linked-panel", ".wb-probe-panel", ".jp-OutputArea .wb") == []


def test_the_saved_notebook_is_small_and_reads_alone(first: LabPage, jupyter: Server, browser: Browser) -> None:
    saved = first.save()
    assert "widgets" not in saved["metadata"]
    assert (jupyter.folder / "first.ipynb").stat().st_size < 1_000_000
    first.shut_down_kernel()
    token(lens_of(first.page), 4).hover()  # the picture stays
    expect(lens_of(first.page).locator(".wb-lens-card")).to_contain_text("position 4 of")
    with watched(browser, but=NO_MODEL) as w:
        reader = LabPage(page=w.page, server=jupyter)
        reader.open_without_kernel("first.ipynb")
        expect(w.page.locator(".wb-still .wb-tokens").first).to_be_visible()
        expect(w.page.locator(".wb-lens")).to_have_count(0)
        for line in w.page.get_by_text("displaying widget").or_(w.page.get_by_text("Loading widget")).all():
            expect(line).to_be_hidden()
