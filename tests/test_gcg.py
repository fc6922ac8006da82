"""The suffix search: its loss and gradient against slow references, its candidates, and that it repeats and resumes."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from tests.errors import refuses
from tests.fakes import counting_model, prompt_set
from tests.tiny_pair import ARCHITECTURES, sentencepiece_like_tokenizer, tiny_adapter, tiny_pair, tiny_tokenizer
from workbench.core.comparisons import paired_bounds
from workbench.core.errors import ContextOverflow, NonFiniteLogits, PairError, PromptError
from workbench.core.store import Store
from workbench.evaluation.attacks import GCG, Budget, ModelArm, RandomSuffix, answer, attack, searches
from workbench.evaluation.attacks.task import as_prompt
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.prompts.loading import Prompt, PromptConfig, PromptSet, load_prompts
from workbench.tracing.suffix.objective import Objective
from workbench.tracing.suffix.search import Found, Search
from workbench.tracing.suffix.slots import Slot, Slots, Suffix, allowed_ids, open_slots

BUDGET = Budget(steps=6, candidates=8, top_k=16, buffer=3, save_every=2)
SHORT: dict[str, Any] = {"budget": BUDGET, "suffix_tokens": 5, "target_tokens": 4, "stop": "never", "max_tokens": 8}


def opened(pair: ModelPair, *texts: str, tokens: int = 5, target: int = 4) -> Slots:
    prompts = prompt_set(*texts).prompts
    targets = [pair.passage(p, pair.encode(p.response or "")[:target]) for p in prompts]
    return open_slots(pair, "aligned", prompts, targets, tokens, allowed_ids(pair, "ascii"))


def some_suffixes(slots: Slots, count: int, seed: int = 0) -> list[Suffix]:
    allowed = allowed_ids(slots.pair, "ascii")
    draw = np.random.default_rng(seed)
    return [tuple(allowed[i] for i in draw.integers(len(allowed), size=len(slots.first))) for _ in range(count)]


def slow_loss(pair: ModelPair, slot: Slot, suffix: Suffix) -> tuple[float, bool]:
    """The model's own forward pass over one whole sequence."""
    ids = torch.tensor([slot.before + suffix + slot.after + slot.target])
    with torch.no_grad(), pair.model("aligned") as model:
        logits = model(ids, use_cache=False).logits[0, -len(slot.target) - 1 : -1, : pair.vocab].float()
    target = torch.tensor(slot.target)
    return float(cross_entropy(logits, target)), bool((logits.argmax(-1) == target).all())


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("cached", [True, False])
def test_losses_are_those_of_whole_sequences_one_by_one(arch: Any, cached: bool) -> None:
    pair = tiny_pair(arch, head_rows=352)
    slots = opened(pair, "the cat sat on the mat and the dog", "the sea")
    suffixes = some_suffixes(slots, 6)
    losses, said = Objective(pair, "aligned", slots.slots, cached=cached, batch_tokens=90).losses(suffixes, 2)
    for n, suffix in enumerate(suffixes):
        slow = [slow_loss(pair, s, suffix) for s in slots.slots]
        assert float(losses[n]) == pytest.approx(sum(loss for loss, _ in slow) / 2, rel=2e-5)
        assert bool(said[n]) == all(hit for _, hit in slow)
    first, _ = Objective(pair, "aligned", slots.slots, cached=cached).losses(suffixes, 1)
    assert float(first[0]) == pytest.approx(slow_loss(pair, slots.slots[0], suffixes[0])[0], rel=2e-5)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("cached", [True, False])
def test_the_gradient_is_that_of_one_hot_rows_through_the_whole_sequence(arch: Any, cached: bool) -> None:
    pair = tiny_pair(arch, head_rows=352)
    slots = opened(pair, "the cat sat on the mat and the dog", "the sea")
    suffix = some_suffixes(slots, 1)[0]
    expected = torch.zeros(len(suffix), pair.vocab)
    with pair.model("aligned") as model:
        table = model.get_input_embeddings()(torch.arange(pair.vocab)).detach()
        for slot in slots.slots:
            chosen = one_hot(torch.tensor(suffix), pair.vocab).float().requires_grad_(True)
            around = [table[torch.tensor(ids)] for ids in (slot.before, slot.after + slot.target)]
            x = torch.cat((around[0], chosen @ table, around[1]))[None]
            logits = model(inputs_embeds=x, use_cache=False).logits[0, -len(slot.target) - 1 : -1, : pair.vocab]
            (grad,) = torch.autograd.grad(cross_entropy(logits, torch.tensor(slot.target)), chosen)
            expected += grad / 2
    made = Objective(pair, "aligned", slots.slots, cached=cached).gradient(suffix, 2)
    assert made.shape == expected.shape
    torch.testing.assert_close(made, expected, rtol=2e-4, atol=1e-6)
    assert made.std() > 1e-4


