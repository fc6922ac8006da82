from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from workbench.core.errors import ContextOverflow
from workbench.core.passages import Passage, Sample, check_fits, check_room

PASSAGE = Passage(name="p", aligned=(1, 2), base=(1, 2, 3), response=(7, 8), given=1, label="harmful")


def test_a_passage_is_a_key_with_a_context_for_each_model() -> None:
    assert PASSAGE.context("aligned") == (1, 2)
    assert PASSAGE.context("base") == (1, 2, 3)
    assert PASSAGE.whole("aligned") == (1, 2, 7, 8)
    assert PASSAGE.whole("base") == (1, 2, 3, 7, 8)
    assert replace(PASSAGE, base=None).whole("base") == PASSAGE.whole("aligned")
    assert (PASSAGE.length, replace(PASSAGE, base=None).length, replace(PASSAGE, base=(1,)).length) == (5, 4, 4)
    assert {PASSAGE: 1}[replace(PASSAGE)] == 1
    with pytest.raises(FrozenInstanceError):
        PASSAGE.given = 2  # type: ignore[misc]


def test_room_is_checked_to_the_token_and_samples_need_their_parts() -> None:
    check_room([PASSAGE], 5)
    check_room([PASSAGE], 8, more=3)
    check_fits("prompt", 5, 5)
    with pytest.raises(ContextOverflow, match=r"'p'.*5.*4"):
        check_room([replace(PASSAGE, base=None), PASSAGE], 4)
    with pytest.raises(ContextOverflow, match=r"5.*3.*7"):
        check_room([PASSAGE], 7, more=3)
    sample = Sample(id="a", request="How?", text="So.")
    assert (sample.prefix, sample.label, sample.category) == ("", "unlabelled", None)
    with pytest.raises(TypeError):
        Sample("a", "How?", "So.")  # type: ignore[misc]
