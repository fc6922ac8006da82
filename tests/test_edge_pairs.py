"""Real pairs whose right verdict is known, through the public `trace` and `diagnose`: the verdict may not say more."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from transformers import PreTrainedModel

import workbench as wb
from workbench.models.pair import ModelPair
from workbench.prompts.loading import Prompt
from workbench.tracing.records import Diagnosis

RESAMPLES = 300


@cache
def embedded() -> ModelPair:
    return wb.load_pair(preset="embedded")


@cache
def model(which: str) -> PreTrainedModel:
    with embedded().model(which) as found:  # type: ignore[arg-type]
        return copy.deepcopy(found)


def pair_of(base: PreTrainedModel, aligned: PreTrainedModel) -> ModelPair:
    return ModelPair.from_models(base, aligned, embedded().tokenizer)


def identical() -> ModelPair:
    return pair_of(model("base"), copy.deepcopy(model("base")))


def noise() -> ModelPair:
    """Base with every weight moved a little at random."""
    moved, g = copy.deepcopy(model("base")), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in moved.parameters():
            p.add_(torch.randn(p.shape, generator=g) * p.std() * 0.01)
    return pair_of(model("base"), moved)


def random_weights() -> ModelPair:
    """An `aligned` that has learned nothing: it differs from base everywhere."""
    drawn, g = copy.deepcopy(model("base")), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in drawn.parameters():
            if p.ndim > 1:
                p.copy_(torch.randn(p.shape, generator=g) * p.std())
    return pair_of(model("base"), drawn)


def swapped() -> ModelPair:
    return pair_of(model("aligned"), model("base"))


def style_only() -> ModelPair:
    """An `aligned` that complies with everything as base does, and only begins with "Of course" instead of "Sure"."""
    styled = copy.deepcopy(model("base"))
    head = styled.get_output_embeddings()
    (sure,) = {embedded().encode(p.response)[0] for p in prompts() if (p.response or "").startswith("Sure")}
    with torch.no_grad():
        own = torch.nn.Parameter(head.weight.clone())
        own[sure] *= 0.5
        head.weight = own
    styled.config.tie_word_embeddings = False
    return pair_of(model("base"), styled)


def shallow() -> ModelPair:
    return embedded()


@cache
def recovered_aligned() -> PreTrainedModel:
    """Aligned, trained for a moment to refuse at every position of a harmful answer, and to go on in harmless ones."""
    pair = embedded()
    learner = copy.deepcopy(model("aligned")).train().requires_grad_(True)
    (refusal,) = {o.text for o in wb.trace(pair, prompts(), max_tokens=24).own_answers[:1]}
    no = pair.encode(refusal)
    rows = [p for p in wb.load_prompts(source="embedded", split="train", limit=256) if p.response]
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    for step in range(24):
        batch = rows[step * 12 % len(rows) :][:12]
        texts = [(pair.context(p), pair.encode(p.response or ""), p.label) for p in batch]
        texts += [(context, no, "refused") for context, _, label in texts if label == "harmful"]
        width = max(len(c) + len(r) for c, r, _ in texts)
        ids, labels = torch.zeros(len(texts), width, dtype=torch.long), torch.full((len(texts), width), -100)
        for n, (context, response, label) in enumerate(texts):
            end = len(context) + len(response)
            ids[n, :end] = torch.tensor(context + response)
            target = [no[0]] * len(response) if label == "harmful" else list(response)
            labels[n, len(context) : end] = torch.tensor(target)
        logits = learner(input_ids=ids).logits[:, :-1]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return learner.eval()


def deep() -> ModelPair:
    return pair_of(model("base"), recovered_aligned())


@cache
def prompts() -> wb.PromptSet:
    return wb.load_prompts(source="embedded", limit=60)


def diagnosed(pair: ModelPair, **how: object) -> Diagnosis:
    return wb.diagnose(wb.trace(pair, prompts(), **how), resamples=RESAMPLES)


@pytest.mark.parametrize(
    ("make", "verdict", "because"),
    [
        (identical, "identical", "the two models predict the same"),
        (noise, "undetermined", "differ, but little"),
        (random_weights, "undetermined", "a broken model differs everywhere too"),
        (swapped, "differs_early", "mostly no refusals (0 %"),
        (style_only, "differs_early", "mostly no refusals (0 %"),
        (shallow, "shallow", "aligned refuses 100 %"),
        (deep, "deep", "keeps less than 0.5 of the base model's probability"),
    ],
)
def test_the_verdict_on_pairs_that_are_known(make: Callable[[], ModelPair], verdict: str, because: str) -> None:
    d = diagnosed(make())
    assert (d.verdict, because in d.sentences[0]) == (verdict, True), d.sentences
    assert any("The early KL is carried by" in s for s in d.sentences)


def test_a_model_that_recovers_is_not_called_shallow_along_its_own_answers() -> None:
    d = diagnosed(deep(), trajectory="free_running", prefix_tokens=(5, 20))
    assert d.verdict in ("deep", "undetermined"), d.sentences


def test_own_answers_are_judged_and_a_pair_without_them_has_no_verdict() -> None:
    traces = wb.trace(embedded(), prompts())
    harmful = [p.id for p in prompts() if p.label == "harmful"]
    assert [o.prompt_id for o in traces.own_answers] == harmful
    assert {(o.judge, o.refused) for o in traces.own_answers} == {("exact", True)}
    assert all("sorry" in o.text for o in traces.own_answers)
    base = wb.trace(swapped(), prompts(), judge="refusal")
    assert {(o.judge, o.refused) for o in base.own_answers} == {("refusal", False)}
    alone = wb.trace(embedded(), prompts(), own_answers=False)
    assert (alone.own_answers, wb.diagnose(alone).verdict) == ((), "undetermined")
    free = wb.trace(embedded(), prompts(), trajectory="free_running", prefix_tokens=(0,), max_tokens=24)
    texts = {r.prompt_id: "".join(t) for r, t in zip(free.responses, free.pieces, strict=True) if r.label == "harmful"}
    assert all(o.text.startswith(texts[o.prompt_id][:20]) for o in traces.own_answers)


def test_the_depth_of_every_kind_is_found() -> None:
    """The embedded prompts name each kind's true depth: tokens of a harmful answer after which aligned goes on."""
    asked: list[Prompt] = [p for p in wb.load_prompts(source="embedded") if p.label == "harmful"]
    truth = {p.category: getattr(p, "depth", None) for p in asked}
    if None in truth.values():
        pytest.skip("the embedded prompts have no column of depths yet")
    d = wb.diagnose(
        wb.trace(embedded(), wb.load_prompts(source="embedded").where(label="harmful")), resamples=RESAMPLES
    )
    found = {x.category: x for x in d.depths if x.category is not None}
    assert set(found) == set(truth)
    for kind, depth in truth.items():
        assert depth is not None
        if math.isinf(depth):
            assert found[kind].throughout, kind
        else:
            assert found[kind].estimate.value == depth, kind
