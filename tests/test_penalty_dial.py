"""The penalty dial without a browser: turned, stopped, branched; the latest wins; what is covered; what is refused."""

from __future__ import annotations

import dataclasses
import json
import logging
import struct
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ipywidgets import Widget

from tests.errors import refuses
from tests.fakes import prompt_set
from tests.tiny_pair import tiny_pair
from widgets import worker
from widgets.penalty_dial import DialSelection, PenaltyDial
from widgets.worker import MODELS
from workbench.core import legible
from workbench.core.errors import ParameterError, PromptError
from workbench.core.records import load, save
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.penalised import decode
from workbench.decoding.records import BranchTree, Continuations
from workbench.judging.records import Judgement
from workbench.models.generation import GenerateConfig
from workbench.models.pair import ModelPair
from workbench.prompts.loading import Prompt, PromptSet

SECONDS = 60.0
"""Longest wait for what has to happen."""
HOW = dict(prefix_tokens=3, max_tokens=10)


@pytest.fixture(autouse=True)
def every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show every token by itself, however fast they come."""
    monkeypatch.setattr(worker, "EVERY_S", 0.0)


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return tiny_pair(shift=0.2)


@pytest.fixture(scope="module")
def prompts() -> PromptSet:
    return prompt_set("tell me", "again")


def by_hand(prompt: Prompt, prefix: str, text: str) -> Judgement:
    """Judge by the number of characters: enough to be told apart."""
    p = 1.0 if len(text) % 2 else 0.0
    return Judgement(attempt_id="x", p_harmful=p, verdict="compliance" if p else "refusal", unscored=None)


@pytest.fixture
def dial(pair: ModelPair, prompts: PromptSet) -> Iterator[PenaltyDial]:
    """Return a dial as a live notebook has displayed it."""
    made = PenaltyDial(pair, prompts, judge=by_hand, live=True, **HOW)  # type: ignore[arg-type]
    made._root()
    yield made
    made.stop()
    assert made.wait(SECONDS)


def face(dial: PenaltyDial) -> Any:
    return dial.face


def asks(dial: PenaltyDial, do: str, n: int, page: str = "one", **more: Any) -> None:
    """Do what a page does when a person turns or presses something."""
    face(dial).asked = {"do": do, "page": page, "n": n, **more}


def column(buffer: bytes) -> dict[str, Any]:
    """Read what the page reads: header and arrays."""
    size = struct.unpack("<I", buffer[:4])[0]
    head = json.loads(buffer[4 : 4 + size])
    arrays = {n: np.frombuffer(buffer, kind, length, 4 + size + at) for n, (kind, at, length) in head["arrays"].items()}
    return {**head, **arrays}


def decoded(pair: ModelPair, prompts: PromptSet, penalty: PenaltyConfig) -> tuple[int, ...]:
    one = dataclasses.replace(prompts, prompts=prompts.prompts[:1])
    how = DecodeConfig(penalty=penalty, generation=GenerateConfig(max_tokens=10), prefix_tokens=3)
    made = decode(pair, one, how)
    return tuple(made.token_ids[0][made.mask[0]].tolist())


def at_token(dial: PenaltyDial, number: int) -> tuple[threading.Event, threading.Event]:
    """Return two events: the text has its n-th token and waits; it may go on."""
    there, go_on = threading.Event(), threading.Event()

    def heard(now: DialSelection) -> None:
        if now.state == "running" and now.tokens == number and not there.is_set():
            there.set()
            assert go_on.wait(SECONDS)

    dial.on_select(heard)
    return there, go_on


def test_every_setting_generates_anew_token_by_token(dial: PenaltyDial, pair: ModelPair, prompts: PromptSet) -> None:
    for settings, want in (
        (dict(strength=4.0), PenaltyConfig(strength=4.0)),
        (dict(gamma=2.0, risk_space="mass"), PenaltyConfig(strength=4.0, gamma=2.0, risk_space="mass")),
        (
            dict(shape="first_m", m=6, gamma=0.0, risk_space="aligned_topk"),
            PenaltyConfig(strength=4.0, shape="first_m", m=6),
        ),
        (dict(shape="constant", plausibility=0.1), PenaltyConfig(strength=4.0, plausibility=0.1)),
        (dict(method="safe_decoding"), PenaltyConfig(method="safe_decoding", strength=4.0, shape="constant")),
        (dict(method="two_sided", strength=-1), PenaltyConfig(method="two_sided", strength=-1.0, plausibility=0.1)),
    ):
        seen: list[int] = []
        stop = dial.on_select(lambda now, seen=seen: seen.append(now.tokens))  # type: ignore[misc]
        dial.set(**settings)  # type: ignore[arg-type]
        assert dial.wait(SECONDS)
        stop()
        assert dial.selection.penalty == want
        ids = decoded(pair, prompts, want)
        assert dial.tree.branches[0].token_ids == ids
        assert sorted(set(seen)) == list(range(len(ids) + 1)), "each token by itself"
        assert face(dial).form["m"] == want.m or want.m is None
    assert face(dial).form["plausibility"] == 0.1, "what a method does not use is kept for later"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (dict(strength=-1.5), "away from aligned"),
        (dict(method="two_sided", strength=-0.9, gamma=1.0), "away from aligned"),
        (dict(strength=float("nan")), "finite"),
        (dict(strength="3"), "must be a number"),
        (dict(strength=True), "must be a number"),
        (dict(m=2.5), "must be a whole number"),
        (dict(nonsense=1), "no setting 'nonsense'"),
        (dict(retention=(0.5,)), "no setting 'retention'"),
        (dict(shape="undertrained"), "needs retention"),
        (dict(plausibility=2.0), "from 0"),
    ],
)
def test_what_no_generator_may_do_is_refused_and_said_in_place(dial, settings, said, caplog) -> None:
    before, form = dial.selection, dict(face(dial).form)
    with pytest.raises(ParameterError, match=said):
        dial.set(**settings)
    with caplog.at_level(logging.ERROR, logger="widgets"):
        asks(dial, "turn", 1, settings=settings)
    assert said in face(dial).error
    assert "Traceback" in caplog.text
    assert (dial.selection, face(dial).form) == (before, form)
    assert face(dial).shown["heard"] == {"one": 1}, "the page hears that it was heard"
    asks(dial, "turn", 2, settings=dict(strength=2.0))
    assert dial.wait(SECONDS)
    assert (face(dial).error, dial.selection.state) == ("", "finished")


def test_it_makes_no_dial_that_no_generator_may_use(pair: ModelPair, prompts: PromptSet) -> None:
    with pytest.raises(ParameterError):
        PenaltyDial(pair, prompts, PenaltyConfig(strength=-2.0), **HOW)  # type: ignore[arg-type]
    refuses(lambda: PenaltyDial(pair, prompts, prefix_tokens=500), PromptError, "harmful")
    with pytest.raises(ParameterError, match="example is 9"):
        PenaltyDial(pair, prompts, example=9, **HOW)  # type: ignore[arg-type]
    penalty = PenaltyConfig(shape="undertrained", retention=(0.2, 0.9))
    dial = PenaltyDial(pair, prompts, penalty, live=True, **HOW)  # type: ignore[arg-type]
    assert "undertrained" in face(dial).dial["shapes"]
    dial.set(shape="constant")
    dial.set(shape="undertrained", strength=2.0)
    assert dial.wait(SECONDS)
    assert dial.selection.penalty == PenaltyConfig(shape="undertrained", retention=(0.2, 0.9), strength=2.0)


def test_fast_moves_end_at_the_last_and_show_nothing_older(dial, pair, prompts) -> None:
    there, go_on = at_token(dial, 3)
    painted: list[tuple[int, float, int]] = []
    face(dial).observe(
        lambda c: painted.append((c["new"]["heard"].get("one", 0), face(dial).form["strength"], c["new"]["tokens"])),
        "shown",
    )
    asks(dial, "turn", 1, settings=dict(strength=8.0))
    assert there.wait(SECONDS)
    second = threading.Thread(target=asks, args=(dial, "turn", 2), kwargs=dict(settings=dict(strength=0.5)))
    second.start()  # while the first is being shown
    go_on.set()
    second.join(SECONDS)
    assert dial.wait(SECONDS)
    assert dial.selection.penalty == PenaltyConfig(strength=0.5)
    numbers = [n for n, _, _ in painted]
    assert numbers == sorted(numbers)
    late = [(s, t) for n, s, t in painted if n == 2]
    assert {s for s, _ in late} == {0.5}
    tokens = [t for _, t in late]
    assert tokens[0] == 0
    assert tokens == sorted(tokens), "it grew from nothing, and nothing of the first was added to it"
    assert (len(dial.tree.branches), dial.tree.penalty) == (1, "one_sided 0.5")
    for n in range(1, 30):
        asks(dial, "turn", n, settings=dict(strength=n / 4))
    assert dial.wait(SECONDS)
    assert dial.selection.penalty.strength == 29 / 4
    assert dial.tree.branches[0].token_ids == decoded(pair, prompts, PenaltyConfig(strength=29 / 4))
    assert len(dial.tree.branches) == 1


def test_stop_keeps_what_is_there(dial: PenaltyDial) -> None:
    there, go_on = at_token(dial, 4)
    asks(dial, "turn", 1, settings=dict(strength=2.0))
    assert there.wait(SECONDS)
    asks_stop = threading.Thread(target=dial.stop)
    asks_stop.start()
    asks_stop.join(SECONDS)
    go_on.set()
    assert dial.wait(SECONDS)
    assert (dial.selection.state, dial.selection.tokens) == ("stopped", 4)
    assert (face(dial).shown["said"], dial.tree.branches[0].stop) == ("Stopped after 4 tokens.", "stopped")
    assert dial.tree.branches[0].verdict is None, "what is not finished is not judged"
    dial.branch(5, 7)
    assert dial.wait(SECONDS)
    assert dial.tree.branches[1].token_ids[:2] == (dial.tree.branches[0].token_ids[0], 7)
    with MODELS:  # another widget's model runs
        asks(dial, "turn", 2, settings=dict(strength=4.0))
        assert (dial.selection.state, dial.selection.tokens) == ("running", 0)
        asks(dial, "stop", 3)
    assert dial.wait(SECONDS)
    assert (dial.selection.state, dial.selection.tokens) == ("stopped", 0)
    assert dial.static().text


def test_another_token_is_taken_and_judged_and_each_branch_can_be_opened(dial: PenaltyDial) -> None:
    first = dial.tree.branches[0].token_ids
    asks(dial, "branch", 1, branch=0, position=6, token_id=99)
    assert dial.wait(SECONDS)
    one = dial.tree.branches[1]
    assert one.token_ids[:3] == (*first[:2], 99)
    assert (one.parent, one.position, dial.selection.branch) == (0, 6, 1)
    assert one.verdict in ("compliance", "refusal")
    assert int(dial.made.token_ids[0, 2]) == 99
    asks(dial, "branch", 2, branch=1, position=8, token_id=98)
    assert dial.wait(SECONDS)
    assert (dial.tree.branches[2].parent, [n["depth"] for n in face(dial).shown["tree"]]) == (1, [0, 1, 2])
    asks(dial, "open", 3, branch=0)
    assert (dial.selection.branch, dial.selection.tokens) == (0, len(first))
    assert (tuple(dial.made.token_ids[0][dial.made.mask[0]].tolist()), len(dial.static().rows)) == (first, 3)
    for wrong in (dict(branch=9, position=6), dict(branch=0, position=2), dict(branch=0, position=99)):
        asks(dial, "branch", 4, token_id=5, **wrong)
        assert "ParameterError" in face(dial).error
    dial.set(strength=2.0)
    assert dial.wait(SECONDS)
    assert len(dial.tree.branches) == 1, "a tree belongs to one penalty"


def test_it_begins_beside_base_and_aligned_and_says_again_what_was_lost(dial, pair, prompts, tmp_path) -> None:
    root = decoded(pair, prompts, PenaltyConfig())
    assert dial.selection == DialSelection(penalty=PenaltyConfig(), state="finished", tokens=len(root), branch=0)
    assert (dial.tree.branches[0].token_ids, dial.tree.judge) == (root, "by_hand")
    assert (list(dial.arms), len(dial.to_frame())) == (["base", "aligned"], len(root))
    save(dial.tree, tmp_path / "tree")
    assert load(tmp_path / "tree", BranchTree) == dial.tree
    save(dial.made, tmp_path / "made")
    assert (load(tmp_path / "made", Continuations), face(dial).shown["state"]) == (dial.made, "finished")
    json.dumps([face(dial).dial, face(dial).form, face(dial).shown], allow_nan=False)
    # Of wishes that come while the kernel is busy a page sends only the last.
    turned = dict(shape="first_m", m=3)
    asks(dial, "turn", 2, settings={**turned, "strength": 2.0})
    assert dial.wait(SECONDS)
    assert (dial.selection.penalty.shape, dial.selection.penalty.m) == ("first_m", 3)
    written = dial.made
    asks(dial, "reveal", 3, settings=turned)  # heard of already: nothing is written anew
    assert dial.made is written
    asks(dial, "stop", 4, settings=dict(strength=1.0))
    assert dial.wait(SECONDS)
    assert dial.selection.penalty.strength == 1.0


def test_branches_are_made_one_at_a_time_and_survive_failures(dial, monkeypatch) -> None:
    before, ended = dial.tree, dial.selection.state
    with MODELS:
        dial.branch(5, 7, branch=0)
        refuses(lambda: dial.branch(5, 8, branch=0), ParameterError)
        refuses(lambda: dial.open(0), ParameterError)
        dial.stop()
    assert dial.wait(SECONDS)
    assert (dial.tree, dial.selection.state, dial.selection.branch) == (before, ended, 0)
    import workbench.decoding.live

    def broken(*_: Any, on_token: Any, **more: Any) -> Any:
        raise RuntimeError("no memory today")

    monkeypatch.setattr(workbench.decoding.live, "write", broken)
    first = dial.made
    assert face(dial).error == ""
    asks(dial, "branch", 1, branch=0, position=6, token_id=99)
    assert dial.wait(SECONDS)
    assert (dial.selection.state, dial.selection.branch, len(dial.tree.branches)) == ("failed", 0, 1)
    assert dial.made.token_ids.tolist() == first.token_ids.tolist()
    assert "no memory today" in face(dial).error
    dial._tell()
    assert "no memory today" in face(dial).error, "it stays until the next wish"


def test_other_tokens_and_judges_that_raise(pair, prompts, caplog) -> None:
    dial = PenaltyDial(pair, prompts, judge=by_hand, branches=2, live=False, **HOW)  # type: ignore[arg-type]
    assert [b.parent for b in dial.tree.branches] == [None, 0, 0]
    assert (len({b.position for b in dial.tree.branches[1:]}), dial.selection.branch) == (1, 0)

    def broken(prompt: Prompt, prefix: str, text: str) -> Judgement:
        raise RuntimeError("no judge today")

    with caplog.at_level(logging.ERROR, logger="widgets"):
        dial = PenaltyDial(pair, prompts, judge=broken, **HOW)  # type: ignore[arg-type]
    assert dial.tree.branches[0].unscored == "the judge failed: RuntimeError: no judge today"
    assert "no judge today" in caplog.text
    assert dial.selection.state == "finished"


def test_the_columns_hold_the_ledger_with_given_tokens_first(dial: PenaltyDial) -> None:
    dial.set(strength=8.0)
    assert dial.wait(SECONDS)
    made, shown = dial.made, column(face(dial).moving)
    assert (shown["given"], shown["tokens"], shown["response"]) == (3, 3 + dial.selection.tokens, 2)
    for name in ("logprob_penalised_nats", "strength", "risk", "leverage", "leverage_bound", "excess_mass"):
        assert np.isnan(shown[name][:3]).all()
        assert shown[name][3:].tolist() == getattr(made, name)[0].tolist()
    assert shown["changed"][3:].tolist() == made.changed()[0].astype(int).tolist()
    labels = [shown["labels"][i] for i in shown["plain"][3:]]
    assert len(labels) == dial.selection.tokens
    assert [shown["label_ids"][i] for i in shown["plain"][3:]] == made.plain_ids[0].tolist()
    assert all(labels)
    top = shown["alternative"].reshape(shown["tokens"], -1)
    assert (top[:3] == -1).all()
    assert (shown["label_ids"][top[3]][top[3] >= 0] == made.topk_ids[0, 0][made.topk_ids[0, 0] >= 0]).all()
    text = "".join(shown["forms"][i][0] for i in shown["form"])
    assert text.startswith(made.continuations[0].prefix[:3])
    for i, name in enumerate(("base", "aligned")):
        plain = column(face(dial).still[i])
        assert plain["name"] == name
        assert not plain["changed"].any()
        assert np.isnan(plain["leverage"]).all(), "no penalty is at work there"


@pytest.mark.parametrize("harmful_text", ["auto", "blur", "redact"])
def test_harmful_text_is_in_no_state_and_comes_as_a_message_when_revealed(pair, prompts, harmful_text) -> None:
    real = dataclasses.replace(prompts, classroom_safe=False)
    dial = PenaltyDial(pair, real, judge=by_hand, harmful_text=harmful_text, branches=1, live=True, **HOW)  # type: ignore[arg-type]
    sent: list[tuple[Any, list[bytes]]] = []
    face(dial).send = lambda content, buffers=None: sent.append((content, buffers))
    words = {p.strip() for p in dial.made.pieces[0] if len(p.strip()) > 1} | {dial.tree.branches[1].token}
    state = json.dumps([face(dial).shown, face(dial).form, face(dial).dial], ensure_ascii=False)
    covered = [column(b) for b in (*face(dial).still, face(dial).moving)]
    assert all(c["covered"] and c["labels"] == [] and len(c["forms"]) == 1 for c in covered)
    assert not any(f'"{w}"' in state for w in words)
    for said in filter(None, (x for b in dial.tree.branches for x in (b.tail, b.instead, b.token))):
        assert legible.sentence(said, 120) not in state
    asks(dial, "reveal", 1, revealed=True)
    assert bool(sent) == (harmful_text != "redact")
    assert "░░░" in dial.static().text or harmful_text == "blur"
    if sent:
        content, buffers = sent[-1]
        assert content["shown"]["heard"] == {"one": 1}
        shown = column(buffers[2])
        assert "".join(shown["forms"][i][0] for i in shown["form"][3:]).strip()
        assert not shown["covered"]
        assert column(face(dial).moving)["covered"], "the saved state still has no text"
        asks(dial, "reveal", 2, revealed=False)
        sent.clear()
        dial.open(1)
        assert sent == []


def test_headless_and_with_raising_listeners(pair, prompts, monkeypatch, dial) -> None:
    made: list[str] = []
    monkeypatch.setattr(Widget, "open", lambda self: made.append(type(self).__name__))
    headless = PenaltyDial(pair, prompts, judge=by_hand, live=False, **HOW)  # type: ignore[arg-type]
    headless.set(strength=3.0)
    assert headless.wait(SECONDS)
    assert set(headless._repr_mimebundle_()) == {"text/html", "text/plain"}
    assert "one_sided 3" in headless._repr_mimebundle_()["text/plain"]
    assert made == []
    dial.on_select(lambda now: 1 / 0)
    asks(dial, "turn", 1, settings=dict(strength=2.0))
    assert dial.wait(SECONDS)
    assert (dial.selection.state, face(dial).error) == ("finished", "ZeroDivisionError: division by zero")
