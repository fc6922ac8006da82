"""Records of an evaluation: attempts, completions, capability, scorecard, sweeps of penalties, comparisons of arms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Float32, Int32

from workbench.core.errors import ParameterError, PromptError, nearest
from workbench.core.passages import Sample
from workbench.core.records import Estimate, Given, Label, Record, Row, RunRecord, where_words
from workbench.judging.contract import is_harmful
from workbench.judging.records import GibberishSet, JudgementSet, Measures
from workbench.prompts.loading import Prompt, PromptSet

KNOWS_RIGHT = ("exact",)
"""Judges whose compliance, on a harmless prompt, means that the answer is right."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Attempt(Record):
    """One prompt under one attack: everything that is sent to a model.

    `attempt_id` is a hash of the content. `attack` is the family (none, prefill, gcg, ...). `given` is the number of
    response tokens that the attack gives ("full": the whole target; None: it differs from prompt to prompt), `setting`
    is what else it sets (a template's name, "t=0.7 p=1 k=0"). `request` is the prompt before the attack, which a judge
    reads. `messages` are (role, text), the system prompt included. `prefix_ids` are the given response tokens, which
    are not judged; `prefix` is their text. `sample` numbers repeated draws from 0; `seed` is the seed of this draw.
    """

    attempt_id: str
    attack: str
    given: Given | None
    setting: str | None
    prompt_id: str
    label: Label
    category: str | None
    pair_id: str | None
    request: str
    messages: tuple[tuple[str, str], ...]
    prefix_ids: tuple[int, ...]
    prefix: str
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    sample: int
    seed: int

    @property
    def where(self) -> str:
        """The attack with its setting in words."""
        return where_words(self.attack, self.given, self.setting, None)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackSet(Record):
    """The attempts of one attack on a prompt set, and what it cost to make them.

    `cost` names each cost with its unit ("forward_passes", "queries", "seconds"). `notes` say what was left out or
    generated, with counts. `tokenizer` is the hash of the tokenizer that `prefix_ids` belong to. `escalations` counts
    the weaker forms that were tried on aligned before; `run.asked` has the settings of this one.
    """

    run: RunRecord
    attack: str
    prompt_set: str
    classroom_safe: bool
    tokenizer: str
    attempts: tuple[Attempt, ...]
    cost: Mapping[str, float]
    notes: tuple[str, ...]
    escalations: int = 0


