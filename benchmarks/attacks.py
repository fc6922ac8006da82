"""Time of a step of GCG, and of answering attempts, against the plain ways of doing the same.

A plain step takes the gradient of a one-hot matrix through the whole sequence and scores one candidate after the other,
each from its first token on, by the model's own forward pass. Plain answering is the model's own `generate`, one prompt
at a time. Both get the same work as ours, and both give the same: that is asserted, not assumed.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import torch
from torch.nn.functional import cross_entropy, one_hot

from benchmarks.scoring import ratio
from workbench.core.store import Store
from workbench.evaluation.attacks import ModelArm, Prefill, answer, attack
from workbench.evaluation.records import AttackSet
from workbench.models.pair import ModelPair
from workbench.prompts.loading import Prompt, PromptConfig, load_prompts
from workbench.tracing.suffix.objective import Objective
from workbench.tracing.suffix.search import Budget, Search
from workbench.tracing.suffix.slots import Slot, Slots, Suffix, allowed_ids, open_slots

T = TypeVar("T")
PREFIX, SUFFIX, TARGET, CANDIDATES = 40, 20, 16, 64
PROMPTS, LENGTHS, ANSWER = 64, (0, 5, 10, 20), 48


# ------------------------------------------------------------------------------------------------------ a GCG step


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a search: where the suffix goes, what it starts from, and the candidates that it scores."""

    pair: ModelPair
    slots: Slots
    search: Search
    candidates: list[Suffix]

    @property
    def slot(self) -> Slot:
        return self.slots.slots[0]


def step(
    pair: ModelPair, prefix: int = PREFIX, suffix: int = SUFFIX, target: int = TARGET, candidates: int = CANDIDATES
) -> Step:
    """Make a step on a prompt that has `prefix` tokens before the suffix, its template's included."""
    allowed = allowed_ids(pair, "ascii")
    aim = pair.encode("Sure, here is how to do it. First, take the thing and put it there, then go on and on and on.")
    words = 1
    while True:
        prompt = Prompt(id="p", prompt="Tell me about" + " water" * words, label="harmful")
        slots = open_slots(pair, "aligned", [prompt], [pair.passage(prompt, aim[:target])], suffix, allowed)
        if len(slots.slots[0].before) >= prefix:
            break
        words += 1
    assert len(slots.slots[0].before) == prefix, f"no prompt of exactly {prefix} tokens"
    assert len(slots.slots[0].target) == target
    search = Search(
        slots=slots,
        objective=Objective(pair, "aligned", slots.slots),
        allowed=allowed,
        budget=Budget(steps=1, candidates=candidates, top_k=256, buffer=0, save_every=1),
        method="gcg",
        stop="never",
        seed=0,
        store=Store(None),
    )
    best = search._promising(search.objective.gradient(slots.first, 1))
    drawn = search._replacements(slots.first, best, torch.Generator().manual_seed(0))
    return Step(pair=pair, slots=slots, search=search, candidates=search._candidates(drawn, set()))


def our_step(s: Step) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient, draw and check of candidates, and their losses, as the search does it."""
    gradient = s.search.objective.gradient(s.slots.first, 1)
    drawn = s.search._replacements(s.slots.first, s.search._promising(gradient), torch.Generator().manual_seed(0))
    s.search._candidates(drawn, set())
    return gradient, s.search.objective.losses(s.candidates, 1)[0]


def plain_step(s: Step) -> tuple[torch.Tensor, torch.Tensor]:
    """The same with the model's own forward pass over whole sequences, one candidate at a time."""
    before, after, target = (torch.tensor(x) for x in (s.slot.before, s.slot.after, s.slot.target))
    first = len(before) + SUFFIX + len(after) - 1
    with s.pair.model("aligned") as model:
        table = model.get_input_embeddings().weight.detach()
        chosen = one_hot(torch.tensor(s.slots.first), s.pair.vocab).to(table.dtype).requires_grad_(True)
        ids = torch.cat((after, target))
        x = torch.cat((table[before], chosen @ table[: s.pair.vocab], table[ids]))[None]
        logits = model(inputs_embeds=x, use_cache=False).logits[0, first : first + len(target)]
        (gradient,) = torch.autograd.grad(cross_entropy(logits, target), chosen)
        drawn = s.search._replacements(s.slots.first, s.search._promising(gradient), torch.Generator().manual_seed(0))
        s.search._candidates(drawn, set())
        losses = []
        with torch.inference_mode():
            for candidate in s.candidates:
                row = torch.cat((before, torch.tensor(candidate), after, target))[None]
                logits = model(row, use_cache=False).logits[0, first : first + len(target)]
                losses.append(cross_entropy(logits, target))
    return gradient, torch.stack(losses)


