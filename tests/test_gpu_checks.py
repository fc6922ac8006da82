"""The checks of `make gpu`: on a CPU all but the peaks are measured and hold; a GPU gets the same test."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu import CHECKS, Check, run
from workbench.models.pair import PairConfig

TIMED = ("speed of decoding",)
"""What is a benchmark, never a test."""


def checked(device: str) -> dict[str, Check]:
    made = run(PairConfig(preset="embedded"), device, "embedded")
    assert len(made) == len(CHECKS)
    failed = [f"{c.name}: {c.found}" for c in made if c.holds is False and c.name not in TIMED]
    assert failed == []
    return {c.name: c for c in made}


@pytest.mark.slow
def test_the_checks_hold_on_a_cpu() -> None:
    found = checked("cpu")
    assert {name for name, c in found.items() if c.holds is None} == {"scoring", "training, 4 steps of 4 rows"}


@pytest.mark.gpu
def test_the_checks_hold_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no NVIDIA GPU here")
    assert all(c.holds is not None for name, c in checked("cuda").items() if name not in TIMED)
