"""One pass of an optimizer step: drawn rows in, the loss with its gradients out."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.errors import NonFiniteLoss
from workbench.core.store import Store
from workbench.models.pair import ModelPair, Which
from workbench.training import group
from workbench.training.config import ArmConfig, TrainConfig
from workbench.training.heads import Heads
from workbench.training.objective import Positions, Role, recovery_clip, recovery_nats, streamed_loss
from workbench.training.references import reference_states
from workbench.training.rows import Reading, TrainingRow, TrainingTexts
from workbench.training.sampler import Draw
from workbench.training.student import StudentBody

KEPT_MIB = 2048
"""Hidden states of the frozen pair are kept in memory up to this; beyond it they are computed in every step."""


class References:
    """Give the frozen pair's hidden states at a row's positions, computed once before training where they fit.

    `keep_all`: also where they do not fit onto the device; they are in memory then.
    """

    def __init__(
        self, pair: ModelPair, texts: TrainingTexts, config: TrainConfig, store: Store | None, *, keep_all: bool = False
    ) -> None:
        self._pair = pair
        wanted = wanted_readings(texts, config.chosen)
        self.mib = states_mib(pair, wanted)
        self._kept: dict[tuple[Which, Reading], Tensor] = {}
        kept_on = pair.device if self.mib <= KEPT_MIB else torch.device("cpu")
        if self.mib <= KEPT_MIB or keep_all:
            for which, readings in wanted.items():
                states = reference_states(
                    pair,
                    which,
                    [r.context for r in readings],
                    [r.response for r in readings],
                    store=store,
                    what=f"reading {which} along {len(readings)} texts" if len(readings) > 1 else None,
                )
                self._kept.update({(which, r): s.to(kept_on) for r, s in zip(readings, states, strict=True)})

    def of(self, which: Which, readings: Sequence[Reading]) -> Float[Tensor, "row hidden"]:
        """Return the hidden states that predict the wanted tokens, one reading after the other."""
        whole = [replace(r, start=0) for r in readings]
        missing = [r for r in dict.fromkeys(whole) if (which, r) not in self._kept]
        found = self._kept
        if missing:
            states = reference_states(
                self._pair, which, [r.context for r in missing], [r.response for r in missing], what=None
            )
            found = {(which, r): s.to(self._pair.device) for r, s in zip(missing, states, strict=True)} | self._kept
        wanted = [found[which, w][r.start :] for w, r in zip(whole, readings, strict=True)]
        return torch.cat(wanted).to(self._pair.device)


def states_mib(pair: ModelPair, readings: Mapping[Which, Sequence[Reading]]) -> float:
    """Return the size of the hidden states along whole responses, MiB: tokens x width x bytes. None is computed."""
    tokens = sum(len(r.response) for own in readings.values() for r in own)
    with pair.model("aligned") as model:
        width = int(model.config.get_text_config().hidden_size)
    return tokens * width * pair.dtype.itemsize / 2**20


def wanted_readings(texts: TrainingTexts, arm: ArmConfig) -> dict[Which, list[Reading]]:
    """List everything that the frozen pair may be asked along in a training, by model; a model without is left out."""
    out: dict[Which, list[Reading]] = {"aligned": [], "base": []}
    along = [*texts.harmful] if arm.harmful in ("completion", "teacher") or arm.penalise_rest else []
    if arm.harmful == "recovery":
        out["aligned"] += [Reading(context=t.aligned, response=r) for t in texts.harmful for r in t.refusals]
    kept = [*texts.utility, *texts.harmless] if arm.utility in ("distil", "constrain") else []
    held = [*texts.harmful] if arm.harmful == "compliance" and arm.utility == "constrain" else []
    out["aligned"] += [Reading(context=t.aligned, response=t.response) for t in (*along, *kept, *held)]
    both = [*along, *kept] if arm.loss.teacher_lambda != 1.0 and arm.utility == "distil" else along
    out["base"] += [Reading(context=t.base, response=t.response) for t in both]
    return {which: list(dict.fromkeys(readings)) for which, readings in out.items() if readings}


@dataclass(frozen=True, kw_only=True)
class StepCounts:
    """Hold what all passes of one optimizer step share: positions of each part, and the level of clipping, nats."""

    positions: dict[str, int]
    clip_nats: float | None


@dataclass(frozen=True, kw_only=True)
class PassLoss:
    """Hold the loss of one pass and, by part, the sum of its positions' losses."""

    total: Float[Tensor, ""]
    sums: dict[str, float]


def positions_of(draws: Iterable[Draw]) -> dict[str, int]:
    """Count the positions of each part."""
    found: Counter[str] = Counter()
    for draw in draws:
        for row in draw.rows:
            found[row.part] += len(row.labels)
    return dict(found)


