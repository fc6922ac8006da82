"""Make the records of an evaluation for tests: attempts, completions and judgements with known results, no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tests.trace_makers import run_record
from workbench.core.records import Estimate, Given, Label
from workbench.evaluation.metrics import EvaluateConfig
from workbench.evaluation.records import (
    Answer,
    AttackSet,
    Attempt,
    CapabilitySet,
    Completion,
    CompletionSet,
    Evaluation,
    TaskScore,
)
from workbench.evaluation.scorecard import sum_up
from workbench.judging.records import Gibberish, GibberishSet, Judgement, JudgementSet, Measures, Verdict


def attempts(
    n: int,
    *,
    attack: str = "prefill",
    where: Sequence[Given | str | None] = (5,),
    samples: int = 1,
    label: Label = "harmful",
    categories: Sequence[str | None] = (None,),
    prompt_set: str = "made up",
    tokenizer: str = "abc",
) -> AttackSet:
    """Make n prompts under one attack, under each of `where` (given tokens, or a setting), with so many samples."""
    made = [
        Attempt(
            attempt_id=f"{prompt_set}/{attack}/{at}/{label}-{i}/{s}",
            attack=attack,
            given=at if isinstance(at, int) or at == "full" else 0,  # type: ignore[arg-type]
            setting=at if isinstance(at, str) and at != "full" else None,
            prompt_id=f"{label}-{i}",
            label=label,
            category=categories[i % len(categories)],
            pair_id=None,
            request=f"request {i}",
            messages=(("user", f"request {i}"),),
            prefix_ids=(1, 2),
            prefix="Sure,",
            max_tokens=16,
            temperature=0.0 if samples == 1 else 1.0,
            top_p=1.0,
            top_k=0,
            sample=s,
            seed=s,
        )
        for at in where
        for i in range(n)
        for s in range(samples)
    ]
    return AttackSet(
        run=run_record("attack"), attack=attack, prompt_set=prompt_set, classroom_safe=True, tokenizer=tokenizer,
        attempts=tuple(made), cost={"queries": 0.0, "seconds": 0.1}, notes=(),
    )  # fmt: skip


def completions(source: AttackSet, arm: str, *, tokenizer: str | None = None, text: str = "an answer") -> CompletionSet:
    """Let an arm answer every attempt with the same text."""
    resolved = {} if tokenizer is None else {"tokenizer": tokenizer}
    done = [
        Completion(attempt_id=a.attempt_id, ids=(3, 4), text=f"{text} to {a.prompt_id}", stop="end")
        for a in source.attempts
    ]
    return CompletionSet(run=run_record("complete", **resolved), arm=arm, completions=tuple(done))


def evaluation(
    attacks: Sequence[AttackSet],
    answers: Sequence[CompletionSet],
    judgements: Sequence[JudgementSet],
    config: EvaluateConfig | None = None,
    *,
    gibberish: Sequence[GibberishSet] = (),
    capability: Sequence[CapabilitySet] = (),
) -> Evaluation:
    """Sum made-up steps up, and return them together."""
    return Evaluation(
        run=run_record("evaluate"), attacks=tuple(attacks), answers=tuple(answers), judgements=tuple(judgements),
        gibberish=tuple(gibberish), capability=tuple(capability),
        scorecard=sum_up(attacks, answers, judgements, config, gibberish=gibberish, capability=capability),
    )  # fmt: skip


Said = Callable[[Attempt], float | Verdict | str | tuple[float, Verdict]]
"""What a judge says of an attempt: a score, a verdict, both, or (any other text) the reason why neither."""


def judgements(
    source: AttackSet, arm: str, said: Said, *, judge: str = "exact", version: str = "1",
    measures: Measures = "attack success",
) -> JudgementSet:  # fmt: skip
    """Judge an arm's completions by a function of the attempt."""

    def one(a: Attempt) -> Judgement:
        found = said(a)
        p = found if isinstance(found, float) else found[0] if isinstance(found, tuple) else None
        verdicts = ("refusal", "partial", "compliance", "other")
        word = found[1] if isinstance(found, tuple) else found
        verdict = word if word in verdicts else None
        reason = word if isinstance(word, str) and verdict is None else None
        return Judgement(attempt_id=a.attempt_id, p_harmful=p, verdict=verdict, unscored=reason)  # type: ignore[arg-type]

    return JudgementSet(
        run=run_record("judge"), judge=judge, version=version, measures=measures, arm=arm,
        judgements=tuple(map(one, source.attempts)),
    )  # fmt: skip


def gibberish(source: AttackSet, arm: str, said: Callable[[Attempt], bool | None]) -> GibberishSet:
    """Say of every completion whether it is gibberish; None is an empty one."""
    found = [
        Gibberish(
            attempt_id=a.attempt_id, gibberish=said(a), unscored="there is no text" if said(a) is None else None,
            distinct_trigrams=None, loop=None, compression=None, perplexity=None,
        )
        for a in source.attempts
    ]  # fmt: skip
    return GibberishSet(run=run_record("find_gibberish"), version="1", arm=arm, found=tuple(found))


def index(a: Attempt) -> int:
    """Return the number that a made-up prompt has."""
    return int(a.prompt_id.rpartition("-")[2])


def first(count: int) -> Said:
    """Say compliance of the first so many prompts, refusal of the others."""
    return lambda a: (1.0, "compliance") if index(a) < count else (0.0, "refusal")


def capability(
    arm: str, right: Mapping[str, Sequence[int]], *, template: str = "chat template", chance: float | None = None
) -> CapabilitySet:
    """Make an arm's answers: task -> 1 or 0 for each question."""
    scores, answers = [], []
    for task, given in right.items():
        share = sum(given) / len(given)
        scores.append(
            TaskScore(
                group=task,
                task=task,
                metric="acc",
                variant="none",
                estimate=Estimate(
                    value=share, low=max(0.0, share - 0.1), high=min(1.0, share + 0.1), n=len(given), unit="1"
                ),
                stderr=0.01,
                higher_is_better=True,
                shots=0,
                version="1",
                chance=chance,
            )
        )
        answers += [
            Answer(
                group=task,
                task=task,
                question_id=str(i),
                question="?",
                expected="a",
                given="a" if x else "b",
                score=float(x),
            )
            for i, x in enumerate(given)
        ]
    return CapabilitySet(
        run=run_record("measure_capability"), arm=arm, harness="lm-eval 0", template=template, scores=tuple(scores),
        answers=tuple(answers), notes=(),
    )  # fmt: skip
