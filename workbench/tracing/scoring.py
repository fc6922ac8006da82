"""The scoring engine: two models over the same responses, every quantity exact, in a fixed amount of memory.

The body of each model runs over whole sequences; only response positions reach the output head, a block of rows at a
time, and a block's logits are reduced to numbers before the next block. No array of prompts x positions x vocabulary
exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.batching import in_batches
from workbench.core.configs import Range, at_least, check_fields
from workbench.core.errors import NonFiniteLogits
from workbench.core.passages import Passage
from workbench.core.provenance import settings_of
from workbench.core.quantities import QUANTITIES
from workbench.core.store import Store, key_of
from workbench.models.pair import ModelPair, Which
from workbench.tracing.metrics import BUFFERS, Comparison, CountSpace, Ranking, compare, kl_nats

_BOTH: tuple[Which, Which] = ("base", "aligned")

BUFFER_MIB = {"cpu": 64, "cuda": 512}
"""The engine's own buffers on each kind of device, MiB; they limit the blocks of rows."""

SLICE_MIB = {"cpu": 4, "cuda": 64}
"""One buffer of the slice of a block that is compared at once, MiB; it fits a processor's cache."""


FIRST_TOKENS = 4096
"""Tokens of the first batch, where nothing is measured yet."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """The settings of `metrics.compare`; `shown_k` entries of each model's top-k list are kept for display.

    `base_floor` is the least p_b of a detected token: without it, tokens that neither model would ever say are detected
    at most positions.
    """

    count_space: CountSpace = "aligned_topk"
    ranking: Ranking = "mass"
    base_floor: float = 0.0
    top_k: int = 100
    shown_k: int = 10

    def __post_init__(self) -> None:
        check_fields(
            self,
            count_space=get_args(CountSpace),
            ranking=get_args(Ranking),
            base_floor=Range(0, 1, "at least 0 and below 1", with_high=False),
            top_k=at_least(1),
            shown_k=at_least(1),
        )

    @property
    def scoring(self) -> ScoreConfig:
        """These settings alone, without those of a subclass."""
        return ScoreConfig(**{f.name: getattr(self, f.name) for f in fields(ScoreConfig)})


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One response's numbers: `scalars` is (quantity, token) in the order of core.quantities.QUANTITIES.

    `topk_ids` is (token, 2 x shown_k): base's top k, then those of aligned's that are not among them, then -1.
    `detected*` lists each detected vocabulary element once, with its number of positions and summed p_b - p_a.
    """

    scalars: Float[np.ndarray, "quantity token"]
    topk_ids: Int[np.ndarray, "token k"]
    topk_base: Float[np.ndarray, "token k"]
    topk_aligned: Float[np.ndarray, "token k"]
    detected: Int[np.ndarray, "entry"]
    detected_count: Int[np.ndarray, "entry"]
    detected_mass: Float[np.ndarray, "entry"]


def score(
    pair: ModelPair,
    passages: Sequence[Passage],
    config: ScoreConfig,
    *,
    batch_tokens: int | None = None,
    store: Store | None = None,
    what: str | None = "scoring",
) -> tuple[Scores, ...]:
    """Score every response, in the order given. Contexts and responses must not be empty.

    Batches hold at most `batch_tokens` padded tokens (one response at least); None: FIRST_TOKENS in the first one, then
    as many as a GPU has memory for. Finished batches go to `store`. Raises
    NonFiniteLogits naming model, response and position.
    """
    settings = settings_of(config)
    same = ("scores 3", tuple(QUANTITIES), pair.fingerprint)
    keys = [key_of(*same, p.context("base"), p.aligned, p.response, settings) for p in passages]

    def work(rows: list[int], finished: Callable[[int, Scores], None]) -> None:
        batch = [passages[n] for n in rows]
        base, aligned = (passage_rows(pair, which, batch) for which in _BOTH)
        for n, scores in zip(rows, score_rows(pair, base, aligned, batch, config), strict=True):
            finished(n, scores)

    with torch.inference_mode():
        return tuple(
            in_batches(
                keys,
                [p.length for p in passages],
                work,
                budget=pair.budget(batch_tokens, FIRST_TOKENS),
                store=Store.of(store),
                entry=vars,
                read=lambda entry: Scores(**entry),
                what=what,
                unit="responses",
            )
        )


