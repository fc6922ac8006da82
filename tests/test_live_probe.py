"""The live probe without a browser: what streams in, stop and replace, errors in place, what is covered."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ipywidgets import Widget

from tests.errors import refuses
from tests.fakes import at_token, counting_model
from tests.hostile_texts import EXECUTABLE
from tests.tiny_pair import tiny_pair, tiny_tokenizer
from widgets import live_probe, worker
from widgets.live_probe import LiveProbe, ProbeQuestion, ProbeSelection
from widgets.worker import MODELS
from workbench.core.errors import ParameterError, UnknownName
from workbench.core.records import load, save
from workbench.models.pair import ModelPair
from workbench.prompts.loading import Prompt
from workbench.tracing.records import TraceSet
from workbench.tracing.streaming import StreamConfig, stream

SECONDS = 60.0
"""Longest wait for what has to happen."""


@pytest.fixture(autouse=True)
def every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show every token by itself, however fast they come."""
    monkeypatch.setattr(worker, "EVERY_S", 0.0)


@pytest.fixture(scope="module")
def counting() -> ModelPair:
    """Make a pair that counts up from the last token of its prompt, for as long as it may."""
    return ModelPair.from_models(counting_model(320), counting_model(320), tiny_tokenizer())


@pytest.fixture
def probe(counting: ModelPair) -> Iterator[LiveProbe]:
    """Return a probe as a live notebook has displayed it."""
    made = LiveProbe(counting, live=True, max_tokens=30)
    made._root()
    yield made
    made.stop()
    assert made.wait(SECONDS)


def asks(probe: LiveProbe, do: str, **fields: Any) -> None:
    """Do what the page does when a person presses a button."""
    form = {**probe.face.form, **fields} if do == "start" else {}  # type: ignore[attr-defined]
    probe.face.asked = {"do": do, **form, "n": str(id(object()))}  # type: ignore[attr-defined]


def test_what_was_typed_is_continued_scored_and_shown(probe: LiveProbe, counting: ModelPair, tmp_path: Path) -> None:
    seen: list[int] = []
    probe.on_select(lambda now: seen.append(now.tokens))
    asks(probe, "start", prompt="count", prefix=counting.decode((60,)), max_tokens=6)
    assert probe.wait(SECONDS)
    assert sorted(set(seen)) == [0, 1, 2, 3, 4, 5, 6], "each token by itself"
    traces = probe.traces
    assert traces.token_ids.tolist() == [[60, 61, 62, 63, 64, 65]]
    want = stream(
        counting,
        Prompt(id="typed", prompt="count", label="unlabelled", response=counting.decode((60,))),
        StreamConfig(max_tokens=6),
    )
    assert traces.responses == want.responses
    save(traces, tmp_path / "typed")
    assert load(tmp_path / "typed", TraceSet) == traces
    assert probe.lens.traces is traces
    assert probe._root().children == (probe.face, probe.lens.face)
    assert probe.selection == ProbeSelection(
        question=ProbeQuestion(prompt="count", prefix=counting.decode((60,)), max_tokens=6),
        state="finished",
        tokens=6,
        lens=probe.lens.selection,
    )
    assert probe.face.state == {"state": "finished", "said": "Cut at the longest response, 6 tokens.", "tokens": 6}  # type: ignore[attr-defined]
    assert len(probe.to_frame()) == 6


def test_stops_and_newer_starts_win(probe: LiveProbe, counting: ModelPair) -> None:
    there, go_on = at_token(probe, 4, SECONDS)
    asks(probe, "start", prompt="count")
    assert there.wait(SECONDS)
    asks(probe, "stop")
    go_on.set()
    assert probe.wait(SECONDS)
    assert (probe.traces.lengths().tolist(), probe.traces.responses[0].stop) == ([4], "stopped")
    assert (probe.selection.state, probe.face.state["said"]) == ("stopped", "Stopped after 4 tokens.")  # type: ignore[attr-defined]
    asks(probe, "stop")  # nothing runs: nothing happens
    assert probe.selection.state == "stopped"
    there, go_on = at_token(probe, 3, SECONDS)
    asks(probe, "start", prompt="first", prefix=counting.decode((60,)))
    assert there.wait(SECONDS)
    lens = probe.lens
    second = threading.Thread(
        target=asks, args=(probe, "start"), kwargs=dict(prompt="b", prefix=counting.decode((90,)))
    )
    second.start()  # as from a second tab, while the first is being shown
    go_on.set()
    second.join(SECONDS)
    assert probe.wait(SECONDS)
    assert (probe.traces.responses[0].prompt, probe.traces.token_ids[0, :2].tolist()) == ("b", [90, 91])
    assert probe.selection.question.prompt == "b"
    assert probe.lens is lens
    assert lens.traces is probe.traces
    with MODELS:  # another widget's model runs
        asks(probe, "start", prompt="count")
        assert probe.selection.state == "running"
        asks(probe, "stop")
    assert probe.wait(SECONDS)
    assert (probe.selection.state, probe.traces) == ("stopped", None)
    assert probe.face.state["said"] == "Stopped before the first token."  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (dict(prompt=" "), "PromptError: prompt 'typed' is empty"),
        (dict(prompt="count", max_tokens=300), "ContextOverflow: prompt 'typed' needs"),
        (dict(prompt="count", max_tokens=None), "ParameterError: max tokens must be a whole number"),
        (dict(prompt="count", seed=0.5), "ParameterError: seed must be a whole number"),
        (dict(prompt="count", temperature=-1), "ParameterError: temperature is -1.0"),
    ],
)
def test_errors_are_shown_in_place_and_logged(probe, fields, said, caplog) -> None:
    with caplog.at_level(logging.ERROR, logger="widgets"):
        asks(probe, "start", **fields)
        assert probe.wait(SECONDS)
    assert probe.face.error.startswith(said)
    assert "Traceback" in caplog.text
    assert probe.traces is None
    asks(probe, "start", prompt="count", prefix="", max_tokens=4, seed=0, temperature=0.0, continued_by="base")
    assert probe.wait(SECONDS)
    assert (probe.face.error, probe.selection.state) == ("", "finished")


