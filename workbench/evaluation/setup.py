"""From plain settings (a notebook's parameters, a command line) to arms, attacks, judges, and through the three steps.

Importing this module loads torch: it calls the rooms that run models.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.core.errors import ParameterError, PromptError, UnknownName, nearest
from workbench.core.progress import Progress
from workbench.core.records import Record, Row
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.model import PenalisedModel
from workbench.evaluation import attacks as room
from workbench.evaluation.attacks import Arm, AttackConfig, ModelArm, attack_config, complete
from workbench.evaluation.attacks.engine import EngineArm, engine_arms, greedy_agreement
from workbench.evaluation.attacks.finetuning import KINDS, check_tunable
from workbench.evaluation.attacks.task import as_prompt
from workbench.evaluation.capability import CapabilityConfig, measure_capability
from workbench.evaluation.capability.config import BUILT_IN
from workbench.evaluation.capability.measure import INSTALL, check_tasks, is_installed
from workbench.evaluation.paper import PaperPreset
from workbench.evaluation.records import AttackSet, CapabilitySet, CompletionSet
from workbench.judging.config import JudgeConfig, judge_of
from workbench.judging.gibberish import find_gibberish
from workbench.judging.judging import judge
from workbench.judging.records import GibberishSet, JudgementSet
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet

EMBEDDED = "embedded"
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
    configs: Sequence[AttackConfig],
    *,
    lookalikes: PromptSet | None = None,
    store: Store | None = None,
) -> tuple[AttackSet, ...]:
    """Make the attempts of every attack; one that finds no prompt of its kind is left out, and a note says so.

    `lookalikes` are prompts that look harmful and are not, XSTest's say: of them only those with that label are asked,
    with no attack. Raises PromptError where no attack finds a prompt, and what `attack` raises.
    """
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


def completions_of(
    arms: Sequence[Arm], attacks: Sequence[AttackSet], *, store: Store | None = None
) -> tuple[CompletionSet, ...]:
    """Let every arm answer every attack; see `complete`. Raises before any answer where an arm cannot be fine-tuned."""
    for arm in arms:
        for source in attacks:
            check_tunable(arm, source)
    return tuple(complete(arm, source, store=store) for arm in arms for source in attacks)


def agreement_rows(arms: Sequence[Arm], attacks: Sequence[AttackSet]) -> tuple[Row, ...]:
    """Say how far each arm that an engine runs continues greedily as our generator does, on the first attempts.

    A share of whole continuations and one of tokens, which are said too; no rows where no engine runs.
    """
    asked = [a for source in attacks for a in source.attempts][:AGREE_ON]
    rows = []
    for arm in arms:
        if not isinstance(arm, EngineArm):
            continue
        contexts = [arm.pair.context(as_prompt(a), arm.which) + a.prefix_ids for a in asked]
        found = greedy_agreement(arm, contexts)
        with Progress(None, 0, "") as progress:
            progress.note(f"{arm.name}: {found}")
        for what, share in (("continuations", found.continuations), ("tokens", found.tokens)):
            rows.append(Row.of("greedy_agreement", share, arm=arm.name, setting=what))
    return tuple(rows)


def judges_of(names: Sequence[str] | None, prompts: PromptSet) -> tuple[str, ...]:
    """Return the judges' names: those given, else the refusal rules, and on the embedded world the exact one first.

    Loads none. Raises UnknownName or ParameterError for a name that says no judge, before anything is answered.
    """
    if names is not None:
        for name in names:
            JudgeConfig.named(name)
        return tuple(names)
    return ("exact", "refusal") if prompts.name == EMBEDDED else ("refusal",)


def judgements_of(
    judges: Sequence[str],
    completions: Sequence[CompletionSet],
    attacks: Sequence[AttackSet],
    *,
    store: Store | None = None,
) -> tuple[JudgementSet, ...]:
    """Let every judge read every completion; see `judges.judge`. A judge is loaded once."""
    made = []
    for name in judges:
        one = judge_of(name)
        with Progress(f"{name} judges", sum(len(c.completions) for c in completions), "completions") as progress:
            for done in completions:
                made.append(judge(done, attacks, one, store=store, what=None))
                progress.advance(len(done.completions))
    return tuple(made)


def gibberish_of(
    completions: Sequence[CompletionSet],
    attacks: Sequence[AttackSet],
    *,
    pair: ModelPair | None = None,
    store: Store | None = None,
) -> tuple[GibberishSet, ...]:
    """Say of every completion whether it is gibberish; see `judges.find_gibberish`."""
    made = []
    with Progress("reading for gibberish", sum(len(c.completions) for c in completions), "completions") as progress:
        for done in completions:
            made.append(find_gibberish(done, attacks, pair=pair, store=store, what=None))
            progress.advance(len(done.completions))
    return tuple(made)


def tasks_of(names: Sequence[str] | None, pair_name: str, preset: PaperPreset | None = None) -> tuple[str, ...]:
    """Return the capability tasks: those given, else the paper table's, else the built-in ones on the embedded pair.

    Raises NotPresent or UnknownName for a given task that cannot be asked here, before anything is answered.
    """
    if names is not None:
        if names:
            check_tasks(names)
        return tuple(names)
    if preset is not None:
        return preset.tasks
    return (BUILT_IN,) if pair_name == EMBEDDED else ()


def capability_of(
    arms: Sequence[Arm], config: CapabilityConfig | None, *, store: Store | None = None
) -> tuple[CapabilitySet, ...]:
    """Measure every arm's capability; nothing without tasks (config None), or, said, where there is no harness."""
    if config is None:
        return ()
    if not is_installed():
        with Progress(None, 0, "") as progress:
            progress.note(f"Capability is not measured: lm-evaluation-harness is not installed. {INSTALL}")
        return ()
    return tuple(measure_capability(arm, config, store=store) for arm in arms)


def named_records(
    attacks: Sequence[AttackSet],
    completions: Sequence[CompletionSet],
    judgements: Sequence[JudgementSet],
    gibberish: Sequence[GibberishSet] = (),
    capability: Sequence[CapabilitySet] = (),
) -> Mapping[str, Record]:
    """Name the records of an evaluation for saving: folders that say what they hold, each name once."""
    attack_of = {a.attempt_id: s.attack for s in attacks for a in s.attempts}

    def under(ids: Sequence[str]) -> str:
        return attack_of.get(ids[0], "none") if ids else "none"

    named: list[tuple[str, Record]] = [(f"attempts {s.attack}", s) for s in attacks]
    named += [(f"answers {c.arm} {under([x.attempt_id for x in c.completions])}", c) for c in completions]
    named += [(f"judged {j.judge} {j.arm} {under([x.attempt_id for x in j.judgements])}", j) for j in judgements]
    named += [(f"gibberish {g.arm} {under([x.attempt_id for x in g.found])}", g) for g in gibberish]
    named += [(f"capability {s.arm}", s) for s in capability]
    made: dict[str, Record] = {}
    for name, record in named:
        short = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-_")
        same = sum(known == short or known.startswith(f"{short}--") for known in made)
        made[short if not same else f"{short}--{same + 1}"] = record
    return made
