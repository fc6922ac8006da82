"""Judging: samples in, one judge's judgements out; resumable, stored by content."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np

from workbench.core.passages import Sample
from workbench.core.progress import Progress
from workbench.core.provenance import Stopwatch
from workbench.core.store import Entry, Store, key_of
from workbench.judging.config import JudgeConfig
from workbench.judging.contract import AT_ONCE, Accountable, checked
from workbench.judging.makers import AnyJudge, judge_of
from workbench.judging.records import Judgement, JudgementSet


def judge(
    samples: Sequence[Sample], how: AnyJudge, *, arm: str = "", store: Store | None = None, what: str | None = "judging"
) -> JudgementSet:
    """Judge every sample of an arm, in their order; `how` is a judge, its config, or its name ("guard:FOLDER").

    Judgements are stored by the judge's name and version and the sample's content: a killed run resumes, and equal
    texts are judged once. Unscored samples are not stored, so a later run asks for them again. The notes count unscored
    samples by reason and report the cost of a judge.

    Raises what `judge_of` raises, RecordError where a judge breaks its contract, and what the judge itself raises.
    """
    one = judge_of(how)
    watch = Stopwatch("judge", how if isinstance(how, JudgeConfig) else {"judge": one.name})
    store, version = Store.of(store), one.version
    keys = [_key(one.name, version, s) for s in samples]
    known: dict[str, Judgement] = {k: _read(store.read(k)) for k in set(keys) if k in store}
    left = [(k, s) for k, s in dict(zip(keys, samples, strict=True)).items() if k not in known]

    notes = [one.forecast([s for _, s in left])] if left and isinstance(one, Accountable) else []
    at_once = int(getattr(one, "at_once", AT_ONCE))
    with Progress(what if left else None, len(left), "completions") as progress:
        for sentence in notes:
            progress.note(sentence)
        for start in range(0, len(left), at_once):
            part = left[start : start + at_once]
            batch = [s for _, s in part]
            made = dict(zip((k for k, _ in part), checked(one, batch, one.judge(batch)), strict=True))
            store.write({k: _entry(j) for k, j in made.items() if j.unscored is None})
            known.update(made)
            progress.advance(len(part))
    if left and isinstance(one, Accountable) and (account := one.account()):
        notes.append(account)
    judgements = tuple(dataclasses.replace(known[k], attempt_id=s.id) for k, s in zip(keys, samples, strict=True))
    reasons = Counter(j.unscored for j in judgements if j.unscored is not None)
    return JudgementSet(
        run=watch.record(resolved={"judge": one.name, "version": version, "judged_now": len(left)}),
        judge=one.name,
        version=version,
        measures=one.measures,
        arm=arm,
        judgements=judgements,
        notes=(*notes, *(f"unscored: {n} of {len(judgements)}: {reason}" for reason, n in reasons.most_common())),
    )


def _key(name: str, version: str, sample: Sample) -> str:
    read = (sample.request, sample.prefix, sample.text, sample.label, sample.category)
    return key_of("judgement 2", name, version, read)


def _entry(judgement: Judgement) -> Entry:
    text = json.dumps(dataclasses.asdict(judgement), ensure_ascii=False)
    return {"judgement": np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)}


def _read(entry: Entry) -> Judgement:
    return Judgement(**json.loads(bytes(entry["judgement"]).decode("utf-8", "surrogatepass")))
