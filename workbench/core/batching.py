"""Plan batches by length, and halve one when memory runs out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def plan_batches(sizes: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group row indices into batches of similar length with rows x longest <= batch_tokens (one row at least).

    Longest first, so that memory is found short at the start; the plan depends on the sizes alone, so that a resumed
    run meets the batches of the first one.
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
    """Yield (rows, work(rows)); where memory runs out, halve the rows, say so, and go on.

    A single row that does not fit raises the out-of-memory error as it came.
    """
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


def _is_memory(error: BaseException) -> bool:
    named = type(error).__name__ == "OutOfMemoryError"  # torch's own, told by its name: this room imports no torch
    return named or isinstance(error, MemoryError) or "allocate memory" in str(error)
