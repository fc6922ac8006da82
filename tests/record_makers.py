"""Make a Diagnosis and a GradientProbe for tests of figures, views and report: plain statistics of made-up traces."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tests.trace_makers import run_record
from workbench.core.records import Estimate
from workbench.tracing.records import (
    Contrast,
    Curve,
    Diagnosis,
    Divergent,
    GradientProbe,
    HeatMap,
    TokenFrequency,
    TraceSet,
)

NAMES = {
    "kl_aligned_base_nats": "nats", "retention": "1", "entropy_aligned_nats": "nats",
    "base_favored_count": "tokens", "excess_mass": "1", "logprob_shift_nats": "nats",
}  # fmt: skip


def estimate(value: float, n: int = 6, half: float = 0.1, unit: str = "1") -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, n=n, unit=unit)


def _curve(traces: TraceSet, name: str, label: str, prefix: int | None, rows: list[int]) -> Curve:
    values = getattr(traces, name)[rows].astype(np.float64)
    values[~traces.mask[rows]] = np.nan
    n = np.isfinite(values).sum(axis=0)
    mean = np.where(n > 0, np.nansum(values, axis=0) / np.maximum(n, 1), np.nan)
    spread = np.sqrt(np.nansum((values - mean) ** 2, axis=0) / np.maximum(n - 1, 1) / np.maximum(n, 1))
    half = np.where(n >= 3, 1.96 * spread, np.nan)
    low = mean - half if name == "logprob_shift_nats" else np.maximum(mean - half, 0)
    arrays = {k: v.astype(np.float32) for k, v in dict(value=mean, low=low, high=mean + half).items()}
    position = np.arange(1, values.shape[1] + 1, dtype=np.int32)
    return Curve(
        name=name, label=label, prefix_tokens=prefix, unit=NAMES[name], position=position,
        n=n.astype(np.int32), **arrays,
    )  # fmt: skip


def make_diagnosis(
    traces: TraceSet, verdict: Literal["identical", "shallow", "deep", "undetermined"] = "shallow"
) -> Diagnosis:
    """Summarise traces roughly; every kind of entry is there, with no claim to the real statistics."""
    groups: dict[tuple[str, int | None], list[int]] = {}
    for i, r in enumerate(traces.responses):
        groups.setdefault((r.label, r.prefix_tokens if r.trajectory == "free_running" else None), []).append(i)
    curves = [_curve(traces, name, c, k, rows) for name in NAMES for (c, k), rows in groups.items()]
    width = traces.mask.shape[1]
    floor = np.full(width, 4e-7, np.float32)
    position = np.arange(1, width + 1, dtype=np.int32)
    noise = Curve(
        name="kl_aligned_base_nats", label="unlabelled", prefix_tokens=None, unit="nats", position=position,
        value=floor, low=floor / 2, high=floor * 2, n=np.full(width, 3, np.int32),
    )  # fmt: skip
    heat_curves = [c for c in curves if c.name == "retention" and c.label == "harmful" and c.prefix_tokens is not None]
    heat = None
    if len(heat_curves) > 1:
        heat = HeatMap(
            name="retention",
            label="harmful",
            position=position,
            prefix_tokens=np.array([c.prefix_tokens for c in heat_curves], np.int32),
            value=np.stack([c.value for c in heat_curves]),
            n=np.stack([c.n for c in heat_curves]),
        )
    kinds: tuple[Literal["safety", "style", "undecided"], ...] = ("safety", "style", "undecided")
    frequencies = []
    for i, (token, label) in enumerate(list(traces.label_of().items())[:25]):
        harmful, harmless = 0.6 / (1 + 0.2 * i), 0.1 + 0.3 * ((i * 7) % 5) / 10
        frequencies.append(
            TokenFrequency(
                token_id=token, label=label, rate_harmful=estimate(harmful, half=0.04),
                rate_harmless=estimate(harmless, half=0.05), difference=estimate(harmful - harmless, half=0.06),
                mass=3.0 / (i + 1), kind=kinds[0 if harmful - harmless > 0.2 else 1 if harmful < harmless else 2],
            )
        )  # fmt: skip
    kl = np.where(traces.mask, traces.kl_aligned_base_nats, 0)
    mean = kl.sum(axis=1) / np.maximum(traces.lengths(), 1)
    divergent = tuple(
        Divergent(
            response=int(i), prompt_id=traces.responses[i].prompt_id, label=traces.responses[i].label,
            prefix_tokens=traces.responses[i].prefix_tokens, mean_kl_nats=float(mean[i]),
            peak_position=int(kl[i].argmax()) + 1, peak_kl_nats=float(kl[i].max()),
        )
        for i in np.argsort(-mean)[:8]
    )  # fmt: skip
    contrasts = (
        Contrast(
            name="kl_early_over_late",
            label="harmful",
            title="mean KL(aligned ‖ base), positions 1-3 over 15 and later",
            estimate=Estimate(value=18.4, low=9.1, high=31.0, n=6, unit="ratio"),
        ),
        Contrast(
            name="retention_late",
            label="harmful",
            title="retention at positions 15 and later, entropy above 0.1 nats",
            estimate=estimate(0.962, half=0.014),
        ),
        Contrast(
            name="retention_late",
            label="lookalike",
            title="retention at positions 15 and later",
            estimate=Estimate(value=0.9, low=None, high=None, n=2, unit="1"),
        ),
    )
    return Diagnosis(
        run=run_record("diagnose", confidence=0.95),
        curves=tuple(curves),
        noise_floor=noise,
        contrasts=contrasts,
        frequencies=tuple(frequencies),
        heat_map=heat,
        divergent=divergent,
        entropy_floor_nats=0.1,
        verdict=verdict,
        sentences=(
            "On harmful prompts KL(aligned ‖ base) falls from 2.31 nats at 1-3 to 0.13 at 15 and later (n = 6).",
            "Late retention is 0.962 [0.948, 0.976] where the aligned entropy exceeds 0.1 nats.",
        ),
    )


def make_probe(responses: int = 4, tokens: int = 20, layers: int = 6, seed: int = 0) -> GradientProbe:
    """Draw a gradient probe whose magnitudes fall with position."""
    rng = np.random.default_rng(seed)
    mask = np.arange(tokens)[None, :] < rng.integers(tokens // 2, tokens + 1, responses)[:, None]
    mask[0] = True
    fall = np.exp(-np.arange(tokens) / 7)[None, :] * rng.uniform(0.6, 1.4, (responses, tokens))

    def scores(scale: float) -> np.ndarray:
        return np.where(mask, scale * fall, np.nan).astype(np.float32)

    by_layer = (scores(4.0)[:, :, None] * np.linspace(1, 0.4, layers)).astype(np.float32)
    return GradientProbe(
        run=run_record("probe_gradients"), model="base", loss="negative log-likelihood", response_kind="safe",
        parameters="attention and MLP weights", layer=layers // 2,
        prompt_ids=tuple(f"harmful-{i}" for i in range(responses)), labels=("harmful",) * responses, mask=mask,
        grad_norm=scores(9.0), grad_norm_by_layer=by_layer, output_error=scores(0.9),
        grad_norm_per_error=scores(7.0), context_asymmetry=scores(0.4), influence=scores(0.2), error=scores(0.5),
        error_per_term=scores(0.1),
    )  # fmt: skip
