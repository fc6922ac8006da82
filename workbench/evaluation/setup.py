"""Arms, attempts and capability tasks from plain settings: a notebook's parameters or a command line."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.core.configs import configured
from workbench.core.errors import ParameterError, PromptError, UnknownName, nearest
from workbench.core.progress import Progress
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.model import PenalisedModel
from workbench.evaluation import attacks as room
from workbench.evaluation.attacks import ATTACKS, Arm, AttackConfig, ModelArm, Prefill, attack_config
from workbench.evaluation.attacks.engine import engine_arms
from workbench.evaluation.attacks.targets import TargetedConfig
from workbench.evaluation.capability.config import BUILT_IN, CapabilityConfig
from workbench.evaluation.capability.measure import check_tasks
from workbench.evaluation.escalation import escalated
from workbench.evaluation.metrics import EvaluateConfig
from workbench.evaluation.paper import PaperPreset, paper_preset
from workbench.evaluation.records import AttackSet
from workbench.judging.makers import EMBEDDED, AnyJudge, judges_of
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet

ENGINES = ("transformers", "experimental_vllm")


def arms_of(
    pair: ModelPair,
    *,
    adapters: Sequence[str] | Mapping[str, str] = (),
    penalties: Sequence[float] = (),
    engine: str = ENGINES[0],
) -> tuple[Arm, ...]:
    """Return the arms of a comparison: base, aligned, aligned with each adapter, aligned under each penalty.

    An adapter's arm has the name of its folder, such as "recovery", or that of the mapping; a penalty's is "penalty 1"
    (one-sided, of that strength). Engine "experimental_vllm" continues base and aligned; the other arms use our
    generator. Raises ParameterError where two arms would have one name, UnknownName for another engine, and what
    loading an adapter or an engine raises.
    """
    if engine not in ENGINES:
        raise UnknownName(f"there is no engine {engine!r}: {nearest(engine, ENGINES)}")
    arms: list[Arm] = [ModelArm(pair=pair, which="base"), ModelArm(pair=pair, which="aligned")]
    if engine == ENGINES[1]:
        arms = list(engine_arms(pair))
    names = arm_names(tuple(adapters), penalties)[2:]
    places = adapters.values() if isinstance(adapters, Mapping) else adapters
    for adapter, name in zip(places, names, strict=False):
        arms.append(ModelArm(pair=pair.with_aligned(adapter), which="aligned", called=name))
    for strength, name in zip(penalties, names[len(adapters) :], strict=True):
        arms.append(PenalisedModel(pair, PenaltyConfig(strength=strength), name=name))
    return tuple(arms)


def arm_names(adapters: Sequence[str] = (), penalties: Sequence[float] = ()) -> tuple[str, ...]:
    """Return the names of `arms_of`, without a model. Raises ParameterError where two would be the same."""
    names = ("base", "aligned", *(Path(a).name or a for a in adapters), *(f"penalty {p:g}" for p in penalties))
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise ParameterError(
            f"two arms are called {twice[0]!r}: rename an adapter's folder, or give each strength once"
        )
    return names


def attacks_of(
    names: Sequence[str],
    *,
    prefix_tokens: Sequence[str] = (),
    temperatures: Sequence[float] = (),
    samples: int = 1,
    budget: str = "smoke",
    tuning_steps: int | None = None,
    max_tokens: int = 128,
    system_prompt: str | None = None,
    seed: int = 0,
    preset: PaperPreset | str | None = None,
) -> tuple[AttackConfig, ...]:
    """Return the configs of named attacks, each with the settings that it has.

    `prefix_tokens` (counts or "full") are for both kinds of prefill, `temperatures` and `samples` for the decoding grid
    (top-p 1, no top-k), `budget` for suffix searches, `tuning_steps` for fine-tuning (None: its default). The attacks
    and settings of a paper preset replace those of the same name, and its other attacks are added; these are never made
    stronger. Raises UnknownName for an attack, ParameterError for a setting, that does not exist.
    """
    own = dict(paper_preset(preset).attacks) if preset is not None else {}
    more: dict[str, Any] = {"k": tuple(map(length_of, prefix_tokens)) or None, "budget": budget, "steps": tuning_steps}
    if temperatures:
        more.update(temperatures=tuple(temperatures), top_ps=(1.0,), top_ks=(0,), samples=samples)
    made = []
    for name in dict.fromkeys((*names, *own)):
        fields = ATTACKS[name].__dataclass_fields__ if name in ATTACKS else ()
        settings = {"max_tokens": max_tokens, "system_prompt": system_prompt, "seed": seed}
        settings |= {k: v for k, v in more.items() if k in fields and v is not None}
        fixed = {**own[name], "escalations": 0} if name in own else {}
        made.append(attack_config(name, **{**settings, **fixed}))
    return tuple(made)


def length_of(k: str) -> int | str:
    """Return a prefix length: a count of tokens, or "full". Raises ParameterError for another text."""
    if k == "full":
        return k
    if not k.isdigit():
        raise ParameterError(f"prefix_tokens has {k!r}; each is a count of tokens or 'full'")
    return int(k)


def attempts_of(
    pair: ModelPair,
    prompts: PromptSet,
    attacks: Sequence[AttackConfig] | Sequence[str],
    *,
    lookalikes: PromptSet | None = None,
    judges: Sequence[AnyJudge] | None = None,
    gate: float = EvaluateConfig.gate,
    store: Store | None = None,
    **settings: Any,
) -> tuple[AttackSet, ...]:
    """Make the attempts of every attack; an attack without a prompt of its kind is left out with a note.

    An attack that succeeds on fewer than `gate` of the prompts of aligned, by the first of the `judges` (None: as
    `evaluate` takes them), is made stronger within its budget `escalations`; see `escalated`. All arms answer the last
    form. `attacks` are configs, or names with the `settings` that `attacks_of` takes (prefix_tokens, max_tokens, ...).
    Targets come from the base model where no prompt has a response, with a note. `lookalikes` are prompts that only
    look harmful, such as those of XSTest: those with that label, or all not labelled harmful where none has it, are
    sent without an attack. Raises PromptError where no attack has a prompt, and what `attack`, `answer` and the judge
    raise.
    """
    named = [one for one in attacks if isinstance(one, str)]
    given = [one for one in attacks if not isinstance(one, str)]
    configs = (*given, *(attacks_of(named, **settings) if named or settings else ()))
    by = judges_of(judges, prompts.name)[0]
    made: list[AttackSet] = []
    left: list[str] = []
    for config in configs:
        try:
            config = _with_target(config, prompts, left)
            made.append(escalated(pair, prompts, config, by, gate=gate, store=store)[1])
        except PromptError as error:
            left.append(f"{config.family} is left out: {error}")
    if lookalikes is not None:
        lookalikes = _alike(lookalikes)
        first = configs[0] if configs else room.NoAttack()
        shared: dict[str, Any] = {k: getattr(first, k) for k in ("max_tokens", "system_prompt", "seed")}
        asked = room.NoAttack(labels=("lookalike",), **shared)
        made.append(room.attack(pair, lookalikes, asked, store=store))
    if not made:
        raise PromptError(f"zero prompts are left: {' '.join(left) or 'name at least one attack.'}")
    if not any(a.label != "unlabelled" for s in made for a in s.attempts):
        raise PromptError(
            f"all prompts of {prompts.name!r} are unlabelled, and a rate needs to know which are harmful: give label "
            "(for all rows) or label_column when you load them"
        )
    with Progress(None, 0, "") as progress:
        for note in left:
            progress.note(note)
    missing = {**made[0].run.resolved, "missing": tuple(left)} if left else made[0].run.resolved
    run = dataclasses.replace(made[0].run, resolved=missing)
    return (dataclasses.replace(made[0], run=run, notes=(*made[0].notes, *left)), *made[1:])


def _with_target(config: AttackConfig, prompts: PromptSet, notes: list[str]) -> AttackConfig:
    """Return the attack with targets by the base model where no prompt that it attacks has a response of its own."""
    attacked = [p for p in prompts if config.labels is None or p.label in config.labels]
    if not (isinstance(config, TargetedConfig) and config.target == "given") or any(p.response for p in attacked):
        return config
    if attacked and isinstance(config, Prefill) and set(config.k) == {0}:
        return config
    if attacked:
        notes.append(
            f"{config.family}: no prompt of {prompts.name!r} that it attacks has a response, so the base model's own "
            f"continuation of {config.opening!r} is given instead"
        )
    return dataclasses.replace(config, target="base")


def _alike(prompts: PromptSet) -> PromptSet:
    """Return the look-alikes of a set; where none is labelled so, all that are not labelled harmful are."""
    if prompts.where(label="lookalike").prompts:
        return prompts
    asked = tuple(dataclasses.replace(p, label="lookalike") for p in prompts if p.label != "harmful")
    return dataclasses.replace(prompts, prompts=asked)


def questions_of(
    names: Sequence[str] | None, pair: str, preset: PaperPreset | str | None = None, **fields: Any
) -> CapabilityConfig | None:
    """Return the capability questions: the named tasks, else those of the paper's table, else the built-in ones.

    The built-in questions are for the embedded pair; None: no task is left. `fields` are CapabilityConfig's. Raises
    NotPresent or UnknownName for a named task that is not available, before any arm answers.
    """
    if names:
        check_tasks(names)
    tasks = paper_preset(preset).tasks if preset is not None else (BUILT_IN,) if pair == EMBEDDED else ()
    tasks = tasks if names is None else tuple(names)
    return configured(CapabilityConfig, None, {"tasks": tasks, **fields}) if tasks else None
