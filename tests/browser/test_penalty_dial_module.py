"""The penalty dial's page in a real Chromium, with the real Python side behind it and no Jupyter."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.axe import serious_violations
from tests.browser.lens_page import CARD, click, hover, token
from tests.browser.module_page import ModulePage, module_page
from tests.fakes import prompt_set
from tests.hostile_texts import EXECUTABLE
from tests.tiny_pair import tiny_pair
from widgets.penalty_dial import PenaltyDial
from workbench.decoding.config import PenaltyConfig
from workbench.judging.records import Judgement
from workbench.models.pair import ModelPair
from workbench.prompts.loading import Prompt

pytestmark = pytest.mark.browser

SECONDS = 60.0
SETTLES_MS = 150
"""Longer than the page waits for a hand to come to rest."""


def refuses(prompt: Prompt, prefix: str, text: str) -> Judgement:
    return Judgement(attempt_id="x", p_harmful=0.0, verdict="refusal", unscored=None, why="always")


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return tiny_pair(shift=0.2)


@pytest.fixture
def dial(pair: ModelPair) -> PenaltyDial:
    return PenaltyDial(pair, prompt_set("tell me"), judge=refuses, prefix_tokens=3, max_tokens=12, live=True)


@pytest.fixture
def page(browser: Browser, dial: PenaltyDial) -> Iterator[ModulePage]:
    with module_page(browser, dial.face) as opened:
        yield opened
        opened.assert_clean()


def settle(page: ModulePage, dial: PenaltyDial) -> None:
    """Let the hand come to rest, carry the wish to Python, wait for the work, and carry the answer back."""
    page.sync(SETTLES_MS)
    assert dial.wait(SECONDS)
    page.sync()


def slide(page: ModulePage, css: str, key: str, times: int = 1) -> None:
    page.find(f"input.{css}").focus()
    for _ in range(times):
        page.page.keyboard.press(key)


def penalised(page: ModulePage) -> str:
    return "".join(page.page.locator("#el [role=option][data-response='2']").all_inner_texts())


def test_a_slider_turns_the_penalty_once_the_hand_has_come_to_rest(page: ModulePage, dial: PenaltyDial) -> None:
    before = len(page.saved)
    slide(page, "wb-strength", "ArrowRight", 4)
    expect(page.find("input.wb-strength + output")).to_have_text("4")
    settle(page, dial)
    turns = [s["asked"] for s in page.saved[before:] if "asked" in s and s["asked"]["do"] == "turn"]
    assert [t["settings"] for t in turns][-1] == {"strength": 4}
    assert len(turns) < 4, "not every step is asked for"
    assert dial.selection.penalty == PenaltyConfig(strength=4.0)
    expect(page.find(".wb-heads b").last).to_have_text("one_sided 4")
    page.find("select.wb-shape").select_option("first_m")
    settle(page, dial)
    assert dial.selection.penalty.shape == "first_m"
    slide(page, "wb-m", "ArrowRight")
    slide(page, "wb-gamma", "ArrowRight")
    slide(page, "wb-mask", "End")
    settle(page, dial)
    assert dial.selection.penalty == PenaltyConfig(strength=4.0, shape="first_m", m=7, gamma=0.5, plausibility=0.5)
    page.find("select.wb-method").select_option("safe_decoding")
    expect(page.find("input.wb-mask")).to_be_disabled()
    settle(page, dial)
    assert dial.selection.penalty.method == "safe_decoding"


def test_what_is_older_than_the_last_move_is_never_drawn(page: ModulePage, dial: PenaltyDial) -> None:
    """Take the first move's answer away, let the second be made, and only then let the first arrive."""
    slide(page, "wb-strength", "End")
    page.page.wait_for_timeout(SETTLES_MS)
    for said in page.page.evaluate("() => bridge.take()"):
        page._deliver(said)  # Python hears the first move
    assert dial.wait(SECONDS)
    first, page.comm.waiting = page.comm.waiting, []
    slide(page, "wb-strength", "Home")  # the second, while the answer to the first is on its way
    shown = page.find(".wb-heads b").last.inner_text()
    for data, buffers in first:
        page._answer(data, buffers)
    assert page.find(".wb-heads b").last.inner_text() == shown == "one_sided 1"
    expect(page.find(".wb-dial")).to_have_attribute("data-state", "waiting")
    settle(page, dial)
    expect(page.find(".wb-heads b").last).to_have_text("one_sided 0")
    expect(page.find(".wb-dial")).to_have_attribute("data-state", "finished")
    assert dial.selection.penalty.strength == 0.0


