"""The live probe's page in a real Chromium, with the real Python side behind it and no Jupyter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.axe import serious_violations
from tests.browser.module_page import ModulePage, module_page
from tests.fakes import counting_model
from tests.hostile_texts import EXECUTABLE
from tests.tiny_pair import tiny_tokenizer
from widgets.live_probe import LiveProbe, ProbeFace
from workbench.models.pair import ModelPair

pytestmark = pytest.mark.browser

SECONDS = 60.0
FORM: dict[str, Any] = {
    "prompt": "count", "prefix": "", "system_prompt": "", "continued_by": "aligned", "temperature": 0.0, "seed": 0,
    "max_tokens": 64,
}  # fmt: skip
IDLE = {"state": "idle", "said": "Type a prompt and start.", "tokens": 0}


@pytest.fixture(scope="module")
def counting() -> ModelPair:
    return ModelPair.from_models(counting_model(320), counting_model(320), tiny_tokenizer())


@pytest.fixture
def probe(counting: ModelPair) -> LiveProbe:
    return LiveProbe(counting, live=True, max_tokens=8)


@pytest.fixture
def page(browser: Browser, probe: LiveProbe) -> Iterator[ModulePage]:
    with module_page(browser, probe.face) as opened:
        yield opened
        opened.assert_clean()


@pytest.fixture
def form(browser: Browser) -> Iterator[ModulePage]:
    """Open the module with no Python behind it."""
    state = {"form": FORM, "state": IDLE, "asked": {}, "error": ""}
    with module_page(browser, module=str(ProbeFace._esm), css=str(ProbeFace._css), state=state) as opened:
        yield opened
        opened.assert_clean()


def asked(page: ModulePage) -> dict[str, Any]:
    page.sync()
    return {k: v for k, v in page.saved[-1]["asked"].items() if k != "n"}


def settle(page: ModulePage, probe: LiveProbe) -> None:
    """Carry the page's wish to Python, wait for the work, and carry the answer back."""
    page.sync()
    assert probe.wait(SECONDS)
    page.sync()


def test_a_prompt_is_typed_and_started_and_the_end_is_said(page: ModulePage, probe: LiveProbe) -> None:
    expect(page.find(".wb-status")).to_have_text("Type a prompt and start.")
    expect(page.find(".wb-stop")).to_be_disabled()
    page.find(".wb-prompt-text").fill("count")
    page.find(".wb-prefix-text").fill("<")
    page.find("input[value=base]").check()
    page.find(".wb-start").click()
    settle(page, probe)
    assert (probe.traces.responses[0].prompt, probe.traces.responses[0].continued_by) == ("count", "base")
    expect(page.find(".wb-probe")).to_have_attribute("data-state", "finished")
    expect(page.find(".wb-status")).to_have_text("Cut at the longest response, 8 tokens.")
    expect(page.find(".wb-status")).to_have_role("status")
    expect(page.find(".wb-alert")).to_be_hidden()


def test_an_error_is_said_in_place_and_goes_away(page: ModulePage, probe: LiveProbe) -> None:
    page.find(".wb-prompt-text").fill("   ")
    page.find(".wb-start").click()
    settle(page, probe)
    alert = page.find(".wb-alert")
    expect(alert).to_have_role("alert")
    expect(alert).to_contain_text("PromptError: prompt 'typed' is empty")
    page.find(".wb-longest").fill("")
    page.find(".wb-start").click()
    settle(page, probe)
    expect(alert).to_contain_text("max tokens must be a whole number")
    page.find(".wb-prompt-text").fill("count")
    page.find(".wb-longest").fill("5")
    page.find(".wb-start").click()
    settle(page, probe)
    expect(alert).to_be_hidden()


