"""The data of a training: judged texts, the rows made of them, and the order in which rows are drawn.

A row holds what the student reads, the positions in it that are trained on, and what the frozen pair reads there, which
may differ: in recovery the student reads prompt, harmful prefix and refusal (x, h, r_<j), and aligned, its teacher,
reads the prompt and the refusal alone (x, r_<j).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from workbench.core.errors import PromptError
from workbench.core.passages import Ids, Passage
from workbench.models.pair import ModelPair, Which
from workbench.prompts.loading import Prompt, PromptSet
from workbench.prompts.similar import same_wording
from workbench.training.config import PERTURBING, RowTeacher, TrainConfig

RoleName = Literal["LABEL", "TEACHER", "RECOVERY", "COMPLETION", "CONSTRAINT", "BASE", "TRANSITION"]


@dataclass(frozen=True, kw_only=True)
class TrainingText(Passage):
    """A prompt with a response: one to keep, or a harmful one, which complies, with the aligned model's own refusals.

    Harmful responses and refusals have been judged. `prompt` is the prompt's text, for a person to read. `teacher` is
    read where an arm distils utility rows: the arm's own teacher, base alone, or the response as labels. `turn_end` is
    where the user's turn ends in `aligned`, the place of random tokens; None: it is not known, and none are put in.
    """

    prompt: str = ""
    refusals: tuple[Ids, ...] = ()
    teacher: RowTeacher = "aligned"
    turn_end: int | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingTexts:
    """The texts that a training may draw from; `notes` list what was dropped and cut.

    `sources` say where prompts, responses and refusals came from, in sentences that quote none of them.
    """

    harmful: tuple[TrainingText, ...] = ()
    utility: tuple[TrainingText, ...] = ()
    harmless: tuple[TrainingText, ...] = ()
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def shared(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts that are among these texts, case and spaces aside."""
        own = {same_wording(t.prompt) for t in (*self.harmful, *self.utility, *self.harmless)}
        return [p for p in prompts if same_wording(p.prompt) in own]

    def leaks(self, prompts: PromptSet) -> tuple[str, ...]:
        """Return a warning where some of the prompts are among these texts (case and spaces aside), else ()."""
        shared = self.shared(prompts.prompts)
        if not shared:
            return ()
        return (
            f"LEAK: {len(shared)} of the {len(prompts)} prompts were trained on (first: {shared[0].id}), so the "
            "numbers on them are not about unseen prompts. Take another split.",
        )

    def as_prompts(
        self, pair: ModelPair, prompts: PromptSet, *, names: Sequence[str] = (), limit: int = 1
    ) -> PromptSet:
        """Return the first harmful prompts that are trained on, with their training responses, to be traced.

        Prompts in `names` come first. Raises PromptError where none of the texts belongs to a harmful prompt of the
        set.
        """
        asked = {p.id: p for p in prompts if p.label == "harmful"}
        found = [
            replace(asked[t.name], response=pair.decode([i for i in t.response if i not in pair.eos_ids]))
            for t in sorted(self.harmful, key=lambda t: t.name not in names)
            if t.name in asked
        ]
        if not found:
            raise PromptError(f"no harmful prompt of {prompts.name!r} is among the {len(self.harmful)} harmful texts")
        return replace(prompts, prompts=tuple(found[:limit]))


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """One sequence to train on: the response tokens of `student` after its given ones.

    part     its name in the curves and normalisers, one of `records.PARTS`: one role each
    role     the loss at its positions, a name of `objective.Role`
    student  what the student reads, under aligned's template
    frozen   what `models`, those of the frozen pair that the role needs, read: as many trained tokens (TRANSITION: one,
             the teacher of them all)
    first    the position of the first trained token, 1-based
    weights  w_t at each position
    """

    part: str
    role: RoleName
    student: Passage
    frozen: Passage
    models: tuple[Which, ...]
    first: int
    weights: tuple[float, ...]

    @property
    def labels(self) -> Ids:
        """Return the observed token at each trained position."""
        return self.student.response[self.student.given :]


