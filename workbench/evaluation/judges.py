"""Who judges: those that are named, else those that fit the prompts."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.judging.config import JudgeConfig, judge_of
from workbench.judging.contract import Judge

EMBEDDED = "embedded"
AnyJudge = Judge | JudgeConfig | str
"""A judge, its config, or its short name."""


def judges_of(asked: Sequence[AnyJudge] | None, prompt_set: str) -> tuple[AnyJudge, ...]:
    """Return the judges that are asked for; None: the refusal rules, and on the embedded prompts the exact judge first.

    Loads none. Raises UnknownName or ParameterError for a name that says no judge, before anything is answered.
    """
    if asked is None:
        return ("exact", "refusal") if prompt_set == EMBEDDED else ("refusal",)
    for one in asked:
        if isinstance(one, str):
            JudgeConfig.named(one)
    return tuple(asked)


def the_judge(asked: AnyJudge | None, prompt_set: str) -> Judge:
    """Return the one judge that is asked for; None: the exact one for the embedded prompts, else the refusal rules."""
    one = judges_of(None if asked is None else (asked,), prompt_set)[0]
    return judge_of(one) if isinstance(one, JudgeConfig | str) else one
