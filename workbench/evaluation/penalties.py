"""What a sweep tries: a grid of penalties, prefix lengths, and who judges."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.core.configs import at_least, between, check_fields
from workbench.core.errors import ParameterError
from workbench.core.store import Store
from workbench.decoding.config import Method, PenaltyConfig, RiskSpace, Shape, check_generates, undertrained
from workbench.judging.makers import AnyJudge
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet
from workbench.tracing.diagnosis import diagnose
from workbench.tracing.traces import TraceConfig, trace

ALIGNED = PenaltyConfig(method="none")
"""The first arm of every sweep: what each penalty is compared with."""


def penalty_grid(
    *,
    methods: Sequence[Method] = ("one_sided", "two_sided"),
    strengths: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0),
    shapes: Sequence[Shape] = ("constant",),
    m: int | None = None,
    gammas: Sequence[float] = (0.0,),
    risk_space: RiskSpace = "aligned_topk",
    plausibility: float = 0.0,
    retention: Sequence[float] = (),
) -> tuple[PenaltyConfig, ...]:
    """Return every combination as a penalty, in the order methods, shapes, gammas, strengths.

    `m` goes to the shapes that have one, `retention` to shape "undertrained", `plausibility` to the methods that take
    one. Method "none" and strength 0 are left out: aligned is in every sweep. Raises ParameterError as PenaltyConfig.
    """
    made = [
        PenaltyConfig(
            method=method,
            strength=strength,
            shape=shape,
            m=m if shape in ("first_m", "ramp") else None,
            gamma=gamma,
            risk_space=risk_space,
            plausibility=0.0 if method == "safe_decoding" else plausibility,
            retention=tuple(retention) if shape == "undertrained" else (),
        )
        for method, shape, gamma, strength in itertools.product(methods, shapes, gammas, strengths)
        if method != "none" and strength != 0.0
    ]
    return tuple(dict.fromkeys(made))


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """What is swept.

    penalties      what is tried beside aligned alone; see `penalties_for`
    prefix_tokens  response tokens of a compliant answer that are given, for each attack; 0 asks plainly
    max_tokens     longest completion, the prefix not counted
    text_tokens    responses along which KL and leverage are measured are cut here
    judge          who decides: a judge, its config or its name; None: "exact" for the embedded prompts, whose harmful
                   content is known, else "refusal" (rules; whatever does not refuse counts as compliance)
    expert         safety adapter that SafeDecoding takes as its expert, and aligned as its original; None: the expert
                   is aligned and the original is base
    system_prompt  put before every prompt; None: none
    batch_tokens   bound of rows x tokens in one batch
    confidence     of every interval
    resamples      of the bootstrap over prompts, for means and ratios; `seed` is its seed
    """

    penalties: tuple[PenaltyConfig, ...] = ()
    prefix_tokens: tuple[int, ...] = (0, 5, 10)
    max_tokens: int = 96
    text_tokens: int = 128
    judge: AnyJudge | None = None
    expert: str | None = None
    system_prompt: str | None = None
    batch_tokens: int = 16_384
    confidence: float = 0.95
    resamples: int = 1_000
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(
            self,
            (not self.penalties, "penalties", "at least one PenaltyConfig: see penalties_for"),
            (not self.prefix_tokens, "prefix_tokens", "at least one token count"),
            (len(set(self.prefix_tokens)) < len(self.prefix_tokens), "prefix_tokens", "different token counts"),
            prefix_tokens=at_least(0),
            max_tokens=at_least(1),
            text_tokens=at_least(1),
            batch_tokens=at_least(1),
            confidence=between(0, 1),
            resamples=at_least(1),
        )
        for penalty in self.penalties:
            check_generates(penalty)
        titles = [p.title for p in self.arms()]
        if twice := sorted({t for t in titles if titles.count(t) > 1}):
            raise ParameterError(f"two penalties are called {twice[0]!r}: leave one out, results could not name them")

    def arms(self) -> tuple[PenaltyConfig, ...]:
        """Return what is compared: aligned alone, then the penalties."""
        return (ALIGNED, *(p for p in self.penalties if p.method != "none"))


def pair_under(pair: ModelPair, penalty: PenaltyConfig, expert: str | None) -> ModelPair:
    """Return the pair that a penalty works on: of SafeDecoding with an expert, aligned and that expert.

    Raises what `ModelPair.with_expert` raises.
    """
    return pair if expert is None or penalty.method != "safe_decoding" else pair.with_expert(expert)


def retention_for(
    pair: ModelPair, prompts: PromptSet, shapes: Sequence[str], *, max_tokens: int = 128, store: Store | None = None
) -> tuple[float, ...]:
    """Return the measured retention by position that shape "undertrained" needs; () where no shape asks for it.

    Measured teacher-forced along the given responses to harmful prompts. Raises PromptError where there are none.
    """
    if "undertrained" not in shapes:
        return ()
    harmful = prompts.where(label="harmful")
    traces = trace(pair, harmful, TraceConfig(trajectory="teacher_forced", max_tokens=max_tokens), store=store)
    return undertrained(diagnose(traces))


def penalties_for(
    pair: ModelPair, prompts: PromptSet, *, store: Store | None = None, **grid: Any
) -> tuple[PenaltyConfig, ...]:
    """Return the grid of penalties to try on a pair: see `penalty_grid`, whose arguments `grid` are.

    The retention that shape "undertrained" needs is measured along the given responses to the harmful prompts.
    """
    return penalty_grid(retention=retention_for(pair, prompts, grid.get("shapes", ()), store=store), **grid)