def test_hover_and_focus_show_the_ledger_and_a_click_keeps_it(page: ModulePage, dial: PenaltyDial) -> None:
    hover(page, 5, 2)
    card = page.find(CARD)
    for said in (
        "position 5 of", "p(base)", "p(aligned)", "p(penalised)", "without the penalty", "α here, risk here",
        "leverage",
    ):  # fmt: skip
        expect(card).to_contain_text(said)
    hover(page, 5, 0)
    expect(card).not_to_contain_text("p(penalised)")
    hover(page, 2, 2)
    expect(card).to_contain_text("A given token")
    click(page, 5, 2)
    panel = page.find(".wb-token-panel")
    expect(panel).to_contain_text("Position 5, penalised")
    expect(panel.locator("tbody tr.wb-observed")).to_have_count(1)
    expect(panel.locator(".wb-branch").first).to_be_visible()
    click(page, 5, 0)
    expect(panel.locator(".wb-branch")).to_have_count(0)
    panel.locator(".wb-close").click()
    expect(panel).to_have_count(0)


def test_another_token_is_taken_by_keys_alone_and_the_tree_is_walked(page: ModulePage, dial: PenaltyDial) -> None:
    keys = page.page.keyboard
    token(page, 5, 2).focus()
    expect(page.find(CARD)).to_be_visible()
    keys.press("ArrowRight")
    keys.press("Enter")
    chosen = page.page.evaluate("() => document.activeElement.getAttribute('aria-label')")
    assert chosen.startswith("continue from")
    assert chosen.endswith("at position 6")
    keys.press("Enter")
    settle(page, dial)
    assert dial.tree.branches[1].position == 6
    nodes = page.find("[role=treeitem]")
    expect(nodes).to_have_count(2)
    expect(nodes.nth(1)).to_contain_text("○ refusal")
    expect(nodes.nth(1)).to_contain_text("position 6")
    expect(nodes.nth(1)).to_have_attribute("aria-level", "2")
    expect(nodes.nth(1)).to_have_attribute("aria-selected", "true")
    expect(page.find(".wb-heads .wb-tag")).to_have_text("branch 1")
    nodes.nth(1).focus()
    keys.press("ArrowLeft")
    keys.press("Enter")
    settle(page, dial)
    assert dial.selection.branch == 0
    expect(page.find("[role=treeitem]").nth(0)).to_be_focused()
    keys.press("ArrowDown")
    keys.press(" ")
    settle(page, dial)
    assert dial.selection.branch == 1
    page.find(".wb-close").press("Escape")
    expect(page.find(".wb-token-panel")).to_have_count(0)
    expect(token(page, 6, 2)).to_be_focused()


def test_it_can_be_stopped_while_it_runs(browser: Browser, dial: PenaltyDial) -> None:
    with module_page(browser, dial.face) as page:
        dial._serial += 1
        shown, moving = dial._picture(False)
        page.tell(moving=moving, shown={**shown, "state": "running", "said": "It is being written.", "tokens": 3})
        expect(page.find(".wb-status")).to_have_text("It is being written.")
        expect(page.find(".wb-count")).to_have_text("3 tokens")
        page.find(".wb-stop").click()
        page.page.wait_for_timeout(20)
        said = [s["asked"]["do"] for s in _taken(page)]
        assert said == ["stop"]
        page.assert_clean()


def _taken(page: ModulePage) -> list[dict[str, Any]]:
    return [said["state"] for said in page.page.evaluate("() => bridge.take()") if "state" in said]


