"""The layers at which two models part: both residual streams read through their own final norm and head.

The reading is the logit lens (nostalgebraist, 2020): the output of block l, normalised and multiplied by the head as if
the model ended there. At the last block it is the model's own prediction. Every reading is exact over the full
vocabulary. Hidden states of response positions are kept for one batch, logits for one block of rows at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.core.batching import Budget, in_batches
from workbench.core.configs import at_least, check_fields, takes_fields
from workbench.core.errors import NonFiniteLogits, PairError, PromptError
from workbench.core.passages import Passage, check_room
from workbench.core.provenance import Stopwatch
from workbench.core.store import Store, key_of
from workbench.models.pair import ModelPair, Which
from workbench.models.pieces import padded
from workbench.models.weights import blocks_of, body_of
from workbench.prompts.loading import Prompt, PromptSet
from workbench.tracing.parting import READINGS
from workbench.tracing.records import LayerTrace
from workbench.tracing.scoring import response_rows, rows_at_once

_BOTH: tuple[Which, Which] = ("base", "aligned")


@dataclass(frozen=True, kw_only=True)
class LayersConfig:
    """The settings of a layer trace: `limit` prompts of each label are drawn, seeded; `max_tokens` of each response.

    Batches hold at most `batch_tokens` padded tokens (one response at least); the hidden states of all layers at their
    response positions are in memory at once.
    """

    limit: int = 8
    max_tokens: int = 32
    system_prompt: str | None = None
    batch_tokens: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        once = at_least(1)
        check_fields(self, limit=once, max_tokens=once, batch_tokens=once, seed=at_least(0))


@takes_fields(LayersConfig)
def trace_layers(
    pair: ModelPair, prompts: PromptSet, config: LayersConfig, *, store: Store | None = None
) -> LayerTrace:
    """Read both models at every layer along the given responses, teacher-forced.

    With p_l and q_l the aligned and the base model's distribution read after block l (1-based), each by its own final
    norm and head, row t holds, for the state that predicts response token t:

        excess_mass(l, t)   1/2 sum_v |p_l(v) - q_l(v)|, the total variation between the two readings
        rank_base(l, t)     the rank in p_l of the token that base likes best at its last layer (1 = aligned keeps it)
        rank_opening(l, t)  the rank in p_l of the token with which aligned would open its own answer: what it likes
                            best at position 1, at its last layer; where it refuses, the refusal's first token

    Prompts without a response are left out. Raises PromptError where no prompt has one, PairError where the blocks or
    the final norm of an architecture are not found or the two models have unequally many layers, ContextOverflow, and
    NonFiniteLogits naming model, layer and position.
    """
    watch = Stopwatch("trace_layers", config)
    chosen = _choose(prompts, config)
    passages = [
        pair.passage(p, pair.encode(p.response or "")[: config.max_tokens], system_prompt=config.system_prompt)
        for p in chosen
    ]
    check_room(passages, pair.context_length)
    lenses = {which: _lens(pair, which, passages[0]) for which in _BOTH}
    depth, other = (len(lenses[which].blocks) for which in _BOTH)
    if depth != other:
        raise PairError(f"base has {depth} layers and aligned {other}: their layers cannot be compared one by one")

    def work(rows: list[int], finished: Callable[[int, dict[str, np.ndarray]], None]) -> None:
        batch = [passages[n] for n in rows]
        for n, read in zip(rows, _read(pair, lenses, batch), strict=True):
            finished(n, read)

    keys = [key_of("layers 1", pair.fingerprint, p.context("base"), p.aligned, p.response) for p in passages]
    with torch.inference_mode():
        found = in_batches(
            keys,
            [p.length for p in passages],
            work,
            budget=Budget(config.batch_tokens),
            store=Store.of(store),
            entry=_arrays,
            read=_arrays,
            what="reading layers",
            unit="responses",
        )
    return LayerTrace(
        run=watch.record(
            resolved={**pair.settings(), "prompts": prompts.name, "layers": depth},
            seed=config.seed,
            device=str(pair.device),
            fingerprint=pair.fingerprint,
        ),
        prompt_ids=tuple(p.id for p in chosen),
        labels=tuple(p.label for p in chosen),
        openings=tuple(pair.decode([int(f["opening"][0])]) for f in found),
        mask=padded([[True] * len(p.response) for p in passages], False, np.bool_),
        **{name: padded([f[name] for f in found], np.nan, np.float32, depth) for name in READINGS},
    )


def _arrays(read: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return one passage's readings as the store keeps them."""
    return dict(read)


def _choose(prompts: PromptSet, config: LayersConfig) -> list[Prompt]:
    with_response = [p for p in prompts if p.response]
    if not with_response:
        raise PromptError(
            f"the prompt set {prompts.name!r} has no responses, and layers are read along a response: "
            "give a set with responses"
        )
    rng = np.random.default_rng(config.seed)
    chosen: set[str] = set()
    for label in dict.fromkeys(p.label for p in with_response):
        mine = [p.id for p in with_response if p.label == label]
        drawn = rng.choice(len(mine), min(config.limit, len(mine)), replace=False)
        chosen |= {mine[i] for i in drawn.tolist()}
    return [p for p in with_response if p.id in chosen]


# --------------------------------------------------------------------------------------------- reading a batch


@contextlib.contextmanager
def _streams(blocks: Sequence[nn.Module], kept: list[Tensor]) -> Iterator[None]:
    """Keep the output of every block, in order, while the body runs; the hooks are removed at the end."""

    def keep(module: nn.Module, arguments: object, output: Tensor | tuple[Tensor, ...]) -> None:
        kept.append(output if isinstance(output, Tensor) else output[0])

    with contextlib.ExitStack() as stack:
        for block in blocks:
            stack.callback(block.register_forward_hook(keep).remove)
        yield


