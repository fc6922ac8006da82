"""Rows drawn from the penalised distribution, and their ledger."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.decoding.config import PenaltyConfig, shape_at
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.ledger import Account, Distributions, Entry, measure, most_likely
from workbench.decoding.paired import PairedSteps
from workbench.decoding.penalty import leverage_bound, penalise_fully
from workbench.models.generation import Row, choose


def distributions(
    base: Float[Tensor, "batch vocab"],
    aligned: Float[Tensor, "batch vocab"],
    penalty: PenaltyConfig,
    positions: Sequence[int],
) -> Distributions:
    """Return all next-token distributions from both models' logits, at one 1-based position a row."""
    l_base, l_aligned = base.log_softmax(-1), aligned.log_softmax(-1)
    penalised = penalise_fully(l_base, l_aligned, penalty, position=torch.tensor(positions, device=base.device))
    bound = leverage_bound(l_base, l_aligned, penalty)
    nowhere = [at for at, t in enumerate(positions) if shape_at(penalty, t) == 0.0]
    bound[nowhere] *= 0.0  # no strength reaches there
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
    """The steps of one batch of penalised rows, with their ledger.

    `given` is the number of response tokens that each row was given, of which an earlier continuation generated `kept`.
    """

    def __init__(
        self, paired: PairedSteps, config: DecodeConfig, rows: Sequence[Row], given: Sequence[int], *, kept: int = 0
    ) -> None:
        self._paired, self._penalty, self._config = paired, config.penalty, config.generation
        self._shown_k, self._kept = config.shown_k, kept
        self._live, self._samplers = [row.index for row in rows], [row.sampler for row in rows]
        self._given = dict(zip(self._live, given, strict=True))
        self._taken = 0
        self._lines: dict[int, list[tuple[np.ndarray, ...]]] = {row: [] for row in self._live}

    def scores(self) -> Float[Tensor, "batch vocab"]:
        """Return the penalised scores of each row's next token; where alpha_t is 0, the plain logits bit for bit."""
        base, aligned = self._paired.logits()
        before = [self._given[row] if self._penalty.count_from == "response" else self._kept for row in self._live]
        d = distributions(base, aligned, self._penalty, [b + self._taken + 1 for b in before])
        plain = base if d.plain is d.base else aligned
        changed = d.penalised.strength != 0.0
        self._now, self._plain_ids = d, None
        if not bool(changed.any()):
            return plain
        self._plain_ids = choose(plain, self._config, [g.clone_state() for g in self._samplers])
        if bool(changed.all()):
            return d.penalised.logprobs
        return torch.where(changed.unsqueeze(-1), d.penalised.logprobs, plain)

    def take(self, chosen: Int[Tensor, "batch"]) -> None:
        """Take each row's chosen token, and write its line of the ledger."""
        plain_ids = chosen if self._plain_ids is None else self._plain_ids
        made = (plain_ids, measure(self._now, chosen), *most_likely(self._now, self._shown_k))
        arrays = [t.cpu().numpy() for t in made]
        for at, row in enumerate(self._live):
            self._lines[row].append(tuple(a[at] for a in arrays))
        self._taken += 1
        self._paired.take(chosen)

    def keep(self, going: Sequence[int]) -> None:
        self._paired.keep(going)
        self._live = [self._live[at] for at in going]
        self._samplers = [self._samplers[at] for at in going]

    def last(self, row: int, token_id: int) -> Entry:
        """Return the entry of a row's last token."""
        return self.account(row, slice(-1, None)).entry(0, token_id)

    def account(self, row: int, lines: slice = slice(None)) -> Account:
        """Return the ledger of one row."""
        kept = self._lines[row]
        position = self._given[row] + 1 + np.arange(len(kept), dtype=np.int32)
        return Account.of(position[lines], kept[lines])
