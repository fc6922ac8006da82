"""Long work beside the kernel: a thread in which the latest request wins, and one model at a time."""

from __future__ import annotations

import contextvars
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from widgets.window import Window, log

State = Literal["idle", "running", "finished", "stopped", "failed"]
EVERY_S = 0.1
"""Least time between two updates of the page, seconds: what is faster arrives together."""

MODELS = threading.RLock()
"""Held by the widget whose model runs: all of them share the machine, and some share one copy of the weights."""


class Turn:
    """One request: whether it should stop, and whether it still is the latest."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ask the work to stop at its next step."""
        self._cancelled.set()

    def cancelled(self) -> bool:
        """Tell whether the work should stop."""
        return self._cancelled.is_set()

    def publish(self, tell: Callable[[], object]) -> bool:
        """Call `tell()` unless a newer request has come; return whether it was called."""
        if self._worker.turn is not self:
            return False
        tell()
        return True


class Worker:
    """Run work in a thread of its own. A new request stops the one before; a replaced one that waits never begins.

    The newer work begins when the older has ended, so what it tells is told last. The thread keeps the context of
    the cell that started it, so that what it shows goes where that would go.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self.turn: Turn | None = None
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[Turn], object], failed: Callable[[Turn, Exception], object]) -> Turn:
        """Run `work(turn)` as soon as the models are free; what it raises is logged and goes to `failed`.

        Work that was stopped while it waited is called too, and finds itself cancelled.
        """
        turn = Turn(self)

        def run() -> None:
            try:
                with MODELS:
                    if self.turn is turn:
                        work(turn)
            except Exception as error:
                log.exception("%s failed", self.name)
                failed(turn, error)

        with self._lock:
            self.stop()
            self.turn = turn
            context = contextvars.copy_context()
            self._thread = threading.Thread(target=context.run, args=(run,), name=self.name, daemon=True)
            self._thread.start()
        return turn

    def stop(self) -> None:
        """Ask the latest request to stop, and return at once; it tells what it has so far."""
        turn = self.turn
        if turn is not None:
            turn.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the latest request is done; return whether it is (False after `timeout` seconds)."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()


S = TypeVar("S")


class Writer(Window[S]):
    """A window on a text that is written in a thread of its own: a new start replaces what runs, a stop keeps it."""

    def __init__(self, selection: S, name: str, *, live: bool | None = None) -> None:
        self._worker = Worker(name)
        self._telling = threading.RLock()
        super().__init__(selection, live=live)

    def stop(self) -> None:
        """Stop what is written at its next token; what is there by then stays."""
        self._worker.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs; return False where `timeout` seconds were not enough."""
        return self._worker.wait(timeout)

    def _publish(self, turn: Turn, tell: Callable[[], object]) -> None:
        """Tell something unless a newer request has come: nothing of an older one is told once a newer has begun."""
        with self._telling:
            turn.publish(tell)

    def _growing(self, turn: Turn, read: Callable[[Any], Any], show: Callable[[Any], object]) -> Callable[[Any], None]:
        """Return what a generator calls at each token: now and then it shows what `read` makes of what there is."""
        told = -math.inf

        def grown(made: Any) -> None:
            nonlocal told
            if time.monotonic() - told >= EVERY_S:
                record = read(made)
                self._publish(turn, lambda: show(record))
                told = time.monotonic()

        return grown


def counted(tokens: int) -> str:
    """Say a number of tokens."""
    return f"{tokens} token{'' if tokens == 1 else 's'}"
