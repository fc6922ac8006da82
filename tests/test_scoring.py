"""The scoring engine against the naive way, over architectures, layouts and blocks; its memory; its errors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.errors import refuses
from tests.fakes import LiveBytes, counting_model
from tests.tiny_pair import ARCHITECTURES, Arch, tiny_pair, tiny_tokenizer
from workbench.core.errors import NonFiniteLogits
from workbench.core.passages import Passage
from workbench.core.quantities import QUANTITIES
from workbench.core.store import Store
from workbench.models.pair import ModelPair, load_pair
from workbench.prompts.loading import load_prompts
from workbench.tracing import scoring
from workbench.tracing.metrics import BUFFERS, compare
from workbench.tracing.scoring import ScoreConfig, Scores, noise_floor, score

NAMES = list(QUANTITIES)


def items(*lengths: tuple[int, int], vocab: int = 320, seed: int = 0) -> list[Passage]:
    g = np.random.default_rng(seed)
    made = []
    for n, (context, response) in enumerate(lengths):
        c = tuple(g.integers(7, vocab, context).tolist())
        r = tuple(g.integers(7, vocab, response).tolist())
        made.append(Passage(name=f"response {n}", aligned=c, response=r))
    return made


def naive(pair: ModelPair, item: Passage, config: ScoreConfig) -> dict[str, np.ndarray]:
    """Both full logits of one response, alone and unpadded, then the same quantities."""
    logits = []
    for which, context in (("base", item.context("base")), ("aligned", item.aligned)):
        with torch.no_grad(), pair.model(which) as model:  # type: ignore[arg-type]
            full = model(torch.tensor([context + item.response])).logits[0, :, : pair.vocab].float()
        logits.append(full[len(context) - 1 : -1].clone())
    made = compare(
        logits[0], logits[1], torch.tensor(item.response),
        count_space=config.count_space, ranking=config.ranking, top_k=config.top_k, shown_k=config.shown_k,
    )  # fmt: skip
    return {n: made.scalars[n].numpy() for n in NAMES}


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("head_rows", [None, (352, 384)])
def test_equals_the_naive_way_on_every_architecture(arch: str, head_rows: tuple[int, int] | None) -> None:
    pair = tiny_pair(arch, head_rows=head_rows)  # type: ignore[arg-type]
    config = ScoreConfig(top_k=20)
    todo = items((5, 9), (12, 3), (1, 1), (30, 17))
    for item, made in zip(todo, score(pair, todo, config), strict=True):
        want = naive(pair, item, config)
        for n, name in enumerate(NAMES):
            assert np.allclose(made.scalars[n], want[name], atol=2e-5, rtol=1e-4), name


def in_dtype(pair: ModelPair, dtype: torch.dtype) -> ModelPair:
    with pair.model("base") as base, pair.model("aligned") as aligned:
        models = (copy.deepcopy(m).to(dtype) for m in (base, aligned))
    return ModelPair.from_models(*models, pair.tokenizer)


def off(made: Sequence[Scores], want: Sequence[Scores], name: str) -> np.ndarray:
    row = NAMES.index(name)
    return np.concatenate([np.abs(a.scalars[row] - b.scalars[row]) for a, b in zip(made, want, strict=True)])


@pytest.mark.parametrize("vocab", [128_256, 151_936, 262_144])
def test_half_precision_differs_by_what_its_hidden_states_carry_and_nothing_more(vocab: int) -> None:
    """The heads add nothing: float32 heads over the same half-precision states give the same numbers."""
    half = in_dtype(tiny_pair(head_rows=vocab), torch.bfloat16)
    wide, todo, config = in_dtype(half, torch.float32), items((5, 9), (12, 3), vocab=vocab), ScoreConfig()
    with torch.inference_mode():
        states = [scoring.passage_rows(half, which, todo) for which in ("base", "aligned")]  # type: ignore[arg-type]
        exact = scoring.score_rows(wide, *(s.float() for s in states), todo, config)
    made, whole = (score(pair, todo, config) for pair in (half, wide))
    for name in ("retention", "kl_aligned_base_nats"):
        assert off(made, exact, name).max() < 1e-5, name
        assert off(made, whole, name).max() < 0.05, name
    assert off(made, whole, "retention").mean() < 0.005
    assert np.nanmean(noise_floor(half, todo)) < 5e-5


@pytest.mark.slow
def test_half_precision_on_smollm2_is_as_near_as_the_docs_say() -> None:
    pair = load_pair(preset="smollm2-safe")
    weights, _, _ = pair.one_copy() or (None, (), ())
    assert weights is not None
    base, aligned = (copy.deepcopy(weights.peft) for _ in range(2))
    pair = ModelPair.from_models(base.unload(), aligned.merge_and_unload(), pair.tokenizer)  # type: ignore[union-attr]
    prompts = load_prompts(source="everyday", limit=4)
    todo = [p for p in map(pair.passage, prompts) if p.response]
    half = in_dtype(pair, torch.bfloat16)
    made, whole = (score(each, todo, ScoreConfig()) for each in (half, in_dtype(half, torch.float32)))
    assert off(made, whole, "retention").mean() < 0.02
    assert off(made, whole, "kl_aligned_base_nats").mean() < 0.04


@pytest.mark.parametrize("arch", [a for a in ARCHITECTURES if a != "gemma3"])
def test_padded_batches_need_no_mask_and_equal_masked_ones(arch: Arch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer attends on torch's causal path; gemma3 is left out, since a sliding window is a mask."""
    pair, todo = tiny_pair(arch), items((5, 9), (12, 3), (30, 17))
    own, seen = torch.nn.functional.scaled_dot_product_attention, set()

    def attend(*args: Any, **more: Any) -> torch.Tensor:
        seen.add((more.get("attn_mask"), more.get("is_causal")))
        return own(*args, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    with torch.inference_mode():
        made = scoring.passage_rows(pair, "aligned", todo)
        assert seen == {(None, True)}
        width = max(p.length for p in todo) - 1
        rows = [(*p.whole("aligned")[:-1],) for p in todo]
        ids = torch.tensor([r + (0,) * (width - len(r)) for r in rows])
        mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
        masked = pair.hidden("aligned", ids, attention_mask=mask)
        assert len(seen) > 1
    each = [h[len(p.aligned) - 1 : len(r)] for h, p, r in zip(masked, todo, rows, strict=True)]
    assert torch.allclose(made, torch.cat(each), atol=1e-5)


def test_batches_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = tiny_pair()
    todo = items((5, 9), (12, 3), (2, 20), (30, 17), (8, 8))
    whole = score(pair, todo, ScoreConfig())
    for batch_tokens in (1, 60, 10_000):
        for a, b in zip(score(pair, todo, ScoreConfig(), batch_tokens=batch_tokens), whole, strict=True):
            assert np.allclose(a.scalars, b.scalars, atol=2e-5)
    pair = tiny_pair("qwen3")
    todo = items((5, 9), (12, 30))
    whole = score(pair, todo, ScoreConfig())
    monkeypatch.setattr(scoring, "rows_at_once", lambda _: (5, 2))
    for a, b in zip(score(pair, todo, ScoreConfig()), whole, strict=True):
        assert np.allclose(a.scalars, b.scalars, atol=1e-5)
        assert (a.topk_ids == b.topk_ids).all()
        assert (a.detected == b.detected).all()


def test_one_model_with_itself_is_zero_and_counting_has_no_off_by_one() -> None:
    one = tiny_pair()
    with one.model("base") as model:
        pair = ModelPair.from_models(model, model, one.tokenizer)
    made = score(pair, items((5, 40), (9, 12)), ScoreConfig(count_space="full"))
    for s in made:
        for name in ("kl_aligned_base_nats", "kl_base_aligned_nats", "js_nats", "excess_mass", "base_favored_count"):
            assert (s.scalars[NAMES.index(name)] == 0).all()
        assert (s.scalars[NAMES.index("retention")] == 1).all()
        assert s.detected.size == 0
    pair = ModelPair.from_models(counting_model(320), counting_model(320), tiny_tokenizer())
    up = Passage(name="up", base=(10, 11, 12), aligned=(4, 12), response=(13, 14, 15, 16))
    made = score(pair, [up], ScoreConfig())[0]
    assert (made.scalars[NAMES.index("logprob_base_nats")] == 0).all()
    assert (made.scalars[NAMES.index("logprob_aligned_nats")] == 0).all()
    assert (made.scalars[NAMES.index("rank_base")] == 1).all()
    assert made.topk_ids[:, 0].tolist() == [13, 14, 15, 16]


def test_unions_and_detections_are_whole() -> None:
    pair = tiny_pair(shift=0.3)
    made = score(pair, items((5, 30)), ScoreConfig(shown_k=8))[0]
    for ids, base, aligned in zip(made.topk_ids, made.topk_base, made.topk_aligned, strict=True):
        there = ids >= 0
        assert there[: there.sum()].all()
        assert len(set(ids[there])) == there.sum() >= 8
        assert np.isfinite(base[there]).all()
        assert np.isfinite(aligned[there]).all()
        assert np.isnan(base[~there]).all()
        assert (np.diff(base[:8]) <= 0).all()
    item = items((5, 25))[0]
    made = score(pair, [item], ScoreConfig(top_k=15))[0]
    each = [
        score(pair, [Passage(name="", base=item.context("base") + item.response[:t],
                          aligned=item.aligned + item.response[:t], response=item.response[t : t + 1])],
              ScoreConfig(top_k=15))[0]
        for t in range(25)
    ]  # fmt: skip
    want: dict[int, int] = {}
    for e in each:
        for token in e.detected.tolist():
            want[token] = want.get(token, 0) + 1
    assert dict(zip(made.detected.tolist(), made.detected_count.tolist(), strict=True)) == want
    assert np.isclose(made.detected_mass.sum(), sum(float(e.detected_mass.sum()) for e in each), atol=1e-4)


@pytest.mark.parametrize(("prompts", "length", "vocab"), [(4, 24, 2000), (8, 24, 2000), (4, 48, 2000), (4, 24, 4000)])
def test_vocabulary_wide_memory_stays_inside_the_budget(prompts, length, vocab, monkeypatch) -> None:
    monkeypatch.setitem(scoring.BUFFER_MIB, "cpu", 0.5)  # type: ignore[misc]
    pair = tiny_pair(vocab=vocab)
    assert scoring.rows_at_once(pair)[0] < length
    todo = items(*[(6, length)] * prompts, vocab=vocab)
    with pair.model("base") as base, pair.model("aligned") as aligned:
        heads = {m.get_output_embeddings().weight.data_ptr() for m in (base, aligned)}
    with LiveBytes(lambda t: t.ndim > 0 and t.shape[-1] == vocab and t.data_ptr() not in heads) as live:
        score(pair, todo, ScoreConfig())
    assert 0 < live.peak <= 0.5 * 2**20
    assert live.peak >= 0.5 * BUFFERS / (BUFFERS + 1) * 0.5 * 2**20, "the meter sees the buffers"


def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = tiny_pair()
    todo = items((5, 9), (12, 3), (2, 20), (30, 17), (8, 8))
    whole = score(pair, todo, ScoreConfig(), batch_tokens=60)
    write, writes = Store.write, 0

    def die_at_the_third(self: Store, entries: object) -> None:
        nonlocal writes
        writes += 1
        if writes == 3:
            raise KeyboardInterrupt
        write(self, entries)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "write", die_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        score(pair, todo, ScoreConfig(), batch_tokens=60, store=Store(tmp_path))
    monkeypatch.undo()
    assert len(Store(tmp_path)) > 0
    for a, b in zip(score(pair, todo, ScoreConfig(), batch_tokens=60, store=Store(tmp_path)), whole, strict=True):
        for name in Scores.__dataclass_fields__:
            assert np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True), name


