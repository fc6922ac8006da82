"""The settings of a penalty: method, strength, and positions. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from workbench.core.configs import at_least, check_fields, from_to
from workbench.core.errors import ParameterError
from workbench.tracing.records import Diagnosis

if TYPE_CHECKING:
    from workbench.models.pair import ModelPair

Method = Literal["none", "one_sided", "two_sided", "safe_decoding"]
RiskSpace = Literal["aligned_topk", "full", "mass"]
Shape = Literal["constant", "first_m", "ramp", "undertrained"]
CountFrom = Literal["response", "generated"]

METHODS: dict[Method, str] = {
    "none": "no penalty: aligned alone",
    "one_sided": "one-sided contrastive decoding: base-favored tokens are pushed down (arXiv 2511.12155)",
    "two_sided": "contrastive decoding on every token: l_b + w (l_a - l_b), w = 1 + strength; base at strength -1",
    "safe_decoding": "SafeDecoding: original and expert on their common top tokens (arXiv 2402.08983)",
}
"""Name of each method -> what it is."""

LARGEST = 1e6
"""The largest strength, far above the one where distributions reach their limit, so that float32 stays finite."""


@dataclass(frozen=True, kw_only=True)
class PenaltyConfig:
    """A penalty on the next-token distribution, of strength alpha_t = strength * (1 + gamma * risk_t) * g(t).

    method       see METHODS; with l = log-probabilities, d = l_b - l_a:
                 one_sided      l_a - alpha_t max(d, 0)
                 two_sided      l_a - alpha_t d = l_b + w (l_a - l_b) with w = 1 + alpha_t
                 safe_decoding  p_o + alpha_t (p_e - p_o) on the smallest common top-k with at least 5 tokens, where
                                original o and expert e are the pair's base and aligned (see `ModelPair.with_expert`)
    strength     alpha (c in SafeDecoding); None: 1, and 3 for safe_decoding. 0 changes nothing
    gamma        the weight of the risk: 0 is the same everywhere
    risk_space   risk_t in [0, 1]: base-favored tokens among aligned's top 100 / 100 (aligned_topk), among the whole
                 vocabulary / its size (full: nearly constant), or the excess mass, TV(p_b, p_a) (mass)
    shape        g(t): constant 1; first_m: 1 up to position m, then 0; ramp: t / m up to 1; undertrained: `retention`
                 at t over its mean (beyond the end its last value), strong where aligned still equals base. None:
                 constant, and first_m for safe_decoding
    m            of first_m and ramp, positions; None: 5, and 2 for safe_decoding
    retention    measured retention by position, for shape undertrained: see `undertrained`
    plausibility only tokens with p_a >= plausibility * max p_a stay (0.1 in arXiv 2210.15097); 0 is off
    count_from   position 1 is the response's first token, given ones included ("response"), or the first generated one

    Where alpha_t is 0 nothing changes, not even by the plausibility mask. Raises ParameterError for values that are not
    finite, out of range, or contradict each other. A strength below -1 (w < 0) is an attack: it can be inspected in one
    distribution, and every generator refuses it (see `check_generates`).
    """

    method: Method = "one_sided"
    strength: float | None = None
    gamma: float = 0.0
    risk_space: RiskSpace = "aligned_topk"
    shape: Shape | None = None
    m: int | None = None
    retention: tuple[float, ...] = ()
    plausibility: float = 0.0
    count_from: CountFrom = "response"

    def __post_init__(self) -> None:
        names = {"method": Method, "risk_space": RiskSpace, "shape": Shape, "count_from": CountFrom}
        check_fields(self, **{name: get_args(known) for name, known in names.items()})
        safe = self.method == "safe_decoding"
        shape = self.shape or ("first_m" if safe else "constant")
        strength = (3.0 if safe else 1.0) if self.strength is None else float(self.strength)
        m = (2 if safe else 5) if self.m is None and shape in ("first_m", "ramp") else self.m
        resolved = {"shape": shape, "strength": strength, "m": m, "retention": tuple(map(float, self.retention))}
        for name, value in resolved.items():  # a record holds the used value, not None
            object.__setattr__(self, name, value)
        check_fields(
            self,
            (not abs(strength) <= LARGEST, "strength", f"a finite number, at most {LARGEST:g} in size"),
            (m is not None and shape not in ("first_m", "ramp"), "m", f"left out: shape {shape!r} has none"),
            (safe and self.plausibility > 0.0, "plausibility", "0: SafeDecoding has a sample space of its own"),
            gamma=from_to(0, LARGEST),
            plausibility=from_to(0, 1),
            m=at_least(1),
        )
        self._check_retention()

    @classmethod
    def family(cls, w: float, **settings: object) -> PenaltyConfig:
        """Return the unmasked family l_b + w (l_a - l_b): w = 0 is base, w = 1 aligned, w > 1 beyond aligned."""
        return cls(method="two_sided", strength=w - 1.0, **settings)  # type: ignore[arg-type]

    def on(self, pair: ModelPair, expert: str | None) -> ModelPair:
        """Return the pair that this penalty works on: of SafeDecoding with an expert, aligned and that expert.

        Raises what `ModelPair.with_expert` raises.
        """
        return pair if expert is None or self.method != "safe_decoding" else pair.with_expert(expert)

    @property
    def title(self) -> str:
        """The penalty in a few words, as an arm's name has it."""
        if self.method == "none":
            return "aligned"
        words = [f"{self.method} {self.strength:g}"]
        words += [f"gamma {self.gamma:g} ({self.risk_space})"] if self.gamma else []
        if self.shape != "constant":
            words.append(f"{self.shape} {self.m}" if self.m is not None else str(self.shape))
        words += [f"plausibility {self.plausibility:g}"] if self.plausibility else []
        return ", ".join(words)

    def _check_retention(self) -> None:
        if self.shape != "undertrained":
            if self.retention:
                given = f"retention was given for {len(self.retention)} positions, and shape {self.shape!r} ignores it"
                raise ParameterError(f"{given}: use shape='undertrained', or leave it out")
            return
        if not self.retention:
            raise ParameterError("shape='undertrained' needs retention: give retention=undertrained(diagnosis)")
        wrong = [r for r in self.retention if not 0.0 <= r <= 1.0]
        if wrong or not any(self.retention):
            what = f"holds {wrong[0]!r}" if wrong else "is 0 everywhere"
            raise ParameterError(f"retention {what}; it must be from 0 to 1 at each position, and not always 0")


