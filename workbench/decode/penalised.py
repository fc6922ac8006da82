"""Penalised generation: from a pair, contexts and a DecodeConfig to Continuations with their ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from workbench.decode.config import PenaltyConfig, check_generates
from workbench.decode.ledger import Account, Entry, measure
from workbench.decode.mixed import MixedPass, mixed
from workbench.decode.paired import OnePass, PairedSteps, TwoPasses
from workbench.decode.starts import Contexts, Start, check_room, starts_of
from workbench.decode.steps import PenalisedSteps, distributions
from workbench.errors import ParameterError
from workbench.generate import STOPS, GenerateConfig, Generation, Row, draw, generation_keys, in_batches, sampler
from workbench.pair import ModelPair
from workbench.pieces import Pieces
from workbench.prompts import PromptSet
from workbench.provenance import Stopwatch, settings_of
from workbench.records import LEDGER, Continuation, Continuations
from workbench.store import Entry as Stored
from workbench.store import Store, key_of

OnEntry = Callable[[int, Entry], None]
COUNTS = ("rank_base", "rank_aligned")


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """Say how to continue under a penalty.

    `generation` is how tokens are chosen, as for `generate`. `prefix_tokens` gives each response the first tokens of
    the prompt's own response, `prefill` the same text for all; both count as positions of the response. `shown_k`
    entries of the most likely tokens, with and without the penalty, are kept for every token; 0 keeps none.
    """

    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    generation: GenerateConfig = field(default_factory=GenerateConfig)
    prefix_tokens: int = 0
    prefill: str = ""
    system_prompt: str | None = None
    shown_k: int = 10

    def __post_init__(self) -> None:
        for name in ("prefix_tokens", "shown_k"):
            if getattr(self, name) < 0:
                raise ParameterError(f"{name} is {getattr(self, name)!r}; it must be at least 0")
        if self.prefix_tokens and self.prefill:
            raise ParameterError(
                f"prefix_tokens={self.prefix_tokens} and prefill={self.prefill[:40]!r} were both given: a response "
                "starts with one of them"
            )


@dataclass(frozen=True, kw_only=True)
class _Made:
    """One continuation with its ledger."""

    generation: Generation
    account: Account


def decode(
    pair: ModelPair,
    contexts: Contexts,
    config: DecodeConfig | None = None,
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
    config = config or DecodeConfig()
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
    return _assembled(pair, starts, made, config, named, notes, watch)


def _continued(
    pair: ModelPair,
    starts: Sequence[Start],
    config: DecodeConfig,
    on_token: OnEntry | None,
    store: Store,
    what: str | None,
) -> list[_Made]:
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

    def work(rows: list[int], finished: Callable[[int, _Made], None]) -> None:
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
            finished=lambda i, g: finished(i, _Made(generation=g, account=steps.account(i))),
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


def _entry(made: _Made) -> dict[str, np.ndarray]:
    arrays = {"ids": np.array(made.generation.ids, np.int32), "stop": np.array([STOPS.index(made.generation.stop)])}
    return {**arrays, **vars(made.account)}


def _read(stored: Stored) -> _Made:
    account = Account(**{name: stored[name] for name in Account.__dataclass_fields__})
    generation = Generation(ids=tuple(stored["ids"].tolist()), stop=STOPS[int(stored["stop"][0])])
    return _Made(generation=generation, account=account)


# ------------------------------------------------------------------------------------------------- the record


def _assembled(
    pair: ModelPair,
    starts: Sequence[Start],
    made: Sequence[_Made],
    config: DecodeConfig,
    prompts: PromptSet | None,
    notes: list[str],
    watch: Stopwatch,
) -> Continuations:
    rows, width = len(made), max((len(m.generation.ids) for m in made), default=0)
    shown = 2 * min(config.shown_k, pair.vocab)

    def padded(fill: float | int | bool, dtype: type, *axes: int) -> np.ndarray:
        return np.full((rows, width, *axes), fill, dtype)

    ids, plain, mask = padded(-1, np.int32), padded(-1, np.int32), padded(False, np.bool_)
    partial, special, position = padded(False, np.bool_), padded(False, np.bool_), padded(0, np.int32)
    topk, logprobs = padded(-1, np.int32, shown), padded(np.nan, np.float32, shown, 3)
    numbers = {name: padded(0, np.int32) if name in COUNTS else padded(np.nan, np.float32) for name in LEDGER}
    display = Pieces(pair.tokenizer)
    texts: list[tuple[str, ...]] = []
    rows_made: list[Continuation] = []
    for n, (start, m) in enumerate(zip(starts, made, strict=True)):
        size = len(m.generation.ids)
        pieces = display.sequence(m.generation.ids, context=start.aligned_ids())
        texts.append(tuple(piece.text for piece in pieces))
        text = "".join(texts[-1][:-1] if m.generation.stop == "end" else texts[-1])
        rows_made.append(_continuation(pair, start, m.generation, text, display, config))
        if not size:
            continue
        ids[n, :size], plain[n, :size], mask[n, :size] = m.generation.ids, m.account.plain_ids, True
        partial[n, :size] = [piece.partial for piece in pieces]
        special[n, :size] = [piece.special for piece in pieces]
        position[n, :size] = m.account.position
        topk[n, :size], logprobs[n, :size] = m.account.topk_ids, m.account.topk_logprobs
        for name, values in zip(LEDGER, m.account.numbers.T, strict=True):
            numbers[name][n, :size] = values
    label_ids = np.unique(np.concatenate((ids.ravel(), plain.ravel(), topk.ravel())))
    label_ids = label_ids[label_ids >= 0].astype(np.int32)
    safe = config.penalty.method == "safe_decoding"
    original, expert = (f"base of {pair.name}", f"aligned of {pair.name}") if safe else (None, None)
    notes = notes + _said(pair, starts, made, config)
    return Continuations(
        run=watch.record(
            resolved={
                "pair": pair.name,
                "template_mode": pair.template_mode,
                "dtype": str(pair.dtype).removeprefix("torch."),
                "pair_notes": pair.notes,
                **({} if prompts is None else {"prompts": prompts.name, "prompts_source": prompts.source}),
            },
            seed=config.generation.seed,
            device=str(pair.device),
            fingerprint=pair.fingerprint,
        ),
        prompt_set="in memory" if prompts is None else prompts.name,
        classroom_safe=prompts is not None and prompts.classroom_safe,
        template_mode=pair.template_mode,
        penalty=settings_of(config.penalty),
        generation=settings_of(config.generation),
        original=original,
        expert=expert,
        notes=tuple(notes),
        continuations=tuple(rows_made),
        pieces=tuple(texts),
        token_ids=ids,
        mask=mask,
        partial=partial,
        special=special,
        position=position,
        plain_ids=plain,
        topk_ids=topk,
        topk_logprob_base_nats=np.ascontiguousarray(logprobs[..., 0]),
        topk_logprob_aligned_nats=np.ascontiguousarray(logprobs[..., 1]),
        topk_logprob_penalised_nats=np.ascontiguousarray(logprobs[..., 2]),
        label_ids=label_ids,
        labels=tuple(display.label(i) for i in label_ids.tolist()),
        **numbers,
    )


def _continuation(
    pair: ModelPair, start: Start, made: Generation, text: str, display: Pieces, config: DecodeConfig
) -> Continuation:
    p = start.prompt
    given = display.sequence(start.prefix, context=start.aligned)
    return Continuation(
        name=start.name if p is None else p.id,
        prompt=pair.decode(start.aligned) if p is None else p.prompt,
        label="unlabelled" if p is None else p.label,
        category=None if p is None else p.category,
        pair_id=None if p is None else p.pair_id,
        system_prompt=config.system_prompt,
        context_tokens=len(start.aligned),
        prefix_tokens=len(start.prefix),
        prefix="".join(piece.text for piece in given),
        text=text,
        stop=made.stop,
    )


def _said(pair: ModelPair, starts: Sequence[Start], made: Sequence[_Made], config: DecodeConfig) -> list[str]:
    notes = []
    full = [(s, m) for s, m in zip(starts, made, strict=True) if m.generation.stop == "context"]
    if full:
        s, m = full[0]
        notes.append(
            f"{len(full)} of {len(made)} continuations filled the model's context of {pair.context_length:,} tokens "
            f"before max_tokens={config.generation.max_tokens}, and end there: the first is {s.name}, after "
            f"{len(m.generation.ids)} tokens."
        )
    if config.penalty.method == "safe_decoding":
        notes.append(
            f"SafeDecoding: original is base and expert is aligned of {pair.name!r}. Where its strength is 0 the "
            "original continues alone."
        )
    return notes


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