def test_three_texts_stand_side_by_side_and_errors_in_place(page: ModulePage, dial: PenaltyDial) -> None:
    heads = page.find(".wb-heads .wb-cell10 b")
    expect(heads).to_have_text(["base", "aligned", "one_sided 1"])
    for place in range(3):
        expect(page.find(f"[role=option][data-response='{place}'].wb-given")).to_have_count(3)
    expect(page.find("[role=option][data-response='2']")).to_have_count(3 + dial.selection.tokens)
    expect(page.find(".wb-status")).to_have_text(dial.face.shown["said"])  # type: ignore[attr-defined]
    expect(page.find(".wb-stop")).to_be_disabled()
    page.page.evaluate(
        "asked => { model.set('asked', asked); model.save_changes(); }",
        {"do": "turn", "settings": {"strength": -3}, "page": "other", "n": 1},
    )
    page.sync()
    alert = page.find(".wb-alert")
    expect(alert).to_have_role("alert")
    expect(alert).to_contain_text("away from aligned")
    slide(page, "wb-strength", "ArrowRight")
    settle(page, dial)
    expect(alert).to_be_hidden()


def test_harmful_text_is_covered_until_it_is_revealed_and_then_follows(browser: Browser, pair: ModelPair) -> None:
    real = dataclasses.replace(prompt_set("tell me"), classroom_safe=False)
    dial = PenaltyDial(pair, real, judge=refuses, branches=1, prefix_tokens=3, max_tokens=12, live=True)
    with module_page(browser, dial.face) as page:
        text = dial.made.continuations[0].text[:6]
        assert set(penalised(page)) <= set("░ ")
        assert text not in page.page.content()
        hover(page, 5, 2)
        expect(page.find(f"{CARD} .wb-card-token")).to_have_text("░░░")
        click(page, 5, 2)
        expect(page.find(".wb-token-panel .wb-branch")).to_have_count(0)
        page.find(".wb-reveal-button").click()
        settle(page, dial)
        assert not set(penalised(page)) & set("░")
        expect(page.find(".wb-token-panel .wb-branch").first).to_be_visible()
        slide(page, "wb-strength", "End")
        settle(page, dial)
        expect(page.find(".wb-heads b").last).to_have_text("one_sided 64")
        assert "░░░" not in penalised(page)
        page.find(".wb-reveal-button").click()
        assert "░░░" in penalised(page), "at once, whether or not Python answers"
        settle(page, dial)
        assert "░░░" in penalised(page)
        page.assert_clean()


def test_a_turn_that_is_not_sent_yet_goes_with_the_next_wish(browser: Browser, dial: PenaltyDial) -> None:
    with module_page(browser, dial.face) as page:
        click(page, 5, 2)
        page.page.keyboard.press("Escape")
        page.page.keyboard.press("Escape")
        expect(page.find(".wb-token-panel")).to_have_count(0)
        slide(page, "wb-strength", "End")
        page.page.evaluate("() => document.querySelector('#el [role=treeitem]').click()")
        settle(page, dial)
        assert dial.selection.penalty.strength == 64.0
        expect(page.find(".wb-heads b").last).to_have_text("one_sided 64")


def test_text_is_text(browser: Browser, pair: ModelPair) -> None:
    def says(prompt: Prompt, prefix: str, text: str) -> Judgement:
        return Judgement(attempt_id="x", p_harmful=None, verdict=None, unscored=EXECUTABLE[0])

    for text in EXECUTABLE[:4]:
        dial = PenaltyDial(
            pair, prompt_set(text, response=text + text), judge=says, prefix_tokens=3, max_tokens=6, live=True
        )
        with module_page(browser, dial.face) as page:
            page.tell(error="<img src=x onerror=window.tripped=1>")
            click(page, 4, 2)
            expect(page.find(".wb-alert")).to_have_text("<img src=x onerror=window.tripped=1>")
            page.assert_clean()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 700])
def test_axe_finds_nothing_serious(browser: Browser, dial: PenaltyDial, theme: Any, width: int) -> None:
    with module_page(browser, dial.face, theme=theme, width=width) as page:
        click(page, 5, 2)
        page.find(".wb-legends summary").click()
        page.page.mouse.move(2, 2)
        assert serious_violations(page.page, ".wb-dial") == []
        assert page.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        page.assert_clean()
