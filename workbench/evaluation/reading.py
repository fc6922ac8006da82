"""Completions as prompts with their responses, to be traced and read token by token."""

from __future__ import annotations

from workbench.core.errors import PromptError
from workbench.evaluation.records import Evaluation
from workbench.judging.contract import is_harmful
from workbench.prompts.loading import Prompt, PromptSet


def told_prompts(evaluation: Evaluation, *, arm: str, attack: str | None = None, limit: int = 3) -> PromptSet:
    """Return some of an arm's completions as prompts with their whole responses, those that succeed first.

    A response is prefix and answer: `wb.trace` walks both models along it, and the token views show each token's odds.
    The text is encoded anew, so that a token at the seam may differ. `attack` None: any. Raises PromptError where the
    arm has no such completion.
    """
    known = {a.attempt_id: (a, s) for s in evaluation.attacks for a in s.attempts}
    first = next((j.judge for j in evaluation.judgements), None)
    harmful = {
        j.attempt_id
        for s in evaluation.judgements
        if (s.judge, s.arm) == (first, arm)
        for j in s.judgements
        if j.attempt_id in known and known[j.attempt_id][0].label == "harmful" and is_harmful(j)
    }
    found = [
        (*known[c.attempt_id], c)
        for s in evaluation.answers
        if s.arm == arm
        for c in s.completions
        if c.attempt_id in known and c.text.strip() and attack in (None, known[c.attempt_id][0].attack)
    ]
    if not found:
        which = "" if attack is None else f" under {attack!r}"
        raise PromptError(f"arm {arm!r} has no completion{which} to read")
    chosen = sorted(found, key=lambda f: (f[0].attempt_id not in harmful, f[0].label != "harmful"))[:limit]
    prompts = []
    for n, (a, _, c) in enumerate(chosen):
        *turns, (_, text) = a.messages
        prompts.append(
            Prompt(
                id=f"{n + 1}: {a.prompt_id}, {a.where}",
                prompt=text,
                label=a.label,
                response=a.prefix + c.text,
                category=a.category,
                messages=tuple(turns) or None,
            )
        )
    return PromptSet(
        name=f"answers of {arm}",
        source="evaluation",
        prompts=tuple(prompts),
        classroom_safe=all(s.classroom_safe for _, s, _ in chosen),
    )
