"""The token lens in a real browser, its Python side behind a model that only the page knows: hands, keys, eyes, hostility."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.axe import serious_violations
from tests.browser.module_page import FOREIGN, ModulePage, module_page
from tests.hostile_texts import EXECUTABLE, HOSTILE_TEXTS
from tests.lens_cases import SEARCHES, TEXTS, UNREADABLE, VALUES, searched_flags
from tests.record_makers import make_diagnosis
from tests.test_views import harmful_traces, hostile_traces
from tests.trace_makers import make_response, make_traces, traces_from_logprobs
from widgets.lens_settings import LensSettings, counting
from widgets.token_lens import TokenLens
from widgets.window import source
from workbench import figures, legible, views
from workbench.records import TraceSet
from workbench.views.scales import quantity_named

pytestmark = pytest.mark.browser
CARD = ".wb-lens-card"


@pytest.fixture(scope="module")
def traces() -> TraceSet:
    return make_traces("deep", tokens=30)


def token(opened: ModulePage, position: int, response: int | None = None) -> Any:
    where = "" if response is None else f'[data-response="{response}"]'
    return opened.find(f'[role=option][data-position="{position}"]{where}')


def hover(opened: ModulePage, position: int, response: int | None = None) -> None:
    """Move the mouse onto a token: its last line, where it runs over two."""
    x, y = token(opened, position, response).evaluate(
        "(t) => { t.scrollIntoView({ block: 'nearest' }); const r = [...t.getClientRects()].at(-1); return [r.x + r.width / 2, r.y + r.height / 2]; }"
    )
    opened.page.mouse.move(x, y)


def click(opened: ModulePage, position: int, response: int | None = None) -> None:
    hover(opened, position, response)
    opened.page.mouse.down()
    opened.page.mouse.up()


def marked(opened: ModulePage, css: str) -> list[int]:
    """Return the positions of the tokens of a class."""
    found = opened.page.eval_on_selector_all(f"#el .{css}[role=option]", "all => all.map((x) => +x.dataset.position)")
    return [int(p) for p in found]


def focused(opened: ModulePage) -> int:
    return int(opened.page.evaluate("() => +document.activeElement.dataset.position"))


# ---------------------------------------------------------------------------------------------- hover, pins, keys


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
            "position 3 of 30",
            f"{number(row['probability_base'])}",
            f"{number(row['probability_aligned'])}",
            f"rank {row['rank_base']}",
            f"{number(row['kl_aligned_base_nats'])} nats",
            f"{number(row['excess_mass'])}, {number(row['retention'])}",
            f"{row['base_favored_count']} in aligned_topk",
        ):
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
        assert one is not None
        assert two is not None
        assert one["y"] == two["y"]
        table = views.top_k_table(traces, 0, 5)
        said = boxes.nth(0).locator("table tr").all_inner_texts()
        assert len(said) == 1 + len(table.rows)
        assert re.findall(r"stands here", " ".join(said)) == ["stands here"]
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
        opened.page.evaluate("() => { window.leaked = 0; document.addEventListener('keydown', (e) => { window.leaked += e.key !== 'Shift'; }); }")
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
            assert opened.page.evaluate("() => document.activeElement.getAttribute('aria-label')").count(f"position {position} of 30")
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


# ---------------------------------------------------------------------------------------------- fill, thresholds


@pytest.mark.parametrize("quantity", views.QUANTITIES)
def test_every_fill_is_that_of_the_static_view(browser: Browser, quantity: str) -> None:
    traces = make_traces("certain", tokens=30)
    lens = TokenLens(traces)
    q = quantity_named(quantity, traces)
    with module_page(browser, lens.face) as opened:
        opened.find("select.wb-fill").select_option(quantity)
        opened.sync()
        assert lens.selection.quantity == quantity
        got = opened.page.eval_on_selector_all("#el [role=option]", "all => all.map((x) => x.className)")
        levels = q.levels(getattr(traces, quantity)[0].astype(np.float64)).tolist()
        shift = traces.logprob_shift_nats[0].tolist()
        for t, name in enumerate(got):
            sure = quantity == "retention" and not traces.entropy_aligned_nats[0, t] > 0.1
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
            assert said.startswith(f"{counts.sum():,} alternatives at {len(some)} of 30 positions count as base-favored")
            assert "within the stored top 4" in said
            assert said != before
            assert marked(opened, "wb-match") == some
            assert sorted(marked(opened, "wb-dim") + some) == list(range(1, 31))
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
    rng = np.random.default_rng(3)
    base, aligned = (np.log(rng.dirichlet(np.full(11, 0.2), 11) + 1e-9) for _ in "ba")
    base, aligned = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (base, aligned))
    made = traces_from_logprobs([base], [aligned], [range(11)], [make_response("p", "harmless")], pieces=pieces)
    special = np.zeros_like(made.special)
    special[0, 10] = True
    made = dataclasses.replace(made, special=special)
    lens = TokenLens(made)
    words = [[0], [1], [2, 3, 4], [5, 6], [7], [8], [9], [10]]
    sentences = [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9], [10]]
    q = views.QUANTITIES["excess_mass"]
    with module_page(browser, lens.face) as opened:
        for granularity, units in (("word", words), ("sentence", sentences)):
            opened.find("select.wb-granularity").select_option(granularity)
            opened.sync()
            assert lens.settings.granularity == granularity
            means = np.concatenate([np.full(len(u), made.excess_mass[0, u].astype(np.float64).mean()) for u in units])
            expected = [q.css(int(level)) for level in q.levels(means)]
            got = opened.page.eval_on_selector_all("#el [role=option]", "all => all.map((x) => x.className)")
            assert ["".join(re.findall(r"wb-orange\d", name)) for name in got] == expected
            assert f"mean over each {granularity}" in opened.find(".wb-legends").inner_text()
            hover(opened, 4)
            size = next(len(u) for u in units if 3 in u)
            expect(opened.find(CARD)).to_contain_text(f"over {size} tokens")
            opened.page.mouse.move(1, 1)
        opened.assert_clean()


# ---------------------------------------------------------------------------------------------- search


def test_the_page_reads_the_search_language_as_python_does(browser: Browser) -> None:
    module = source("lens_search.js") + "\nexport default { render() { window.readSearch = readSearch; window.runSearch = runSearch; } };"
    with module_page(browser, module=module) as opened:
        values = {name: [None if np.isnan(x) else x for x in array.tolist()] for name, array in VALUES.items()}
        flags = {name: np.asarray(array).tolist() for name, array in searched_flags().items()}
        found = opened.page.evaluate(
            """([searches, values, flags, texts]) => searches.map((said) => [...runSearch(
                readSearch(said), (name) => values[name].map((x) => x ?? NaN), (name) => flags[name], texts)])""",
            [[said for said, _ in SEARCHES], values, flags, list(TEXTS)],
        )
        for (said, positions), marks in zip(SEARCHES, found, strict=True):
            assert [i + 1 for i, mark in enumerate(marks) if mark] == positions, said
        errors = opened.page.evaluate(
            "(all) => all.map((said) => { try { readSearch(said); return ''; } catch (error) { return error.message; } })",
            [said for said, _ in UNREADABLE],
        )
        assert errors == [message for _, message in UNREADABLE]


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
        expect(error).to_have_text("the search cannot be read at character 9: expected a number or a value such as “base p”, found the end")
        expect(box).to_have_attribute("aria-invalid", "true")
        assert box.get_attribute("aria-describedby") == error.get_attribute("id")
        assert marked(opened, "wb-match") == []
        expect(box).to_have_value("base p >")
        opened.sync(200)
        assert lens.settings.search == ""
        box.press("Escape")
        expect(error).to_be_hidden()
        box.fill("no(such")
        opened.find("select.wb-fill").select_option("retention")
        expect(box).to_have_value("no(such")  # what cannot be read stays to be mended
        opened.assert_clean()


# ---------------------------------------------------------------------------------------------- side by side


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
        assert opened.page.evaluate("() => document.activeElement.dataset.response") == "1"
        assert focused(opened) == 4
        sides = opened.find('.wb-pin[data-position="4"] .wb-pin-side')
        expect(sides).to_have_count(2)
        expect(sides.nth(1)).to_contain_text("prefilled")
        opened.sync(150)
        assert lens.selection.pinned == (4,)
        opened.assert_clean()


# ---------------------------------------------------------------------------------------------- harmful text


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
    state = {name: getattr(lens.face, name) for name in ("lens", "columns", "state", "error")}
    with module_page(browser, module=str(lens.face._esm), css=str(lens.face._css), state=state) as opened:
        assert opened.sent == [{"do": "texts"}]
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
        assert opened.sent == []
        opened.assert_clean()


# ---------------------------------------------------------------------------------------------- Python and page


def test_python_moves_the_lens_and_the_page_follows(browser: Browser) -> None:
    lens = TokenLens(make_traces(tokens=400, harmful=1, harmless=1, lookalike=0))
    with module_page(browser, lens.face) as opened:
        lens.show(position=390, span=(380, 395), quantity="retention")
        lens.set(minimum_base=0.2, search="position = 1")
        opened.sync()
        expect(token(opened, 390)).to_be_in_viewport()
        assert marked(opened, "wb-here") == [390]
        assert marked(opened, "wb-in") == list(range(380, 396))
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


def test_positions_are_selected_by_map_fields_and_text(browser: Browser, traces: TraceSet) -> None:
    lens = TokenLens(traces)
    with module_page(browser, lens.face) as opened:
        box = opened.find(".wb-map").bounding_box()
        assert box is not None
        mouse, at = opened.page.mouse, lambda p: box["x"] + (p - 0.5) / 30 * box["width"]  # noqa: E731
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
        opened.page.evaluate(
            "() => { const el = document.createElement('div'); el.id = 'other'; document.body.append(el); window.module.default.render({ model, el }); }"
        )
        click(opened, 5)
        expect(opened.page.locator('#other [data-position="5"][aria-selected=true]')).to_have_count(1)
        opened.page.locator("#other .wb-search").fill("position = 3")
        expect(token(opened, 3)).to_have_class(re.compile("wb-match"))
        opened.page.evaluate("() => window.stop()")
        opened.assert_clean()


# ---------------------------------------------------------------------------------------------- large texts


def test_a_long_text_is_built_as_it_comes_near_and_its_end_can_be_reached(browser: Browser) -> None:
    from benchmarks.lens import made_up

    lens = TokenLens(made_up(20_000))
    with module_page(browser, lens.face) as opened:
        opened.page.evaluate("() => { window.requestIdleCallback = () => 0; }")
        opened.tell(columns=[*lens.face.columns])  # drawn again, with nothing built for lack of anything to do
        assert opened.find("[role=option]").count() < 4_000
        opened.page.evaluate("() => { const t = document.querySelector('.wb-running'); t.scrollTop = t.scrollHeight / 2; }")
        opened.page.wait_for_timeout(300)
        seen = opened.page.evaluate(
            """() => { const box = document.querySelector(".wb-running").getBoundingClientRect();
            return document.elementFromPoint(box.left + 60, box.top + box.height / 2)?.closest("[data-position]")?.dataset.position; }"""
        )
        assert 5_000 < int(seen) < 15_000
        token(opened, 1).evaluate("(x) => x.focus()")
        opened.page.keyboard.press("End")
        assert focused(opened) == 20_000
        expect(token(opened, 20_000)).to_be_in_viewport()
        opened.assert_clean()


# ---------------------------------------------------------------------------------------------- look


LOOKS = [
    ("light", None, "rgb(255, 255, 255)"),
    ("dark", None, "rgb(17, 17, 17)"),
    ("light", "dark", "rgb(17, 17, 17)"),  # JupyterLab's theme wins over the system's
    ("dark", "light", "rgb(255, 255, 255)"),
]


@pytest.mark.parametrize(("scheme", "theme", "paper"), LOOKS)
@pytest.mark.parametrize("width", [1280, 700])
def test_it_follows_the_theme_and_fits(browser: Browser, traces: TraceSet, scheme: Any, theme: Any, paper: str, width: int) -> None:
    lens = TokenLens(traces, search="base-favored", minimum_base=0.1)
    lens.pin(2, 7)
    with module_page(browser, lens.face, scheme=scheme, theme=theme, width=width) as opened:
        assert opened.page.evaluate("() => getComputedStyle(document.querySelector('.wb-lens')).backgroundColor") == paper
        assert opened.page.evaluate("() => document.documentElement.scrollWidth") <= width
        hover(opened, 9)
        card = opened.find(CARD).bounding_box()
        assert card is not None
        assert card["x"] >= 0
        assert card["x"] + card["width"] <= width
        assert opened.page.evaluate(AA) == []
        opened.assert_clean()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, traces: TraceSet, theme: Any) -> None:
    lens = TokenLens(traces, beside=(1, 2), search="base p >= 0 and kl > 0.5", minimum_base=0.1, only_sampled=True)
    lens.pin(3)
    covered = TokenLens(harmful_traces(), granularity="word")
    for shown in (lens, covered):
        with module_page(browser, shown.face, theme=theme) as opened:
            for details in opened.find("summary").all():
                details.click()
            token(opened, 2).first.evaluate("(x) => x.focus()")
            assert serious_violations(opened.page, "#el .wb-lens") == []
            opened.assert_clean()


AA = """
() => {
  const parse = (text) => (text.match(/[0-9.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
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
    if (![...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !node.checkVisibility()) continue;
    if (node.matches(":disabled, .wb-hid, option")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(paper(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${node.className} ${node.textContent.slice(0, 20)} ${(a + 0.05) / (b + 0.05)}`);
  }
  return poor;
}
"""


def test_colours_on_the_map_change_with_the_theme(browser: Browser, traces: TraceSet) -> None:
    with module_page(browser, TokenLens(traces).face, theme="light") as opened:
        pixel = """() => { const c = document.querySelector(".wb-map"); return [...c.getContext("2d").getImageData(2, 3, 1, 1).data].join(); }"""
        before = opened.page.evaluate(pixel)
        opened.page.evaluate("() => document.body.setAttribute('data-jp-theme-light', 'false')")
        opened.page.wait_for_function(f"(before) => ({pixel})() !== before", arg=before)


def test_forced_colours_and_reduced_motion_are_honoured(browser: Browser, traces: TraceSet) -> None:
    with module_page(browser, TokenLens(traces).face, forced_colors="active", reduced_motion="reduce") as opened:
        token(opened, 3).focus()
        assert opened.page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
        assert opened.page.evaluate("() => getComputedStyle(document.activeElement).transitionDuration") == "0s"
        fill = "() => getComputedStyle(document.querySelector('[data-position=\"5\"]')).backgroundColor"
        assert opened.page.evaluate(fill) == "rgb(255, 255, 255)"
        opened.assert_clean()


# ---------------------------------------------------------------------------------------------- without a kernel


def test_the_interactive_page_works_with_no_kernel_and_no_network(browser: Browser, traces: TraceSet, tmp_path: Path) -> None:
    lens = TokenLens(traces, 1)
    path = tmp_path / "lens.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><title>lens</title>{lens.to_html(interactive=True)}", "utf-8")
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith(("file:", "blob:")) else problems.append(r.url))
    page.goto(path.as_uri())
    page.locator('.wb-lens [data-position="4"]').click()
    expect(page.locator(".wb-lens .wb-pin")).to_have_count(1)
    expect(page.locator(".wb-still")).to_be_hidden()
    expect(page.locator("select.wb-response")).to_have_count(0)
    page.locator(".wb-lens .wb-search").fill("position < 4")
    expect(page.locator(".wb-found")).to_have_text("3 tokens match")
    assert problems == []
    page.close()
    context = browser.new_context(java_script_enabled=False)
    still = context.new_page()
    still.goto(path.as_uri())
    expect(still.locator(".wb-tokens .wb-text")).to_be_visible()
    expect(still.locator(".wb-lens")).to_have_count(0)
    context.close()


def test_revealing_in_an_exported_page_is_there_only_when_asked_for(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "lens.html"
    page = browser.new_page()
    for harmful_text, buttons in (("auto", 0), ("blur", 1)):
        lens = TokenLens(harmful_traces(), harmful_text=harmful_text)  # type: ignore[arg-type]
        path.write_text(f"<!doctype html><meta charset=utf-8>{lens.to_html(interactive=True)}", "utf-8")
        page.goto(path.as_uri())
        expect(page.locator(".wb-lens")).to_have_count(1)
        expect(page.locator(".wb-reveal-button")).to_have_count(buttons)
    page.locator(".wb-reveal-button").click()
    expect(page.locator('.wb-lens [data-position="3"]')).to_have_text(" glimmer")
    page.close()


# ---------------------------------------------------------------------------------------------- hostile texts


def test_hostile_text_is_text_in_the_widget(browser: Browser) -> None:
    made = hostile_traces()
    lens = TokenLens(made, arms={0: EXECUTABLE[0]})
    with module_page(browser, lens.face) as opened:
        texts = opened.page.eval_on_selector_all("#el [role=option]", "all => all.map((x) => x.textContent)")
        for t, (text, said) in enumerate(zip(HOSTILE_TEXTS, texts, strict=True)):
            assert said == (legible.label(text) if made.special[0, t] else legible.prose(text)), t
        cards = opened.page.evaluate(
            """() => [...document.querySelectorAll("#el [role=option]")].map((token) => {
              token.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
              return document.querySelector(".wb-card-token").textContent; })"""
        )
        assert cards == [legible.label(text) if text else legible.label(text) for text in HOSTILE_TEXTS]
        for position in range(1, len(HOSTILE_TEXTS) + 1, 12):
            token(opened, position).evaluate("(x) => { x.focus(); }")
            opened.page.keyboard.press("Enter")
        for granularity in ("word", "sentence"):
            opened.find("select.wb-granularity").select_option(granularity)
        opened.find(".wb-search").fill('"<img src=x onerror=window.tripped=1>"')
        expect(opened.find(".wb-found")).to_contain_text("match")
        opened.sync(300)
        opened.page.wait_for_timeout(200)
        assert opened.find(".wb-pin").count() == len(range(1, len(HOSTILE_TEXTS) + 1, 12))
        opened.assert_clean()


def test_an_unsafe_renderer_trips_the_same_detector(browser: Browser) -> None:
    unsafe = "export default { render({ model, el }) { for (const text of model.get('texts')) { const box = document.createElement('div'); box.innerHTML = text; el.append(box); } } }"
    with module_page(browser, module=unsafe, state={"texts": [t for t in EXECUTABLE if "http" not in t]}) as opened:
        opened.page.wait_for_function("() => window.tripped")
        assert opened.tripped()
        assert opened.foreign()
        with pytest.raises(AssertionError):
            opened.assert_clean()
    with module_page(browser, module=unsafe, state={"texts": ["<img src=https://example.invalid/pixel.png>"]}) as opened:
        opened.page.wait_for_timeout(200)
        assert any("request https://example.invalid" in said for said in opened.problems)


def test_hostile_text_is_text_in_the_static_and_the_interactive_page(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "lens.html"
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "blob:")) else problems.append(r.url))
    page.on("dialog", lambda d: (problems.append("dialog"), d.dismiss()))
    for interactive in (False, True):
        said = TokenLens(hostile_traces()).to_html(interactive=interactive)
        path.write_text(f"<!doctype html><meta charset=utf-8><title>x</title><body><main>{said}</main>", "utf-8")
        page.goto(path.as_uri())
        if interactive:
            expect(page.locator(".wb-lens")).to_have_count(1)
            assert page.evaluate(FOREIGN, page.query_selector(".wb-lens")) == []
        for t in page.locator(".wb-tokens .t" if not interactive else ".wb-lens .wb-t").all()[:200:25]:
            t.hover(force=True)
        assert not page.evaluate("() => Boolean(window.tripped)")
        assert len(page.query_selector_all("img, iframe, object, embed, link, base, form")) == 0
    assert problems == []
    page.close()


def test_hostile_text_is_text_in_plotly_s_hover(browser: Browser, tmp_path: Path) -> None:
    few = 24
    diagnosis = make_diagnosis(make_traces())
    path, page, problems = tmp_path / "figure.html", browser.new_page(), list[str]()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "blob:", "data:")) else problems.append(r.url))
    path.write_text(f"<!doctype html><meta charset=utf-8><title>x</title>{figures.plotlyjs_tag()}<div id=plot>", "utf-8")
    page.goto(path.as_uri())
    for part in range(0, len(HOSTILE_TEXTS), few):
        texts = HOSTILE_TEXTS[part : part + few]
        frequencies = tuple(
            dataclasses.replace(diagnosis.frequencies[0], token_id=i, label=text) for i, text in enumerate(texts)
        )
        figure = figures.base_favored_frequencies(dataclasses.replace(diagnosis, frequencies=frequencies), limit=few)
        figure.update_layout(height=3_000)  # plotly leaves out hover labels that would overlap
        hovered = page.evaluate(
            """async ([spec, config]) => {
            await Plotly.newPlot("plot", spec.data, spec.layout, config);
            const plot = document.getElementById("plot");
            Plotly.Fx.hover(plot, spec.data.flatMap((d, curveNumber) => [...d.y].map((_, pointNumber) => ({ curveNumber, pointNumber }))));
            await new Promise((done) => setTimeout(done, 120)); // plotly waits 50 ms between hovers
            return [...plot.querySelectorAll(".hoverlayer text")].map((x) => x.textContent); }""",
            [figures.figure_spec(figure), dict(figures.CONFIG)],
        )
        for text in texts:
            assert any(legible.label(text)[:12] in said for said in hovered), text
        assert page.evaluate("() => [...document.querySelectorAll('#plot *')].filter((x) => /^(img|iframe|script|a|image|foreignobject|use)$/i.test(x.tagName)).length") == 0
        assert not page.evaluate("() => Boolean(window.tripped)")
    assert problems == []
    page.close()
