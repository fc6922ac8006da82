"""What a training is estimated to need: it follows the rows that the arm can draw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.test_train_loop import config, ids, texts
from tests.tiny_pair import tiny_pair
from workbench.models.pair import ModelPair
from workbench.training.config import ARMS, ArmConfig
from workbench.training.memory import HELD, LOGITS, memory_mib
from workbench.training.references import References, states_mib, wanted_passages
from workbench.training.rows import TrainingTexts

TRAINED = 1000


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return tiny_pair("llama")


def need(pair: ModelPair, some: TrainingTexts, arm: str | ArmConfig = "recovery", **more: Any) -> float:
    return memory_mib(pair, TRAINED, some, config(arm, **more))


def long_texts() -> TrainingTexts:
    some = texts()
    harmful = tuple(replace(t, response=ids(900 + n, 90)) for n, t in enumerate(some.harmful))
    return replace(some, harmful=harmful)


def test_memory_grows_with_what_is_trained(pair: ModelPair) -> None:
    """The old estimate looked at responses alone, and not at prompt, prefix and refusal together."""
    assert need(pair, long_texts(), prefix_tokens=80) > need(pair, long_texts(), prefix_tokens=40)
    assert need(pair, long_texts(), prefix_tokens=90) == need(pair, long_texts(), prefix_tokens=200)  # no longer h
    assert need(pair, long_texts(), prefix_tokens=90) > need(pair, long_texts(), prefix_tokens=90, max_tokens=60)
    some = texts()
    longer = replace(some.harmful[0], refusals=(*some.harmful[0].refusals, ids(1, 80)))
    assert need(pair, replace(some, harmful=(longer, *some.harmful[1:]))) > need(pair, some)
    first = need(pair, some, "paper")
    assert need(pair, replace(some, harmful=(longer, *some.harmful[1:])), "paper") == first  # it reads no refusal
    rest = replace(ARMS["recovery"], penalise_rest=True)
    assert need(pair, long_texts(), rest) > need(pair, long_texts())


def test_frozen_states_and_adapters_count_to_the_byte(pair: ModelPair) -> None:
    for arm in ("recovery", "paper", "augmentation"):
        how = config(arm)
        kept = References(pair, texts(), how, None).mib
        assert kept == states_mib(pair, wanted_passages(texts(), how.chosen))
        twice = replace(
            texts(), utility=(*texts().utility, *(replace(t, response=t.response[::-1]) for t in texts().utility))
        )
        grown = need(pair, twice, arm) - need(pair, texts(), arm)
        more = References(pair, twice, how, None).mib - kept
        assert grown == pytest.approx(more, abs=1e-9)  # as long as before: nothing else grows
    assert References(pair, texts(), config("refusal_sft"), None).mib == 0.0
    assert need(pair, long_texts(), micro_batch=1) < need(pair, long_texts(), micro_batch=4) < need(pair, long_texts())
    one, two = (memory_mib(pair, n, texts(), config()) for n in (0, 2**20))
    assert two - one == pytest.approx(16.0)
    assert min(HELD.values()) >= 1.0
    assert LOGITS["labels"] < LOGITS["forward"] <= LOGITS["jsd"]