def test_nan_half_way_keeps_what_was_there() -> None:
    bad = counting_model(320)
    with torch.no_grad():
        bad.model.embed_tokens.weight[63] = torch.nan
    pair = ModelPair.from_models(counting_model(320), bad, tiny_tokenizer())
    probe = LiveProbe(pair, live=True, prompt="count", prefix=pair.decode((60,)))
    probe._root()
    probe.start()
    assert probe.wait(SECONDS)
    assert "NonFiniteLogits: the aligned model returned NaN" in probe.face.error
    assert (probe.selection.state, probe.traces.token_ids.tolist()) == ("failed", [[60, 61, 62, 63]])
    assert probe.face.state["said"] == "Failed after 4 tokens."  # type: ignore[attr-defined]


@pytest.mark.parametrize("harmful_text", ["show", "blur", "redact", "auto"])
def test_what_is_typed_is_shown_unless_it_is_to_be_covered(counting: ModelPair, harmful_text: Any) -> None:
    probe = LiveProbe(counting, harmful_text=harmful_text, prompt="count", prefix=" secret words", max_tokens=16)
    probe.start()
    assert probe.wait(SECONDS)
    shown = harmful_text == "show"
    assert probe.traces.responses[0].label == ("unlabelled" if shown else "harmful")
    assert ("░░░" in probe.static().text or "withheld" in probe.static().text) != shown
    assert (probe.to_frame()["token"] == "░░░").all() != shown


def test_typed_text_is_text_and_either_model_continues(probe: LiveProbe) -> None:
    pair = tiny_pair(shift=0.2)
    either = LiveProbe(pair, prompt="Tell me", max_tokens=12)
    texts = {}
    for who, temperature, seed in (("base", 0.0, 0), ("aligned", 0.0, 0), ("base", 0.9, 1), ("base", 0.9, 2)):
        either.start(continued_by=who, temperature=temperature, seed=seed)
        assert either.wait(SECONDS)
        assert (either.traces.responses[0].continued_by, either.traces.responses[0].temperature) == (who, temperature)
        texts[who, temperature, seed] = tuple(either.traces.token_ids[0].tolist())
    assert len(set(texts.values())) == 4
    for text in EXECUTABLE[:6]:
        asks(probe, "start", prompt=text, prefix=text, max_tokens=100)
        assert probe.wait(SECONDS)
        assert probe.traces.responses[0].prompt == text
        html = probe.static().html
        assert "<img src=x" not in html
        assert "window.tripped = 1</script>" not in html


def test_listeners_lens_and_form_are_part_of_the_probe(probe: LiveProbe) -> None:
    probe.on_select(lambda now: 1 / 0)
    asks(probe, "start", prompt="count", max_tokens=4)
    assert probe.wait(SECONDS)
    assert (probe.selection.state, probe.face.error) == ("finished", "ZeroDivisionError: division by zero")
    probe.start(prompt="count", max_tokens=5)
    assert probe.wait(SECONDS)
    probe.lens.show(position=3)
    assert probe.selection.lens.position == 3
    probe.start(prompt="count", max_tokens=3, temperature=0.5)
    assert probe.wait(SECONDS)
    face: Any = probe.face
    json.dumps([face.form, face.state], allow_nan=False)
    assert (face.form["prompt"], face.form["max_tokens"], face.form["temperature"]) == ("count", 3, 0.5)


def test_a_headless_probe_and_impossible_arguments(counting, monkeypatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(Widget, "open", lambda self: made.append(type(self).__name__))
    probe = LiveProbe(counting, live=False)
    assert "Live probe of in memory" in probe.static().text
    assert probe.to_frame().empty
    probe.start(prompt="count", max_tokens=4)
    assert probe.wait(SECONDS)
    assert set(probe._repr_mimebundle_()) == {"text/html", "text/plain"}
    assert "prompt: count" in probe._repr_mimebundle_()["text/plain"]
    assert made == []
    refuses(lambda: LiveProbe(counting, quantity="nonsense"), UnknownName)
    refuses(lambda: LiveProbe(counting, nonsense=1), TypeError)
    with pytest.raises(ParameterError):
        live_probe._question({**live_probe.dataclasses.asdict(ProbeQuestion()), "seed": "1"})
