"""The capability of an arm by lm-evaluation-harness, as a CapabilitySet."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import io
import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.core import comparisons, statistics
from workbench.core.configs import takes_fields
from workbench.core.errors import NotPresent, UnknownName, nearest
from workbench.core.legible import sentence
from workbench.core.progress import Progress
from workbench.core.provenance import Stopwatch
from workbench.core.records import Estimate
from workbench.core.store import Store, key_of
from workbench.evaluation.capability.config import BUILT_IN, CapabilityConfig
from workbench.evaluation.capability.files import harness_tasks, question_files
from workbench.evaluation.records import Answer, CapabilitySet, TaskScore

if TYPE_CHECKING:
    from workbench.evaluation.attacks.answer import Arm

HARNESS = "lm_eval"
INSTALL = "pip install 'deep-alignment-workbench[capability]' (or: pip install lm-eval)"


def is_installed() -> bool:
    """Tell whether lm-evaluation-harness is installed."""
    return importlib.util.find_spec(HARNESS) is not None


def check_tasks(tasks: Sequence[str]) -> None:
    """Raise for tasks that are not available here what `measure_capability` would raise for them."""
    if not is_installed():
        raise NotPresent(f"capability is measured by lm-evaluation-harness, which is not installed: {INSTALL}")
    names = [t for t in tasks if not question_files(t)]
    if names:
        known = _harness_names()
        for name in names:
            if name not in known:
                raise UnknownName(f"the harness has no task {name!r}: {nearest(name, (BUILT_IN, *known))}")


@functools.cache
def _harness_names() -> tuple[str, ...]:
    from lm_eval.tasks import TaskManager

    with _quiet():
        return tuple(sorted(TaskManager().all_tasks))


@takes_fields(CapabilityConfig)
def measure_capability(
    arm: Arm, config: CapabilityConfig, *, store: Store | None = None, what: str | None = "asking"
) -> CapabilitySet:
    """Ask an arm the questions of a config by lm-evaluation-harness on the live model, and return its scores.

    The scores of an arm without a penalty equal those of `lm_eval.simple_evaluate` on the same model, to the digit.
    With a `store`, the harness's cache there keeps answered questions, and a killed run resumes. The caller's random
    states stay unchanged.

    Raises NotPresent where the harness or a file is missing, UnknownName for a task that the harness does not have,
    PromptError for a file of another shape, ParameterError where no question is left.
    """
    check_tasks(config.tasks)
    watch = Stopwatch("measure_capability", config)
    files = {task: question_files(task) for task in config.tasks}
    asked: list[Any] = []
    group_of: dict[str, str] = {}
    for task, found in files.items():
        made = [harness_tasks(f, shots=config.shots or 0, max_tokens=config.max_tokens) for f in found]
        names = [m.get("group") or m["task"] for m in made] if found else [task]
        group_of.update(dict.fromkeys(names, task))
        asked += made or [task]  # type: ignore[list-item]
    if clash := {n for n in group_of if list(group_of).count(n) > 1}:
        raise UnknownName(f"two tasks have the name {sorted(clash)}: rename a file")
    results = _run(arm, config, asked, store, f"{what} {arm.name}" if what else None)
    scores, answers = _scores(results, list(group_of), config)
    template = "chat template" if config.chat_template else "plain text"
    version = importlib.metadata.version(HARNESS)
    decided = {"arm": arm.name, "pair": arm.pair.name, "template": template, "thinking": arm.pair.thinking}
    decided |= {"harness": version, "penalty": str(getattr(getattr(arm, "penalty", None), "title", "none"))}
    return CapabilitySet(
        run=watch.record(arm.pair, resolved=decided, seed=config.seed),
        arm=arm.name,
        harness=f"lm-eval {version}",
        template=template,
        scores=scores,
        answers=answers,
        notes=_notes(files, config, results),
    )


def _notes(files: Mapping[str, Sequence[Any]], config: CapabilityConfig, results: Mapping[str, Any]) -> tuple[str, ...]:
    how = "in the chat template" if config.chat_template else "as plain text, without a chat template"
    notes = [f"The harness asks {how}."]
    if config.limit is not None:
        cut = sum(n["effective"] < n["original"] for n in results["n-samples"].values())
        notes += [f"limit={config.limit}: {cut} of {len(results['n-samples'])} tasks were cut."] if cut else []
    if config.shots and any(files.values()):
        notes.append(f"The first {config.shots} rows of each local task are its examples, not questions.")
    return tuple(notes)


def _run(
    arm: Arm, config: CapabilityConfig, tasks: Sequence[Any], store: Store | None, what: str | None
) -> Mapping[str, Any]:
    names = [t for t in tasks if isinstance(t, str)]
    with Progress(what, 1, "arms") as progress, _quiet(), _random_state_kept():
        import torch
        from lm_eval import evaluate
        from lm_eval.tasks import TaskManager

        from workbench.evaluation.capability.models import answers_kept, harness_model, harness_task, prepared

        manager = TaskManager(include_defaults=bool(names))
        for seeds in (random.seed, np.random.seed, torch.manual_seed):  # as the harness's own entry point does
            seeds(config.seed)
        try:
            loaded = manager.load([harness_task(t) for t in tasks])
        except (ConnectionError, FileNotFoundError) as error:
            raise NotPresent(
                f"the harness could not download the questions of {', '.join(names)} ({sentence(str(error), 200)}): "
                "without a network give local files, as 'mmlu:PATH' or 'bbh:PATH'"
            ) from error
        prepared(loaded["tasks"], config, frozenset(names))
        with harness_model(arm, config.batch_size) as model, answers_kept(model, _cache(arm, config, store)) as asked:
            how: dict[str, Any] = {
                "apply_chat_template": config.chat_template,
                "system_instruction": config.system_prompt,
            }
            how |= {"limit": config.limit, "bootstrap_iters": min(config.resamples, 10_000)}
            how |= {"fewshot_as_multiturn": True, "log_samples": True}
            results: Mapping[str, Any] = evaluate(lm=asked, task_dict=loaded, **how)
        progress.advance()
    return results


def _cache(arm: Arm, config: CapabilityConfig, store: Store | None) -> str | None:
    if store is None or store.folder is None:
        return None
    penalty = getattr(arm, "penalty", None)
    asked = (config.chat_template, config.system_prompt, config.max_tokens, config.batch_size)
    written = (arm.pair.thinking, arm.pair.template_date)
    key = key_of("capability 2", arm.pair.fingerprint, arm.which, *written, str(penalty), asked)
    return str(store.folder / "lm-eval" / f"{key}.db")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the harness's progress bars and remarks, which go to stderr and to its logger."""
    logger = logging.getLogger(HARNESS)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Restore the caller's random states, because the harness seeds all of them."""
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _scores(
    results: Mapping[str, Any], groups: Sequence[str], config: CapabilityConfig
) -> tuple[tuple[TaskScore, ...], tuple[Answer, ...]]:
    """Return every metric of every task and group with its interval, and every answer once."""
    scores: list[TaskScore] = []
    answers: list[Answer] = []
    for group in groups:
        tasks = _tasks_of(results, group)
        for task in dict.fromkeys((group, *tasks)):
            inside = [t for t in _tasks_of(results, task) if t in results["samples"]]
            for name, value in results["results"].get(task, {}).items():
                metric, comma, variant = name.partition(",")
                if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
                    scores.append(_score(results, (group, task, metric, variant), inside, float(value), config))
        for task in tasks:
            answers += _answers(results["samples"].get(task, ()), group, task)
    return tuple(scores), tuple(answers)


