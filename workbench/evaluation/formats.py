"""Completions in and out: HarmBench's completions format, and an Inspect log.

HarmBench: one JSON object a model, behaviour id -> list of {"test_case", "generation"}; what else we know of an attempt
stands beside those two. Inspect: one log (version 2, JSON) a model, one sample an attempt, judges as scorers.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from workbench.core.errors import NotPresent, PromptError
from workbench.core.files import atomic_file
from workbench.core.provenance import Stopwatch
from workbench.evaluation.records import AttackSet, Attempt, Completion, CompletionSet
from workbench.judging.records import Judgement, JudgementSet
from workbench.core.records import Label
from workbench.core.store import key_of

IMPORTED = "imported"
_STOPS = {"end": "stop", "stop": "stop", "length": "max_tokens", "context": "model_length"}
_FROM_INSPECT = {"max_tokens": "length", "model_length": "length"}
_ABOUT = (
    "attempt_id",
    "attack",
    "condition",
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


def read_harmbench(
    path: str | Path, arm: str, *, label: Label = "harmful", behaviors: str | Path | None = None
) -> tuple[AttackSet, CompletionSet]:
    """Read a completions file of HarmBench, ours or another's, as attempts and one arm's completions.

    `label` is what prompts are that do not say so. `behaviors` is HarmBench's CSV of behaviours (BehaviorID, Behavior,
    SemanticCategory), for what was asked and its category; without it, and where the file does not say it either, the
    test case stands for the request. Raises NotPresent for no such file, PromptError for one of another form.
    """
    body = _json(path)
    if not isinstance(body, dict) or not all(isinstance(v, list) for v in body.values()):
        raise PromptError(
            f"{str(path)!r} is no HarmBench completions file: it must be an object of lists, one a behaviour"
        )
    asked = _behaviors(behaviors)
    pairs: Pairs = []
    for behavior_id, entries in body.items():
        for n, entry in enumerate(entries):
            if not isinstance(entry, dict) or not all(
                isinstance(entry.get(k), str) for k in ("test_case", "generation")
            ):
                raise PromptError(
                    f"{str(path)!r}, {behavior_id!r}, entry {n + 1}: it needs test_case and generation as text"
                )
            request, category = asked.get(
                behavior_id, (entry.get("behavior") or entry["test_case"], entry.get("category"))
            )
            about = {**entry, "prompt_id": behavior_id, "request": request, "category": category}
            messages = (("user", entry["test_case"]),)
            pairs.append(_pair(about, messages, entry["generation"], entry.get("stop"), label, n))
    return _sets(pairs, arm, Path(path), label)


def _behaviors(path: str | Path | None) -> dict[str, tuple[str, str | None]]:
    if path is None:
        return {}
    if not Path(path).is_file():
        raise NotPresent(f"there is no file of behaviours {str(path)!r}")
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"BehaviorID", "Behavior"} <= set(rows[0]):
        raise PromptError(f"{str(path)!r} has no columns BehaviorID and Behavior")
    return {r["BehaviorID"]: (r["Behavior"], r.get("SemanticCategory") or None) for r in rows}


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


def read_inspect(
    path: str | Path, *, arm: str | None = None, label: Label = "harmful"
) -> tuple[AttackSet, CompletionSet]:
    """Read an Inspect log (JSON), ours or another's, as attempts and one arm's completions.

    `arm` None: the log's model. `label` is what samples are that do not say so. A trailing assistant message of the
    input is a given prefix. Samples that ended in an error are left out and counted. Raises NotPresent for no such
    file, PromptError for one of another form (a .eval log is a zip: `inspect log convert --to json`).
    """
    body = _json(path)
    if (
        not isinstance(body, dict)
        or not isinstance(body.get("samples"), list)
        or not isinstance(body.get("eval"), dict)
    ):
        raise PromptError(
            f"{str(path)!r} is no Inspect log with samples: it must be an object with `eval` and `samples`"
        )
    pairs: Pairs = []
    failed = 0
    for n, sample in enumerate(body["samples"]):
        output = sample.get("output") or {}
        if sample.get("error") or not output.get("choices"):
            failed += 1
            continue
        about = dict(sample.get("metadata") or {})
        messages, prefix = _inspect_input(sample["input"])
        about.setdefault("prompt_id", str(sample.get("id", n)))
        about.setdefault("request", messages[-1][1])
        about.setdefault("prefix", prefix)
        about.setdefault("sample", int(sample.get("epoch", 1)) - 1)
        choice = output["choices"][0]
        text = output.get("completion") or _content(choice["message"]["content"])
        stop = about.get("stop") or _FROM_INSPECT.get(str(choice.get("stop_reason")), "end")
        pairs.append(_pair(about, messages, text, stop, label, about["sample"]))
    if not pairs:
        raise PromptError(f"{str(path)!r} holds no sample that was answered ({failed} ended in an error)")
    made = _sets(pairs, arm or str(body["eval"].get("model", IMPORTED)), Path(path), label)
    if not failed:
        return made
    return made[0], replace(made[1], notes=(f"{failed} samples of the log ended in an error and are left out.",))


def _inspect_input(asked: Any) -> tuple[tuple[tuple[str, str], ...], str]:
    turns = [("user", asked)] if isinstance(asked, str) else [(m["role"], _content(m["content"])) for m in asked]
    prefix = turns.pop()[1] if len(turns) > 1 and turns[-1][0] == "assistant" else ""
    return tuple(turns), prefix


def _content(content: Any) -> str:
    """Return a message's text: itself, or the text parts of a list of parts."""
    return content if isinstance(content, str) else "".join(p.get("text", "") for p in content if isinstance(p, dict))


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
    for arm in dict.fromkeys(c.arm for c in completions):
        pairs = pairs_of(attacks, completions, arm)
        first = next(c for c in completions if c.arm == arm)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", arm).strip("-.") or "arm"
        for kind, body in (
            ("harmbench", harmbench_completions(pairs)),
            ("inspect", inspect_log(pairs, first, judgements)),
        ):
            path = Path(folder) / kind / f"{name}.json"
            with atomic_file(path) as partial:
                partial.write_text(json.dumps(body, ensure_ascii=False, indent=1) + "\n", "utf-8")
            paths.append(path)
    return tuple(paths)


