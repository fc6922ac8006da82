"""The effect of penalties along given responses: KL from aligned, leverage and its bound, over the full vocabulary.

Both models run over a response once, for all penalties. Response positions reach the output heads a few rows at a time,
and each slice is reduced to numbers before the next one: no array of prompts x positions x vocabulary exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.batching import in_batches
from workbench.core.errors import NonFiniteLogits
from workbench.core.passages import Passage
from workbench.core.provenance import settings_of
from workbench.core.records import Label
from workbench.core.statistics import LEAST, PromptSample, interval
from workbench.core.store import Store, key_of
from workbench.decoding.config import PenaltyConfig, shape_at
from workbench.decoding.penalty import leverage_bound, penalise
from workbench.evaluation.attacks import Prefill
from workbench.evaluation.attacks.targets import find_targets, target_of
from workbench.evaluation.attacks.task import Task
from workbench.evaluation.penalties import SweepConfig
from workbench.evaluation.records import Leverage
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair, Which
from workbench.prompts.loading import PromptSet
from workbench.tracing.metrics import LOGPROB_FLOOR, excess_mass, kl_nats
from workbench.tracing.scoring import FIRST_TOKENS, passage_rows, rows_at_once

MOVES: dict[str, str] = {
    "kl_nats": "KL(penalised ‖ aligned), nats",
    "leverage": "TV(penalised, aligned), 0 to 1",
    "bound": "the leverage as the strength grows without bound; NaN where there is no such limit",
    "changed": "1 where the most likely token is not aligned's, else 0",
    "excess_mass": "TV(base, aligned), 0 to 1",
}
"""The numbers of every position, in this order -> what each is."""

Moves = Float[np.ndarray, "quantity penalty _"]
"""One response's numbers, in the order of MOVES and of the penalties."""


def response_texts(
    pair: ModelPair, prompts: PromptSet, config: SweepConfig, store: Store
) -> tuple[list[Passage], list[str]]:
    """Return the responses along which penalties are measured, cut to `config.text_tokens`, with notes on them.

    A harmful prompt has its compliant answer. A harmless one has its given response, else aligned's greedy answer.
    """
    most, system = config.text_tokens, config.system_prompt
    how = Prefill(k=("full",), target=target_of(prompts), system_prompt=system)
    found = find_targets(Task.of(pair, prompts, how, store), how)
    responses = [*zip(found.prompts, found.ids, strict=True)]
    chosen, notes = [p for p in prompts if p.label == "harmless"], found.notes
    alone = [p for p in chosen if not p.response]
    contexts = [pair.context(p, "aligned", system_prompt=system) for p in alone]
    drawing = GenerateConfig(max_tokens=most, batch_tokens=config.batch_tokens)
    made = generate(pair, "aligned", contexts, drawing, store=store, what="answering harmless prompts")
    own = {p.id: g.ids for p, g in zip(alone, made, strict=True)}
    responses += [(p, own.get(p.id) or pair.encode(p.response or "")) for p in chosen]
    if alone:
        notes.append(
            f"{len(alone)} of {len(chosen)} harmless prompts have no given response: KL is measured along aligned's "
            "own greedy answers to them."
        )
    return [pair.passage(p, ids[:most], system_prompt=system) for p, ids in responses if ids], notes


def measure_moves(
    pair: ModelPair,
    passages: Sequence[Passage],
    penalties: Sequence[PenaltyConfig],
    *,
    reference: Which = "aligned",
    batch_tokens: int | None = None,
    store: Store | None = None,
    what: str | None = "measuring penalties",
) -> tuple[Moves, ...]:
    """Return each response's numbers under every penalty, in the order given; position 1 is its first token.

    `reference` is the model that a penalised distribution is compared with: "base" where the pair is aligned and a
    SafeDecoding expert. Finished batches are stored in `store`. Raises NonFiniteLogits naming the response.
    """
    settings = [settings_of(p) for p in penalties]
    keys = [
        key_of("penalty moves 3", pair.fingerprint, p.context("base"), p.aligned, p.response, settings, reference)
        for p in passages
    ]

    def work(rows: list[int], finished: Callable[[int, Moves], None]) -> None:
        for n, moves in zip(rows, _moves(pair, [passages[n] for n in rows], penalties, reference), strict=True):
            finished(n, moves)

    with torch.inference_mode():
        return tuple(
            in_batches(
                keys,
                [p.length for p in passages],
                work,
                budget=pair.budget(batch_tokens, FIRST_TOKENS),
                store=Store.of(store),
                entry=lambda moves: {"moves": moves},
                read=lambda entry: entry["moves"],
                what=what,
                unit="responses",
            )
        )


