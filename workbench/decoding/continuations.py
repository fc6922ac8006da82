"""The record of penalised generation, put together from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.core.provenance import Stopwatch, settings_of
from workbench.decoding.config import DecodeConfig
from workbench.decoding.ledger import Account
from workbench.decoding.records import LEDGER, Continuation, Continuations
from workbench.decoding.starts import Start
from workbench.models.generation import Generation
from workbench.models.pair import ModelPair
from workbench.models.pieces import Pieces
from workbench.prompts.loading import PromptSet

COUNTS = ("rank_base", "rank_aligned")


@dataclass(frozen=True, kw_only=True)
class Made:
    """One continuation with its ledger."""

    generation: Generation
    account: Account


def assembled(
    pair: ModelPair,
    starts: Sequence[Start],
    made: Sequence[Made],
    config: DecodeConfig,
    prompts: PromptSet | None,
    notes: list[str],
    watch: Stopwatch,
) -> Continuations:
    """Return the record of penalised continuations: arrays padded, display pieces and labels made, notes said."""
    rows, width = len(made), max((len(m.generation.ids) for m in made), default=0)
    shown = 2 * min(config.shown_k, pair.vocab)

    def padded(fill: float | int | bool, dtype: type, *axes: int) -> np.ndarray:
        return np.full((rows, width, *axes), fill, dtype)

    ids, plain, mask = padded(-1, np.int32), padded(-1, np.int32), padded(False, np.bool_)
    partial, special, position = padded(False, np.bool_), padded(False, np.bool_), padded(0, np.int32)
    topk, logprobs = padded(-1, np.int32, shown), padded(np.nan, np.float32, shown, 3)
    numbers = {name: padded(0, np.int32) if name in COUNTS else padded(np.nan, np.float32) for name in LEDGER}
    display = Pieces(pair.tokenizer)
    texts: list[tuple[str, ...]] = []
    rows_made: list[Continuation] = []
    for n, (start, m) in enumerate(zip(starts, made, strict=True)):
        size = len(m.generation.ids)
        pieces = display.sequence(m.generation.ids, context=start.aligned_ids())
        texts.append(tuple(piece.text for piece in pieces))
        text = "".join(texts[-1][:-1] if m.generation.stop == "end" else texts[-1])
        rows_made.append(_continuation(pair, start, m.generation, text, display, config))
        if not size:
            continue
        ids[n, :size], plain[n, :size], mask[n, :size] = m.generation.ids, m.account.plain_ids, True
        partial[n, :size] = [piece.partial for piece in pieces]
        special[n, :size] = [piece.special for piece in pieces]
        position[n, :size] = m.account.position
        topk[n, :size], logprobs[n, :size] = m.account.topk_ids, m.account.topk_logprobs
        for name, values in zip(LEDGER, m.account.numbers.T, strict=True):
            numbers[name][n, :size] = values
    label_ids = np.unique(np.concatenate((ids.ravel(), plain.ravel(), topk.ravel())))
    label_ids = label_ids[label_ids >= 0].astype(np.int32)
    safe = config.penalty.method == "safe_decoding"
    original, expert = (f"base of {pair.name}", f"aligned of {pair.name}") if safe else (None, None)
    notes = notes + _said(pair, starts, made, config)
    return Continuations(
        run=watch.record(
            resolved={
                "pair": pair.name,
                "template_mode": pair.template_mode,
                "dtype": str(pair.dtype).removeprefix("torch."),
                "pair_notes": pair.notes,
                **({} if prompts is None else {"prompts": prompts.name, "prompts_source": prompts.source}),
            },
            seed=config.generation.seed,
            device=str(pair.device),
            fingerprint=pair.fingerprint,
        ),
        prompt_set="in memory" if prompts is None else prompts.name,
        classroom_safe=prompts is not None and prompts.classroom_safe,
        template_mode=pair.template_mode,
        penalty=settings_of(config.penalty),
        generation=settings_of(config.generation),
        original=original,
        expert=expert,
        notes=tuple(notes),
        continuations=tuple(rows_made),
        pieces=tuple(texts),
        token_ids=ids,
        mask=mask,
        partial=partial,
        special=special,
        position=position,
        plain_ids=plain,
        topk_ids=topk,
        topk_logprob_base_nats=np.ascontiguousarray(logprobs[..., 0]),
        topk_logprob_aligned_nats=np.ascontiguousarray(logprobs[..., 1]),
        topk_logprob_penalised_nats=np.ascontiguousarray(logprobs[..., 2]),
        label_ids=label_ids,
        labels=tuple(display.label(i) for i in label_ids.tolist()),
        **numbers,
    )


def _continuation(
    pair: ModelPair, start: Start, made: Generation, text: str, display: Pieces, config: DecodeConfig
) -> Continuation:
    p = start.prompt
    given = display.sequence(start.prefix, context=start.aligned)
    return Continuation(
        name=start.name if p is None else p.id,
        prompt=pair.decode(start.aligned) if p is None else p.prompt,
        label="unlabelled" if p is None else p.label,
        category=None if p is None else p.category,
        pair_id=None if p is None else p.pair_id,
        system_prompt=config.system_prompt,
        context_tokens=len(start.aligned),
        prefix_tokens=len(start.prefix),
        prefix="".join(piece.text for piece in given),
        text=text,
        stop=made.stop,
    )


def _said(pair: ModelPair, starts: Sequence[Start], made: Sequence[Made], config: DecodeConfig) -> list[str]:
    notes = []
    full = [(s, m) for s, m in zip(starts, made, strict=True) if m.generation.stop == "context"]
    if full:
        s, m = full[0]
        notes.append(
            f"{len(full)} of {len(made)} continuations filled the model's context of {pair.context_length:,} tokens "
            f"before max_tokens={config.generation.max_tokens}, and end there: the first is {s.name}, after "
            f"{len(m.generation.ids)} tokens."
        )
    if config.penalty.method == "safe_decoding":
        notes.append(
            f"SafeDecoding: original is base and expert is aligned of {pair.name!r}. Where its strength is 0 the "
            "original continues alone."
        )
    return notes