def rows_at_once(pair: ModelPair) -> tuple[int, int]:
    """Return how many rows pass the output heads at once, and how many of those are compared at once.

    Both models' logits of a block, and the other float32 buffers of a slice of it, fit into BUFFER_MIB together.
    """
    kind = pair.device.type if pair.device.type in BUFFER_MIB else "cpu"
    rows = int(BUFFER_MIB[kind] * 2**20) // (4 * pair.vocab)
    together = max(1, min(rows // BUFFERS, SLICE_MIB[kind] * 2**20 // (4 * pair.vocab)))
    return max(1, (rows - (BUFFERS - 2) * together) // 2), together


def response_rows(
    pair: ModelPair, which: Which, contexts: Sequence[tuple[int, ...]], responses: Sequence[tuple[int, ...]]
) -> Float[Tensor, "row hidden"]:
    """Return the hidden state that predicts each response token, responses one after the other.

    Sequences are padded on the right, where a causal model needs no mask. The last response token is not an input.
    """
    inputs = [c + r[:-1] for c, r in zip(contexts, responses, strict=True)]
    width = max(map(len, inputs))
    ids = torch.tensor([i + (0,) * (width - len(i)) for i in inputs], device=pair.device)
    hidden = pair.hidden(which, ids)
    batch: list[int] = []
    at: list[int] = []
    for n, (c, r) in enumerate(zip(contexts, responses, strict=True)):
        batch += [n] * len(r)
        at += range(len(c) - 1, len(c) - 1 + len(r))
    return hidden[batch, at]


def passage_rows(pair: ModelPair, which: Which, passages: Sequence[Passage]) -> Float[Tensor, "row hidden"]:
    """Return the hidden state that predicts each response token of passages, one passage after the other."""
    return response_rows(pair, which, [p.context(which) for p in passages], [p.response for p in passages])


def score_rows(
    pair: ModelPair,
    base: Float[Tensor, "row hidden"],
    aligned: Float[Tensor, "row hidden"],
    passages: Sequence[Passage],
    config: ScoreConfig,
) -> list[Scores]:
    """Score responses from the hidden states that predict their tokens, one response after the other.

    Raises NonFiniteLogits naming model, response and position.
    """
    observed = torch.tensor([t for p in passages for t in p.response], device=pair.device)
    block, together = rows_at_once(pair)
    # one buffer for all blocks: fresh memory for each would cost a fourth of the matrix product
    room = base.new_empty(2, min(block, len(observed)), pair.vocab, dtype=torch.float32)
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(observed), block):
        chunk = slice(start, start + block)
        logits_base = pair.logits("base", base[chunk], float32=True, out=room[0])
        logits_aligned = pair.logits("aligned", aligned[chunk], float32=True, out=room[1])
        few = zip(*(x.split(together) for x in (logits_base, logits_aligned, observed[chunk])), strict=True)
        parts += [_reduced(compare(b, a, o, **vars(config))) for b, a, o in few]
    kept = [torch.cat(p).cpu().numpy() for p in zip(*parts, strict=True)]
    out, start = [], 0
    for p in passages:
        own = slice(start, start + len(p.response))
        start += len(p.response)
        out.append(_scores([k[own] for k in kept], str(p)))
    return out


def score_logits(
    base: Float[Tensor, "row vocab"],
    aligned: Float[Tensor, "row vocab"],
    observed: Int[Tensor, "row"],
    config: ScoreConfig,
    name: str,
) -> Scores:
    """Score one response from both models' logits, which are consumed (overwritten); `name` is for errors."""
    return _scores([k.cpu().numpy() for k in _reduced(compare(base, aligned, observed, **vars(config)))], name)


def _scores(kept: Sequence[np.ndarray], name: str) -> Scores:
    """Make one response's Scores of its rows, as `_reduced` returns them."""
    scalars, ids, on_base, on_aligned, detected, mass = kept
    _check_finite(scalars, name)
    found, inverse, count = np.unique(detected, return_inverse=True, return_counts=True)
    summed = np.bincount(inverse.ravel(), mass.ravel(), minlength=len(found))
    there = found >= 0
    return Scores(
        scalars=np.ascontiguousarray(scalars.T),
        topk_ids=ids,
        topk_base=on_base,
        topk_aligned=on_aligned,
        detected=found[there].astype(np.int32),
        detected_count=count[there].astype(np.int32),
        detected_mass=summed[there].astype(np.float32),
    )


def _reduced(c: Comparison) -> tuple[Tensor, ...]:
    """Reduce a block to scalars, the union of top-k ids, both log-probabilities, and detections."""
    scalars = torch.stack([c.scalars[name].float() for name in QUANTITIES], -1)
    repeated = (c.topk_aligned.unsqueeze(-1) == c.topk_base.unsqueeze(-2)).any(-1)
    # aligned's own entries move to the front, so that the union has no hole
    order = repeated.to(torch.int8).argsort(dim=-1, stable=True)
    extra = c.topk_aligned.masked_fill(repeated, -1).gather(-1, order)
    extra_scores = c.topk_aligned_logprobs.masked_fill(repeated.unsqueeze(-1), torch.nan)
    extra_scores = extra_scores.gather(-2, order.unsqueeze(-1).expand_as(extra_scores))
    ids = torch.cat((c.topk_base, extra), -1).to(torch.int32)
    both = torch.cat((c.topk_base_logprobs, extra_scores), -2)
    return scalars, ids, both[..., 0], both[..., 1], c.detected.to(torch.int32), c.detected_mass


def _check_finite(scalars: Float[np.ndarray, "token quantity"], name: str) -> None:
    names = list(QUANTITIES)
    for which in _BOTH:
        bad = ~np.isfinite(scalars[:, names.index(f"logprob_{which}_nats")])
        if bad.any():
            raise NonFiniteLogits.at(which, f"at position {int(bad.argmax()) + 1} of the response to {name}")


def noise_floor(pair: ModelPair, passages: Sequence[Passage], *, samples: int = 4) -> Float[np.ndarray, "sample token"]:
    """Measure KL(model || the same model in another batch layout), nats, per response token; NaN beyond the response.

    Each of the first `samples` responses is run in one right-padded batch without mask, and alone, padded on the left
    with a mask, through both models (2 x samples rows). They differ by rounding, and a KL below it has no meaning.
    """
    chosen = passages[:samples]
    lengths = [len(p.response) for p in chosen]
    out = np.full((2 * len(chosen), max(lengths, default=0)), np.nan, np.float32)
    with torch.inference_mode():
        for m, which in enumerate(_BOTH if chosen else ()):
            together = passage_rows(pair, which, chosen).split(lengths)
            for n, (p, rows) in enumerate(zip(chosen, together, strict=True)):
                alone = _alone(pair, which, p.context(which), p.response)
                out[2 * n + m, : lengths[n]] = _kl_rows(pair, which, rows, alone)
    return out


def _alone(
    pair: ModelPair, which: Which, context: tuple[int, ...], response: tuple[int, ...], pad: int = 3
) -> Float[Tensor, "row hidden"]:
    ids = torch.tensor([(0,) * pad + context + response[:-1]], device=pair.device)
    mask = torch.ones_like(ids)
    mask[:, :pad] = 0
    position = mask.cumsum(-1).sub(1).clamp(min=0)
    hidden = pair.hidden(which, ids, attention_mask=mask, position_ids=position)
    return hidden[0, pad + len(context) - 1 :]


def _kl_rows(
    pair: ModelPair, which: Which, p: Float[Tensor, "row hidden"], q: Float[Tensor, "row hidden"]
) -> Float[np.ndarray, "row"]:
    block, _ = rows_at_once(pair)
    parts = [
        kl_nats(
            pair.logits(which, p[s : s + block], float32=True).log_softmax(-1),
            pair.logits(which, q[s : s + block], float32=True).log_softmax(-1),
        )
        for s in range(0, len(p), block)
    ]
    return torch.cat(parts).cpu().numpy()
