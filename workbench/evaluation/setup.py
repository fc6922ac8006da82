"""From plain settings (a notebook's parameters, a command line) to arms, attempts and capability tasks.

Importing this module loads torch: it calls the rooms that run models.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.core.configs import configured
from workbench.core.errors import ParameterError, PromptError, UnknownName, nearest
from workbench.core.progress import Progress
from workbench.core.records import Row
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.model import PenalisedModel
from workbench.evaluation import attacks as room
from workbench.evaluation.attacks import Arm, AttackConfig, ModelArm, attack_config
from workbench.evaluation.attacks.engine import EngineArm, engine_arms, greedy_agreement
from workbench.evaluation.attacks.finetuning import KINDS
from workbench.evaluation.attacks.task import as_prompt
from workbench.evaluation.capability.config import BUILT_IN, CapabilityConfig
from workbench.evaluation.capability.measure import check_tasks
from workbench.evaluation.paper import PaperPreset
from workbench.evaluation.records import AttackSet
from workbench.judging.makers import EMBEDDED
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet

PREFIXED = ("prefill", "harmless_prefill")
SEARCHED = ("gcg", "random_suffix")
TUNED = tuple(KINDS)
ENGINES = ("transformers", "vllm")
AGREE_ON = 16
"""Contexts on which an engine is held against our own generator."""


def arms_of(
    pair: ModelPair, *, adapters: Sequence[str] = (), penalties: Sequence[float] = (), engine: str = ENGINES[0]
) -> tuple[Arm, ...]:
    """Return the arms of a comparison: base, aligned, aligned with each adapter, aligned under each penalty.

    An adapter's arm has its folder's name, "recovery" say; a penalty's is "penalty 1" (one-sided, of that strength).
    Engine "vllm" continues base and aligned; the other arms stay with our generator. Raises ParameterError where two
    arms would have one name, and what loading an adapter or an engine raises; UnknownName for another engine.
    """
    if engine not in ENGINES:
        raise UnknownName(f"there is no engine {engine!r}: {nearest(engine, ENGINES)}")
    arms: list[Arm] = [ModelArm(pair=pair, which="base"), ModelArm(pair=pair, which="aligned")]
    if engine == "vllm":
        arms = list(engine_arms(pair))
    arms += [ModelArm(pair=pair.with_aligned(a), which="aligned", called=Path(a).name or a) for a in adapters]
    for strength in penalties:
        arms.append(PenalisedModel(pair, PenaltyConfig(strength=strength), name=f"penalty {strength:g}"))
    names = Counter(arm.name for arm in arms)
    if twice := [name for name, n in names.items() if n > 1]:
        raise ParameterError(
            f"two arms are called {twice[0]!r}: rename an adapter's folder, or give each strength once"
        )
    return tuple(arms)


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
    preset: PaperPreset | None = None,
) -> tuple[AttackConfig, ...]:
    """Return the configs of named attacks. `prefix_tokens` are counts and "full", for both kinds of prefill.

    `temperatures` and `samples` are the decoding grid's (top-p 1, no top-k), `budget` is the suffix searches',
    `tuning_steps` are those of the fine-tuning of every arm (None: its own default). A preset
    of the paper puts its own attacks and settings in the place of the same names, and adds those that are missing.
    Raises UnknownName for an attack, ParameterError for a setting, that does not exist.
    """
    own = dict(preset.attacks) if preset is not None else {}
    made = []
    for name in dict.fromkeys((*names, *own)):
        settings: dict[str, Any] = {"max_tokens": max_tokens, "system_prompt": system_prompt, "seed": seed}
        if name in PREFIXED and prefix_tokens:
            settings["k"] = tuple(_length(k) for k in prefix_tokens)
        if name == "decoding" and temperatures:
            settings.update(temperatures=tuple(temperatures), top_ps=(1.0,), top_ks=(0,), samples=samples)
        if name in SEARCHED:
            settings["budget"] = budget
        if name in TUNED and tuning_steps is not None:
            settings["steps"] = tuning_steps
        made.append(attack_config(name, **{**settings, **own.get(name, {})}))
    return tuple(made)


def _length(k: str) -> int | str:
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
    store: Store | None = None,
    **settings: Any,
) -> tuple[AttackSet, ...]:
    """Make the attempts of every attack; one that finds no prompt of its kind is left out, and a note says so.

    `attacks` are configs, or names with the `settings` that `attacks_of` takes (prefix_tokens, max_tokens, ...).
    `lookalikes` are prompts that look harmful and are not, XSTest's say: of them only those with that label are asked,
    with no attack. Raises PromptError where no attack finds a prompt, and what `attack` raises.
    """
    named = [one for one in attacks if isinstance(one, str)]
    given = [one for one in attacks if not isinstance(one, str)]
    configs = (*given, *(attacks_of(named, **settings) if named or settings else ()))
    made: list[AttackSet] = []
    left: list[str] = []
    for config in configs:
        try:
            made.append(room.attack(pair, prompts, config, store=store))
        except PromptError as error:
            left.append(f"{config.family} is left out: {error}")
    if lookalikes is not None:
        first = configs[0] if configs else room.NoAttack()
        asked = room.NoAttack(
            labels=("lookalike",), max_tokens=first.max_tokens, system_prompt=first.system_prompt, seed=first.seed
        )
        made.append(room.attack(pair, lookalikes, asked, store=store))
    if not made:
        raise PromptError(f"zero prompts are left: {' '.join(left) or 'no attack was asked for.'}")
    with Progress(None, 0, "") as progress:
        for note in left:
            progress.note(note)
    return (dataclasses.replace(made[0], notes=(*made[0].notes, *left)), *made[1:])


def agreement_rows(arms: Sequence[Arm], attacks: Sequence[AttackSet]) -> tuple[Row, ...]:
    """Say how far each arm that an engine runs continues greedily as our generator does, on the first attempts.

    A share of whole continuations and one of tokens, which are said too; no rows where no engine runs.
    """
    asked = [a for source in attacks for a in source.attempts][:AGREE_ON]
    rows = []
    for arm in arms:
        if not isinstance(arm, EngineArm):
            continue
        found = greedy_agreement(arm, [arm.pair.passage(as_prompt(a), a.prefix_ids) for a in asked])
        with Progress(None, 0, "") as progress:
            progress.note(f"{arm.name}: {found}")
        for what, share in (("continuations", found.continuations), ("tokens", found.tokens)):
            rows.append(Row.of("greedy_agreement", share, arm=arm.name, setting=what))
    return tuple(rows)


def questions_of(
    names: Sequence[str] | None, pair: str, preset: PaperPreset | None = None, **fields: Any
) -> CapabilityConfig | None:
    """Return which capability questions are asked: the named tasks, else those of the paper's table, else the built-in.

    The built-in questions are for the embedded pair; None where no task is left. `fields` are CapabilityConfig's.
    Raises NotPresent or UnknownName for a named task that cannot be asked here, before anything is answered.
    """
    if names:
        check_tasks(names)
    tasks = preset.tasks if preset is not None else (BUILT_IN,) if pair == EMBEDDED else ()
    tasks = tasks if names is None else tuple(names)
    return configured(CapabilityConfig, None, {"tasks": tasks, **fields}) if tasks else None
