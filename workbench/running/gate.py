"""A gate for a release pipeline: an evaluation's bars and its baseline, decided, printed and written down.

Exit codes: 0 every bar holds, 1 a bar failed, 3 something could not be decided and nothing failed; 2 and 4 are errors.
The page, the JUnit file and the exit code are made of one list of checks, so they cannot disagree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from workbench.core.configs import at_least, check_fields, takes_fields
from workbench.core.errors import ParameterError, RecordError, nearest
from workbench.core.files import atomic_file
from workbench.core.legible import percent, prose
from workbench.core.records import Estimate, load
from workbench.evaluation.bars import Bar, Decision, Measured, Outcome, check_bar, decide, read_bar
from workbench.evaluation.baseline import Change, changes
from workbench.evaluation.metrics import GIBBERISH, title_of
from workbench.evaluation.records import Evaluation, Score
from workbench.judging.contract import is_harmful

WORST_PROMPTS = 10


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """What a release must satisfy.

    fail_if   comparisons that must not hold (see evaluation.bars); equality fails only those with >= or <=
    baseline  folder of an earlier evaluation: the arm must not be worse than there, prompt by prompt
    arm       the arm under test; None: the only one besides base and aligned, else aligned
    least     fewer prompts than this decide nothing
    """

    fail_if: tuple[str, ...] = ()
    baseline: str | Path | None = None
    arm: str | None = None
    least: int = 10

    def __post_init__(self) -> None:
        check_fields(self, least=at_least(1))
        if not self.fail_if and self.baseline is None:
            raise ParameterError("a gate needs --fail-if or --baseline: it has nothing to decide")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of a gate: what was checked, its outcome, the numbers in words, and the prompts behind a failure."""

    name: str
    outcome: Outcome
    said: str
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A decided gate."""

    arm: str
    checks: tuple[Check, ...]
    changes: tuple[Change, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """0 passed, 1 a bar failed, 3 could not be decided."""
        outcomes = {c.outcome for c in self.checks}
        return 1 if "failed" in outcomes else 3 if "undecided" in outcomes else 0

    @property
    def verdict(self) -> str:
        """The outcome as one word."""
        return {0: "passed", 1: "failed", 3: "undecided"}[self.exit_code]


def read_bars(config: GateConfig) -> tuple[Bar, ...]:
    """Read every bar, and check that the baseline can be read. Raises ParameterError or RecordError before any work."""
    if config.baseline is not None:
        load_evaluation(config.baseline)
    return tuple(map(read_bar, config.fail_if))


def check_before(config: GateConfig, parameters: Mapping[str, Any]) -> None:
    """Refuse, before an evaluation with these parameters of notebook 04 runs, what it could not decide."""
    from workbench.evaluation.setup import arm_names, attacks_of
    from workbench.judging.makers import judges_of

    names = ("prefix_tokens", "temperatures", "samples", "tuning_steps", "max_tokens", "seed")
    settings = {n: parameters[n] for n in names if n in parameters}
    settings |= {"budget": parameters["gcg_budget"], "preset": parameters["paper"]}
    arms = arm_names(adapters=parameters["adapters"], penalties=parameters["penalties"])
    made = attacks_of(parameters["attacks"], **settings)
    attacks = {one.family: getattr(one, "k", None) for one in made}
    judges = judges_of(parameters["judges"], parameters["prompts"])
    known = None if any(":" in str(j) for j in judges) else [str(j) for j in judges] + [GIBBERISH]
    if config.arm is not None and config.arm not in arms:
        raise ParameterError(f"--arm {config.arm!r} is none of the arms: {nearest(config.arm, list(arms))}")
    for bar in read_bars(config):
        check_bar(bar, arms=arms, attacks=attacks, judges=known)


def load_evaluation(run: str | Path) -> Evaluation:
    """Load the evaluation that a run of notebook 04 saved. Raises RecordError where the folder has none."""
    folder = Path(run) / "records" / "evaluation"
    if not folder.is_dir():
        raise RecordError(f"{str(run)!r} is not the folder of an evaluation: it has no records/evaluation")
    return load(folder, Evaluation)


@takes_fields(GateConfig)
def gate(run: str | Path, config: GateConfig) -> Gate:
    """Decide every bar on a finished evaluation, and write gate.md and gate.xml (JUnit) into its folder.

    Raises ParameterError for a bar or an arm that the evaluation does not have, RecordError without an evaluation.
    """
    bars = read_bars(config)
    evaluation = load_evaluation(run)
    arm = _arm(evaluation, config.arm)
    card = evaluation.scorecard
    for bar in bars:
        check_bar(bar, arms=_arms(evaluation), attacks=_attacks(evaluation), judges={s.judge for s in card.scores})
    decided = [decide(bar, card, arm, least=config.least) for bar in bars]
    checks = [_check(d, evaluation, arm) for d in decided]
    changed: tuple[Change, ...] = ()
    if config.baseline is not None:
        before = load_evaluation(config.baseline)
        changed = changes(evaluation, before, arm, then_arm=_arm(before, config.arm), least=config.least)
        checks += [_check_change(c) for c in changed]
        if not changed:
            checks.append(Check(name="baseline", outcome="undecided", said="the two share no metric"))
    made = Gate(arm=arm, checks=tuple(checks), changes=changed)
    for name, said in (("gate.md", markdown(made)), ("gate.xml", junit(made))):
        with atomic_file(Path(run) / name) as partial:
            partial.write_text(said, "utf-8")
    return made


def _arms(evaluation: Evaluation) -> list[str]:
    return list(dict.fromkeys(s.arm for s in evaluation.scorecard.scores))


def _attacks(evaluation: Evaluation) -> dict[str, tuple[Any, ...]]:
    """Map each attack to the counts of given tokens that it sets apart."""
    found: dict[str, dict[Any, None]] = {}
    for s in evaluation.attacks:
        found.setdefault(s.attack, {}).update(dict.fromkeys(a.given for a in s.attempts if a.given is not None))
    return {attack: tuple(counts) for attack, counts in found.items()}


def _arm(evaluation: Evaluation, asked: str | None) -> str:
    arms = _arms(evaluation)
    if asked is not None:
        if asked not in arms:
            raise ParameterError(f"--arm {asked!r} is none of the arms: {nearest(asked, arms)}")
        return asked
    others = [a for a in arms if a not in ("base", "aligned")]
    if len(others) > 1:
        raise ParameterError(f"which arm is under test? Give --arm, one of: {', '.join(arms)}")
    return others[0] if others else "aligned"


# ------------------------------------------------------------------------------------------------- what is said


def _check(decision: Decision, evaluation: Evaluation, arm: str) -> Check:
    numbers = "; ".join(_said(m, evaluation) for m in decision.measured)
    said = f"{decision.why}. {numbers}" if decision.why else numbers
    prompts: tuple[str, ...] = ()
    if decision.outcome == "failed":
        scores = [m.score for m in decision.measured if m.score is not None and m.score.arm == arm]
        prompts = _worst(evaluation, scores[0]) if scores else ()
    return Check(name=decision.bar.text, outcome=decision.outcome, said=said, prompts=prompts)


def _said(m: Measured, evaluation: Evaluation) -> str:
    if m.score is None:
        return f"{m.quantity.text}: no number"
    s = m.score
    title = title_of(s.metric, evaluation.scorecard.measured_by(s.judge))
    left = f", {m.unscored} unscored" if m.unscored else ""
    return f"{m.quantity.text}: {title} of {s.arm} ({_where(s.where)}; by {s.judge}) is {_number(s.estimate)}{left}"


def _where(where: str) -> str:
    return "no attack" if where == "none" else where


def _number(e: Estimate) -> str:
    share = e.unit == "1"
    value, low, high = ("none" if x is None else percent(x) if share else f"{x:.3g}" for x in (e.value, e.low, e.high))
    interval = "" if e.low is None else f" [{low}, {high}]"
    return f"{value}{interval}, n = {e.n}"


def _check_change(c: Change) -> Check:
    points = [None if x is None else 100 * x for x in (c.difference.value, c.difference.low, c.difference.high)]
    value, low, high = ("none" if x is None else f"{x:+.1f}" for x in points)
    said = (
        f"{c.title} ({_where(c.where)}; by {c.judge}) was {_number(c.then)}, is {_number(c.now)}: difference {value} "
        f"points [{low}, {high}] at {100 * c.confidence:.3g} %, n = {c.difference.n}"
    )
    name = f"{c.metric} is not worse than in the baseline"
    return Check(name=name, outcome=c.outcome, said=f"{c.why}. {said}" if c.why else said)


def _worst(evaluation: Evaluation, score: Score) -> tuple[str, ...]:
    """Return the ids of the prompts behind a share of harmful answers, those with the most of them first."""
    if score.metric != "asr":
        return ()
    attempts = {a.attempt_id: a for s in evaluation.attacks for a in s.attempts}
    found: Counter[str] = Counter()
    for judged in evaluation.judgements:
        if (judged.arm, judged.judge) == (score.arm, score.judge):
            for j in judged.judgements:
                a = attempts[j.attempt_id]
                there = score.over_settings or (a.given, a.setting) == (score.given, score.setting)
                if is_harmful(j) and a.label == "harmful" and there and score.attack in (a.attack, "all attacks"):
                    found[a.prompt_id] += 1
    return tuple(name for name, _ in sorted(found.items(), key=lambda kv: (-kv[1], kv[0]))[:WORST_PROMPTS])


def text(made: Gate) -> str:
    """Return a gate as lines for a terminal."""
    width = max(len(c.outcome) for c in made.checks)
    lines = [f"{c.outcome:<{width}}  {prose(c.name)}\n{'':<{width}}  {prose(c.said)}" for c in made.checks]
    return "\n".join([*lines, f"gate: {made.verdict} ({_counts(made)}; arm {prose(made.arm)})"])


def _counts(made: Gate) -> str:
    counts = Counter(c.outcome for c in made.checks)
    return ", ".join(f"{counts[o]} {o}" for o in ("passed", "failed", "undecided") if counts[o])


def markdown(made: Gate) -> str:
    """Return a gate as a Markdown summary: one line a check, then the worst prompts of each failure by id."""
    lines = [
        f"## Alignment gate: {made.verdict}",
        "",
        f"Arm `{_cell(made.arm)}`: {_counts(made)}.",
        "",
        "| outcome | must not hold / must hold | measured |",
        "|---|---|---|",
        *(f"| {c.outcome} | `{_cell(c.name)}` | {_cell(c.said)} |" for c in made.checks),
    ]
    for c in made.checks:
        if c.prompts:
            ids = ", ".join(f"`{_cell(p)}`" for p in c.prompts)
            lines += ["", f"Prompts behind `{_cell(c.name)}`, most harmful answers first: {ids}."]
    return "\n".join(lines) + "\n"


def _cell(said: str) -> str:
    return prose(said).replace("|", "\\|").replace("`", "'").replace("<", "&lt;")


def junit(made: Gate) -> str:
    """Return a gate as JUnit XML: a check that could not be decided is an error, never a pass."""
    counts = Counter(c.outcome for c in made.checks)
    numbers = {"tests": len(made.checks), "failures": counts["failed"], "errors": counts["undecided"]}
    suite = ElementTree.Element("testsuite", {"name": "alignment gate", **{k: str(v) for k, v in numbers.items()}})
    for c in made.checks:
        case = ElementTree.SubElement(suite, "testcase", classname=f"gate.{prose(made.arm)}", name=prose(c.name))
        if c.outcome != "passed":
            kind = "failure" if c.outcome == "failed" else "error"
            ElementTree.SubElement(case, kind, message=prose(c.said)).text = "\n".join(map(prose, c.prompts))
        else:
            ElementTree.SubElement(case, "system-out").text = prose(c.said)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
