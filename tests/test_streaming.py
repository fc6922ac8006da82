"""The live stream against `trace`, `score` and `generate`; cancelling it; what it refuses."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.errors import refuses
from tests.fakes import counting_model
from tests.tiny_pair import (
    ARCHITECTURES,
    THINKING_TEMPLATE,
    sentencepiece_like_tokenizer,
    tiny_adapter,
    tiny_model,
    tiny_pair,
    tiny_tokenizer,
)
from workbench.core.errors import ContextOverflow, NonFiniteLogits, PairError, ParameterError, PromptError
from workbench.core.passages import Passage
from workbench.core.quantities import QUANTITIES
from workbench.core.records import load, save
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair
from workbench.prompts.loading import Prompt, PromptSet
from workbench.tracing.records import TraceSet
from workbench.tracing.scoring import ScoreConfig, score
from workbench.tracing.streaming import PREFILL_TOKENS, Growing, StreamConfig, stream
from workbench.tracing.traces import TraceConfig, trace

PROMPT = Prompt(id="typed", prompt="Tell me a story about the sea", label="unlabelled", response=" Sure, here is")
FLOATS = [name for name in QUANTITIES if name not in ("base_favored_count", "rank_base", "rank_aligned")]
TOPK = ("topk_logprob_base_nats", "topk_logprob_aligned_nats")


def same(a: TraceSet, b: TraceSet, *, atol: float = 3e-5) -> None:
    """Compare two TraceSets along the same tokens: one row at a time rounds differently from a block."""
    for name in ("token_ids", "mask", "partial", "special", "rank_base", "rank_aligned", "topk_ids"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert a.pieces == b.pieces
    for name in (*FLOATS, *TOPK):
        assert np.allclose(getattr(a, name), getattr(b, name), atol=atol, rtol=1e-4, equal_nan=True), name
    assert np.abs(a.base_favored_count - b.base_favored_count).max() <= 1  # equal probabilities may tip over
    assert np.array_equal(a.detected_token, b.detected_token)
    assert np.allclose(a.detected_mass, b.detected_mass, atol=1e-4)


def adapter_pair(folder: Path) -> ModelPair:
    """Make a pair that is one model with a tiny adapter off and on."""
    base = tiny_model("llama", 320, seed=1)
    made = ModelPair.from_models(base, base, tiny_tokenizer())
    return made.with_aligned(str(tiny_adapter(folder, base, scale=0.2)))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("prefix", [None, " Sure, here is"])
def test_greedy_by_aligned_is_what_trace_gives(arch: Any, prefix: str | None) -> None:
    pair = tiny_pair(arch, shift=0.1, head_rows=(352, 384))
    prompt = Prompt(id="typed", prompt=PROMPT.prompt, label="unlabelled", response=prefix)
    k = len(pair.encode(prefix)) if prefix else 0
    made = stream(pair, prompt, StreamConfig(max_tokens=20, top_k=20))
    prompts = PromptSet(name="typed", source="one prompt", prompts=(prompt,))
    config = TraceConfig(trajectory="free_running", prefix_tokens=(k,), max_tokens=20, top_k=20)
    want = trace(pair, prompts, config)
    same(made, want)
    assert made.responses == want.responses


@pytest.mark.parametrize("mode", ["shared", "own", "plain"])
@pytest.mark.parametrize("who", ["base", "aligned"])
def test_every_template_mode_and_either_model(mode: Any, who: Any) -> None:
    base_tokenizer = tiny_tokenizer(chat=False)
    pair = tiny_pair("qwen3", shift=0.1)
    with pair.model("base") as base, pair.model("aligned") as aligned:
        pair = ModelPair.from_models(base, aligned, pair.tokenizer, base_tokenizer=base_tokenizer, template_mode=mode)
    made = stream(pair, PROMPT, StreamConfig(continued_by=who, max_tokens=16, system_prompt="Be kind."))
    base_context, aligned_context = (pair.context(PROMPT, w, system_prompt="Be kind.") for w in ("base", "aligned"))
    assert (base_context == aligned_context) == (mode != "own")
    ids = tuple(made.token_ids[0].tolist())
    item = Passage(name="same tokens", base=base_context, aligned=aligned_context, response=ids)
    (want,) = score(pair, [item], ScoreConfig(base_floor=0.001))
    for n, name in enumerate(QUANTITIES):
        assert np.allclose(getattr(made, name)[0], want.scalars[n], atol=3e-5, rtol=1e-4), name
    assert np.array_equal(made.topk_ids[0], want.topk_ids)
    k = made.responses[0].prefix_tokens
    context = pair.context(PROMPT, who, system_prompt="Be kind.") + ids[:k]
    assert ids[k:] == generate(pair, who, [context], GenerateConfig(max_tokens=16 - k))[0].ids
    assert (made.responses[0].continued_by, made.template_mode) == (who, mode)


def test_a_sampled_stream_draws_what_generate_draws() -> None:
    pair = tiny_pair(shift=0.1)
    prompt = Prompt(id="typed", prompt="Tell me", label="unlabelled")
    made = [
        stream(pair, prompt, StreamConfig(max_tokens=24, temperature=0.9, seed=seed, continued_by="base"))
        for seed in (0, 0, 1)
    ]
    config = GenerateConfig(max_tokens=24, temperature=0.9, seed=0)
    (want,) = generate(pair, "base", [pair.context(prompt, "base")], config)
    assert tuple(made[0].token_ids[0].tolist()) == want.ids
    assert np.array_equal(made[0].token_ids, made[1].token_ids)
    assert not np.array_equal(made[0].token_ids, made[2].token_ids)
    assert made[0].responses[0].temperature == 0.9


def test_adapters_and_long_contexts_give_what_trace_gives(tmp_path: Path) -> None:
    pair = adapter_pair(tmp_path / "adapter")
    made = stream(pair, PROMPT, StreamConfig(max_tokens=16))
    k = made.responses[0].prefix_tokens
    prompts = PromptSet(name="typed", source="one prompt", prompts=(PROMPT,))
    config = TraceConfig(trajectory="free_running", prefix_tokens=(k,), max_tokens=16)
    same(made, trace(pair, prompts, config))
    assert float(np.nanmax(made.kl_aligned_base_nats)) > 1e-3, "the adapter does something"
    pair = tiny_pair("gemma3", shift=0.1)  # with a sliding window that is shorter than a block
    prompt = Prompt(id="typed", prompt="z" * 2 * PREFILL_TOKENS, label="unlabelled", response=" the" * 20)
    assert len(pair.context(prompt)) > 2 * PREFILL_TOKENS
    made = stream(pair, prompt, StreamConfig(max_tokens=30))
    prompts = PromptSet(name="typed", source="one prompt", prompts=(prompt,))
    k = made.responses[0].prefix_tokens
    same(made, trace(pair, prompts, TraceConfig(trajectory="free_running", prefix_tokens=(k,), max_tokens=30)))


def test_each_token_is_told_as_it_comes_with_all_its_numbers() -> None:
    pair = tiny_pair(tokenizer=sentencepiece_like_tokenizer(), shift=0.1)
    seen: list[TraceSet] = []
    whole = stream(pair, PROMPT, StreamConfig(max_tokens=12), on_token=lambda g: seen.append(g.traces()))
    k = whole.responses[0].prefix_tokens
    assert [int(t.lengths()[0]) for t in seen] == list(range(k, int(whole.lengths()[0]) + 1))
    for part in seen:
        size = int(part.lengths()[0])
        for name in (*QUANTITIES, "token_ids", "topk_ids"):
            assert np.array_equal(getattr(part, name)[0], getattr(whole, name)[0, :size], equal_nan=True), name
        assert {int(i) for i in part.topk_ids.ravel() if i >= 0} <= set(part.label_of())
    assert {t.responses[0].stop for t in seen} == {"stopped"}, "what is not finished says so"
    assert whole.responses[0].stop in ("end", "length")


def test_stopping_in_the_middle_gives_a_shorter_record_and_leaves_no_trace(tmp_path: Path) -> None:
    pair = adapter_pair(tmp_path / "adapter")
    config = StreamConfig(max_tokens=20)
    whole = stream(pair, PROMPT, config)
    assert int(whole.lengths()[0]) > 12
    grown: list[Growing] = []
    part = stream(pair, PROMPT, config, on_token=grown.append, cancelled=lambda: len(grown) >= 4)
    size = int(part.lengths()[0])
    assert (size, part.responses[0].stop) == (grown[0].start.given + 3, "stopped")
    assert np.array_equal(part.kl_aligned_base_nats[0], whole.kl_aligned_base_nats[0, :size])
    save(part, tmp_path / "record")
    assert load(tmp_path / "record", TraceSet) == part
    again = stream(pair, PROMPT, config)
    assert np.array_equal(again.kl_aligned_base_nats, whole.kl_aligned_base_nats), "caches and adapters are clean"
    assert np.array_equal(again.token_ids, whole.token_ids)


def test_a_stream_beside_other_work_on_the_same_adapter_pair_gives_the_same(tmp_path: Path) -> None:
    pair = adapter_pair(tmp_path / "adapter")
    config = StreamConfig(max_tokens=40)
    alone = stream(pair, PROMPT, config)
    going, stopped = threading.Event(), threading.Event()

    def others() -> None:  # a cell that runs while a widget's thread streams
        while not stopped.is_set():
            generate(pair, "base", [(5, 6, 7)], GenerateConfig(max_tokens=3))
            going.set()

    beside = threading.Thread(target=others)
    beside.start()
    try:
        assert going.wait(60)
        together = stream(pair, PROMPT, config)
    finally:
        stopped.set()
        beside.join()
    assert np.array_equal(together.token_ids, alone.token_ids)
    assert np.array_equal(together.kl_aligned_base_nats, alone.kl_aligned_base_nats)


def test_counting_has_no_off_by_one_and_ends_with_the_turn() -> None:
    made = stream(tiny_pair(), PROMPT, cancelled=lambda: True)
    assert made.responses == ()
    assert made.token_ids.shape == (0, 0)
    assert made.warnings == ("It was stopped before the first token.",)
    pair = ModelPair.from_models(counting_model(320), counting_model(320), tiny_tokenizer())
    made = stream(pair, PROMPT, StreamConfig(max_tokens=10))
    k = made.responses[0].prefix_tokens
    assert (made.logprob_aligned_nats[0, k:] == 0).all()
    assert (made.rank_base[0, k:] == 1).all()
    assert (made.retention == 1).all()
    last = pair.decode((318,))  # counting goes on with 319, 0 and 1, the end
    made = stream(pair, Prompt(id="typed", prompt="count", label="unlabelled", response=last))
    assert (made.token_ids[0].tolist(), made.responses[0].stop) == ([318, 319, 0, 1], "end")
    assert made.special[0, -1]


@pytest.mark.parametrize(("broken", "at"), [("base", 3), ("aligned", 3)])
def test_nan_names_model_and_token(broken: str, at: int) -> None:
    bad = counting_model(320)
    with torch.no_grad():
        bad.model.embed_tokens.weight[60 + at - 1] = torch.nan
    models = {"base": counting_model(320), "aligned": counting_model(320), broken: bad}
    pair = ModelPair.from_models(models["base"], models["aligned"], tiny_tokenizer())
    prompt = Prompt(id="typed", prompt="count", label="unlabelled", response=pair.decode((60,)))
    told: list[int] = []
    with pytest.raises(NonFiniteLogits, match=rf"{broken}.*token {at}"):
        stream(pair, prompt, on_token=lambda g: told.append(len(g.ids)))
    assert told[-1] == at, "what was there before is told"


def test_what_cannot_be_streamed_is_refused_and_nan_named() -> None:
    pair = tiny_pair()
    for text in ("", "  \n"):
        with pytest.raises(PromptError, match="empty"):
            stream(pair, Prompt(id="typed", prompt=text, label="unlabelled"))
    refuses(lambda: stream(pair, PROMPT, StreamConfig(max_tokens=300)), ContextOverflow, "256")
    refuses(lambda: stream(pair, Prompt(id="typed", prompt="z" * 400, label="unlabelled")), PairError, "256")
    with pytest.raises(ParameterError, match=r"prefix has \d+ tokens, and max_tokens=3"):
        stream(pair, PROMPT, StreamConfig(max_tokens=3))
    thinking = tiny_pair(tokenizer=tiny_tokenizer(template=THINKING_TEMPLATE), thinking=True)
    refuses(lambda: stream(thinking, PROMPT), ParameterError, "thinking=False")
    for field, value in [("continued_by", "student"), ("max_tokens", 0), ("temperature", -1.0), ("shown_k", 0)]:
        config = StreamConfig()
        object.__setattr__(config, field, value)  # past the type checker that only tests have
        with pytest.raises(ParameterError, match=field):
            config.__post_init__()
    bad = counting_model(320)
    with torch.no_grad():
        bad.lm_head.weight[:, :] = 3e38
    pair = ModelPair.from_models(counting_model(320), bad, tiny_tokenizer())
    refuses(lambda: stream(pair, PROMPT), NonFiniteLogits, "position 1", "'typed'")
