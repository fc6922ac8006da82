"""The mean surprise of completions under the base model, in nats a token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from workbench.core.batching import halving_on_memory, plan_batches
from workbench.core.errors import WorkbenchError
from workbench.core.progress import Progress
from workbench.core.store import Store, key_of
from workbench.evaluation.records import Attempt
from workbench.judging.contract import Sample
from workbench.models.pair import ModelPair
from workbench.prompts.loading import Prompt
from workbench.tracing.scoring import response_rows, rows_at_once

BATCH_TOKENS = 4096


def mean_surprise(
    pair: ModelPair, samples: Sequence[Sample], *, least: int, store: Store | None = None, what: str | None = None
) -> list[float | str]:
    """Return -(1/T) sum_t log p_base(y_t | prompt, prefix, y_<t) in nats, or the reason why there is none.

    The context is the attempt's messages by the pair's template and its prefix; the completion's own ids are scored
    (its text is encoded where it has none), without the end of the turn, as far as the context of the model goes.
    Fewer than `least` tokens have no mean. Finished means are kept in `store`.
    """
    store = Store(None) if store is None else store
    said: list[float | str] = ["" for _ in samples]
    rows: list[tuple[int, tuple[int, ...], tuple[int, ...], str]] = []
    for n, (attempt, completion) in enumerate(samples):
        try:
            context = context_of(pair, attempt)
        except WorkbenchError as error:
            said[n] = f"the prompt cannot be given to the base model ({type(error).__name__})"
            continue
        ids = completion.ids or pair.encode(completion.text)
        ids = tuple(i for i in ids if i not in pair.eos_ids)[: max(0, pair.context_length - len(context) + 1)]
        if len(ids) < least:
            said[n] = f"fewer than {least} tokens"
        elif max(ids) >= pair.vocab or min(ids) < 0:
            said[n] = "its token ids are not of this pair's tokenizer"
        else:
            rows.append((n, context, ids, key_of("surprise 1", pair.fingerprint, context, ids)))
    for n, _, _, key in rows:
        if key in store:
            said[n] = float(store.read(key)["nats"].item())
    left = [row for row in rows if row[3] not in store]
    with Progress(what if left else None, len(left), "completions") as progress, torch.inference_mode():
        for planned in plan_batches([len(c) + len(i) for _, c, i, _ in left], BATCH_TOKENS):
            work = halving_on_memory(planned, lambda part: _surprise(pair, [left[i] for i in part]), progress.note)
            for part, made in work:
                store.write({left[i][3]: {"nats": np.array(x)} for i, x in zip(part, made, strict=True)})
                for i, x in zip(part, made, strict=True):
                    said[left[i][0]] = x
                progress.advance(len(part))
    return said


def context_of(pair: ModelPair, attempt: Attempt) -> tuple[int, ...]:
    """Return what the base model saw before the completion: the messages by the pair's template, then the prefix."""
    *earlier, (_, asked) = attempt.messages
    prompt = Prompt(id=attempt.prompt_id, prompt=asked, label=attempt.label, messages=tuple(earlier) or None)
    return pair.context(prompt, "base") + attempt.prefix_ids


def _surprise(pair: ModelPair, rows: Sequence[tuple[int, tuple[int, ...], tuple[int, ...], str]]) -> list[float]:
    hidden = response_rows(pair, "base", [c for _, c, _, _ in rows], [i for _, _, i, _ in rows])
    targets = torch.tensor([t for _, _, ids, _ in rows for t in ids], device=hidden.device)
    block, _ = rows_at_once(pair)
    losses = [
        torch.nn.functional.cross_entropy(pair.logits("base", h).float(), t, reduction="none")
        for h, t in zip(hidden.split(block), targets.split(block), strict=True)
    ]
    nats = torch.cat(losses).double().cpu()
    return [float(part.mean()) for part in nats.split([len(ids) for _, _, ids, _ in rows])]