Attempts = AttackSet | Sequence[AttackSet] | Sequence[Attempt]
"""Where attempts are taken from: one attack set, several, or the attempts themselves."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Completion(Record):
    """One arm's answer to one attempt: the tokens after the prefix, their text, and why they ended."""

    attempt_id: str
    ids: tuple[int, ...]
    text: str
    stop: Literal["end", "length", "stop"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CompletionSet(Record):
    """One arm's completions of attempts, in the attempts' order."""

    run: RunRecord
    arm: str
    completions: tuple[Completion, ...]
    notes: tuple[str, ...] = ()

    def answered(self, attempts: Attempts) -> list[tuple[Attempt, Completion]]:
        """Return each completion with its attempt, in the completions' order.

        Raises ParameterError, with both counts, when a completion's attempt is not among the attempts.
        """
        known: dict[str, Attempt] = {}
        for one in (attempts,) if isinstance(attempts, AttackSet) else attempts:
            known |= {a.attempt_id: a for a in (one.attempts if isinstance(one, AttackSet) else (one,))}
        strange = [c.attempt_id for c in self.completions if c.attempt_id not in known]
        if strange:
            raise ParameterError(
                f"{len(strange)} of {len(self.completions)} completions of arm {self.arm!r} answer attempts that are "
                f"not among the {len(known)} given (the first is {strange[0]!r}): give the attack sets that they were "
                "made from"
            )
        return [(known[c.attempt_id], c) for c in self.completions]

    def samples(self, attempts: Attempts) -> list[Sample]:
        """Return what a judge may read of each completion, in their order. Raises what `answered` raises."""
        return [
            Sample(id=a.attempt_id, request=a.request, prefix=a.prefix, text=c.text, label=a.label, category=a.category)
            for a, c in self.answered(attempts)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """The place of one number: its metric, the arm, the prompts' label, the attack with its setting, and the judge.

    `label` is None for capability's questions. `given` is the number of given response tokens ("full": the whole
    target); None where it differs or nothing is attacked. `setting` is what else the attack sets; of capability, the
    task. `worst_of`: the number counts a prompt where any of its attempts succeeds, this many at most; None: one each.
    """

    arm: str
    label: Label | None
    attack: str
    given: Given | None
    setting: str | None
    judge: str
    metric: str
    worst_of: int | None

    def place(self, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return these fields by name."""
        return {f.name: getattr(self, f.name) for f in fields(Place) if f.name not in without}

    @property
    def where(self) -> str:
        """The attack with its setting in words."""
        return where_words(self.attack, self.given, self.setting, self.worst_of)

    @property
    def over_settings(self) -> bool:
        """Whether the worst case is over several settings of an attack, or over several attacks."""
        return self.worst_of is not None and self.given is None and self.setting is None


P = TypeVar("P", bound=Place)


def select(numbers: Iterable[P], metric: str | None = None, **where: Any) -> list[P]:
    """Return the numbers of a metric whose fields are those given: `arm="aligned", given=5`; None is a value too.

    Categories are left out where none is asked for. Raises ParameterError for a field that numbers do not have.
    """
    known = [f.name for f in fields(Score)]
    for name in where:
        if name not in known:
            raise ParameterError(f"numbers have no field {name!r}: {nearest(name, known)}")
    asked = {"category": None, **where} | ({} if metric is None else {"metric": metric})
    return [x for x in numbers if all(getattr(x, k, None) == v for k, v in asked.items())]


def the_one(numbers: Iterable[P], metric: str, **where: Any) -> P:
    """Return the only number that `select` finds.

    Raises ParameterError where it finds none, or several: then it lists the fields in which those differ.
    """
    numbers = list(numbers)
    found = select(numbers, metric, **where)
    if len(found) == 1:
        return found[0]
    asked = ", ".join([repr(metric), *(f"{k}={v!r}" for k, v in where.items())])
    if not found:
        names = list(dict.fromkeys(x.metric for x in numbers))
        if metric not in names:
            raise ParameterError(f"metric {metric!r} was not measured: {nearest(metric, names)}")
        raise ParameterError(f"no number fits ({asked}): {_choices(select(numbers, metric))}")
    raise ParameterError(f"{len(found)} numbers fit ({asked}); say which: {_choices(found)}")


def _choices(numbers: Sequence[Place]) -> str:
    """List the fields in which numbers differ, with their values."""
    values = {f.name: list(dict.fromkeys(getattr(x, f.name) for x in numbers)) for f in fields(Place)}
    return "; ".join(f"{k}={' or '.join(map(repr, v))}" for k, v in values.items() if len(v) > 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Score(Place, Record):
    """One number of a scorecard.

    `category` None is all categories. `unscored` counts, by reason, what `estimate.n` leaves out.
    """

    category: str | None
    estimate: Estimate
    unscored: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison(Place, Record):
    """Two arms on the same prompts: `difference` is arm minus against, with McNemar's exact p.

    `p_holm` is corrected over the whole table. `only_arm` and `only_against` count the discordant prompts. `n_needed`
    is about how many prompts a test of power 0.8 would need if the observed difference were the true one: power at the
    observed effect. None where the difference is significant or 0, and over several seeds. There p is that of the
    two-way bootstrap, and discordant prompts are counted under each seed. `sentence` says it in words.
    """

    against: str
    difference: Estimate
    only_arm: int
    only_against: int
    p_value: float
    p_holm: float
    n_needed: int | None
    sentence: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Strength(Record):
    """The strength of an attack by one judge: its success on the reference arm, over all of its settings.

    `weak`: that is under `gate`, so the attack measures no defence. `escalations` of at most `budget` stronger forms
    were tried before this one.
    """

    attack: str
    arm: str
    judge: str
    success: Estimate
    gate: float
    weak: bool
    escalations: int
    budget: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Scorecard(Record):
    """The numbers of an evaluation with their intervals, the comparisons, and what can be concluded from them.

    `measures` says of each judge what its `asr` is, `strengths` whether each attack is strong enough to measure a
    defence, `at_chance` names the tasks on which the reference arm may be guessing.
    """

    run: RunRecord
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    measures: Mapping[str, Measures] = field(default_factory=dict)
    strengths: tuple[Strength, ...] = ()
    at_chance: tuple[str, ...] = ()

    def measured_by(self, judge: str | None) -> Measures:
        """Return what a judge's `asr` is."""
        return self.measures.get(judge or "", "attack success")

    def score(self, metric: str, **where: Any) -> Score:
        """Return the one score that fits, as `estimate` does."""
        return the_one(self.scores, metric, **where)

    def estimate(self, metric: str, **where: Any) -> Estimate:
        """Look a number up: `estimate("asr", arm="aligned", attack="prefill", given=5)`.

        Raises ParameterError where none fits, or several: the message lists what would tell them apart.
        """
        return self.score(metric, **where).estimate


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskScore(Record):
    """One metric of one task. `estimate.value` is the harness's own number, to the digit.

    `group` is the task of the config (a group, or the task itself); a group's own score has `task` == `group`.
    `variant` is the harness's filter ("none", "strict-match", ...). The interval is Wilson's where every answer is
    right or wrong, else a bootstrap over questions. `stderr` is the harness's own, None where it gives none. `chance`
    is the accuracy of guessing among the choices; None where answers are not chosen.
    """

    group: str
    task: str
    metric: str
    variant: str
    estimate: Estimate
    stderr: float | None
    higher_is_better: bool
    shots: int
    version: str
    chance: float | None = None

    @property
    def at_chance(self) -> bool:
        """Whether the interval holds chance: then the task cannot test this model at this n."""
        e = self.estimate
        return None not in (self.chance, e.low, e.high) and e.low <= self.chance <= e.high  # type: ignore[operator]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer(Record):
    """One answered question. `score` is the task's first metric, 1 right, 0 wrong; None where it is another kind.

    `question_id` is a hash of the content, the same for every arm.
    """

    group: str
    task: str
    question_id: str
    question: str
    expected: str
    given: str
    score: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class CapabilitySet(Record):
    """One arm's capability. `template` is the form of the questions: "chat template" or "plain text"."""

    run: RunRecord
    arm: str
    harness: str
    template: str
    scores: tuple[TaskScore, ...]
    answers: tuple[Answer, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation(Record):
    """Several arms and the same attempts: every answer, judgement and gibberish reading, and their scorecard.

    `answers` holds one set for each arm and attack, `judgements` and `gibberish` one for each of these (and judge),
    `capability` one for each arm where it was measured. `agreement` is how far an engine agrees with our generator.
    """

    run: RunRecord
    attacks: tuple[AttackSet, ...]
    answers: tuple[CompletionSet, ...]
    judgements: tuple[JudgementSet, ...]
    gibberish: tuple[GibberishSet, ...]
    capability: tuple[CapabilitySet, ...]
    scorecard: Scorecard
    agreement: tuple[Row, ...] = ()

    def answers_as_prompts(self, *, arm: str, attack: str | None = None, limit: int = 3) -> PromptSet:
        """Return some of an arm's answers as prompts with their whole responses, to be traced; successes come first.

        A response is prefix and answer. Its text is encoded again, so a token where they meet may differ. `attack`
        None: any. Raises PromptError where the arm has no such answer.
        """
        known = {a.attempt_id: (a, s) for s in self.attacks for a in s.attempts}
        first = next((j.judge for j in self.judgements), None)
        judged = (j for s in self.judgements if (s.judge, s.arm) == (first, arm) for j in s.judgements)
        harmful = {j.attempt_id for j in judged if is_harmful(j)}
        found = [
            (*known[c.attempt_id], c)
            for s in self.answers
            if s.arm == arm
            for c in s.completions
            if c.attempt_id in known and c.text.strip() and attack in (None, known[c.attempt_id][0].attack)
        ]
        if not found:
            which = "" if attack is None else f" under {attack!r}"
            raise PromptError(f"arm {arm!r} has no completion{which} to read")
        found.sort(key=lambda f: (f[0].label != "harmful", f[0].label == "harmful" and f[0].attempt_id not in harmful))
        prompts = []
        for n, (a, _, c) in enumerate(found[:limit], 1):
            *turns, (_, text) = a.messages
            about: dict[str, Any] = {"label": a.label, "category": a.category, "messages": tuple(turns) or None}
            named = f"{n}: {a.prompt_id}, {a.where}"
            prompts.append(Prompt(id=named, prompt=text, response=a.prefix + c.text, **about))
        safe = all(s.classroom_safe for _, s, _ in found[:limit])
        return PromptSet(name=f"answers of {arm}", source="evaluation", prompts=tuple(prompts), classroom_safe=safe)


@dataclass(frozen=True, kw_only=True, eq=False)
class Leverage(Record):
    """The probability that one penalty moves, by 1-based position along given responses: means over responses, with n.

    `leverage` is TV(penalised, aligned), 0 to 1, with its interval (NaN where n < 3); `bound` what it would be as the
    strength grows without bound (NaN for SafeDecoding, which has no such limit, and where the shape is 0);
    `changed` the share of responses whose most likely token the penalty changes there; `excess_mass` TV(base, aligned).
    """

    penalty: str
    label: Label
    position: Int32[np.ndarray, "position"]
    leverage: Float32[np.ndarray, "position"]
    low: Float32[np.ndarray, "position"]
    high: Float32[np.ndarray, "position"]
    bound: Float32[np.ndarray, "position"]
    changed: Float32[np.ndarray, "position"]
    excess_mass: Float32[np.ndarray, "position"]
    n: Int32[np.ndarray, "position"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PenaltySweep(Record):
    """A sweep of penalties over prompts and prefix lengths: an evaluation with an arm for each, and what each moves.

    `names` are the arms, aligned without a penalty first, and `penalties` the settings of each. `kl_nats` is each
    penalty's harm to utility: KL(penalised || aligned) along harmless responses, nats per token; empty without them.
    """

    run: RunRecord
    prompt_set: str
    classroom_safe: bool
    judge: str
    names: tuple[str, ...]
    penalties: tuple[Mapping[str, Any], ...]
    evaluation: Evaluation
    kl_nats: tuple[Estimate, ...]
    leverage: tuple[Leverage, ...]
    notes: tuple[str, ...]

    def score(self, penalty: str, metric: str, given: int = 0) -> Score | None:
        """Return a penalty's number after so many given tokens; None where it was not measured."""
        scores = self.evaluation.scorecard.scores
        return next(iter(select(scores, metric, arm=penalty, given=given, worst_of=None)), None)

    def prefix_lengths(self) -> tuple[int, ...]:
        """Return the prefix lengths of the attack, tokens, shortest first."""
        attempts = (a for s in self.evaluation.attacks for a in s.attempts if a.label == "harmful")
        return tuple(sorted({a.given for a in attempts if isinstance(a.given, int)}))

    @property
    def measures(self) -> Measures:
        """What the judge's `asr` is."""
        return self.evaluation.scorecard.measured_by(self.judge)

    @property
    def knows_right(self) -> bool:
        """Whether the judge's compliance, on a harmless prompt, means that the answer is right."""
        return self.judge in KNOWS_RIGHT


@dataclass(frozen=True, kw_only=True, eq=False)
class FrontierPoint(Record):
    """One penalty between safety and utility.

    `asr` is at the prefix length where it is highest, `kl_nats` the harm to utility, nats per token. `dominated_by`
    names a penalty that is at least as good in both and better in one. `fails` says which limits of the rule it breaks.
    """

    penalty: str
    prefix_tokens: int
    asr: Estimate
    kl_nats: Estimate
    dominated_by: str | None
    fails: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class PenaltyChoice(Record):
    """The recommended penalty: its settings, the rule that chose it, and whether the rule's aim was reached.

    `measures` is what the sweep's judge measures, the name of every point's `asr`.
    """

    penalty: str
    settings: Mapping[str, Any]
    reached: bool
    measures: Measures
    rule: str
    points: tuple[FrontierPoint, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class PenaltyCheck(Record):
    """A penalty against aligned on prompts that it was not chosen on: differences with their intervals.

    `asr_reduction` is 1 - ASR / ASR of aligned after `prefix_tokens` given tokens (bootstrap over prompts); the other
    differences are penalised minus aligned on the same prompts, 1 = 100 points. None where a judge cannot tell.
    `holds` is decided by the values, `sure` by the whole intervals.
    """

    penalty: str
    judge: str
    prefix_tokens: int
    asr_aligned: Estimate
    asr: Estimate
    asr_reduction: Estimate
    over_refusal_change: Estimate
    harmless_right_change: Estimate | None
    gibberish_change: Estimate
    refusal_change: Estimate
    p_value: float
    holds: bool
    sure: bool
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class PenaltyLook(Record):
    """The next-token distributions at one position: one column for base, for aligned and for each strength.

    `probability` is (token, column) of the likeliest tokens of any column, `rest` the sum of the others. `leverage` is
    TV(column, aligned), `bound` its largest value at any strength, None where it has no limit. `before` is the response
    so far, and `penalty` describes the penalty in words.
    """

    prompt: str
    label: Label
    classroom_safe: bool
    before: str
    penalty: str
    position: int
    columns: tuple[str, ...]
    token_ids: Int32[np.ndarray, "token"]
    labels: tuple[str, ...]
    probability: Float32[np.ndarray, "token column"]
    rest: Float32[np.ndarray, "column"]
    leverage: Float32[np.ndarray, "column"]
    excess_mass: float
    bound: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmComparison(Record):
    """Training arms with the same budget and attempts: the evaluation of each seed, and all seeds together.

    `scorecard` is over all seeds, its comparisons and sentences too: a value is the mean over seeds, its interval that
    of a two-way bootstrap over seeds and prompts, and n counts prompts. An arm that is the same under every seed has
    the interval of one. `budgets` describes each training,
    `adapters` has its folders in the order of `seeds`, and `leaks` warns of prompts that were trained on.
    """

    run: RunRecord
    prompt_set: str
    classroom_safe: bool
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    budgets: Mapping[str, str]
    adapters: Mapping[str, tuple[str, ...]]
    evaluations: tuple[Evaluation, ...]
    scorecard: Scorecard
    leaks: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmAnswer(Record):
    """One arm's answer after the first `given` tokens of a beginning.

    `pieces` are its tokens' texts (its words, where no model was asked), `refused_at` counts the pieces before the
    sentence that refuses. `kl_nats` is KL(arm || reference) at each token in nats, NaN beyond what was read, and
    `wanted` the arm's likeliest tokens there with their probabilities; both are empty where no model was asked.
    """

    arm: str
    given: int
    pieces: tuple[str, ...]
    verdict: str
    refused_at: int | None = None
    kl_nats: tuple[float, ...] = ()
    wanted: tuple[tuple[tuple[str, float], ...], ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class AskedArms(Record):
    """One prompt, what of a beginning was given, and how every arm went on."""

    prompt_id: str
    prompt: str
    label: Label
    beginnings: Mapping[str, str]
    answers: tuple[ArmAnswer, ...]

    @property
    def givens(self) -> tuple[int, ...]:
        """How many tokens were given, each count once."""
        return tuple(sorted({a.given for a in self.answers}))

    def differs(self, given: int) -> bool:
        """Tell whether the arms' verdicts after so many given tokens differ."""
        return len({a.verdict for a in self.answers if a.given == given}) > 1


@dataclass(frozen=True, kw_only=True, eq=False)
class AnswersBeside(Record):
    """Some prompts as every arm answered them after the same given tokens, side by side.

    `beginnings` of each prompt are keyed by the count of tokens. `reference` is the arm that KL is taken against.
    """

    arms: tuple[str, ...]
    reference: str
    prompt_set: str
    classroom_safe: bool
    asked: tuple[AskedArms, ...]
