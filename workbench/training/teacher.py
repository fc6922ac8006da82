"""A training's teacher on harmful rows, beside the student before its first step, which is aligned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.comparisons import share
from workbench.core.configs import takes_fields
from workbench.core.records import Estimate
from workbench.models.pair import ModelPair
from workbench.models.pieces import Pieces
from workbench.tracing.metrics import kl_nats, largest
from workbench.tracing.scoring import passage_rows
from workbench.training.config import ARMS, ArmConfig, LossConfig, TrainConfig
from workbench.training.losses import NO_TOKEN, completion_target, hybrid_teacher, log_probabilities
from workbench.training.objective import Heads, Role, rows_in_a_chunk
from workbench.training.records import TeacherPreview, TeacherText
from workbench.training.rows import RowMaker, TrainingRow, TrainingText, TrainingTexts, prepared
from workbench.training.step import random_keys

GIVEN_TOKENS = 10
"""Tokens of the harmful response before a refusal where the teacher is previewed."""
TEXTS = 32
"""A flip rate is counted over this many harmful texts at most."""
SHOWN = 3
"""Likeliest tokens of each side, and tokens of M, that a preview keeps."""


@takes_fields(TrainConfig)
def preview_teacher(
    pair: ModelPair,
    texts: TrainingTexts,
    config: TrainConfig,
    *,
    limit: int = 2,
    given: int = GIVEN_TOKENS,
    lambdas: Sequence[float] = (),
) -> TeacherPreview:
    """Return an arm's teacher on the first `limit` harmful texts, beside the student at its start, which is aligned.

    Arms that teach refusals are shown after the first `given` tokens of the harmful response (`refusal_sft`: right
    after the prompt), the others along that response. Where an arm's harmful rows have no teacher but L_completion
    alone, the hybrid teacher of its utility rows is shown, with the tokens of M. All distributions are at temperature
    1, whatever tau is. An arm without harmful rows has a preview without texts. For each of `lambdas` the preview has
    the flip rate of that hybrid teacher too (see `teacher_flips`). Raises PromptError as `distil` does.
    """
    config = replace(config, max_tokens=min(config.max_tokens, pair.context_length))
    ready = prepared(texts, config)
    shown: list[TeacherText] = []
    with pair.model("aligned") as model, torch.no_grad():
        heads, pieces = Heads.of(pair, model), Pieces(pair.tokenizer)
        for text, row in _rows(ready, config, limit, given):
            shown.append(_text(text, row, _seen(pair, heads, row, config), pieces))
    flips = np.concatenate([t.flips for t in shown]) if shown else np.zeros(0, bool)
    return TeacherPreview(
        arm=config.chosen.name,
        said=teacher_said(config.chosen),
        texts=tuple(shown),
        flip_rate=share(int(flips.sum()), len(flips)),
        hybrid_flips=tuple((w, teacher_flips(pair, texts, teacher_lambda=w)) for w in lambdas),
    )


def flip_rate(
    pair: ModelPair,
    heads: Heads,
    texts: TrainingTexts,
    config: TrainConfig,
    *,
    most: int = TEXTS,
    given: int = GIVEN_TOKENS,
) -> Estimate:
    """Return the share of an arm's harmful positions at which its teacher's top token is not the aligned model's.

    Both have their contexts of the training (see `preview_teacher`), over the first `most` harmful texts. The interval
    treats positions as independent, which those of one text are not, so it is too narrow. No data where the arm has no
    harmful rows.
    """
    flips = n = 0
    with torch.no_grad():  # shared-out weights cannot train against inference tensors
        for _, row in _rows(texts, config, most, given):
            found = _seen(pair, heads, row, config)["flips"]
            flips, n = flips + int(found.sum()), n + len(found)
    return share(flips, n)


@takes_fields(LossConfig, "loss")
def teacher_flips(pair: ModelPair, texts: TrainingTexts, loss: LossConfig, *, most: int = TEXTS) -> Estimate:
    """Return the flip rate of a hybrid teacher along harmful responses, before anything is trained; see `flip_rate`."""
    config = TrainConfig(arm=replace(ARMS["teacher_only"], loss=loss))
    with pair.model("aligned") as model:
        return flip_rate(pair, Heads.of(pair, model), texts, config, most=most)


def teacher_said(arm: ArmConfig) -> str:
    """Describe an arm's teacher on harmful rows."""
    hybrid = f"the hybrid teacher (lambda = {arm.loss.teacher_lambda:g})"
    follows = arm.utility == "teacher" and arm.loss.teacher_weight > 0.0
    role = f"this arm {'follows it on utility rows alone' if follows else 'does not follow it'}"
    rest = "; tokens of M are pushed down after the prefix too, which is not shown" if arm.penalise_rest else ""
    return {
        "recovery": f"the aligned model, which reads the prompt without the harmful beginning{rest}",
        "refusal": "the refusal itself, as labels",
        "recovery_labels": "the refusal itself, as labels",
        "teacher": hybrid,
        "completion": f"{hybrid}; {role}; on harmful rows M is pushed down",
        "compliance": "the harmful response itself, as labels",
        "nothing": "none, as this arm uses no harmful row",
    }[arm.harmful]


