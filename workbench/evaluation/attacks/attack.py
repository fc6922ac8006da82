"""Make the attempts of one attack on a prompt set, after saying what it will cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from workbench.core.errors import ParameterError, UnknownName, nearest
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

    Raises UnknownName for a family, ParameterError for a setting, that does not exist.
    """
    if family not in ATTACKS:
        raise UnknownName(f"there is no attack {family!r}: {nearest(family, list(ATTACKS))}")
    kind: Any = ATTACKS[family]
    known = list(kind.__dataclass_fields__)
    for name in settings:
        if name not in known:
            raise ParameterError(f"attack {family!r} has no setting {name!r}: {nearest(name, known)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


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
