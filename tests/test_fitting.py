"""Prompts that are longer than the context: dropped, cut or refused, by counts of the real tokens."""

from __future__ import annotations

import dataclasses

import pytest

from tests.errors import refuses
from tests.fakes import prompt_set
from tests.tiny_pair import tiny_pair
from workbench.core.errors import ContextOverflow, PromptError
from workbench.models.fitting import fit_prompts
from workbench.models.pair import ModelPair


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return tiny_pair()


def test_a_prompt_that_leaves_no_room_is_dropped_and_reported(pair: ModelPair) -> None:
    prompts = prompt_set("the cat", "word " * pair.context_length, "the dog")
    found = fit_prompts(pair, prompts, max_tokens=8)
    assert [p.id for p in found] == ["p0", "p2"]
    (dropped,) = found.dropped
    assert (dropped.line, "'p1'" in dropped.reason) == (2, True)
    assert "1 of 3 prompts are dropped" in found.report()
    refuses(lambda: fit_prompts(pair, prompts, max_tokens=8, on_long="error"), ContextOverflow, "'p1'")
    refuses(lambda: fit_prompts(pair, prompt_set("z" * 9999), max_tokens=8), PromptError, "'p0'")


def test_the_room_is_exact_and_counts_template_system_prompt_and_prefix(pair: ModelPair) -> None:
    prompts = prompt_set("the cat")
    (p,) = prompts
    room = pair.context_length - len(pair.context(p))
    assert fit_prompts(pair, prompts, max_tokens=room).prompts == prompts.prompts
    refuses(lambda: fit_prompts(pair, prompts, max_tokens=room + 1), PromptError)
    assert len(fit_prompts(pair, prompts, max_tokens=room - 7, prefix_tokens=["0", "7"])) == 1
    refuses(lambda: fit_prompts(pair, prompts, max_tokens=room - 6, prefix_tokens=["0", "7"]), PromptError)
    full = len(pair.encode(p.response or ""))
    assert len(fit_prompts(pair, prompts, max_tokens=room - full, prefix_tokens=["full"])) == 1
    refuses(lambda: fit_prompts(pair, prompts, max_tokens=room - full + 1, prefix_tokens=["full"]), PromptError)
    refuses(lambda: fit_prompts(pair, prompts, max_tokens=room, system_prompt="Be brief."), PromptError)


def test_a_cut_prompt_fits_and_keeps_its_beginning_and_response(pair: ModelPair) -> None:
    long = "ä word " * pair.context_length
    prompts = prompt_set("the cat", long)
    found = fit_prompts(pair, prompts, max_tokens=8, on_long="cut")
    whole, cut = found
    assert whole == prompts.prompts[0]
    assert long.startswith(cut.prompt)
    assert cut.response == prompts.prompts[1].response
    assert pair.context_length - 4 <= len(pair.context(cut)) + 8 <= pair.context_length
    assert "1 of 2 prompts are cut" in found.report()
    turns = (("user", "z" * 9 * pair.context_length), ("assistant", "b"))
    earlier = dataclasses.replace(prompts.prompts[0], messages=turns)
    among = dataclasses.replace(prompts, prompts=(prompts.prompts[0], earlier))
    assert len(fit_prompts(pair, among, max_tokens=8, on_long="cut")) == 1, "its own text alone cannot be cut enough"
