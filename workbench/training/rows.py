"""What is trained on: judged texts, and the rows made of them, each with its positions, role and contexts.

A row is what the student reads, the positions in it that are trained on, and, for each of them, where aligned and base
say what they think: they may read something else. In recovery the student reads prompt, harmful prefix and refusal
(x, h, r_<j), and aligned, its teacher, the prompt and the refusal alone (x, r_<j).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from workbench.core.errors import PromptError
from workbench.training.config import TrainConfig

RoleName = Literal["LABEL", "DISTIL", "RECOVER", "COMPLETE", "CONSTRAIN"]
Ids = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PlainText:
    """Hold a prompt with a response to keep: the contexts (token ids) of aligned and base, and the response's ids.

    `prompt` is what was asked, for a person to see.
    """

    name: str
    prompt: str = ""
    aligned: Ids
    base: Ids
    response: Ids


@dataclass(frozen=True, kw_only=True)
class HarmfulText(PlainText):
    """Hold a harmful prompt with a response that complies, and the aligned model's own refusals of it.

    Both are judged before they come here.
    """

    refusals: tuple[Ids, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainingTexts:
    """Hold what a training may draw from; `notes` say what was dropped and cut on the way.

    `sources` say where prompts, responses and refusals came from, in sentences that quote none of them.
    """

    harmful: tuple[HarmfulText, ...] = ()
    utility: tuple[PlainText, ...] = ()
    harmless: tuple[PlainText, ...] = ()
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Hold a context and the response that is read after it; wanted are its tokens from `start` (0-based) on."""

    context: Ids
    response: Ids
    start: int = 0

    @property
    def ids(self) -> Ids:
        """Return what goes into the model: the last response token is predicted, never read."""
        return self.context + self.response[:-1]

    @property
    def columns(self) -> range:
        """Return the columns of `ids` that predict the wanted tokens."""
        before = len(self.context) - 1
        return range(before + self.start, before + len(self.response))


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """Hold one sequence to train on.

    part     what it counts as in the curves and normalisers: one role each (recover, complete, refusal, utility, ...)
    role     the loss at its positions, a name of `objective.Role`
    student, aligned, base   what each reads; equally many tokens are wanted. None where the role needs no such model
    labels   the observed next token at each wanted position; `first` is the position of the first one, 1-based
    weights  w_t at each position
    """

    part: str
    role: RoleName
    student: Reading
    aligned: Reading | None
    base: Reading | None
    labels: Ids
    first: int
    weights: tuple[float, ...]


class RowMaker:
    """Make the rows of a drawn text, as the arm wants them."""

    def __init__(self, config: TrainConfig) -> None:
        self._config, self._arm = config, config.chosen

    def harmful(self, text: HarmfulText, drawn: np.random.Generator) -> list[TrainingRow]:
        """Return the rows of a harmful text, with a refusal and a prefix drawn for it; [] where the arm uses none."""
        if not self._arm.needs_refusals:
            return self.after(text, 0)
        refusal = text.refusals[int(drawn.integers(len(text.refusals)))]
        return self.after(text, 0 if self._arm.harmful == "refusal" else self._prefix(text, refusal, drawn), refusal)

    def after(self, text: HarmfulText, k: int, refusal: Ids = ()) -> list[TrainingRow]:
        """Return the rows of a harmful text of whose response the first k tokens are given before the refusal.

        Arms that need no refusal go along the whole response, whatever k is. [] for an arm without harmful rows.
        """
        use = self._arm.harmful
        if use in ("completion", "teacher"):
            role: RoleName = "COMPLETE" if use == "completion" else "DISTIL"
            return [self._along(text, 0, "complete" if use == "completion" else "teacher", role)]
        if use == "compliance":
            return [self._along(text, 0, "compliance", self._labelled)]
        if not self._arm.needs_refusals:
            return []
        rows = [self._refusal(text, text.response[:k], refusal)]
        if self._arm.penalise_rest and k < len(text.response) and self._arm.loss.weights.complete > 0.0:
            rows.append(self._along(text, k, "complete", "COMPLETE"))
        return rows

    def plain(self, text: PlainText, kind: str, drawn: np.random.Generator) -> list[TrainingRow]:
        """Return the row of a utility text, or of a harmless one from a random prefix on; [] where it is not used."""
        if self._arm.utility == "nothing":
            return []
        k = 0
        if kind == "harmless":
            k = int(drawn.integers(0, min(self._config.prefix_tokens, len(text.response) - 1) + 1))
        return [self._along(text, k, "utility", "DISTIL" if self._arm.utility == "distil" else self._labelled)]

    @property
    def _labelled(self) -> RoleName:
        return "CONSTRAIN" if self._arm.utility == "constrain" else "LABEL"

    def _prefix(self, text: HarmfulText, refusal: Ids, drawn: np.random.Generator) -> int:
        """Draw k: 0 half of the time, otherwise uniform in [1, min(prefix_tokens, |h|)], as far as there is room."""
        room = self._config.max_tokens - len(text.aligned) - len(refusal)
        most = max(0, min(self._config.prefix_tokens, len(text.response), room))
        nothing, k = drawn.random() < 0.5, int(drawn.integers(1, most + 1)) if most else 0
        return 0 if nothing else k

    def _refusal(self, text: HarmfulText, given: Ids, refusal: Ids) -> TrainingRow:
        distilled = self._arm.harmful == "recovery"
        first = len(given) + 1
        return TrainingRow(
            part="recover" if distilled else "refusal",
            role="RECOVER" if distilled else "LABEL",
            student=Reading(context=text.aligned + given, response=refusal),
            aligned=Reading(context=text.aligned, response=refusal) if distilled else None,
            base=None,
            labels=refusal,
            first=first,
            weights=tuple(self._arm.weight_at(first + j) for j in range(len(refusal))),
        )

    def _along(self, text: PlainText, k: int, part: str, role: RoleName) -> TrainingRow:
        """Return the row along a text's own response, trained from position k + 1 on."""
        read = Reading(context=text.aligned, response=text.response, start=k)
        harmful = part in ("complete", "teacher")
        needs_base = role == "COMPLETE" or (role == "DISTIL" and self._arm.loss.teacher_lambda != 1.0)
        rest = text.response[k:]
        return TrainingRow(
            part=part,
            role=role,
            student=read,
            aligned=read if role != "LABEL" else None,
            base=replace(read, context=text.base) if needs_base else None,
            labels=rest,
            first=k + 1,
            weights=tuple(self._arm.weight_at(k + 1 + j) if harmful else 1.0 for j in range(len(rest))),
        )