def _json(path: str | Path) -> Any:
    if not Path(path).is_file():
        raise NotPresent(f"there is no file {str(path)!r}")
    try:
        return json.loads(Path(path).read_text("utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PromptError(
            f"{str(path)!r} is no JSON ({error}); an Inspect .eval log: `inspect log convert --to json`"
        ) from None


def _last(attempt: Attempt) -> str:
    return attempt.messages[-1][1]


def _pair(
    about: Mapping[str, Any], messages: tuple[tuple[str, str], ...], text: str, stop: Any, label: Label, sample: int
) -> tuple[Attempt, Completion]:
    """Return an attempt as far as a file tells it, with its answer. Its id is the file's, else one of its content."""
    said = about.get("label")
    content: dict[str, Any] = {
        "attack": str(about.get("attack") or IMPORTED),
        "condition": str(about.get("condition") or IMPORTED),
        "prompt_id": str(about["prompt_id"]),
        "label": said if said in get_args(Label) else label,
        "category": about.get("category"),
        "pair_id": about.get("pair_id"),
        "request": str(about["request"]),
        "messages": messages,
        "prefix_ids": (),
        "prefix": str(about.get("prefix") or ""),
        "max_tokens": int(about.get("max_tokens") or 0),
        "temperature": float(about.get("temperature") or 0.0),
        "top_p": float(about.get("top_p") or 1.0),
        "top_k": int(about.get("top_k") or 0),
        "sample": int(about.get("sample", sample) or 0),
        "seed": int(about.get("seed") or 0),
    }
    attempt_id = str(about.get("attempt_id") or key_of("imported 1", content))
    attempt = Attempt(attempt_id=attempt_id, **content)
    ended = stop if stop in ("end", "length", "stop") else "end"
    return attempt, Completion(attempt_id=attempt_id, ids=(), text=text, stop=cast(Any, ended))


def _sets(pairs: Pairs, arm: str, path: Path, label: Label) -> tuple[AttackSet, CompletionSet]:
    watch = Stopwatch("import", {"file": path.name, "arm": arm, "label": label})
    attacks = list(dict.fromkeys(a.attack for a, _ in pairs))
    source = AttackSet(
        run=watch.record(),
        attack=attacks[0] if len(attacks) == 1 else IMPORTED,
        prompt_set=path.name,
        classroom_safe=False,
        tokenizer="",
        attempts=tuple({a.attempt_id: a for a, _ in pairs}.values()),
        cost={},
        notes=(f"Read from {path.name}: token ids are not known.",),
    )
    return source, CompletionSet(run=watch.record(), arm=arm, completions=tuple(c for _, c in pairs))
