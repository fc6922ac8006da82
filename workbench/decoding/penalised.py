"""Penalised generation: from a pair, contexts and a DecodeConfig to Continuations with their ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from workbench.core.configs import takes_fields
from workbench.core.provenance import Stopwatch, settings_of
from workbench.core.store import Entry as Stored
from workbench.core.store import Store, key_of
from workbench.decoding.config import DecodeConfig, PenaltyConfig, check_generates
from workbench.decoding.continuations import Made, assembled
from workbench.decoding.ledger import Account, Entry, measure
from workbench.decoding.mixed import MixedPass, mixed
from workbench.decoding.paired import OnePass, PairedSteps, TwoPasses
from workbench.decoding.records import LEDGER, Continuations
from workbench.decoding.starts import Contexts, Start, check_room, starts_of
from workbench.decoding.steps import PenalisedSteps, distributions
from workbench.models.generation import STOPS, Generation, Row, draw, generation_keys, in_batches, sampler
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet

OnEntry = Callable[[int, Entry], None]


@takes_fields(DecodeConfig)
def decode(
    pair: ModelPair,
    contexts: Contexts,
    config: DecodeConfig,
    *,
    on_token: OnEntry | None = None,
    store: Store | None = None,
    what: str | None = "decoding",
) -> Continuations:
    """Continue every context with the aligned model under a penalty, in the order given.

    `contexts` are a PromptSet, prompts, Starts, or lists of token ids. `on_token(index, entry)` is called as each token
    is chosen; where memory runs out and the batch is halved, a row starts again at its first position. Finished
    continuations are kept in `store`, also when the call is interrupted. Batches, seeds and stops are those of
    `generate`: with strength 0 the continuations are the same, token for token. A row that fills the model's context
    before max_tokens ends there, with stop "context", and is named in the notes.

    Raises ParameterError for a penalty that no generator may use (see `check_generates`), PromptError for an empty
    prompt or context, ContextOverflow for one that leaves no room for a single token, all before any work;
    NonFiniteLogits when a model returns NaN or infinity.
    """
    check_generates(config.penalty)
    settings = {
        **settings_of(config),
        "penalty": settings_of(config.penalty),
        "generation": settings_of(config.generation),
    }
    watch = Stopwatch("decode", settings)
    starts, notes = starts_of(
        pair,
        contexts,
        prefix_tokens=config.prefix_tokens,
        prefill=config.prefill,
        system_prompt=config.system_prompt,
    )
    check_room(pair, starts)
    made = _continued(pair, starts, config, on_token, Store(None) if store is None else store, what)
    named = contexts if isinstance(contexts, PromptSet) else None
    return assembled(pair, starts, made, config, named, notes, watch)


def _continued(
    pair: ModelPair,
    starts: Sequence[Start],
    config: DecodeConfig,
    on_token: OnEntry | None,
    store: Store,
    what: str | None,
) -> list[Made]:
    drawing = config.generation
    seeds = generation_keys(pair, "aligned", [s.aligned_ids() for s in starts], drawing)
    settings = {k: v for k, v in settings_of(drawing).items() if k != "batch_tokens"}
    rules = (settings_of(config.penalty), settings, config.shown_k)
    keys = [
        key_of("decoding 1", pair.fingerprint, s.base_ids(), s.aligned_ids(), len(s.prefix), *rules) for s in starts
    ]
    lengths = [max(len(s.base_ids()), len(s.aligned_ids())) for s in starts]
    limits = [min(drawing.max_tokens, pair.context_length - n) for n in lengths]
    if on_token is not None:
        for i, key in enumerate(keys):
            if key in store:
                before = _read(store.read(key))
                for t, token in enumerate(before.generation.ids):
                    on_token(i, before.account.entry(t, token))

    def work(rows: list[int], finished: Callable[[int, Made], None]) -> None:
        drawn = [Row(index=i, limit=limits[i], sampler=sampler(drawing, seeds[i])) for i in rows]
        base, aligned = [starts[i].base_ids() for i in rows], [starts[i].aligned_ids() for i in rows]
        steps = PenalisedSteps(
            _paired(pair, run, base, aligned, rows),
            config.penalty,
            drawing,
            rows=rows,
            given=[len(starts[i].prefix) for i in rows],
            samplers=[row.sampler for row in drawn],
            shown_k=config.shown_k,
        )
        draw(
            pair,
            steps,
            drawn,
            drawing,
            on_token=None if on_token is None else lambda i, token: on_token(i, steps.last(i, token)),
            finished=lambda i, g: finished(i, Made(generation=g, account=steps.account(i))),
        )

    with torch.inference_mode(), contextlib.ExitStack() as stack:
        run = stack.enter_context(mixed(pair)) if any(key not in store for key in keys) else None
        done = in_batches(
            keys,
            [n + limit for n, limit in zip(lengths, limits, strict=True)],
            work,
            batch_tokens=drawing.batch_tokens,
            store=store,
            entry=_entry,
            read=_read,
            what=what,
        )
    return [done[i] for i in range(len(starts))]


def _paired(
    pair: ModelPair,
    run: MixedPass | None,
    base: Sequence[tuple[int, ...]],
    aligned: Sequence[tuple[int, ...]],
    rows: Sequence[int],
) -> PairedSteps:
    return TwoPasses(pair, base, aligned, rows) if run is None else OnePass(pair, run, base, aligned, rows)


def _entry(made: Made) -> dict[str, np.ndarray]:
    arrays = {"ids": np.array(made.generation.ids, np.int32), "stop": np.array([STOPS.index(made.generation.stop)])}
    return {**arrays, **vars(made.account)}


def _read(stored: Stored) -> Made:
    account = Account(**{name: stored[name] for name in Account.__dataclass_fields__})
    generation = Generation(ids=tuple(stored["ids"].tolist()), stop=STOPS[int(stored["stop"][0])])
    return Made(generation=generation, account=account)


# ------------------------------------------------------------------------------------------------ one position


@dataclass(frozen=True, kw_only=True, eq=False)
class NextToken:
    """Hold both models' and the penalised next-token log-probabilities at one position, and the ledger's numbers."""

    position: int
    base: Float[np.ndarray, "vocab"]
    aligned: Float[np.ndarray, "vocab"]
    penalised: Float[np.ndarray, "vocab"]
    strength: float
    risk: float
    excess_mass: float
    leverage: float
    leverage_bound: float


def next_token(pair: ModelPair, start: Start, penalty: PenaltyConfig) -> NextToken:
    """Return the distributions of the next token. Any finite strength is taken, below -1 too: nothing is generated.

    Raises PromptError for an empty context, ContextOverflow for one that fills the model's context.
    """
    (start,), _ = starts_of(pair, [start], prefix_tokens=0, prefill="", system_prompt=None)
    check_room(pair, [start])
    position = 1 + (len(start.prefix) if penalty.count_from == "response" else 0)
    with torch.inference_mode():
        base, aligned = TwoPasses(pair, [start.base_ids()], [start.aligned_ids()], [0]).logits()
        d = distributions(base, aligned, penalty, [position])
        numbers = dict(zip(LEDGER, measure(d, d.penalised.logprobs.argmax(-1))[0].tolist(), strict=True))
    names = ("strength", "risk", "excess_mass", "leverage", "leverage_bound")
    return NextToken(
        position=len(start.prefix) + 1,
        base=d.base[0].cpu().numpy(),
        aligned=d.aligned[0].cpu().numpy(),
        penalised=d.penalised.logprobs[0].cpu().numpy(),
        **{name: numbers[name] for name in names},
    )
