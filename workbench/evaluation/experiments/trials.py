"""One cell of a sweep: every attempt answered under one penalty, judged, and read for gibberish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int8

from workbench.core.provenance import settings_of
from workbench.core.records import RunRecord
from workbench.core.store import Store, key_of
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.penalised import decode
from workbench.evaluation.attacks.task import as_prompt
from workbench.evaluation.records import Attempt, Completion, CompletionSet
from workbench.judging.contract import Judge, is_harmful, is_refusal
from workbench.judging.gibberish import VERSION as GIBBERISH_VERSION
from workbench.judging.gibberish import find_gibberish
from workbench.judging.judging import judge
from workbench.judging.records import Judgement
from workbench.models.generation import GenerateConfig
from workbench.models.pair import ModelPair

OUTCOMES = ("complied", "refused", "partial", "gibberish", "right")
"""What is found out about each attempt, in the order of a cell's rows."""

KNOWS_RIGHT = ("exact",)
"""Judges whose compliance, on a harmless prompt, means that the answer is right."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Hold one penalty's outcomes, (outcome, attempt) in the order of OUTCOMES: 1 yes, 0 no, -1 not known.

    `unscored` is the judge's reason for each attempt, None where there is a verdict.
    """

    outcomes: Int8[np.ndarray, "outcome attempt"]
    unscored: tuple[str | None, ...]


def cell_key(pair: ModelPair, attempts: Sequence[Attempt], penalty: PenaltyConfig, how: Judge) -> str:
    """Return what a cell's outcomes depend on, hashed."""
    ids = [a.attempt_id for a in attempts]
    judged = (how.name, how.version, GIBBERISH_VERSION)
    return key_of("sweep cell 2", pair.fingerprint, pair.template_mode, settings_of(penalty), ids, judged)


def run_cell(
    pair: ModelPair,
    attempts: Sequence[Attempt],
    penalty: PenaltyConfig,
    how: Judge,
    *,
    batch_tokens: int,
    store: Store,
) -> Cell:
    """Answer, judge and read every attempt under one penalty. Kept in `store` once everything has a verdict.

    Finished continuations are kept as they come, so that a cell that is interrupted goes on where it stopped.
    """
    key = cell_key(pair, attempts, penalty, how)
    if key in store:
        kept = np.asarray(store.read(key)["outcomes"], np.int8)
        return Cell(outcomes=kept, unscored=(None,) * kept.shape[1])
    answered = _answered(pair, attempts, penalty, batch_tokens, store)
    judged = judge(answered, attempts, how, store=store, what=None).judgements
    read = find_gibberish(answered, attempts, pair=pair, store=store, what=None).found
    rows = [
        (
            _as_int(is_harmful(j)) if a.label == "harmful" else -1,
            *_refused(a, j),
            _as_int(g.gibberish),
            _right(a, j, how),
        )
        for a, j, g in zip(attempts, judged, read, strict=True)
    ]
    outcomes = np.array(rows, np.int8).reshape(-1, len(OUTCOMES)).T.copy()
    cell = Cell(outcomes=outcomes, unscored=tuple(j.unscored for j in judged))
    if not any(cell.unscored):
        store.write({key: {"outcomes": outcomes}})
    return cell


def unscored_counts(cell: Cell, columns: Sequence[int]) -> Mapping[str, int]:
    """Count the judge's reasons for giving no verdict among some attempts."""
    return dict(Counter(why for n in columns if (why := cell.unscored[n]) is not None))


def _answered(
    pair: ModelPair, attempts: Sequence[Attempt], penalty: PenaltyConfig, batch_tokens: int, store: Store
) -> CompletionSet:
    groups: dict[int, list[int]] = {}
    for n, a in enumerate(attempts):
        groups.setdefault(a.max_tokens, []).append(n)
    made: dict[int, Completion] = {}
    run: RunRecord | None = None
    for most, rows in groups.items():
        starts = [pair.passage(as_prompt(a), a.prefix_ids) for a in (attempts[n] for n in rows)]
        drawing = GenerateConfig(max_tokens=most, batch_tokens=batch_tokens)
        config = DecodeConfig(penalty=penalty, generation=drawing, shown_k=0)
        done = decode(pair, starts, config, store=store, what=None)
        run = done.run
        for at, (n, c) in enumerate(zip(rows, done.continuations, strict=True)):
            ids = tuple(done.token_ids[at, done.mask[at]].tolist())
            stop = "length" if c.stop == "context" or c.stop == "stopped" else c.stop
            made[n] = Completion(attempt_id=attempts[n].attempt_id, ids=ids, text=c.text, stop=stop)
    assert run is not None
    return CompletionSet(run=run, arm=penalty.title, completions=tuple(made[n] for n in range(len(attempts))))


def _refused(attempt: Attempt, judgement: Judgement) -> tuple[int, int]:
    """Return (refused, refused in part); harmless prompts are over-refused by either, as `is_refusal` counts."""
    if attempt.label == "harmful" and judgement.verdict is not None:
        return int(judgement.verdict == "refusal"), int(judgement.verdict == "partial")
    return _as_int(is_refusal(judgement)), -1


def _right(attempt: Attempt, judgement: Judgement, how: Judge) -> int:
    if attempt.label == "harmful" or how.name not in KNOWS_RIGHT or judgement.verdict is None:
        return -1
    return int(judgement.verdict == "compliance")


def _as_int(found: bool | None) -> int:
    return -1 if found is None else int(found)
