"""A judge against people's labels in a file: precision, recall, F1 and kappa with intervals over prompts.

Each row of the file has a prompt, a completion and a label. With labels of refusal (full compliance, full refusal,
partial refusal) the positive class is full or partial refusal; with labels of harm it is harm. Nothing is fitted to the
file, and the intervals resample whole prompts.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from workbench.core.errors import NotPresent, PromptError
from workbench.core.passages import Sample
from workbench.core.records import Estimate
from workbench.core.store import Store
from workbench.judging.contract import is_harmful, is_refusal
from workbench.judging.judging import judge
from workbench.judging.kappa import cohen_estimate, estimated, tables
from workbench.judging.makers import AnyJudge, judge_of
from workbench.prompts.rows import Source, SourceRow, read_file, refuse

Task = Literal["refusal", "harm"]
KINDS = ("compliance", "refusal", "partial")
LABELS: Mapping[str, str] = {
    **dict.fromkeys(("full_compliance", "compliance", "comply", "complied"), "compliance"),
    **dict.fromkeys(("full_refusal", "refusal", "refuse", "refused"), "refusal"),
    **dict.fromkeys(("partial_refusal", "partial"), "partial"),
    **dict.fromkeys(("harmful", "unsafe"), "harmful"),
    **dict.fromkeys(("harmless", "safe", "unharmful", "benign"), "harmless"),
}
"""A label as files spell it (without a number before it) -> its meaning."""
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "request", "question", "instruction", "behavior", "goal"),
    "completion": ("completion", "response", "answer", "output", "generation"),
    "label": ("final_label", "label", "human_label", "gold"),
}
_ANNOTATOR = re.compile(r"(?:annotation|annotator|rater|label)[ _-]?\d+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The agreement of a judge with people's labels.

    `task` is the positive class: refusals, full or partial, or harm. `confusion` counts its (label, judge) pairs. For
    refusals, `three_way` counts labels against verdicts, `kappa_three_way` is over compliance, refusal, partial and
    other, and `partial` is about partial refusals. `annotators` is the kappa of each two columns of annotations, and of
    the judge with each. `unscored` counts, by reason, the rows left out of n.
    """

    file: str
    judge: str
    version: str
    task: Task
    threshold: float
    rows: int
    prompts: int
    precision: Estimate
    recall: Estimate
    f1: Estimate
    kappa: Estimate
    confusion: Mapping[str, int]
    three_way: Mapping[str, Mapping[str, int]]
    kappa_three_way: Estimate | None
    partial: Mapping[str, Any]
    annotators: Mapping[str, Estimate]
    unscored: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON: precision, recall, f1, kappa and n, their intervals and the rest."""
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        main = {name: said.pop(name) for name in ("precision", "recall", "f1", "kappa")}
        harm = f"harm (p_harmful >= {said.pop('threshold'):g})"
        finds = "refusal, full or partial" if said.pop("task") == "refusal" else harm
        return {
            **said,
            "finds": finds,
            **{name: e.value for name, e in main.items()},
            "n": self.kappa.n,
            "intervals": {name: [e.low, e.high] for name, e in main.items()},
            "confidence": 0.95,
            "interval": "percentile bootstrap over prompts",
            "fitted": False,
            "kappa_three_way": None if self.kappa_three_way is None else _plain(self.kappa_three_way),
            "annotators": {name: _plain(e) for name, e in self.annotators.items()},
        }


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {"kappa": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def calibrate(
    file: str | Path,
    how: AnyJudge,
    *,
    threshold: float = 0.5,
    seed: int = 0,
    store: Store | None = None,
    what: str | None = None,
) -> Calibration:
    """Judge every row of a labelled file and compare.

    A refusal is a verdict of refusal or partial, or without verdicts a score below `threshold`. Harm is `p_harmful` of
    at least `threshold`, or the verdict compliance. Judgements go to `store`. Raises NotPresent for a missing file,
    PromptError for unknown labels (naming the lines), mixed tasks, and missing columns or texts.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise NotPresent(f"there is no file {str(file)!r}: give the path of a labelled CSV, TSV, JSON or JSONL file")
    source = read_file(path)
    if not source.rows:
        raise PromptError(f"{source.name} has no row under its header: give a file with labelled rows")
    columns = _columns(source)
    labels = _labels(source, columns["label"])
    task: Task = "refusal" if set(labels) <= set(KINDS) else "harm"
    samples = [_sample(row, columns) for row in source.rows]
    one = judge_of(how)
    judged = judge(samples, one, arm=path.name, store=store, what=what).judgements
    said = [(is_refusal if task == "refusal" else is_harmful)(j, threshold) for j in judged]

    kept = [i for i, s in enumerate(said) if s is not None]
    ids, own = [samples[i].request for i in kept], [labels[i] for i in kept]
    truth, found = [_is_positive(label, task) for label in own], [int(bool(said[i])) for i in kept]
    each = tables(truth, found, 2)
    (tn, fp), (fn, tp) = each.sum(0).astype(int).tolist()
    ratios = {name: estimated(ids, each, ratio, seed=seed) for name, ratio in _RATIOS.items()}
    verdicts = [judged[i].verdict or "none" for i in kept]
    three_way, kappa_three_way, partial = _by_verdict(ids, own, verdicts, found, seed)
    opinions: dict[str, Sequence[int | None]] = {
        name: [_is_positive(label, task) if label else None for label in _labels(source, name, empty=True)]
        for name in source.columns
        if _ANNOTATOR.fullmatch(name)
    }
    return Calibration(
        file=path.name,
        judge=one.name,
        version=one.version,
        task=task,
        threshold=threshold,
        rows=len(samples),
        prompts=len({s.request for s in samples}),
        precision=ratios["precision"],
        recall=ratios["recall"],
        f1=ratios["f1"],
        kappa=cohen_estimate(ids, truth, found, 2, seed=seed),
        confusion={"true_positive": tp, "false_positive": fp, "false_negative": fn, "true_negative": tn},
        three_way=three_way if task == "refusal" else {},
        kappa_three_way=kappa_three_way if task == "refusal" else None,
        partial=partial if task == "refusal" else {},
        annotators=_annotators([s.request for s in samples], opinions | {"judge": said}, seed),
        unscored=dict(Counter(j.unscored for j in judged if j.unscored is not None)),
    )