def test_every_field_reaches_python_by_keys_alone(form: ModulePage) -> None:
    form.sync()
    assert asked(form) == {"do": "hello"}
    form.find(".wb-prompt-text").focus()
    keys = form.page.keyboard
    keys.press("ControlOrMeta+a")
    keys.type("first line")
    keys.press("Enter")
    keys.type("second")
    keys.press("Tab")
    keys.type("Sure")
    keys.press("Tab")  # the system prompt is folded away: its heading
    keys.press("Enter")
    keys.press("Tab")
    keys.type("Be kind.")
    keys.press("Tab")
    keys.press("ArrowDown")  # base
    keys.press("Tab")
    keys.press("ControlOrMeta+a")
    keys.type("0.7")
    keys.press("Tab")
    keys.press("ControlOrMeta+a")
    keys.type("3")
    keys.press("Tab")
    keys.press("ControlOrMeta+a")
    keys.type("12")
    keys.press("Tab")
    keys.press("Enter")  # Start
    assert asked(form) == {
        "do": "start", "prompt": "first line\nsecond", "prefix": "Sure", "system_prompt": "Be kind.",
        "continued_by": "base", "temperature": 0.7, "seed": 3, "max_tokens": 12,
    }  # fmt: skip


def test_control_enter_starts_and_stop_stops(form: ModulePage) -> None:
    form.find(".wb-prompt-text").press("ControlOrMeta+Enter")
    assert asked(form)["do"] == "start"
    form.tell(state={"state": "running", "said": "aligned continues.", "tokens": 7})
    expect(form.find(".wb-count")).to_have_text("7 tokens")
    expect(form.find(".wb-count")).to_have_attribute("aria-hidden", "true")  # said at every token it would be noise
    expect(form.find(".wb-start")).to_have_text("Start anew")
    form.find(".wb-stop").click()
    assert asked(form) == {"do": "stop"}
    form.find(".wb-start").click()
    form.find(".wb-start").click()
    form.sync()
    wishes = [s["asked"]["n"] for s in form.saved]
    assert len(set(wishes)) == len(wishes), "the same wish twice is two wishes"


def test_the_form_follows_python_keeps_what_was_typed_and_sends_whole_characters(form: ModulePage) -> None:
    form.find(".wb-prompt-text").fill("typed, not started")
    form.tell(state={"state": "running", "said": "aligned continues.", "tokens": 1})
    expect(form.find(".wb-prompt-text")).to_have_value("typed, not started")
    form.tell(form={**FORM, "prompt": "from Python", "continued_by": "base", "system_prompt": "Be kind."})
    expect(form.find(".wb-prompt-text")).to_have_value("from Python")
    expect(form.find("input[value=base]")).to_be_checked()
    expect(form.find(".wb-system-text")).to_be_visible()
    form.find(".wb-prompt-text").fill("first")
    form.find(".wb-start").click()
    form.find(".wb-prompt-text").fill("second, being typed")
    form.tell(form={**FORM, "prompt": "first"}, state={"state": "running", "said": "aligned continues.", "tokens": 1})
    expect(form.find(".wb-prompt-text")).to_have_value("second, being typed")
    form.find(".wb-prompt-text").evaluate("(node) => { node.value = 'a\\ud83d b\\ude00 \\ud83d\\ude00'; }")
    form.find(".wb-start").click()
    assert asked(form)["prompt"] == "a\ufffd b\ufffd 😀"


def test_typed_text_is_text(page: ModulePage, probe: LiveProbe) -> None:
    for text in EXECUTABLE[:8]:
        probe.start(prompt=text, prefix=text, system_prompt=text, max_tokens=200)
        settle(page, probe)
        assert probe.selection.question.prompt == text
        expect(page.find(".wb-prompt-text")).to_have_value(text)
    page.tell(error="<img src=x onerror=window.tripped=1>", state={**IDLE, "said": EXECUTABLE[0]})
    expect(page.find(".wb-alert")).to_have_text("<img src=x onerror=window.tripped=1>")
    expect(page.find(".wb-status")).to_have_text(EXECUTABLE[0])
    assert page.foreign() == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 480])
def test_axe_finds_nothing_serious(browser: Browser, probe: LiveProbe, theme: Any, width: int) -> None:
    with module_page(browser, probe.face, theme=theme, width=width) as page:
        page.tell(error="Something went wrong.", state={"state": "running", "said": "aligned continues.", "tokens": 3})
        page.find(".wb-system summary").click()
        assert serious_violations(page.page, ".wb-probe") == []
        assert page.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        page.assert_clean()