class RowMaker:
    """The rows that an arm makes of a drawn text."""

    def __init__(self, config: TrainConfig, noise: Ids = ()) -> None:
        """Make rows; `noise` are the ids that random tokens are drawn from, where the arm perturbs prompts."""
        self._config, self._arm, self._noise = config, config.chosen, noise

    def drawn(self, text: TrainingText, kind: str, drawn: np.random.Generator) -> list[TrainingRow]:
        """Return the rows of a drawn text; in a share of the draws the student reads a perturbed prompt."""
        rows = self.harmful(text, drawn) if kind == "harmful" else self.plain(text, kind, drawn)
        if not (self._arm.perturbed and self._noise) or text.turn_end is None or drawn.random() >= self._arm.perturbed:
            return rows
        put = drawn.choice(self._noise, size=int(drawn.integers(PERTURBING[0], PERTURBING[1] + 1)))
        return [replace(r, student=_with_tokens(r.student, text.turn_end, tuple(put.tolist()))) for r in rows]

    def harmful(self, text: TrainingText, drawn: np.random.Generator) -> list[TrainingRow]:
        """Return the rows of a harmful text, with a refusal and a prefix drawn for it; [] where the arm uses none."""
        if not self._arm.needs_refusals:
            return self.after(text, 0)
        refusal = text.refusals[int(drawn.integers(len(text.refusals)))]
        return self.after(text, 0 if self._arm.harmful == "refusal" else self._prefix(text, refusal, drawn), refusal)

    def after(self, text: TrainingText, k: int, refusal: Ids = ()) -> list[TrainingRow]:
        """Return the rows of a harmful text when the first k tokens of its response are given before the refusal.

        Arms that need no refusal go along the whole response, whatever k is. [] for an arm without harmful rows.
        """
        use = self._arm.harmful
        more = [self._transition(text)] if self._arm.transition and self._arm.loss.transition_weight > 0.0 else []
        if use in ("completion", "teacher"):
            role: RoleName = "COMPLETION" if use == "completion" else "TEACHER"
            return [self._along(text, 0, use, role), *more]
        if use == "compliance":
            return [self._along(text, 0, "compliance", self._labelled)]
        if not self._arm.needs_refusals:
            return []
        rows = [self._refusal(text, text.response[:k], refusal)]
        if self._arm.penalise_rest and k < len(text.response) and self._arm.loss.completion_weight > 0.0:
            rows.append(self._along(text, k, "completion", "COMPLETION"))
        return [*rows, *more]

    def plain(self, text: TrainingText, kind: str, drawn: np.random.Generator) -> list[TrainingRow]:
        """Return the row of a utility text, or of a harmless one from a random prefix on; [] where it is not used."""
        if self._arm.utility == "nothing":
            return []
        k = 0
        if kind == "harmless":
            k = int(drawn.integers(0, min(self._config.prefix_tokens, len(text.response) - 1) + 1))
        if self._arm.utility != "teacher":
            return [self._along(text, k, "utility", self._labelled)]
        if text.teacher == "aligned":
            return [self._along(text, k, "utility", "TEACHER")]
        return [self._along(text, k, f"utility_{text.teacher}", "BASE" if text.teacher == "base" else "LABEL")]

    @property
    def _longest(self) -> int:
        return self._config.max_tokens - (PERTURBING[1] if self._arm.perturbed else 0)

    @property
    def _labelled(self) -> RoleName:
        return "CONSTRAINT" if self._arm.utility == "constrain" else "LABEL"

    def longest_prefix(self, text: TrainingText, refusal: Ids) -> int:
        """Return the most tokens of a harmful response that fit before a refusal; 0 where the arm gives none."""
        if not self._arm.needs_refusals or self._arm.harmful == "refusal":
            return 0
        room = self._longest - len(text.aligned) - len(refusal)
        return max(0, min(self._config.prefix_tokens, len(text.response), room))

    def _prefix(self, text: TrainingText, refusal: Ids, drawn: np.random.Generator) -> int:
        """Draw k: 0 half of the time, otherwise uniform from 1 to the longest prefix."""
        most = self.longest_prefix(text, refusal)
        nothing, k = drawn.random() < 0.5, int(drawn.integers(1, most + 1)) if most else 0
        return 0 if nothing else k

    def _refusal(self, text: TrainingText, given: Ids, refusal: Ids) -> TrainingRow:
        distilled = self._arm.harmful == "recovery"
        first = len(given) + 1
        alone = Passage(name=text.name, aligned=text.aligned, response=refusal, label=text.label)
        return TrainingRow(
            part="recovery" if distilled else "refusal",
            role="RECOVERY" if distilled else "LABEL",
            student=replace(alone, aligned=text.aligned + given),
            frozen=alone,
            models=("aligned",) if distilled else (),
            first=first,
            weights=tuple(self._arm.weight_at(first + j) for j in range(len(refusal))),
        )

    def _transition(self, text: TrainingText) -> TrainingRow:
        """Return the row that teaches every depth of a harmful response aligned's own first distribution."""
        room = self._longest - len(text.aligned)
        along = Passage(
            name=text.name,
            aligned=text.aligned,
            response=text.response[: min(self._config.prefix_tokens, room)],
            label=text.label,
        )
        return TrainingRow(
            part="transition",
            role="TRANSITION",
            student=along,
            frozen=replace(along, response=along.response[:1]),
            models=("aligned",),
            first=1,
            weights=(1.0,) * len(along.response),
        )

    def _along(self, text: TrainingText, k: int, part: str, role: RoleName) -> TrainingRow:
        """Return the row along a text's own response, trained from position k + 1 on."""
        read = Passage(
            name=text.name, aligned=text.aligned, base=text.base, response=text.response, given=k, label=text.label
        )
        models: dict[RoleName, tuple[Which, ...]] = {"LABEL": (), "BASE": ("base",)}
        both = role == "COMPLETION" or (role == "TEACHER" and self._arm.loss.teacher_lambda != 1.0)
        harmful, positions = part in ("completion", "teacher"), range(k + 1, len(text.response) + 1)
        return TrainingRow(
            part=part,
            role=role,
            student=read,
            frozen=read,
            models=("aligned", "base") if both else models.get(role, ("aligned",)),
            first=k + 1,
            weights=tuple(self._arm.weight_at(t) if harmful else 1.0 for t in positions),
        )


