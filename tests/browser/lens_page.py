"""What browser tests do with the token lens: find a token, point at it, press it, read what is marked."""

from __future__ import annotations

from playwright.sync_api import Locator

from tests.browser.module_page import ModulePage

CARD = ".wb-lens-card"
_MIDDLE = """(token) => {
  token.scrollIntoView({ block: "nearest" });
  const box = [...token.getClientRects()].at(-1); // a token may run over two lines
  return [box.x + box.width / 2, box.y + box.height / 2];
}"""


def token(opened: ModulePage, position: int, response: int | None = None) -> Locator:
    where = "" if response is None else f'[data-response="{response}"]'
    return opened.find(f'[role=option][data-position="{position}"]{where}')


def hover(opened: ModulePage, position: int, response: int | None = None) -> None:
    x, y = token(opened, position, response).evaluate(_MIDDLE)
    opened.page.mouse.move(x, y)


def click(opened: ModulePage, position: int, response: int | None = None) -> None:
    hover(opened, position, response)
    opened.page.mouse.down()
    opened.page.mouse.up()


def marked(opened: ModulePage, css: str) -> list[int]:
    """Return the positions of the tokens of a class."""
    found = opened.page.eval_on_selector_all(f"#el .{css}[role=option]", "all => all.map((x) => +x.dataset.position)")
    return [int(p) for p in found]


def classes(opened: ModulePage) -> list[str]:
    """Return every token's classes."""
    return opened.page.eval_on_selector_all("#el [role=option]", "all => all.map((x) => x.className)")


def focused(opened: ModulePage) -> int:
    return int(opened.page.evaluate("() => +document.activeElement.dataset.position"))
