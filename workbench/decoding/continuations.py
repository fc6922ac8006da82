"""The record of penalised generation, assembled from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.core.passages import Passage
from workbench.core.provenance import Stopwatch, settings_of
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.ledger import Account
from workbench.decoding.records import LEDGER, Continuation, Continuations
from workbench.models.generation import Generation
from workbench.models.pair import ModelPair
from workbench.models.pieces import Pieces, labelled, padded, token_arrays
from workbench.prompts.loading import Prompt, PromptSet

COUNTS = ("rank_base", "rank_aligned")


@dataclass(frozen=True, kw_only=True)
class Made:
    """One continuation with its ledger."""

    generation: Generation
    account: Account


def assembled(
    pair: ModelPair,
    passages: Sequence[Passage],
    asked: Sequence[Prompt | None],
    made: Sequence[Made],
    config: DecodeConfig,
    prompts: PromptSet | None,
    notes: list[str],
    watch: Stopwatch,
) -> Continuations:
    """Return the record of penalised continuations, with padded arrays, display pieces, labels and notes."""
    display = Pieces(pair.tokenizer)
    fields = token_arrays(
        display, [(m.generation.ids, p.whole("aligned")) for p, m in zip(passages, made, strict=True)]
    )
    accounts, shown = [m.account for m in made], 2 * min(config.shown_k, pair.vocab)
    fields["position"] = padded([a.position for a in accounts], 0, np.int32)
    fields["plain_ids"] = padded([a.plain_ids for a in accounts], -1, np.int32)
    fields["topk_ids"] = padded([a.topk_ids for a in accounts], -1, np.int32, shown)
    for n, which in enumerate(("base", "aligned", "penalised")):
        kept = [a.topk_logprobs[..., n] for a in accounts]
        fields[f"topk_logprob_{which}_nats"] = padded(kept, np.nan, np.float32, shown)
    for n, name in enumerate(LEDGER):
        values = [a.numbers[:, n] for a in accounts]
        fields[name] = padded(values, 0, np.int32) if name in COUNTS else padded(values, np.nan, np.float32)
    safe = config.penalty.method == "safe_decoding"
    original, expert = (f"base of {pair.name}", f"aligned of {pair.name}") if safe else (None, None)
    named = {} if prompts is None else {"prompts": prompts.name, "prompts_source": prompts.source}
    return Continuations(
        run=watch.record(
            resolved={**pair.settings(), **named},
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
        notes=(*notes, *_said(pair, passages, made, config)),
        continuations=tuple(
            _continuation(pair, *row, display, config)
            for row in zip(passages, asked, (m.generation for m in made), fields["pieces"], strict=True)
        ),
        **labelled(display, fields["token_ids"], fields["plain_ids"], fields["topk_ids"]),
        **fields,
    )


def _continuation(
    pair: ModelPair,
    start: Passage,
    asked: Prompt | None,
    made: Generation,
    pieces: tuple[str, ...],
    display: Pieces,
    config: DecodeConfig,
) -> Continuation:
    given = display.sequence(start.response, context=start.aligned)
    return Continuation(
        name=start.name,
        prompt=pair.decode(start.aligned) if asked is None else asked.prompt,
        label=start.label,
        category=None if asked is None else asked.category,
        pair_id=None if asked is None else asked.pair_id,
        system_prompt=config.system_prompt,
        context_tokens=len(start.aligned),
        prefix_tokens=len(start.response),
        prefix="".join(piece.text for piece in given),
        text="".join(pieces[:-1] if made.stop == "end" else pieces),
        stop=made.stop,
    )


def _said(pair: ModelPair, passages: Sequence[Passage], made: Sequence[Made], config: DecodeConfig) -> list[str]:
    notes = []
    full = [(s, m) for s, m in zip(passages, made, strict=True) if m.generation.stop == "context"]
    if full:
        s, m = full[0]
        notes.append(
            f"{len(full)} of {len(made)} continuations filled the model's context of {pair.context_length:,} tokens "
            f"before max_tokens={config.generation.max_tokens} and ended there, the first ({s}) after "
            f"{len(m.generation.ids)} tokens."
        )
    if config.penalty.method == "safe_decoding":
        models = f"SafeDecoding: original is base and expert is aligned of {pair.name!r}"
        notes.append(f"{models}. Where its strength is 0 the original continues alone.")
    return notes
