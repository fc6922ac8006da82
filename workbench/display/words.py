"""The words that a notebook's parameters choose among, checked before any model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

from workbench.core.configs import check_fields
from workbench.core.errors import ParameterError, nearest
from workbench.core.records import Label
from workbench.decoding.config import METHODS, RiskSpace, Shape
from workbench.display.views.responses import HarmfulText
from workbench.evaluation.attacks import BUDGETS, attack_config
from workbench.evaluation.capability.measure import check_tasks
from workbench.evaluation.paper import paper_preset
from workbench.evaluation.setup import ENGINES, length_of
from workbench.judging.makers import check_name
from workbench.models.chat import TEMPLATE_MODES
from workbench.models.placement import BYTES
from workbench.models.presets import preset
from workbench.models.sources import DTYPES
from workbench.prompts.loading import OnLong
from workbench.tracing.metrics import CountSpace, Ranking
from workbench.tracing.records import Trajectory
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
}
"""Parameter -> what raises for a name that is not known; none of them loads a model."""


def check_words(parameters: Mapping[str, Any]) -> None:
    """Raise ParameterError, UnknownName or NotPresent for the first misspelt word among a notebook's parameters.

    Parameters with other names are not looked at.
    """
    for name, value in parameters.items():
        if name in CHOICES:
            check_fields(SimpleNamespace(**{name: value}), **{name: CHOICES[name]})
        elif name in NAMES:
            for one in value if isinstance(value, list | tuple) else (value,):
                if one is not None:
                    NAMES[name](one)
    if parameters.get("base") is None and parameters.get("pair") is not None:
        preset(parameters["pair"])
    if "against" in parameters:
        arms = ["base", "aligned", *(Path(a).name or a for a in parameters.get("adapters", ()))]
        arms += [f"penalty {strength:g}" for strength in parameters.get("penalties", ())]
        if parameters["against"] not in arms:
            raise ParameterError(
                f"there is no arm {parameters['against']!r} here: {nearest(parameters['against'], arms)}"
            )
        for k in parameters.get("prefix_tokens", ()):
            length_of(k)