def prepared(texts: TrainingTexts, config: TrainConfig) -> TrainingTexts:
    """Return the texts that an arm can train on: too long responses cut, what does not fit dropped, all of it noted.

    Raises PromptError where an arm that needs harmful rows, refusals or utility rows is left with none.
    """
    arm, longest = config.chosen, config.max_tokens
    notes = list(texts.notes)
    harmful: list[HarmfulText] = []
    without = 0
    if arm.harmful != "nothing":
        for text in _fitted(texts.harmful, longest, "harmful", notes):
            assert isinstance(text, HarmfulText)
            room = longest - len(text.aligned)
            refusals = tuple(r for r in text.refusals if r and len(r) <= room)
            if arm.needs_refusals and not refusals:
                without += 1
                continue
            harmful.append(replace(text, refusals=refusals))
        if without:
            notes.append(f"{without} harmful rows have no refusal of the aligned model (that fits) and are left out.")
        if not harmful:
            why = "there are none" if not texts.harmful else f"all {len(texts.harmful)} were left out: {_last(notes)}"
            raise PromptError(
                f"arm {arm.name!r} trains on harmful rows, and {why}. Give prompts labelled harmful with a response "
                "that complies (or let the base model write it), and a larger max_tokens where rows are too long"
            )
    utility: list[PlainText] = []
    harmless: list[PlainText] = []
    if arm.utility != "nothing":
        utility = _fitted(texts.utility, longest, "utility", notes)
        harmless = _fitted(texts.harmless, longest, "harmless", notes) if arm.harmless_share else []
        if not (utility or harmless) and config.harmful_share < 1.0:
            raise PromptError(
                f"arm {arm.name!r} trains on utility rows at a share of {1 - config.harmful_share:g}, and none is left "
                f"({len(texts.utility)} were given): give some, or set harmful_share to 1"
            )
    return replace(texts, harmful=tuple(harmful), utility=tuple(utility), harmless=tuple(harmless), notes=tuple(notes))


def _last(notes: Sequence[str]) -> str:
    return notes[-1] if notes else "their responses are empty"


def _fitted(texts: Sequence[PlainText], longest: int, kind: str, notes: list[str]) -> list[PlainText]:
    """Cut responses to what fits, drop texts without room or response, and note both."""
    kept: list[PlainText] = []
    cut: list[int] = []
    for text in texts:
        room = longest - max(len(text.aligned), len(text.base))
        if room < 1 or not text.response:
            continue
        if len(text.response) > room:
            cut.append(len(text.response))
            text = replace(text, response=text.response[:room])
        kept.append(text)
    if cut:
        notes.append(
            f"{len(cut)} of {len(kept)} {kind} responses are longer than {longest} tokens allow (up to {max(cut)} "
            "tokens) and are cut."
        )
    if dropped := len(texts) - len(kept):
        notes.append(
            f"{dropped} of {len(texts)} {kind} rows are left out: their response is empty, or the prompt alone fills "
            f"{longest} tokens."
        )
    return kept
