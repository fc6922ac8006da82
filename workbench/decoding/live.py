"""One penalised continuation while it is written: recorded at any time, stopped on request, branched at any token."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.errors import ParameterError
from workbench.core.passages import Passage
from workbench.core.provenance import Stopwatch, settings_of
from workbench.decoding.config import check_generates
from workbench.decoding.contexts import DecodeConfig, check_continues
from workbench.decoding.continuations import Made, assembled
from workbench.decoding.ledger import Account
from workbench.decoding.mixed import mixed
from workbench.decoding.paired import paired_steps
from workbench.decoding.records import LEDGER, Continuations
from workbench.decoding.steps import PenalisedSteps
from workbench.models.generation import Generation, Row, draw, generation_keys, noise_key
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet

_MODELS = ("base", "aligned", "penalised")


class Writing:
    """One penalised continuation so far, made by `write`.

    `ids` are its generated tokens, with those kept from the continuation it branched off. `stop` is as in Continuation,
    and "stopped" while it is written.
    """

    def __init__(self, pair: ModelPair, start: Passage, config: DecodeConfig, prompts: PromptSet | None) -> None:
        self.pair, self.start, self.config = pair, start, config
        self.ids: tuple[int, ...] = ()
        self.stop = "stopped"
        self._prompts = prompts
        self._kept: Account | None = None
        self._steps: PenalisedSteps | None = None
        self._watch = Stopwatch("write", {**settings_of(config), "penalty": settings_of(config.penalty)})

    @classmethod
    def of(
        cls,
        pair: ModelPair,
        start: Passage,
        config: DecodeConfig,
        made: Continuations,
        *,
        prompts: PromptSet | None = None,
    ) -> Writing:
        """Restore a writing from the record of one continuation with the same start and config."""
        out = cls(pair, start, config, prompts)
        (c,), (there,) = made.continuations, made.mask
        out.ids, out.stop = tuple(made.token_ids[0][there].tolist()), c.stop
        out._kept = Account(
            position=made.position[0][there],
            plain_ids=made.plain_ids[0][there],
            numbers=np.stack([getattr(made, name)[0][there] for name in LEDGER], -1).astype(np.float32),
            topk_ids=made.topk_ids[0][there],
            topk_logprobs=np.stack([getattr(made, f"topk_logprob_{m}_nats")[0][there] for m in _MODELS], -1),
        )
        return out

    def account(self) -> Account:
        """Return the ledger of all tokens."""
        kept = 0 if self._kept is None else len(self._kept.position)
        told = slice(len(self.ids) - kept)  # a token that came from NaN was chosen but never told
        made = None if self._steps is None else self._steps.account(0, told)
        parts = [a for a in (self._kept, made) if a is not None and len(a.position)]
        if not parts:
            return Account.of(np.zeros(0, np.int32), [])
        return Account(**{n: np.concatenate([getattr(a, n) for a in parts]) for n in Account.__dataclass_fields__})

    def record(self) -> Continuations:
        """Return the continuation so far as Continuations of one row."""
        generation = Generation(ids=self.ids, stop="length" if self.stop == "stopped" else self.stop)  # type: ignore[arg-type]
        made = assembled(
            self.pair,
            [self.start],
            [next((p for p in self._prompts or () if p.id == self.start.name), None)],
            [Made(generation=generation, account=self.account())],
            self.config,
            self._prompts,
            [],
            self._watch,
        )
        (c,) = made.continuations
        return dataclasses.replace(made, continuations=(dataclasses.replace(c, stop=self.stop),))  # type: ignore[arg-type]


def write(
    pair: ModelPair,
    start: Passage,
    config: DecodeConfig | None = None,
    *,
    branch_of: Writing | None = None,
    position: int | None = None,
    token_id: int | None = None,
    prompts: PromptSet | None = None,
    on_token: Callable[[Writing], object] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Writing:
    """Continue one context under a penalty, reporting every token.

    The tokens equal those of `decode`. With `branch_of`, `position` (1-based in the response, given tokens included)
    and `token_id`, the tokens of that writing before the position are kept with their ledger, `token_id` is taken there
    whatever its probability, and the rest is chosen as usual. `on_token(writing)` is called after each token; where
    `cancelled()` is true (asked before each forward pass) the writing ends, with `stop` "stopped". `prompts` and
    `config.system_prompt` only enter the record: a start already holds its prefix and system prompt.

    Raises ParameterError for a penalty that no generator may use, or a position outside the writing; PromptError for an
    empty context; ContextOverflow without room for a token; NonFiniteLogits.
    """
    config = config or DecodeConfig()
    check_generates(config.penalty)
    check_continues(pair, [start])
    made = Writing(pair, start, config, prompts)
    if branch_of is not None:
        _keep(made, branch_of, position, token_id)
    kept = made.ids
    seen = dataclasses.replace(start, response=start.response + kept)
    check_continues(pair, [seen])
    drawing = dataclasses.replace(config.generation, max_tokens=config.generation.max_tokens - len(kept))
    (key,) = generation_keys(pair, "aligned", [seen.whole("aligned")], config.generation)
    limit = min(drawing.max_tokens, pair.context_length - seen.length)
    row = Row(index=0, limit=limit, key=noise_key(drawing, key))

    def finished(_: int, generation: Generation) -> None:
        made.stop = generation.stop

    def told(_: int, token: int) -> None:
        made.ids += (token,)
        if on_token is not None:
            on_token(made)

    with torch.inference_mode(), mixed(pair) as run:
        paired = paired_steps(pair, run, [seen], limit)
        made._steps = _Watched(paired, config, [row], [len(seen.response)], kept=len(kept))
        made._steps.first, made._steps.cancelled = None if branch_of is None else token_id, cancelled
        try:
            draw(pair, made._steps, [row], drawing, on_token=told, finished=finished)
        except _Cancelled:
            pass
    return made


def _keep(made: Writing, other: Writing, position: int | None, token_id: int | None) -> None:
    """Start a writing with another one's tokens before a position."""
    first = len(other.start.response) + 1
    if position is None or token_id is None or not first <= position < first + len(other.ids):
        last = first + len(other.ids) - 1
        raise ParameterError(f"position {position} was not generated: branch at {first} to {last}, with a token id")
    if not 0 <= token_id < made.pair.vocab:
        raise ParameterError(f"token {token_id} is not in the vocabulary of {made.pair.name}: {made.pair.vocab:,} ids")
    account, upto = other.account(), position - first
    made.ids = other.ids[:upto]
    made._kept = Account(**{n: getattr(account, n)[:upto] for n in Account.__dataclass_fields__})


class _Cancelled(Exception):
    """A request to stop the writing."""


class _Watched(PenalisedSteps):
    """Penalised steps that can be stopped, and whose first token may be fixed."""

    first: int | None = None
    cancelled: Callable[[], bool] | None = None

    def scores(self) -> Float[Tensor, "batch vocab"]:
        """Return the scores; where the first token is fixed, they leave no other choice."""
        if self.cancelled is not None and self.cancelled():
            raise _Cancelled
        scores = super().scores()
        if self.first is not None:
            scores = torch.full_like(scores, -torch.inf)
            scores[:, self.first] = 0.0
            self.first = None
        return scores
