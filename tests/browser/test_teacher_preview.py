"""What the teacher says, in a page by itself: cards by mouse and by keys, and nothing of what is covered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.axe import serious_violations
from tests.browser.pages import watched
from tests.hostile_texts import EXECUTABLE
from tests.test_train_teacher import shown
from workbench.display.views import HarmfulText, teacher_view


def page_of(folder: Path, text: str, harmful_text: HarmfulText) -> Path:
    file = folder / "teacher.html"
    html = teacher_view(shown(text), classroom_safe=False, harmful_text=harmful_text).html
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>teacher</title>'
    file.write_text(f"{head}<main>{html}</main></html>", "utf-8")
    return file


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 480])
def test_a_card_names_both_sides(browser: Browser, theme: Any, width: int, tmp_path: Path) -> None:
    with watched(browser, width=width, color_scheme=theme) as w:
        w.page.goto(page_of(tmp_path, "marmalade", "show").as_uri())
        tokens = w.page.locator(".wb-text .t")
        expect(tokens).to_have_count(2)
        tokens.first.hover()
        card = w.page.locator(".wb-card[role=status]")
        expect(card).to_contain_text("alignedmarmalade 0.90")
        expect(card).to_contain_text("another first choiceyes")
        tokens.first.focus()
        w.page.keyboard.press("ArrowRight")
        expect(tokens.nth(1)).to_be_focused()
        expect(card).to_contain_text("teacherw 1.0")
        expect(card).to_contain_text("another first choiceno")
        w.page.keyboard.press("Escape")
        expect(card).to_have_count(0)
        assert w.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
        assert serious_violations(w.page, ".wb-teacher") == []


def test_a_card_stands_at_its_token_whatever_holds_the_view(browser: Browser, tmp_path: Path) -> None:
    """JupyterLab's panels contain what is fixed: a card was moved by where the panel begins."""
    file = page_of(tmp_path, "marmalade", "show")
    held = '<main style="transform: translate(0, 0); margin: 90px 0 0 60px; overflow: hidden">'
    file.write_text(file.read_text("utf-8").replace("<main>", held), "utf-8")
    with watched(browser, width=1000) as w:
        w.page.goto(file.as_uri())
        token = w.page.locator(".wb-text .t").first
        token.hover()
        at, card = token.bounding_box(), w.page.locator(".wb-card[role=status]").bounding_box()
        assert abs(card["x"] - at["x"]) < 2
        assert 0 < card["y"] - (at["y"] + at["height"]) < 20


def test_what_is_covered_is_covered_in_its_cards_too(browser: Browser, tmp_path: Path) -> None:
    with watched(browser, width=1000) as w:
        w.page.goto(page_of(tmp_path, "marmalade", "blur").as_uri())
        covered = w.page.locator(".wb-covered .wb-text .t").first
        covered.hover()
        card = w.page.locator(".wb-card[role=status]")
        expect(card).to_be_visible()
        expect(card).not_to_contain_text("marmalade")
        w.page.get_by_text("Reveal this harmful text").click()
        w.page.locator(".wb-reveal .wb-text .t").first.hover()
        expect(card).to_contain_text("marmalade")


@pytest.mark.parametrize("text", EXECUTABLE[::9])
def test_model_text_is_not_executed(browser: Browser, text: str, tmp_path: Path) -> None:
    with watched(browser, width=1000) as w:
        w.page.goto(page_of(tmp_path, text, "show").as_uri())
        w.page.locator(".wb-text .t").first.hover()
        expect(w.page.locator(".wb-card[role=status]")).to_be_visible()
        assert w.page.evaluate("window.tripped") is None
