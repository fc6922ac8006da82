"""Did this token matter? The same response with another token in one place, continued under the penalty and judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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

Judging = Callable[[Prompt, str, str], Judgement]
"""(prompt, given text of the response, generated text) -> what a judge says of the generated text."""


@dataclass(frozen=True, kw_only=True)
class TextJudge:
    """Judge one text at a time with a judge of `workbench.judging`: a Judging."""

    judge: Judge

    @classmethod
    def of(cls, how: AnyJudge | None, prompts: PromptSet) -> TextJudge:
        """Take a judge, its config or its name; None: "exact" for the embedded prompts, else "refusal"."""
        return cls(judge=the_judge(how, prompts.name))

    @property
    def name(self) -> str:
        """Name the judge."""
        return self.judge.name

    def __call__(self, prompt: Prompt, prefix: str, text: str) -> Judgement:
        """Return the judge's answer for one text."""
        sample = Sample(
            id=prompt.id, request=prompt.prompt, prefix=prefix, text=text, label=prompt.label, category=prompt.category
        )
        (judgement,) = self.judge.judge([sample])
        return judgement


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One token that could stand at a position: its id, its printable form, and three probabilities there."""

    token_id: int
    label: str
    base: float
    aligned: float
    penalised: float

    @property
    def likeliest(self) -> float:
        """Return the largest of the probabilities that a generator could have drawn it with."""
        return max(self.aligned, self.penalised)


def candidates(made: Continuations, position: int, *, response: int = 0) -> tuple[Candidate, ...]:
    """Return the tokens that are stored for a 1-based position, the likeliest with or without the penalty first.

    The token that was chosen is among them where it is one of the likeliest. Raises ParameterError for a position that
    was not generated.
    """
    t = position - made.continuations[response].prefix_tokens - 1
    length = int(made.mask[response].sum())
    if not 0 <= t < length:
        raise ParameterError(
            f"position {position} was not generated: this continuation has positions "
            f"{position - t} to {position - t + length - 1}"
        )
    known = made.label_of()
    columns = (made.topk_logprob_base_nats, made.topk_logprob_aligned_nats, made.topk_logprob_penalised_nats)
    found = [
        Candidate(
            token_id=int(token),
            label=known.get(int(token), f"id {token}"),
            **{
                n: float(np.exp(c[response, t, j]))
                for n, c in zip(("base", "aligned", "penalised"), columns, strict=True)
            },
        )
        for j, token in enumerate(made.topk_ids[response, t])
        if token >= 0
    ]
    return tuple(sorted(found, key=lambda c: -c.likeliest))


def seedling(prompt: Prompt, made: Continuations, *, judge: str | None = None) -> BranchTree:
    """Return a tree that has no branch yet, for a prompt whose response is written under a penalty."""
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
    """Return the tree with a finished continuation as its next branch; `taken` is the token that it takes where
    its probabilities are known, `instead` the printable form of the one that it replaces.

    Raises what `BranchTree.with_branch` raises.
    """
    (c,), (ids,), (mask,) = made.continuations, made.token_ids, made.mask
    at = 0 if position is None else position - c.prefix_tokens - 1
    pieces = made.pieces[0][:-1] if c.stop == "end" else made.pieces[0]
    known_labels = made.label_of()
    judged_as = {} if judgement is None else {n: getattr(judgement, n) for n in _JUDGED}
    return tree.with_branch(
        Branch(
            parent=parent,
            position=position,
            token=None if position is None else known_labels[int(ids[at])],
            instead=instead,
            probability_base=None if taken is None else known(taken.base),
            probability_aligned=None if taken is None else known(taken.aligned),
            probability_penalised=None if taken is None else known(taken.penalised),
            token_ids=tuple(ids[mask].tolist()),
            text=c.text,
            tail="".join(pieces[at:]),
            changed=int(made.changed()[0].sum()),
            stop=c.stop,
            **judged_as,
        )
    )


_JUDGED = ("verdict", "p_harmful", "unscored", "why")


def widest(made: Continuations, *, response: int = 0) -> int:
    """Return the 1-based position at which base and aligned differ most among the generated tokens (excess mass)."""
    there = made.mask[response]
    return int(made.position[response][there][int(np.nanargmax(made.excess_mass[response][there]))])


def judged(judge: Judging | None, prompt: Prompt, made: Continuations) -> Judgement | None:
    """Return what a judge says of a finished continuation; None without a judge, or where it was stopped."""
    (c,) = made.continuations
    return None if judge is None or c.stop == "stopped" else judge(prompt, c.prefix, c.text)


def name_of(judge: Judging | None) -> str | None:
    """Name a judge: its `name`, or that of the function; None for none."""
    return None if judge is None else str(getattr(judge, "name", None) or getattr(judge, "__name__", "a judge"))
