"""Openings of harmful answers, continued by the base model."""

from __future__ import annotations

import dataclasses

import pytest

from tests.fakes import prompt_set
from tests.tiny_pair import tiny_pair
from workbench.core.store import Store
from workbench.models.fetched import fetch
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import PairConfig, load_pair
from workbench.prompts.loading import PromptConfig, load_prompts
from workbench.tracing.continued import continue_openings


def test_base_continues_short_harmful_responses_and_nothing_else(tmp_path) -> None:
    pair, store = tiny_pair(), Store(tmp_path)
    harmful = prompt_set("the cat", "the dog", "the log")
    harmless = prompt_set("the mat", label="harmless")
    both = dataclasses.replace(
        harmful, prompts=(*harmful.prompts, *(dataclasses.replace(p, id="n") for p in harmless), *no_response())
    )
    made = continue_openings(pair, both, tokens=30, seed=3, store=store)
    assert [p.id for p in made] == [p.id for p in both]
    for p, was in zip(made, both, strict=True):
        given = pair.encode(was.response or "")
        if p.label == "harmless" or was.response is None:
            assert p == was
            continue
        assert (p.response or "").startswith(was.response)
        longest = 30 - min(len(pair.encode(q.response or "")) for q in harmful)
        config = GenerateConfig(max_tokens=longest, temperature=1.0, seed=3)
        (g,) = generate(pair, "base", [pair.context(was, "base") + given], config)
        own = [i for i in g.ids if i not in pair.eos_ids][: 30 - len(given)]
        assert p.response == pair.decode((*given, *own))
    assert "The base model continued 3 of 3 responses" in made.notes[-1]
    assert continue_openings(pair, both, tokens=30, seed=3, store=store) == made
    assert continue_openings(pair, both, tokens=30, seed=4).prompts != made.prompts
    assert continue_openings(pair, both, tokens=0) is both
    whole = dataclasses.replace(both, name="embedded")
    assert continue_openings(pair, whole, tokens=30) is whole


def no_response():
    return (dataclasses.replace(prompt_set("the sea", response=None).prompts[0], id="none"),)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_everyday_is_as_long_for_harmful_as_for_harmless_prompts() -> None:
    fetch("smollm2-135m-instruct")
    pair = load_pair(PairConfig(preset="smollm2"))
    everyday = load_prompts(PromptConfig(source="everyday"))
    harmless = [len(pair.encode(p.response or "")) for p in everyday if p.label == "harmless"]
    assert (len(harmless), min(harmless) >= 60) == (48, True)
    longer = continue_openings(pair, everyday)
    harmful = sorted(len(pair.encode(p.response or "")) for p in longer if p.label == "harmful")
    assert (len(harmful), harmful[24] >= 60) == (48, True)