def _with_tokens(passage: Passage, at: int, put: Ids) -> Passage:
    return replace(passage, aligned=passage.aligned[:at] + put + passage.aligned[at:])


def noise_of(texts: TrainingTexts) -> Ids:
    """Return the ids that random tokens are drawn from: those of the answers to keep, without the tokens that end them.

    So no control token gets into a prompt.
    """
    kept = (*texts.utility, *texts.harmless)
    ends = {t.response[-1] for t in kept if t.response}
    return tuple(sorted({i for t in kept for i in t.response} - ends))


def prepared(texts: TrainingTexts, config: TrainConfig) -> TrainingTexts:
    """Return the texts that an arm can train on: long responses are cut, texts that do not fit dropped, both noted.

    Raises PromptError where an arm that needs harmful rows, refusals or utility rows is left with none.
    """
    arm = config.chosen
    longest = config.max_tokens - (PERTURBING[1] if arm.perturbed else 0)  # room for what is put in
    notes = list(texts.notes)
    harmful: list[TrainingText] = []
    if arm.harmful != "nothing":
        for text in (fitted := _fitted(texts.harmful, longest, "harmful", notes)):
            refusals = tuple(r for r in text.refusals if r and len(r) <= longest - len(text.aligned))
            harmful += [replace(text, refusals=refusals)] if refusals or not arm.needs_refusals else []
        if without := len(fitted) - len(harmful):
            notes.append(f"{without} harmful rows are dropped: they have no refusal of the aligned model that fits.")
        if not harmful:
            last = notes[-1] if notes else "their responses are empty"
            why = f"all {len(texts.harmful)} were dropped: {last}" if texts.harmful else "there are none."
            raise PromptError(
                f"arm {arm.name!r} trains on harmful rows, and {why.rstrip('.')}. Give prompts labelled harmful with a "
                "response that complies (or let base write it), and a larger max_tokens where rows are too long"
            )
    utility: list[TrainingText] = []
    harmless: list[TrainingText] = []
    if arm.utility != "nothing":
        utility = _fitted(texts.utility, longest, "utility", notes)
        harmless = _fitted(texts.harmless, longest, "harmless", notes) if arm.harmless_share else []
        if not (utility or harmless) and config.harmful_share < 1.0:
            raise PromptError(
                f"arm {arm.name!r} trains on utility rows at a share of {1 - config.harmful_share:g}, and none of the "
                f"{len(texts.utility)} given is left: give more, or set harmful_share to 1"
            )
    return replace(texts, harmful=tuple(harmful), utility=tuple(utility), harmless=tuple(harmless), notes=tuple(notes))