def test_keys_noise_and_nan(tmp_path: Path) -> None:
    todo = items((5, 9))
    store = Store(tmp_path)
    score(tiny_pair(), todo, ScoreConfig(), store=store)
    score(tiny_pair(), todo, ScoreConfig(), store=store)
    assert len(store) == 1
    score(tiny_pair(), todo, ScoreConfig(top_k=5), store=store)
    score(tiny_pair(seed=7), todo, ScoreConfig(), store=store)
    assert len(store) == 3
    pair = ModelPair.from_models(broken := counting_model(320), counting_model(320), tiny_tokenizer())
    with torch.no_grad():
        broken.lm_head.weight[:, 12] = 3e38  # overflows where token 12 is the input, and only there
    todo = [
        Passage(name="prompt 'a'", base=(30,), aligned=(30,), response=(31, 32)),
        Passage(name="prompt 'b'", base=(10,), aligned=(10,), response=(11, 12, 13, 14)),
    ]
    refuses(lambda: score(pair, todo, ScoreConfig()), NonFiniteLogits, "position 3", "'b'")
    pair = tiny_pair()
    noise = noise_floor(pair, items((5, 9), (12, 3)))
    assert noise.shape == (4, 9)
    assert np.isnan(noise[2:, 3:]).all()
    assert (noise[:2] >= 0).all()
    assert np.nanmax(noise) < 1e-5
    assert noise_floor(pair, []).shape == (0, 0)
    pair = tiny_pair(vocab=2000)
    item = items((6, 48), vocab=2000)[0]
    with LiveBytes(lambda t: t.ndim > 0 and t.shape[-1] == 2000) as live:
        naive(pair, item, ScoreConfig())
    assert live.peak > 0.5 * 2**20
