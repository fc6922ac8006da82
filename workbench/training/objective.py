"""What is minimised over the positions of one part of a forward pass, which share a role and so a loss.

    total = weight(role) / N * sum over positions of w_t loss_t

N counts the part's positions in the whole optimizer step, so that one batch of eight is eight batches of one.

The logits of a chunk of rows are computed, reduced to one number a row, differentiated with respect to the chunk's
hidden states, and freed. So a loss over n positions of a vocabulary V never holds n x V numbers, the backward pass
recomputes nothing, and the gradient is that of the plain computation. Between the chunks no value is read from the
device, so a GPU never waits for Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from workbench.core.errors import ParameterError
from workbench.models.pair import ModelPair, Which
from workbench.models.weights import head_logits
from workbench.training import losses
from workbench.training.config import LossConfig

Head = Callable[[Float[Tensor, "row hidden"]], Float[Tensor, "row vocab"]]
"""Hidden states after the final norm -> float32 logits over the vocabulary that the pair shares."""

RowLoss = Callable[[Float[Tensor, "chunk hidden"], slice], Float[Tensor, "chunk"]]
"""The student's hidden states of a chunk, and which rows they are -> a loss each."""

CHUNK_MIB = {"cpu": 32, "cuda": 256}
"""Size of one buffer of a chunk's logits on each kind of device, MiB; about eight of them exist at once. Each chunk
reads the whole head, so small chunks of a wide head take longer."""


class Role(IntEnum):
    """The target of a position."""

    LABEL = 0  # the observed token: cross-entropy
    TEACHER = 1  # the hybrid teacher of aligned and base, in the same context
    RECOVERY = 2  # the aligned model in its own context: KL(aligned || student), clipped
    COMPLETION = 3  # away from the tokens of M, with the strength of the position's density risk
    CONSTRAINT = 4  # the observed token, weighted less where the student has left the aligned model
    BASE = 5  # base alone, in the same context, as TEACHER with lambda 0
    TRANSITION = 6  # aligned's first distribution, at every depth: KL(aligned || student)


@dataclass(frozen=True, kw_only=True)
class Positions:
    """The positions of one role in a forward pass, one a row. Only `student` has gradients.

    student        hidden state that predicts the position, after the final norm
    aligned, base  hidden states of the frozen pair, None where the role needs none: aligned is needed for TEACHER,
                   RECOVERY, TRANSITION, CONSTRAINT and COMPLETION, base for BASE, for COMPLETION and for TEACHER with
                   lambda other than 1
    label          the observed token (read for LABEL and CONSTRAINT)
    weight         w_t
    position       1-based position in the response (needed for CONSTRAINT)
    key            a number made from seed, text and position (needed for COMPLETION with random sets)
    """

    role: Role
    student: Float[Tensor, "row hidden"]
    label: Int[Tensor, "row"]
    weight: Float[Tensor, "row"]
    aligned: Float[Tensor, "row hidden"] | None = None
    base: Float[Tensor, "row _"] | None = None  # of base's own width
    position: Int[Tensor, "row"] | None = None
    key: Int[Tensor, "row"] | None = None


@dataclass(frozen=True, kw_only=True)
class Heads:
    """The three output heads over `vocab` tokens; `trained` are the student's head parameters that learn, if any."""

    student: Head
    aligned: Head
    base: Head
    vocab: int
    trained: tuple[nn.Parameter, ...] = ()

    @classmethod
    def of(cls, pair: ModelPair, student: nn.Module) -> Heads:
        """Return the heads of a pair and of a student, a transformers model or a PEFT model over one.

        Logits are those of `ModelPair.logits` in float32: the weights' own precision is multiplied and float32 added up
        (an adapter on the head computes in the weights' precision throughout).
        """
        outer: Any = student
        model: PreTrainedModel = outer.get_base_model() if hasattr(outer, "get_base_model") else outer
        head: Any = model.get_output_embeddings()

        def frozen(which: Which) -> Head:
            return lambda hidden: pair.logits(which, hidden, float32=True)

        return cls(
            student=lambda hidden: head_logits(model, hidden, pair.vocab, float32=True).to(pair.device),
            aligned=frozen("aligned"),
            base=frozen("base"),
            vocab=pair.vocab,
            trained=tuple(p for p in head.parameters() if p.requires_grad),
        )


