"""The answers of an arm to the attempts of an attack: greedy or drawn as each attempt says, resumable, in batches.

An arm is anything that continues passages: a model of the pair, with a penalty, or with another adapter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from workbench.core.errors import ParameterError, TokenizerMismatch
from workbench.core.passages import Ids, Passage, check_fits, check_room
from workbench.core.provenance import Stopwatch
from workbench.core.store import Store
from workbench.evaluation.attacks.finetuning import check_tunable, fine_tuned
from workbench.evaluation.attacks.ranked import rank_assisted
from workbench.evaluation.attacks.task import as_prompt
from workbench.evaluation.records import AttackSet, Attempt, Completion, CompletionSet
from workbench.models.chat import tokenizer_hash
from workbench.models.generation import GenerateConfig, Generation, OnToken, generate
from workbench.models.pair import ModelPair, Which
from workbench.models.pieces import Pieces
from workbench.tracing.trajectories import THINKING_TOKENS, thinking_blocks


@runtime_checkable
class Arm(Protocol):
    """Anything that continues passages as our generator does.

    `name` is its name in results, `pair` makes the passages, and `which` of its models answers. `continue_` returns a
    continuation of each passage, in order, calls `on_token(index of the passage, token id)` if given, and stores
    finished work in `store`.
    """

    @property
    def name(self) -> str: ...

    @property
    def pair(self) -> ModelPair: ...

    @property
    def which(self) -> Which: ...

    def continue_(
        self,
        passages: Sequence[Passage],
        config: GenerateConfig,
        *,
        store: Store,
        on_token: OnToken | None,
        what: str | None,
    ) -> tuple[Generation, ...]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelArm:
    """The base or the aligned model of a pair; `called` names the arm of a pair with another adapter."""

    pair: ModelPair
    which: Which
    called: str | None = None

    @property
    def name(self) -> str:
        return self.called or self.which

    def on(self, pair: ModelPair) -> ModelArm:
        """Return the same arm, under the same name, on another pair."""
        return replace(self, pair=pair)

    def continue_(
        self,
        passages: Sequence[Passage],
        config: GenerateConfig,
        *,
        store: Store,
        on_token: OnToken | None,
        what: str | None,
    ) -> tuple[Generation, ...]:
        contexts = [p.whole(self.which) for p in passages]
        return generate(self.pair, self.which, contexts, config, on_token=on_token, store=store, what=what)


def answer(
    arm: Arm,
    attacks: AttackSet,
    *,
    store: Store | None = None,
    batch_tokens: int | None = None,
    on_token: OnToken | None = None,
    quiet: bool = False,
) -> CompletionSet:
    """Let an arm answer every attempt, after its prefix; completions come in the attempts' order.

    Attempts with the same settings go together, in batches of similar length; equal passages are answered once. A
    completion's text is what follows the prefix, without the token that ends the turn. A thinking arm thinks first, up
    to THINKING_TOKENS tokens, and the prefix comes after its thinking block; only the visible answer is stored. An
    attack on the weights fine-tunes the arm before it answers; under a rank-assisted one base picks among its tokens.
    `on_token(index of the attempt, token id)` is called for each chosen token. `quiet`: no progress bar.

    Raises, before any work, TokenizerMismatch where the attempts were made with another tokenizer or template, and
    ContextOverflow where an attempt and its answer exceed the context.
    """
    store = Store.of(store)
    arm = fine_tuned(arm, attacks, store)
    watch = Stopwatch("answer", {"arm": arm.name, "attack": attacks.attack, "batch_tokens": batch_tokens})
    pair = arm.pair
    mine = tokenizer_hash(pair.tokenizer)
    if mine != attacks.tokenizer:
        raise TokenizerMismatch(
            f"the attempts of {attacks.attack!r} were made with tokenizer {attacks.tokenizer} and arm {arm.name!r} has "
            f"{mine}, where their prefixes are other tokens. Make the attack with this arm's pair"
        )
    attempts = attacks.attempts
    passages = [pair.passage(as_prompt(a), a.prefix_ids) for a in attempts]
    for passage, a in zip(passages, attempts, strict=True):
        check_room([passage], pair.context_length, a.max_tokens)
    passages, notes = _after_thinking(arm, attempts, passages, store, batch_tokens)
    steered, made = rank_assisted(arm, attacks, ModelArm), dict[int, Generation]()
    for config, rows in _alike(attempts, batch_tokens).items():
        places: dict[tuple[Ids, Ids, Ids], list[int]] = defaultdict(list)
        for n in rows:
            p = passages[n]
            places[p.aligned, p.context("base"), p.response].append(n)
        told = None if on_token is None else _for_attempts(on_token, list(places.values()))
        drawn = f", t={config.temperature:g} p={config.top_p:g} k={config.top_k}" if config.temperature else ""
        what = None if quiet else f"{arm.name} answers {attacks.attack}{drawn}"
        different = [passages[same[0]] for same in places.values()]
        answers = steered.continue_(different, config, store=store, on_token=told, what=what)
        for same, one in zip(places.values(), answers, strict=True):
            made.update(dict.fromkeys(same, one))
    pieces, seen = Pieces(pair.tokenizer), {k: getattr(pair, k) for k in ("template_mode", "thinking")}
    return CompletionSet(
        run=watch.record(pair, resolved={"pair": pair.name, **seen, "tokenizer": mine}, seed=attacks.run.seed),
        arm=arm.name,
        completions=tuple(_completion(pieces, a, made[n]) for n, a in enumerate(attempts)),
        notes=notes,
    )


def check_attackable(arm: Arm, attacks: AttackSet) -> None:
    """Raise ParameterError for an arm that cannot be fine-tuned, or steered by base, as the attack does."""
    check_tunable(arm, attacks)
    rank_assisted(arm, attacks, ModelArm)


def _alike(attempts: Sequence[Attempt], batch_tokens: int | None) -> dict[GenerateConfig, list[int]]:
    """Group attempts by their sampling; the seeds of greedy ones do not count."""
    groups: dict[GenerateConfig, list[int]] = defaultdict(list)
    for n, a in enumerate(attempts):
        drawn = {k: getattr(a, k) for k in ("max_tokens", "temperature", "top_p", "top_k")}
        seed = a.seed if a.temperature > 0 else 0
        groups[GenerateConfig(**drawn, seed=seed, batch_tokens=batch_tokens)].append(n)
    return groups


def _for_attempts(on_token: OnToken, places: list[list[int]]) -> OnToken:
    def told(index: int, token: int) -> None:
        for n in places[index]:
            on_token(n, token)

    return told


def _after_thinking(
    arm: Arm, attempts: Sequence[Attempt], passages: list[Passage], store: Store, batch_tokens: int | None
) -> tuple[list[Passage], tuple[str, ...]]:
    """Let a thinking arm think before each different prompt; return the passages with their thinking blocks."""
    pair = arm.pair
    if not pair.thinking or not passages:
        return passages, ()
    if pair.think_end_id is None:
        raise ParameterError(
            f"thinking is on, but the tokenizer of {pair.name} has no end-of-thinking token: set thinking=False"
        )
    gap = pair.encode("\n\n")
    longest = max(p.length + a.max_tokens for p, a in zip(passages, attempts, strict=True))
    room = min(THINKING_TOKENS, pair.context_length - longest - len(gap) - 1)
    check_fits("the longest attempt, with its answer and room to think,", longest + len(gap) + 2, pair.context_length)
    different = {p.context(arm.which): replace(p, response=(), given=0) for p in reversed(passages)}
    config = GenerateConfig(max_tokens=room, stop_ids=(pair.think_end_id,), batch_tokens=batch_tokens)
    what = f"{arm.name} thinks"
    made = arm.continue_(list(different.values()), config, store=store, on_token=None, what=what)
    blocks, closed = thinking_blocks(pair, made)
    thought = {prompt: block + gap for prompt, block in zip(different, blocks, strict=True)}
    after = [
        replace(p, aligned=p.aligned + t, base=None if p.base is None else p.base + t)
        for p in passages
        for t in (thought[p.context(arm.which)],)
    ]
    note = f"{closed} of {len(blocks)} thinking blocks did not end within {room} tokens and were closed there."
    return after, (note,) if closed else ()


def _completion(pieces: Pieces, attempt: Attempt, made: Generation) -> Completion:
    kept = made.ids[:-1] if made.stop == "end" else made.ids
    text = "".join(p.text for p in pieces.sequence(kept, attempt.prefix_ids))
    stop = "length" if made.stop == "context" else made.stop
    return Completion(attempt_id=attempt.attempt_id, ids=made.ids, text=text, stop=stop)
