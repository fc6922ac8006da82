"""Let an arm answer the attempts of an attack, greedily or drawn as each attempt says; resumable, in batches.

An arm is anything that continues contexts: a model of the pair, one with a penalty, one with another adapter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from workbench.core.errors import ParameterError, TokenizerMismatch
from workbench.core.passages import check_fits
from workbench.core.provenance import Stopwatch
from workbench.core.store import Store
from workbench.evaluation.attacks.finetuning import fine_tuned
from workbench.evaluation.attacks.task import as_prompt
from workbench.evaluation.records import AttackSet, Attempt, Completion, CompletionSet
from workbench.models.chat import tokenizer_hash
from workbench.models.generation import GenerateConfig, Generation, OnToken, generate
from workbench.models.pair import ModelPair, Which
from workbench.models.pieces import Pieces
from workbench.tracing.trajectories import THINKING_TOKENS, thinking_blocks

Context = tuple[int, ...]


@runtime_checkable
class Arm(Protocol):
    """What is compared: anything that continues contexts by the one generator's contract.

    `name` is what results call it, `pair` makes the contexts, in the prompt format of `which` of its models (this
    matters in template mode "own" alone). `continue_` returns a continuation for each context, in order, calls
    `on_token(index of the context, token id)` where it is given, and keeps finished work in `store`; `prefix_tokens`
    says how many response tokens each context ends with, for arms to which a token's position matters.
    """

    @property
    def name(self) -> str: ...

    @property
    def pair(self) -> ModelPair: ...

    @property
    def which(self) -> Which: ...

    def continue_(
        self,
        contexts: Sequence[Context],
        config: GenerateConfig,
        *,
        store: Store,
        on_token: OnToken | None,
        what: str,
        prefix_tokens: Sequence[int],
    ) -> tuple[Generation, ...]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelArm:
    """Be the base or the aligned model of a pair; a pair with another adapter makes another arm, under its own name."""

    pair: ModelPair
    which: Which
    called: str | None = None

    @property
    def name(self) -> str:
        """Return what results call this arm: `called`, or which model it is."""
        return self.called or self.which

    def continue_(
        self,
        contexts: Sequence[Context],
        config: GenerateConfig,
        *,
        store: Store,
        on_token: OnToken | None,
        what: str,
        prefix_tokens: Sequence[int],
    ) -> tuple[Generation, ...]:
        """Continue every context with this model."""
        return generate(self.pair, self.which, contexts, config, on_token=on_token, store=store, what=what)


def complete(
    arm: Arm,
    attacks: AttackSet,
    *,
    store: Store | None = None,
    batch_tokens: int = 8192,
    on_token: OnToken | None = None,
) -> CompletionSet:
    """Let an arm answer every attempt, after its prefix; completions come in the attempts' order.

    Attempts that are answered alike (same settings) go together, in batches of similar length; contexts that occur
    twice are answered once. A completion's text is what follows the prefix, without the token that ends the turn. A
    thinking arm thinks first, up to THINKING_TOKENS tokens, and the prefix stands after its thinking block; only the
    visible answer is kept. Under an attack through the weights the arm is fine-tuned before it answers.
    `on_token(index of the attempt, token id)` is called as each token is chosen.

    Raises TokenizerMismatch where the attempts were made with another tokenizer or template, ContextOverflow where an
    attempt and its answer exceed the context; both before any work.
    """
    store = Store(None) if store is None else store
    arm = fine_tuned(arm, attacks, store)
    watch = Stopwatch("complete", {"arm": arm.name, "attack": attacks.attack, "batch_tokens": batch_tokens})
    pair = arm.pair
    mine = tokenizer_hash(pair.tokenizer)
    if mine != attacks.tokenizer:
        raise TokenizerMismatch(
            f"the attempts of {attacks.attack!r} were made with tokenizer {attacks.tokenizer} and arm {arm.name!r} has "
            f"{mine}: their prefixes would be other tokens there. Make the attack with this arm's pair"
        )
    attempts = attacks.attempts
    prompts = [pair.context(as_prompt(a), arm.which) for a in attempts]
    _check_room(pair, attempts, prompts)
    prompts, notes = _after_thinking(arm, attempts, prompts, store, batch_tokens)
    contexts = [p + a.prefix_ids for p, a in zip(prompts, attempts, strict=True)]
    made: dict[int, Generation] = {}
    for config, rows in _alike(attempts, batch_tokens).items():
        places: dict[tuple[Context, int], list[int]] = defaultdict(list)
        for n in rows:
            places[contexts[n], len(attempts[n].prefix_ids)].append(n)
        told = None if on_token is None else _for_attempts(on_token, list(places.values()))
        drawn = f", t={config.temperature:g} p={config.top_p:g} k={config.top_k}" if config.temperature else ""
        what = f"{arm.name} answers {attacks.attack}{drawn}"
        different, lengths = zip(*places, strict=True)
        answers = arm.continue_(different, config, store=store, on_token=told, what=what, prefix_tokens=lengths)
        for same, answer in zip(places.values(), answers, strict=True):
            made.update(dict.fromkeys(same, answer))
    pieces = Pieces(pair.tokenizer)
    return CompletionSet(
        run=watch.record(
            resolved={
                "pair": pair.name,
                "template_mode": pair.template_mode,
                "thinking": pair.thinking,
                "tokenizer": mine,
            },
            seed=attacks.run.seed,
            device=str(pair.device),
            fingerprint=pair.fingerprint,
        ),
        arm=arm.name,
        completions=tuple(_completion(pieces, a, made[n]) for n, a in enumerate(attempts)),
        notes=notes,
    )


def _check_room(pair: ModelPair, attempts: Sequence[Attempt], prompts: Sequence[Context]) -> None:
    for a, prompt in zip(attempts, prompts, strict=True):
        name = f"prompt {a.prompt_id!r} under {a.attack} ({a.condition})"
        check_fits(name, len(prompt) + len(a.prefix_ids), pair.context_length, a.max_tokens)


def _alike(attempts: Sequence[Attempt], batch_tokens: int) -> dict[GenerateConfig, list[int]]:
    """Group attempts that are drawn alike; greedy ones whatever their seeds."""
    groups: dict[GenerateConfig, list[int]] = defaultdict(list)
    for n, a in enumerate(attempts):
        config = GenerateConfig(
            max_tokens=a.max_tokens,
            temperature=a.temperature,
            top_p=a.top_p,
            top_k=a.top_k,
            seed=a.seed if a.temperature > 0 else 0,
            batch_tokens=batch_tokens,
        )
        groups[config].append(n)
    return groups


def _for_attempts(on_token: OnToken, places: list[list[int]]) -> OnToken:
    def told(index: int, token: int) -> None:
        for n in places[index]:
            on_token(n, token)

    return told


def _after_thinking(
    arm: Arm, attempts: Sequence[Attempt], prompts: list[Context], store: Store, batch_tokens: int
) -> tuple[list[Context], tuple[str, ...]]:
    """Let a thinking arm think before each different prompt; return the prompts with their thinking blocks."""
    pair = arm.pair
    if not pair.thinking or not prompts:
        return prompts, ()
    if pair.think_end_id is None:
        raise ParameterError(f"thinking is on, but the tokenizer of {pair.name} has no end-of-thinking token")
    gap = pair.encode("\n\n")
    longest = max(len(p) + len(a.prefix_ids) + a.max_tokens for p, a in zip(prompts, attempts, strict=True))
    room = min(THINKING_TOKENS, pair.context_length - longest - len(gap) - 1)
    check_fits("the longest attempt, with its answer and room to think,", longest + len(gap) + 2, pair.context_length)
    different = list(dict.fromkeys(prompts))
    config = GenerateConfig(max_tokens=room, stop_ids=(pair.think_end_id,), batch_tokens=batch_tokens)
    what, none = f"{arm.name} thinks", [0] * len(different)
    made = arm.continue_(different, config, store=store, on_token=None, what=what, prefix_tokens=none)
    blocks, closed = thinking_blocks(pair, made)
    after = {p: p + block + gap for p, block in zip(different, blocks, strict=True)}
    notes = f"{closed} of {len(blocks)} thinking blocks did not end within {room} tokens and were closed there."
    return [after[p] for p in prompts], (notes,) if closed else ()


def _completion(pieces: Pieces, attempt: Attempt, made: Generation) -> Completion:
    kept = made.ids[:-1] if made.stop == "end" else made.ids
    text = "".join(p.text for p in pieces.sequence(kept, attempt.prefix_ids))
    stop = "length" if made.stop == "context" else made.stop
    return Completion(attempt_id=attempt.attempt_id, ids=made.ids, text=text, stop=stop)
