"""Attacks: what is sent to a model to make it answer what it should refuse, and the answers of every arm.

attack(pair, prompts, config) -> AttackSet      make the attempts, after a report of their cost
answer(arm, attack_set) -> CompletionSet        let an arm answer them
"""

from __future__ import annotations

from workbench.evaluation.attacks.answer import Arm, ModelArm, answer
from workbench.evaluation.attacks.attack import ATTACKS, attack, attack_config
from workbench.evaluation.attacks.finetuning import BenignTuning, FewHarmfulTuning
from workbench.evaluation.attacks.prefixes import HarmlessPrefill, Insertion, Prefill
from workbench.evaluation.attacks.ranked import RankAssisted
from workbench.evaluation.attacks.requests import Decoding, NoAttack, Template
from workbench.evaluation.attacks.suffixes import GCG, RandomSuffix, SuffixSearch, searches
from workbench.evaluation.attacks.task import AttackConfig, Cost
from workbench.evaluation.attacks.templates import TEMPLATES, JailbreakTemplate, read_templates
from workbench.tracing.suffix.search import BUDGETS, Budget

__all__ = [
    "ATTACKS", "BUDGETS", "GCG", "TEMPLATES", "Arm", "AttackConfig", "BenignTuning", "Budget",
    "Cost", "Decoding", "FewHarmfulTuning", "HarmlessPrefill", "Insertion", "JailbreakTemplate", "ModelArm", "NoAttack",
    "Prefill", "RandomSuffix", "RankAssisted", "SuffixSearch", "Template",
    "answer", "attack", "attack_config", "read_templates", "searches",
]  # fmt: skip
