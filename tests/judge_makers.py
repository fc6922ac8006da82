"""Make attempts, completions and judgement sets for tests of judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.trace_makers import run_record
from workbench.core.store import key_of
from workbench.evaluation.records import Attempt, Completion, CompletionSet


def attempt(request: str, **changes: Any) -> Attempt:
    fields: dict[str, Any] = {
        "attack": "none", "given": 0, "setting": None, "prompt_id": request[:40], "label": "harmful",
        "category": None, "pair_id": None, "request": request, "messages": (("user", request),), "prefix_ids": (),
        "prefix": "", "max_tokens": 64, "temperature": 0.0, "top_p": 1.0, "top_k": 0, "sample": 0, "seed": 0,
        **changes,
    }  # fmt: skip
    return Attempt(attempt_id=key_of(fields), **fields)


def completion_set(pairs: Sequence[tuple[Attempt, str]], arm: str = "aligned") -> CompletionSet:
    made = tuple(Completion(attempt_id=a.attempt_id, ids=(), text=text, stop="end") for a, text in pairs)
    return CompletionSet(run=run_record("complete"), arm=arm, completions=made)
