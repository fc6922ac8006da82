"""A penalty with w < 0 leads beyond base (emulated disalignment): every way to generate text refuses it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import workbench as wb
from tests.errors import refuses
from tests.fakes import prompt_set
from tests.tiny_pair import tiny_pair
from workbench.core.errors import ParameterError
from workbench.core.passages import Passage
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.live import write
from workbench.decoding.model import PenalisedModel
from workbench.decoding.penalised import decode, next_token
from workbench.decoding.processor import PenaltyProcessor
from workbench.evaluation.frontier import load_penalty
from workbench.evaluation.setup import arms_of
from workbench.evaluation.sweep import sweep
from workbench.models.pair import ModelPair

ROOT = Path(__file__).resolve().parents[1]
AWAY = (
    PenaltyConfig(strength=-1.01),
    PenaltyConfig(method="two_sided", strength=-1.5),
    PenaltyConfig(strength=-0.6, gamma=1.0),
    PenaltyConfig(strength=-0.8, shape="undertrained", retention=(0.1, 0.9)),
    PenaltyConfig(method="safe_decoding", strength=-0.1),
    PenaltyConfig.family(-0.1),
)
START = Passage(name="one", aligned=(5, 41, 52, 63))


def ways(pair: ModelPair, penalty: PenaltyConfig, folder: Path) -> dict[str, Callable[[], object]]:
    """Every call that generates under a penalty."""
    file = folder / "penalty.json"
    file.write_text(json.dumps({k: v for k, v in vars(penalty).items() if v is not None}), "utf-8")
    asked = prompt_set("the cat", "the dog")
    return {
        "decode": lambda: decode(pair, [START], DecodeConfig(penalty=penalty)),
        "an arm": lambda: PenalisedModel(pair, penalty),
        "transformers": lambda: PenaltyProcessor(pair, penalty),
        "live": lambda: write(pair, START, DecodeConfig(penalty=penalty)),
        "a file": lambda: PenalisedModel(pair, load_penalty(file)),
        "a sweep": lambda: sweep(pair, asked, penalties=(penalty,), prefix_tokens=(1,), max_tokens=2),
        "an example": lambda: wb.continue_three_ways(pair, asked, penalty, prefix_tokens=1, max_tokens=2),
    }


def test_no_way_to_generate_takes_a_penalty_beyond_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = tiny_pair(shift=0.3)
    assert next_token(pair, START, AWAY[0]).penalised.shape == (pair.vocab,), "one position may be looked at"
    monkeypatch.setattr("workbench.decoding.penalised.draw", lambda *_, **__: pytest.fail("text was generated"))
    for penalty in AWAY:
        for call in ways(pair, penalty, tmp_path).values():
            refuses(call, ParameterError)
    refuses(lambda: arms_of(pair, penalties=(-1.5,)), ParameterError, "-1.5")


def test_the_pages_generate_nothing() -> None:
    """No page script picks a token: Python does, and refuses w < 0. The live page does, and refuses it too."""
    scripts = [f for room in ("widgets", "workbench", "docs") for f in (ROOT / room).rglob("*.js")]
    (live,) = (f for f in scripts if f.parts[-2:] == ("live", "model.js"))  # tests/browser/test_live_page.py
    assert "if (!(strength >= 0)) throw" in live.read_text("utf-8")
    scripts.remove(live)
    assert len(scripts) >= 15
    picks = re.compile(r"softmax|arg_?max|multinomial|\blogits\s*[=\[(]|onnx|wasm|WebGPU", re.IGNORECASE)
    assert [f.name for f in scripts if picks.search(f.read_text("utf-8"))] == []
