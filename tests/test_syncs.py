"""One read of the device a step, in every mode: counted, and impossible where tensors have no values."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from benchmarks.reads import Reads
from tests.tiny_pair import tiny_adapter, tiny_model, tiny_pair, tiny_tokenizer
from workbench.core.passages import Passage
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.mixed import mixed
from workbench.decoding.paired import paired_steps
from workbench.decoding.penalised import decode
from workbench.decoding.steps import PenalisedSteps
from workbench.models.generation import GenerateConfig, ModelSteps, Row, Steps, choose, generate
from workbench.models.noise import Noise
from workbench.models.pair import ModelPair

PADDED = [(0, 20, 30), (0, 41, 52, 63, 74, 85, 96), (5,), (0, 9, 9, 9)]
EVEN = [(0, 20, 30), (0, 41, 52), (5, 6, 7), (0, 9, 9)]
SAMPLED = {"temperature": 0.9, "top_k": 100, "top_p": 0.95, "seed": 3}
PENALTIES = [
    PenaltyConfig(strength=2.0, gamma=1.0, shape="ramp", m=4, plausibility=0.01),
    PenaltyConfig(strength=2.0, gamma=1.0, risk_space="mass", shape="first_m", m=5, count_from="generated"),
    PenaltyConfig(method="two_sided", shape="undertrained", retention=(0.0, 0.5, 0.1)),
    PenaltyConfig(method="safe_decoding"),
    PenaltyConfig(strength=0.0),
]


def endless(pair: ModelPair) -> ModelPair:
    """A pair whose texts do not end."""
    return dataclasses.replace(pair, eos_ids=frozenset())


@pytest.fixture
def adapter_pair(tmp_path: Path) -> ModelPair:
    model = tiny_model("llama", 320)
    folder = tiny_adapter(tmp_path, model, scale=0.3)
    return endless(ModelPair.from_models(model, model, tiny_tokenizer()).with_aligned(str(folder)))


def reads(run: Callable[[GenerateConfig], object], **settings: object) -> int:
    """Return how many reads four steps more cost."""
    found = []
    for tokens in (3, 7):
        with Reads() as counted:
            run(GenerateConfig(max_tokens=tokens, **settings))  # type: ignore[arg-type]
        found.append(counted.count)
    return found[1] - found[0]


@pytest.mark.parametrize("contexts", [PADDED, EVEN], ids=["padded", "even"])
@pytest.mark.parametrize("arch", ["llama", "gemma3", "gpt2"])
def test_a_step_reads_once_in_each_of_the_four_modes(arch: str, contexts: list[tuple[int, ...]]) -> None:
    pair = endless(tiny_pair(arch, shift=0.2))  # type: ignore[arg-type]
    for settings in ({}, SAMPLED):
        assert reads(lambda c: generate(pair, "aligned", contexts, c, what=None), **settings) == 4
        for penalty in PENALTIES if arch == "llama" else PENALTIES[:1]:

            def run(c: GenerateConfig, penalty: PenaltyConfig = penalty) -> None:
                decode(pair, contexts, DecodeConfig(penalty=penalty, generation=c), what=None)

            assert reads(run, **settings) == 4, penalty.title


def test_a_mixed_pass_reads_once_too(adapter_pair: ModelPair) -> None:
    with mixed(adapter_pair) as run:
        assert run is not None
    for settings in ({}, SAMPLED):
        config = DecodeConfig(penalty=PENALTIES[0])
        assert (
            reads(
                lambda c: decode(adapter_pair, PADDED, dataclasses.replace(config, generation=c), what=None),  # noqa: B023
                **settings,
            )
            == 4
        )


@contextlib.contextmanager
def no_values() -> Iterator[None]:
    with torch.inference_mode(), FakeTensorMode(allow_non_fake_inputs=True):
        yield


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("penalty", [None, *PENALTIES], ids=lambda p: "plain" if p is None else p.title)
def test_a_step_runs_where_no_tensor_has_a_value(
    penalty: PenaltyConfig | None, temperature: float, adapter_pair: ModelPair
) -> None:
    config = GenerateConfig(max_tokens=4, **{**SAMPLED, "temperature": temperature})  # type: ignore[arg-type]
    rows = [Row(index=n, limit=4, key=n) for n in range(4)]
    passages = [Passage(name=str(n), aligned=c) for n, c in enumerate(PADDED)]
    for pair in (tiny_pair("llama"), adapter_pair):
        with mixed(pair) as run, no_values():
            if penalty is None:
                steps: Steps = ModelSteps(pair, "aligned", PADDED, 4)
            else:
                paired = paired_steps(pair, run, passages, 4)
                steps = PenalisedSteps(paired, DecodeConfig(penalty=penalty, generation=config), rows, [0, 1, 2, 9])
            noise = Noise([row.key for row in rows], pair.device)
            for step in range(4):
                chosen = choose(steps.scores(), config, noise)
                steps.take(chosen, lambda scores: choose(scores, config, noise))  # noqa: B023
                noise.next()
                if step == 1:
                    steps.keep([2, 0])
                    noise.keep(torch.tensor([2, 0]))
            assert chosen.shape == (2,)
            assert len(steps.finite) == (1 if penalty is None else 2)
            with pytest.raises(DataDependentOutputException):
                chosen.tolist()