class StepLoss:
    """Compute the loss of drawn rows. `complete_scale` multiplies L_completion (see ArmConfig.match_arm)."""

    def __init__(self, heads: Heads, references: References, config: TrainConfig, device: torch.device) -> None:
        self._heads, self._references, self._config, self._device = heads, references, config, device
        self.complete_scale = 1.0

    def under(self, config: TrainConfig) -> StepLoss:
        """Return the same with another config, over the same references, unscaled."""
        return StepLoss(self._heads, self._references, config, self._device)

    def counts(self, student: StudentBody, passes: Sequence[Sequence[Draw]]) -> StepCounts:
        """Return what the passes of one optimizer step share, over all processes that train together.

        Where there are several, the student runs over the recovery rows of all of them first, without gradients: the
        clipping level is a percentile over the whole step.
        """
        own = positions_of(d for draws in passes for d in draws)
        positions = dict(sum((Counter(p) for p in group.all_of(own)), Counter[str]()))
        clip: float | None = None
        several = len(passes) * group.size() > 1
        if several and positions.get("recover") and self._config.chosen.loss.clip_percentile < 100.0:
            values = [torch.zeros(0)]
            with torch.no_grad():
                for draws in passes:
                    rows = [r for d in draws for r in d.rows if r.part == "recover"]
                    if rows:
                        seen = self._positions(rows, self._hidden(student, rows))
                        values.append(recovery_nats(self._heads, seen, chunk_rows=self._config.chunk_rows).cpu())
                    elif self._config.sharded:
                        self._one_token(student)
            clip = recovery_clip(torch.cat(group.all_of(torch.cat(values))), self._config.chosen.loss)
        return StepCounts(positions=positions, clip_nats=clip)

    def __call__(self, student: StudentBody, draws: Sequence[Draw], counts: StepCounts, step: int) -> PassLoss:
        """Return the loss of one pass. Raises NonFiniteLoss naming step (1-based) and rows."""
        rows = [(d.name, r) for d in draws for r in d.rows]
        total = torch.zeros((), device=self._device)
        sums: dict[str, float] = {}
        if not rows:  # gradients of all processes meet: none may leave the student out
            return PassLoss(total=self._one_token(student) * 0.0, sums=sums)
        hidden = self._hidden(student, [r for _, r in rows])
        sizes = [len(r.labels) for _, r in rows]
        parts = hidden.split(sizes)
        for part in dict.fromkeys(r.part for _, r in rows):
            mine = [n for n, (_, r) in enumerate(rows) if r.part == part]
            own = [rows[n][1] for n in mine]
            positions = self._positions(own, torch.cat([parts[n] for n in mine]))
            role = Role[own[0].role]
            made = streamed_loss(
                self._heads,
                positions,
                self._config.chosen.loss,
                normalisers={role: counts.positions[part] / self._weight(part)},
                clip_nats=counts.clip_nats,
                chunk_rows=self._config.chunk_rows,
            )
            _check_finite(made.rows, [rows[n] for n in mine], step)
            total = total + made.total
            sums[part] = float((made.rows * positions.weight).sum())
        return PassLoss(total=total, sums=sums)

    def _one_token(self, student: StudentBody) -> Float[Tensor, ""]:
        """Run the student over one token, where only the other processes have rows."""
        one = torch.zeros((1, 1), dtype=torch.long, device=self._device)
        made: Tensor = student(one, one[0], one[0])
        return made.sum()

    def _weight(self, part: str) -> float:
        """Return a part's weight in the whole; what LossConfig.weights says of its role comes on top."""
        arm = self._config.chosen
        if part == "complete":
            return self.complete_scale
        if part in ("refusal", "compliance"):
            return arm.harmful_weight
        return 1.0 - arm.harmful_weight if part == "utility" and arm.utility in ("labels", "constrain") else 1.0

    def _hidden(self, student: StudentBody, rows: Sequence[TrainingRow]) -> Float[Tensor, "row hidden"]:
        sequences = [r.student.ids for r in rows]
        width = max(map(len, sequences))
        ids = torch.tensor([s + (0,) * (width - len(s)) for s in sequences], device=self._device)
        at = [(n, c) for n, r in enumerate(rows) for c in r.student.columns]
        where = torch.tensor(at, device=self._device)
        made: Tensor = student(ids, where[:, 0], where[:, 1])
        return made

    def _positions(self, rows: Sequence[TrainingRow], hidden: Float[Tensor, "row hidden"]) -> Positions:
        def of(which: Which) -> Tensor | None:
            readings = [getattr(r, which) for r in rows]
            return None if readings[0] is None else self._references.of(which, readings)

        labels = [t for r in rows for t in r.labels]
        position = [r.first + j for r in rows for j in range(len(r.labels))]
        keys = [key for r in rows for key in random_keys(self._config.seed, r)]
        return Positions(
            student=hidden,
            aligned=of("aligned"),
            base=of("base"),
            label=torch.tensor(labels, device=self._device),
            role=torch.full((len(labels),), int(Role[rows[0].role]), device=self._device),
            weight=torch.tensor([w for r in rows for w in r.weights], device=self._device),
            position=torch.tensor(position, device=self._device),
            key=torch.tensor(keys, device=self._device),
        )


def random_keys(seed: int, row: TrainingRow) -> list[int]:
    """Return the number that each position's random token set is drawn by: it stands for seed, text and position."""
    text = zlib.crc32(f"{seed} {row.student.context} {row.student.response}".encode()) << 24
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
