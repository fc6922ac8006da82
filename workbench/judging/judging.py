"""The verb: completions and the attempts they answer in, one judge's judgements out; resumable, cached by content."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np

from workbench.core.progress import Progress
from workbench.core.provenance import Stopwatch
from workbench.core.store import Entry, Store, key_of
from workbench.evaluation.records import CompletionSet
from workbench.judging.config import JudgeConfig, judge_of
from workbench.judging.contract import AT_ONCE, Accountable, Judge, Sample, checked
from workbench.judging.records import Judgement, JudgementSet
from workbench.judging.samples import Attempts, samples_of


def judge(
    completions: CompletionSet,
    attempts: Attempts,
    how: JudgeConfig | Judge | str,
    *,
    store: Store | None = None,
    what: str | None = "judging",
) -> JudgementSet:
    """Judge every completion, in their order; `how` is a judge, its config, or its name ("refusal", "guard:FOLDER").

    Finished judgements are kept in `store` as each batch ends, by the judge's name and version, the attempt and the
    text: a killed run resumes there, equal texts are judged once, and judging again never generates again. What is
    unscored is not kept, so that a later run asks for it again. The notes count what is unscored, by reason, and say
    what a judge that costs something came to.

    Raises ParameterError for an unknown judge and for completions of other attempts, RecordError when a judge breaks
    its contract, and what the judge itself raises when nothing can be judged.
    """
    one = judge_of(how) if isinstance(how, JudgeConfig | str) else how
    watch = Stopwatch("judge", how if isinstance(how, JudgeConfig) else {"judge": one.name})
    store = Store(None) if store is None else store
    samples = samples_of(completions, attempts)
    version = one.version
    keys = [_key(one.name, version, s) for s in samples]
    known: dict[str, Judgement] = {k: _read(store.read(k)) for k in set(keys) if k in store}
    left = {k: s for k, s in zip(keys, samples, strict=True) if k not in known}

    notes: list[str] = []
    if left and isinstance(one, Accountable):
        notes.append(one.forecast(list(left.values())))
    at_once = int(getattr(one, "at_once", AT_ONCE))
    with Progress(what if left else None, len(left), "completions") as progress:
        for sentence in notes:
            progress.note(sentence)
        waiting = list(left.items())
        for start in range(0, len(waiting), at_once):
            part = waiting[start : start + at_once]
            batch = [s for _, s in part]
            made = dict(zip((k for k, _ in part), checked(one, batch, one.judge(batch)), strict=True))
            store.write({k: _entry(j) for k, j in made.items() if j.unscored is None})
            known.update(made)
            progress.advance(len(part))
    if left and isinstance(one, Accountable) and (account := one.account()):
        notes.append(account)
    judgements = tuple(
        dataclasses.replace(known[k], attempt_id=a.attempt_id) for k, (a, _) in zip(keys, samples, strict=True)
    )
    return JudgementSet(
        run=watch.record(resolved={"judge": one.name, "version": version, "judged_now": len(left)}),
        judge=one.name,
        version=version,
        arm=completions.arm,
        judgements=judgements,
        notes=(*notes, *unscored_counts(judgements)),
    )


def unscored_counts(judgements: Sequence[Judgement]) -> tuple[str, ...]:
    """Return a sentence for each reason for which judgements are unscored, with how many, most first."""
    counts = Counter(j.unscored for j in judgements if j.unscored is not None)
    return tuple(f"unscored: {n} of {len(judgements)}: {reason}" for reason, n in counts.most_common())


def _key(name: str, version: str, sample: Sample) -> str:
    attempt, completion = sample
    asked = (attempt.request, attempt.messages, attempt.prefix, attempt.label, attempt.category)
    return key_of("judgement 1", name, version, asked, completion.text)


def _entry(judgement: Judgement) -> Entry:
    text = json.dumps(dataclasses.asdict(judgement), ensure_ascii=False)
    return {"judgement": np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)}


def _read(entry: Entry) -> Judgement:
    return Judgement(**json.loads(bytes(entry["judgement"]).decode("utf-8", "surrogatepass")))
