"""Who judges: those that are named, else those that fit the prompts."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.judging.contract import Judge
from workbench.judging.makers import AnyJudge, check_name, judge_of

EMBEDDED = "embedded"


def judges_of(asked: Sequence[AnyJudge] | None, prompt_set: str) -> tuple[AnyJudge, ...]:
    """Return the judges that are asked for; None: the refusal rules, and on the embedded prompts the exact judge first.

    Loads no model. Raises what `check_name` raises for a name that says no judge, before anything is answered.
    """
    if asked is None:
        return ("exact", "refusal") if prompt_set == EMBEDDED else ("refusal",)
    for one in asked:
        if isinstance(one, str):
            check_name(one)
    return tuple(asked)


def the_judge(asked: AnyJudge | None, prompt_set: str) -> Judge:
    """Return the one judge that is asked for; None: the exact one for the embedded prompts, else the refusal rules."""
    return judge_of(judges_of(None if asked is None else (asked,), prompt_set)[0])
