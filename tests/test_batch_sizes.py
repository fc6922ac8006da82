"""The size of batches: from free memory that each batch measures, raised, lowered, bounded; the same texts for all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.tiny_pair import tiny_pair
from workbench.core.batching import MEMORY_SHARE, MOST_TOKENS, RAISED, Budget, in_batches, plan_batches
from workbench.core.passages import Passage
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.penalised import decode
from workbench.models import pair as pairs
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair
from workbench.tracing.scoring import ScoreConfig, score

PLENTY = 10**12


class Device:
    """A device with so many bytes free, on which a token needs so many; it counts the batches that were measured."""

    def __init__(self, free: int, each: int) -> None:
        self.memory, self.each, self.tokens, self.measured = free, each, 0, 0

    def start(self) -> None:
        self.measured += 1

    def used(self) -> int:
        return self.tokens * self.each

    def free(self) -> int:
        return self.memory


def batches(sizes: list[int], budget: Budget, device: Device | None = None, most: int = 10**9) -> list[int]:
    """Return the rows of each batch that was worked on; more than `most` tokens do not fit."""
    seen: list[int] = []

    def work(rows: list[int], finished: Callable[[int, int], None]) -> None:
        tokens = len(rows) * max(sizes[i] for i in rows)
        if tokens > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(len(rows))
        if device is not None:
            device.tokens = tokens
        for i in rows:
            finished(i, i)

    made = in_batches(
        [str(i) for i in range(len(sizes))], sizes, work, budget=budget, store=Store.of(None),
        entry=lambda i: {"i": np.array(i)}, read=lambda entry: int(entry["i"]), what=None,
    )  # fmt: skip
    assert made == list(range(len(sizes)))
    return seen


def test_the_first_batch_measures_and_the_next_are_raised_to_what_is_free() -> None:
    device = Device(free=1000 * 70, each=10)  # room for 7,000 tokens
    seen = batches([10] * 2000, Budget(100, device), device)
    fits = int(MEMORY_SHARE * 7000) // 10
    assert seen[:3] == [10, 10 * RAISED, 10 * RAISED**2]
    assert seen[3:-1] == [fits] * (len(seen) - 4)
    assert device.measured == len(seen)
    assert max(batches([64] * 20_000, Budget(100, d := Device(PLENTY, 1)), d)) == MOST_TOKENS // 64


def test_a_first_batch_that_needs_too_much_lowers_the_next() -> None:
    device = Device(free=1000, each=10)
    assert batches([10] * 40, Budget(100, device), device)[:3] == [10, 7, 7]
    device = Device(free=1, each=10)
    assert batches([10] * 12, Budget(100, device), device) == [10, 1, 1]
    device = Device(free=PLENTY, each=10)
    budget = Budget(100, device)
    batches([10] * 3, budget, device)
    assert budget.tokens == 100, "a batch of leftovers, which is mostly overhead, says nothing"


def test_a_given_number_stays_and_what_did_not_fit_bounds_all_that_follow() -> None:
    sizes = [5, 90, 3, 40, 40, 41, 200, 1]
    assert batches(sizes, Budget(100)) == [len(b) for b in plan_batches(sizes, 100)]
    assert batches([10] * 32, Budget(160), most=90) == [8, 8, 8, 8]
    assert batches([10] * 100, Budget(160, d := Device(PLENTY, 10)), d, most=300) == [16] * 6 + [4]


def test_pairs_measure_unless_a_number_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = tiny_pair("llama")
    assert (pair.budget(None, 77).tokens, pair.budget(5, 77).tokens) == (77, 5)
    device = Device(PLENTY, 1)
    monkeypatch.setattr(pairs, "memory_of", lambda _: device)
    for tokens, measured in ((5, 0), (None, 1)):
        budget = pair.budget(tokens, 77)
        budget.start()
        assert device.measured == measured


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_texts_and_scores_are_the_same_however_batches_are_sized(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = tiny_pair("llama", shift=0.2)
    contexts = [tuple(range(20 + n, 25 + n + n % 4)) for n in range(24)]
    how = {"max_tokens": 9, "temperature": temperature, "seed": 2}
    widths: list[int] = []
    hidden = ModelPair.hidden

    def watched(self: ModelPair, which: str, ids: torch.Tensor, **more: object) -> torch.Tensor:
        widths.append(len(ids))
        return hidden(self, which, ids, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ModelPair, "hidden", watched)

    def made(tokens: int | None) -> tuple[object, object, list[np.ndarray]]:
        widths.clear()
        drawing = GenerateConfig(**how, batch_tokens=tokens)  # type: ignore[arg-type]
        texts = [g.ids for g in generate(pair, "aligned", contexts, drawing, what=None)]
        penalised = decode(pair, contexts, DecodeConfig(penalty=PenaltyConfig(strength=2.0), generation=drawing))
        todo = [Passage(name="", aligned=c, response=c[::-1]) for c in contexts]
        scores = score(pair, todo, ScoreConfig(), batch_tokens=tokens, what=None)
        return texts, penalised.token_ids.tolist(), [s.scalars for s in scores]

    whole = made(10_000)
    assert max(widths) == 24
    monkeypatch.setattr(pairs, "memory_of", lambda _: Device(0, 1))  # nothing is free: after the first batch, one row
    monkeypatch.setattr("workbench.models.generation.FIRST_TOKENS", 60)
    monkeypatch.setattr("workbench.decoding.penalised.FIRST_TOKENS", 60)
    monkeypatch.setattr("workbench.tracing.scoring.FIRST_TOKENS", 60)
    for tokens in (None, 1, 50):
        texts, penalised, scores = made(tokens)
        assert (texts, penalised) == whole[:2]
        assert max(widths) < 24
        assert all(np.allclose(a, b, atol=2e-5) for a, b in zip(scores, whole[2], strict=True))
