"""An evaluation: arms answer attempts, judges read the answers, and a scorecard sums them up. Every step is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from workbench.core.configs import takes_fields
from workbench.core.errors import WorkbenchError
from workbench.core.passages import Passage
from workbench.core.progress import Progress
from workbench.core.provenance import Stopwatch
from workbench.core.store import Store
from workbench.evaluation.attacks import Arm, answer
from workbench.evaluation.attacks.answer import check_attackable
from workbench.evaluation.attacks.engine import agreement_rows
from workbench.evaluation.attacks.task import as_prompt
from workbench.evaluation.capability import CapabilityConfig, measure_capability
from workbench.evaluation.capability.measure import INSTALL, is_installed
from workbench.evaluation.metrics import EvaluateConfig
from workbench.evaluation.records import AttackSet, Attempts, CapabilitySet, CompletionSet, Evaluation
from workbench.evaluation.scorecard import sum_up
from workbench.judging.contract import Judge
from workbench.judging.gibberish import find_gibberish
from workbench.judging.judging import judge
from workbench.judging.makers import AnyJudge, judge_of, judges_of
from workbench.judging.records import GibberishSet, JudgementSet
from workbench.models.pair import ModelPair
from workbench.tracing.surprise import mean_surprise

T = TypeVar("T")


@takes_fields(EvaluateConfig)
def evaluate(
    arms: Sequence[Arm],
    attempts: Sequence[AttackSet],
    judges: Sequence[AnyJudge] | None = None,
    *,
    config: EvaluateConfig,
    own: Mapping[str, Sequence[AttackSet]] | None = None,
    capability: CapabilityConfig | None = None,
    store: Store | None = None,
    batch_tokens: int | None = None,
    what: str | None = None,
) -> Evaluation:
    """Let every arm answer every attempt, judge the answers, look for gibberish, and sum up.

    `judges` None: "exact" and "refusal" for the embedded prompts, else "refusal". `own` maps an arm's name to attempts
    that were made against its own model: only that arm answers them. `capability` are questions with a right answer,
    which every arm is asked where lm-evaluation-harness is installed. The base model of the first arm's pair reads for
    gibberish. Each answer, judgement and reading is stored in `store` at once: a killed evaluation resumes there, and
    another arm or judge costs only its own work. `what` names one progress bar for all answers; None: one for each arm
    and attack.

    Raises ParameterError where an attack cannot fine-tune or steer an arm and UnknownName for a judge, before any arm
    answers; and what `answer`, `judge`, `measure_capability` and `sum_up` raise.
    """
    store, own = Store.of(store), own or {}
    judges = judges_of(judges, attempts[0].prompt_set if attempts else "")
    watch = Stopwatch("evaluate", config)
    asked = [(arm, source) for arm in arms for source in (*attempts, *own.get(arm.name, ()))]
    for arm, source in asked:
        check_attackable(arm, source)
    answers, total = [], sum(len(source.attempts) for _, source in asked)
    with Progress(what, total, "answers") as progress:
        tokens = sum(a.max_tokens for _, source in asked for a in source.attempts)
        progress.note(f"{len(arms)} arms: at most {total:,} answers and {tokens:,} tokens.")
        for arm, source in asked:
            answers.append(answer(arm, source, store=store, batch_tokens=batch_tokens, quiet=what is not None))
            progress.advance(len(source.attempts))
    attacks = (*attempts, *(s for sets in own.values() for s in sets))
    pair, judgements = arms[0].pair, list[JudgementSet]()
    for one in map(judge_of, judges):
        by = partial(_judged, one, attacks, store)
        judgements += _of_each(answers, f"{one.name} judges", by)

    def read(done: CompletionSet) -> GibberishSet:
        surprise = mean_surprise(pair, passages_of(pair, done, attacks), store=store)
        return find_gibberish(done.samples(attacks), arm=done.arm, surprise=surprise)

    gibberish = _of_each(answers, "reading for gibberish", read)
    abilities = _capability(arms, capability, store)
    return Evaluation(
        run=watch.record(pair, resolved={"pair": pair.name, "arms": [a.name for a in arms]}, seed=config.seed),
        attacks=attacks,
        answers=tuple(answers),
        judgements=tuple(judgements),
        gibberish=tuple(gibberish),
        capability=tuple(abilities),
        scorecard=sum_up(attacks, answers, judgements, config, gibberish=gibberish, capability=abilities),
        agreement=agreement_rows(arms, attempts),
    )


def passages_of(pair: ModelPair, completions: CompletionSet, attempts: Attempts) -> list[Passage | str]:
    """Return each completion after its prompt and prefix as a passage, or the reason why there is none.

    A completion without token ids (it came from a file) is encoded. Raises what `CompletionSet.answered` raises.
    """
    made: list[Passage | str] = []
    for a, c in completions.answered(attempts):
        try:
            response = a.prefix_ids + (c.ids or pair.encode(c.text))
            made.append(pair.passage(as_prompt(a), response, given=len(a.prefix_ids)))
        except WorkbenchError as error:
            made.append(f"the prompt cannot be given to the base model ({type(error).__name__})")
    return made


def _judged(one: Judge, attacks: Sequence[AttackSet], store: Store, done: CompletionSet) -> JudgementSet:
    return judge(done.samples(attacks), one, arm=done.arm, store=store, what=None)


def _of_each(answers: Sequence[CompletionSet], what: str, read: Callable[[CompletionSet], T]) -> list[T]:
    made = []
    with Progress(what, sum(len(c.completions) for c in answers), "answers") as progress:
        for done in answers:
            made.append(read(done))
            progress.advance(len(done.completions))
    return made


def _capability(arms: Sequence[Arm], config: CapabilityConfig | None, store: Store) -> list[CapabilitySet]:
    if config is not None and not is_installed():
        with Progress(None, 0, "") as progress:
            progress.note(f"Capability is not measured: lm-evaluation-harness is not installed. {INSTALL}")
        return []
    return [] if config is None else [measure_capability(arm, config, store=store) for arm in arms]