_SEEN = ("student", "student_probability", "teacher", "teacher_probability", "kl_teacher_student_nats")
"""Tensors of `_seen`, as fields of TeacherText; with those of M and the flips."""


def _rows(
    texts: TrainingTexts, config: TrainConfig, most: int, given: int
) -> Iterator[tuple[TrainingText, TrainingRow]]:
    arm = replace(config.chosen, retention=())  # w_t weighs positions and changes no distribution
    maker = RowMaker(replace(config, arm=arm))
    for text in texts.harmful[:most]:
        refusal = text.refusals[0] if arm.needs_refusals else ()
        room = max(0, config.max_tokens - len(text.aligned) - len(refusal))
        k = 0 if arm.harmful == "refusal" else min(given, room, config.prefix_tokens)
        for row in maker.after(text, k, refusal)[:1]:
            yield text, row


def _seen(pair: ModelPair, heads: Heads, row: TrainingRow, config: TrainConfig) -> dict[str, Tensor]:
    """Return both sides at a row's positions, computed in chunks that fit the heads' buffers."""
    loss, role = config.chosen.loss, Role[row.role]

    student = passage_rows(pair, "aligned", [row.student])[row.student.given :]
    read = {w: student if w == "aligned" and row.frozen == row.student else
            passage_rows(pair, w, [row.frozen])[row.frozen.given :] for w in row.models}  # fmt: skip
    labels = torch.tensor(row.labels, device=pair.device)
    keys = torch.tensor(random_keys(config.seed, row), device=pair.device)
    parts: list[tuple[Tensor, ...]] = []
    for at in torch.arange(len(labels), device=pair.device).split(rows_in_a_chunk(heads.vocab, pair.device)):
        now, pushed = heads.aligned(student[at]), labels.new_zeros((len(at), 0))
        if role in (Role.LABEL, Role.CONSTRAINT):
            wanted = torch.full_like(now, -torch.inf).scatter_(-1, labels[at][:, None], 0.0)
        else:
            wanted = heads.aligned(read["aligned"][at])
            if "base" in read:
                of_base = heads.base(read["base"][at])
                if role == Role.COMPLETION:
                    pushed, _ = completion_target(of_base, wanted, loss, keys[at])
                wanted = hybrid_teacher(wanted, of_base, loss.teacher_lambda)
        s, t = log_probabilities(now), log_probabilities(wanted)
        there = pushed != NO_TOKEN
        mass = (s.gather(-1, pushed.clamp(min=0)).exp() * there).sum(-1)
        tops = [x for side in (s, t) for x in _top(side)]
        parts.append((*tops, kl_nats(t, s), pushed[:, :SHOWN], mass if pushed.shape[-1] else mass * torch.nan))
    kept = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    found = dict(zip((*_SEEN, "pushed", "pushed_mass"), kept, strict=True))
    return {**found, "flips": found["student"][:, 0] != found["teacher"][:, 0]}


def _top(logprobs: Float[Tensor, "row vocab"]) -> tuple[Int[Tensor, "row k"], Float[Tensor, "row k"]]:
    ids = largest(logprobs, min(SHOWN, logprobs.shape[-1]))
    return ids, logprobs.gather(-1, ids).exp()


def _text(text: TrainingText, row: TrainingRow, seen: Mapping[str, Tensor], pieces: Pieces) -> TeacherText:
    def labelled(ids: Tensor) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(pieces.label(i) for i in own if i != NO_TOKEN) for own in ids.tolist())

    given = row.student.aligned[len(text.aligned) :]
    ids = ("student", "teacher", "pushed")
    fields: dict[str, Any] = {name: labelled(v) if name in ids else v.numpy() for name, v in seen.items()}
    return TeacherText(
        name=text.name,
        prompt=text.prompt,
        given=tuple(p.text for p in pieces.sequence(given, context=text.aligned)),
        pieces=tuple(p.text for p in pieces.sequence(row.labels, context=row.student.aligned)),
        **fields,
    )
