"""Who judges where nobody is named: the exact judge of the embedded world, else the rules for refusals."""

from __future__ import annotations

from workbench.judging.config import JudgeConfig, judge_of
from workbench.judging.contract import Judge
from workbench.prompts.loading import PromptSet


def default_judge(prompts: PromptSet, asked: Judge | JudgeConfig | str | None) -> Judge:
    """Return the judge that was asked for; where none was: "exact" for the embedded prompts, else "refusal"."""
    how = asked if asked is not None else "exact" if prompts.name == "embedded" else "refusal"
    return judge_of(how) if isinstance(how, JudgeConfig | str) else how
