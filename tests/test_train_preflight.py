"""What is said of a training before it starts, against that training: its memory, and that it stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.profiler import ProfilerActivity, profile

from tests.test_train_loop import LORA, QUIET, config, ids, same, texts, weights
from tests.tiny_pair import ARCHITECTURES, Arch, tiny_models, tiny_pair, tiny_tokenizer
from workbench.models.pair import ModelPair
from workbench.training.config import ARMS, FURTHER, ArmConfig
from workbench.training.distil import distil
from workbench.training.memory import memory_mib
from workbench.training.rows import TrainingTexts

EVERY_ARM: dict[str, ArmConfig] = {
    **ARMS,
    **FURTHER,
    "recovery, the rest too": replace(ARMS["recovery"], penalise_rest=True),
}


def some() -> TrainingTexts:
    """Return texts whose harmful responses differ much in length."""
    made = texts()
    return replace(
        made, harmful=tuple(replace(t, response=ids(900 + n, 20 + 9 * n)) for n, t in enumerate(made.harmful))
    )


def estimate_over_peak(pair: ModelPair, arm: ArmConfig | str, out: Path, **more: Any) -> float:
    """Train, and return the estimated memory over the most that the training's tensors hold at once."""
    how = config(arm, steps=2, **more)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        made = distil(pair, some(), how, out=out)
    events = sorted((e.start_ns(), e.nbytes()) for e in seen.profiler.kineto_results.events() if e.name() == "[memory]")
    trained = sum(w.numel() for w in weights(Path(made.path)).values())
    return memory_mib(pair, trained, some(), how) * 2**20 / float(np.cumsum([size for _, size in events]).max())


@pytest.mark.matrix
@pytest.mark.parametrize("arm", EVERY_ARM.values(), ids=EVERY_ARM)
def test_no_training_holds_more_than_is_estimated_nor_a_quarter_of_it(arm: ArmConfig, tmp_path: Path) -> None:
    pair = tiny_pair("llama")
    for n, more in enumerate(({}, {"micro_batch": 2, "max_tokens": 40, "prefix_tokens": 7})):
        assert 1.0 < estimate_over_peak(pair, arm, tmp_path / str(n), **more) < 4.0, more


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "arch", [a if a == "llama" else pytest.param(a, marks=pytest.mark.matrix) for a in ARCHITECTURES]
)
def test_so_it_is_for_every_architecture(arch: Arch, attention: str, tmp_path: Path) -> None:
    models = tiny_models(arch, 320)
    for model in models:
        model.set_attn_implementation(attention)
    pair = ModelPair.from_models(*models, tiny_tokenizer())
    assert 1.0 < estimate_over_peak(pair, "recovery", tmp_path / "a") < 4.0


def test_a_training_that_was_looked_at_is_the_same_training(tmp_path: Path) -> None:
    """Dropout draws random numbers in every step: one draw too many or one weight touched would show."""
    pair = tiny_pair("llama")
    arm = replace(config().chosen, lora=replace(LORA, dropout=0.5))
    watch = replace(QUIET, film_every=2)
    looked, plain = (
        distil(pair, texts(), replace(config(), arm=arm, watch=replace(watch, preflight=p)), out=tmp_path / str(p))
        for p in (True, False)
    )
    assert same(weights(tmp_path / "True"), weights(tmp_path / "False"))
    assert [s.loss for s in looked.history] == [s.loss for s in plain.history]
    assert plain.preflight is None
    assert looked.preflight.trained_parameters == sum(w.numel() for w in weights(tmp_path / "True").values())
    assert looked.preflight.step_seconds > 0.0
    assert looked.preflight.memory_mib > 0.0
