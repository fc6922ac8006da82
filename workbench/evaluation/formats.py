"""Completions for other programs: HarmBench's completions format, and an Inspect log.

HarmBench: one JSON object a model, behaviour id -> list of {"test_case", "generation"}; what else we know of an attempt
stands beside those two. Inspect: one log (version 2, JSON) a model, one sample an attempt, judges as scorers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.core.files import atomic_file, legal_names
from workbench.evaluation.records import AttackSet, Attempt, Completion, CompletionSet
from workbench.judging.records import Judgement, JudgementSet

_STOPS = {"end": "stop", "stop": "stop", "length": "max_tokens", "context": "model_length"}
_ABOUT = (
    "attempt_id",
    "attack",
    "given",
    "setting",
    "prompt_id",
    "label",
    "category",
    "pair_id",
    "request",
    "prefix",
    "sample",
)
_DRAWN = ("max_tokens", "temperature", "top_p", "top_k", "seed")
Pairs = list[tuple[Attempt, Completion]]


def pairs_of(attacks: Sequence[AttackSet], completions: Sequence[CompletionSet], arm: str) -> Pairs:
    """Return an arm's completions with their attempts; completions of other attack sets are left out."""
    known = {a.attempt_id: a for s in attacks for a in s.attempts}
    return [
        (known[c.attempt_id], c) for s in completions if s.arm == arm for c in s.completions if c.attempt_id in known
    ]


# -------------------------------------------------------------------------------------------------------- HarmBench


def harmbench_completions(pairs: Pairs) -> dict[str, list[dict[str, Any]]]:
    """Return completions in HarmBench's format: prompt id -> its test cases with what was generated."""
    made: dict[str, list[dict[str, Any]]] = {}
    for attempt, completion in pairs:
        entry = {"test_case": _last(attempt), "generation": completion.text, "behavior": attempt.request}
        about = {k: getattr(attempt, k) for k in _ABOUT if k not in ("request", "prompt_id")}
        made.setdefault(attempt.prompt_id, []).append({**entry, **about, "stop": completion.stop})
    return made


# ---------------------------------------------------------------------------------------------------------- Inspect


def inspect_log(pairs: Pairs, arm: CompletionSet, judgements: Sequence[JudgementSet] = ()) -> dict[str, Any]:
    """Return an arm's completions as an Inspect log (version 2): one sample an attempt, each judge a scorer.

    A score's value is p_harmful, or the verdict where a judge gives no score; an unscored sample has no score by that
    judge, and its reason in the sample's metadata.
    """
    asked = {a.attempt_id for a, _ in pairs}
    said: dict[str, dict[str, Judgement]] = {}
    for found in (j for j in judgements if j.arm == arm.arm):  # one set an attack
        said.setdefault(found.judge, {}).update((j.attempt_id, j) for j in found.judgements if j.attempt_id in asked)
    sets = Counter(a.attack for a, _ in pairs)
    task = "deep_alignment_workbench"
    spec = {
        "created": arm.run.started,
        "task": task,
        "task_version": 1,
        "dataset": {"name": ", ".join(sets), "samples": len(pairs), "sample_ids": [a.attempt_id for a, _ in pairs]},
        "model": arm.arm,
        "config": {"epochs": 1},
        "packages": dict(arm.run.versions),
        "metadata": {"fingerprint": arm.run.fingerprint, "commit": arm.run.commit, **_settings(arm)},
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


def _settings(arm: CompletionSet) -> dict[str, Any]:
    return {k: v for k, v in arm.run.resolved.items() if isinstance(v, str | int | float | bool)}


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


# ------------------------------------------------------------------------------------------------------------ files


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
        for kind, body in (
            ("harmbench", harmbench_completions(pairs)),
            ("inspect", inspect_log(pairs, first, judgements)),
        ):
            path = Path(folder) / kind / f"{name}.json"
            with atomic_file(path) as partial:
                partial.write_text(json.dumps(body, ensure_ascii=False, indent=1) + "\n", "utf-8")
            paths.append(path)
    return tuple(paths)


def _last(attempt: Attempt) -> str:
    return attempt.messages[-1][1]
