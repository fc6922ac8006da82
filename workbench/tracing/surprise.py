"""The mean surprise of responses under the base model, in nats a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from workbench.core.batching import in_batches
from workbench.core.passages import Ids, Passage
from workbench.core.store import Store, key_of
from workbench.judging.gibberish import SURPRISE_TOKENS, Surprise
from workbench.models.pair import ModelPair
from workbench.tracing.scoring import FIRST_TOKENS, response_rows, rows_at_once


def mean_surprise(
    pair: ModelPair, passages: Sequence[Passage | str], *, store: Store | None = None, what: str | None = None
) -> Surprise:
    """Return -(1/T) sum_t log p_base(y_t | prompt, given, y_<t) in nats, or the reason why there is none.

    y are a response's generated tokens without the end of the turn, cut at the model's context; fewer than
    `SURPRISE_TOKENS` have no mean. A text instead of a passage is the reason why there is none. Finished means go to
    `store`.
    """
    found: list[float | str] = []
    rows: dict[int, tuple[Ids, Ids]] = {}
    for n, passage in enumerate(passages):
        read = passage if isinstance(passage, str) else _scored(pair, passage)
        found.append(read if isinstance(read, str) else float("nan"))
        if not isinstance(read, str):
            rows[n] = read
    left = list(rows.values())

    def work(part: list[int], finished: Callable[[int, float], None]) -> None:
        with torch.inference_mode():
            for i, nats in zip(part, _means(pair, [left[i] for i in part]), strict=True):
                finished(i, nats)

    made = in_batches(
        [key_of("surprise 2", pair.fingerprint, context, ids) for context, ids in left],
        [len(context) + len(ids) for context, ids in left],
        work,
        budget=pair.budget(None, FIRST_TOKENS),
        store=Store.of(store),
        entry=lambda nats: {"nats": np.array(nats)},
        read=lambda entry: float(entry["nats"].item()),
        what=what,
        unit="completions",
    )
    for n, nats in zip(rows, made, strict=True):
        found[n] = nats
    return Surprise(nats=tuple(found), vocab=pair.vocab, fingerprint=pair.fingerprint)


def _scored(pair: ModelPair, passage: Passage) -> tuple[Ids, Ids] | str:
    """Return the base model's context and the tokens to score, or why there are none."""
    context = passage.context("base") + passage.response[: passage.given]
    own = tuple(i for i in passage.response[passage.given :] if i not in pair.eos_ids)
    own = own[: max(0, pair.context_length - len(context) + 1)]
    if len(own) < SURPRISE_TOKENS:
        return f"fewer than {SURPRISE_TOKENS} tokens"
    if max(own) >= pair.vocab or min(own) < 0:
        return "its token ids are not of this pair's tokenizer"
    return context, own


def _means(pair: ModelPair, rows: Sequence[tuple[Ids, Ids]]) -> list[float]:
    hidden = response_rows(pair, "base", [context for context, _ in rows], [ids for _, ids in rows])
    targets = torch.tensor([t for _, ids in rows for t in ids], device=hidden.device)
    block, _ = rows_at_once(pair)
    losses = [
        torch.nn.functional.cross_entropy(pair.logits("base", h, float32=True), t, reduction="none")
        for h, t in zip(hidden.split(block), targets.split(block), strict=True)
    ]
    nats = torch.cat(losses).double().cpu()
    return [float(part.mean()) for part in nats.split([len(ids) for _, ids in rows])]
