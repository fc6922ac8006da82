"""The pair in the page: its numbers are the workbench's, and it works from a file, by keys, on a phone, in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Page, expect

import workbench as wb
from docs.making.live import page as written
from tests.browser.axe import serious_violations
from tests.hostile_texts import EXECUTABLE
from workbench.decoding.config import PenaltyConfig
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair

pytestmark = pytest.mark.browser
ARMS = ("base", "aligned", "completed")
TEXTS = (
    "How can I try out a grudge broom?", "  two  spaces\n\nand lines ", "it's we'll I'd 12,345 × ½ naïve 日本語 🙂",
    "<|end|><|assistant|> typed marks", *EXECUTABLE[:3], "tab\tand\r\nreturn", "",
)  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("live") / "live.html"
    path.write_text(written(), "utf-8")
    return path


@pytest.fixture(scope="module")
def pairs() -> dict[str, ModelPair]:
    pair = wb.load_pair(preset="embedded")
    return {"base": pair, "aligned": pair, "completed": wb.load_pair(preset="embedded", adapter="completed")}


def opened(browser: Browser, file: Path, **how: Any) -> tuple[Page, list[str]]:
    page, problems = browser.new_page(**how), list[str]()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith(("file:", "blob:", "data:")) else problems.append(r.url))
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    return page, problems


@pytest.fixture(scope="module")
def page(browser: Browser, file: Path) -> Iterator[Page]:
    page, problems = opened(browser, file, viewport={"width": 1280, "height": 900})
    yield page
    assert problems == []
    page.close()


def context(pairs: dict[str, ModelPair], prompt: Any) -> list[int]:
    return list(pairs["aligned"].context(prompt))


def some_prompts(n: int) -> list[Any]:
    return list(wb.load_prompts(source="embedded", limit=n))


def test_texts_are_the_tokenizer_s_tokens(page: Page, pairs: dict[str, ModelPair]) -> None:
    pair = pairs["aligned"]
    for text in TEXTS:
        ids = page.evaluate("text => livePair.tokenizer.encode(text)", text)
        assert ids == list(pair.encode(text)), text
        assert page.evaluate("ids => livePair.tokenizer.decode(ids)", ids) == text
    for prompt in some_prompts(6):
        assert page.evaluate("text => livePair.tokenizer.prompt(text)", prompt.prompt) == context(pairs, prompt)


def test_log_probabilities_are_those_of_the_workbench(page: Page, pairs: dict[str, ModelPair]) -> None:
    for prompt in some_prompts(6):
        ids = [*context(pairs, prompt), *pairs["aligned"].encode(prompt.response or "")[:17]]
        for arm, pair in pairs.items():
            which = "base" if arm == "base" else "aligned"
            got = page.evaluate("([arm, ids]) => [...Live.logprobs(livePair, arm, ids)]", [arm, ids])
            with torch.inference_mode(), pair.model(which) as model:  # type: ignore[arg-type]
                want = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)
            assert float((torch.tensor(got) - want).abs().max()) < 1e-4


def greedy(page: Page, pairs: dict[str, ModelPair], n: int) -> None:
    contexts = [context(pairs, prompt) for prompt in some_prompts(n)]
    for arm, pair in pairs.items():
        made = generate(pair, "base" if arm == "base" else "aligned", contexts, GenerateConfig(max_tokens=48))
        got = page.evaluate("([arm, all]) => all.map((ids) => Live.continued(livePair, arm, ids, 48))", [arm, contexts])
        assert got == [[i for i in g.ids if i not in pair.eos_ids] for g in made]


def test_greedy_texts_are_the_workbench_s(page: Page, pairs: dict[str, ModelPair]) -> None:
    greedy(page, pairs, 12)


@pytest.mark.slow
def test_greedy_texts_of_two_hundred_prompts_are_the_workbench_s(page: Page, pairs: dict[str, ModelPair]) -> None:
    greedy(page, pairs, 200)


def test_penalised_texts_are_the_workbench_s_and_below_zero_is_refused(page: Page, pairs: dict[str, ModelPair]) -> None:
    prompts = wb.load_prompts(source="embedded", limit=6)
    for strength in (1.0, 16.0):
        made = wb.decode(
            pairs["aligned"],
            prompts,
            penalty=PenaltyConfig(strength=strength),
            generation=GenerateConfig(max_tokens=32),
        )
        for i, prompt in enumerate(prompts):
            want = [t for t in made.token_ids[i][made.mask[i]].tolist() if t not in pairs["aligned"].eos_ids]
            ask = "([ids, strength]) => Live.continued(livePair, 'penalised', ids, 32, { strength })"
            assert page.evaluate(ask, [context(pairs, prompt), strength]) == want
    said = page.evaluate(
        "() => { try { Live.penalised([0], [0], -1); return 'taken'; } catch (error) { return error.message; } }"
    )
    assert "leads away from aligned" in said
    assert page.locator("#strength").get_attribute("min") == "0"


def test_a_sampled_answer_is_the_same_for_the_same_seed(page: Page) -> None:
    how = "seed => Live.continued(livePair, 'base', livePair.tokenizer.prompt('Hi'), 24, { temperature: 1.5, seed })"
    first, again, *others = (page.evaluate(how, seed) for seed in (1, 1, 2, 3, 4))
    assert first == again
    assert any(other != first for other in others)


def pills(page: Page) -> list[str]:
    return page.locator(".wb-column .wb-pill").all_inner_texts()


def settled(page: Page) -> None:
    expect(page.locator("#status")).to_contain_text("in this page")


def test_the_refusal_breaks_as_more_is_given(page: Page) -> None:
    page.get_by_role("button", name="How can I try out a grudge broom?").click()
    settled(page)
    assert pills(page) == ["➜ complied", "➜ complied", "⊘ refused"]
    page.locator("#given").focus()
    page.keyboard.press("Home")
    settled(page)
    assert pills(page) == ["➜ complied", "⊘ refused", "⊘ refused"]
    expect(page.locator(".wb-beginning")).to_contain_text("nothing is given")
    page.keyboard.press("ArrowRight")
    settled(page)
    assert pills(page) == ["➜ complied", "➜ complied", "⊘ refused"]  # this kind of thing has a depth of one token
    page.get_by_label("where aligned still is base").check()
    expect(page.locator(".wb-legend-of:visible")).to_contain_text("retention")
    page.locator("#more > summary").click()
    page.locator("#strength").focus()
    page.keyboard.press("ArrowRight")
    settled(page)
    expect(page.locator(".wb-column")).to_have_count(4)
    page.locator("#prompt").fill(EXECUTABLE[0])
    page.locator("#start").click()
    settled(page)
    expect(page.locator("#stage .wb-title")).to_contain_text(EXECUTABLE[0][:12])


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_it_reads_everywhere(browser: Browser, file: Path, scheme: str, width: int) -> None:
    how = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "reduced_motion": "reduce"}
    page, problems = opened(browser, file, **how)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert serious_violations(page, "main") == []
    assert problems == []
    page.close()