def _fitted(texts: Sequence[TrainingText], longest: int, kind: str, notes: list[str]) -> list[TrainingText]:
    """Cut responses to what fits, drop texts without room or response, and note both."""
    room = [longest - (t.length - len(t.response)) for t in texts]
    kept = [(t, n) for t, n in zip(texts, room, strict=True) if n > 0 and t.response]
    cut = [len(t.response) for t, n in kept if len(t.response) > n]
    if cut:
        notes.append(
            f"{len(cut)} of {len(kept)} {kind} responses are cut to fit into {longest} tokens with their prompts: they "
            f"have up to {max(cut)} tokens."
        )
    if dropped := len(texts) - len(kept):
        notes.append(
            f"{dropped} of {len(texts)} {kind} rows are dropped: their response is empty, or the prompt alone fills "
            f"{longest} tokens."
        )
    return [replace(t, response=t.response[:n]) if len(t.response) > n else t for t, n in kept]


def random_numbers(seed: int, stream: str, n: int) -> np.random.Generator:
    """Return the random numbers of the n-th draw of a named stream."""
    return np.random.default_rng([seed, zlib.crc32(stream.encode()), n])


def count_before(share: float, size: int, batch: int) -> int:
    """Return how many rows before a batch (0-based) belong to this share: 0.4 of 8 is 3, 3, 3, 3, 4 a batch."""
    return math.floor(share * size * batch + 1e-9)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One drawn text as the rows it is trained on; `name` is the text's kind and name."""

    name: str
    rows: tuple[TrainingRow, ...]


class Sampler:
    """The order of rows: harmful ones at their share, harmless ones at their share of the rest, then utility rows.

    Each kind shuffles its texts anew in every round. A row's draw depends on its number alone, whatever was drawn
    before. Where an arm does not use a kind its rows stay empty, so that every arm sees the same harmful rows.
    """

    def __init__(self, texts: TrainingTexts, config: TrainConfig) -> None:
        self._texts, self._config = texts, config
        self._maker = RowMaker(config, noise_of(texts) if config.chosen.perturbed else ())
        self._share = config.harmful_share if texts.harmful else 0.0
        self._harmless = (config.chosen.harmless_share if texts.utility else 1.0) if texts.harmless else 0.0

    def __len__(self) -> int:
        return self._config.steps * self._config.batch_size

    def __getitem__(self, number: int) -> Draw:
        """Return one row by its 0-based number in the whole training; within a batch, harmful ones come first."""
        size = self._config.batch_size
        step, slot = divmod(number, size)
        before, after = (count_before(self._share, size, b) for b in (step, step + 1))
        drawn = random_numbers(self._config.seed, "row", number)
        if slot < after - before:
            return self._made("harmful", before + slot, drawn)
        other = number - after
        at, following = (math.floor(self._harmless * n + 1e-9) for n in (other, other + 1))
        return self._made("harmless", at, drawn) if following > at else self._made("utility", other - at, drawn)

    def passes(self, step: int, rank: int = 0) -> list[list[Draw]]:
        """Return what one process trains on in an optimizer step (1-based), pass by pass."""
        size, batch = self._config.rows_in_a_pass, self._config.batch_size
        starts = range((step - 1) * batch + rank * size, step * batch, size * self._config.processes)
        return [[self[n] for n in range(start, start + size)] for start in starts]

    def _made(self, kind: str, number: int, drawn: np.random.Generator) -> Draw:
        texts = getattr(self._texts, kind)
        if not texts:
            return Draw(name="no row", rows=())
        round_, at = divmod(number, len(texts))
        order = random_numbers(self._config.seed, kind, round_).permutation(len(texts))
        text = texts[int(order[at])]
        rows = self._maker.drawn(text, kind, drawn)
        return Draw(name=f"{kind} {text.name}", rows=tuple(rows))
