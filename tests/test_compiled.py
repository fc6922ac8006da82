"""The compiled step (PairConfig.compile): the same tokens as eager, and truly compiled."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch

from tests.tiny_pair import tiny_pair
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.penalised import decode
from workbench.models import weights
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair

PADDED = [(0, 20, 30), (0, 41, 52, 63, 74, 85, 96), (5,), (0, 9, 9, 9)]
SAMPLED = {"temperature": 0.9, "top_k": 100, "top_p": 0.95, "seed": 3}


def texts(pair: ModelPair, settings: dict[str, float]) -> list[object]:
    drawing = GenerateConfig(max_tokens=6, **settings)  # type: ignore[arg-type]
    penalised = DecodeConfig(penalty=PenaltyConfig(strength=2.0), generation=drawing)
    return [
        [g.ids for g in generate(pair, "aligned", PADDED, drawing, what=None)],
        decode(pair, PADDED, penalised, what=None).token_ids.tolist(),
    ]


def compare(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    own, ran = torch.compile, []

    def compiled(run: object, **more: object) -> object:
        made = own(run, backend=compiler)  # type: ignore[call-overload]
        return lambda *args, **kwargs: (ran.append(1), made(*args, **kwargs))[1]

    monkeypatch.setattr(weights.torch, "compile", compiled)
    for settings in ({}, SAMPLED):
        pair = tiny_pair("llama", shift=0.2)
        eager = texts(pair, settings)
        assert not ran
        assert texts(dataclasses.replace(pair, compile=True), settings) == eager
        assert len(ran) >= 15  # five steps of one model, and five of two
        ran.clear()


def test_a_step_on_the_static_cache_is_traced_and_equals_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    compare("eager", monkeypatch)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # of torch's own compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU with g++, which is not here")
def test_a_compiled_step_equals_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    compare("inductor", monkeypatch)
