"""The penalty as a LogitsProcessor under transformers' own generate: the same tokens as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from tests.errors import refuses
from tests.fakes import counting_model
from tests.tiny_pair import save_model, tiny_adapter, tiny_model, tiny_pair, tiny_tokenizer
from workbench.core.errors import ContextOverflow, NonFiniteLogits, ParameterError
from workbench.core.passages import Passage
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.model import PenalisedModel
from workbench.decoding.penalised import decode
from workbench.decoding.processor import PenaltyProcessor
from workbench.models.generation import GenerateConfig, left_padded
from workbench.models.pair import ModelPair, PairConfig, load_pair

CONTEXTS = [(0, 20, 30), (0, 41, 52, 63, 74, 85, 96), (5,), (0, 9, 9, 9)]
PENALTIES = [
    PenaltyConfig(strength=0.0),
    PenaltyConfig(strength=2.0, gamma=1.0, risk_space="mass", plausibility=0.01),
    PenaltyConfig(strength=4.0, shape="first_m", m=3),
    PenaltyConfig(method="safe_decoding"),
    PenaltyConfig.family(0.0),
]
TOKENS = 12


def theirs(
    pair: ModelPair, processor: PenaltyProcessor, contexts: list[tuple[int, ...]], **options: Any
) -> list[tuple[int, ...]]:
    """Continue with transformers' generate on the aligned model; each row up to its end of turn."""
    ids, mask = left_padded(contexts, pair.device, pad=2)
    settings = {"max_new_tokens": TOKENS, "do_sample": False, "eos_token_id": sorted(pair.eos_ids), "pad_token_id": 2}
    with torch.no_grad(), pair.model("aligned") as model:
        made = model.generate(ids, attention_mask=mask, logits_processor=[processor], **{**settings, **options})
    rows = []
    for row in made[:, ids.shape[1] :].tolist():
        end = next((n + 1 for n, t in enumerate(row) if t in pair.eos_ids), len(row))
        rows.append(tuple(row[:end]))
    return rows


def ours(pair: ModelPair, penalty: PenaltyConfig, contexts: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    config = DecodeConfig(penalty=penalty, generation=GenerateConfig(max_tokens=TOKENS))
    made = decode(pair, contexts, config, what=None)
    return [tuple(ids[there].tolist()) for ids, there in zip(made.token_ids, made.mask, strict=True)]


def adapter_pair(folder: Path) -> ModelPair:
    model = tiny_model("llama", 320)
    save_model(folder / "base", model, tiny_tokenizer())
    adapter = tiny_adapter(folder / "adapter", model, scale=0.2)
    return load_pair(PairConfig(base=str(folder / "base"), adapter=str(adapter)))


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: p.title)
@pytest.mark.parametrize("arch", ["llama", "gemma3", "adapter"])
def test_a_ragged_batch_under_their_generate_equals_ours(arch: str, penalty: PenaltyConfig, tmp_path: Path) -> None:
    pair = adapter_pair(tmp_path) if arch == "adapter" else tiny_pair(arch, head_rows=(352, 384), shift=0.2)  # type: ignore[arg-type]
    _, mask = left_padded(CONTEXTS, pair.device)
    processor = PenalisedModel(pair, penalty).processor(attention_mask=mask)
    assert theirs(pair, processor, CONTEXTS) == ours(pair, penalty, CONTEXTS)


def test_one_processor_serves_many_generates_and_samples_as_theirs() -> None:
    pair = tiny_pair("qwen3", shift=0.2)
    penalty = PenaltyConfig(strength=4.0, shape="first_m", m=4)
    processor = PenaltyProcessor(pair, penalty, prefix_tokens=2)
    for context in (*CONTEXTS, CONTEXTS[0], CONTEXTS[0]):
        given = decode(
            pair,
            [Passage(name="", aligned=context, response=(40, 41))],
            DecodeConfig(penalty=penalty, generation=GenerateConfig(max_tokens=TOKENS)),
            what=None,
        )
        assert theirs(pair, processor, [(*context, 40, 41)])[0] == tuple(given.token_ids[0][given.mask[0]].tolist())
    pair = tiny_pair("llama", shift=0.2)
    options = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 50}
    ids = torch.tensor([CONTEXTS[1]])
    with torch.no_grad(), pair.model("aligned") as model:
        torch.manual_seed(3)
        plain = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, eos_token_id=sorted(pair.eos_ids),
            pad_token_id=2, **options,
        )  # fmt: skip
    torch.manual_seed(3)
    made = theirs(pair, PenaltyProcessor(pair, PenaltyConfig(strength=0.0)), [CONTEXTS[1]], **options)
    assert made[0] == tuple(plain[0, ids.shape[1] :].tolist())