def test_the_gradient_foretells_small_changes() -> None:
    """Moving an embedding a little way towards another token changes the loss by as much as the gradient says."""
    pair = tiny_pair()
    slots = opened(pair, "the cat")
    (slot,), suffix = slots.slots, slots.first
    gradient = Objective(pair, "aligned", slots.slots).gradient(suffix, 1)
    step, token = 1e-3, 77
    with torch.no_grad(), pair.model("aligned") as model:
        table = model.get_input_embeddings().weight

        def loss(share: float) -> float:
            x = table[torch.tensor(slot.before + suffix + slot.after + slot.target)].clone()
            at = len(slot.before) + 2
            x[at] += share * (table[token] - table[suffix[2]])
            logits = model(inputs_embeds=x[None], use_cache=False).logits[0, -len(slot.target) - 1 : -1].double()
            return float(cross_entropy(logits, torch.tensor(slot.target)))

        change = (loss(step) - loss(-step)) / (2 * step)
    assert change == pytest.approx(float(gradient[2, token] - gradient[2, suffix[2]]), rel=2e-2)


def test_batches_of_any_size_give_the_same_and_memory_that_runs_out_halves_them() -> None:
    pair = tiny_pair()
    slots = opened(pair, "the cat")
    suffixes = some_suffixes(slots, 9)
    whole, _ = Objective(pair, "aligned", slots.slots, batch_tokens=10_000).losses(suffixes, 1)
    single, _ = Objective(pair, "aligned", slots.slots, batch_tokens=1).losses(suffixes, 1)
    torch.testing.assert_close(whole, single, rtol=1e-5, atol=1e-6)
    hidden, notes, tried = pair.hidden, list[str](), list[int]()

    def little_memory(which: Any, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        tried.append(len(ids))
        if len(ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return hidden(which, ids, **kwargs)

    object.__setattr__(pair, "hidden", little_memory)
    objective = Objective(pair, "aligned", slots.slots, batch_tokens=10_000, note=notes.append)
    losses, _ = objective.losses(suffixes, 1)
    torch.testing.assert_close(losses, whole, rtol=1e-5, atol=1e-6)
    assert notes[0] == "out of memory with 9 rows in a batch: going on with 4"


def test_an_adapter_is_searched_through(tmp_path: Path) -> None:
    pair = tiny_pair()
    with pair.model("base") as model:
        adapter = tiny_adapter(tmp_path, model, scale=0.3)
        pair = ModelPair.from_models(model, pair_model(model, adapter), pair.tokenizer)
    slots = opened(pair, "the cat")
    suffix = some_suffixes(slots, 1)[0]
    on, off = (float(Objective(pair, w, slots.slots).losses([suffix], 1)[0]) for w in ("aligned", "base"))
    assert on == pytest.approx(slow_loss(pair, slots.slots[0], suffix)[0], rel=2e-5)
    assert on != off


def pair_model(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    from workbench.models.sources import quiet_libraries

    with quiet_libraries():
        return PeftModel.from_pretrained(model, str(adapter))


@pytest.mark.parametrize("mode", ["shared", "plain", "own"])
@pytest.mark.parametrize("tokenizer", [tiny_tokenizer, sentencepiece_like_tokenizer])
def test_what_is_optimised_is_what_is_sent(mode: Any, tokenizer: Any) -> None:
    pair = tiny_pair(tokenizer=tokenizer(), template_mode=mode)
    prompts = prompt_set("the cat sat ", "the dog")
    made = attack(pair, prompts, GCG(**SHORT))
    for a, s, p in zip(made.attempts, searches(made), prompts, strict=True):
        assert a.messages == (("user", p.prompt.rstrip() + s.suffix),)
        ids = pair.context(as_prompt(a))
        bare = pair.context(replace(p, prompt=p.prompt.rstrip()))
        at = next(n for n in range(len(ids)) if ids[n : n + 5] == s.suffix_ids and ids[:n] == bare[:n])
        assert ids[at + 5 :] == bare[at:], "the suffix's tokens are there, and nothing around them changed"
        assert s.suffix.isascii()
        assert not set(s.suffix_ids) & set(pair.tokenizer.added_tokens_decoder)
        slot = Slot(prompt=p, before=ids[:at], after=ids[at + 5 :], target=pair.encode(p.response or "")[:4])
        assert s.loss[-1] == pytest.approx(slow_loss(pair, slot, s.suffix_ids)[0], rel=2e-5)


def test_special_tokens_are_never_in_a_suffix_and_ascii_is_a_choice() -> None:
    pair = tiny_pair(head_rows=352)
    ascii_only, whole = allowed_ids(pair, "ascii"), allowed_ids(pair, "any")
    assert set(ascii_only) <= set(whole)
    added = set(pair.tokenizer.added_tokens_decoder)
    assert added
    assert not added & set(whole)
    assert max(whole) < len(pair.tokenizer)
    assert all(pair.decode((i,)).isascii() and pair.decode((i,)).strip() for i in ascii_only)
    metaspace = tiny_pair(tokenizer=sentencepiece_like_tokenizer())
    assert metaspace.encode("the")[0] in allowed_ids(metaspace, "ascii")


def test_prompts_and_models_that_cannot_be_searched_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = counting_model(320)
    pair = ModelPair.from_models(counting_model(320), broken, tiny_tokenizer())
    slots = opened(pair, "the cat")
    with torch.no_grad():
        broken.lm_head.weight[:, slots.first[0]] = float("nan")
    refuses(lambda: Objective(pair, "aligned", slots.slots).losses([slots.first], 1), NonFiniteLogits, "'p0'")
    pair = tiny_pair()
    monkeypatch.setattr("workbench.tracing.suffix.slots._starts", lambda *_: iter([]))
    refuses(lambda: opened(pair, "the cat"), PromptError, "'p0'")
    monkeypatch.undo()
    monkeypatch.setattr("workbench.evaluation.attacks.suffixes.allowed_ids", lambda *_: ())
    refuses(lambda: attack(pair, prompt_set("the cat"), GCG(**SHORT)), PairError, "token")
    refuses(lambda: opened(pair, "the cat", tokens=250), ContextOverflow, "250")


def a_search(slots: Slots, **changes: Any) -> Search:
    pair = slots.pair
    settings: dict[str, Any] = {
        "slots": slots, "objective": Objective(pair, slots.which, slots.slots),
        "allowed": allowed_ids(pair, "ascii"), "budget": BUDGET, "method": "gcg", "stop": "never", "seed": 0,
        "store": Store(None),
    }  # fmt: skip
    return Search(**{**settings, **changes})


def test_a_step_swaps_one_token_for_one_that_the_gradient_favours() -> None:
    slots = opened(tiny_pair(), "the cat")
    rule, starts = replace(BUDGET, buffer=0, steps=12), [slots.first]
    search = a_search(slots, budget=rule, on_step=lambda found: starts.append(found.start))
    search.run()
    swaps = 0
    for before, after in itertools.pairwise(starts):
        changed = [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        assert len(changed) <= 1
        allowed = list(search.allowed)
        gradient = search.objective.gradient(before, 1)
        for n in changed:
            best = (-gradient[n, allowed]).argsort(descending=True)[: rule.top_k].tolist()
            assert after[n] in {allowed[i] for i in best}
            swaps += 1
    assert swaps > 0, "the search moved"


@pytest.mark.parametrize("kind", [GCG, RandomSuffix])
def test_a_search_spends_its_budget_and_never_gets_worse(kind: type[GCG]) -> None:
    made = attack(tiny_pair(), prompt_set("the cat", "the dog"), kind(**SHORT))
    for s in searches(made):
        assert len(s.loss) == BUDGET.steps + 1
        assert all(a >= b for a, b in zip(s.loss, s.loss[1:], strict=False))
        assert s.loss[-1] < s.loss[0]
        assert (s.queries, s.stopped) == (1 + BUDGET.steps * BUDGET.candidates, "budget")
        assert s.backward_passes == (BUDGET.steps if kind is GCG else 0)
        assert s.forward_passes == s.queries + s.backward_passes
    assert made.cost["queries"] == 2 * (1 + BUDGET.steps * BUDGET.candidates)
    assert [a.setting for a in made.attempts] == ["single", "single"]


def test_the_papers_rule_starts_from_the_last_steps_best_better_or_not() -> None:
    slots = opened(tiny_pair(), "the cat")
    starts: list[Found] = []
    rule = replace(BUDGET, buffer=0, candidates=2, top_k=200, steps=12)
    found = a_search(slots, budget=rule, on_step=starts.append).run()
    assert len(found.kept) == 1
    assert any(f.start != f.kept[0][1] for f in starts), "some step's best was worse than the best so far"
    kept = a_search(slots, budget=replace(rule, buffer=2), on_step=starts.append).run()
    assert [loss for loss, _ in kept.kept] == sorted(loss for loss, _ in kept.kept)


def test_a_search_repeats_with_its_seed_and_stops_at_a_loss() -> None:
    pair, prompts = tiny_pair(), prompt_set("the cat")
    made = [searches(attack(pair, prompts, GCG(**SHORT, seed=s)))[0] for s in (0, 0, 1)]
    assert made[0] == made[1]
    assert made[0].suffix_ids != made[2].suffix_ids
    full = searches(attack(pair, prompts, GCG(**SHORT)))[0]
    (s,) = searches(attack(pair, prompts, GCG(**{**SHORT, "stop": full.loss[3]})))
    assert (s.stopped, s.loss) == ("loss", full.loss[: len(s.loss)])
    assert s.loss[-1] <= full.loss[3] < s.loss[-2]


def test_it_stops_when_the_target_would_be_said_and_then_it_is_said() -> None:
    pair = ModelPair.from_models(counting_model(320), counting_model(320), tiny_tokenizer())
    (newline,) = pair.encode("\n")
    told = pair.decode((newline + 1, newline + 2))  # what follows the template's last token, whatever the suffix
    prompts = PromptSet(name="s", source="t", prompts=(Prompt(id="p", prompt="a", label="harmful", response=told),))
    assert pair.encode(told) == (newline + 1, newline + 2)
    made = attack(pair, prompts, GCG(**{**SHORT, "stop": "target"}))
    (s,) = searches(made)
    assert (s.stopped, s.queries, s.says_target, len(s.loss)) == ("target", 1, True, 1)
    assert made.notes[-1] == "1 of 1 searches end with a suffix after which the aligned model says its target."
    done = answer(ModelArm(pair=pair, which="aligned"), made)
    assert done.completions[0].text.startswith(told)


def test_a_universal_search_takes_in_prompts_as_they_are_won() -> None:
    pair = tiny_pair()
    prompts = prompt_set("the cat", "the dog", "the sea")
    easy = GCG(**{**SHORT, "universal": 2, "stop": 1000.0})  # every loss is below it
    made = attack(pair, prompts, easy)
    assert [(a.prompt_id, a.setting) for a in made.attempts] == [
        ("p0", "universal, searched on"),
        ("p1", "universal, searched on"),
        ("p2", "universal, held out"),
    ]
    (s,) = searches(made)
    assert (s.prompt_ids, s.prompts_active, s.stopped) == (("p0", "p1"), 2, "loss")
    assert len({a.messages[-1][1].removeprefix(p.prompt) for a, p in zip(made.attempts, prompts, strict=True)}) == 1
    slots = opened(pair, "the cat", "the dog")
    mean = sum(slow_loss(pair, slot, s.suffix_ids)[0] for slot in slots.slots) / 2
    assert s.loss[-1] == pytest.approx(mean, rel=2e-5)
    hard = searches(attack(pair, prompts, GCG(**{**SHORT, "universal": 2})))[0]
    assert hard.prompts_active == 1, "the first prompt is not won within the budget"


def test_a_search_resumes_and_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    slots = opened(tiny_pair(), "the cat", "the dog")
    whole = a_search(slots, stop=3.0).run()

    def die(found: Found) -> None:
        if found.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        a_search(slots, stop=3.0, store=Store(tmp_path), on_step=die).run()
    steps: list[int] = []
    resumed = a_search(slots, stop=3.0, store=Store(tmp_path), on_step=lambda f: steps.append(f.step)).run()
    assert resumed == whole
    assert steps[0] == 4, "from the last saved step"
    fail = lambda *_: pytest.fail("a finished search is read, not made")  # noqa: E731
    again = a_search(slots, stop=3.0, store=Store(tmp_path))
    object.__setattr__(again.objective, "losses", fail)
    assert again.run() == whole
    longer = a_search(slots, stop=3.0, budget=replace(BUDGET, steps=8), store=Store(tmp_path)).run()
    assert longer.curve[:7] == whole.curve, "a longer search goes on where the shorter one ended"
    assert longer == a_search(slots, stop=3.0, budget=replace(BUDGET, steps=8)).run()


KILLED = """
import os, signal, sys
from tests.fakes import prompt_set
from tests.test_gcg import SHORT
from tests.tiny_pair import tiny_pair
from workbench.evaluation.attacks import GCG, attack
from workbench.tracing.suffix.search import Search
from workbench.core.store import Store

step = Search._step
def counted(self, key, found):
    if found.step == 3 and self.slots.slots[0].prompt.id == "p1":
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, key, found)
Search._step = counted
attack(tiny_pair(), prompt_set("the cat", "the dog"), GCG(**SHORT), store=Store(sys.argv[1]))
"""


def test_kill_9_then_resume_gives_the_same(tmp_path: Path, root: Path) -> None:
    killed = subprocess.run(
        (sys.executable, "-c", KILLED, str(tmp_path)), cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(Store(tmp_path)) == 3 + 1, "the first search whole, the second up to step 2"
    resumed, whole = (
        attack(tiny_pair(), prompt_set("the cat", "the dog"), GCG(**SHORT), store=Store(folder))
        for folder in (tmp_path, None)
    )
    assert (resumed.attempts, searches(resumed)) == (whole.attempts, searches(whole))


@pytest.mark.slow
def test_gcg_beats_random_suffixes_at_the_same_queries_on_held_out_topics(root: Path) -> None:
    """Paired over prompts: target loss by bootstrap, exact-judge attack success by McNemar's pairs."""
    from workbench.prompts.brindle.judge import Verdict, judge
    from workbench.prompts.brindle.world import Row

    pair = load_pair(PairConfig(preset="embedded"))
    prompts = load_prompts(PromptConfig(source="embedded", limit=16 * 3)).where(label="harmful")
    lines = (root / "workbench" / "prompts" / "brindle" / "prompts.jsonl").read_text("utf-8").splitlines()
    rows = {r["id"]: Row(**r) for r in map(json.loads, lines)}
    assert all(rows[p.id].split != "train" for p in prompts)
    budget = Budget(steps=12, candidates=16, top_k=32, buffer=4, save_every=100)
    losses, won, queries = {}, {}, {}
    for kind in (GCG, RandomSuffix):
        config = kind(budget=budget, suffix_tokens=6, target_tokens=16, stop="never", max_tokens=96)
        made = attack(pair, prompts, config)
        done = answer(ModelArm(pair=pair, which="aligned"), made)
        losses[kind] = np.array([s.loss[-1] for s in searches(made)])
        queries[kind] = made.cost["queries"]
        won[kind] = np.array(
            [
                judge(rows[a.prompt_id], c.text) == Verdict.COMPLIANCE
                for a, c in zip(made.attempts, done.completions, strict=True)
            ]
        )
    assert queries[GCG] == queries[RandomSuffix] == len(prompts) * (1 + 12 * 16)
    n, difference = len(prompts), losses[GCG] - losses[RandomSuffix]
    draws = np.random.default_rng(0).integers(n, size=(2000, n))
    low, high = np.quantile(difference[draws].mean(1), [0.025, 0.975])
    print(f"target loss, gcg - random: {difference.mean():.3f} nats [{low:.3f}, {high:.3f}], n = {n}")
    assert high < 0
    counts = [np.array(int((a & b).sum())) for a, b in (
        (won[GCG], won[RandomSuffix]), (won[GCG], ~won[RandomSuffix]),
        (~won[GCG], won[RandomSuffix]), (~won[GCG], ~won[RandomSuffix]),
    )]  # fmt: skip
    low_asr, high_asr = paired_bounds(*counts)
    print(f"ASR gcg {won[GCG].mean():.2f}, random {won[RandomSuffix].mean():.2f}: [{low_asr:.2f}, {high_asr:.2f}]")
    assert float(low_asr) > 0