def _final_norm(body: nn.Module, blocks: Sequence[nn.Module], run: Callable[[], Tensor]) -> nn.Module | None:
    """Find the module outside the blocks whose output on a pass is the body's own: by value, not by name."""
    inside = {id(m) for b in blocks for m in b.modules()}
    made: list[tuple[nn.Module, Tensor]] = []
    with contextlib.ExitStack() as stack:
        for module in body.modules():
            if id(module) not in inside and not isinstance(module, nn.ModuleList) and module is not body:
                stack.callback(
                    module.register_forward_hook(
                        lambda m, a, o: made.append((m, o)) if isinstance(o, Tensor) else None
                    ).remove
                )
        hidden = run()
    for module, output in reversed(made):
        if output.shape == hidden.shape and _same(output, hidden):
            return module
    return None


@dataclass(frozen=True)
class _Lens:
    """One model's blocks, and the final norm through which their outputs are read."""

    blocks: Sequence[nn.Module]
    norm: nn.Module


def _same(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors are equal bit for bit, NaN included, wherever they are."""
    return torch.allclose(a.to(b.device), b, rtol=0, atol=0, equal_nan=True)


def _lens(pair: ModelPair, which: Which, passage: Passage) -> _Lens:
    """Find a model's blocks and final norm. Raises PairError where the norm is not what follows the last block."""
    ids = torch.tensor([passage.context(which)], device=pair.device)
    kept: list[Tensor] = []
    with pair.model(which) as model, torch.inference_mode():
        body = body_of(model)
        blocks = blocks_of(body)
        norm = _final_norm(body, blocks, lambda: pair.hidden(which, ids))
        with _streams(blocks, kept):
            hidden = pair.hidden(which, ids)
        reads = norm is not None and len(kept) == len(blocks) > 0
        if norm is None or not reads or not _same(norm(kept[-1]), hidden):
            why = "no final norm follows the output of its last block"
            raise PairError(f"the layers of {type(body).__name__} cannot be read: {why}")
    return _Lens(blocks, norm)


def _states(pair: ModelPair, which: Which, lens: _Lens, batch: Sequence[Passage]) -> Float[Tensor, "layer row hidden"]:
    """Return the normalised output of every block at the rows that predict response tokens."""
    kept: list[Tensor] = []
    rows = [(n, len(p.context(which)) - 1 + t) for n, p in enumerate(batch) for t in range(len(p.response))]
    of, at = (list(x) for x in zip(*rows, strict=True))
    with pair.model(which), _streams(lens.blocks, kept):
        response_rows(pair, which, [p.context(which) for p in batch], [p.response for p in batch])
        return torch.stack([lens.norm(stream[of, at]).to(pair.device) for stream in kept])


def _read(pair: ModelPair, lenses: Mapping[Which, _Lens], batch: Sequence[Passage]) -> Iterator[dict[str, np.ndarray]]:
    """Yield each passage's readings: `excess_mass` and the ranks are (token, layer), `opening` is one token id."""
    states = {which: _states(pair, which, lenses[which], batch) for which in _BOTH}
    layers, rows = states["base"].shape[:2]
    starts = np.cumsum([0, *(len(p.response) for p in batch)])
    owner = torch.tensor([n for n, p in enumerate(batch) for _ in p.response], device=pair.device)
    block = max(1, rows_at_once(pair)[0] // 2)
    best = {
        which: torch.cat(
            [_logits(pair, which, states[which][-1, s : s + block]).argmax(-1) for s in range(0, rows, block)]
        )
        for which in _BOTH
    }
    opening = best["aligned"][torch.tensor(starts[:-1], device=pair.device)]
    made = {name: np.full((rows, layers), np.nan, np.float32) for name in READINGS}
    for layer in range(layers):
        for s in range(0, rows, block):
            here = slice(s, s + block)
            base, aligned = (_logits(pair, which, states[which][layer, here]) for which in _BOTH)
            _check_finite(base, aligned, layer, s, starts, batch)
            made["rank_base"][here, layer] = _rank(aligned, best["base"][here])
            made["rank_opening"][here, layer] = _rank(aligned, opening[owner[here]])
            apart = (aligned.softmax(-1) - base.softmax(-1)).abs().sum(-1) / 2
            made["excess_mass"][here, layer] = apart.clamp(max=1).cpu().numpy()
    for n, (start, stop) in enumerate(pairwise(starts.tolist())):
        yield {
            **{name: np.ascontiguousarray(values[start:stop]) for name, values in made.items()},
            "opening": np.array([int(opening[n])], np.int64),
        }


def _logits(pair: ModelPair, which: Which, states: Float[Tensor, "row hidden"]) -> Float[Tensor, "row vocab"]:
    return pair.logits(which, states, float32=True)


def _rank(logits: Float[Tensor, "row vocab"], ids: Int[Tensor, "row"]) -> np.ndarray:
    """Return the 1-based rank of one token in each row; ties count in its favour."""
    ranks: np.ndarray = (1 + (logits > logits.gather(-1, ids[:, None])).sum(-1)).cpu().numpy()
    return ranks


def _check_finite(
    base: Tensor, aligned: Tensor, layer: int, start: int, starts: np.ndarray, batch: Sequence[Passage]
) -> None:
    for which, logits in zip(_BOTH, (base, aligned), strict=True):
        bad = ~logits.amax(-1).isfinite()
        if bool(bad.any()):
            row = start + int(bad.int().argmax())
            n = int(np.searchsorted(starts, row, side="right")) - 1
            at = f"at layer {layer + 1}, position {row - starts[n] + 1} of the response to {batch[n]}"
            raise NonFiniteLogits.at(which, at)
