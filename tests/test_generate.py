"""The one generator against transformers' own, and its laws."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.errors import refuses
from tests.fakes import counting_model, interrupted_after
from tests.tiny_pair import ARCHITECTURES, tiny_pair, tiny_tokenizer
from workbench.core.batching import halving_on_memory, plan_batches
from workbench.core.errors import ContextOverflow, NonFiniteLogits, ParameterError, PromptError
from workbench.core.store import Store
from workbench.models import generation as room
from workbench.models.generation import GenerateConfig, generate, left_padded
from workbench.models.noise import Noise
from workbench.models.pair import ModelPair

CONTEXTS = [(0, 20, 30), (0, 41, 52, 63, 74, 85, 96), (5,), (0, 9, 9, 9)]


def plain(pair: ModelPair, which: str, context: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    """One prompt at a time, the whole context recomputed for every token."""
    ids = list(context)
    with torch.no_grad(), pair.model(which) as model:  # type: ignore[arg-type]
        for _ in range(tokens):
            logits = model(torch.tensor([ids])).logits[0, -1, : pair.vocab]
            ids.append(int(logits.argmax()))
            if ids[-1] in pair.eos_ids:
                break
    return tuple(ids[len(context) :])


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_batched_and_cached_equals_one_at_a_time_without_cache(arch: str) -> None:
    pair = tiny_pair(arch, head_rows=352)  # type: ignore[arg-type]
    for which in ("base", "aligned"):
        made = generate(pair, which, CONTEXTS, GenerateConfig(max_tokens=24))  # type: ignore[arg-type]
        assert [g.ids for g in made] == [plain(pair, which, c, 24) for c in CONTEXTS]


def test_greedy_is_transformers_own_and_counting_stops() -> None:
    pair = tiny_pair("llama")
    with pair.model("aligned") as model:
        for context in CONTEXTS:
            theirs = model.generate(
                torch.tensor([context]), attention_mask=torch.ones(1, len(context), dtype=torch.long),
                max_new_tokens=20, do_sample=False, eos_token_id=sorted(pair.eos_ids), pad_token_id=2,
            )[0, len(context) :]  # fmt: skip
            ours = generate(pair, "aligned", [context], GenerateConfig(max_tokens=20))[0]
            assert ours.ids == tuple(theirs.tolist())
    tokenizer = tiny_tokenizer()
    pair = ModelPair.from_models(counting_model(320), counting_model(320), tokenizer)
    made = generate(pair, "base", [(10,), (200, 40)], GenerateConfig(max_tokens=5))
    assert [g.ids for g in made] == [(11, 12, 13, 14, 15), (41, 42, 43, 44, 45)]
    assert [g.stop for g in made] == ["length", "length"]
    made = generate(pair, "base", [(316,), (50,)], GenerateConfig(max_tokens=20))  # wraps to 0, then eos
    assert made[0].ids == (317, 318, 319, 0, 1)
    assert (made[0].stop, len(made[1].ids)) == ("end", 20)
    assert generate(pair, "base", [(10,)], GenerateConfig(max_tokens=9, stop_ids=(13,)))[0].ids == (11, 12, 13)
    text = pair.decode((60, 61))
    stopped = generate(pair, "base", [(58,)], GenerateConfig(max_tokens=9, stop=(text,)))[0]
    assert (stopped.ids, stopped.stop) == ((59, 60, 61), "stop")
    assert generate(pair, "base", [(10,)], GenerateConfig(max_tokens=0))[0].ids == ()


def test_sampling_follows_seed_distribution_and_streams() -> None:
    pair = tiny_pair("qwen2")
    config = GenerateConfig(max_tokens=12, temperature=1.0, top_p=0.9, top_k=40, seed=3)
    together = generate(pair, "aligned", CONTEXTS, config)
    alone = [generate(pair, "aligned", [c], config)[0] for c in CONTEXTS]
    assert list(together) == alone
    other = generate(pair, "aligned", CONTEXTS, GenerateConfig(max_tokens=12, temperature=1.0, seed=4))
    assert other != together
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).log_softmax(-1)
    draws = {}
    configs = {
        "plain": GenerateConfig(temperature=1.0),
        "top_k": GenerateConfig(temperature=1.0, top_k=2),
        "top_p": GenerateConfig(temperature=1.0, top_p=0.7),
    }
    for name, config in configs.items():
        noise = Noise(range(2000), logits.device)
        drawn = room.choose(logits.expand(2000, -1), config, noise)
        draws[name] = torch.bincount(drawn, minlength=4).tolist()
    p = logits.exp()[0].tolist()
    assert all(abs(n / 2000 - q) < 0.04 for n, q in zip(draws["plain"], p, strict=True))
    assert (draws["top_k"][2:], draws["top_p"][2:]) == ([0, 0], [0, 0])
    assert draws["top_p"][1] > 0
    pair = tiny_pair()
    seen: dict[int, list[int]] = {i: [] for i in range(len(CONTEXTS))}
    made = generate(pair, "aligned", CONTEXTS, GenerateConfig(max_tokens=8), on_token=lambda i, t: seen[i].append(t))
    assert [tuple(seen[i]) for i in range(len(CONTEXTS))] == [g.ids for g in made]


def test_a_killed_run_resumes_and_gives_the_same(tmp_path: Path) -> None:
    pair = tiny_pair()
    config = GenerateConfig(max_tokens=8, batch_tokens=20)
    whole = generate(pair, "aligned", CONTEXTS, config)
    with pytest.raises(KeyboardInterrupt):
        generate(pair, "aligned", CONTEXTS, config, on_token=interrupted_after(18), store=Store(tmp_path))
    kept = len(Store(tmp_path))
    assert 0 < kept < len(CONTEXTS)
    calls = 0
    hidden = pair.hidden

    def counted(*args: object, **kwargs: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return hidden(*args, **kwargs)  # type: ignore[arg-type]

    object.__setattr__(pair, "hidden", counted)
    assert generate(pair, "aligned", CONTEXTS, config, store=Store(tmp_path)) == whole
    first = calls
    assert first > 0
    assert generate(pair, "aligned", CONTEXTS, config, store=Store(tmp_path)) == whole
    assert calls == first, "everything was stored, nothing is computed again"


def test_bad_input_nan_and_batches_are_handled() -> None:
    pair = tiny_pair()
    refuses(lambda: generate(pair, "base", [(1,), ()], GenerateConfig()), PromptError, "context 2", "2")
    with pytest.raises(ContextOverflow, match=r"200.*100.*256"):
        generate(pair, "base", [(1,) * 200], GenerateConfig(max_tokens=100))
    for bad in ({"temperature": float("nan")}, {"temperature": -1.0}, {"top_p": 0.0}, {"max_tokens": -1}):
        with pytest.raises(ParameterError, match=next(iter(bad))):
            GenerateConfig(**bad)  # type: ignore[arg-type]
    pair = ModelPair.from_models(counting_model(320), broken := counting_model(320), tiny_tokenizer())
    with torch.no_grad():
        broken.lm_head.weight[:, 12] = 3e38  # overflows where token 12 is the input, and only there
    with pytest.raises(NonFiniteLogits, match=r"token 3.*continuation 2"):
        generate(pair, "aligned", [(40,), (10,)], GenerateConfig(max_tokens=5))
    ids, mask = left_padded([(1, 2, 3), (4,)], torch.device("cpu"))
    assert (ids.tolist(), mask.tolist()) == ([[1, 2, 3], [0, 0, 4]], [[1, 1, 1], [0, 0, 1]])
    sizes = [5, 90, 3, 40, 40, 41, 200, 1]
    batches = plan_batches(sizes, 100)
    assert sorted(i for b in batches for i in b) == list(range(len(sizes)))
    for b in batches:
        assert len(b) == 1 or len(b) * max(sizes[i] for i in b) <= 100
    assert batches == plan_batches(sizes, 100)


def test_out_of_memory_halves_says_so_and_goes_on() -> None:
    notes: list[str] = []

    def work(rows: list[int]) -> list[int]:
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [10 * r for r in rows]

    made = list(halving_on_memory([0, 1, 2, 3, 4], work, notes.append))
    assert [r for rows, _ in made for r in rows] == [0, 1, 2, 3, 4]
    assert [x for _, out in made for x in out] == [0, 10, 20, 30, 40]
    assert notes == ["out of memory with 5 rows in a batch: going on with 2",
                     "out of memory with 3 rows in a batch: going on with 1"]  # fmt: skip

    def never(rows: list[int]) -> list[int]:
        raise MemoryError

    refuses(lambda: list(halving_on_memory([0, 1], never, notes.append)), MemoryError)
    with pytest.raises(RuntimeError, match="another thing"):
        list(halving_on_memory([0, 1], lambda _: (_ for _ in ()).throw(RuntimeError("another thing")), notes.append))
