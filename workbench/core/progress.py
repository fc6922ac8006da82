"""Progress of long work: a bar in a notebook, a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

NOTE = "data-workbench-note"
"""The HTML attribute that marks a note among a notebook's outputs."""


class Progress:
    """A report of counted work with the time left; with `what` None only notes are shown.

    A notebook shows one HTML bar that updates in place and stays in the saved notebook, with the HTML that `picture`
    returns below it; a terminal shows a tqdm bar; a log gets a plain line at the start, every `every_s` seconds and at
    the end.
    """

    def __init__(self, what: str | None, total: int, unit: str, *, every_s: float = 5.0) -> None:
        self.what, self.total, self.unit, self.every_s = what or "", total, unit, every_s
        self.done = self._before = 0
        self.notes: list[str] = []
        self.picture: Callable[[], str] | None = None
        self._start = self._last = time.monotonic()
        self._bar: Any = None
        self._show: Any = None

    def __enter__(self) -> Progress:
        if not self.what:
            return self
        if _in_kernel():
            # the kernel has loaded IPython; the package never imports it
            show = sys.modules["IPython.display"].display
            self._show = show({"text/html": self._html(), "text/plain": self._text()}, raw=True, display_id=True)
        elif sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self.total, desc=self.what, unit=f" {self.unit}", file=sys.stderr)
        else:
            self._line()
        return self

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self.what and time.monotonic() - self._last >= (0.2 if self._show else self.every_s):
            self._report()

    def skip(self, count: int) -> None:
        """Count units that an earlier run finished; the estimate of the time left ignores them."""
        self._before += count
        if self._bar is not None:
            self._bar.initial += count
        self.advance(count)

    def note(self, sentence: str) -> None:
        """Show a sentence about an event (a halved batch, say); it stays visible."""
        self.notes.append(sentence)
        if self._bar is not None:
            self._bar.write(sentence, file=sys.stderr)
        elif self._show is None and _in_kernel():  # not to stderr, which a notebook paints red
            shown = f"<div {NOTE}>{html.escape(sentence)}</div>"
            sys.modules["IPython.display"].display({"text/html": shown, "text/plain": sentence}, raw=True)
        elif self._show is None:
            print(sentence, file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self.what:
            self._report()

    def _report(self) -> None:
        self._last = time.monotonic()
        if self._show is not None:
            self._show.update({"text/html": self._html(), "text/plain": self._text()}, raw=True)
        else:
            self._line()

    def _line(self) -> None:
        print(self._text(), file=sys.stderr, flush=True)

    def _text(self) -> str:
        spent = time.monotonic() - self._start
        if self.done >= self.total:
            return f"{self.what}: {self.done}/{self.total} {self.unit} in {spent:.1f} s"
        own = self.done - self._before
        left = f", about {spent / own * (self.total - self.done):.0f} s left" if own else ""
        return f"{self.what}: {self.done}/{self.total} {self.unit}{left}"

    def _html(self) -> str:
        notes = "".join(f"<div>{html.escape(n)}</div>" for n in self.notes)
        name = html.escape(self.what)
        bar = f'<progress value="{self.done}" max="{max(self.total, 1)}" aria-label="{name}"></progress>'
        drawn = self.picture() if self.picture is not None else ""
        return f"<div>{bar} {html.escape(self._text())}</div>{notes}{drawn}"


def _in_kernel() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return shell is not None and "IPKernelApp" in shell.config and "IPython.display" in sys.modules
