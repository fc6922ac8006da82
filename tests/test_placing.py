"""Large pairs: where weights lie changes no number, and what this machine cannot do is refused with the reason."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.errors import refuses
from workbench.core.errors import NotPresent, ParameterError
from workbench.models import placement, sources
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.models.sources import Source
from workbench.training.config import LoraSettings, TrainConfig, WatchSettings, arm_named
from workbench.training.distil import distil
from workbench.training.rows import TrainingText, TrainingTexts

IDS = torch.arange(5, 45)[None]


@pytest.fixture(scope="module")
def plain() -> ModelPair:
    return load_pair(PairConfig(preset="embedded", device="cpu"))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"device_map": {"": "cpu"}}, "Weights are on cpu, as given."),
        ({"device_map": "auto"}, "Weights are spread over "),
        ({"device": "cpu", "offload_base": True}, "base stays in memory"),
    ],
)
def test_where_weights_lie_changes_no_number(how: dict[str, Any], said: str, plain: ModelPair) -> None:
    pair = load_pair(PairConfig(preset="embedded", dtype="float32", **how))
    assert said in pair.notes[-1]
    assert pair.fingerprint == plain.fingerprint
    if pair.device.type != "cpu":
        return  # another device rounds otherwise
    for which in ("base", "aligned"):
        hidden = pair.hidden(which, IDS)  # type: ignore[arg-type]
        assert torch.equal(hidden, plain.hidden(which, IDS))  # type: ignore[arg-type]
        assert torch.equal(pair.logits(which, hidden), plain.logits(which, hidden))  # type: ignore[arg-type]


def test_a_student_is_trained_with_base_offloaded_as_without(plain: ModelPair, tmp_path: Path) -> None:
    ids = tuple(range(20, 36))
    texts = TrainingTexts(
        harmful=(TrainingText(name="h", aligned=(5, 6, 7), base=(5, 6, 7), response=ids, refusals=(ids[:5],)),),
        utility=(TrainingText(name="u", aligned=(9, 8), base=(9, 8), response=ids[::-1]),),
    )
    arm = replace(arm_named("paper_tuned"), lora=LoraSettings(rank=2))
    watch = WatchSettings(film_every=0, checkpoint_every=0, preflight=False)
    how = TrainConfig(arm=arm, steps=2, batch_size=2, watch=watch)
    offloaded = load_pair(PairConfig(preset="embedded", device="cpu", offload_base=True))
    losses = [
        [s.loss for s in distil(pair, texts, how, out=tmp_path / name).history]
        for name, pair in (("plain", plain), ("offloaded", offloaded))
    ]
    assert losses[0] == losses[1]


def test_wishes_that_contradict_each_other_are_refused() -> None:
    for how, said in [
        ({"device_map": "everywhere"}, "'everywhere'"),
        ({"device_map": {}}, "device_map"),
        ({"device_map": "auto", "device": "cpu"}, "device_map"),
        ({"device_map": "auto", "offload_base": True}, "base"),
        ({"experimental_quantised": "3bit"}, "'3bit'"),
        ({"experimental_quantised": "8bit", "offload_base": True}, "offload"),
    ]:
        with pytest.raises(ParameterError, match=said):
            PairConfig(preset="embedded", **how)


@pytest.mark.parametrize("bits", list(placement.BYTES))
def test_quantised_weights_need_an_nvidia_gpu(bits: str) -> None:
    with pytest.raises(ParameterError, match=r"GPU.*cpu"):
        load_pair(PairConfig(preset="embedded", device="cpu", experimental_quantised=bits))


def test_quantised_weights_need_their_package_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, source = torch.device("cuda"), Source(asked="model", folder=tmp_path)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refuses(lambda: placement.check_quantised("4bit", gpu, [source]), NotPresent, "extra `quantised`")
    with pytest.raises(ParameterError, match=r"'m\.gguf'"):
        placement.check_quantised("4bit", gpu, [Source(asked="m.gguf", folder=tmp_path, gguf="m.gguf")])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    placement.check_quantised("4bit", gpu, [source])
    eight = placement.quantisation("8bit", torch.float16)["quantization_config"]
    four = placement.quantisation("4bit", torch.float16)["quantization_config"]
    assert (eight.load_in_8bit, eight.load_in_4bit) == (True, False)
    assert (four.load_in_4bit, four.bnb_4bit_quant_type, four.bnb_4bit_compute_dtype) == (True, "nf4", torch.float16)


def test_weights_are_spread_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.models.presets import local_folder, preset

    row = preset("embedded")
    folder = str(local_folder(row.base, row.kind))
    refuses(lambda: load_pair(PairConfig(base=folder, aligned=folder, device="cpu", offload_base=True)), ParameterError)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(sources, "free_memory", lambda d: {None: 1000, 0: 100, 1: 50}[d.index])
    made, said = placement.spread([30, 10], "auto")
    assert [m["max_memory"] for m in made] == [{0: 60, 1: 30, "cpu": 600}, {0: 20, 1: 10, "cpu": 200}]
    assert said == "weights are spread over 2 GPUs"
    monkeypatch.undo()
    missing = torch.cuda.device_count()
    wish = PairConfig(preset="embedded", device_map={"": missing})
    refuses(lambda: load_pair(wish), ParameterError, f"'cuda:{missing}'")
