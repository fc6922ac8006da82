"""The settings of a sweep, and the grid of penalties that it tries."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class PenaltyGrid:
    """Penalties to try: every combination, in the order methods, shapes, gammas, strengths.

    `m` applies to the shapes "first_m" and "ramp", `plausibility` to all methods but "safe_decoding". Method "none" and
    strength 0 are left out, because aligned is in every sweep. Shape "undertrained" needs the retention by position,
    which a sweep measures along the given responses to harmful prompts. Raises ParameterError as PenaltyConfig does.
    """

    methods: Sequence[Method] = ("one_sided", "two_sided")
    strengths: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0)
    shapes: Sequence[Shape] = ("constant",)
    m: int | None = None
    gammas: Sequence[float] = (0.0,)
    risk_space: RiskSpace = "aligned_topk"
    plausibility: float = 0.0

    def __post_init__(self) -> None:
        self.penalties()

    def penalties(self, retention: Sequence[float] = (1.0,)) -> tuple[PenaltyConfig, ...]:
        """Return the penalties; "undertrained" follows `retention`."""
        made = [
            PenaltyConfig(
                method=method,
                strength=strength,
                shape=shape,
                m=self.m if shape in ("first_m", "ramp") else None,
                gamma=gamma,
                risk_space=self.risk_space,
                plausibility=0.0 if method == "safe_decoding" else self.plausibility,
                retention=tuple(retention) if shape == "undertrained" else (),
            )
            for method, shape, gamma, strength in itertools.product(
                self.methods, self.shapes, self.gammas, self.strengths
            )
            if method != "none" and strength != 0.0
        ]
        return tuple(dict.fromkeys(made))

    def measured(self, pair: ModelPair, prompts: PromptSet, store: Store) -> tuple[PenaltyConfig, ...]:
        """Return the penalties for a pair. Raises PromptError where "undertrained" finds no harmful prompt."""
        if "undertrained" not in self.shapes:
            return self.penalties()
        config = TraceConfig(trajectory="teacher_forced", max_tokens=128, own_answers=False)
        traces = trace(pair, prompts.where(label="harmful"), config, store=store)
        return self.penalties(undertrained(diagnose(traces)))


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The settings of a sweep.

    penalties      the penalties that are tried beside aligned alone, or a grid of them
    prefix_tokens  given response tokens of a compliant answer, one attack each; 0: no prefix
    max_tokens     longest completion, without the prefix
    text_tokens    longest response along which KL and leverage are measured
    judge          a judge, its config or its name; None: "exact" for the embedded prompts, whose harmful content is
                   known, else "refusal" (rules; everything but a refusal counts as compliance)
    expert         safety adapter for SafeDecoding: aligned with it is the expert, and aligned the original; None:
                   aligned is the expert and base the original
    system_prompt  put before every prompt; None: none
    batch_tokens   bound of rows x tokens in one batch
    confidence     of every interval
    resamples      of the bootstrap over prompts, for means and ratios; `seed` is its seed
    """

    penalties: tuple[PenaltyConfig, ...] | PenaltyGrid = ()
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
            (not self.tried, "penalties", "at least one PenaltyConfig, or a PenaltyGrid"),
            (not self.prefix_tokens, "prefix_tokens", "at least one token count"),
            (len(set(self.prefix_tokens)) < len(self.prefix_tokens), "prefix_tokens", "different token counts"),
            prefix_tokens=at_least(0),
            max_tokens=at_least(1),
            text_tokens=at_least(1),
            batch_tokens=at_least(1),
            confidence=between(0, 1),
            resamples=at_least(1),
        )
        for penalty in self.arms():
            check_generates(penalty)
        titles = [p.title for p in self.arms()]
        if twice := sorted({t for t in titles if titles.count(t) > 1}):
            raise ParameterError(f"two penalties are called {twice[0]!r}, so results could not name them: drop one")

    def arms(self) -> tuple[PenaltyConfig, ...]:
        """Return aligned alone, then the penalties."""
        return (ALIGNED, *(p for p in self.tried if p.method != "none"))

    @property
    def tried(self) -> tuple[PenaltyConfig, ...]:
        """The penalties; those of a grid before any retention is measured."""
        return self.penalties.penalties() if isinstance(self.penalties, PenaltyGrid) else self.penalties