def rows_in_a_chunk(vocab: int, device: torch.device) -> int:
    """Return how many rows of logits fit into one buffer of CHUNK_MIB, at least 1."""
    kind = device.type if device.type in CHUNK_MIB else "cpu"
    return max(1, CHUNK_MIB[kind] * 2**20 // (4 * vocab))


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The total loss (a scalar with gradients), and each position's own loss, recovery clipped, without gradients."""

    total: Float[Tensor, ""]
    rows: Float[Tensor, "row"]


def streamed_loss(
    heads: Heads,
    positions: Positions,
    config: LossConfig,
    *,
    normaliser: float,
    clip_nats: float | Float[Tensor, ""] | None = None,
    chunk_rows: int | None = None,
) -> Losses:
    """Return the loss over positions, `chunk_rows` of them at a time (default: what fits into CHUNK_MIB).

    `normaliser` is the count N over the optimizer step. `clip_nats` is the level at which recovery is clipped:
    `losses.clip_level` of the step's `recovery_nats`. None takes the percentile of these positions alone, which is the
    step's where the step is one forward pass. Raises ParameterError where something that the role needs is missing.
    """
    role = positions.role
    if not normaliser > 0.0:
        raise ParameterError(
            f"{len(positions.weight)} positions have the role {role.name}, whose normaliser is {normaliser}: give the "
            "number of positions of that role in the optimizer step"
        )
    if role == Role.RECOVERY and clip_nats is None and config.clip_percentile < 100.0:
        clip_nats = losses.clip_level(recovery_nats(heads, positions, chunk_rows=chunk_rows), config.clip_percentile)
    total, rows = streamed(
        _loss_of(heads, positions, config, math.inf if clip_nats is None else clip_nats),
        positions.student,
        positions.weight * (getattr(config, f"{role.name.lower()}_weight") / normaliser),
        chunk_rows or rows_in_a_chunk(heads.vocab, positions.student.device),
        heads.trained,
    )
    return Losses(total=total, rows=rows)


def recovery_nats(heads: Heads, positions: Positions, *, chunk_rows: int | None = None) -> Float[Tensor, "row"]:
    """Return KL(aligned || student) of RECOVERY positions before clipping, without gradients.

    The clipping level is a percentile over the optimizer step: where a step is several forward passes, run this for
    each of them before the first gradient and give `losses.clip_level` all the values together.
    """
    size = chunk_rows or rows_in_a_chunk(heads.vocab, positions.student.device)
    with torch.no_grad():
        loss = _loss_of(heads, positions, LossConfig(), math.inf)
        _, rows = streamed(loss, positions.student, torch.zeros_like(positions.weight), size)
    return rows


def _loss_of(heads: Heads, positions: Positions, config: LossConfig, clip_nats: float | Float[Tensor, ""]) -> RowLoss:
    role = positions.role

    def needed(name: str) -> Tensor:
        value: Tensor | None = getattr(positions, name)
        if value is None:
            raise ParameterError(f"positions with the role {role.name} need `{name}`, which is None: give it")
        return value

    beta = losses.beta_at(needed("position")) if role == Role.CONSTRAINT else None

    def loss(hidden: Float[Tensor, "chunk hidden"], rows: slice) -> Float[Tensor, "chunk"]:
        @torch.no_grad()
        def of(which: Which) -> Tensor:
            head: Head = getattr(heads, which)
            return head(needed(which)[rows])

        student = heads.student(hidden)
        match role:
            case Role.LABEL:
                return losses.cross_entropy(student, positions.label[rows])
            case Role.CONSTRAINT:
                assert beta is not None
                return losses.constrained(student, of("aligned"), positions.label[rows], beta[rows])
            case Role.RECOVERY:
                return losses.clipped(losses.recovery(student, of("aligned")), clip_nats)
            case Role.TRANSITION:
                return losses.recovery(student, of("aligned"))
            case Role.BASE:
                teacher = of("base")
                return losses.distillation(student, teacher, direction=config.direction, temperature=config.temperature)
            case Role.TEACHER:
                teacher = of("aligned")
                if config.teacher_lambda != 1.0:
                    teacher = losses.hybrid_teacher(teacher, of("base"), config.teacher_lambda)
                return losses.distillation(student, teacher, direction=config.direction, temperature=config.temperature)
            case Role.COMPLETION:
                aligned = of("aligned")
                key = needed("key")[rows] if config.ranking == "random" else None
                ids, share = losses.completion_target(of("base"), aligned, config, key)
                strength = losses.adaptive_strength(share, alpha_base=config.alpha_base, gamma=config.gamma)
                penalty = losses.completion(
                    student, ids, variant=config.completion, aligned=aligned, margin=config.hinge_margin
                )
                return strength * config.lambda_reg * penalty

    return loss


def streamed(
    loss: RowLoss,
    student: Float[Tensor, "row hidden"],
    scale: Float[Tensor, "row"],
    size: int,
    trained: Sequence[nn.Parameter] = (),
) -> tuple[Float[Tensor, ""], Float[Tensor, "row"]]:
    """Return sum_rows scale * loss, with its gradients, and every row's loss without, `size` rows at a time.

    `student` and `trained` get the gradients of the plain computation, where either needs any; second derivatives are
    not computed.
    """
    total, rows = _Streamed.apply(loss, scale, size, torch.is_grad_enabled(), student, *trained)
    return total, rows


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        loss: RowLoss,
        scale: Tensor,
        size: int,
        enabled: bool,
        student: Tensor,
        *trained: Tensor,
    ) -> tuple[Tensor, Tensor]:
        wanted = enabled and any(ctx.needs_input_grad)
        rows = torch.empty(student.shape[:1], device=student.device)
        total = torch.zeros((), device=student.device)
        gradients = [torch.zeros_like(x) if wanted and x.requires_grad else None for x in (student, *trained)]
        for chunk in (slice(start, start + size) for start in range(0, len(student), size)):
            hidden = student[chunk].detach()
            with torch.set_grad_enabled(wanted), torch.autocast(student.device.type, enabled=False):
                values = loss(hidden.requires_grad_(wanted), chunk)
                part = (values * scale[chunk]).sum()
            rows[chunk] = values.detach()
            total += part.detach()
            if wanted:
                found = torch.autograd.grad(part, (hidden, *trained), allow_unused=True)
                if gradients[0] is not None and found[0] is not None:
                    gradients[0][chunk] = found[0]
                for kept, new in zip(gradients[1:], found[1:], strict=True):
                    if kept is not None and new is not None:
                        kept += new
        ctx.gradients = gradients
        ctx.mark_non_differentiable(rows)
        return total, rows

    @staticmethod
    def backward(ctx: Any, of_total: Tensor, of_rows: Tensor) -> tuple[Tensor | None, ...]:
        out = (None if g is None else g * of_total.to(g.dtype) for g in ctx.gradients)
        return None, None, None, None, *out
