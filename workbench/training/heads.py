"""The output heads of student, aligned and base, and how a loss on their logits is computed a few rows at a time.

The logits of a chunk of rows are made, reduced to one number a row, differentiated with respect to the chunk's hidden
states while they are there, and freed. So a loss over n positions of a vocabulary V never holds n x V numbers, the
backward pass has nothing left to recompute, and what it returns is the plain gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from workbench.models.pair import ModelPair, Which
from workbench.models.weights import head_logits

Head = Callable[[Float[Tensor, "row hidden"]], Float[Tensor, "row vocab"]]
"""Hidden states after the final norm -> float32 logits over the vocabulary that the pair shares."""

RowLoss = Callable[[Float[Tensor, "chunk hidden"], Int[Tensor, "chunk"]], Float[Tensor, "chunk"]]
"""The student's hidden states of a chunk, and which rows they are -> a loss each."""

CHUNK_MIB = {"cpu": 32, "cuda": 256}
"""One buffer of a chunk's logits on each kind of device, MiB; about eight of them live at once. The head is read once a
chunk, so small chunks of a wide head take longer."""


@dataclass(frozen=True, kw_only=True)
class Heads:
    """The three heads over `vocab` tokens.

    `trained` are the parameters of the student's head that learn, usually none.
    """

    student: Head
    aligned: Head
    base: Head
    vocab: int
    trained: tuple[nn.Parameter, ...] = ()

    @classmethod
    def of(cls, pair: ModelPair, student: nn.Module) -> Heads:
        """Return the heads of a pair and of a student, a transformers model or a PEFT model over one.

        Logits are scaled, soft-capped and cut to the shared vocabulary as `ModelPair.logits` does, and computed in
        float32 from half-precision weights (an adapter on the head computes in the weights' own precision).
        """
        outer: Any = student
        model: PreTrainedModel = outer.get_base_model() if hasattr(outer, "get_base_model") else outer
        head: Any = model.get_output_embeddings()

        def frozen(which: Which) -> Head:
            def logits(hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row vocab"]:
                return pair.logits(which, hidden.float()).float()

            return logits

        return cls(
            student=lambda hidden: head_logits(model, hidden.float(), pair.vocab).float().to(pair.device),
            aligned=frozen("aligned"),
            base=frozen("base"),
            vocab=pair.vocab,
            trained=tuple(p for p in head.parameters() if p.requires_grad),
        )


def rows_in_a_chunk(vocab: int, device: torch.device) -> int:
    """Return how many rows of logits fit into one buffer of CHUNK_MIB, at least 1."""
    kind = device.type if device.type in CHUNK_MIB else "cpu"
    return max(1, CHUNK_MIB[kind] * 2**20 // (4 * vocab))


def streamed(
    loss: RowLoss,
    student: Float[Tensor, "row hidden"],
    scale: Float[Tensor, "row"],
    chunks: Sequence[Int[Tensor, "_"]],
    trained: Sequence[nn.Parameter] = (),
) -> tuple[Float[Tensor, ""], Float[Tensor, "row"]]:
    """Return sum_rows scale * loss, with its gradients, and every row's loss without; rows in no chunk have NaN.

    `chunks` are the rows computed at once, each row in one chunk at most. Gradients go to `student` and `trained`;
    equal to those of the plain computation. Where neither needs any, none are computed. No second derivatives.
    """
    total, rows = _Streamed.apply(loss, scale, chunks, torch.is_grad_enabled(), student, *trained)
    return total, rows


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        loss: RowLoss,
        scale: Tensor,
        chunks: Sequence[Tensor],
        enabled: bool,
        student: Tensor,
        *trained: Tensor,
    ) -> tuple[Tensor, Tensor]:
        wanted = enabled and any(ctx.needs_input_grad)
        rows = torch.full(student.shape[:1], torch.nan, device=student.device)
        total = torch.zeros((), device=student.device)
        gradients = [torch.zeros_like(x) if wanted and x.requires_grad else None for x in (student, *trained)]
        for chunk in chunks:
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
