"""An evaluation for papers and other programs: CSV, LaTeX tables, HarmBench completions and Inspect logs.

A HarmBench file is one JSON object for each arm, prompt id -> list of {"test_case", "generation"} with further fields
of ours. An Inspect log (version 2, JSON) is one for each arm, with one sample for each attempt and judges as scorers.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.core.files import atomic_file, legal_names
from workbench.core.records import Row
from workbench.evaluation.metrics import title_of
from workbench.evaluation.records import (
    AttackSet,
    Attempt,
    Completion,
    CompletionSet,
    Evaluation,
    Score,
    Scorecard,
    select,
)
from workbench.evaluation.rows import by_place, evaluation_rows
from workbench.judging.records import Judgement, JudgementSet

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def csv_text(rows: Iterable[Row]) -> str:
    """Return tidy rows as CSV with the columns of results.json; None is an empty field."""
    out = io.StringIO(newline="")
    names = [f.name for f in dataclasses.fields(Row)]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({n: "" if (v := getattr(row, n)) is None else v for n in names})
    return out.getvalue()


def latex_text(text: str) -> str:
    """Escape text for LaTeX."""
    return re.sub(r"[\\&%$#_{}~^]", lambda m: _LATEX.get(m[0], f"\\{m[0]}"), text)


def latex_table(scorecard: Scorecard, metric: str = "asr", *, judge: str | None = None) -> str:
    """Return one metric as a LaTeX table (package booktabs): arms by attacks, per cent with interval, n in the caption.

    `judge` None: the first with this metric. A dash means not measured.
    """
    named = judge or next((s.judge for s in scorecard.scores if s.metric == metric), None)
    found = select(scorecard.scores, metric, judge=named)
    arms = list(dict.fromkeys(s.arm for s in found))
    counts = sorted({s.estimate.n for s in found})
    n = "n" if not counts else f"$n = {counts[0]}$" if len(counts) == 1 else f"$n = {counts[0]}$ to ${counts[-1]}$"
    left = sum(sum(s.unscored.values()) for s in found)
    unscored = f" {left} unscored prompts are left out." if left else ""
    level = 100 * float(scorecard.run.resolved.get("confidence", 0.95))
    title = title_of(metric, scorecard.measured_by(named))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(title[0].upper() + title[1:])} in per cent with {level:g}\,\% intervals, judged by "
        rf"{latex_text(named or 'no judge')}; {n} prompts.{unscored}}}",
        rf"\begin{{tabular}}{{l{'r' * len(arms)}}}",
        r"\toprule",
        " & ".join(["attack", *map(latex_text, arms)]) + r" \\",
        r"\midrule",
    ]
    for group in by_place(found):
        cells = {s.arm: s for s in group}
        line = [latex_text(group[0].where), *(_cell(cells.get(arm)) for arm in arms)]
        lines.append(" & ".join(line) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _cell(score: Score | None) -> str:
    if score is None or score.estimate.value is None:
        return "--"
    e = score.estimate
    inside = "" if e.low is None or e.high is None else rf" {{\scriptsize [{100 * e.low:.1f}, {100 * e.high:.1f}]}}"
    return f"{100 * score.estimate.value:.1f}{inside}"


def latex_card(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a method card (`views.method.card_rows`) as a LaTeX longtable (packages booktabs, longtable)."""
    lines = [r"\begin{longtable}{p{0.2\textwidth}p{0.22\textwidth}p{0.5\textwidth}}", r"\toprule"]
    lines += [" & ".join(latex_text(row[k]) for k in ("part", "what", "value")) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{longtable}", ""])


def export_evaluation(
    folder: str | Path, evaluation: Evaluation, card: Sequence[Mapping[str, str]] = ()
) -> tuple[Path, ...]:
    """Write an evaluation's tables into a folder (see `write_exports`), and all answers into `completions/` there."""
    tables = write_exports(folder, evaluation.scorecard, card)
    sets = (evaluation.attacks, evaluation.answers, evaluation.judgements)
    return (*tables, *write_completions(Path(folder) / "completions", *sets))


def write_exports(folder: str | Path, scorecard: Scorecard, card: Sequence[Mapping[str, str]] = ()) -> tuple[Path, ...]:
    """Write a scorecard's CSV, a LaTeX table for each judge, and the method card if given; return the paths.

    Raises StorageFull when the disk is full.
    """
    texts = {"results.csv": csv_text(evaluation_rows(scorecard))}
    for judge in dict.fromkeys(s.judge for s in scorecard.scores if s.metric == "asr"):
        name = re.sub(r"[^a-z0-9]+", "-", judge.lower()).strip("-") or "judge"
        texts[f"asr-{name}.tex"] = latex_table(scorecard, judge=judge)
    if card:
        texts["method.tex"] = latex_card(card)
    paths = []
    for name, text in texts.items():
        path = Path(folder) / name
        with atomic_file(path) as partial:
            partial.write_text(text, "utf-8")
        paths.append(path)
    return tuple(paths)


_STOPS = {"end": "stop", "stop": "stop", "length": "max_tokens", "context": "model_length"}
_ABOUT = (
    "attempt_id", "attack", "given", "setting", "prompt_id", "label", "category", "pair_id", "request", "prefix",
    "sample",
)  # fmt: skip
_DRAWN = ("max_tokens", "temperature", "top_p", "top_k", "seed")
Pairs = list[tuple[Attempt, Completion]]


def pairs_of(attacks: Sequence[AttackSet], completions: Sequence[CompletionSet], arm: str) -> Pairs:
    """Return an arm's completions with their attempts; completions of other attack sets are left out."""
    known = {a.attempt_id: a for s in attacks for a in s.attempts}
    return [
        (known[c.attempt_id], c) for s in completions if s.arm == arm for c in s.completions if c.attempt_id in known
    ]


def harmbench_completions(pairs: Pairs) -> dict[str, list[dict[str, Any]]]:
    """Return completions in HarmBench's format: prompt id -> its test cases with what was generated."""
    made: dict[str, list[dict[str, Any]]] = {}
    for attempt, completion in pairs:
        entry = {"test_case": attempt.messages[-1][1], "generation": completion.text, "behavior": attempt.request}
        about = {k: getattr(attempt, k) for k in _ABOUT if k not in ("request", "prompt_id")}
        made.setdefault(attempt.prompt_id, []).append({**entry, **about, "stop": completion.stop})
    return made


def inspect_log(pairs: Pairs, arm: CompletionSet, judgements: Sequence[JudgementSet] = ()) -> dict[str, Any]:
    """Return an arm's completions as an Inspect log.

    A score's value is p_harmful, or the verdict where a judge gives no score. An unscored sample has no score by that
    judge, and the reason is in the sample's metadata.
    """
    asked = {a.attempt_id for a, _ in pairs}
    said: dict[str, dict[str, Judgement]] = {}
    for found in (j for j in judgements if j.arm == arm.arm):  # one set an attack
        said.setdefault(found.judge, {}).update((j.attempt_id, j) for j in found.judgements if j.attempt_id in asked)
    sets = Counter(a.attack for a, _ in pairs)
    settings = {k: v for k, v in arm.run.resolved.items() if isinstance(v, str | int | float | bool)}
    spec = {
        "created": arm.run.started,
        "task": "deep_alignment_workbench",
        "task_version": 1,
        "dataset": {"name": ", ".join(sets), "samples": len(pairs), "sample_ids": [a.attempt_id for a, _ in pairs]},
        "model": arm.arm,
        "config": {"epochs": 1},
        "packages": dict(arm.run.versions),
        "metadata": {"fingerprint": arm.run.fingerprint, "commit": arm.run.commit, **settings},
    }
    scores = [
        {
            "name": judge,
            "scorer": judge,
            "scored_samples": sum(j.unscored is None for j in found.values()),
            "unscored_samples": sum(j.unscored is not None for j in found.values()),
            "metrics": _mean_score(found),
        }
        for judge, found in said.items()
    ]
    return {
        "version": 2,
        "status": "success",
        "eval": spec,
        "plan": {"name": "plan", "steps": []},
        "results": {"total_samples": len(pairs), "completed_samples": len(pairs), "scores": scores},
        "stats": {"started_at": arm.run.started, "completed_at": arm.run.started, "model_usage": {}},
        "samples": [
            _inspect_sample(a, c, arm.arm, {judge: f.get(a.attempt_id) for judge, f in said.items()}) for a, c in pairs
        ],
    }


def _mean_score(found: Mapping[str, Judgement]) -> dict[str, Any]:
    known = [j.p_harmful for j in found.values() if j.p_harmful is not None]
    return {"mean": {"name": "mean", "value": sum(known) / len(known)}} if known else {}


def _inspect_sample(
    attempt: Attempt, completion: Completion, arm: str, said: Mapping[str, Judgement | None]
) -> dict[str, Any]:
    given = [{"role": "assistant", "content": attempt.prefix}] if attempt.prefix else []
    asked = [*({"role": role, "content": text} for role, text in attempt.messages), *given]
    answer = {"role": "assistant", "content": completion.text, "source": "generate", "model": arm}
    scores = {
        judge: {
            "value": j.p_harmful if j.p_harmful is not None else j.verdict,
            "answer": j.verdict,
            "explanation": j.why,
            "metadata": {"verdict": j.verdict},
        }
        for judge, j in said.items()
        if j is not None and j.unscored is None
    }
    unscored = {judge: j.unscored for judge, j in said.items() if j is not None and j.unscored is not None}
    about = {k: getattr(attempt, k) for k in (*_ABOUT, *_DRAWN)}
    return {
        "id": attempt.attempt_id,
        "epoch": 1,
        "input": asked,
        "target": "",
        "messages": [*asked, answer],
        "output": {
            "model": arm,
            "choices": [{"message": answer, "stop_reason": _STOPS.get(completion.stop, "unknown")}],
            "completion": completion.text,
        },
        "scores": scores,
        "metadata": {**about, "stop": completion.stop, **({"unscored": unscored} if unscored else {})},
    }


def write_completions(
    folder: str | Path,
    attacks: Sequence[AttackSet],
    completions: Sequence[CompletionSet],
    judgements: Sequence[JudgementSet] = (),
) -> tuple[Path, ...]:
    """Write every arm's completions as `harmbench/ARM.json` and `inspect/ARM.json`; return the paths.

    Raises StorageFull when the disk is full.
    """
    paths = []
    arms = list(dict.fromkeys(c.arm for c in completions))
    for arm, name in zip(arms, legal_names(arms), strict=True):
        pairs = pairs_of(attacks, completions, arm)
        first = next(c for c in completions if c.arm == arm)
        bodies = {"harmbench": harmbench_completions(pairs), "inspect": inspect_log(pairs, first, judgements)}
        for kind, body in bodies.items():
            path = Path(folder) / kind / f"{name}.json"
            with atomic_file(path) as partial:
                partial.write_text(json.dumps(body, ensure_ascii=False, indent=1) + "\n", "utf-8")
            paths.append(path)
    return tuple(paths)
