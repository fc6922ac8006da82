"""Batches planned by length, halved when memory runs out, and stored as they finish."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from workbench.core.errors import StorageFull
from workbench.core.progress import Progress
from workbench.core.store import Entry, Store

T = TypeVar("T")


def plan_batches(sizes: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group row indices into batches of similar length with rows x longest <= batch_tokens (one row at least).

    The longest come first, so that memory runs out at the start or not at all. The plan depends on the sizes alone, so
    a resumed run has the same batches.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if batches and (len(batches[-1]) + 1) * sizes[batches[-1][0]] <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


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
    batch_tokens: int,
    store: Store,
    entry: Callable[[T], Entry],
    read: Callable[[Entry], T],
    what: str | None,
    unit: str = "continuations",
) -> list[T]:
    """Return every row's result in order: read from `store`, or computed by `work(rows, finished)` and stored.

    `work` calls `finished(row, result)` as each row is done. A batch is halved when memory runs out. When `work` is
    interrupted or raises, the finished rows are stored too.
    """
    done: dict[int, T] = {i: read(store.read(k)) for i, k in enumerate(keys) if k in store}
    todo = [i for i in range(len(keys)) if i not in done]
    with Progress(what if todo else None, len(todo), unit) as progress:
        for planned in plan_batches([sizes[i] for i in todo], batch_tokens):
            made: dict[int, T] = {}

            def unfinished(part: list[int], made: dict[int, T] = made) -> None:
                if left := [i for i in part if i not in made]:
                    work(left, made.__setitem__)

            try:
                for part, _ in halving_on_memory([todo[j] for j in planned], unfinished, progress.note):
                    store.write({keys[i]: entry(made[i]) for i in part})
                    progress.advance(len(part))
            except BaseException:
                with contextlib.suppress(StorageFull):
                    store.write({keys[i]: entry(result) for i, result in made.items() if keys[i] not in store})
                raise
            done.update(made)
    return [done[i] for i in range(len(keys))]
