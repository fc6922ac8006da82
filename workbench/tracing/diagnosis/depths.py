"""How far the alignment acts on harmful answers: an estimate in tokens, overall and by category."""

from __future__ import annotations

import numpy as np

from workbench.core.statistics import Mean, estimate
from workbench.tracing.diagnosis.answers import Answers, Group
from workbench.tracing.records import Depth


def depths(answers: Answers) -> tuple[Depth, ...]:
    """Estimate how far the alignment acts on the given harmful answers: all of them, then each category.

    The depth is the last position at which mean KL(aligned || base) exceeds both `depth_share` of its mean at position
    1 and the KL that counts as none; 0 where there is none. Positions that at least half of the prompts reach are
    measured. The interval is a bootstrap over prompts. Along an own answer (free-running) it means nothing: none there.
    """
    group = None if answers.trajectory == "free_running" else answers.evidence()
    if group is None:
        return ()
    of = np.array([answers.traces.responses[i].category for i in group.rows.tolist()], object)
    kinds = sorted({c for c in of if c is not None})
    return tuple(_depth(answers, group, kind, of == kind if kind else of == of) for kind in (None, *kinds))


def _depth(answers: Answers, group: Group, category: str | None, inside: np.ndarray) -> Depth:
    config, rows = answers.config, group.rows[inside]
    mean = answers.sample(rows, f"{group.label} {category or ''}").mean(
        answers.traces.kl_aligned_base_nats[rows], answers.mask[rows]
    )
    reached = mean.n >= max(1.0, mean.n.max(initial=0) / 2)
    measured = int(np.flatnonzero(reached).max(initial=-1)) + 1

    def last(kl: np.ndarray) -> np.ndarray:
        kl = np.nan_to_num(kl[..., :measured], nan=0.0)
        large = kl > np.maximum(config.depth_share * kl[..., :1], answers.floor_nats)
        return np.asarray((large * np.arange(1, measured + 1)).max(axis=-1, initial=0), float)

    found = Mean(value=last(mean.value), draws=last(mean.draws), n=np.asarray(mean.n.max(initial=0)))
    number = estimate(found, unit="tokens", confidence=config.confidence)
    return Depth(label=group.label, category=category, estimate=number, measured=measured)
