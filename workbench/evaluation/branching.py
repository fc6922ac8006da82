"""Branches of a response: another token at one position, continued under the penalty and judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.core.errors import ParameterError
from workbench.core.passages import Sample
from workbench.core.statistics import known
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.records import Branch, BranchTree, Continuations
from workbench.judging.contract import Judge
from workbench.judging.makers import AnyJudge, the_judge
from workbench.judging.records import Judgement
from workbench.prompts.loading import Prompt, PromptSet

_COLUMNS = ("base", "aligned", "penalised")
Judging = Callable[[Prompt, str, str], Judgement]
"""(prompt, given text of the response, generated text) -> the judgement of the generated text."""


@dataclass(frozen=True, kw_only=True)
class TextJudge:
    """A Judging that judges one text at a time with a judge of `workbench.judging`."""

    judge: Judge

    @classmethod
    def of(cls, how: AnyJudge | None, prompts: PromptSet) -> TextJudge:
        """Return it for a judge, its config or its name; None: "exact" for the embedded prompts, else "refusal"."""
        return cls(judge=the_judge(how, prompts.name))

    @property
    def name(self) -> str:
        return self.judge.name

    def __call__(self, prompt: Prompt, prefix: str, text: str) -> Judgement:
        sample = Sample(
            id=prompt.id, request=prompt.prompt, prefix=prefix, text=text, label=prompt.label, category=prompt.category
        )
        (judgement,) = self.judge.judge([sample])
        return judgement


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One possible token at a position: its id, its printable form, and three probabilities there."""

    token_id: int
    label: str
    base: float
    aligned: float
    penalised: float

    @property
    def likeliest(self) -> float:
        """The larger of its probabilities with and without the penalty."""
        return max(self.aligned, self.penalised)


def candidates(made: Continuations, position: int, *, response: int = 0) -> tuple[Candidate, ...]:
    """Return the stored tokens of a 1-based position, the likeliest with or without the penalty first.

    The chosen token is included where it is one of the likeliest. Raises ParameterError for a position that was not
    generated.
    """
    t = position - made.continuations[response].prefix_tokens - 1
    length = int(made.mask[response].sum())
    if not 0 <= t < length:
        raise ParameterError(
            f"position {position} was not generated: take one from {position - t} to {position - t + length - 1}"
        )
    known = made.label_of()
    columns = (made.topk_logprob_base_nats, made.topk_logprob_aligned_nats, made.topk_logprob_penalised_nats)
    found = [
        Candidate(
            token_id=int(token),
            label=known.get(int(token), f"id {token}"),
            **{n: float(np.exp(c[response, t, j])) for n, c in zip(_COLUMNS, columns, strict=True)},
        )
        for j, token in enumerate(made.topk_ids[response, t])
        if token >= 0
    ]
    return tuple(sorted(found, key=lambda c: -c.likeliest))


def seedling(prompt: Prompt, made: Continuations, *, judge: str | None = None) -> BranchTree:
    """Return a tree without branches, for a prompt whose response is written under a penalty."""
    (c,) = made.continuations
    return BranchTree(
        name=prompt.id,
        prompt=prompt.prompt,
        label=prompt.label,
        classroom_safe=made.classroom_safe,
        system_prompt=c.system_prompt,
        prefix=c.prefix,
        prefix_tokens=c.prefix_tokens,
        penalty=PenaltyConfig(**made.penalty).title,
        judge=judge,
    )


def branch_of(
    tree: BranchTree,
    made: Continuations,
    judgement: Judgement | None,
    *,
    parent: int | None = None,
    position: int | None = None,
    taken: Candidate | None = None,
    instead: str | None = None,
) -> BranchTree:
    """Return the tree with a finished continuation as its next branch. Raises what `BranchTree.with_branch` raises.

    `taken` is the token at `position` where its probabilities are known, `instead` the printable form of the token that
    it replaces.
    """
    (c,), (ids,), (mask,) = made.continuations, made.token_ids, made.mask
    at = 0 if position is None else position - c.prefix_tokens - 1
    pieces = made.pieces[0][:-1] if c.stop == "end" else made.pieces[0]
    known_labels = made.label_of()
    more: dict[str, Any] = {}
    if taken is not None:
        more = {f"probability_{n}": known(getattr(taken, n)) for n in _COLUMNS}
    if judgement is not None:
        more |= {n: getattr(judgement, n) for n in ("verdict", "p_harmful", "unscored", "why")}
    return tree.with_branch(
        Branch(
            parent=parent,
            position=position,
            token=None if position is None else known_labels[int(ids[at])],
            instead=instead,
            token_ids=tuple(ids[mask].tolist()),
            text=c.text,
            tail="".join(pieces[at:]),
            changed=int(made.changed()[0].sum()),
            stop=c.stop,
            **more,
        )
    )


def widest(made: Continuations, *, response: int = 0) -> int:
    """Return the 1-based position at which base and aligned differ most among the generated tokens (excess mass)."""
    there = made.mask[response]
    return int(made.position[response][there][int(np.nanargmax(made.excess_mass[response][there]))])


def judged(judge: Judging | None, prompt: Prompt, made: Continuations) -> Judgement | None:
    """Return the judgement of a finished continuation; None without a judge, or where the continuation was stopped."""
    (c,) = made.continuations
    return None if judge is None or c.stop == "stopped" else judge(prompt, c.prefix, c.text)


def name_of(judge: Judging | None) -> str | None:
    """Return a judge's name, or that of its function; None without a judge."""
    return None if judge is None else str(getattr(judge, "name", None) or getattr(judge, "__name__", "a judge"))
