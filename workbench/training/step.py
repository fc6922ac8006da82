"""One pass of an optimizer step: drawn rows in, the loss with its gradients out."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.errors import NonFiniteLoss
from workbench.models.pair import Which
from workbench.training import group
from workbench.training.config import TrainConfig
from workbench.training.losses import clip_level
from workbench.training.objective import Heads, Positions, Role, recovery_nats, streamed_loss
from workbench.training.records import UTILITY_PARTS
from workbench.training.references import References
from workbench.training.rows import Draw, Sampler, TrainingRow
from workbench.training.student import Student

MATCHED_STEPS = 8
"""Gradients are matched over the rows of this many steps; rows without L_completion are skipped."""


@dataclass(frozen=True, kw_only=True)
class StepCounts:
    """The numbers that all passes of a step share: the positions of each part, and the level of clipping, nats."""

    positions: dict[str, int]
    clip_nats: Float[Tensor, ""] | None

    def over(self, part: str) -> int:
        """Return how many positions the mean of a part is over: utility rows have one mean, whatever their teacher."""
        parts = UTILITY_PARTS if part in UTILITY_PARTS else (part,)
        return sum(self.positions.get(p, 0) for p in parts)


@dataclass(frozen=True, kw_only=True)
class PassLoss:
    """The loss of one pass and, by part, the sum of its positions' losses; `losses` and `rows` name what is not finite.

    They stay on the device: whoever needs a number reads all of a step's at once.
    """

    total: Float[Tensor, ""]
    sums: dict[str, Float[Tensor, ""]]
    losses: Sequence[tuple[Tensor, Sequence[tuple[str, TrainingRow]]]] = ()

    def check_finite(self, step: int) -> None:
        """Raise NonFiniteLoss naming step (1-based) and rows, where a loss is NaN or infinite."""
        for each, rows in self.losses:
            _check_finite(each, rows, step)


class StepLoss:
    """The loss of drawn rows. `complete_scale` multiplies L_completion (see ArmConfig.match_arm)."""

    def __init__(self, heads: Heads, references: References, config: TrainConfig, device: torch.device) -> None:
        self._heads, self._references, self._config, self._device = heads, references, config, device
        self.complete_scale = 1.0

    def under(self, config: TrainConfig) -> StepLoss:
        """Return this loss with another config, over the same references, unscaled."""
        return StepLoss(self._heads, self._references, config, self._device)

    def counts(self, student: Student, passes: Sequence[Sequence[Draw]]) -> StepCounts:
        """Return what the passes of one optimizer step share, over all processes that train together.

        Where there are several, the student runs over the recovery rows of all of them first, without gradients: the
        clipping level is a percentile over the whole step.
        """
        own = Counter(r.part for draws in passes for d in draws for r in d.rows for _ in r.labels)
        positions = dict(sum(group.all_of(own), Counter[str]()))
        clip: Tensor | None = None
        several = len(passes) * group.size() > 1
        if several and positions.get("recovery") and self._config.chosen.loss.clip_percentile < 100.0:
            values = [torch.zeros(0)]
            with torch.no_grad():
                for draws in passes:
                    rows = [r for d in draws for r in d.rows if r.part == "recovery"]
                    if rows:
                        seen = self._positions(rows, self._hidden(student, rows))
                        values.append(recovery_nats(self._heads, seen, chunk_rows=self._config.chunk_rows).cpu())
                    elif self._config.experimental_sharded:
                        self._one_token(student)
            percentile = self._config.chosen.loss.clip_percentile
            clip = clip_level(torch.cat(group.all_of(torch.cat(values))), percentile).to(self._device)
        return StepCounts(positions=positions, clip_nats=clip)

    def __call__(self, student: Student, draws: Sequence[Draw], counts: StepCounts) -> PassLoss:
        """Return the loss of one pass."""
        rows = [(d.name, r) for d in draws for r in d.rows]
        total = torch.zeros((), device=self._device)
        sums: dict[str, Tensor] = {}
        each: list[tuple[Tensor, list[tuple[str, TrainingRow]]]] = []
        if not rows:  # where weights are shared out, every process has to run the student equally often
            return PassLoss(total=self._one_token(student) * 0.0, sums=sums)
        hidden = self._hidden(student, [r for _, r in rows])
        sizes = [len(r.labels) for _, r in rows]
        parts = hidden.split(sizes)
        for part in dict.fromkeys(r.part for _, r in rows):
            mine = [n for n, (_, r) in enumerate(rows) if r.part == part]
            own = [rows[n][1] for n in mine]
            positions = self._positions(own, torch.cat([parts[n] for n in mine]))
            made = streamed_loss(
                self._heads,
                positions,
                self._config.chosen.loss,
                normaliser=counts.over(part) / self._weight(part),
                clip_nats=counts.clip_nats,
                chunk_rows=self._config.chunk_rows,
            )
            total = total + made.total
            sums[part] = (made.rows * positions.weight).sum()
            each.append((made.rows, [rows[n] for n in mine]))
        return PassLoss(total=total, sums=sums, losses=each)

    def _one_token(self, student: Student) -> Float[Tensor, ""]:
        """Run the student over one token: this process has no rows, and with shared-out weights all must run it."""
        one = torch.zeros((1, 1), dtype=torch.long, device=self._device)
        return student.hidden(one, one[0], one[0]).sum()

    def _weight(self, part: str) -> float:
        """Return a part's weight in the whole; its role's weight in LossConfig multiplies it."""
        arm = self._config.chosen
        if part == "completion":
            return self.complete_scale
        if part in ("refusal", "compliance"):
            return arm.harmful_weight
        return 1.0 - arm.harmful_weight if part == "utility" and arm.utility in ("labels", "constrain") else 1.0

    def _hidden(self, student: Student, rows: Sequence[TrainingRow]) -> Float[Tensor, "row hidden"]:
        sequences = [r.student.whole("aligned")[:-1] for r in rows]  # the last token is predicted, never read
        width = max(map(len, sequences))
        ids = torch.tensor([s + (0,) * (width - len(s)) for s in sequences], device=self._device)
        ends = [(len(s) - len(r.labels), len(s)) for r, s in zip(rows, sequences, strict=True)]
        at = [(n, column) for n, end in enumerate(ends) for column in range(*end)]
        where = torch.tensor(at, device=self._device)
        return student.hidden(ids, where[:, 0], where[:, 1])

    def _positions(self, rows: Sequence[TrainingRow], hidden: Float[Tensor, "row hidden"]) -> Positions:
        def of(which: Which) -> Tensor | None:
            if which not in rows[0].models:
                return None
            states = self._references.of(which, [r.frozen for r in rows])
            if rows[0].role != "TRANSITION":
                return states
            times = torch.tensor([len(r.labels) for r in rows], device=self._device)
            return states.repeat_interleave(times, dim=0)  # one teacher for all depths of a row

        labels = [t for r in rows for t in r.labels]
        position = [r.first + j for r in rows for j in range(len(r.labels))]
        keys = [key for r in rows for key in random_keys(self._config.seed, r)]
        return Positions(
            role=Role[rows[0].role],
            student=hidden,
            aligned=of("aligned"),
            base=of("base"),
            label=torch.tensor(labels, device=self._device),
            weight=torch.tensor([w for r in rows for w in r.weights], device=self._device),
            position=torch.tensor(position, device=self._device),
            key=torch.tensor(keys, device=self._device),
        )


def random_keys(seed: int, row: TrainingRow) -> list[int]:
    """Return each position's key of its random token set, made from seed, text and position."""
    text = zlib.crc32(f"{seed} {row.student.aligned} {row.student.response}".encode()) << 24
    return [text + row.first + j for j in range(len(row.labels))]


