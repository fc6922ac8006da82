"""Batches planned by length, sized by the memory that they use, halved when it runs out, and stored as they finish."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from workbench.core.errors import StorageFull
from workbench.core.progress import Progress
from workbench.core.store import Entry, Store

T = TypeVar("T")

MEMORY_SHARE = 0.7
"""Share of the free memory that a batch may use: the rest is for what grows faster than the batch, and for others."""

RAISED = 4
"""Most times by which one measurement raises a batch: what a small batch uses says little about one far larger."""

MOST_TOKENS = 2**18
"""Most tokens of a batch that is sized by free memory. Larger ones gain nothing, and a killed run loses more."""


@runtime_checkable
class Memory(Protocol):
    """What a device has free, and what work on it needs."""

    def start(self) -> None:
        """Begin to measure what is used."""

    def used(self) -> int:
        """Return the most bytes that were held at once since `start`, above what was held then."""

    def free(self) -> int:
        """Return the bytes that can be had now."""


class Budget:
    """The most tokens (rows x longest) of the next batch.

    `tokens` is for good where `memory` is None, as the number that a person gives or on a device that does not say what
    it has free. With `memory` it is the first batch's: each batch is measured, and the next may use MEMORY_SHARE of
    what is free then. A batch that did not fit bounds all that follow, in both cases.
    """

    def __init__(self, tokens: int, memory: Memory | None = None) -> None:
        self.tokens = tokens
        self._memory = memory
        self._most = MOST_TOKENS

    def start(self) -> None:
        """Tell that a batch begins."""
        if self._memory is not None:
            self._memory.start()

    def done(self, tokens: int, *, halved: bool) -> None:
        """Tell how many tokens the finished batch had; where it was `halved`, its largest part."""
        if halved:
            self.tokens = self._most = max(1, min(tokens, self.tokens))
        elif self._memory is not None and 2 * tokens > self.tokens:  # smaller ones are what was left, mostly overhead
            fits = int(MEMORY_SHARE * self._memory.free() * tokens / max(1, self._memory.used()))
            self.tokens = max(1, min(fits, RAISED * self.tokens, self._most))


def plan_batches(sizes: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group row indices into batches of similar length with rows x longest <= batch_tokens (one row at least).

    The longest come first, so that memory runs out at the start or not at all. The plan depends on the sizes alone, so
    a resumed run has the same batches.
    """
    return list(_planned(sizes, lambda: batch_tokens))


def _planned(sizes: Sequence[int], tokens: Callable[[], int]) -> Iterator[list[int]]:
    """Yield the batches of `plan_batches`; the tokens of each are asked for when it begins."""
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    start = 0
    while start < len(order):
        rows = max(1, tokens() // max(1, sizes[order[start]]))
        yield order[start : start + rows]
        start += rows


def halving_on_memory(
    rows: Sequence[int], work: Callable[[list[int]], T], note: Callable[[str], None]
) -> Iterator[tuple[list[int], T]]:
    """Yield (rows, work(rows)); where memory runs out, halve the rows and note it; a single row raises the error."""
    parts = [list(rows)] if rows else []
    while parts:
        part = parts.pop(0)
        try:
            made = work(part)
        except (MemoryError, RuntimeError) as error:
            if len(part) == 1 or not _is_memory(error):
                raise
            half = len(part) // 2
            parts = [part[:half], part[half:], *parts]
        else:
            yield part, made
            continue
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
        note(f"out of memory with {len(part)} rows in a batch: going on with {half}")


def by_length(lengths: Sequence[int], batch_tokens: int, work: Callable[[list[int]], Sequence[T]]) -> list[T]:
    """Return `work`'s result for each row in order, from batches of similar length that are halved on memory errors."""
    done: dict[int, T] = {}
    for planned in plan_batches(lengths, batch_tokens):
        for part, made in halving_on_memory(planned, work, lambda _: None):
            done.update(zip(part, made, strict=True))
    return [done[i] for i in range(len(lengths))]


def _is_memory(error: BaseException) -> bool:
    named = type(error).__name__ == "OutOfMemoryError"  # torch's own, by name: this room imports no torch
    return named or isinstance(error, MemoryError) or "allocate memory" in str(error)


def in_batches(
    keys: Sequence[str],
    sizes: Sequence[int],
    work: Callable[[list[int], Callable[[int, T], None]], None],
    *,
    budget: Budget,
    store: Store,
    entry: Callable[[T], Entry],
    read: Callable[[Entry], T],
    what: str | None,
    unit: str = "continuations",
) -> list[T]:
    """Return every row's result in order: read from `store`, or computed by `work(rows, finished)` and stored.

    `work` calls `finished(row, result)` as each row is done. Batches are those of `plan_batches`, the longest first, as
    long as `budget` stays what it is; a batch is halved when memory runs out. When `work` is interrupted or raises, the
    finished rows are stored too.
    """
    done: dict[int, T] = {i: read(store.read(k)) for i, k in enumerate(keys) if k in store}
    todo = [i for i in range(len(keys)) if i not in done]
    with Progress(what if todo else None, len(todo), unit) as progress:
        for batch in _planned([sizes[i] for i in todo], lambda: budget.tokens):
            planned = [todo[j] for j in batch]
            longest, largest = sizes[planned[0]], 0
            budget.start()
            made: dict[int, T] = {}

            def unfinished(part: list[int], made: dict[int, T] = made) -> None:
                if left := [i for i in part if i not in made]:
                    work(left, made.__setitem__)

            try:
                for part, _ in halving_on_memory(planned, unfinished, progress.note):
                    largest = max(largest, len(part))
                    store.write({keys[i]: entry(made[i]) for i in part})
                    progress.advance(len(part))
            except BaseException:
                with contextlib.suppress(StorageFull):
                    store.write({keys[i]: entry(result) for i, result in made.items() if keys[i] not in store})
                raise
            budget.done(largest * longest, halved=largest < len(planned))
            done.update(made)
    return [done[i] for i in range(len(keys))]
