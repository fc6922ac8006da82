"""Make the attempts of one attack on a prompt set, after saying what it will cost."""

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
from workbench.evaluation.attacks.requests import Decoding, NoAttack, Template
from workbench.evaluation.attacks.suffixes import GCG, RandomSuffix
from workbench.evaluation.attacks.task import AttackConfig, Task
from workbench.evaluation.records import AttackSet
from workbench.models.chat import tokenizer_hash
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet

ATTACKS: Mapping[str, type[AttackConfig]] = {
    kind.family: kind
    for kind in (
        NoAttack,
        Prefill,
        HarmlessPrefill,
        GCG,
        RandomSuffix,
        Decoding,
        Template,
        Insertion,
        BenignTuning,
        FewHarmfulTuning,
    )
}
"""Every attack by its family's name."""


def attack_config(family: str, **settings: Any) -> AttackConfig:
    """Return the config of an attack by name, lists taken as tuples: what notebooks and the command line call.

    The name "module:Class" imports a class: give names that the person who runs this wrote, none of a loaded file.
    Raises UnknownName for a family or class, ParameterError for a setting, that does not exist, and for a class that is
    no attack.
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
    """Return the attack that "module:Class" names, when the class has what an attack needs."""
    kind = class_named(name, "attack", ATTACKS)
    if not issubclass(kind, AttackConfig):
        raise ParameterError(f"class {name!r} is no attack: derive it from workbench.evaluation.attacks.AttackConfig")
    missing = [n for n in ("cost", "make") if getattr(kind, n) is getattr(AttackConfig, n)]
    missing += [] if isinstance(getattr(kind, "family", None), str) else ["family"]
    if missing:
        raise ParameterError(
            f"class {name!r} is no attack, because it has no {' and no '.join(missing)}: an attack has a family (its "
            "name), cost(task) and make(task)"
        )
    return kind


def attack(pair: ModelPair, prompts: PromptSet, config: AttackConfig, *, store: Store | None = None) -> AttackSet:
    """Make the attempts of an attack; before it starts it reports what it will cost at most.

    Targets, refusals and suffixes are made with a thinking block closed. With a `store`, a killed attack goes on where
    it was: generated texts by batch, suffix searches by step.

    Raises PromptError where no prompt is left or none has a target, ContextOverflow where prompt, prefix and answer
    exceed the context, UnknownName for a template that does not exist: all of it before any model runs.
    """
    watch = Stopwatch("attack", config)
    began = time.perf_counter()
    task = Task.of(pair, prompts, config, Store(None) if store is None else store)
    most = config.cost(task)
    with Progress(None, 0, "") as progress:
        progress.note(f"{config.family}: {most}.")
    made = config.make(task)
    notes = list(made.notes)
    if len(task.prompts) < len(prompts):
        notes.insert(0, f"{len(task.prompts)} of {len(prompts)} prompts are {' or '.join(config.labels or ())}.")
    cost = {
        "continuations": float(made.cost.continuations),
        "queries": float(made.cost.queries),
        "forward_passes": float(made.cost.forward_passes),
        "backward_passes": float(made.cost.backward_passes),
        "seconds": round(time.perf_counter() - began, 3),
    }
    return AttackSet(
        run=watch.record(
            resolved={"family": config.family, "pair": pair.name, "template_mode": pair.template_mode, **made.resolved},
            seed=config.seed,
            device=str(pair.device),
            fingerprint=pair.fingerprint,
        ),
        attack=config.family,
        prompt_set=prompts.name,
        classroom_safe=prompts.classroom_safe,
        tokenizer=tokenizer_hash(pair.tokenizer),
        attempts=tuple(made.attempts),
        cost=cost,
        notes=tuple(notes),
    )
