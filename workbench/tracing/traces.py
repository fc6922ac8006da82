"""From a pair and prompts to a TraceSet: what both models think of every response token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from workbench.core.configs import takes_fields
from workbench.core.errors import ParameterError, WorkbenchError
from workbench.core.provenance import Stopwatch
from workbench.core.store import Store
from workbench.models.pair import ModelPair
from workbench.models.pieces import Pieces
from workbench.prompts.loading import Prompt, PromptSet
from workbench.tracing.metrics import CountSpace, Ranking
from workbench.tracing.records import SCALARS, TraceSet, Trajectory
from workbench.tracing.scoring import Item, ScoreConfig, Scores, noise_floor, score
from workbench.tracing.trajectories import Path, free_running, teacher_forced

COUNTS = ("base_favored_count", "rank_base", "rank_aligned")
MODES_DISAGREE = 2.0
"""Two template modes disagree when their mean KL at position 1 differs by more than this factor (and 0.05 nats)."""


@dataclass(frozen=True, kw_only=True)
class TraceConfig:
    """Say which responses to trace and what to compute along them.

    `teacher_forced` goes along each prompt's given response; `free_running` lets the aligned model continue greedily
    after the first k tokens of it, for each k of `prefix_tokens`. `max_tokens` bounds a response, prefix included.
    `count_space`, `ranking` and `top_k`: see `metrics`. `base_floor` is the least p_b of a detected token: without one,
    tokens that neither model would ever say are detected at most positions.
    """

    trajectory: Trajectory = "teacher_forced"
    prefix_tokens: tuple[int, ...] = (0, 5, 10, 20)
    max_tokens: int = 64
    system_prompt: str | None = None
    count_space: CountSpace = "aligned_topk"
    ranking: Ranking = "mass"
    base_floor: float = 0.001
    top_k: int = 100
    shown_k: int = 10
    batch_tokens: int = 4096

    def __post_init__(self) -> None:
        choices = {
            "trajectory": ("teacher_forced", "free_running"),
            "count_space": ("aligned_topk", "base_topk", "union", "full"),
            "ranking": ("mass", "log_ratio"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ParameterError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")
        for name in ("max_tokens", "top_k", "shown_k", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} is {getattr(self, name)!r}; it must be at least 1")
        if not 0.0 <= self.base_floor < 1.0:
            raise ParameterError(f"base_floor is {self.base_floor!r}; it must be at least 0 and below 1")
        if not self.prefix_tokens or min(self.prefix_tokens) < 0 or max(self.prefix_tokens) >= self.max_tokens:
            raise ParameterError(
                f"prefix_tokens is {list(self.prefix_tokens)}; it must name at least one length, each from 0 to "
                f"max_tokens - 1 = {self.max_tokens - 1}, since max_tokens counts the prefix too"
            )
        if len(set(self.prefix_tokens)) < len(self.prefix_tokens):
            raise ParameterError(f"prefix_tokens is {list(self.prefix_tokens)}; a length occurs twice")


@takes_fields(TraceConfig)
def trace(pair: ModelPair, prompts: PromptSet, config: TraceConfig, *, store: Store | None = None) -> TraceSet:
    """Trace both models along responses: all quantities of records.SCALARS, exact over the full vocabulary.

    With a `store`, finished batches are kept on disk and a killed run resumes where it stopped.

    Raises PromptError, ContextOverflow and ParameterError before any model runs; NonFiniteLogits names the position.
    """
    store = Store(None) if store is None else store
    watch = Stopwatch("trace", config)
    common = {"system_prompt": config.system_prompt, "max_tokens": config.max_tokens, "store": store}
    if config.trajectory == "teacher_forced":
        paths, notes = teacher_forced(pair, prompts, **common)  # type: ignore[arg-type]
    else:
        paths, notes = free_running(pair, prompts, prefix_tokens=config.prefix_tokens, **common)  # type: ignore[arg-type]
    empty = [p.item.name for p in paths if not p.item.response]
    if empty:
        notes.append(f"{len(empty)} responses have no token and are left out.")
        paths = [p for p in paths if p.item.response]
    items = [p.item for p in paths]
    settings = ScoreConfig(
        count_space=config.count_space,
        ranking=config.ranking,
        base_floor=config.base_floor,
        top_k=config.top_k,
        shown_k=config.shown_k,
    )
    scores = score(pair, items, settings, batch_tokens=config.batch_tokens, store=store)
    noise = noise_floor(pair, _spread(items))
    notes += template_disagreement(pair, prompts, config.system_prompt)
    return assembled(pair, prompts, settings, paths, scores, noise, tuple(notes), watch)


def template_disagreement(
    pair: ModelPair, prompts: PromptSet, system_prompt: str | None = None, *, samples: int = 8
) -> list[str]:
    """Return a warning where the template modes disagree about KL(aligned || base) at position 1, else nothing.

    Modes that the pair does not have (no chat template, say) are left out.
    """
    chosen: Sequence[Prompt] = list(prompts)[:samples]
    means: dict[str, float] = {}
    for mode in ("shared", "own", "plain"):
        try:
            other = pair.with_template_mode(mode)
            items = [
                Item(
                    name=f"prompt {p.id!r}",
                    base_context=other.context(p, "base", system_prompt=system_prompt),
                    aligned_context=other.context(p, "aligned", system_prompt=system_prompt),
                    response=(0,),
                )
                for p in chosen
            ]
        except WorkbenchError:
            continue
        made = score(other, items, ScoreConfig(shown_k=1, top_k=1), what=None)
        means[mode] = float(np.mean([s.scalars[0, 0] for s in made]))
    low, high = min(means.values()), max(means.values())
    if len(means) < 2 or high - low <= 0.05 or high <= MODES_DISAGREE * low:
        return []
    listed = ", ".join(f"{m} {v:.3g}" for m, v in means.items())
    return [
        f"The template modes disagree at position 1: mean KL(aligned || base) in nats over {len(chosen)} prompts is "
        f"{listed}. This result is for mode {pair.template_mode!r}; compare numbers only within one mode."
    ]


def _spread(items: Sequence[Item], samples: int = 4) -> list[Item]:
    """Choose a few items evenly over the set, each once."""
    step = max(1, math.ceil(len(items) / samples))
    return list(items[::step])


@dataclass
class _Table:
    """Arrays of one TraceSet under construction, padded as records.TraceSet says."""

    rows: int
    width: int
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, name: str, fill: float | int | bool, dtype: type, *axes: int) -> np.ndarray:
        self.arrays[name] = np.full((self.rows, self.width, *axes), fill, dtype)
        return self.arrays[name]


def assembled(
    pair: ModelPair,
    prompts: PromptSet,
    config: ScoreConfig,
    paths: Sequence[Path],
    scores: Sequence[Scores],
    noise: np.ndarray,
    notes: tuple[str, ...],
    watch: Stopwatch,
) -> TraceSet:
    """Return scored trajectories, display pieces and where they came from as one record."""
    table = _Table(len(paths), max((len(p.item.response) for p in paths), default=0))
    shown = scores[0].topk_ids.shape[-1] if scores else 0
    ids, mask = table.add("token_ids", -1, np.int32), table.add("mask", False, np.bool_)
    partial, special = table.add("partial", False, np.bool_), table.add("special", False, np.bool_)
    topk = table.add("topk_ids", -1, np.int32, shown)
    on_base = table.add("topk_logprob_base_nats", np.nan, np.float32, shown)
    on_aligned = table.add("topk_logprob_aligned_nats", np.nan, np.float32, shown)
    for name in SCALARS:
        table.add(name, 0, np.int32) if name in COUNTS else table.add(name, np.nan, np.float32)
    display = Pieces(pair.tokenizer)
    texts: list[tuple[str, ...]] = []
    for n, (p, s) in enumerate(zip(paths, scores, strict=True)):
        size = len(p.item.response)
        pieces = display.sequence(p.item.response, context=p.item.aligned_context)
        texts.append(tuple(piece.text for piece in pieces))
        ids[n, :size], mask[n, :size] = p.item.response, True
        partial[n, :size] = [piece.partial for piece in pieces]
        special[n, :size] = [piece.special for piece in pieces]
        topk[n, :size], on_base[n, :size], on_aligned[n, :size] = s.topk_ids, s.topk_base, s.topk_aligned
        for name, values in zip(SCALARS, s.scalars, strict=True):
            table.arrays[name][n, :size] = values
    detected = _joined([s.detected for s in scores], np.int32)
    label_ids = np.unique(np.concatenate((ids.ravel(), topk.ravel(), detected)))
    label_ids = label_ids[label_ids >= 0].astype(np.int32)
    return TraceSet(
        run=watch.record(
            resolved={
                "pair": pair.name,
                "template_mode": pair.template_mode,
                "thinking": pair.thinking,
                "dtype": str(pair.dtype).removeprefix("torch."),
                "prompts": prompts.name,
                "prompts_source": prompts.source,
                "columns": prompts.columns,
                "pair_notes": pair.notes,
                "prompt_notes": prompts.notes,
            },
            device=str(pair.device),
            fingerprint=pair.fingerprint,
        ),
        prompt_set=prompts.name,
        classroom_safe=prompts.classroom_safe,
        template_mode=pair.template_mode,
        count_space=config.count_space,
        ranking=config.ranking,
        warnings=notes,
        responses=tuple(p.response for p in paths),
        pieces=tuple(texts),
        detected_response=np.repeat(np.arange(len(scores), dtype=np.int32), [len(s.detected) for s in scores]),
        detected_token=detected,
        detected_count=_joined([s.detected_count for s in scores], np.int32),
        detected_mass=_joined([s.detected_mass for s in scores], np.float32),
        noise_kl_nats=noise,
        label_ids=label_ids,
        labels=tuple(display.label(i) for i in label_ids.tolist()),
        **table.arrays,
    )


def _joined(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([*parts, np.empty(0, dtype)]).astype(dtype)