def test_tokens_that_are_taken_back_are_recomputed() -> None:
    """Prompt lookup proposes several tokens at once and takes the wrong ones back."""
    pair = tiny_pair("llama", shift=0.2)
    penalty = PenaltyConfig(strength=2.0)
    context = (0, 41, 52, 63, 41, 52, 63, 41, 52)
    processor = PenaltyProcessor(pair, penalty)
    taken_back = []
    follow = processor._follow
    processor._follow = lambda ids: (taken_back.append(start := follow(ids)), start)[1]  # type: ignore[method-assign]
    made = theirs(pair, processor, [context], prompt_lookup_num_tokens=3)
    assert made == ours(pair, penalty, [context])
    assert taken_back.count(0) > 1, "nothing was taken back: the test tests nothing"


def test_beams_follow_their_reordering(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = tiny_pair("llama", shift=0.2)
    select, reordered = DynamicCache.batch_select_indices, []
    monkeypatch.setattr(DynamicCache, "batch_select_indices", lambda c, i: (reordered.append(i), select(c, i))[1])
    beams = {"num_beams": 3, "early_stopping": False}
    for strength in (0.0, 1.0):
        penalty = PenaltyConfig(strength=strength)
        _, mask = left_padded(CONTEXTS, pair.device)
        made = theirs(pair, PenaltyProcessor(pair, penalty, attention_mask=mask), CONTEXTS, **beams)
        assert reordered, "no beam was reordered: the test tests nothing"
        uncached = PenaltyProcessor(pair, penalty, attention_mask=mask)
        follow = uncached._follow

        def forgetting(ids: torch.Tensor, follow: Any = follow, processor: PenaltyProcessor = uncached) -> int:
            follow(ids)  # prompts and masks as ever, but every step from the start
            processor._cache = pair.new_cache("base")
            return 0

        uncached._follow = forgetting  # type: ignore[method-assign]
        assert made == theirs(pair, uncached, CONTEXTS, **beams)
    plain = theirs(pair, PenaltyProcessor(pair, PenaltyConfig(method="none"), attention_mask=mask), CONTEXTS, **beams)
    with torch.no_grad(), pair.model("aligned") as model:
        ids, mask = left_padded(CONTEXTS, pair.device, pad=2)
        alone = model.generate(
            ids, attention_mask=mask, max_new_tokens=TOKENS, do_sample=False, eos_token_id=sorted(pair.eos_ids),
            pad_token_id=2, **beams,
        )  # fmt: skip
    assert [row[: len(p)] for row, p in zip(alone[:, ids.shape[1] :].tolist(), plain, strict=True)] == [
        *map(list, plain)
    ]


def test_scores_are_left_alone_and_what_cannot_work_is_refused() -> None:
    pair = tiny_pair("llama")
    strong = PenaltyConfig(strength=2.0)
    refuses(lambda: PenaltyProcessor(pair, PenaltyConfig.family(-1.0)), ParameterError, "attack")
    refuses(lambda: PenaltyProcessor(pair, strong, prefix_tokens=-1), ParameterError, "prefix_tokens is -1")
    with pytest.raises(ParameterError, match=r"1.*4.*token 2.*attention_mask"):
        theirs(pair, PenaltyProcessor(pair, strong), CONTEXTS)
    with pytest.raises(ParameterError, match=r"attention_mask.*\(2, 9\).*\(1, 3\)"):
        theirs(pair, PenaltyProcessor(pair, strong, attention_mask=torch.ones(2, 9).long()), CONTEXTS[:1])
    with pytest.raises(ParameterError, match=r"100.*'in memory'.*320"):
        PenaltyProcessor(pair, strong)(torch.tensor([[1, 2]]), torch.zeros(1, 100))
    with pytest.raises(ContextOverflow, match=r"257.*256"):
        PenaltyProcessor(pair, strong)(torch.ones(1, 257).long(), torch.zeros(1, 320))
    broken = counting_model(320)
    with torch.no_grad():
        broken.lm_head.weight[:, 12] = 3e38
    pair = ModelPair.from_models(broken, counting_model(320), tiny_tokenizer())
    refuses(lambda: theirs(pair, PenaltyProcessor(pair, strong), [(10,)]), NonFiniteLogits, "token 3")
    pair = tiny_pair("llama", head_rows=(320, 352), shift=0.2)
    scores = torch.randn(1, 352)
    kept = scores.clone()
    made = PenaltyProcessor(pair, PenaltyConfig(strength=2.0))(torch.tensor([CONTEXTS[0]]), scores)
    assert torch.equal(scores, kept)
    assert made.shape == (1, 352)
    assert (made[:, 320:] == -torch.inf).all()
    assert made[:, :320].isfinite().all()