def check_generates(config: PenaltyConfig) -> None:
    """Raise ParameterError for a strength that leads away from aligned, which no generator may use.

    That is w = 1 + alpha_t < 0 (alpha_t < -1), and for SafeDecoding a strength below 0, away from its expert.
    """
    strength = config.strength or 0.0
    if config.method == "none" or strength >= 0.0:
        return
    if config.method == "safe_decoding":
        leads = f"strength is {strength:g}, and SafeDecoding below 0 leads away from the safer model"
        raise ParameterError(f"{leads}, which is an attack that is not generated: use a strength of at least 0")
    largest = max((shape_at(config, t + 1) for t in range(len(config.retention))), default=1.0)
    worst = strength * (1.0 + config.gamma) * largest
    if worst < -1.0:
        how = "" if worst == strength else f" (alpha_t down to {worst:g} by gamma and shape)"
        raise ParameterError(
            f"strength is {strength:g}{how}, so w = 1 + alpha_t < 0 leads away from aligned, beyond base, which is an "
            "attack (emulated disalignment, arXiv 2402.12343) and is not generated: use a strength of at least -1, or "
            "inspect one position with `penalise` or `next_token`"
        )


def undertrained(diagnosis: Diagnosis, *, prefix_tokens: int | None = None) -> tuple[float, ...]:
    """Return the measured retention on harmful texts by position, for PenaltyConfig(shape="undertrained").

    It is the mean curve of the diagnosis's teacher-forced responses, or of the free-running ones after `prefix_tokens`,
    with missing positions interpolated linearly. Raises ParameterError where the diagnosis has no such curve.
    """
    curves = [c for c in diagnosis.curves if c.name == "retention" and c.label == "harmful"]
    found = [c for c in curves if c.prefix_tokens == prefix_tokens]
    measured = np.isfinite(found[0].value) if found else np.zeros(0, bool)
    if not measured.any():
        there = sorted({"teacher-forced" if c.prefix_tokens is None else str(c.prefix_tokens) for c in curves})
        wanted = "teacher-forced" if prefix_tokens is None else f"prefix_tokens={prefix_tokens}"
        lacks = f"this diagnosis has no retention curve on harmful prompts for {wanted}"
        raise ParameterError(f"{lacks}: use one of those it has ({', '.join(there) or 'none'})")
    position, value = found[0].position, found[0].value.astype(np.float64)
    last = int(position[measured][-1])
    filled = np.interp(np.arange(1, last + 1), position[measured], value[measured])
    return tuple(float(v) for v in np.clip(filled, 0.0, 1.0))


def shape_at(config: PenaltyConfig, position: int) -> float:
    """Return g(t) at a 1-based position."""
    if config.shape in ("first_m", "ramp"):
        assert config.m is not None
        if config.shape == "first_m":
            return 1.0 if position <= config.m else 0.0
        return min(1.0, position / config.m)
    if config.shape == "undertrained":
        mean = math.fsum(config.retention) / len(config.retention)
        return config.retention[min(position, len(config.retention)) - 1] / mean
    return 1.0
