"""A notebook's parameters and prompts, checked before any model is loaded: words, numbers, files, contradictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, get_args

from workbench.core.configs import Range, at_least, check_fields, from_to
from workbench.core.errors import ParameterError, PromptError, nearest
from workbench.core.records import Label
from workbench.decoding.config import METHODS, RiskSpace, Shape
from workbench.display.views.responses import HarmfulText
from workbench.evaluation.attacks import BUDGETS, attack_config
from workbench.evaluation.attacks.engine import check_vllm
from workbench.evaluation.capability.measure import check_tasks
from workbench.evaluation.paper import paper_preset
from workbench.evaluation.setup import ENGINES, arm_names, attacks_of
from workbench.judging.makers import check_name
from workbench.models.chat import TEMPLATE_MODES, check_template_date
from workbench.models.pair import locate_adapter
from workbench.models.placement import BYTES
from workbench.models.presets import preset
from workbench.models.sources import DTYPES, locate
from workbench.prompts.loading import OnLong, PromptSet
from workbench.tracing.metrics import CountSpace, Ranking
from workbench.tracing.records import Trajectory
from workbench.tracing.trajectories import no_response
from workbench.training.config import RowTeacher, arm_named
from workbench.training.data import Kept, Source

CHOICES: Mapping[str, tuple[str, ...]] = {
    "trajectory": (*get_args(Trajectory), "auto"),
    "count_space": get_args(CountSpace),
    "ranking": get_args(Ranking),
    "template_mode": TEMPLATE_MODES,
    "methods": tuple(METHODS),
    "shapes": get_args(Shape),
    "risk_space": get_args(RiskSpace),
    "dtype": ("auto", *DTYPES),
    "device_map": ("auto",),
    "experimental_quantised": tuple(BYTES),
    "label": get_args(Label),
    "on_long": get_args(OnLong),
    "harmful_from": get_args(Source),
    "utility_from": get_args(Kept),
    "refused_teacher": get_args(RowTeacher),
    "engine": ENGINES,
    "gcg_budget": tuple(BUDGETS),
    "harmful_text": get_args(HarmfulText),
}
"""Parameter -> the words that it takes."""

NAMES: Mapping[str, Callable[[str], Any]] = {
    "arm": arm_named,
    "compared": arm_named,
    "judge": check_name,
    "judges": check_name,
    "attacks": attack_config,
    "capability": lambda task: check_tasks([task]),
    "paper": paper_preset,
    "template_date": check_template_date,
}
"""Parameter -> what raises for a name that is not known; none of them loads a model."""


RANGES: Mapping[str, Range] = {
    "limit": at_least(1),
    "held_out_limit": at_least(1),
    "max_tokens": at_least(1),
    "opening_tokens": at_least(0),
    "seed": at_least(0),
    "base_floor": from_to(0, 1),
    "example": at_least(1),
    "branches": at_least(0),
    "position": at_least(1),
    "asr_at_most": from_to(0, 1),
    "refusals": at_least(1),
    "capability_limit": at_least(1),
    "tuning_steps": at_least(1),
    "m": at_least(1),
    "strengths": at_least(0),
    "penalties": at_least(0),
}
"""Parameter -> the numbers that it takes, where no config that is made before the models says so."""

FILLED = ("methods", "strengths", "shapes", "attacks", "judges", "prefix_tokens", "temperatures", "out", "rater")
"""Parameters that may not be empty."""


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise for the first parameter that a notebook would refuse after its models are loaded. Loads no model.

    Parameters with other names are not looked at. Raises ParameterError, UnknownName or NotPresent: for a misspelt
    word, a number out of range, an adapter, judge or engine that is not on this machine, and values that contradict
    each other.
    """
    _check_words(parameters)
    asked = SimpleNamespace(**parameters)
    check_fields(asked, **{name: values for name, values in RANGES.items() if name in parameters})
    for name in FILLED:
        if parameters.get(name) in ("", [], ()):
            raise ParameterError(f"{name} is empty: give at least one value")
    for name in ("attacks", "judges", "compared", "methods", "seeds", "adapters"):
        check_fields(asked, *_twice(parameters, name))
    if parameters.get("base") is None and parameters.get("pair") is not None:
        preset(parameters["pair"])
    for name in ("adapter", "expert", "adapters"):
        given = parameters.get(name) or ()
        for one in (given,) if isinstance(given, str) else given:
            locate_adapter(one, parameters.get("pair") if parameters.get("base") is None else None)
    for one in (parameters.get("judge"), *(parameters.get("judges") or ())):
        kind, _, model = (one or "").partition(":")
        if kind in ("guard", "classifier"):
            locate(model)
    if parameters.get("engine") == ENGINES[1]:
        check_vllm()
    if "trajectory" in parameters:  # the longest response includes its prefix
        longest = max(parameters["prefix_tokens"])
        words = f"above {longest}, the longest of prefix_tokens, because a response includes its prefix"
        check_fields(asked, (parameters["max_tokens"] <= longest, "max_tokens", words))
    if parameters.get("opening"):
        words = "'base' or 'continued' where an opening is given for base's responses"
        check_fields(asked, (parameters.get("harmful_from") == "given", "harmful_from", words))
    if "against" in parameters:
        _check_arms(parameters)


def check_prompts(parameters: Mapping[str, Any], prompts: PromptSet) -> None:
    """Raise PromptError or ParameterError where these prompts cannot be used with these parameters. Loads no model."""
    with_response = sum(bool(p.response) for p in prompts)
    harmful = [p for p in prompts if p.label == "harmful"]
    if parameters.get("trajectory") == "teacher_forced" and not with_response:
        raise no_response(prompts)
    if parameters.get("harmful_from") in ("given", "continued") and harmful and not any(p.response for p in harmful):
        raise PromptError(
            f"no harmful prompt of {prompts.name!r} has a response, which harmful_from={parameters['harmful_from']!r} "
            "needs: give its column as response_column, or use harmful_from='base'"
        )
    if parameters.get("example", 1) > len(harmful) > 0:
        raise ParameterError(
            f"example is {parameters['example']}; there are {len(harmful)} harmful prompts to show, counted from 1"
        )


def _check_words(parameters: Mapping[str, Any]) -> None:
    for name, value in parameters.items():
        if name in CHOICES:
            check_fields(SimpleNamespace(**{name: value}), **{name: CHOICES[name]})
        elif name in NAMES:
            for one in value if isinstance(value, list | tuple) else (value,):
                if one is not None:
                    NAMES[name](one)


def _twice(parameters: Mapping[str, Any], name: str) -> tuple[tuple[bool, str, str], ...]:
    given = parameters.get(name) or ()
    return ((len(set(given)) < len(given), name, "a list of different values"),)


def _check_arms(parameters: Mapping[str, Any]) -> None:
    """Check what an evaluation asks: its arms, its attacks with their settings, its capability questions."""
    settings = ("prefix_tokens", "temperatures", "samples", "tuning_steps", "max_tokens", "system_prompt", "seed")
    given = {name: parameters[name] for name in settings if name in parameters}
    attacks_of(parameters["attacks"], preset=parameters.get("paper"), budget=parameters["gcg_budget"], **given)
    arms = arm_names(parameters["adapters"], parameters["penalties"])
    if parameters["against"] not in arms:
        raise ParameterError(
            f"there is no arm {parameters['against']!r} here: {nearest(parameters['against'], arms)}"
        )
