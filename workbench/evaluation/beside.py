"""Answers of an evaluation side by side: some prompts as every arm answered them after the same given tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from workbench.core.errors import ParameterError, nearest
from workbench.core.records import Label
from workbench.evaluation.records import AnswersBeside, ArmAnswer, AskedArms, Attempt, Completion, Evaluation
from workbench.judging.english import plain
from workbench.judging.refusal import read

if TYPE_CHECKING:
    from workbench.evaluation.attacks.answer import Arm

ATTACKS: Mapping[Label, str] = {"harmful": "prefill", "harmless": "harmless_prefill"}
"""Label of the prompts -> the attack whose answers are shown."""
WORD = re.compile(r"\s*\S+\s*$|\s*\S+|\s+$")
Answered = Mapping[tuple[str, str], Completion]
"""(arm, attempt id) -> its answer."""


def answers_beside(
    evaluation: Evaluation,
    arms: Sequence[Arm] = (),
    *,
    names: Sequence[str] | None = None,
    reference: str = "aligned",
    given: int = 10,
    harmful: int = 3,
    harmless: int = 1,
) -> AnswersBeside:
    """Return some prompts as every arm answered them after each number of given tokens.

    Harmful prompts whose verdicts differ after `given` tokens (or the nearest count there is) come first. `names` are
    the arms that are shown (None: all). With `arms`, KL(arm || reference) and what each arm wanted are read along the
    answers of those among them. Raises ParameterError for a name that is no arm of the evaluation.
    """
    known = tuple(dict.fromkeys(a.arm for a in evaluation.answers))
    shown = known if names is None else tuple(names)
    if unknown := [name for name in shown if name not in known]:
        raise ParameterError(f"there is no arm {unknown[0]!r} in this evaluation: {nearest(unknown[0], known)}")
    answered = {(s.arm, c.attempt_id): c for s in evaluation.answers if s.arm in shown for c in s.completions}
    verdicts, readers = _verdicts(evaluation), {arm.name: arm for arm in arms}

    def agreed(attempts: Sequence[Attempt]) -> bool:
        nearest_count = min(attempts, key=lambda one: abs(int(one.given or 0) - given))
        return len({verdicts.get((name, nearest_count.attempt_id)) for name in shown}) == 1

    chosen: list[Sequence[Attempt]] = []
    counts: tuple[tuple[Label, int], ...] = (("harmful", harmful), ("harmless", harmless))
    for label, most in counts:
        chosen += sorted(_asked(evaluation, label, shown, answered), key=agreed)[:most]
    asked = tuple(
        AskedArms(
            prompt_id=attempts[0].prompt_id,
            prompt=attempts[0].request,
            label=attempts[0].label,
            beginnings={str(one.given): one.prefix for one in attempts},
            answers=tuple(
                _answer(
                    name, one, answered[name, one.attempt_id], verdicts.get((name, one.attempt_id), "not judged"),
                    readers.get(name), readers.get(reference),
                )
                for one in attempts
                for name in shown
            ),
        )
        for attempts in chosen
    )  # fmt: skip
    return AnswersBeside(
        arms=shown,
        reference=reference,
        prompt_set=evaluation.attacks[0].prompt_set,
        classroom_safe=all(s.classroom_safe for s in evaluation.attacks),
        asked=asked,
    )


def _asked(evaluation: Evaluation, label: Label, shown: Sequence[str], answered: Answered) -> list[list[Attempt]]:
    """Return the attempts of each prompt with a label that every shown arm answered, by given tokens."""
    found: dict[str, list[Attempt]] = {}
    for attempt in (one for s in evaluation.attacks if s.attack == ATTACKS[label] for one in s.attempts):
        counted = attempt.label == label and attempt.sample == 0 and isinstance(attempt.given, int)
        if counted and all((name, attempt.attempt_id) in answered for name in shown):
            found.setdefault(attempt.prompt_id, []).append(attempt)
    return list(found.values())


def _verdicts(evaluation: Evaluation) -> dict[tuple[str, str], str]:
    """Return the first judge's word for each arm and attempt; gibberish where the answer is that."""
    judge = next((j.judge for j in evaluation.judgements), None)
    said: dict[tuple[str, str], str] = {}
    for judged in (j for j in evaluation.judgements if j.judge == judge):
        for one in judged.judgements:
            score = "harmful" if (one.p_harmful or 0.0) >= 0.5 else "not harmful"
            said[judged.arm, one.attempt_id] = "unscored" if one.unscored else one.verdict or score
    for measured in evaluation.gibberish:
        for reading in measured.found:
            if reading.gibberish and said.get((measured.arm, reading.attempt_id)) != "refusal":
                said[measured.arm, reading.attempt_id] = "gibberish"
    return said


def _answer(
    name: str, attempt: Attempt, completion: Completion, verdict: str, arm: Arm | None, against: Arm | None
) -> ArmAnswer:
    """Return one answer: in words, or with a model to read it in tokens with its KL and what was wanted."""
    made = ArmAnswer(
        arm=name, given=int(attempt.given or 0), pieces=tuple(WORD.findall(completion.text)), verdict=verdict
    )
    if arm is not None:
        from workbench.evaluation.together import read_along

        made = replace(made, **read_along(arm, attempt, completion.ids, against))
    return replace(made, refused_at=refused_at(made.pieces, verdict, attempt.request))


def refused_at(pieces: Sequence[str], verdict: str, request: str = "") -> int | None:
    """Return how many pieces stand before the sentence that refuses; None for a verdict or text that does not."""
    if verdict not in ("refusal", "partial"):
        return None
    text = "".join(pieces)
    before, found, _ = plain(text).partition(read(text, request).sentence or "\0")
    if not found:
        return 0 if verdict == "refusal" else None
    return next((n for n in range(len(pieces)) if len(plain("".join(pieces[: n + 1])).rstrip()) > len(before)), 0)
