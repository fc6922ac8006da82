"""The token lens in a real browser, its Python side behind a model that only the page knows: hands, keys, Python."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.lens_page import CARD, classes, click, focused, hover, marked, token
from tests.browser.module_page import module_page
from tests.lens_cases import SEARCHES, SPLIT, TEXTS, UNREADABLE, VALUES, searched_flags, split_traces
from tests.test_views import harmful_traces
from tests.trace_makers import make_response, make_traces, traces_from_logprobs
from widgets.lens_settings import LensSettings, counting
from widgets.token_lens import TokenLens
from widgets.window import source
from workbench.core.quantities import FILLS, QUANTITIES, SEARCH_WORDS, quantity_named
from workbench.display import views
from workbench.tracing.records import TraceSet

pytestmark = pytest.mark.browser
LISTEN = """() => {
  window.leaked = 0;
  document.addEventListener("keydown", (event) => { window.leaked += event.key !== "Shift"; });
}"""
NAME = "() => document.activeElement.getAttribute('aria-label')"
SEARCH = """([searches, values, flags, texts, words]) => searches.map((said) => [...runSearch(readSearch(said, words),
  (name) => values[name].map((x) => x ?? NaN), (name) => flags[name], texts)])"""
ERRORS = """([all, words]) => all.map((said) => {
  try { readSearch(said, words); return ""; } catch (error) { return error.message; }
})"""
SECOND = """() => {
  const el = document.createElement("div");
  el.id = "other";
  document.body.append(el);
  window.module.default.render({ model, el });
}"""
MIDDLE = """() => {
  const box = document.querySelector(".wb-running").getBoundingClientRect();
  const found = document.elementFromPoint(box.left + 60, box.top + box.height / 2);
  return Number(found?.closest("[data-position]")?.dataset.position);
}"""


@pytest.fixture(scope="module")
def traces() -> TraceSet:
    return make_traces("deep", tokens=30)


def test_hover_shows_what_is_known_of_a_token(browser: Browser, traces: TraceSet) -> None:
    lens = TokenLens(traces)
    with module_page(browser, lens.face) as opened:
        expect(opened.find(CARD)).to_be_hidden()
        hover(opened, 3)
        expect(opened.find(CARD)).to_be_visible()
        said = opened.find(CARD).inner_text()
        row = views.tokens_table(traces, 0).rows[2]
        number = views.view.number
        for text in (
            "position 3 of 30", f"{number(row['probability_base'])}", f"{number(row['probability_aligned'])}",
            f"rank {row['rank_base']}", f"{number(row['kl_aligned_base_nats'])} nats",
            f"{number(row['excess_mass'])}, {number(row['retention'])}",
            f"{row['base_favored_count']} in aligned_topk",
        ):  # fmt: skip
            assert text in said, text
        expect(opened.find(f"{CARD} .wb-card-models .wb-bar")).to_have_count(2)
        expect(opened.find(f"{CARD} .wb-other-row").first.locator(".wb-bar")).to_have_count(2)
        favored = [a for a in views.responses.alternatives(traces, 0, 3) if a.difference > 0]
        others = opened.find(f"{CARD} .wb-other-row .wb-tok").all_text_contents()
        assert others == [a.label for a in favored[:5]]
        opened.page.mouse.move(1, 1)
        expect(opened.find(CARD)).to_be_hidden()
        hover(opened, 3)
        opened.page.keyboard.press("Escape")  # whoever sees it can send it away
        expect(opened.find(CARD)).to_be_hidden()
        opened.assert_clean()


def test_click_and_enter_pin_and_pins_stand_side_by_side(browser: Browser, traces: TraceSet) -> None:
    lens = TokenLens(traces)
    with module_page(browser, lens.face) as opened:
        click(opened, 5)
        opened.sync(150)
        assert (lens.selection.position, lens.selection.pinned) == (5, (5,))
        opened.page.keyboard.press("ArrowRight")
        opened.page.keyboard.press("Enter")
        opened.sync(150)
        assert (lens.selection.position, lens.selection.pinned) == (6, (5, 6))
        expect(token(opened, 6)).to_have_attribute("aria-selected", "true")
        boxes = opened.find(".wb-pin")
        expect(boxes).to_have_count(2)
        one, two = boxes.nth(0).bounding_box(), boxes.nth(1).bounding_box()
        assert one["y"] == two["y"]
        table = views.top_k_table(traces, 0, 5)
        said = boxes.nth(0).locator("table tr").all_inner_texts()
        assert (len(said), re.findall(r"in the text", " ".join(said))) == (1 + len(table.rows), ["in the text"])
        boxes.nth(0).get_by_role("button", name="unpin position 5").click()
        expect(boxes).to_have_count(1)
        opened.sync()
        assert lens.selection.pinned == (6,)
        click(opened, 6)  # once more unpins
        expect(boxes).to_have_count(0)
        opened.assert_clean()


def test_keys_alone_reach_everything_in_the_text(browser: Browser, traces: TraceSet) -> None:
    lens = TokenLens(traces, search="position = 9 or position = 20")
    with module_page(browser, lens.face, width=700) as opened:
        opened.page.evaluate(LISTEN)
        opened.find("input.wb-to").focus()
        opened.page.keyboard.press("Tab")  # one stop for all tokens
        leaked = opened.page.evaluate("() => window.leaked")
        assert focused(opened) == 1
        expect(opened.find(CARD)).to_be_visible()
        press = opened.page.keyboard.press
        for key, position in (
            *(("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2), ("End", 30), ("ArrowRight", 30), ("Home", 1)),
            *(("PageDown", 30), ("PageUp", 1), ("ArrowLeft", 1), ("n", 9), ("n", 20), ("n", 9), ("p", 20), ("p", 9)),
        ):
            press(key)
            assert focused(opened) == position, key
            assert opened.page.evaluate("() => document.activeElement.dataset.lmSuppressShortcuts") == "true"
            assert f"position {position} of 30" in opened.page.evaluate(NAME)
        press("ArrowDown")
        assert focused(opened) > 9
        press("ArrowUp")
        assert focused(opened) == 9
        assert opened.page.locator('#el [role=option][tabindex="0"]').count() == 1
        press("Shift+ArrowRight")
        press("Shift+ArrowRight")
        opened.sync(150)
        assert lens.selection.span == (9, 11)
        press("Enter")
        press("Escape")  # first the card
        expect(opened.find(CARD)).to_be_hidden()
        opened.sync(150)
        assert lens.selection.pinned == (11,)
        press("Escape")  # then the pin
        opened.sync(150)
        assert lens.selection.pinned == ()
        assert opened.page.evaluate("() => window.leaked") == leaked  # JupyterLab hears none of them
        outline = opened.page.evaluate("() => getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "3px"
        opened.assert_clean()


def test_split_characters_special_tokens_and_breaks_show_as_what_they_are(browser: Browser) -> None:
    with module_page(browser, TokenLens(split_traces()).face) as opened:
        texts = opened.page.eval_on_selector_all("#el [role=option]", "all => all.map((x) => x.textContent)")
        assert "".join(texts) == "".join(SPLIT)
        signs = opened.page.eval_on_selector_all("#el [role=option]", "all => all.map((x) => x.dataset.sign ?? '')")
        assert signs == ["", "▫", "▫", "", "", "", "▫", "▫"]
        expect(token(opened, 6)).to_have_class(re.compile("wb-special"))
        expect(token(opened, 5).locator(".wb-break")).to_have_count(1)
        hover(opened, 2)
        expect(opened.find(CARD)).to_contain_text("⟨F0⟩")
        expect(opened.find(CARD)).to_contain_text("no whole character")
        opened.assert_clean()


@pytest.mark.parametrize("quantity", FILLS)
def test_every_fill_is_that_of_the_static_view(browser: Browser, quantity: str) -> None:
    traces = make_traces("certain", tokens=30)
    lens = TokenLens(traces)
    q = quantity_named(quantity, float(traces.base_favored_count.max(initial=0)))
    with module_page(browser, lens.face) as opened:
        opened.find("select.wb-fill").select_option(quantity)
        opened.sync()
        assert lens.selection.quantity == quantity
        got = classes(opened)
        levels = q.levels(getattr(traces, quantity)[0].astype(np.float64)).tolist()
        shift = traces.logprob_shift_nats[0].tolist()
        for t, name in enumerate(got):
            sure = quantity == "retention" and levels[t] > 0 and not traces.entropy_aligned_nats[0, t] > 0.1
            expected = {"wb-sure"} if sure else set(filter(None, [q.css(levels[t])]))
            assert set(re.findall(r"wb-(?:orange|purple|slate)\d|wb-sure", name)) == expected, t
            assert ("wb-favored" in name, "wb-lean" in name) == (shift[t] <= -0.1, -0.1 < shift[t] < 0)
        scale = opened.find(".wb-legends .wb-swatch").all_text_contents()
        assert scale == [said for _, said in q.ranges()]
        assert q.title in opened.find(".wb-legends").inner_text()
        opened.assert_clean()


def test_each_slider_decides_what_counts_and_says_it(browser: Browser, traces: TraceSet) -> None:
    lens = TokenLens(traces)
    with module_page(browser, lens.face) as opened:
        opened.find(".wb-search").fill("alternatives > 0")
        expect(opened.find(".wb-found")).to_contain_text("match")
        assert marked(opened, "wb-dim") == []
        for css, moves, control in (
            ("wb-minimum-base", ["End", "ArrowLeft", "ArrowLeft"], "minimum_base"),
            ("wb-ratio", ["ArrowRight"] * 5, "ratio"),
            ("wb-top-k", ["ArrowLeft"] * 3, "top_k"),
        ):
            slider = opened.find(f"input.{css}")
            before = opened.find(".wb-counted").inner_text()
            slider.focus()
            for key in moves:
                opened.page.keyboard.press(key)
            opened.sync(200)
            assert getattr(lens.settings, control) != getattr(LensSettings(), control)
            counts = counting(traces, 0, lens.settings).sum(-1)
            some = (np.flatnonzero(counts) + 1).tolist()
            said = opened.find(".wb-counted").inner_text()
            assert said.startswith(f"{counts.sum()} alternatives at {len(some)} of 30 positions count as base-favored")
            assert "within the stored top 4" in said
            assert said != before
            assert (marked(opened, "wb-match"), sorted(marked(opened, "wb-dim") + some)) == (some, list(range(1, 31)))
            assert slider.get_attribute("aria-valuetext") == opened.find(f"label:has(input.{css}) output").inner_text()
            lens.set(**{control: getattr(LensSettings(), control)})
            opened.sync()
        opened.assert_clean()


def test_only_what_the_sampler_could_pick(browser: Browser, traces: TraceSet) -> None:
    lens = TokenLens(traces, search="alternatives >= 1")
    with module_page(browser, lens.face) as opened:
        expect(opened.find("input.wb-temperature")).to_be_hidden()
        opened.find("input.wb-only-sampled").check()
        for temperature, top_p in (("1", "0.9"), ("0.7", "0.5"), ("1.5", "1"), ("0", "0.9")):
            opened.find("input.wb-temperature").fill(temperature)
            opened.find("input.wb-top-p").fill(top_p)
            opened.page.keyboard.press("Tab")
            opened.sync(150)
            assert lens.settings.only_sampled
            assert (lens.settings.temperature, lens.settings.top_p) == (float(temperature), float(top_p))
            assert marked(opened, "wb-match") == lens.to_frame().query("match")["position"].tolist()
        opened.find("input.wb-top-p").fill("7")
        opened.page.keyboard.press("Tab")
        opened.sync(150)
        expect(opened.find(".wb-alert")).to_contain_text("top_p is 7")
        expect(opened.find("input.wb-top-p")).to_have_value("0.9")
        opened.assert_clean()


def test_words_and_sentences_are_filled_by_their_mean(browser: Browser) -> None:
    pieces = ("It", " is", " un", "likely", ".", " So", "!", "\n", "日", "本", "<|end|>")
    excess = np.array([[0.8, 0, 0.1, 0, 0.4, 0.6, 0, 0.95, 0.9, 0.02, 0.3]], np.float32)
    base = np.log(np.full((11, 11), 1 / 11))
    made = traces_from_logprobs([base], [base], [range(11)], [make_response("p", "harmless")], pieces=pieces)
    special = np.arange(11)[None] == 10
    made = dataclasses.replace(
        made, special=special, scalars={**made.scalars, "excess_mass": excess, "retention": 1 - excess}
    )
    lens = TokenLens(made)
    words = [[0], [1], [2, 3, 4], [5, 6], [7], [8], [9], [10]]
    sentences = [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9], [10]]
    q = QUANTITIES["excess_mass"]
    with module_page(browser, lens.face) as opened:
        for granularity, units in (("word", words), ("sentence", sentences)):
            opened.find("select.wb-granularity").select_option(granularity)
            opened.sync()
            assert lens.settings.granularity == granularity
            means = np.concatenate([np.full(len(u), made.excess_mass[0, u].astype(np.float64).mean()) for u in units])
            expected = [q.css(int(level)) for level in q.levels(means)]
            got = classes(opened)
            assert ["".join(re.findall(r"wb-orange\d", name)) for name in got] == expected
            assert f"mean over each {granularity}" in opened.find(".wb-legends").inner_text()
            hover(opened, 4)
            size = next(len(u) for u in units if 3 in u)
            expect(opened.find(CARD)).to_contain_text(f"over {size} tokens")
            opened.page.mouse.move(1, 1)
        opened.assert_clean()


def test_the_page_reads_searches_and_writes_numbers_as_python_does(browser: Browser) -> None:
    opening = "export default { render() { Object.assign(window, { readSearch, runSearch }); } };"
    module = f"{source('lens_search.js')}\n{opening}"
    with module_page(browser, module=module) as opened:
        values = {name: [None if np.isnan(x) else x for x in array.tolist()] for name, array in VALUES.items()}
        flags = {name: np.asarray(array).tolist() for name, array in searched_flags().items()}
        searches, words = [said for said, _ in SEARCHES], dict(SEARCH_WORDS)
        found = opened.page.evaluate(SEARCH, [searches, values, flags, list(TEXTS), words])
        for (said, positions), marks in zip(SEARCHES, found, strict=True):
            assert [i + 1 for i, mark in enumerate(marks) if mark] == positions, said
        errors = opened.page.evaluate(ERRORS, [[said for said, _ in UNREADABLE], words])
        assert errors == [message for _, message in UNREADABLE]
    rng = np.random.default_rng(0)
    values = [0.0, -0.0, 1.0, -2.5, 999.6, 1234567.0, 0.01, 1e-4, 7.3e-5, *(10.0 ** rng.uniform(-7, 7, 200)).tolist()]
    opening = "export default { render() { Object.assign(window, { numberText }); } };"
    with module_page(browser, module=f"{source('parts/dom.js')}\n{opening}") as opened:
        said = opened.page.evaluate("(all) => all.map((x) => numberText(x))", values)
        assert said == [views.view.number(v) for v in values]
        assert opened.page.evaluate("() => [numberText(NaN), numberText(null), numberText(Infinity)]") == ["–"] * 3


def test_search_next_previous_and_its_error_in_place(browser: Browser, traces: TraceSet) -> None:
    lens = TokenLens(traces)
    with module_page(browser, lens.face) as opened:
        box, found = opened.find(".wb-search"), opened.find(".wb-found")
        expect(opened.find(".wb-next")).to_be_disabled()
        box.fill("base-favored and position > 4")
        opened.sync(300)
        positions = lens.to_frame().query("match")["position"].tolist()
        assert len(positions) > 2
        assert marked(opened, "wb-match") == positions
        expect(found).to_have_text(f"{len(positions)} tokens match")
        for n, by in ((0, "next"), (1, "next"), (0, "previous"), (len(positions) - 1, "previous")):
            opened.find(f".wb-{by}").click()
            expect(found).to_have_text(f"{n + 1} of {len(positions)} tokens")
            assert marked(opened, "wb-here") == [positions[n]]
        opened.sync(200)
        assert lens.selection.position == positions[-1]
        box.fill("base p >")
        error = opened.find(".wb-search-error")
        expect(error).to_have_text(dict(UNREADABLE)["base p >"])
        expect(box).to_have_attribute("aria-invalid", "true")
        assert (box.get_attribute("aria-describedby"), marked(opened, "wb-match")) == (error.get_attribute("id"), [])
        expect(box).to_have_value("base p >")
        opened.sync(200)
        assert lens.settings.search == ""
        box.press("Escape")
        expect(error).to_be_hidden()
        box.fill("no(such")
        opened.find("select.wb-fill").select_option("retention")
        expect(box).to_have_value("no(such")  # what cannot be read stays to be mended
        opened.assert_clean()


@pytest.mark.parametrize("width", [1280, 700])
def test_responses_stand_side_by_side_aligned_by_position(browser: Browser, width: int) -> None:
    traces = make_traces(prefixes=(0, 5), tokens=24)
    lens = TokenLens(traces, 0, beside=(1,), arms={0: "aligned", 1: "prefilled"})
    with module_page(browser, lens.face, width=width) as opened:
        for position in (1, 11, 21):
            one, two = (token(opened, position, r).bounding_box() for r in (0, 1))
            assert abs(one["y"] - two["y"]) < 15  # the same row
            assert one["x"] < two["x"]
        assert opened.find(".wb-heads b").all_text_contents() == ["aligned", "prefilled"]
        assert opened.page.evaluate("() => document.documentElement.scrollWidth") <= width
        assert token(opened, 3, 1).get_attribute("class").count("wb-given") == 1
        hover(opened, 4, 0)
        expect(token(opened, 4, 1)).to_have_class(re.compile("wb-peer"))
        click(opened, 4, 0)
        opened.page.keyboard.press("c")
        assert (opened.page.evaluate("() => document.activeElement.dataset.response"), focused(opened)) == ("1", 4)
        sides = opened.find('.wb-pin[data-position="4"] .wb-pin-side')
        expect(sides).to_have_count(2)
        expect(sides.nth(1)).to_contain_text("prefilled")
        opened.sync(150)
        assert lens.selection.pinned == (4,)
        opened.assert_clean()


def test_covered_text_is_not_in_the_page_until_it_is_revealed(browser: Browser) -> None:
    lens = TokenLens(harmful_traces())
    with module_page(browser, lens.face) as opened:
        assert "glimmer" not in opened.page.content()
        assert "glimmer" not in opened.page.evaluate("() => document.body.innerText")
        hover(opened, 2)
        assert "glimmer" not in opened.find(CARD).inner_text()
        expect(opened.find(CARD)).to_contain_text("p(base)")  # its scores are there
        button = opened.find(".wb-reveal-button")
        button.focus()
        opened.page.keyboard.press("Enter")
        expect(token(opened, 2)).to_have_text(" the")
        expect(token(opened, 3)).to_have_text(" glimmer")
        expect(opened.find(".wb-reveal-button")).to_be_focused()
        expect(opened.find(".wb-reveal-button")).to_have_text("Cover it again")
        click(opened, 3)
        expect(opened.find(".wb-pin")).to_contain_text("·glimmer")
        opened.find(".wb-reveal-button").click()
        assert "glimmer" not in opened.page.content()
        opened.assert_clean()


def test_revealing_needs_python_only_where_the_text_was_never_sent(browser: Browser) -> None:
    lens = TokenLens(harmful_traces())
    state = {name: getattr(lens.face, name) for name in ("lens", "columns", "state", "asked", "error")}
    with module_page(browser, module=str(lens.face._esm), css=str(lens.face._css), state=state) as opened:
        assert opened.saved == [{"asked": 1}]
        opened.find(".wb-reveal-button").click()
        expect(opened.find(".wb-waiting")).to_have_text("Asking Python for the text…")
        opened.message({"do": "text"}, [lens._column(0, export=False, covered=False)])
        expect(token(opened, 3)).to_have_text(" glimmer")
        expect(opened.find(".wb-waiting")).to_be_hidden()


def test_redacted_text_has_no_button(browser: Browser) -> None:
    lens = TokenLens(harmful_traces(), harmful_text="redact")
    with module_page(browser, lens.face) as opened:
        expect(opened.find(".wb-reveal-button")).to_have_count(0)
        expect(opened.find(".wb-cover")).to_contain_text("SHA-256")
        opened.page.evaluate("() => model.set('asked', 7)")
        opened.page.evaluate("() => model.save_changes()")
        opened.sync()
        assert "glimmer" not in opened.page.content()
        opened.assert_clean()


def test_python_moves_the_lens_and_the_page_follows(browser: Browser) -> None:
    lens = TokenLens(make_traces(tokens=400, harmful=1, harmless=1, lookalike=0))
    with module_page(browser, lens.face) as opened:
        lens.show(position=390, span=(380, 395), quantity="retention")
        lens.set(minimum_base=0.2, search="position = 1")
        opened.sync()
        expect(token(opened, 390)).to_be_in_viewport()
        assert (marked(opened, "wb-here"), marked(opened, "wb-in")) == ([390], list(range(380, 396)))
        assert marked(opened, "wb-match") == [1]
        expect(opened.find("select.wb-fill")).to_have_value("retention")
        expect(opened.find("input.wb-from")).to_have_value("380")
        expect(opened.find(".wb-search")).to_have_value("position = 1")
        lens.show(response=1)
        opened.sync()
        expect(opened.find(".wb-id")).to_have_text("harmless-0")
        assert marked(opened, "wb-in") == []
        lens.on_select(lambda _: 1 / 0)
        lens.show(position=2)
        opened.sync()
        expect(opened.find(".wb-alert")).to_contain_text("ZeroDivisionError")
        opened.assert_clean()


def test_a_late_echo_or_new_columns_do_not_undo_what_was_just_set(browser: Browser) -> None:
    lens = TokenLens(make_traces(tokens=40, harmful=1, harmless=1, lookalike=0))
    with module_page(browser, lens.face) as opened:
        old = opened.page.evaluate("() => model.get('state')")
        opened.find("input.wb-search").fill("position = 3")
        opened.find("input.wb-search").press("Enter")
        opened.page.keyboard.press("Escape")
        opened.find("input.wb-search").fill("position > 38")
        opened.page.wait_for_timeout(180)  # the page has taken it and is about to send it
        opened.tell(state={**old, "quantity": "retention"})
        opened.tell(columns=lens.face.columns)
        assert marked(opened, "wb-match") == [39, 40]
        opened.sync(300)
        assert (lens.settings.search, marked(opened, "wb-match")) == ("position > 38", [39, 40])
        assert lens.selection.quantity == "retention", "what the other side changed meanwhile is kept"


def test_what_a_listener_raises_on_another_response_stays(browser: Browser) -> None:
    lens = TokenLens(make_traces(tokens=20, harmful=2, harmless=0, lookalike=0))
    with module_page(browser, lens.face) as opened:
        lens.on_select(lambda selection: 1 / (1 - selection.response))
        opened.find("select.wb-response").select_option("1")
        opened.sync(200)
        expect(opened.find(".wb-alert")).to_contain_text("ZeroDivisionError")


def test_positions_are_selected_by_map_fields_and_text(browser: Browser, traces: TraceSet) -> None:
    lens = TokenLens(traces)
    with module_page(browser, lens.face) as opened:
        box = opened.find(".wb-map").bounding_box()
        mouse, at = opened.page.mouse, lambda p: box["x"] + (p - 0.5) / 30 * box["width"]
        mouse.move(at(6), box["y"] + 5)
        mouse.down()
        mouse.move(at(9), box["y"] + 5)
        mouse.move(at(12), box["y"] + 5)
        mouse.up()
        opened.sync()
        assert lens.selection.span == (6, 12)
        assert marked(opened, "wb-in") == list(range(6, 13))
        mouse.click(at(20), box["y"] + 5)
        opened.sync(150)
        assert (lens.selection.position, lens.selection.span) == (20, (6, 12))
        opened.find("input.wb-to").fill("9")
        opened.page.keyboard.press("Enter")
        opened.sync()
        assert lens.selection.span == (6, 9)
        opened.find("button.wb-all").click()
        opened.sync()
        assert lens.selection.span is None
        hover(opened, 17)
        mouse.down()
        hover(opened, 19)
        mouse.up()
        opened.sync()
        assert lens.selection.span == (17, 19)
        assert lens.selection.pinned == ()
        opened.assert_clean()


def test_another_response_comes_from_python_and_all_else_works_without(browser: Browser, traces: TraceSet) -> None:
    lens = TokenLens(traces)
    with module_page(browser, lens.face) as opened:
        opened.find("select.wb-response").select_option("4")
        expect(opened.find(".wb-waiting")).to_have_text("Asking Python for this response…")
        expect(opened.find(".wb-id")).to_have_text("harmful-0")
        hover(opened, 2)  # what is there can still be read
        expect(opened.find(CARD)).to_be_visible()
        opened.sync()
        expect(opened.find(".wb-id")).to_have_text("harmful-4")
        expect(opened.find(".wb-waiting")).to_be_hidden()
        assert lens.selection.response == 4
        opened.assert_clean()


def test_a_growing_record_keeps_controls_focus_and_text(browser: Browser) -> None:
    long = make_traces(tokens=12, harmful=1, harmless=0, lookalike=0)
    lens = TokenLens(make_traces(tokens=5, harmful=1, harmless=0, lookalike=0))
    with module_page(browser, lens.face) as opened:
        box = opened.find(".wb-search")
        box.fill("position > 4")
        opened.sync(250)
        lens.read(long)
        opened.sync()
        expect(opened.find("[role=option]")).to_have_count(12)
        expect(box).to_be_focused()
        assert marked(opened, "wb-match") == list(range(5, 13))
        click(opened, 7)
        lens.read(dataclasses.replace(long))
        opened.sync()
        assert focused(opened) == 7
        opened.assert_clean()


def test_two_views_of_a_lens_show_the_same(browser: Browser, traces: TraceSet) -> None:
    lens = TokenLens(traces)
    with module_page(browser, lens.face) as opened:
        opened.page.evaluate(SECOND)
        click(opened, 5)
        expect(opened.page.locator('#other [data-position="5"][aria-selected=true]')).to_have_count(1)
        opened.page.locator("#other .wb-search").fill("position = 3")
        expect(token(opened, 3)).to_have_class(re.compile("wb-match"))
        opened.page.evaluate("() => window.stop()")
        opened.assert_clean()


def test_a_long_text_is_built_as_it_comes_near_and_its_end_can_be_reached(browser: Browser) -> None:
    from benchmarks.lens import made_up

    lens = TokenLens(made_up(6_000))
    with module_page(browser, lens.face) as opened:
        opened.page.evaluate("() => { window.requestIdleCallback = () => 0; }")
        opened.tell(columns=[*lens.face.columns])  # drawn again, with nothing built for lack of anything to do
        assert opened.find("[role=option]").count() < 3_000
        opened.find(".wb-running").evaluate("(text) => { text.scrollTop = text.scrollHeight / 2; }")
        opened.page.wait_for_timeout(300)
        seen = opened.page.evaluate(MIDDLE)
        assert 1_500 < int(seen) < 4_500
        token(opened, 1).evaluate("(x) => x.focus()")
        opened.page.keyboard.press("End")
        assert focused(opened) == 6_000
        lens.set(search="position > 5990 or position < 9")  # far blocks are painted when they come near
        opened.sync()
        assert marked(opened, "wb-match") == list(range(5_991, 6_001))
        opened.find(".wb-running").evaluate("(text) => { text.scrollTop = 0; }")
        expect(token(opened, 5)).to_have_class(re.compile("wb-match"))
        opened.page.keyboard.press("End")
        expect(token(opened, 6_000)).to_be_in_viewport()
        opened.assert_clean()
