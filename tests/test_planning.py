"""Large pairs on faked devices: what is chosen, what each holds, and what does not fit is said before loading."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import LlamaConfig, PretrainedConfig, Qwen2Config

from workbench.models import placement, sources
from workbench.models.planning import GIB, USABLE, Place, plan

SIZES: dict[str, PretrainedConfig] = {
    "8B": LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128256,
    ),
    "32B": Qwen2Config(
        hidden_size=5120, intermediate_size=27648, num_hidden_layers=64, num_attention_heads=40,
        num_key_value_heads=8, vocab_size=152064,
    ),
    "70B": LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64,
        num_key_value_heads=8, vocab_size=128256,
    ),
}  # fmt: skip
NEEDS_GIB = {"8B": 29.9, "32B": 122.0, "70B": 262.8}
"""Two models in bfloat16."""


def devices(gpus: int, each: int, memory: int = 100) -> dict[Place, int]:
    return {**dict.fromkeys(range(gpus), each * GIB), "cpu": memory * GIB}


@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize(("gpus", "each"), [(1, 24), (1, 80), (2, 80), (8, 141)])
def test_all_gpus_are_filled_before_memory_and_memory_before_disk(gpus: int, each: int, size: str) -> None:
    made = plan([SIZES[size]] * 2, torch.bfloat16, devices(gpus, each))
    need = sum(made.held.values())
    assert need / GIB == pytest.approx(NEEDS_GIB[size], abs=0.2)
    for place, room in made.free.items():
        assert made.held.get(place, 0) <= USABLE * room
    layer = need / 2 / SIZES[size].num_hidden_layers
    if need > USABLE * gpus * each * GIB:  # no GPU has room for another layer, and one to swap
        assert made.beside > 0
        for n in range(gpus):
            assert made.held[n] > USABLE * each * GIB - 4 * layer
        assert re.search(r"; [\d.]+ GiB have no room on a GPU \(.*\), which is slow$", str(made))
    else:
        assert made.beside == 0
        assert str(made).startswith("weights are spread: ")
        assert "no room" not in str(made)
    for device_map in made.device_maps:  # every layer is somewhere, once, and whole
        layers = [name for name in device_map if re.search(r"layers\.\d+$", name)]
        assert len(set(layers)) == SIZES[size].num_hidden_layers or "" in device_map
        assert not [name for name in device_map if re.search(r"layers\.\d+\.", name)]


def test_a_pair_that_needs_two_gpus_uses_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(sources, "free_memory", lambda d: 80 * GIB)
    assert sources.fits([60 * GIB], torch.device("cuda", 0))
    assert not sources.fits([60 * GIB, 60 * GIB], torch.device("cuda", 0))
    placements, said = placement.over_all([SIZES["32B"]] * 2, torch.bfloat16)
    places = {place for how in placements for place in how["device_map"].values()}
    assert places == {0, 1}
    assert re.fullmatch(r"weights are spread: [\d.]+ of 80\.0 GiB on GPU 0, [\d.]+ of 80\.0 GiB on GPU 1".replace(
        "+ of", "+ GiB of"), said)  # fmt: skip
    assert all(how["offload_folder"] for how in placements)
