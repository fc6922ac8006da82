"""One prompt in detail: its continuations, one position under several strengths, and what samplers leave of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from workbench.core.errors import ParameterError, PromptError
from workbench.core.passages import Ids, Passage
from workbench.core.statistics import known
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig, check_generates
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.penalised import decode, next_token
from workbench.decoding.penalty import penalise
from workbench.decoding.records import Continuations, SamplingSurface
from workbench.decoding.truncation import surviving_excess_mass
from workbench.evaluation.penalties import ALIGNED
from workbench.evaluation.records import PenaltyLook
from workbench.models.generation import GenerateConfig
from workbench.models.pair import ModelPair, Which
from workbench.models.pieces import Pieces
from workbench.prompts.loading import Prompt, PromptSet
from workbench.tracing.metrics import excess_mass

SHOWN = 6
"""How many of the likeliest tokens of each column are shown."""
LEAST_SHOWN = 0.005
"""Tokens below this probability in every column are summed into the rest."""


def continue_three_ways(
    pair: ModelPair,
    prompts: PromptSet,
    penalty: PenaltyConfig,
    *,
    example: int = 1,
    prefix_tokens: int = 10,
    max_tokens: int = 96,
    system_prompt: str | None = None,
    expert: str | None = None,
    store: Store | None = None,
) -> Mapping[str, Continuations]:
    """Continue the `example`-th harmful prompt (from 1) after a prefix: by base, by aligned, and under the penalty.

    `expert` is the safety adapter of SafeDecoding. Raises what `example_prompt` raises.
    """
    check_generates(penalty)
    one = replace(prompts, prompts=(example_prompt(pair, prompts, example=example, prefix_tokens=prefix_tokens),))
    shared = dict(
        generation=GenerateConfig(max_tokens=max_tokens), prefix_tokens=prefix_tokens, system_prompt=system_prompt
    )
    arms = {"base": PenaltyConfig.family(0.0), "aligned": ALIGNED, penalty.title: penalty}
    pairs = {penalty.title: penalty.on(pair, expert)}
    return {
        name: decode(pairs.get(name, pair), one, DecodeConfig(penalty=p, **shared), store=store, what=None)  # type: ignore[arg-type]
        for name, p in arms.items()
    }


def example_prompt(pair: ModelPair, prompts: PromptSet, *, example: int = 1, prefix_tokens: int = 0) -> Prompt:
    """Return the `example`-th harmful prompt (from 1) whose given response has `prefix_tokens` tokens.

    Raises ParameterError for an example beyond the last, PromptError where no prompt has such a response.
    """
    able = [p for p in prompts if p.label == "harmful" and len(pair.encode(p.response or "")) >= max(prefix_tokens, 0)]
    if not able:
        raise PromptError(
            f"no harmful prompt of {prompts.name!r} has a response of {prefix_tokens} tokens to take a prefix from: "
            "set a shorter prefix"
        )
    if not 1 <= example <= len(able):
        raise ParameterError(f"example is {example}; there are {len(able)} harmful prompts to show, counted from 1")
    return able[example - 1]


def look_at(
    pair: ModelPair,
    continuations: Continuations,
    prompts: PromptSet,
    *,
    strengths: Sequence[float] = (0.5, 1.0, 4.0, 16.0),
    penalty: PenaltyConfig | None = None,
    position: int | None = None,
    response: int = 0,
    shown: int = SHOWN,
) -> PenaltyLook:
    """Return the next-token distributions at a position of a continuation, under a penalty of several strengths.

    `position` is 1-based in the response, given tokens included; None: where base and aligned differ most among the
    generated tokens. The penalty (None, or method "none": the one-sided default) has the other settings. Any finite
    strength is allowed, because nothing is generated. Raises ParameterError for a position that was not generated or a
    prompt that is not among `prompts`.
    """
    if penalty is None or penalty.method == "none":
        penalty = PenaltyConfig()
    c = continuations.continuations[response]
    length = int(continuations.mask[response].sum())
    first = c.prefix_tokens + 1
    if position is None:
        if not length:
            raise ParameterError(f"the continuation of {c.name!r} has no generated token: raise max_tokens")
        position = first + int(np.nanargmax(continuations.excess_mass[response, :length]))
    if not first <= position < first + length:
        raise ParameterError(
            f"position {position} was not generated: the continuation of {c.name!r} has positions {first} to "
            f"{first + length - 1}"
        )
    asked, start = before(pair, continuations, prompts, position - first, response=response)
    seen = [next_token(pair, start, replace(penalty, strength=s)) for s in strengths]
    plain = next_token(pair, start, ALIGNED)
    columns = ("base", "aligned", *(f"{s:g}" for s in strengths))
    table = np.exp(np.stack([plain.base, plain.aligned, *(n.penalised for n in seen)], 1).astype(np.float64))
    top = np.unique(np.concatenate([np.argsort(-table[:, i])[:shown] for i in range(table.shape[1])]))
    top = top[np.argsort(-table[top].max(1), kind="stable")][: 2 * shown]
    top = top[: max(3, int((table[top].max(1) >= LEAST_SHOWN).sum()))]
    moved = np.maximum(table - table[:, [1]], 0).sum(0)
    display = Pieces(pair.tokenizer)
    text = "".join(p.text for p in display.sequence(start.response, context=start.aligned))
    return PenaltyLook(
        prompt=asked.prompt,
        label=asked.label,
        classroom_safe=prompts.classroom_safe,
        before=text,
        penalty=", ".join([penalty.method, *penalty.title.split(", ")[1:]]),
        position=position,
        columns=columns,
        token_ids=top.astype(np.int32),
        labels=tuple(display.label(i) for i in top.tolist()),
        probability=table[top].astype(np.float32),
        rest=np.clip(1 - table[top].sum(0), 0, 1).astype(np.float32),
        leverage=moved.astype(np.float32),
        excess_mass=float(plain.excess_mass),
        bound=known(seen[0].leverage_bound) if seen else None,
    )


def before(
    pair: ModelPair, continuations: Continuations, prompts: PromptSet, tokens: int, *, response: int = 0
) -> tuple[Prompt, Passage]:
    """Return the prompt of a continuation, and the passage before its generated token `tokens` + 1.

    Raises ParameterError for a prompt that is not among `prompts`.
    """
    c = continuations.continuations[response]
    asked = next((p for p in prompts if p.id == c.name), None)
    if asked is None:
        raise ParameterError(f"prompt {c.name!r} is not in {prompts.name!r}: give the set that was continued")
    ids = tuple(continuations.token_ids[response, :tokens].tolist())
    return asked, start_of(pair, asked, c.prefix_tokens, ids, system_prompt=c.system_prompt)


def start_of(
    pair: ModelPair, prompt: Prompt, prefix_tokens: int, generated: Ids = (), *, system_prompt: str | None = None
) -> Passage:
    """Return the passage before a prompt's next token: `prefix_tokens` of its given response, then `generated`."""
    given = pair.encode(prompt.response or "")[:prefix_tokens]
    return pair.passage(prompt, given + generated, given=len(given), system_prompt=system_prompt)


def sampling_surface(
    pair: ModelPair,
    continuations: Continuations,
    prompts: PromptSet,
    penalty: PenaltyConfig | None = None,
    *,
    temperatures: Sequence[float] = (0.0, 0.3, 0.7, 1.0, 1.5),
    top_ps: Sequence[float] = (0.5, 0.8, 0.9, 0.95, 1.0),
    top_ks: Sequence[int] = (5, 20, 100, 0),
    response: int = 0,
) -> SamplingSurface:
    """Return how much base-favored mass each sampler leaves, mean over the generated positions of a continuation.

    Samplers are temperature x top-p x top-k. The same tokens are read under aligned alone and, if given, under
    `penalty`, with one forward pass of each model. Raises ParameterError for an empty continuation, a prompt that is
    not among `prompts`, or settings that no sampler has.
    """
    c = continuations.continuations[response]
    ids = tuple(continuations.token_ids[response, continuations.mask[response]].tolist())
    if not ids:
        raise ParameterError(f"the continuation of {c.name!r} has no generated token: raise max_tokens")
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
