"""What penalties do along given responses: KL from aligned, leverage and its bound, exact over the full vocabulary.

Both models run over a response once, for all penalties. Response positions reach the output heads a few rows at a time,
and each slice is reduced to numbers before the next is made: prompts x positions x vocabulary never exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.batching import in_batches
from workbench.core.errors import NonFiniteLogits
from workbench.core.passages import Passage
from workbench.core.provenance import settings_of
from workbench.core.store import Store, key_of
from workbench.decoding.config import PenaltyConfig, shape_at
from workbench.decoding.penalty import leverage_bound, penalise
from workbench.models.pair import ModelPair
from workbench.tracing.metrics import LOGPROB_FLOOR, excess_mass, kl_nats
from workbench.tracing.scoring import passage_rows, rows_at_once

MOVES: dict[str, str] = {
    "kl_nats": "KL(penalised || aligned), nats",
    "leverage": "TV(penalised, aligned), 0 to 1",
    "bound": "the leverage as the strength grows without bound; NaN where there is no such limit",
    "changed": "1 where the most likely token is another one than aligned's, else 0",
    "excess_mass": "TV(base, aligned), 0 to 1",
}
"""What is measured at every position, in this order -> what it is."""

Moves = Float[np.ndarray, "quantity penalty token"]
"""One response's numbers, in the order of MOVES and of the penalties."""


def measure_moves(
    pair: ModelPair,
    passages: Sequence[Passage],
    penalties: Sequence[PenaltyConfig],
    *,
    batch_tokens: int = 4096,
    store: Store | None = None,
    what: str | None = "measuring penalties",
) -> tuple[Moves, ...]:
    """Return each response's numbers under every penalty, in the order given; position 1 is its first token.

    Finished batches are kept in `store`. Raises NonFiniteLogits naming model and response.
    """
    settings = [settings_of(p) for p in penalties]
    keys = [
        key_of("penalty moves 1", pair.fingerprint, p.context("base"), p.aligned, p.response, settings)
        for p in passages
    ]

    def work(rows: list[int], finished: Callable[[int, Moves], None]) -> None:
        for n, moves in zip(rows, _moves(pair, [passages[n] for n in rows], penalties), strict=True):
            finished(n, moves)

    with torch.inference_mode():
        return tuple(
            in_batches(
                keys,
                [p.length for p in passages],
                work,
                batch_tokens=batch_tokens,
                store=Store.of(store),
                entry=lambda moves: {"moves": moves},
                read=lambda entry: entry["moves"],
                what=what,
                unit="responses",
            )
        )


def _moves(pair: ModelPair, passages: Sequence[Passage], penalties: Sequence[PenaltyConfig]) -> list[Moves]:
    base, aligned = passage_rows(pair, "base", passages), passage_rows(pair, "aligned", passages)
    position = torch.tensor([t + 1 for p in passages for t in range(len(p.response))], device=pair.device)
    _, together = rows_at_once(pair)
    parts = []
    for start in range(0, len(position), together):
        rows = slice(start, start + together)
        l_base = pair.logits("base", base[rows]).float().log_softmax(-1)
        l_aligned = pair.logits("aligned", aligned[rows]).float().log_softmax(-1)
        parts.append(_moved(l_base, l_aligned, penalties, position[rows]).cpu())
    whole = torch.cat(parts, -1).numpy().astype(np.float32)
    out, start = [], 0
    for item in passages:
        own = np.ascontiguousarray(whole[..., start : start + len(item.response)])
        if np.isnan(own[[0, 1, 4]]).any():
            raise NonFiniteLogits(
                f"a model returned NaN or infinite logits on the response to {item}: check the weights and the "
                f"dtype ({pair.dtype}); float32 is safe"
            )
        out.append(own)
        start += len(item.response)
    return out


def _moved(
    base: Float[Tensor, "row vocab"],
    aligned: Float[Tensor, "row vocab"],
    penalties: Sequence[PenaltyConfig],
    position: Int[Tensor, "row"],
) -> Float[Tensor, "quantity penalty row"]:
    differ, top = excess_mass(base, aligned), aligned.argmax(-1)
    low = aligned.clamp(min=LOGPROB_FLOOR)
    bounds: dict[tuple[str, float], Tensor] = {}  # the limit is the same for every strength
    out = []
    for penalty in penalties:
        made = penalise(base, aligned, penalty, position=position)
        limit = (penalty.method, penalty.plausibility)
        if limit not in bounds:
            bounds[limit] = leverage_bound(base, aligned, penalty)
        nowhere = torch.tensor([shape_at(penalty, t) == 0.0 for t in position.tolist()], device=position.device)
        out.append(
            torch.stack(
                (
                    # a token that is ruled out has no probability, and 0 x its distance must stay 0
                    kl_nats(made.clamp(min=LOGPROB_FLOOR), low),
                    excess_mass(made, aligned),
                    bounds[limit].masked_fill(nowhere, 0.0),
                    (made.argmax(-1) != top).float(),
                    differ,
                )
            )
        )
    return torch.stack(out, 1)
