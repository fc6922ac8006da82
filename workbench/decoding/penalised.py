"""Penalised generation: from a pair, contexts and a DecodeConfig to Continuations with their ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from workbench.core.batching import in_batches
from workbench.core.configs import takes_fields
from workbench.core.passages import Passage
from workbench.core.provenance import Stopwatch, settings_of
from workbench.core.store import Entry as Stored
from workbench.core.store import Store, key_of
from workbench.decoding.config import PenaltyConfig, check_generates
from workbench.decoding.contexts import Contexts, DecodeConfig, check_continues, passages_of
from workbench.decoding.continuations import Made, assembled
from workbench.decoding.ledger import Account, Entry, measure
from workbench.decoding.mixed import mixed
from workbench.decoding.paired import paired_steps
from workbench.decoding.records import LEDGER, Continuations
from workbench.decoding.steps import PenalisedSteps, distributions
from workbench.models.generation import FIRST_TOKENS, Generation, Row, check_finite, draw, generation_keys, noise_key
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

    `contexts` are a PromptSet, prompts, passages, or lists of token ids. `on_token(index, entry)` is called for each
    token; where memory runs out and the batch is halved, a row starts again at its first position. Finished
    continuations go to `store`, also when the call is interrupted. Batches, seeds and stops are those of `generate`:
    with strength 0 the continuations are equal, token for token. A row that fills the model's context before max_tokens
    ends there, with stop "context" and a note.

    Raises ParameterError for a penalty that no generator may use (see `check_generates`), PromptError for an empty
    prompt or context, ContextOverflow for one without room for a single token, all before any work; NonFiniteLogits
    where a model returns NaN or infinity.
    """
    check_generates(config.penalty)
    parts = {name: settings_of(getattr(config, name)) for name in ("penalty", "generation")}
    watch = Stopwatch("decode", {**settings_of(config), **parts})
    passages, asked, notes = passages_of(pair, list(contexts), config)
    made = _continued(pair, passages, config, on_token, Store.of(store), what)
    named = contexts if isinstance(contexts, PromptSet) else None
    return assembled(pair, passages, asked, made, config, named, notes, watch)


def _continued(
    pair: ModelPair,
    passages: Sequence[Passage],
    config: DecodeConfig,
    on_token: OnEntry | None,
    store: Store,
    what: str | None,
) -> list[Made]:
    drawing = config.generation
    seeds = generation_keys(pair, "aligned", [p.whole("aligned") for p in passages], drawing)
    settings = {k: v for k, v in settings_of(drawing).items() if k != "batch_tokens"}
    rules = (settings_of(config.penalty), settings, config.shown_k)
    keys = [
        key_of("decoding 2", pair.fingerprint, p.whole("base"), p.whole("aligned"), len(p.response), *rules)
        for p in passages
    ]
    limits = [min(drawing.max_tokens, pair.context_length - p.length) for p in passages]
    if on_token is not None:
        for i, key in enumerate(keys):
            if key in store:
                before = _read(store.read(key))
                for t, token in enumerate(before.generation.ids):
                    on_token(i, before.account.entry(t, token))

    def work(rows: list[int], finished: Callable[[int, Made], None]) -> None:
        drawn = [Row(index=i, limit=limits[i], key=noise_key(drawing, seeds[i])) for i in rows]
        batch = [passages[i] for i in rows]
        paired = paired_steps(pair, run, batch, max(row.limit for row in drawn))
        steps = PenalisedSteps(paired, config, drawn, [len(p.response) for p in batch])
        ended: list[tuple[int, Generation]] = []
        told = None if on_token is None else lambda i, token: on_token(i, steps.last(i, token))
        try:
            draw(pair, steps, drawn, drawing, on_token=told, finished=lambda i, g: ended.append((i, g)))
        finally:  # the ledger is read once, also when the drawing is interrupted
            for i, g in ended:
                finished(i, Made(generation=g, account=steps.account(i)))

    with torch.inference_mode(), contextlib.ExitStack() as stack:
        run = stack.enter_context(mixed(pair)) if any(key not in store for key in keys) else None
        return in_batches(
            keys,
            [p.length + limit for p, limit in zip(passages, limits, strict=True)],
            work,
            budget=pair.budget(drawing.batch_tokens, FIRST_TOKENS),
            store=store,
            entry=_entry,
            read=_read,
            what=what,
        )


def _entry(made: Made) -> dict[str, np.ndarray]:
    return {**made.generation.entry(), **vars(made.account)}


def _read(stored: Stored) -> Made:
    account = Account(**{name: stored[name] for name in Account.__dataclass_fields__})
    return Made(generation=Generation.read(stored), account=account)


@dataclass(frozen=True, kw_only=True, eq=False)
class NextToken:
    """Both models' and the penalised next-token log-probabilities at one position, with the ledger's numbers."""

    position: int
    base: Float[np.ndarray, "vocab"]
    aligned: Float[np.ndarray, "vocab"]
    penalised: Float[np.ndarray, "vocab"]
    strength: float
    risk: float
    excess_mass: float
    leverage: float
    leverage_bound: float


def next_token(pair: ModelPair, passage: Passage, penalty: PenaltyConfig) -> NextToken:
    """Return the distributions of the token after a passage, under any finite strength, without generating.

    Raises PromptError for an empty context, ContextOverflow for one that fills the model's context.
    """
    check_continues(pair, [passage])
    given = len(passage.response)
    position = 1 + (given if penalty.count_from == "response" else 0)
    with torch.inference_mode():
        base, aligned = paired_steps(pair, None, [passage], 0).logits()
        check_finite("base", base, [0], 1)
        check_finite("aligned", aligned, [0], 1)
        d = distributions(base, aligned, penalty, [position])
        numbers = dict(zip(LEDGER, measure(d, d.penalised.logprobs.argmax(-1))[0].tolist(), strict=True))
    names = ("strength", "risk", "excess_mass", "leverage", "leverage_bound")
    return NextToken(
        position=given + 1,
        base=d.base[0].cpu().numpy(),
        aligned=d.aligned[0].cpu().numpy(),
        penalised=d.penalised.logprobs[0].cpu().numpy(),
        **{name: numbers[name] for name in names},
    )
