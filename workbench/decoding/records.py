"""The records of decoding: continuations with their ledger, sampling surfaces, and branches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from workbench.core.errors import ParameterError
from workbench.core.records import Label, Record
from workbench.core.shapes import Counts, Mask, Scores, Tokens, TopScores
from workbench.judging.records import Verdict
from workbench.tracing.records import TokenRecord

LEDGER: dict[str, str] = {
    "strength": "alpha_t, the config's strength with its risk and position",
    "risk": "risk_t, 0 to 1, in the config's risk space",
    "logprob_base_nats": "log-probability of the chosen token under base, nats",
    "logprob_aligned_nats": "log-probability of the chosen token under aligned, nats",
    "logprob_penalised_nats": "log-probability of the chosen token under the penalty, nats",
    "rank_base": "rank of the chosen token under base, 1 = most likely",
    "rank_aligned": "rank of the chosen token under aligned, 1 = most likely",
    "excess_mass": "probability that base puts above aligned = TV(base, aligned), 0 to 1",
    "leverage": "probability that the penalty moved = TV(penalised, without penalty), 0 to 1",
    "leverage_bound": "limit of the leverage as the strength grows without bound, 0 to 1",
}
"""Name of each number of the ledger -> its meaning, with unit. All are over the full vocabulary, before temperature."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Continuation(Record):
    """One continuation (one row of Continuations): its prompt, its given tokens, and how it ended.

    `prompt` is the request, or the decoded context of bare token ids. `prefix` is the text of the `prefix_tokens`
    response tokens that were given; `text` follows them, without the end-of-turn token. `context_tokens` counts
    aligned's context before the prefix. `stop` is "end" (end of turn), "length" (max_tokens), "stop" (a stop string or
    stop id), "context" (the model's context was full before max_tokens) or "stopped" (by a person, or unfinished).
    """

    name: str
    prompt: str
    label: Label
    category: str | None
    pair_id: str | None
    system_prompt: str | None
    context_tokens: int
    prefix_tokens: int
    prefix: str
    text: str
    stop: Literal["end", "length", "stop", "context", "stopped"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Continuations(TokenRecord):
    """Penalised continuations with their ledger, one entry for each generated token. They reload without a model.

    `position` is 1-based in the response, given tokens included. `plain_ids` are the choices without the penalty (by
    aligned, or SafeDecoding's original), after the same tokens and with the same random numbers. `topk_ids` is the
    union of the most likely tokens with and without the penalty (those without it first, -1 where the union is
    shorter); a penalised log-probability is -inf where the penalty rules a token out. `penalty` and `generation` are
    the settings, None resolved. `original` and `expert` name the models of SafeDecoding, None for other methods.
    """

    penalty: Mapping[str, Any]
    generation: Mapping[str, Any]
    original: str | None
    expert: str | None
    notes: tuple[str, ...]
    continuations: tuple[Continuation, ...]
    position: Counts
    plain_ids: Tokens
    strength: Scores
    risk: Scores
    logprob_base_nats: Scores
    logprob_aligned_nats: Scores
    logprob_penalised_nats: Scores
    rank_base: Counts
    rank_aligned: Counts
    excess_mass: Scores
    leverage: Scores
    leverage_bound: Scores
    topk_logprob_penalised_nats: TopScores

    def changed(self) -> Mask:
        """Mark the tokens that would not have been chosen without the penalty."""
        return self.mask & (self.token_ids != self.plain_ids)


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplingSurface(Record):
    """The base-favored mass that survives truncation of the sampled distribution.

    `surviving_excess_mass` is (arm, temperature, top-p, top-k): how much of the probability that base puts above
    aligned is on tokens that can still be drawn, 0 to 1, mean over `positions` positions of one response, and exact for
    that text. Temperature 0 is greedy, top-k 0 and top-p 1 are off. `arms` are the truncated distributions ("aligned",
    a penalty). `along` is the arm whose continuation of prompt `name` is read. `excess_mass` is the mean
    TV(base, aligned) along the same positions.
    """

    name: str
    along: str
    positions: int
    arms: tuple[str, ...]
    temperatures: tuple[float, ...]
    top_ps: tuple[float, ...]
    top_ks: tuple[int, ...]
    surviving_excess_mass: Float32[np.ndarray, "arm temperature top_p top_k"]
    excess_mass: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Branch(Record):
    """One continuation of a tree: where it leaves its parent, its text, and its judgement.

    `parent` is the index of the branch that it leaves, None for the root. At `position` (1-based in the response, given
    tokens included) it takes `token` instead of the parent's `instead`; the three probabilities are those of `token`
    there, over the full vocabulary, None where they were not stored. All six are None for the root.

    `token_ids` are all its generated tokens, with those shared with its parent; `text` is their text and `tail` the
    part from `position` on. `changed` counts the tokens that differ from the choice without the penalty, one that a
    person chose included. `stop` is as in Continuation. `verdict`, `p_harmful`, `unscored` and `why` are the judge's,
    all None without a judge.
    """

    parent: int | None = None
    position: int | None = None
    token: str | None = None
    instead: str | None = None
    probability_base: float | None = None
    probability_aligned: float | None = None
    probability_penalised: float | None = None
    token_ids: tuple[int, ...]
    text: str
    tail: str
    changed: int
    stop: Literal["end", "length", "stop", "context", "stopped"]
    verdict: Verdict | None = None
    p_harmful: float | None = None
    unscored: str | None = None
    why: str | None = None

    @property
    def base_favored(self) -> bool | None:
        """Tell whether the taken token is more likely under base; None where that is unknown."""
        if self.probability_base is None or self.probability_aligned is None:
            return None
        return self.probability_base > self.probability_aligned


@dataclass(frozen=True, kw_only=True, eq=False)
class BranchTree(Record):
    """The branches of one response under one penalty: the first is the root, each other one names its parent.

    `prefix` is the text of the `prefix_tokens` response tokens that were given. `penalty` is the penalty's title,
    `judge` the judge's name, None without one.
    """

    name: str
    prompt: str
    label: Label
    classroom_safe: bool
    system_prompt: str | None
    prefix: str
    prefix_tokens: int
    penalty: str
    judge: str | None
    branches: tuple[Branch, ...] = ()

    def with_branch(self, branch: Branch) -> BranchTree:
        """Return the tree with one more branch. Raises ParameterError for a missing parent or position."""
        there, parent, position = len(self.branches), branch.parent, branch.position
        if (parent is None) != (there == 0):
            raise ParameterError(f"the tree has {there} branches: give a parent to every branch but the root")
        if parent is not None:
            if not 0 <= parent < there:
                raise ParameterError(f"there is no branch {parent}: choose one of 0 to {there - 1}")
            first, length = self.prefix_tokens + 1, len(self.branches[parent].token_ids)
            if position is None or not first <= position < first + length:
                lacks = f"branch {parent} has no generated position {position}"
                raise ParameterError(f"{lacks}: leave it at one of {first} to {first + length - 1}")
        return dataclasses.replace(self, branches=(*self.branches, branch))

    def children(self, branch: int) -> tuple[int, ...]:
        """Return the branches that leave a branch, by position and then in order of creation."""
        own = [i for i, b in enumerate(self.branches) if b.parent == branch]
        return tuple(sorted(own, key=lambda i: self.branches[i].position or 0))

    def ordered(self) -> tuple[tuple[int, int], ...]:
        """Return (branch, depth) of every branch, each one before those that leave it."""
        out: list[tuple[int, int]] = []
        waiting = [(0, 0)] if self.branches else []
        while waiting:
            branch, depth = waiting.pop()
            out.append((branch, depth))
            waiting += [(i, depth + 1) for i in reversed(self.children(branch))]
        return tuple(out)

    def rows(self) -> tuple[dict[str, Any], ...]:
        """Return one row a branch in the order of `ordered`: its fields without ids, with `branch` and `depth`."""
        rows = []
        for i, depth in self.ordered():
            b = self.branches[i]
            shown = {f.name: getattr(b, f.name) for f in dataclasses.fields(b) if f.name != "token_ids"}
            more = {"base_favored": b.base_favored, "tokens": len(b.token_ids)}
            rows.append({"branch": i, "depth": depth, **shown, **more})
        return tuple(rows)

    def to_frame(self) -> Any:
        """Return `rows` as a data frame."""
        import pandas as pd

        return pd.DataFrame(list(self.rows()))
