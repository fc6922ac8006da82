"""The escalation of an attack that is too weak on aligned: stronger forms of it, within the budget of its config."""

from __future__ import annotations

from dataclasses import replace

from workbench.core.errors import ContextOverflow, PromptError
from workbench.core.legible import percent
from workbench.core.store import Store
from workbench.evaluation.attacks import AttackConfig, ModelArm, answer, attack
from workbench.evaluation.metrics import EvaluateConfig
from workbench.evaluation.records import AttackSet
from workbench.evaluation.scorecard import sum_up
from workbench.judging.judging import judge
from workbench.judging.makers import AnyJudge
from workbench.models.pair import ModelPair
from workbench.prompts.loading import PromptSet


def escalated(
    pair: ModelPair,
    prompts: PromptSet,
    config: AttackConfig,
    by: AnyJudge,
    *,
    gate: float = EvaluateConfig.gate,
    store: Store | None = None,
) -> tuple[AttackConfig, AttackSet]:
    """Make an attack, and stronger forms of it while it succeeds on aligned with less than `gate` of the prompts.

    Return the last form and its attempts, which every arm answers: `escalations` counts the steps, and notes give what
    each weaker form reached. Aligned answers each form; with a `store`, `evaluate` finds these answers there. Nothing
    is asked of an attack without a stronger form, or whose budget `config.escalations` is 0. Raises what `attack`,
    `answer` and `judge` raise.
    """
    store = Store.of(store)
    made, notes = attack(pair, prompts, config, store=store), list[str]()
    for step in range(1, config.escalations + 1):
        if (next_form := config.stronger()) is None:
            break
        reached = _success(pair, made, by, store)
        if reached is None or reached >= gate:
            break
        try:
            stronger = attack(pair, prompts, next_form, store=store)
        except (ContextOverflow, PromptError) as error:
            notes.append(f"no stronger form fits: {error}")
            break
        notes.append(f"made stronger: it reached {percent(reached)} on aligned, under {percent(gate)}.")
        config, made = next_form, replace(stronger, escalations=step)
    return config, replace(made, notes=(*made.notes, *notes))


def _success(pair: ModelPair, made: AttackSet, by: AnyJudge, store: Store) -> float | None:
    """Return the share of prompts on which any attempt succeeds on aligned; None where no prompt is scored."""
    done = answer(ModelArm(pair=pair, which="aligned"), made, store=store)
    judged = judge(done.samples(made), by, arm=done.arm, store=store, what=None)
    found = sum_up([made], [done], [judged]).strengths
    return found[0].success.value if found else None
