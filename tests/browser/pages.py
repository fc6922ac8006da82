"""A page that hears everything that goes wrong in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Browser, ConsoleMessage, Page, Request


@dataclass
class Heard:
    """Collect what went wrong in a page: errors of its console and scripts, and requests that left this machine."""

    errors: list[str] = field(default_factory=list)
    off_machine: list[str] = field(default_factory=list)

    def follow(self, page: Page) -> None:
        """Listen to a page from now on."""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error.stack or error}"))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _request(self, request: Request) -> None:
        if not re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|(data|blob|file|about):", request.url):
            self.off_machine.append(request.url)

    def nothing(self, *, but: tuple[str, ...] = ()) -> None:
        """Assert that nothing went wrong; `but` are patterns of what a front end of others does by itself."""
        rest = [e for e in (*self.errors, *self.off_machine) if not any(re.search(p, e) for p in but)]
        assert not rest, "\n".join(rest)


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Hold a page and what was heard in it."""

    page: Page
    heard: Heard


@contextmanager
def watched(
    browser: Browser, *, but: tuple[str, ...] = (), width: int = 1280, height: int = 900, color_scheme: str = "light"
) -> Iterator[Watched]:
    """Open a page; at its end assert that no text was executed and that nothing else went wrong in it.

    `but` are patterns of what may be heard. A text of `tests/hostile_texts.py` that is executed sets window.tripped.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=color_scheme)  # type: ignore[arg-type]
    page, heard = context.new_page(), Heard()
    heard.follow(page)
    try:
        yield Watched(page=page, heard=heard)
        tripped = page.evaluate("() => window.tripped")
    finally:
        context.close()
    assert tripped is None, "a text was executed"
    heard.nothing(but=but)