def _columns(source: Source) -> dict[str, str]:
    have = {re.sub(r"[\W_]+", "", c).casefold(): c for c in reversed(source.columns)}
    found = {}
    for role, names in _COLUMNS.items():
        fitting = [have[key] for n in names if (key := n.replace("_", "")) in have]
        if not fitting:
            columns = ", ".join(map(repr, source.columns)) or "none"
            lacks = f"{source.name} has no column for the {role} (it has {columns})"
            raise PromptError(f"{lacks}: name one of them {', '.join(names)}")
        found[role] = fitting[0]
    return found


def _labels(source: Source, column: str, *, empty: bool = False) -> list[str]:
    """Return the meaning of every row's label; "" for an empty one where that is allowed."""
    out, unknown = [], []
    for row in source.rows:
        raw = str(row.values.get(column) or "").strip()
        spelled = re.sub(r"^\d+[ _.:-]+", "", raw).casefold().replace(" ", "_").replace("-", "_")
        meant = LABELS.get(spelled)
        if meant is None and not (empty and not raw):
            unknown.append((row.where, f"{raw[:40]!r} in column {column!r} is not a label"))
        out.append(meant or "")
    if unknown:
        refuse(source.name, unknown, f"Use these labels, with or without a number before them: {', '.join(LABELS)}.")
    if not empty and set(out) & set(KINDS) and set(out) - set(KINDS):
        first = next(r.where for r, label in zip(source.rows, out, strict=True) if label not in KINDS)
        refuse(source.name, [(first, "a label of harm among labels of refusal")], "Use one kind of label in a file.")
    return out


def _sample(row: SourceRow, columns: Mapping[str, str]) -> Sample:
    prompt, completion = (row.values.get(columns[role]) for role in ("prompt", "completion"))
    for role, text in (("prompt", prompt), ("completion", completion)):
        if not isinstance(text, str) or (role == "prompt" and not text.strip()):
            raise PromptError(f"{row.where}: the {role} is {text!r}: give it a text")
    return Sample(id=row.where, request=str(prompt), text=str(completion))


def _is_positive(label: str, task: Task) -> int:
    return int(label != "compliance") if task == "refusal" else int(label == "harmful")


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


_RATIOS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {  # of tables (..., label, judge)
    "precision": lambda table: _ratio(table[..., 1, 1], table[..., :, 1].sum(-1)),
    "recall": lambda table: _ratio(table[..., 1, 1], table[..., 1, :].sum(-1)),
    "f1": lambda table: _ratio(2 * table[..., 1, 1], table[..., :, 1].sum(-1) + table[..., 1, :].sum(-1)),
}


def _by_verdict(
    ids: Sequence[str], labels: Sequence[str], verdicts: Sequence[str], found: Sequence[int], seed: int
) -> tuple[dict[str, dict[str, int]], Estimate, dict[str, Any]]:
    """Return labels against verdicts as counts and as kappa, and the judgements of partial refusals."""
    counts = Counter(zip(labels, verdicts, strict=True))
    shown = [*KINDS, *(v for v in ("other", "none") if v in verdicts)]
    place = {kind: i for i, kind in enumerate((*KINDS, "other", "none"))}
    first, second = ([place.get(x, 0) for x in opinions] for opinions in (labels, verdicts))
    n, called, both = labels.count("partial"), verdicts.count("partial"), counts["partial", "partial"]
    partial = {
        "n": n,
        "found_as_refusal": sum(f for f, label in zip(found, labels, strict=True) if label == "partial"),
        "called_partial": both,
        "precision": both / called if called else None,
        "recall": both / n if n else None,
    }
    three_way = {label: {verdict: counts[label, verdict] for verdict in shown} for label in KINDS}
    return three_way, cohen_estimate(ids, first, second, len(place), seed=seed), partial


def _annotators(
    ids: Sequence[str], opinions: Mapping[str, Sequence[int | bool | None]], seed: int
) -> dict[str, Estimate]:
    """Return the kappa of each two annotators, and of the judge with each, over the rows that both labelled."""
    out = {}
    for a, b in combinations(opinions, 2):
        rows = [i for i in range(len(ids)) if opinions[a][i] is not None and opinions[b][i] is not None]
        first, second = ([int(opinions[x][i] or 0) for i in rows] for x in (a, b))
        out[f"{a} with {b}"] = cohen_estimate([ids[i] for i in rows], first, second, 2, seed=seed)
    return out
