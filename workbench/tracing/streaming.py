"""One response, traced while base or aligned writes it: both models run token by token, each with its own cache.

The numbers equal those of `traces.trace` along the same tokens: the same functions reduce the same logits, a row at a
time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.configs import at_least, check_fields
from workbench.core.errors import ParameterError
from workbench.core.passages import Passage, check_room
from workbench.core.provenance import Stopwatch
from workbench.models.generation import (
    Again,
    Finite,
    GenerateConfig,
    Generation,
    Row,
    check_finite,
    draw,
    generation_keys,
    noise_key,
)
from workbench.models.pair import ModelPair, Which
from workbench.prompts.loading import Prompt, PromptSet
from workbench.tracing.records import TraceSet
from workbench.tracing.scoring import ScoreConfig, Scores, score_logits, score_rows
from workbench.tracing.traces import assembled
from workbench.tracing.trajectories import response_of

_BOTH: tuple[Which, Which] = ("base", "aligned")

PREFILL_TOKENS = 64
"""Context tokens that pass a model at once; a stream can be stopped between two such blocks."""


@dataclass(frozen=True, kw_only=True)
class StreamConfig(ScoreConfig):
    """The model that continues, its sampling, and the settings of ScoreConfig.

    `continued_by` is "base" or "aligned"; temperature 0 is greedy. `max_tokens` bounds the response, prefix included.
    """

    continued_by: Which = "aligned"
    max_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    system_prompt: str | None = None
    base_floor: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, continued_by=_BOTH, max_tokens=at_least(1))
        GenerateConfig(max_tokens=self.max_tokens, temperature=self.temperature, seed=self.seed)


class Growing:
    """One response while it grows: `ids` so far, and a record of it at any time."""

    def __init__(self, pair: ModelPair, prompt: Prompt, config: StreamConfig) -> None:
        """Check the settings before a model runs.

        Raises PromptError for an empty prompt, ParameterError where the prefix leaves no room in max_tokens,
        ContextOverflow where prompt and max_tokens exceed the model's context.
        """
        if pair.thinking:
            starts = f"{pair.name} thinks before it answers, and a stream starts at the visible answer"
            raise ParameterError(f"{starts}: load the pair with thinking=False")
        self.pair, self.prompt, self.config = pair, prompt, config
        self.start = pair.passage(prompt, system_prompt=config.system_prompt)
        if self.start.given >= config.max_tokens:
            raise ParameterError(
                f"the prefix has {self.start.given} tokens, and max_tokens={config.max_tokens} includes it: shorten "
                "the prefix or raise max_tokens"
            )
        check_room([self.start], pair.context_length, config.max_tokens - self.start.given)
        self.ids: tuple[int, ...] = ()
        self.stop = "stopped"
        self._scores: list[Scores] = []
        self._watch = Stopwatch("stream", config)

    @property
    def passage(self) -> Passage:
        """Return the response so far as a passage."""
        return replace(self.start, response=self.ids)

    def add(self, ids: Sequence[int], scores: Scores) -> None:
        """Append tokens with their scores."""
        self.ids += tuple(ids)
        self._scores.append(scores)

    def traces(self) -> TraceSet:
        """Return the response so far as a TraceSet, which is empty without a token."""
        config, there = self.config, bool(self.ids)
        response = replace(
            response_of(self.prompt, self.start, self.stop, config.system_prompt),
            continued_by=config.continued_by,
            temperature=float(config.temperature),
        )
        return assembled(
            self.pair,
            PromptSet(name="typed", source="one prompt", prompts=(self.prompt,)),
            config,
            [(response, self.passage)] if there else [],
            [_joined(self._scores)] if there else [],
            np.full((0, len(self.ids)), np.nan, np.float32),
            () if there else ("It was stopped before the first token.",),
            self._watch,
        )


def stream(
    pair: ModelPair,
    prompt: Prompt,
    config: StreamConfig | None = None,
    *,
    on_token: Callable[[Growing], object] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> TraceSet:
    """Continue a prompt with base or aligned, and score every token under both models as it is written.

    `prompt.response` is the prefix: its tokens are given and scored like the rest. `on_token(growing)` is called after
    the prefix and after each token. Where `cancelled()` is true (asked before every forward pass) the stream ends, with
    `stop` "stopped". Sampled tokens equal those of `generate` with the same seed. The noise floor and the template
    check of `trace` are skipped.

    Raises what `Growing` raises before any model runs; NonFiniteLogits naming the model and the position.
    """
    config = config or StreamConfig()
    growing = Growing(pair, prompt, config)
    asked = GenerateConfig(
        max_tokens=config.max_tokens - growing.start.given, temperature=config.temperature, seed=config.seed
    )
    context = growing.start.whole(config.continued_by)
    (key,) = generation_keys(pair, config.continued_by, [context], asked)

    def finished(_: int, made: Generation) -> None:
        growing.stop = made.stop

    def tell() -> None:
        if on_token is not None:
            on_token(growing)

    steps = _BothSteps(growing, tell, cancelled or (lambda: False))
    try:
        with torch.inference_mode():
            steps.read_contexts()
            row = Row(index=0, limit=asked.max_tokens, key=noise_key(asked, key))
            draw(pair, steps, [row], asked, on_token=None, finished=finished)
    except _Cancelled:
        pass
    return growing.traces()


class _Cancelled(Exception):
    """A request to stop the stream."""


class _BothSteps:
    """Both models over one response, each with its context and cache; `draw` takes its tokens from one of them."""

    finite: Finite = ()  # `scores` checks by itself

    def __init__(self, growing: Growing, tell: Callable[[], None], cancelled: Callable[[], bool]) -> None:
        pair = growing.pair
        self._growing, self._tell, self._cancelled = growing, tell, cancelled
        self._caches = {w: pair.new_cache(w) for w in _BOTH}
        self._last: dict[Which, Float[Tensor, "1 hidden"]] = {}
        self._logits: dict[Which, Float[Tensor, "1 vocab"]] = {}

    def read_contexts(self) -> None:
        """Run both models over the context and prefix, and score the prefix."""
        g = self._growing
        rows = {w: self._read(w, g.start.whole(w), g.start.given + 1) for w in _BOTH}
        self._last = {w: rows[w][-1:] for w in _BOTH}
        if g.start.given:
            base, aligned = (rows[w][:-1] for w in _BOTH)
            (scores,) = score_rows(g.pair, base, aligned, [g.start], g.config.scoring)
            g.add(g.start.response, scores)
            self._tell()

    def _read(self, which: Which, ids: tuple[int, ...], wanted: int) -> Float[Tensor, "row hidden"]:
        """Run a model over ids after what is in its cache; return the hidden states of the last `wanted`."""
        parts: list[Tensor] = []
        for start in range(0, len(ids), PREFILL_TOKENS):
            if self._cancelled():
                raise _Cancelled
            block = torch.tensor([ids[start : start + PREFILL_TOKENS]], device=self._growing.pair.device)
            parts.append(self._growing.pair.hidden(which, block, cache=self._caches[which])[0])
        return torch.cat(parts)[-wanted:]

    def scores(self) -> Float[Tensor, "1 vocab"]:
        """Return the continuing model's logits; the other's are computed beside them."""
        pair, written = self._growing.pair, len(self._growing.ids)
        for w in _BOTH:
            self._logits[w] = pair.logits(w, self._last[w], float32=True)
            check_finite(w, self._logits[w], [0], written + 1 - self._growing.start.given)
        own = self._growing.config.continued_by
        # tokens are drawn from what `generate` draws from
        return self._logits[own] if pair.dtype.itemsize >= 4 else pair.logits(own, self._last[own]).float()

    def take(self, chosen: Int[Tensor, "1"], again: Again) -> None:
        """Score the chosen token under both models, report it, and feed it to both."""
        g, token = self._growing, int(chosen)
        base, aligned = self._logits["base"], self._logits["aligned"]
        g.add((token,), score_logits(base, aligned, chosen, g.config.scoring, str(g.start)))
        self._tell()
        if token not in g.pair.eos_ids and len(g.ids) < g.config.max_tokens:
            self._last = {w: self._read(w, (token,), 1) for w in _BOTH}

    def keep(self, going: Sequence[int]) -> None:
        """Do nothing, since there is one row."""


def _joined(parts: Sequence[Scores]) -> Scores:
    """Join the scores of consecutive parts of one response, adding up detections of one element."""
    joined = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts], axis=-1 if f.name == "scalars" else 0)
        for f in fields(Scores)
    }
    found, inverse = np.unique(joined["detected"], return_inverse=True)
    for name, kind in (("detected_count", np.int32), ("detected_mass", np.float32)):
        joined[name] = np.bincount(inverse.ravel(), joined[name], minlength=len(found)).astype(kind)
    return Scores(**{**joined, "detected": found.astype(np.int32)})
