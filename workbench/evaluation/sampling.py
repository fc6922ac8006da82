"""What an ordinary sampler leaves of the base-favored tokens: temperature x top-p x top-k along one response."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workbench.core.errors import ParameterError
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.penalty import penalise
from workbench.decoding.records import Continuations, SamplingSurface
from workbench.decoding.truncation import surviving_excess_mass
from workbench.evaluation.example import before
from workbench.evaluation.penalties import ALIGNED
from workbench.models.pair import ModelPair, Which
from workbench.prompts.loading import PromptSet
from workbench.tracing.metrics import excess_mass

TEMPERATURES = (0.0, 0.3, 0.7, 1.0, 1.5)
TOP_PS = (0.5, 0.8, 0.9, 0.95, 1.0)
TOP_KS = (5, 20, 100, 0)


def sampling_surface(
    pair: ModelPair,
    continuations: Continuations,
    prompts: PromptSet,
    penalty: PenaltyConfig | None = None,
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    top_ps: Sequence[float] = TOP_PS,
    top_ks: Sequence[int] = TOP_KS,
    response: int = 0,
) -> SamplingSurface:
    """Return how much base-favored mass each sampler leaves, mean over the generated positions of a continuation.

    The same tokens are read under aligned alone and, where one is given, under `penalty`: both arms answer for the same
    positions. One forward pass of each model. Raises ParameterError for an empty continuation, a prompt that is not
    among `prompts`, or settings that no sampler has.
    """
    c = continuations.continuations[response]
    ids = tuple(continuations.token_ids[response, continuations.mask[response]].tolist())
    if not ids:
        raise ParameterError(f"the continuation of {c.name!r} has no token to look at")
    _, start = before(pair, continuations, prompts, len(ids) - 1, response=response)
    arms = {"aligned": ALIGNED} | ({} if penalty is None or penalty.method == "none" else {penalty.title: penalty})
    seen: tuple[tuple[Which, tuple[int, ...]], ...] = (
        ("base", start.whole("base")),
        ("aligned", start.whole("aligned")),
    )
    with torch.inference_mode():
        base, aligned = (
            pair.logits(which, pair.hidden(which, torch.tensor([context], device=pair.device))[0, -len(ids) :])
            .float()
            .log_softmax(-1)
            for which, context in seen
        )
        position = torch.arange(1, len(ids) + 1, device=base.device)
        made = []
        for p in arms.values():
            given = c.prefix_tokens if p.count_from == "response" else 0
            shown = penalise(base, aligned, p, position=position + given)
            grid = surviving_excess_mass(base, aligned, shown, temperatures=temperatures, top_ps=top_ps, top_ks=top_ks)
            made.append(grid.mean(-1))
        moved = float(excess_mass(base, aligned).mean())
    return SamplingSurface(
        name=c.name,
        along=PenaltyConfig(**continuations.penalty).title,
        positions=len(ids),
        arms=tuple(arms),
        temperatures=tuple(map(float, temperatures)),
        top_ps=tuple(map(float, top_ps)),
        top_ks=tuple(map(int, top_ks)),
        surviving_excess_mass=torch.stack(made).float().cpu().numpy(),
        excess_mass=moved,
    )
