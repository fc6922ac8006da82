"""Continuations that branch off from one another: what would have come if another token had stood there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from workbench.errors import ParameterError
from workbench.records.core import Label, Record
from workbench.records.evaluation import Verdict


@dataclass(frozen=True, kw_only=True, eq=False)
class Branch(Record):
    """Hold one continuation of a tree: where it leaves its parent, what came then, and what a judge says of it.

    `parent` is the index of the branch that it leaves, None for the root. At `position` (1-based in the response, given
    tokens included) it takes `token` in place of the parent's `instead`; the three probabilities are those of `token`
    there, over the full vocabulary, NaN never: None where they were not kept. All six are None for the root.

    `token_ids` are all its generated tokens, those that it shares with its parent included; `text` is their text and
    `tail` the part from `position` on. `changed` counts the tokens that would not have been chosen without the penalty,
    a token that a person chose included. `stop` is as in Continuation. `verdict`, `p_harmful`, `unscored` and `why`
    are the judge's, all None where nobody judged.
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
        """Tell whether the token that was taken is likelier under base; None where that is not known."""
        if self.probability_base is None or self.probability_aligned is None:
            return None
        return self.probability_base > self.probability_aligned


@dataclass(frozen=True, kw_only=True, eq=False)
class BranchTree(Record):
    """Hold the branches of one response under one penalty: the first is the root, each other one names its parent.

    `prefix` is the text of the `prefix_tokens` response tokens that were given. `penalty` says in words under which
    penalty all of it was written, `judge` who judged, None where nobody did.
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
        """Return the tree with one more branch. Raises ParameterError for a parent or position that is not there."""
        there, parent, position = len(self.branches), branch.parent, branch.position
        if (parent is None) != (there == 0):
            raise ParameterError(
                "the first branch of a tree is its root and has no parent"
                if there == 0
                else "a tree has one root: each further branch names its parent"
            )
        if parent is not None:
            if not 0 <= parent < there:
                raise ParameterError(f"there is no branch {parent}: the tree has {there}, numbered from 0")
            first, length = self.prefix_tokens + 1, len(self.branches[parent].token_ids)
            if position is None or not first <= position < first + length:
                raise ParameterError(
                    f"branch {parent} has no position {position} to leave it at: it has generated positions {first} to "
                    f"{first + length - 1}"
                )
        return dataclasses.replace(self, branches=(*self.branches, branch))

    def children(self, branch: int) -> tuple[int, ...]:
        """Return the branches that leave a branch, by position and then in the order in which they were made."""
        own = [i for i, b in enumerate(self.branches) if b.parent == branch]
        return tuple(sorted(own, key=lambda i: self.branches[i].position or 0))

    def ordered(self) -> tuple[tuple[int, int], ...]:
        """Return (branch, depth) of every branch as a tree is read: each one before those that leave it."""
        if not self.branches:
            return ()
        out: list[tuple[int, int]] = []
        waiting = [(0, 0)]
        while waiting:
            branch, depth = waiting.pop()
            out.append((branch, depth))
            waiting += [(i, depth + 1) for i in reversed(self.children(branch))]
        return tuple(out)

    def rows(self) -> tuple[dict[str, Any], ...]:
        """Return one row a branch in the order of `ordered`: its fields without ids, with `branch` and `depth`."""
        hidden = ("token_ids",)
        return tuple(
            {
                "branch": i,
                "depth": depth,
                **{
                    f.name: getattr(self.branches[i], f.name)
                    for f in dataclasses.fields(Branch)
                    if f.name not in hidden
                },
                "base_favored": self.branches[i].base_favored,
                "tokens": len(self.branches[i].token_ids),
            }
            for i, depth in self.ordered()
        )

    def to_frame(self) -> Any:
        """Return `rows` as a data frame."""
        import pandas as pd

        return pd.DataFrame(list(self.rows()))
