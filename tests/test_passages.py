from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from workbench.core.errors import ContextOverflow
from workbench.core.passages import Passage, Sample, check_fits, check_room

PASSAGE = Passage(name="p", aligned=(1, 2), base=(1, 2, 3), response=(7, 8), given=1, label="harmful")


def test_each_model_reads_its_own_context_and_the_same_response() -> None:
    assert PASSAGE.context("aligned") == (1, 2)
    assert PASSAGE.context("base") == (1, 2, 3)
    assert PASSAGE.whole("aligned") == (1, 2, 7, 8)
    assert PASSAGE.whole("base") == (1, 2, 3, 7, 8)
    assert replace(PASSAGE, base=None).whole("base") == PASSAGE.whole("aligned")


def test_length_is_that_of_the_longer_context() -> None:
    assert (PASSAGE.length, replace(PASSAGE, base=None).length, replace(PASSAGE, base=(1,)).length) == (5, 4, 4)


def test_a_passage_is_a_key_and_does_not_change() -> None:
    assert {PASSAGE: 1}[replace(PASSAGE)] == 1
    with pytest.raises(FrozenInstanceError):
        PASSAGE.given = 2  # type: ignore[misc]


def test_room_is_checked_to_the_token() -> None:
    check_room([PASSAGE], 5)
    check_room([PASSAGE], 8, more=3)
    check_fits("prompt", 5, 5)
    with pytest.raises(ContextOverflow, match=r"'p'.*5.*4"):
        check_room([replace(PASSAGE, base=None), PASSAGE], 4)
    with pytest.raises(ContextOverflow, match=r"5.*3.*7"):
        check_room([PASSAGE], 7, more=3)


def test_a_sample_needs_an_id_a_request_and_a_text() -> None:
    sample = Sample(id="a", request="How?", text="So.")
    assert (sample.prefix, sample.label, sample.category) == ("", "unlabelled", None)
    with pytest.raises(TypeError):
        Sample("a", "How?", "So.")  # type: ignore[misc]
