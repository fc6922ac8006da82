"""The memory that a training needs beside the pair's weights, estimated from the rows that its arm can draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workbench.core.batching import plan_batches
from workbench.models.pair import ModelPair
from workbench.training.config import PERTURBING, LossConfig, TrainConfig
from workbench.training.objective import rows_in_a_chunk
from workbench.training.references import KEPT_MIB, states_mib, wanted_passages
from workbench.training.rows import RowMaker, TrainingRow, TrainingTexts

LOGITS = {"labels": 4, "reverse": 8, "forward": 8, "jsd": 13}
"""Buffers of a chunk's logits that exist at once: for labels, and by a teacher's direction; recovery and completion
need those of `reverse`."""

READ_TOKENS = 4096
"""The frozen pair reads this many tokens at once (`references.reference_states`)."""

HELD = {"cpu": 1.9}
"""Bytes that a process holds for each byte that its passes use at once, 1 for other devices: the C library keeps freed
blocks of up to 32 MiB, and later ones have other sizes. Measured: section `estimates` of benchmarks/results.json."""


def memory_mib(pair: ModelPair, trained: int, texts: TrainingTexts, config: TrainConfig) -> float:
    """Estimate the peak memory of a training beside the pair's weights, on the pair's device, MiB.

        16 trained + references + max(reading, HELD (body + heads))

    trained     numbers of the adapter: weight, gradient and two moments each, in float32
    references  hidden states of the frozen pair, both models', where they are kept (see `references.References`)
    reading     tokens in the largest batch that the frozen pair reads x (6 hidden + 3 inner): once, before training;
                where nothing is kept in every pass, which is then HELD (body + max(reading, heads))
    body        rows x longest row of the largest pass that can be drawn x layers x numbers that each token keeps for
                the backward pass: 10 hidden + 4 inner + 7 rank, or 8, 3 and 2 where the adapter is on few layers; 1.4
                times that in half precision. Attention that keeps its weights adds heads x longest row, 3 times with
                dropout
    heads       rows of logits in the largest chunk x vocabulary x LOGITS, in float32, and in half precision the head
                itself in float32

    Rows are as long as `RowMaker` can make them of `texts`, which `rows.prepared` returns. Not counted: libraries that
    a process loads for its first training, and the film, which needs less than a pass.
    """
    wanted = wanted_passages(texts, config.chosen)
    references, passes = states_mib(pair, wanted), _passes(texts, config)
    body, heads = _body_mib(pair, passes, config), _heads_mib(pair, passes, config)
    held = HELD.get(pair.device.type, 1.0)
    if references <= KEPT_MIB or config.experimental_sharded:
        sizes = [[len(p.whole(which)) for p in passages] for which, passages in wanted.items()]
        batches = [len(rows) * own[rows[0]] for own in sizes for rows in plan_batches(own, READ_TOKENS)]
        alive = max(_reading_mib(pair, max(batches, default=0)), held * (body + heads))
    else:
        alive = held * (body + max(_reading_mib(pair, min(READ_TOKENS, max(map(_tokens, passes)))), heads))
    on_device = references <= KEPT_MIB or (config.experimental_sharded and pair.device.type == "cpu")
    return 16 * trained / 2**20 + references * on_device + alive


@dataclass(frozen=True, kw_only=True)
class _Row:
    """The longest row of a part: tokens that the student reads, positions trained on, and LOGITS of its loss."""

    tokens: int
    positions: int
    logits: int


_Pass = list[tuple[int, _Row]]
"""The rows of one pass by part: their number, and the longest of them."""


def _passes(texts: TrainingTexts, config: TrainConfig) -> tuple[_Pass, _Pass]:
    """Return the pass with most and that with fewest harmful texts that can be drawn, each row at its longest."""
    harmful, plain = _rows(texts, config)
    size, share = config.rows_in_a_pass, config.batch_size * config.harmful_share if texts.harmful else 0.0
    most = min(size, math.ceil(share - 1e-9))
    fewest = max(0, size - config.batch_size + math.floor(share + 1e-9))

    def made(n: int) -> _Pass:
        return [(n, row) for row in harmful if n] + [(size - n, row) for row in plain if n < size]

    return made(most), made(fewest)


def _rows(texts: TrainingTexts, config: TrainConfig) -> tuple[list[_Row], list[_Row]]:
    """Return the longest row of each part that a harmful text can be made into, and of the other texts."""
    arm = replace(config.chosen, retention=())  # w_t changes no length
    maker, unused = RowMaker(replace(config, arm=arm)), np.random.default_rng(0)
    harmful: list[TrainingRow] = []
    for text, refusal in ((t, r) for t in texts.harmful for r in (t.refusals if arm.needs_refusals else [()])):
        for given in {0, maker.longest_prefix(text, refusal)}:
            harmful += maker.after(text, given, refusal)
    plain = [r for t in (*texts.utility, *texts.harmless) for r in maker.plain(t, "utility", unused)]
    more = PERTURBING[1] if arm.perturbed else 0
    return _longest(harmful, arm.loss, more), _longest(plain, arm.loss, more)


def _longest(rows: Sequence[TrainingRow], loss: LossConfig, more: int) -> list[_Row]:
    """Return one row for each part, as long as any of that part and `more` tokens."""
    logits = {"LABEL": LOGITS["labels"], "CONSTRAINT": LOGITS["labels"]}
    logits |= dict.fromkeys(("TEACHER", "BASE"), LOGITS[loss.direction])
    return [
        _Row(
            tokens=max(len(r.student.whole("aligned")) for r in own) - 1 + more,
            positions=max(len(r.labels) for r in own),
            logits=logits.get(own[0].role, LOGITS["reverse"]),
        )
        for part in dict.fromkeys(r.part for r in rows)
        if (own := [r for r in rows if r.part == part])
    ]


def _tokens(made: _Pass) -> int:
    """Return a pass's tokens, padding included."""
    return sum(n for n, _ in made) * max((row.tokens for _, row in made), default=0)


