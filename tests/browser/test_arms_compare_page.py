"""Arms side by side in a real Chromium: from a file with no network, and live with the real Python side behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

import workbench as wb
from tests.browser.axe import serious_violations
from tests.browser.module_page import ModulePage, module_page
from tests.hostile_texts import EXECUTABLE
from widgets import ArmsCompare
from workbench.display.report import Report
from workbench.evaluation.attacks import Arm
from workbench.evaluation.records import AnswersBeside

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def made() -> tuple[tuple[Arm, ...], AnswersBeside]:
    pair = wb.load_pair(preset="embedded")
    arms = wb.arms_of(pair, adapters=["completed"])
    attempts = wb.attempts_of(
        pair, wb.load_prompts(source="embedded", limit=12), ["prefill", "harmless_prefill"],
        prefix_tokens=["0", "1", "10"], max_tokens=72,
    )  # fmt: skip
    return arms, wb.answers_beside(wb.evaluate(arms, attempts), arms)


@pytest.fixture(scope="module")
def report(made: tuple[tuple[Arm, ...], AnswersBeside], tmp_path_factory: pytest.TempPathFactory) -> Path:
    report = Report("Evaluation", {"__annotations__": {"seed": int}, "seed": 0})
    report.show(ArmsCompare(*made, live=False), section="Beside")
    return report.write(tmp_path_factory.mktemp("beside")).html


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    page, problems = browser.new_page(viewport={"width": 1280, "height": 800}), list[str]()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith("file:") else problems.append(r.url))
    page.goto(report.as_uri())
    expect(page.locator(".wb-column")).to_have_count(3)
    yield page
    assert problems == []
    page.close()


def pills(page: Page) -> list[str]:
    return page.locator(".wb-column .wb-pill").all_inner_texts()


def test_the_fork_is_what_is_seen_first(page: Page) -> None:
    assert pills(page) == ["➜ complied", "➜ complied", "⊘ refused"]
    expect(page.locator(".wb-beginning")).to_contain_text("Sure, here is how to")
    expect(page.locator(".wb-column", has_text="completed").locator(".wb-heads")).to_contain_text(
        "refuses from token 1"
    )
    assert page.locator(".t.wb-here").count() == 3  # the same place in each column
    expect(page.locator(".wb-column .wb-wanted").last).to_contain_text("token 1 wanted I")
    assert page.locator(".wb-unscripted").is_hidden()


def test_the_slider_moves_what_is_given_in_all_columns_by_keys(page: Page) -> None:
    dial = page.locator(".wb-dial")
    dial.focus()
    page.keyboard.press("Home")
    expect(page.locator(".wb-beginning")).to_contain_text("nothing is given")
    expect(dial).to_have_attribute("aria-valuetext", "0 tokens")
    assert pills(page) == ["➜ complied", "⊘ refused", "⊘ refused"]
    page.keyboard.press("ArrowRight")  # the dial keeps the focus
    expect(dial).to_have_attribute("aria-valuetext", "1 token")
    page.locator(".wb-answer").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert {t.get_attribute("data-at") for t in page.locator(".t.wb-here").all()} == {page.locator(
        ".wb-column .t.wb-here").first.get_attribute("data-at")}  # fmt: skip


def test_pointing_at_a_token_says_what_each_arm_wanted_there(page: Page) -> None:
    page.locator(".wb-column").nth(1).locator("[data-at='4']").hover()
    for line in page.locator(".wb-wanted").all():
        expect(line).to_contain_text("token 5 wanted")
    page.get_by_role("button", name="4 harmless").click()
    expect(page.get_by_role("button", name="4 harmless")).to_be_focused()
    assert set(pills(page)) == {"➜ answered"}


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_it_reads_everywhere(browser: Browser, report: Path, scheme: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(report.as_uri())
    expect(page.locator(".wb-column")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert serious_violations(page, ".wb-beside") == []
    page.close()


def test_without_scripts_the_texts_stand_there(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    expect(page.locator(".wb-unscripted .wb-said-by").first).to_contain_text("complied")
    context.close()


@pytest.fixture
def live(browser: Browser, made: tuple[tuple[Arm, ...], AnswersBeside]) -> Iterator[tuple[ModulePage, ArmsCompare]]:
    widget = ArmsCompare(*made, live=True, max_tokens=8)
    with module_page(browser, widget.face) as opened:
        yield opened, widget
        opened.assert_clean()


def test_a_typed_prompt_is_continued_by_every_arm(live: tuple[ModulePage, ArmsCompare]) -> None:
    page, widget = live
    page.find(".wb-prompt-text").fill(widget.record.asked[0].prompt)
    page.find(".wb-prefix-text").fill("Sure, here is how to")
    page.find(".wb-start").click()
    page.sync()
    assert widget.wait(60)
    page.sync()
    expect(page.find(".wb-beside")).to_have_attribute("data-state", "finished")
    expect(page.find(".wb-choose button[aria-pressed=true]")).to_contain_text("unlabelled")
    expect(page.find(".wb-column .wb-pill").nth(2)).to_have_text("⊘ refused")
    expect(page.find(".wb-beginning")).to_contain_text("Sure, here is how to")


@pytest.mark.parametrize("text", ["", EXECUTABLE[0], "\ud800 half", "\u202eright to left"])
def test_what_is_typed_is_text_or_refused_in_words(live: tuple[ModulePage, ArmsCompare], text: str) -> None:
    page, widget = live
    page.page.evaluate("t => { document.querySelector('.wb-prompt-text').value = t; }", text)
    page.find(".wb-start").click()
    page.sync()
    assert widget.wait(60)
    page.sync()
    if text:
        expect(page.find(".wb-beside")).to_have_attribute("data-state", "finished")
    else:
        expect(page.find(".wb-alert")).to_contain_text("the prompt is empty")