def _tasks_of(results: Mapping[str, Any], name: str) -> list[str]:
    """Return the tasks of a group, including those of the groups in it; of a task, itself."""
    inside = results.get("group_subtasks", {}).get(name) or []
    return [t for sub in inside for t in _tasks_of(results, sub)] or [name]


def _score(
    results: Mapping[str, Any], place: tuple[str, ...], tasks: Sequence[str], value: float, config: CapabilityConfig
) -> TaskScore:
    group, task, metric, variant = place
    samples = [s for t in tasks for s in results["samples"][t] if s["filter"] == variant and metric in s]
    made = [s[metric] for s in samples]
    better = results["higher_is_better"].get(task, {}).get(metric)
    if better is None:
        better = next((results["higher_is_better"].get(t, {}).get(metric) for t in tasks), True)
    stderr = results["results"][task].get(f"{metric}_stderr,{variant}")
    first = tasks[0] if tasks else task
    return TaskScore(
        group=group,
        task=task,
        metric=metric,
        variant=variant,
        estimate=_estimate(value, made, metric, config),
        stderr=float(stderr) if isinstance(stderr, int | float) and math.isfinite(stderr) else None,
        higher_is_better=bool(better),
        shots=int(results["n-shot"].get(task, results["n-shot"].get(first, 0)) or 0),
        version=str(results["versions"].get(task, results["versions"].get(first, "none"))),
        chance=_chance(samples) if metric in ("acc", "acc_norm") else None,
    )


