"""A judge from its name, its config, or the class that "module:Class" names, loaded on first use."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any, get_args

from workbench.core.errors import ParameterError
from workbench.core.named_code import class_named, names_class
from workbench.judging.config import JUDGES, JudgeConfig
from workbench.judging.contract import Judge
from workbench.judging.records import Measures

EMBEDDED = "embedded"
"""The prompt set whose answers the exact judge knows."""

AnyJudge = Judge | JudgeConfig | str
"""A judge, its config, or its name."""


def judge_of(how: AnyJudge) -> Judge:
    """Return a judge: the given one, or that of a config or a name ("refusal", "guard:FOLDER", "mine:Judge").

    Only a name imports a class, no config or record: give names that the user typed. Raises UnknownName or
    ParameterError as JudgeConfig does and for a class that is not a judge, and NotPresent or PairError from loading.
    """
    if isinstance(how, str):
        if names_class(how, JUDGES):
            return _own(how)
        how = JudgeConfig.named(how)
    if not isinstance(how, JudgeConfig):
        if wrong := _lacks(how):
            raise ParameterError(f"{type(how).__name__} is not a judge, because it has {wrong}: {SHAPE}")
        return how
    file, _, name = JUDGES[how.judge].made_by.partition(":")
    kind: Any = getattr(importlib.import_module(f"workbench.judging.{file}"), name)
    made: Judge = kind.load(how) if how.model else kind()
    return made


def judges_of(asked: Sequence[AnyJudge] | None, prompt_set: str) -> tuple[AnyJudge, ...]:
    """Return the given judges; for None the refusal rules, and on the embedded prompts the exact judge first.

    Loads no model. Raises what `check_name` raises.
    """
    if asked is None:
        return ("exact", "refusal") if prompt_set == EMBEDDED else ("refusal",)
    for one in asked:
        if isinstance(one, str):
            check_name(one)
    return tuple(asked)


def the_judge(asked: AnyJudge | None, prompt_set: str) -> Judge:
    """Return the given judge; for None the exact one on the embedded prompts, else the refusal rules."""
    return judge_of(judges_of(None if asked is None else (asked,), prompt_set)[0])


def check_name(name: str) -> None:
    """Raise what `judge_of` raises for a wrong name, without loading a model or a folder of ratings."""
    if names_class(name, JUDGES):
        _own(name)
    else:
        JudgeConfig.named(name)


def _own(name: str) -> Judge:
    """Return an instance of a judge's class, made with no arguments."""
    kind = class_named(name, "judge", JUDGES)
    try:
        made = kind()
    except Exception as error:
        raise ParameterError(
            f"judge {name!r} cannot be made with no arguments ({type(error).__name__}: {error}): give them defaults"
        ) from error
    if wrong := _lacks(made):
        raise ParameterError(f"class {name!r} is not a judge, because it has {wrong}: {SHAPE}")
    return made


SHAPE = (
    f"give it a name, a version, measures ({' or '.join(map(repr, get_args(Measures)))}), and judge(batch), which "
    "returns a judgement for each sample"
)


def _lacks(judge: Any) -> str:
    """Return what an object lacks to be a judge, in words; empty where it lacks nothing."""
    wrong = [f"no text {n!r}" for n in ("name", "version") if not isinstance(getattr(judge, n, None), str)]
    wrong += ["no known 'measures'"] if getattr(judge, "measures", None) not in get_args(Measures) else []
    try:
        inspect.signature(judge.judge).bind(())
    except (AttributeError, TypeError):
        wrong.append("no method judge(batch)")
    return " and ".join(wrong)
