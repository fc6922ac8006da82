"""Penalised generation against a textbook loop without cache, and its laws."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.errors import refuses
from tests.fakes import counting_model, interrupted_after, prompt_set
from tests.tiny_pair import ARCHITECTURES, tiny_adapter, tiny_pair, tiny_tokenizer
from workbench.core.errors import ContextOverflow, NonFiniteLogits, ParameterError, PromptError
from workbench.core.passages import Passage
from workbench.core.records import load, save
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.ledger import Entry
from workbench.decoding.model import PenalisedModel
from workbench.decoding.penalised import decode, next_token
from workbench.decoding.penalty import leverage_bound, penalise, strengths
from workbench.decoding.records import LEDGER, Continuations
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair
from workbench.tracing import metrics
from workbench.tracing.metrics import excess_mass

CONTEXTS = [(0, 20, 30), (0, 41, 52, 63, 74, 85, 96), (5,), (0, 9, 9, 9)]
STRONG = PenaltyConfig(strength=3.0)


def passages(contexts: Sequence[tuple[int, ...]], given: Sequence[int] | None = None) -> list[Passage]:
    """Return contexts as passages, the last so many tokens of each given."""
    return [
        Passage(name=str(n), aligned=c[: len(c) - k], response=c[len(c) - k :], given=k)
        for n, (c, k) in enumerate(zip(contexts, given or [0] * len(contexts), strict=True))
    ]


def ids_of(made: Continuations) -> list[tuple[int, ...]]:
    return [tuple(ids[there].tolist()) for ids, there in zip(made.token_ids, made.mask, strict=True)]


def textbook(pair: ModelPair, start: Passage, penalty: PenaltyConfig, tokens: int) -> list[dict[str, Any]]:
    """One context, greedy, the whole prefix of both models recomputed for every token; a ledger line a token."""
    ids: list[int] = []
    lines = []
    for _ in range(tokens):
        found = {}
        for which, context in (("base", start.whole("base")), ("aligned", start.whole("aligned"))):
            with torch.no_grad(), pair.model(which) as model:  # type: ignore[arg-type]
                logits = model(torch.tensor([[*context, *ids]])).logits[0, -1, : pair.vocab].float()
            found[which] = logits.log_softmax(-1)
        base, aligned = found["base"], found["aligned"]
        t = len(ids) + 1 + (len(start.response) if penalty.count_from == "response" else 0)
        made = penalise(base, aligned, penalty, position=t)
        token = int(made.argmax())
        alpha, risk = strengths(base, aligned, penalty, position=t)
        at = torch.tensor(token)
        plain = base if penalty.method == "safe_decoding" else aligned
        lines.append({
            "token": token, "plain": int(plain.argmax()), "position": len(start.response) + len(ids) + 1,
            "strength": alpha, "risk": risk, "logprob_base_nats": base[token], "logprob_aligned_nats": aligned[token],
            "logprob_penalised_nats": made[token], "rank_base": metrics.rank(base, at),
            "rank_aligned": metrics.rank(aligned, at), "excess_mass": metrics.excess_mass(base, aligned),
            "leverage": excess_mass(made, plain),
            # tokens that the two models differ on by rounding alone may be on either side of the bound
            "leverage_bound": [leverage_bound(base + shift, aligned, penalty) for shift in (-1e-4, 0.0, 1e-4)],
        })  # fmt: skip
        ids.append(token)
        if token in pair.eos_ids:
            break
    return lines


def assert_is_textbook(made: Continuations, row: int, lines: list[dict[str, Any]]) -> None:
    assert ids_of(made)[row] == tuple(line["token"] for line in lines)
    size = len(lines)
    assert made.plain_ids[row, :size].tolist() == [line["plain"] for line in lines]
    assert made.position[row, :size].tolist() == [line["position"] for line in lines]
    for name in set(LEDGER) - {"leverage_bound"}:
        want = np.array([float(line[name]) for line in lines])
        assert np.allclose(getattr(made, name)[row, :size], want, atol=2e-4), name
    bounds = np.array([[float(b) for b in line["leverage_bound"]] for line in lines])
    beyond = np.array([float(line["strength"]) == 0 for line in lines])
    found = made.leverage_bound[row, :size]
    assert (np.isnan(found) == np.isnan(bounds[:, 1])).all()
    inside = (found >= bounds.min(1) - 2e-4) & (found <= bounds.max(1) + 2e-4)
    assert (np.isnan(found) | inside | (beyond & (found == 0))).all()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_cached_and_batched_equals_the_textbook_loop_with_its_ledger(arch: str) -> None:
    pair = tiny_pair(arch, head_rows=(352, 384))  # type: ignore[arg-type]
    starts = [Passage(name=str(n), aligned=c, response=(40, 41)[:n]) for n, c in enumerate(CONTEXTS[:3])]
    penalty = PenaltyConfig(strength=2.0, gamma=1.0, risk_space="mass", shape="ramp", m=4)
    made = decode(pair, starts, DecodeConfig(penalty=penalty, generation=GenerateConfig(max_tokens=10)), what=None)
    for row, start in enumerate(starts):
        assert_is_textbook(made, row, textbook(pair, start, penalty, 10))
    assert made.token_ids.max() < pair.vocab


@pytest.mark.parametrize(
    "penalty",
    [
        PenaltyConfig(method="two_sided", strength=0.7),
        PenaltyConfig(method="safe_decoding"),
        PenaltyConfig(strength=2.0, plausibility=0.1, gamma=2.0, risk_space="mass"),
        PenaltyConfig(strength=4.0, shape="undertrained", retention=(0.1, 0.5, 0.9)),
        PenaltyConfig(method="none"),
    ],
    ids=lambda p: p.title,
)
def test_every_method_equals_the_textbook_loop(penalty: PenaltyConfig) -> None:
    pair = tiny_pair("qwen2", shift=0.15)
    made = decode(pair, CONTEXTS, DecodeConfig(penalty=penalty, generation=GenerateConfig(max_tokens=8)), what=None)
    for row, context in enumerate(CONTEXTS):
        assert_is_textbook(made, row, textbook(pair, Passage(name="", aligned=context), penalty, 8))


DRAWS = {
    "greedy": GenerateConfig(max_tokens=16),
    "sampled": GenerateConfig(max_tokens=16, temperature=1.0, seed=7),
    "truncated": GenerateConfig(max_tokens=16, temperature=0.8, top_p=0.9, top_k=30, seed=3),
}


@pytest.mark.parametrize("how", DRAWS)
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_strength_0_is_plain_generation_token_for_token(arch: str, how: str) -> None:
    pair = tiny_pair(arch, head_rows=352, shift=0.2)  # type: ignore[arg-type]
    plain = [g.ids for g in generate(pair, "aligned", CONTEXTS, DRAWS[how], what=None)]
    for penalty in (
        PenaltyConfig(strength=0.0),
        PenaltyConfig(method="none"),
        PenaltyConfig.family(1.0, plausibility=0.1),
        PenaltyConfig(strength=5.0, shape="undertrained", retention=(0.0,) * 30 + (1.0,)),
    ):
        made = decode(pair, CONTEXTS, DecodeConfig(penalty=penalty, generation=DRAWS[how]), what=None)
        assert ids_of(made) == plain
        assert not made.changed().any()
        assert (made.strength[made.mask] == 0).all()
        assert (made.leverage[made.mask] == 0).all()
    changed = decode(pair, CONTEXTS, DecodeConfig(penalty=STRONG, generation=DRAWS[how]), what=None)
    assert changed.leverage[changed.mask].max() > 0.01, "a penalty that does nothing would pass everything above"


@pytest.mark.parametrize("how", DRAWS)
def test_batched_equals_single(how: str) -> None:
    pair = tiny_pair("qwen3", shift=0.2)
    config = DecodeConfig(penalty=STRONG, generation=DRAWS[how])
    together = decode(pair, CONTEXTS, config, what=None)
    for row, context in enumerate(CONTEXTS):
        alone = decode(pair, [context], config, what=None)
        assert ids_of(alone) == ids_of(together)[row : row + 1]
        size = alone.mask.shape[1]
        for name in LEDGER:
            assert np.allclose(getattr(alone, name)[0], getattr(together, name)[row, :size], atol=1e-4), name


def test_laws_at_the_ends_of_strength() -> None:
    pair = tiny_pair("llama", shift=0.2)
    greedy = DRAWS["greedy"]
    plain = [g.ids for g in generate(pair, "base", CONTEXTS, greedy, what=None)]
    config = DecodeConfig(penalty=PenaltyConfig.family(0.0), generation=greedy)
    assert ids_of(decode(pair, CONTEXTS, config, what=None)) == plain
    pair = tiny_pair("llama", shift=0.3)
    config = DecodeConfig(penalty=STRONG, generation=GenerateConfig(max_tokens=1, temperature=1.0, seed=5))
    many = [(0, n) for n in range(10, 60)]
    made = decode(pair, many, config, what=None)
    plain = [g.ids[0] for g in generate(pair, "aligned", many, config.generation, what=None)]
    assert made.plain_ids[:, 0].tolist() == plain
    assert 0 < made.changed().sum() < 50
    pair = ModelPair.from_models(counting_model(320), counting_model(320), tiny_tokenizer())
    made = decode(pair, [(10,), (200, 40)], DecodeConfig(penalty=STRONG, generation=GenerateConfig(max_tokens=5)))
    assert ids_of(made) == [(11, 12, 13, 14, 15), (41, 42, 43, 44, 45)]
    for name in ("excess_mass", "leverage", "leverage_bound", "risk", "logprob_penalised_nats"):
        assert (getattr(made, name) == 0).all(), name


def test_the_shown_tokens_are_the_likeliest_with_and_without_the_penalty() -> None:
    pair = tiny_pair("llama", shift=0.3)
    config = DecodeConfig(penalty=STRONG, generation=GenerateConfig(max_tokens=3), shown_k=4)
    made = decode(pair, [CONTEXTS[0]], config, what=None)
    token = next_token(pair, Passage(name="", aligned=CONTEXTS[0]), STRONG)
    before, after = (np.argsort(-x)[:4].tolist() for x in (token.aligned, token.penalised))
    ids = made.topk_ids[0, 0]
    there = ids >= 0
    assert (ids[:4].tolist(), set(ids[there].tolist())) == (before, {*before, *after})
    assert there[: there.sum()].all(), "no hole"
    for name in ("base", "aligned", "penalised"):
        logs = getattr(made, f"topk_logprob_{name}_nats")[0, 0]
        assert np.allclose(logs[there], getattr(token, name)[ids[there]], atol=1e-5)
        assert np.isnan(logs[~there]).all()
    assert set(made.label_of()) >= {*ids[there].tolist(), *made.token_ids[0].tolist(), *made.plain_ids[0].tolist()}
    bare = decode(pair, [CONTEXTS[0]], dataclasses.replace(config, shown_k=0), what=None)
    assert bare.topk_ids.shape == (1, 3, 0)
    assert ids_of(bare) == ids_of(made)


def test_positions_and_prompt_formats_are_each_models_own() -> None:
    pair = tiny_pair("llama")
    starts = [Passage(name="", aligned=CONTEXTS[0], response=(50, 51, 52))]
    drawing = GenerateConfig(max_tokens=4)

    def alphas(**settings: Any) -> list[float]:
        config = DecodeConfig(penalty=PenaltyConfig(shape="first_m", m=5, **settings), generation=drawing)
        made = decode(pair, starts, config, what=None)
        assert made.position[0].tolist() == [4, 5, 6, 7]
        assert (made.leverage_bound[0] > 0).tolist() == (made.strength[0] > 0).tolist(), "beyond m, no strength reaches"
        return made.strength[0].tolist()

    assert (alphas(), alphas(count_from="generated")) == ([1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0])
    pair = tiny_pair("llama", shift=0.0, template_mode="plain")
    start = Passage(name="", aligned=(0, 20, 30), base=(0, 41, 52, 63, 74))
    config = DecodeConfig(penalty=STRONG, generation=GenerateConfig(max_tokens=6))
    made = decode(pair, [start], config, what=None)
    assert_is_textbook(made, 0, textbook(pair, start, STRONG, 6))
    assert made.excess_mass[0, 0] > 0.01, "one model, two prompts"


def test_prompts_take_prefixes_or_a_prefill_and_are_described() -> None:
    pair = tiny_pair("llama")
    prompts = prompt_set("the cat", "the dog")
    config = DecodeConfig(penalty=STRONG, generation=GenerateConfig(max_tokens=5), prefix_tokens=2, system_prompt="sun")
    made = decode(pair, prompts, config, what=None)
    for p, c in zip(prompts, made.continuations, strict=True):
        given = pair.encode(p.response or "")[:2]
        assert (c.name, c.prompt, c.label, c.prefix_tokens, c.prefix) == (
            p.id,
            p.prompt,
            "harmful",
            2,
            pair.decode(given),
        )
        assert (c.context_tokens, c.system_prompt) == (len(pair.context(p, system_prompt="sun")), "sun")
    assert (made.prompt_set, made.classroom_safe) == ("in memory", True)
    filled = decode(
        pair, prompts, DecodeConfig(generation=GenerateConfig(max_tokens=5), prefill="Sure, here"), what=None
    )
    assert {c.prefix for c in filled.continuations} == {"Sure, here"}
    context = pair.context(prompts.prompts[0]) + pair.encode("Sure, here")
    plain = generate(pair, "aligned", [context], GenerateConfig(max_tokens=5), what=None)[0]
    assert filled.plain_ids[0, 0] == plain.ids[0]

    short = dataclasses.replace(
        prompts, prompts=(*prompts.prompts, dataclasses.replace(prompts.prompts[0], response="a"))
    )
    made = decode(pair, short, config, what=None)
    assert len(made.continuations) == 2
    assert made.notes == ("1 of 3 prompts have no response of 2 tokens and are left out.",)
    refuses(lambda: decode(pair, prompts, dataclasses.replace(config, prefix_tokens=400)), PromptError, "2", "400")


def test_the_text_is_what_the_tokenizer_decodes_without_the_end_of_turn() -> None:
    pair = ModelPair.from_models(counting_model(320), counting_model(320), tiny_tokenizer())
    made = decode(pair, [(314,), (60,)], DecodeConfig(generation=GenerateConfig(max_tokens=9)), what=None)
    assert [c.stop for c in made.continuations] == ["end", "length"]
    assert ids_of(made)[0] == (315, 316, 317, 318, 319, 0, 1)
    assert made.continuations[0].text == pair.decode((315, 316, 317, 318, 319, 0))
    assert made.continuations[1].text == pair.decode(range(61, 70))
    assert "".join(made.pieces[0]) == pair.decode(ids_of(made)[0])
    stopped = decode(
        pair, [(58,)], DecodeConfig(generation=GenerateConfig(max_tokens=9, stop=(pair.decode((60, 61)),))), what=None
    )
    assert (ids_of(stopped), stopped.continuations[0].stop) == ([(59, 60, 61)], "stop")
    nothing = decode(pair, [(10,)], DecodeConfig(generation=GenerateConfig(max_tokens=0)), what=None)
    assert nothing.token_ids.shape == (1, 0)
    assert decode(pair, [], what=None).token_ids.shape == (0, 0)


def test_the_record_streams_and_saves_entry_by_entry(tmp_path: Path) -> None:
    pair = tiny_pair("llama")
    config = DecodeConfig(penalty=PenaltyConfig(gamma=1.0), generation=GenerateConfig(max_tokens=6, stop=("zz",)))
    made = decode(pair, prompt_set("the cat"), config, what=None)
    assert load(save(made, tmp_path / "record"), Continuations) == made
    assert (made.penalty, PenaltyConfig(**made.penalty)) == ({**vars(config.penalty)}, config.penalty)
    assert GenerateConfig(**made.generation) == config.generation
    assert (made.run.resolved["penalty"]["strength"], made.run.fingerprint) == (1.0, pair.fingerprint)
    assert (made.original, made.expert, made.notes) == (None, None, ())
    pair = tiny_pair("llama", shift=0.2)
    seen: dict[int, list[Entry]] = {i: [] for i in range(len(CONTEXTS))}
    config = DecodeConfig(penalty=STRONG, generation=GenerateConfig(max_tokens=7))
    made = decode(pair, CONTEXTS, config, on_token=lambda i, entry: seen[i].append(entry), what=None)
    for row, entries in seen.items():
        assert tuple(e.token_id for e in entries) == ids_of(made)[row]
        for t, e in enumerate(entries):
            assert (e.position, e.plain_id) == (made.position[row, t], made.plain_ids[row, t])
            for name in LEDGER:
                assert getattr(e, name) == getattr(made, name)[row, t], name


def test_a_killed_run_keeps_finished_rows_and_resumes_to_the_same(tmp_path: Path) -> None:
    pair = ModelPair.from_models(counting_model(320), counting_model(320), tiny_tokenizer())
    contexts = [(318,), (40,), (60,)]  # the first one ends after 3 tokens, in one batch with the others
    config = DecodeConfig(penalty=STRONG, generation=GenerateConfig(max_tokens=12))
    whole = decode(pair, contexts, config, what=None)
    with pytest.raises(KeyboardInterrupt):
        decode(pair, contexts, config, on_token=interrupted_after(20), store=Store(tmp_path), what=None)
    assert len(Store(tmp_path)) == 1
    seen: list[tuple[int, int]] = []
    again = decode(
        pair, contexts, config, on_token=lambda i, e: seen.append((i, e.token_id)), store=Store(tmp_path), what=None
    )
    same = {f.name for f in dataclasses.fields(Continuations)} - {"run"}
    assert all(np.array_equal(getattr(again, n), getattr(whole, n), equal_nan=getattr(whole, n).dtype.kind == "f")
               if isinstance(getattr(whole, n), np.ndarray) else getattr(again, n) == getattr(whole, n)
               for n in same)  # fmt: skip
    assert [t for i, t in seen if i == 0] == list(ids_of(whole)[0]), "a stored row is streamed too"
    calls: list[int] = []
    hidden = pair.hidden
    object.__setattr__(pair, "hidden", lambda *a, **k: (calls.append(1), hidden(*a, **k))[1])
    third = decode(pair, contexts, config, store=Store(tmp_path), what=None)
    assert ids_of(third) == ids_of(whole)
    assert calls == [], "everything was stored, nothing is computed again"


def test_penalty_prefix_and_contexts_are_part_of_the_key(tmp_path: Path) -> None:
    pair, drawing = tiny_pair("llama"), GenerateConfig(max_tokens=2)
    store = Store(tmp_path)

    def run(start: Passage, penalty: PenaltyConfig = STRONG, generation: GenerateConfig = drawing) -> int:
        decode(pair, [start], DecodeConfig(penalty=penalty, generation=generation), store=store, what=None)
        return len(store)

    first = Passage(name="", aligned=(0, 20, 30))
    assert ([run(first), run(first)], run(first, PenaltyConfig(strength=2.0))) == ([1, 1], 2)
    assert run(Passage(name="", aligned=(0, 20), response=(30,))) == 3
    assert run(dataclasses.replace(first, base=(0, 21, 30))) == 4
    assert run(first, STRONG, GenerateConfig(max_tokens=3)) == 5
    assert run(first, STRONG, dataclasses.replace(drawing, batch_tokens=99)) == 5


def test_out_of_memory_halves_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = tiny_pair("llama")
    config = DecodeConfig(penalty=STRONG, generation=GenerateConfig(max_tokens=5))
    whole = decode(pair, CONTEXTS, config, what=None)
    hidden = ModelPair.hidden
    sizes = []

    def small(self: ModelPair, which: Any, ids: torch.Tensor, **options: Any) -> torch.Tensor:
        if len(ids) > 2:
            raise torch.OutOfMemoryError("out of memory")
        sizes.append(len(ids))
        return hidden(self, which, ids, **options)

    monkeypatch.setattr(ModelPair, "hidden", small)
    assert (ids_of(decode(pair, CONTEXTS, config, what=None)), max(sizes)) == (ids_of(whole), 2)


def test_what_cannot_go_on_is_refused_or_ends_and_is_named() -> None:
    pair = tiny_pair("llama")
    with pytest.raises(ParameterError, match=r"alpha_t.*attack"):
        decode(pair, CONTEXTS, DecodeConfig(penalty=PenaltyConfig.family(-0.1)))
    refuses(lambda: PenalisedModel(pair, PenaltyConfig(strength=-2.0)), ParameterError, "attack")
    refuses(lambda: decode(pair, [(1,), ()]), PromptError, "context 2", "2")
    refuses(lambda: decode(pair, prompt_set("the cat", "  ")), PromptError, "empty")
    refuses(lambda: decode(pair, [(1,) * 256]), ContextOverflow, "context 1", "256")
    refuses(lambda: decode(pair, [(1,)], DecodeConfig(prefill="Sure")), ParameterError, "prompts")
    refuses(lambda: DecodeConfig(prefix_tokens=2, prefill="Sure"), ParameterError, "prefix_tokens=2", "prefill='Sure'")
    refuses(lambda: DecodeConfig(shown_k=-1), ParameterError, "shown_k is -1")
    thinking = dataclasses.replace(pair, thinking=True)
    refuses(lambda: decode(thinking, prompt_set("the cat")), ParameterError, "thinking")
    pair = ModelPair.from_models(counting_model(320), counting_model(320), tiny_tokenizer())
    contexts = [(20,) * 250 + (40,), (30,), (7,) * 250 + (316,)]
    made = decode(pair, contexts, DecodeConfig(generation=GenerateConfig(max_tokens=20)), what=None)
    assert [c.stop for c in made.continuations] == ["context", "length", "end"]
    assert ids_of(made)[0] == (41, 42, 43, 44, 45)
    assert made.notes == (
        "1 of 3 continuations filled the model's context of 256 tokens before max_tokens=20 and ended there, the "
        "first (prompt 'context 1') after 5 tokens.",
    )
    with pytest.raises(ContextOverflow, match=r"251.*20.*256"):
        PenalisedModel(pair, STRONG).continue_(passages(contexts), GenerateConfig(max_tokens=20))
    for which in ("base", "aligned"):
        models = {"base": counting_model(320), "aligned": counting_model(320)}
        with torch.no_grad():
            models[which].lm_head.weight[:, 12] = 3e38  # overflows where token 12 is the input, and only there
        pair = ModelPair.from_models(models["base"], models["aligned"], tiny_tokenizer())
        with pytest.raises(NonFiniteLogits, match=rf"{which}.*token 3.*continuation 2"):
            decode(pair, [(40,), (10,)], DecodeConfig(generation=GenerateConfig(max_tokens=5)), what=None)
    pair = tiny_pair("llama", shift=0.2)
    start = Passage(name="", aligned=CONTEXTS[0], response=(50,))
    token = next_token(pair, start, PenaltyConfig.family(-1.0))
    gap = token.penalised - (2 * token.base - token.aligned)
    assert np.allclose(gap, gap[0], atol=1e-4)
    assert (token.position, token.strength) == (2, -2.0)
    refuses(lambda: next_token(pair, Passage(name="", aligned=()), STRONG), PromptError, "empty")


def test_safe_decoding_says_who_plays_what_and_goes_on_with_the_original(tmp_path: Path) -> None:
    pair = tiny_pair("llama", shift=0.3)
    config = DecodeConfig(penalty=PenaltyConfig(method="safe_decoding"), generation=GenerateConfig(max_tokens=6))
    made = decode(pair, CONTEXTS[:1], config, what=None)
    assert (made.original, made.expert) == ("base of in memory", "aligned of in memory")
    assert "original is base and expert is aligned" in made.notes[0]
    assert made.strength[0].tolist() == [3.0, 3.0, 0.0, 0.0, 0.0, 0.0]
    first = ids_of(made)[0][:2]
    rest = generate(pair, "base", [CONTEXTS[0] + first], GenerateConfig(max_tokens=4), what=None)[0]
    assert ids_of(made)[0][2:] == rest.ids

    with pair.model("aligned") as aligned:
        adapter = tiny_adapter(tmp_path / "safety", aligned, scale=0.3)
    experts = pair.with_expert(str(adapter))
    made = decode(experts, CONTEXTS[:1], config, what=None)
    assert made.original == f"base of aligned of in memory | with {adapter}"
    first = ids_of(made)[0][:2]
    rest = generate(pair, "aligned", [CONTEXTS[0] + first], GenerateConfig(max_tokens=4), what=None)[0]
    assert ids_of(made)[0][2:] == rest.ids


def test_a_penalised_model_takes_texts_and_generates_like_a_model() -> None:
    pair = tiny_pair("llama", shift=0.2)
    model = PenalisedModel(pair, STRONG)
    assert (model.name, model.which) == ("one_sided 3", "aligned")
    made = model.generate("the cat sat", max_tokens=5)
    prompts = dataclasses.replace(prompt_set("the cat sat"), name="x")
    config = DecodeConfig(penalty=STRONG, generation=GenerateConfig(max_tokens=5))
    assert ids_of(made) == ids_of(decode(pair, prompts, config, what=None))
    assert made.continuations[0].prompt == "the cat sat"
    assert len(model.generate(["a", "b"], max_tokens=1, prefill="Sure").continuations) == 2
    refuses(lambda: model.generate("the cat sat", max_token=5), ParameterError, "max_tokens")
    seen: list[int] = []
    drawing = GenerateConfig(max_tokens=5)
    plain = model.continue_(passages(CONTEXTS), drawing, on_token=lambda _i, t: seen.append(t), what=None)
    assert [g.ids for g in plain] == ids_of(decode(pair, CONTEXTS, dataclasses.replace(config, shown_k=0), what=None))
    assert len(seen) == sum(len(g.ids) for g in plain)
    early = PenalisedModel(pair, PenaltyConfig(strength=3.0, shape="first_m", m=2))
    aligned = generate(pair, "aligned", CONTEXTS, drawing, what=None)
    assert early.continue_(passages(CONTEXTS, given=[3, 3, 1, 3]), drawing, what=None)[:2] == aligned[:2]
