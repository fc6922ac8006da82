"""What is minimised over the positions of one forward pass: each has one role, and each role its loss.

    total = sum over roles of weight(role) / N(role) * sum over its positions of w_t loss_t

N counts the role's positions in the whole optimizer step, so that one batch of eight is eight batches of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.errors import ParameterError
from workbench.training import losses
from workbench.training.config import LossConfig
from workbench.training.heads import Heads, RowLoss, rows_in_a_chunk, streamed


class Role(IntEnum):
    """What a position is trained towards.

    LABEL      the observed token: cross-entropy
    TEACHER     the hybrid teacher of aligned and base, in the same context
    RECOVERY    the aligned model in its own context: KL(aligned || student), clipped
    COMPLETION   away from the tokens of M, with the strength of the position's density risk
    CONSTRAINT  the observed token, held back where the student has left the aligned model
    """

    LABEL = 0
    TEACHER = 1
    RECOVERY = 2
    COMPLETION = 3
    CONSTRAINT = 4


@dataclass(frozen=True, kw_only=True)
class Positions:
    """The positions of one forward pass, one a row, in any order. Only `student` has gradients.

    student        hidden state of the student that predicts the position, after the final norm
    aligned, base  hidden states of the frozen pair, None where no role needs them: aligned is needed for TEACHER,
                   RECOVERY, CONSTRAINT and COMPLETION, base for COMPLETION and for TEACHER with lambda other than 1
    label          the observed token (read for LABEL and CONSTRAINT)
    role           a Role each
    weight         w_t
    position       1-based position in the response (needed for CONSTRAINT)
    key            a number made from seed, text and position (needed for COMPLETION with random sets)
    """

    student: Float[Tensor, "row hidden"]
    label: Int[Tensor, "row"]
    role: Int[Tensor, "row"]
    weight: Float[Tensor, "row"]
    aligned: Float[Tensor, "row hidden"] | None = None
    base: Float[Tensor, "row _"] | None = None  # of base's own width
    position: Int[Tensor, "row"] | None = None
    key: Int[Tensor, "row"] | None = None

    def of(self, role: Role) -> Int[Tensor, "_"]:
        """Return the rows of a role, in order."""
        return (self.role == role).nonzero().squeeze(-1)


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The total (a scalar with gradients), and each position's own loss without. Recovery is clipped.

    A loss that is not finite is in `rows`, at its own position.
    """

    total: Float[Tensor, ""]
    rows: Float[Tensor, "row"]


def streamed_loss(
    heads: Heads,
    positions: Positions,
    config: LossConfig,
    *,
    normalisers: Mapping[Role, float],
    clip_nats: float | None = None,
    chunk_rows: int | None = None,
) -> Losses:
    """Return the loss over positions, `chunk_rows` of them at a time (default: what fits into heads.CHUNK_MIB).

    `normalisers` are the counts N(role) over the optimizer step. `clip_nats` is the level at which recovery is clipped:
    `recovery_clip` of the step's `recovery_nats`. None takes the percentile of these positions alone, which is the
    step's where the step is one forward pass. Raises ParameterError where something that a role needs is missing.
    """
    present = {role: rows for role in Role if len(rows := positions.of(role))}
    scale = torch.zeros_like(positions.weight)
    for role, rows in present.items():
        if not normalisers.get(role, 0.0) > 0.0:
            raise ParameterError(
                f"{len(rows)} positions have the role {role.name} and its normaliser is {normalisers.get(role)}: give "
                "how many positions of that role the optimizer step has"
            )
        scale[rows] = positions.weight[rows] * (getattr(config, f"{role.name.lower()}_weight") / normalisers[role])
    if clip_nats is None and config.clip_percentile < 100.0:
        clip_nats = recovery_clip(recovery_nats(heads, positions, chunk_rows=chunk_rows), config)
    total, rows = streamed(
        _loss_of(heads, positions, config, math.inf if clip_nats is None else clip_nats),
        positions.student,
        scale,
        _chunks(heads, positions, tuple(present), chunk_rows),
        heads.trained,
    )
    return Losses(total=total, rows=rows)


def recovery_nats(heads: Heads, positions: Positions, *, chunk_rows: int | None = None) -> Float[Tensor, "_"]:
    """Return KL(aligned || student) of the RECOVERY positions before clipping, without gradients.

    The level of clipping is a percentile over the optimizer step, so it must be known before the first gradient: where
    a step is several forward passes, run this for each of them first (under `torch.no_grad()`) and give
    `recovery_clip` all the values together.
    """
    chunks = _chunks(heads, positions, (Role.RECOVERY,), chunk_rows)
    with torch.no_grad():
        loss = _loss_of(heads, positions, LossConfig(), math.inf)
        _, rows = streamed(loss, positions.student, torch.zeros_like(positions.weight), chunks)
    return rows[positions.of(Role.RECOVERY)]


def recovery_clip(values: Float[Tensor, "_"], config: LossConfig) -> float:
    """Return the level at which recovery is clipped, nats: the config's percentile of the step's `recovery_nats`."""
    return losses.clip_level(values, config.clip_percentile)


def _chunks(heads: Heads, positions: Positions, roles: tuple[Role, ...], chunk_rows: int | None) -> list[Tensor]:
    """Cut each role's rows into chunks, so that a chunk has one role."""
    size = chunk_rows or rows_in_a_chunk(heads.vocab, positions.student.device)
    return [chunk for role in roles for chunk in positions.of(role).split(size) if len(chunk)]


def _loss_of(heads: Heads, positions: Positions, config: LossConfig, clip_nats: float) -> RowLoss:
    def needed(name: str, role: Role) -> Tensor:
        value: Tensor | None = getattr(positions, name)
        if value is None:
            raise ParameterError(f"positions with the role {role.name} need `{name}`, which is None: give it")
        return value

    def loss(hidden: Float[Tensor, "chunk hidden"], rows: Int[Tensor, "chunk"]) -> Float[Tensor, "chunk"]:
        role = Role(int(positions.role[rows[0]]))

        def of_aligned() -> Tensor:
            with torch.no_grad():
                return heads.aligned(needed("aligned", role)[rows])

        def of_base() -> Tensor:
            with torch.no_grad():
                return heads.base(needed("base", role)[rows])

        student = heads.student(hidden)
        match role:
            case Role.LABEL:
                return losses.cross_entropy(student, positions.label[rows])
            case Role.CONSTRAINT:
                beta = losses.beta_at(needed("position", role)[rows])
                return losses.constrained(student, of_aligned(), positions.label[rows], beta)
            case Role.RECOVERY:
                return losses.clipped(losses.recovery(student, of_aligned()), clip_nats)
            case Role.TEACHER:
                teacher = of_aligned()
                if config.teacher_lambda != 1.0:
                    teacher = losses.hybrid_teacher(teacher, of_base(), config.teacher_lambda)
                return losses.distillation(student, teacher, direction=config.direction, temperature=config.temperature)
            case Role.COMPLETION:
                aligned = of_aligned()
                key = needed("key", role)[rows] if config.ranking == "random" else None
                ids, share = losses.completion_target(of_base(), aligned, config, key)
                strength = losses.adaptive_strength(share, alpha_base=config.alpha_base, gamma=config.gamma)
                penalty = losses.completion(
                    student, ids, variant=config.completion, aligned=aligned, margin=config.hinge_margin
                )
                return strength * config.lambda_reg * penalty

    return loss