# -------------------------------------------------------------------------------------------- answering attempts


def attempts(pair: ModelPair, prompts: int = PROMPTS, lengths: tuple[int, ...] = LENGTHS) -> AttackSet:
    """Make the prefill attempts of so many harmful prompts of the embedded world."""
    loaded = load_prompts(PromptConfig(source="embedded")).where(label="harmful")
    chosen = type(loaded)(name=loaded.name, source=loaded.source, prompts=loaded.prompts[:prompts])
    return attack(pair, chosen, Prefill(k=lengths, max_tokens=ANSWER))


def our_answers(pair: ModelPair, attacks: AttackSet) -> list[tuple[int, ...]]:
    made = answer(ModelArm(pair=pair, which="aligned"), attacks)
    return [c.ids for c in made.completions]


def plain_answers(pair: ModelPair, attacks: AttackSet) -> list[tuple[int, ...]]:
    """One prompt at a time, by transformers' generate."""
    out = []
    with torch.inference_mode(), pair.model("aligned") as model:
        for a in attacks.attempts:
            ids = torch.tensor([pair.context(Prompt(id="p", prompt=a.request, label="harmful")) + a.prefix_ids])
            whole = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=a.max_tokens, do_sample=False,
                eos_token_id=sorted(pair.eos_ids), pad_token_id=0,
            )  # fmt: skip
            out.append(tuple(whole[0, ids.shape[1] :].tolist()))
    return out


# --------------------------------------------------------------------------------------------------------- measure


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What a call took: seconds on the clock, and seconds of processor time over all threads.

    Processor time is what a call costs on a machine that others use too.
    """

    wall_s: float
    cpu_s: float


def timed(run: Callable[[], T]) -> tuple[Timed, T]:
    """Return how long a call takes, and what it returns."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    made = run()
    return Timed(wall_s=time.perf_counter() - wall, cpu_s=time.process_time() - cpu), made


def compared(ours: list[Timed], plain: list[Timed]) -> dict[str, object]:
    """Return both variants' seconds, and plain over ours round by round."""
    return {
        "seconds": {"ours": [asdict(t) for t in ours], "plain": [asdict(t) for t in plain]},
        "plain_over_ours": ratio([t.wall_s for t in plain], [t.wall_s for t in ours]),
        "plain_over_ours_cpu": ratio([t.cpu_s for t in plain], [t.cpu_s for t in ours]),
    }


def measure_gcg(pair: ModelPair, rounds: int = 3, candidates: int = CANDIDATES) -> dict[str, object]:
    """Return plain step over our step, after checking that gradient and losses are the same to rounding."""
    s = step(pair, candidates=candidates)
    (gradient, losses), (plain_gradient, plain_losses) = our_step(s), plain_step(s)
    torch.testing.assert_close(gradient, plain_gradient.float(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(losses, plain_losses.double(), rtol=1e-4, atol=1e-5)
    times = [(timed(lambda: our_step(s))[0], timed(lambda: plain_step(s))[0]) for _ in range(rounds)]
    shape = {"prefix": PREFIX, "suffix": SUFFIX, "after": len(s.slot.after), "target": TARGET, "candidates": candidates}
    return {"shape_tokens": shape, **compared([t[0] for t in times], [t[1] for t in times])}


def measure_answers(pair: ModelPair, rounds: int = 3, prompts: int = PROMPTS) -> dict[str, object]:
    """Return the plain loop over ours, after checking that the greedy answers are identical.

    The plain loop takes a minute and more: it runs once, ours `rounds` times.
    """
    attacks = attempts(pair, prompts)
    plain_answers(pair, replace(attacks, attempts=attacks.attempts[:2]))  # libraries load what they load on first use
    expected = our_answers(pair, attacks)
    took, plain = timed(lambda: plain_answers(pair, attacks))
    different = sum(a != b for a, b in zip(expected, plain, strict=True))
    assert not different, f"{different} of {len(expected)} answers differ"
    ours = [timed(lambda: our_answers(pair, attacks))[0] for _ in range(rounds)]
    shape = {"prompts": prompts, "prefix_tokens": LENGTHS, "answer_tokens": ANSWER, "attempts": len(expected)}
    return {"shape": shape, **compared(ours, [took] * rounds)}
