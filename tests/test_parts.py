"""The generated parts of README and docs: answers of the shipped models, tables of cards, runs and simulations."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from docs.making import arms
from docs.making.parts import with_part


def test_every_generated_part_is_what_its_source_says(root: Path) -> None:
    # in a process of its own: the planner computes with shapes in place of models, which the type checks refuse
    script = (sys.executable, "-m", "docs.making.parts")
    done = subprocess.run(script, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "", "these pages are not what they are computed from: python -m docs.making.parts --write"


def test_a_part_stands_between_its_marks_once() -> None:
    page = "before <!-- x -->old<!-- end of x --> after"
    assert with_part(page, "x", "new") == "before <!-- x -->\n\nnew\n\n<!-- end of x --> after"
    with pytest.raises(AssertionError, match="0 parts"):
        with_part("no mark", "x", "new")


def test_the_arms_of_another_pair_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = json.loads(arms.NUMBERS.read_text("utf-8"))
    (tmp_path / "x.json").write_text(json.dumps({**kept, "pair": "of another training"}))
    monkeypatch.setattr(arms, "NUMBERS", tmp_path / "x.json")
    arms.numbers.cache_clear()
    assert arms.table() == "Not run yet on this version of the pair."
    arms.numbers.cache_clear()


def test_what_is_said_of_the_arms_follows_from_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    # arm -> attack success, refusals, gibberish; each with an interval of .04 to both sides
    shares = {
        "aligned": (0.8, 0.2, 0),
        "a": (0.1, 0, 0.5),
        "b": (0.1, 0.95, 0),
        "c": (0.78, 0.2, 0),
        "d": (0.1, 0.92, 0),
    }
    rows = []
    for arm, (asr, refusal, gibberish) in shares.items():
        for metric, value in (("asr", asr), ("refusal", refusal), ("gibberish", gibberish)):
            for k in arms.GIVEN:
                place = {"name": metric, "arm": arm, "attack": "prefill", "given": k, "n": 9}
                rows.append({**place, "value": value, "low": value - 0.04, "high": value + 0.04})
    monkeypatch.setattr(arms, "numbers", lambda: {"rows": rows})
    below, babble, refuse, alike = (line.split(": ")[1] for line in arms.said(list(shares)))
    assert (below, babble, refuse, alike) == ("`a`, `b` and `d`.", "`a`.", "`b`.", "`c`.")
