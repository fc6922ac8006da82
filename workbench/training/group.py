"""The processes that train together: how many there are, which one this is, and what they tell each other.

A launcher (accelerate, torch.distributed.run) says so in the environment; alone, every answer is one's own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def size() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Tell whether this is the process that writes, films and reports."""
    return int(os.environ.get("RANK", "0")) == 0


def local_rank() -> int:
    """Return this process's number on its machine, the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def all_of(own: T) -> list[T]:
    """Return what every process gives, in the order of the processes; all of them must call this."""
    if size() == 1:
        return [own]
    from torch import distributed

    found: list[T] = [own] * size()
    distributed.all_gather_object(found, own)
    return found


def summed(numbers: Sequence[float]) -> list[float]:
    """Return the sums over the processes, number by number, added in the same order everywhere."""
    return [sum(each) for each in zip(*all_of(list(numbers)), strict=True)]


def wait() -> None:
    """Wait until every process is here."""
    all_of(None)
