"""Rows drawn from the penalised distribution, and their ledger."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.decoding.config import PenaltyConfig
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.ledger import Account, Distributions, Entry, measure, most_likely
from workbench.decoding.paired import PairedSteps
from workbench.decoding.penalty import leverage_bound, penalise_fully, reaches, shapes
from workbench.models.caches import on_device
from workbench.models.generation import Again, Finite, Row


def distributions(
    base: Float[Tensor, "batch vocab"],
    aligned: Float[Tensor, "batch vocab"],
    penalty: PenaltyConfig,
    positions: Sequence[int],
) -> Distributions:
    """Return all next-token distributions from both models' logits, at one 1-based position a row."""
    l_base, l_aligned = base.log_softmax(-1), aligned.log_softmax(-1)
    penalised = penalise_fully(l_base, l_aligned, penalty, position=positions)
    bound = leverage_bound(l_base, l_aligned, penalty)
    if not all(shape := shapes(penalty, positions)):
        bound *= on_device([float(g != 0.0) for g in shape], bound.device)  # no strength reaches there
    return Distributions(
        logits_base=base,
        logits_aligned=aligned,
        base=l_base,
        aligned=l_aligned,
        plain=l_base if penalty.method == "safe_decoding" else l_aligned,
        penalised=penalised,
        bound=bound,
    )


class PenalisedSteps:
    """The steps of one batch of penalised rows, with their ledger, which stays on the device until it is asked for.

    `given` is the number of response tokens that each row was given, of which an earlier continuation generated `kept`.
    """

    def __init__(
        self, paired: PairedSteps, config: DecodeConfig, rows: Sequence[Row], given: Sequence[int], *, kept: int = 0
    ) -> None:
        self._paired, self._penalty = paired, config.penalty
        self._shown_k, self._kept = config.shown_k, kept
        self._live = [row.index for row in rows]
        self._given = dict(zip(self._live, given, strict=True))
        self._taken = 0
        self._unread: list[tuple[list[int], tuple[Tensor, ...]]] = []  # rows and their lines, a step each
        self._lines: dict[int, list[tuple[np.ndarray, ...]]] = {row: [] for row in self._live}

    @property
    def finite(self) -> Finite:
        return self._paired.finite

    def scores(self) -> Float[Tensor, "batch vocab"]:
        """Return the penalised scores of each row's next token; where alpha_t is 0, the plain logits bit for bit."""
        base, aligned = self._paired.logits()
        before = [self._given[row] if self._penalty.count_from == "response" else self._kept for row in self._live]
        positions = [b + self._taken + 1 for b in before]
        d = self._now = distributions(base, aligned, self._penalty, positions)
        self._plain = base if d.plain is d.base else aligned
        self._reached = reaches(self._penalty, positions)
        if not any(self._reached):
            return self._plain
        if all(self._reached):
            return d.penalised.logprobs
        return torch.where(d.penalised.strength.unsqueeze(-1) != 0.0, d.penalised.logprobs, self._plain)

    def take(self, chosen: Int[Tensor, "batch"], again: Again) -> None:
        """Take each row's chosen token, and write its line of the ledger."""
        plain_ids = again(self._plain) if any(self._reached) else chosen
        self._unread.append(
            (self._live, (plain_ids, measure(self._now, chosen), *most_likely(self._now, self._shown_k)))
        )
        self._taken += 1
        self._paired.take(chosen, again)

    def keep(self, going: Sequence[int]) -> None:
        self._paired.keep(going)
        self._live = [self._live[at] for at in going]

    def last(self, row: int, token_id: int) -> Entry:
        """Return the entry of a row's last token."""
        return self.account(row, slice(-1, None)).entry(0, token_id)

    def account(self, row: int, lines: slice = slice(None)) -> Account:
        """Return the ledger of one row, read from the device where it has not been read yet."""
        if self._unread:
            parts = [torch.cat(part).cpu().numpy() for part in zip(*(made for _, made in self._unread), strict=True)]
            for at, index in enumerate(index for live, _ in self._unread for index in live):
                self._lines[index].append(tuple(part[at] for part in parts))
            self._unread = []
        kept = self._lines[row]
        position = self._given[row] + 1 + np.arange(len(kept), dtype=np.int32)
        return Account.of(position[lines], kept[lines])
