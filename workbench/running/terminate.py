"""SIGTERM, which schedulers send before they kill, and Ctrl-C: end the work cleanly on both."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM inside the block."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with _handled(stop, signal.SIGTERM):
        yield


@contextlib.contextmanager
def stop_asked() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set inside the block, for the block to check."""
    asked = threading.Event()
    with _handled(lambda number, frame: asked.set(), signal.SIGINT, signal.SIGTERM):
        yield asked


@contextlib.contextmanager
def _handled(handler: Callable[[int, object], None], *numbers: signal.Signals) -> Iterator[None]:
    """Handle signals inside the block; do nothing outside the main thread, the only one that gets signals."""
    former = {}
    with contextlib.suppress(ValueError):
        for number in numbers:
            former[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)