def _moves(
    pair: ModelPair, passages: Sequence[Passage], penalties: Sequence[PenaltyConfig], reference: Which
) -> list[Moves]:
    base, aligned = passage_rows(pair, "base", passages), passage_rows(pair, "aligned", passages)
    position = torch.tensor([t + 1 for p in passages for t in range(len(p.response))], device=pair.device)
    _, together = rows_at_once(pair)
    parts = []
    for start in range(0, len(position), together):
        rows = slice(start, start + together)
        l_base = pair.logits("base", base[rows], float32=True).log_softmax(-1)
        l_aligned = pair.logits("aligned", aligned[rows], float32=True).log_softmax(-1)
        parts.append(_moved(l_base, l_aligned, penalties, position[rows], reference).cpu())
    whole = torch.cat(parts, -1).numpy().astype(np.float32)
    out, start = [], 0
    for passage in passages:
        own = np.ascontiguousarray(whole[..., start : start + len(passage.response)])
        if np.isnan(own[[0, 1, 4]]).any():
            raise NonFiniteLogits(
                f"a model returned NaN or infinite logits on the response to {passage}: check the weights and the "
                f"dtype ({pair.dtype}); float32 is safe"
            )
        out.append(own)
        start += len(passage.response)
    return out


def _moved(
    base: Float[Tensor, "row vocab"],
    aligned: Float[Tensor, "row vocab"],
    penalties: Sequence[PenaltyConfig],
    position: Int[Tensor, "row"],
    reference: Which,
) -> Float[Tensor, "quantity penalty row"]:
    plain = aligned if reference == "aligned" else base
    differ, top, low = excess_mass(base, aligned), plain.argmax(-1), plain.clamp(min=LOGPROB_FLOOR)
    bounds: dict[tuple[str, float], Tensor] = {}  # the limit is the same for every strength
    out = []
    for penalty in penalties:
        made = penalise(base, aligned, penalty, position=position)
        limit = (penalty.method, penalty.plausibility)
        if limit not in bounds:
            bounds[limit] = leverage_bound(base, aligned, penalty)
        nowhere = torch.tensor([shape_at(penalty, t) == 0.0 for t in position.tolist()], device=position.device)
        out.append(
            torch.stack(
                (
                    # a token that is ruled out has no probability, and 0 x its distance must stay 0
                    kl_nats(made.clamp(min=LOGPROB_FLOOR), low),
                    excess_mass(made, plain),
                    bounds[limit].masked_fill(nowhere, 0.0),
                    (made.argmax(-1) != top).float(),
                    differ,
                )
            )
        )
    return torch.stack(out, 1)


def leverages(
    names: Sequence[str], texts: Sequence[Passage], moves: Sequence[Moves], config: SweepConfig
) -> tuple[Leverage, ...]:
    """Return every penalty's leverage by position, along harmful and along harmless responses."""
    out: list[Leverage] = []
    kinds: tuple[Label, ...] = ("harmful", "harmless")
    for label in kinds:
        own = [(t, m) for t, m in zip(texts, moves, strict=True) if t.label == label]
        if not own:
            continue
        lengths = np.array([m.shape[-1] for _, m in own])
        padded = np.full((len(own), len(MOVES), len(names), lengths.max()), np.nan, np.float32)
        for row, (_, m) in zip(padded, own, strict=True):
            row[..., : m.shape[-1]] = m
        there = np.arange(lengths.max()) < lengths[:, None]
        sample = PromptSample(
            [t.name for t, _ in own], resamples=config.resamples, seed=config.seed, stream=f"sweep {label}"
        )
        for i, name in enumerate(names):
            values = dict(zip(MOVES, padded[:, :, i].swapaxes(0, 1), strict=True))
            means = {k: sample.mean(v, there) for k, v in values.items() if k != "kl_nats"}
            low, high = interval(means["leverage"], config.confidence, least=LEAST)
            numbers = {k: m.value for k, m in means.items()} | {"low": low, "high": high}
            out.append(
                Leverage(
                    penalty=name,
                    label=label,
                    position=np.arange(1, lengths.max() + 1, dtype=np.int32),
                    n=means["leverage"].n.astype(np.int32),
                    **{k: v.astype(np.float32) for k, v in numbers.items()},
                )
            )
    return tuple(out)
