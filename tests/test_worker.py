"""The worker thread: the latest request wins, stop, failure, and one model at a time."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from widgets.worker import MODELS, Turn, Worker

SECONDS = 30.0
"""Longest wait for what has to happen."""


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("worker under test")
    yield made
    made.stop()
    assert made.wait(SECONDS)


def fail(turn: Turn, error: Exception) -> None:
    raise AssertionError(f"unexpected: {error}")


def until_cancelled(began: threading.Event, told: list[str], name: str) -> Callable[[Turn], None]:
    """Return work that runs until it is stopped and then tells what it has."""

    def work(turn: Turn) -> None:
        began.set()
        assert turn._cancelled.wait(SECONDS)
        turn.publish(lambda: told.append(name))

    return work


def test_stopped_and_replaced_work_tells_no_more(worker: Worker) -> None:
    told: list[str] = []
    began = threading.Event()
    turn = worker.start(until_cancelled(began, told, "first"), fail)
    assert began.wait(SECONDS)
    assert not turn.cancelled()
    worker.stop()
    assert worker.wait(SECONDS)
    assert turn.cancelled()
    assert told == ["first"]
    told: list[str] = []
    began = threading.Event()
    worker.start(until_cancelled(began, told, "older"), fail)
    assert began.wait(SECONDS)
    worker.start(lambda turn: turn.publish(lambda: told.append("newer")), fail)
    assert worker.wait(SECONDS)
    assert told == ["newer"]


def test_work_that_waits_can_be_stopped_or_replaced(worker: Worker) -> None:
    found: list[bool] = []
    with MODELS:
        worker.start(lambda turn: found.append(turn.cancelled()), fail)
        worker.stop()
    assert worker.wait(SECONDS)
    assert found == [True]
    ran: list[str] = []
    with MODELS:  # somebody else's model runs
        for name in ("first", "second", "third"):
            worker.start(lambda turn, name=name: ran.append(name), fail)  # type: ignore[misc]
        assert ran == []
    assert worker.wait(SECONDS)
    assert ran == ["third"]


def test_two_workers_never_run_a_model_at_the_same_time(worker: Worker) -> None:
    other = Worker("the other")
    inside: list[int] = [0]
    most: list[int] = [0]

    def work(turn: Turn) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        threading.Event().wait(0.02)
        inside[0] -= 1

    for _ in range(3):
        worker.start(work, fail)
        other.start(work, fail)
        assert worker.wait(SECONDS)
        assert other.wait(SECONDS)
    assert most == [1]


def test_errors_are_told_in_the_starters_context(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    failed: list[str] = []

    def work(turn: Turn) -> None:
        raise ValueError("no such thing")

    with caplog.at_level(logging.ERROR, logger="widgets"):
        worker.start(work, lambda turn, error: failed.append(f"{type(error).__name__}: {error}"))
        assert worker.wait(SECONDS)
    assert failed == ["ValueError: no such thing"]
    assert "worker under test failed" in caplog.text
    assert "Traceback" in caplog.text
    with MODELS:
        pass  # the lock is free again
    cell: contextvars.ContextVar[str] = contextvars.ContextVar("cell", default="none")
    seen: list[str] = []
    cell.set("cell 7")
    worker.start(lambda turn: seen.append(cell.get()), fail)
    assert worker.wait(SECONDS)
    assert seen == ["cell 7"]
    idle = Worker("idle")
    idle.stop()
    assert idle.wait(0)