def _check_finite(losses: Float[Tensor, "row"], rows: Sequence[tuple[str, TrainingRow]], step: int) -> None:
    finite = losses.isfinite()
    if bool(finite.all()):
        return
    at, bad = 0, list[str]()
    for name, row in rows:
        own = finite[at : at + len(row.labels)]
        if not bool(own.all()):
            position = row.first + int((~own).nonzero()[0])
            bad.append(f"{name} (part {row.part!r}, from position {position} on)")
        at += len(row.labels)
    raise NonFiniteLoss(
        f"the loss is NaN or infinite at step {step}, in {'; '.join(bad[:5])}"
        + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        + ": the last good checkpoint is kept. Lower the learning rate, or train in float32"
    )


def matching_scale(student: Student, loss: StepLoss, sampler: Sampler, config: TrainConfig) -> float:
    """Return |g_matched| / |g_own| of L_completion on the first rows, at the student's first weights.

    It makes the first gradient as long as that of another token set (`match_arm`), so that controls are of equal size.
    It is 1 where a gradient is 0 or no row has L_completion.
    """
    arm = config.chosen
    assert arm.match_arm is not None
    drawn = (sampler[n] for n in range(config.batch_size * min(MATCHED_STEPS, config.steps)))
    draws = [replace(d, rows=rows) for d in drawn if (rows := tuple(r for r in d.rows if r.part == "completion"))]
    other = replace(config, arm=replace(arm, loss=replace(arm.loss, ranking=arm.match_arm)))
    own_norm = gradient_norm(student, loss, draws) if draws else 0.0
    other_norm = gradient_norm(student, loss.under(other), draws) if draws else 0.0
    return other_norm / own_norm if own_norm > 0.0 and other_norm > 0.0 else 1.0


def gradient_norm(student: Student, loss: StepLoss, draws: Sequence[Draw]) -> float:
    """Return the length of the loss's gradient over draws, computed one draw at a time; no weight changes."""
    counts = loss.counts(student, [draws])
    total = [torch.zeros_like(p) for p in student.parameters()]
    for draw in draws:
        made = loss(student, [draw], counts).total
        found = torch.autograd.grad(made, student.parameters(), allow_unused=True)
        for kept, new in zip(total, found, strict=True):
            if new is not None:
                kept += new
    return float(torch.stack([t.norm() for t in total]).norm())