def _body_mib(pair: ModelPair, passes: Sequence[_Pass], config: TrainConfig) -> float:
    """Return what a pass keeps for the backward pass through the student's body, MiB."""
    with pair.model("aligned") as model:
        body = model.config.get_text_config()
    lora = config.chosen.lora
    hidden, inner, rank = (10, 4, 7) if lora.targets == "all-linear" else (8, 3, 2)
    numbers = hidden * body.hidden_size + inner * _inner(body) + rank * lora.rank
    dropout = any(getattr(body, name, 0.0) for name in ("attention_dropout", "attn_pdrop"))
    if dropout or getattr(body, "_attn_implementation", None) == "eager":
        longest = max((row.tokens for own in passes for _, row in own), default=0)
        numbers += (3 if dropout else 1) * body.num_attention_heads * longest
    wide = pair.dtype.itemsize * (1.0 if pair.dtype.itemsize == 4 else 1.4)
    return max(map(_tokens, passes)) * body.num_hidden_layers * numbers * wide / 2**20


def _heads_mib(pair: ModelPair, passes: Sequence[_Pass], config: TrainConfig) -> float:
    """Return the largest chunk's buffers of logits, MiB, and a float32 head where the pair is in half precision."""
    size = config.chunk_rows or rows_in_a_chunk(pair.vocab, pair.device)
    rows = max((min(n * row.positions, size) * row.logits for own in passes for n, row in own), default=0)
    with pair.model("aligned") as model:
        rows += model.config.get_text_config().hidden_size if pair.dtype.itemsize < 4 else 0
    return 4 * rows * pair.vocab / 2**20


def _reading_mib(pair: ModelPair, tokens: int) -> float:
    """Return what a frozen body needs to read this many tokens at once, MiB."""
    with pair.model("aligned") as model:
        body = model.config.get_text_config()
    return tokens * (6 * body.hidden_size + 3 * _inner(body)) * pair.dtype.itemsize / 2**20


def _inner(body: Any) -> int:
    return getattr(body, "intermediate_size", None) or 4 * body.hidden_size
