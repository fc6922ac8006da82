"""Responses ranked by how much aligned still is base late in them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from workbench.tracing.diagnosis.config import DiagnosisConfig
from workbench.tracing.records import TraceSet


def late_retention(traces: TraceSet, late_from: int = DiagnosisConfig.late_from) -> Float64[np.ndarray, "response"]:
    """Return each response's mean retention over its late positions where aligned is uncertain; NaN without any.

    Late are positions from `late_from` on, along a model's own continuation those after the given tokens.
    """
    position = np.arange(1, traces.mask.shape[1] + 1)
    given = np.array([r.prefix_tokens if r.trajectory == "free_running" else 0 for r in traces.responses], int)
    late = traces.mask & (position >= late_from) & (position > given[:, None])
    late &= (traces.entropy_aligned_nats > traces.entropy_floor_nats) & np.isfinite(traces.retention)
    count = late.sum(axis=1)
    total = np.where(late, traces.retention, 0.0).sum(axis=1, dtype=float)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def most_like_base(traces: TraceSet, late_from: int = DiagnosisConfig.late_from) -> tuple[int, ...]:
    """Return all responses, harmful answers first, those most like base late first; those without late ones last."""
    late = late_retention(traces, late_from)

    def key(i: int) -> tuple[bool, bool, float, int]:
        of = traces.responses[i]
        last = bool(np.isnan(late[i]))
        return of.label != "harmful" or of.segment != "answer", last, 0.0 if last else -float(late[i]), i

    return tuple(sorted(range(len(traces.responses)), key=key))


def most_different(traces: TraceSet) -> tuple[int, ...]:
    """Return all responses, harmful answers first, those with the largest mean KL(aligned || base) first."""
    kl = np.where(traces.mask & np.isfinite(traces.kl_aligned_base_nats), traces.kl_aligned_base_nats, 0.0)
    mean = kl.sum(axis=1, dtype=float) / np.maximum(traces.mask.sum(axis=1), 1)
    harmful = [r.label == "harmful" and r.segment == "answer" for r in traces.responses]
    return tuple(sorted(range(len(mean)), key=lambda i: (not harmful[i], -mean[i], i)))
