"""A scaled change: every merged weight is aligned's plus a share of the difference, for both kinds of pair."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.errors import refuses
from tests.test_train_loop import LORA, config, ids, texts
from tests.tiny_pair import save_model, tiny_adapter, tiny_models, tiny_pair, tiny_tokenizer
from workbench.core.errors import NotPresent, PairError, ParameterError
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.training.distil import distil
from workbench.training.scaled import scaled_adapter


def merged(pair: ModelPair) -> dict[str, Tensor]:
    """Every weight of aligned with its adapters merged in, by PEFT's own merge."""
    with pair.model("aligned") as model:
        peft = pair._sides["aligned"].weights.peft
        whole = model if peft is None else copy.deepcopy(peft).merge_and_unload()
        return {n: p.detach().double() for n, p in whole.named_parameters()}


def one_model(folder: Path) -> ModelPair:
    """A pair that is one model with an adapter on and off."""
    base, _ = tiny_models("llama", 320)
    save_model(folder / "base", base, tiny_tokenizer())
    tiny_adapter(folder / "own", base, scale=0.3)
    return load_pair(PairConfig(base=str(folder / "base"), adapter=str(folder / "own"), dtype="float32"))


@pytest.mark.parametrize("kind", ["two models", "one model"])
def test_merged_weights_are_aligneds_and_a_share_of_the_difference(kind: str, tmp_path: Path) -> None:
    pair = tiny_pair("llama") if kind == "two models" else one_model(tmp_path)
    done = distil(pair, texts(), config("recovery", steps=3, lr=3e-2), out=tmp_path / "arm")
    aligned, arm = merged(pair), merged(pair.with_aligned(done.path))
    assert max((arm[n] - aligned[n]).abs().max().item() for n in arm) > 1e-2
    asked = torch.tensor([ids(2, 9)])
    for share in (0.0, 0.5, 1.0):
        path = scaled_adapter(pair, done.path, share, tmp_path / "scaled")  # replaces the one before
        now = pair.with_aligned(str(path))
        for name, weight in merged(now).items():
            assert torch.allclose(weight, aligned[name] + share * (arm[name] - aligned[name]), atol=1e-5), name
        same = {0.0: pair, 1.0: pair.with_aligned(done.path)}.get(share)
        if same is not None:
            logits = [p.logits("aligned", p.hidden("aligned", asked)) for p in (now, same)]
            assert torch.allclose(*logits, atol=1e-4)


def test_what_cannot_be_scaled_is_refused(tmp_path: Path) -> None:
    pair = one_model(tmp_path)
    done = distil(pair, texts(), config("recovery", steps=1), out=tmp_path / "arm")
    for share in (-0.1, 1.1, float("nan")):
        refuses(lambda s=share: scaled_adapter(pair, done.path, s, tmp_path / "x"), ParameterError, "share")  # type: ignore[misc]
    refuses(lambda: scaled_adapter(pair, tmp_path / "none", 0.5, tmp_path / "x"), NotPresent)
    two = tiny_pair("llama")
    other = distil(
        two, texts(), config(dataclasses.replace(config().chosen, lora=LORA), steps=1), out=tmp_path / "wide"
    )
    refuses(lambda: scaled_adapter(pair, other.path, 0.5, tmp_path / "x"), PairError, "layers")
    odd = shutil.copytree(done.path, tmp_path / "odd")
    settings = json.loads((odd / "adapter_config.json").read_text("utf-8"))
    (odd / "adapter_config.json").write_text(json.dumps({**settings, "use_rslora": True}), "utf-8")
    refuses(lambda: scaled_adapter(pair, odd, 0.5, tmp_path / "x"), PairError, "use_rslora")
    assert not (tmp_path / "x").exists()
