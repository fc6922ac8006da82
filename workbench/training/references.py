"""What the frozen pair says at the training positions, computed once and kept on disk.

Kept are hidden states after the final norm, not distributions: the head makes the exact logits of them again, and they
are as many numbers a position as the model is wide, instead of as the vocabulary is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.batching import halving_on_memory, plan_batches
from workbench.core.progress import Progress
from workbench.core.store import Store, key_of
from workbench.models.pair import ModelPair, Which
from workbench.tracing.scoring import response_rows

Ids = tuple[int, ...]


def reference_states(
    pair: ModelPair,
    which: Which,
    contexts: Sequence[Ids],
    responses: Sequence[Ids],
    *,
    store: Store | None = None,
    batch_tokens: int = 4096,
    what: str | None = "reading the frozen pair",
) -> tuple[Float[Tensor, "token hidden"], ...]:
    """Return, for each response, the hidden states of base or aligned that predict its tokens given its context.

    On the CPU, in the model's own dtype, bit for bit what was computed first: equal pairs of context and response are
    computed once, and what `store` has is read. Neither may be empty. Batches hold at most `batch_tokens` padded tokens
    (one response at least).
    """
    store = Store(None) if store is None else store
    keys = [key_of("hidden 1", pair.fingerprint, which, c, r) for c, r in zip(contexts, responses, strict=True)]
    found = {k: torch.from_numpy(store.read(k)["bytes"]).view(pair.dtype) for k in dict.fromkeys(keys) if k in store}
    index = {k: n for n, k in reversed(list(enumerate(keys)))}  # of each key, its first place
    missing = [n for k, n in index.items() if k not in found]
    if missing:
        sizes = [len(contexts[n]) + len(responses[n]) for n in missing]
        with (
            Progress(what, len(index), "responses") as progress,
            torch.no_grad(),
        ):  # inference tensors could not be trained against
            progress.skip(len(index) - len(missing))
            for planned in plan_batches(sizes, batch_tokens):
                rows = [missing[n] for n in planned]
                for part, made in halving_on_memory(
                    rows, lambda part: _read(pair, which, contexts, responses, part), progress.note
                ):
                    new = {keys[n]: m for n, m in zip(part, made, strict=True)}
                    found.update(new)
                    store.write({k: {"bytes": m.view(torch.uint8).numpy()} for k, m in new.items()})
                    progress.advance(len(part))
    return tuple(found[k] for k in keys)


def _read(
    pair: ModelPair, which: Which, contexts: Sequence[Ids], responses: Sequence[Ids], part: Sequence[int]
) -> list[Float[Tensor, "token hidden"]]:
    rows = response_rows(pair, which, [contexts[n] for n in part], [responses[n] for n in part])
    return [r.contiguous() for r in rows.cpu().split([len(responses[n]) for n in part])]
