"""The attempts of one attack on a prompt set, with its cost; attacks by name."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from workbench.core.errors import ParameterError, UnknownName, nearest
from workbench.core.named_code import class_named, names_class
from workbench.core.progress import Progress
from workbench.core.provenance import Stopwatch
from workbench.core.store import Store
from workbench.evaluation.attacks.finetuning import BenignTuning, FewHarmfulTuning
from workbench.evaluation.attacks.prefixes import HarmlessPrefill, Insertion, Prefill
from workbench.evaluation.attacks.ranked import RankAssisted
from workbench.evaluation.attacks.requests import Decoding, NoAttack, Template
from workbench.evaluation.attacks.suffixes import GCG, RandomSuffix
from workbench.evaluation.attacks.task import AttackConfig, Task
from workbench.evaluation.records import AttackSet
from workbench.models.chat import tokenizer_hash
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet

_KINDS: tuple[type[AttackConfig], ...] = (
    NoAttack,
    Prefill, HarmlessPrefill, RankAssisted, GCG, RandomSuffix, Decoding, Template, Insertion,
    BenignTuning, FewHarmfulTuning,
)  # fmt: skip
ATTACKS: Mapping[str, type[AttackConfig]] = {kind.family: kind for kind in _KINDS}
"""Every attack by its family's name."""


def attack_config(family: str, **settings: Any) -> AttackConfig:
    """Return the config of an attack by name; a list becomes a tuple.

    The name "module:Class" imports code, so only take names that the user wrote, never those of a loaded file. Raises
    UnknownName for a family or class, ParameterError for a setting, that does not exist, and for a class that is not an
    attack.
    """
    kind: Any = _own(family) if names_class(family, ATTACKS) else ATTACKS.get(family)
    if kind is None:
        raise UnknownName(f"there is no attack {family!r}: {nearest(family, list(ATTACKS))}")
    known = list(kind.__dataclass_fields__)
    for name in settings:
        if name not in known:
            raise ParameterError(f"attack {family!r} has no setting {name!r}: {nearest(name, known)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


def _own(name: str) -> type[AttackConfig]:
    """Return the attack that "module:Class" names, after a check of what it defines."""
    kind = class_named(name, "attack", ATTACKS)
    if not issubclass(kind, AttackConfig):
        raise ParameterError(
            f"class {name!r} is not an attack: derive it from workbench.evaluation.attacks.AttackConfig"
        )
    missing = [n for n in ("cost", "make") if getattr(kind, n) is getattr(AttackConfig, n)]
    missing += [] if isinstance(getattr(kind, "family", None), str) else ["family"]
    if missing:
        raise ParameterError(
            f"class {name!r} has no {' and no '.join(missing)}: an attack defines family (its name), cost(task) and "
            "make(task)"
        )
    return kind


def attack(pair: ModelPair, prompts: PromptSet, config: AttackConfig, *, store: Store | None = None) -> AttackSet:
    """Make the attempts of an attack, after a report of what they cost at most.

    Models generate targets, refusals and suffixes without thinking. With a `store`, a killed attack resumes at the last
    batch of generated texts or the last step of a suffix search.

    Raises, before any model runs: PromptError where no prompt is left or none has a target, ContextOverflow where
    prompt, prefix and answer exceed the context, UnknownName for a template that does not exist.
    """
    watch = Stopwatch("attack", config)
    began = time.perf_counter()
    task = Task.of(pair, prompts, config, Store.of(store))
    most = config.cost(task)
    with Progress(None, 0, "") as progress:
        progress.note(f"{config.family}: {most}.")
    made = config.make(task)
    notes = list(made.notes)
    if len(task.prompts) < len(prompts):
        notes.insert(0, f"{len(task.prompts)} of {len(prompts)} prompts are {' or '.join(config.labels or ())}.")
    spent = ("continuations", "queries", "forward_passes", "backward_passes")
    cost = {name: float(getattr(made.cost, name)) for name in spent}
    cost["seconds"] = round(time.perf_counter() - began, 3)
    decided = {"family": config.family, "pair": pair.name, "template_mode": pair.template_mode, **made.resolved}
    return AttackSet(
        run=watch.record(pair, resolved=decided, seed=config.seed),
        attack=config.family,
        prompt_set=prompts.name,
        classroom_safe=prompts.classroom_safe,
        tokenizer=tokenizer_hash(pair.tokenizer),
        attempts=tuple(made.attempts),
        cost=cost,
        notes=tuple(notes),
    )