def _chance(samples: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the accuracy of guessing evenly among each question's choices; None where answers are not chosen."""
    choices = [len(s["filtered_resps"]) for s in samples if len(s["arguments"][0]) > 1]
    if not choices or len(choices) < len(samples) or min(choices) < 2:
        return None
    return float(np.mean([1 / n for n in choices]))


def _estimate(value: float, made: Sequence[Any], metric: str, config: CapabilityConfig) -> Estimate:
    """Return the harness's number with an interval over its questions; no interval where their mean is another."""
    unit = {"word_perplexity": "per word", "byte_perplexity": "per byte", "bits_per_byte": "bits"}.get(metric, "1")
    low, high = _bounds(value, made, metric, config) if made and math.isfinite(value) else (math.nan, math.nan)
    value_, low_, high_ = (statistics.known(x) for x in (value, low, high))
    return Estimate(value=value_, low=low_, high=high_, n=len(made), unit=unit)


def _bounds(value: float, made: Sequence[Any], metric: str, config: CapabilityConfig) -> tuple[float, float]:
    if all(isinstance(x, tuple | list) and len(x) == 2 for x in made):  # exp(- log-likelihood / size), or bits
        parts = np.array(made, float)
        mean = _resampled(len(parts), config).ratio(parts[:, 0], parts[:, 1])
        low, high = sorted(-float(x) for x in statistics.interval(mean, config.confidence))
        if metric == "bits_per_byte":
            return low / math.log(2), high / math.log(2)
        return math.exp(min(low, 700.0)), math.exp(min(high, 700.0))
    values = np.array([float(x) for x in made])
    if not math.isclose(float(values.mean()), value, rel_tol=1e-9, abs_tol=1e-12):
        return math.nan, math.nan
    if np.isin(values, (0.0, 1.0)).all():
        ends = comparisons.wilson(np.array(int(values.sum())), np.array(len(values)), confidence=config.confidence)
    else:
        mean = _resampled(len(values), config).mean(values, np.ones(len(values), bool))
        ends = statistics.interval(mean, config.confidence)
    return float(ends[0]), float(ends[1])


def _resampled(n: int, config: CapabilityConfig) -> statistics.PromptSample:
    names = [f"{i:09d}" for i in range(n)]
    return statistics.PromptSample(names, resamples=config.resamples, seed=config.seed, stream="questions")


def _answers(samples: Sequence[Mapping[str, Any]], group: str, task: str) -> Iterator[Answer]:
    if not samples:
        return
    variant = samples[0]["filter"]
    for s in samples:
        if s["filter"] != variant:
            continue
        metric = s["metrics"][0]
        score = s[metric]
        expected, given = _said(s)
        yield Answer(
            group=group,
            task=task,
            question_id=f"{s['doc_id']}-{s['doc_hash'][:12]}",
            question=_question(s),
            expected=expected,
            given=given,
            score=None if isinstance(score, tuple | list) else float(score),
        )


def _question(s: Mapping[str, Any]) -> str:
    texts = (s["doc"].get(name) for name in ("question", "input", "query", "goal", "sentence", "text"))
    return next((text for text in texts if isinstance(text, str)), str(s["arguments"][0][0])[-2000:])


def _said(s: Mapping[str, Any]) -> tuple[str, str]:
    """Return the expected answer and the given one as text; for a choice, the text of the choice."""
    target, made = s["target"], s["filtered_resps"]
    if made and isinstance(made[0], tuple | list) and len(s["arguments"][0]) > 1:
        options = [str(a[1]).strip() for a in s["arguments"]][: len(made)]
        best = options[int(np.argmax([m[0] for m in made]))]
        index = int(target) if isinstance(target, int | np.integer) else -1
        return (options[index] if 0 <= index < len(options) else str(target)), best
    return str(target), str(made[0]) if made and isinstance(made[0], str) else ""
