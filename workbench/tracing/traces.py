"""From a pair and prompts to a TraceSet: both models' predictions of every response token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from workbench.core.configs import at_least, check_fields, takes_fields
from workbench.core.errors import WorkbenchError
from workbench.core.passages import Passage
from workbench.core.provenance import Stopwatch
from workbench.core.quantities import ENTROPY_FLOOR_NATS, QUANTITIES
from workbench.core.store import Store
from workbench.judging.makers import check_name
from workbench.models.pair import ModelPair
from workbench.models.pieces import Pieces, labelled, padded, token_arrays
from workbench.prompts.loading import Prompt, PromptSet
from workbench.tracing import trajectories
from workbench.tracing.records import TraceSet, Trajectory
from workbench.tracing.scoring import ScoreConfig, Scores, noise_floor, score

MODES_DISAGREE = 2.0
"""Two template modes disagree when their mean KL at position 1 differs by more than this factor (and 0.05 nats)."""


@dataclass(frozen=True, kw_only=True)
class TraceConfig(ScoreConfig):
    """The responses to trace, and the settings of ScoreConfig.

    `teacher_forced` follows each prompt's given response; in `free_running` the aligned model continues greedily after
    its first k tokens, for each k of `prefix_tokens`; `auto` is the second where no prompt has a response, else the
    first. `max_tokens` bounds a response, prefix included. Up to an aligned entropy of `entropy_floor_nats` both models
    count as nearly certain, and retention is ignored. With `own_answers` aligned also answers the harmful prompts on
    its own, and `judge` (None: "exact" on the embedded prompts, else "refusal") says if it refuses: without that a
    diagnosis has no verdict.
    """

    trajectory: Trajectory | Literal["auto"] = "teacher_forced"
    prefix_tokens: tuple[int, ...] = (0, 5, 10, 20)
    max_tokens: int = 64
    system_prompt: str | None = None
    base_floor: float = 0.001
    entropy_floor_nats: float = ENTROPY_FLOOR_NATS
    batch_tokens: int | None = None
    own_answers: bool = True
    judge: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        k, most = self.prefix_tokens, self.max_tokens
        room = f"lengths (at least one) from 0 to max_tokens - 1 = {most - 1}, since max_tokens counts the prefix too"
        check_fields(
            self,
            (not k or min(k) < 0 or max(k) >= most, "prefix_tokens", room),
            (len(set(k)) < len(k), "prefix_tokens", "different lengths"),
            trajectory=("auto", *get_args(Trajectory)),
            max_tokens=at_least(1),
            batch_tokens=at_least(1),
            entropy_floor_nats=at_least(0),
        )
        if self.judge is not None:
            check_name(self.judge)


@takes_fields(TraceConfig)
def trace(pair: ModelPair, prompts: PromptSet, config: TraceConfig, *, store: Store | None = None) -> TraceSet:
    """Trace both models along responses: all quantities of core.quantities, exact over the full vocabulary.

    With a `store`, a killed run resumes where it stopped. Raises PromptError, ContextOverflow and ParameterError before
    any model runs; NonFiniteLogits names the position.
    """
    store = Store.of(store)
    watch = Stopwatch("trace", config)
    common = {"system_prompt": config.system_prompt, "max_tokens": config.max_tokens, "store": store}
    given = any(p.response for p in prompts)
    if config.trajectory == "teacher_forced" or (config.trajectory == "auto" and given):
        traced, notes = trajectories.teacher_forced(pair, prompts, **common)  # type: ignore[arg-type]
    else:
        lengths = config.prefix_tokens
        traced, notes = trajectories.free_running(pair, prompts, prefix_tokens=lengths, **common)  # type: ignore[arg-type]
    empty = sum(not passage.response for _, passage in traced)
    if empty:
        notes.append(f"{empty} responses have no token and are left out.")
        traced = [t for t in traced if t[1].response]
    passages = [passage for _, passage in traced]
    scores = score(pair, passages, config.scoring, batch_tokens=config.batch_tokens, store=store)
    noise = noise_floor(pair, _spread(passages))
    notes += template_disagreement(pair, prompts, config.system_prompt)
    own = trajectories.own_answers(pair, prompts, config.judge, **common) if config.own_answers else ()  # type: ignore[arg-type]
    made = assembled(pair, prompts, config, traced, scores, noise, tuple(notes), watch, config.entropy_floor_nats)
    return replace(made, own_answers=own)


def template_disagreement(
    pair: ModelPair, prompts: PromptSet, system_prompt: str | None = None, *, samples: int = 8
) -> list[str]:
    """Return a warning where the template modes disagree about KL(aligned || base) at position 1, else nothing.

    Modes that the pair does not support are skipped.
    """
    chosen: Sequence[Prompt] = list(prompts)[:samples]
    means: dict[str, float] = {}
    for mode in ("shared", "own", "plain"):
        try:
            other = pair.with_template_mode(mode)
            passages = [other.passage(p, (0,), system_prompt=system_prompt) for p in chosen]
        except WorkbenchError:
            continue
        made = score(other, passages, ScoreConfig(shown_k=1, top_k=1), what=None)
        kl = list(QUANTITIES).index("kl_aligned_base_nats")
        means[mode] = float(np.mean([s.scalars[kl, 0] for s in made]))
    low, high = min(means.values()), max(means.values())
    if len(means) < 2 or high - low <= 0.05 or high <= MODES_DISAGREE * low:
        return []
    listed = ", ".join(f"{m} {v:.3g}" for m, v in means.items())
    return [
        f"The template modes disagree at position 1, where mean KL(aligned || base) in nats over {len(chosen)} prompts "
        f"is {listed}. This result is for mode {pair.template_mode!r}: compare numbers only within one mode."
    ]


def _spread(passages: Sequence[Passage], samples: int = 4) -> Sequence[Passage]:
    """Choose a few passages evenly over the set."""
    return passages[:: max(1, math.ceil(len(passages) / samples))]


def assembled(
    pair: ModelPair,
    prompts: PromptSet,
    config: ScoreConfig,
    traced: Sequence[trajectories.Trajectory],
    scores: Sequence[Scores],
    noise: np.ndarray,
    notes: tuple[str, ...],
    watch: Stopwatch,
    entropy_floor_nats: float = ENTROPY_FLOOR_NATS,
) -> TraceSet:
    """Return scored trajectories, display pieces and provenance as one record."""
    display = Pieces(pair.tokenizer)
    arrays = token_arrays(display, [(p.response, p.aligned) for _, p in traced])
    shown = scores[0].topk_ids.shape[-1] if scores else 0
    arrays["topk_ids"] = padded([s.topk_ids for s in scores], -1, np.int32, shown)
    for which in ("base", "aligned"):
        kept = [getattr(s, f"topk_{which}") for s in scores]
        arrays[f"topk_logprob_{which}_nats"] = padded(kept, np.nan, np.float32, shown)
    scalars: dict[str, np.ndarray] = {}
    for n, (name, q) in enumerate(QUANTITIES.items()):
        values = [s.scalars[n] for s in scores]
        scalars[name] = padded(values, 0, np.int32) if q.count else padded(values, np.nan, np.float32)
    detected = _joined([s.detected for s in scores], np.int32)
    return TraceSet(
        run=watch.record(
            resolved={
                **pair.settings(),
                "prompts": prompts.name,
                "prompts_source": prompts.source,
                "columns": prompts.columns,
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
        responses=tuple(response for response, _ in traced),
        detected_response=np.repeat(np.arange(len(scores), dtype=np.int32), [len(s.detected) for s in scores]),
        detected_token=detected,
        detected_count=_joined([s.detected_count for s in scores], np.int32),
        detected_mass=_joined([s.detected_mass for s in scores], np.float32),
        noise_kl_nats=noise,
        scalars=scalars,
        entropy_floor_nats=entropy_floor_nats,
        **labelled(display, arrays["token_ids"], arrays["topk_ids"], detected),
        **arrays,
    )


def _joined(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([*parts, np.empty(0, dtype)]).astype(dtype)
