"""Blind rating in a real Chromium, with the real Python side behind it: by keys, by mouse, with texts that attack."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.module_page import ModulePage, module_page
from tests.hostile_texts import HOSTILE_TEXTS
from tests.judge_makers import answers_of, attempt
from tests.test_rating import rating
from widgets.rating import Rating
from workbench.judging.ratings import Ratings

pytestmark = pytest.mark.browser
TAGS = "() => [...document.querySelectorAll('.wb-rating *')].map((n) => n.tagName).sort().join()"


@contextmanager
def opened(browser: Browser, one: Rating) -> Iterator[ModulePage]:
    with module_page(browser, one.face) as page:
        yield page
        assert page.problems == []
        assert not page.tripped()


def press(page: ModulePage, *keys: str) -> None:
    for key in keys:
        page.page.keyboard.press(key)
        page.sync()


def click(page: ModulePage, selector: str, n: int = 0) -> None:
    page.find(selector).nth(n).click()
    page.sync()


def test_by_the_keyboard_alone(browser: Browser, tmp_path: Path) -> None:
    one = rating(tmp_path)
    with opened(browser, one) as page:
        where, text = page.find(".wb-where"), page.find(".wb-answer")
        page.find(".wb-rating").focus()
        expect(where).to_have_text("Text 1 of 7, 0 rated by ann")
        expect(text).to_contain_text("▒▒▒")
        shown = page.page.locator("body").inner_text()
        assert one.sheet.samples[0].text.strip() not in shown
        assert "Sure," not in shown
        press(page, "5")
        expect(page.find(".wb-hint")).to_have_text("Open the text before you rate it (Enter).")
        assert one.selection.rated == 0
        press(page, "Enter")
        expect(text).to_contain_text(one.sheet.samples[0].text.strip())
        expect(text).not_to_have_class(re.compile("wb-covered"))
        press(page, "4")
        expect(where).to_have_text("Text 2 of 7, 1 rated by ann")
        expect(text).to_contain_text("▒▒▒")
        press(page, "ArrowLeft")
        expect(page.find(".wb-rate[aria-pressed=true] b")).to_have_text("4")
        press(page, "ArrowLeft")
        expect(where).to_have_text("Text 1 of 7, 1 rated by ann")
        assert Ratings(tmp_path).of("ann") == {one.sheet.keys[0]: 4}


def test_by_the_mouse_with_every_text_open_until_all_are_rated(browser: Browser, tmp_path: Path) -> None:
    one = rating(tmp_path)
    with opened(browser, one) as page:
        page.find(".wb-keep input").check()
        click(page, ".wb-open")
        for n, item in enumerate(one.sheet.samples):
            expect(page.find(".wb-answer")).to_contain_text(item.text.strip())
            expect(page.find(".wb-prompt").first).to_contain_text(item.request)
            if item.prefix:
                expect(page.find(".wb-prefix")).to_contain_text("Sure,")
            click(page, ".wb-rate", n % 5)
        expect(page.find(".wb-where")).to_have_text("Text 7 of 7, 7 rated by ann: all done")
        expect(page.find(".wb-skip")).to_be_disabled()
        assert one.to_frame()["rating"].tolist() == [n % 5 + 1 for n in range(7)]


def test_hostile_texts_are_text_and_run_nothing(browser: Browser, tmp_path: Path) -> None:
    asked = [attempt(f"Q {t}", prefix=t) for t in HOSTILE_TEXTS]
    one = Rating(answers_of({"one": list(zip(asked, HOSTILE_TEXTS, strict=True))}), folder=tmp_path, rater="ann")
    with opened(browser, one) as page:
        page.find(".wb-keep input").check()
        click(page, ".wb-open")
        tags = page.page.evaluate(TAGS)
        for number in range(1, len(one.sheet)):
            click(page, ".wb-on")
            expect(page.find(".wb-where")).to_contain_text(f"Text {number + 1} of")
            assert page.page.evaluate(TAGS) == tags, number


def test_what_python_raises_is_shown_and_no_text_is_said(browser: Browser, tmp_path: Path) -> None:
    one = rating(tmp_path)
    with opened(browser, one) as page:
        (tmp_path / "ann.json").write_text("{")
        click(page, ".wb-open")
        press(page, "5")
        expect(page.find(".wb-alert")).to_contain_text("RecordError:")
        (tmp_path / "ann.json").unlink()
        press(page, "5")
        expect(page.find(".wb-alert")).to_be_hidden()
        assert one.selection.rated == 1
    with opened(browser, Rating(answers_of({}), folder=tmp_path, rater="bob")) as page:
        expect(page.find(".wb-where")).to_have_text("There is no text to rate.")
        expect(page.find(".wb-scale")).to_be_hidden()
        page.find(".wb-rating").focus()
        press(page, "5", "Enter", "ArrowRight")
