"""A training that is killed again and again ends with the adapter that it would have had."""

from __future__ import annotations

import multiprocessing
import random
from pathlib import Path

import pytest
from safetensors.torch import load_file

KILLS = 20


def train(out: str) -> None:
    """Train a tiny student, with a checkpoint after every second step; runs in a process of its own."""
    from dataclasses import replace

    import torch

    from tests.tiny_pair import tiny_pair
    from workbench.training.config import ARMS, LoraSettings, TrainConfig, WatchSettings
    from workbench.training.distil import distil
    from workbench.training.rows import TrainingText, TrainingTexts

    torch.set_num_threads(1)
    arm = replace(ARMS["recovery"], lora=LoraSettings(rank=4, targets="all-linear", dropout=0.2))
    told = tuple(range(20, 60))
    texts = TrainingTexts(
        harmful=tuple(
            TrainingText(
                name=f"h{n}", aligned=(5, 6, 7 + n), base=(5, 6, 7 + n), response=told, refusals=(told[::-1][:9],)
            )
            for n in range(5)
        ),
        utility=tuple(TrainingText(name=f"u{n}", aligned=(9, n), base=(9, n), response=told[:20]) for n in range(5)),
    )
    watch = WatchSettings(film_every=3, checkpoint_every=2, preflight=False)
    distil(tiny_pair("llama"), texts, TrainConfig(arm=arm, steps=60, watch=watch), out=out)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["workbench.training.distil", "tests.tiny_pair"])
    whole = processes.Process(target=train, args=(str(tmp_path / "whole"),))
    whole.start()
    whole.join()
    assert whole.exitcode == 0
    drawn, killed, tries = random.Random(0), 0, 0
    while not (tmp_path / "parts").exists() or killed < KILLS:
        tries += 1
        assert tries < 6 * KILLS, "it never comes to its end"
        one = processes.Process(target=train, args=(str(tmp_path / "parts"),))
        one.start()
        one.join(drawn.uniform(0.2, 4.0) if killed < KILLS else None)
        if one.exitcode is None:
            one.kill()
            one.join()
            killed += 1
        elif killed < KILLS:  # it was done before it was killed: what it made has to be right, and it starts again
            assert one.exitcode == 0
            assert _same(tmp_path)
            (tmp_path / "parts").rename(tmp_path / f"done-{tries}")
    assert _same(tmp_path)
    assert not list(tmp_path.glob("parts.training*"))


def _same(folder: Path) -> bool:
    a, b = (load_file(folder / name / "adapter_model.safetensors") for name in ("whole", "parts"))
    return a.keys() == b.keys() and all(bool((a[k] == b[k]).all()) for k in a)
