"""Texts of two runs beside each other: the answers to the same prompts, and the same texts through the lens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from workbench.core.errors import RecordError
from workbench.core.legible import html_text, label
from workbench.core.records import Record, load
from workbench.decoding.records import Continuations
from workbench.display.report import Section
from workbench.display.views import HarmfulText, samples_view, side_by_side, token_view
from workbench.evaluation.records import AttackSet, CompletionSet, Evaluation
from workbench.judging.records import JudgementSet
from workbench.running.changes.differences import RunComparison
from workbench.tracing.records import Response, TraceSet

R = TypeVar("R", bound=Record)
MOST = 4
"""Texts of each record that are shown at most."""


def text_sections(compared: RunComparison, *, harmful_text: HarmfulText = "auto") -> list[Section]:
    """Return sections with the texts that differ, of every record that both runs hold under one name and kind.

    Traces through the lens, continuations side by side, completions as samples of both runs. A record that cannot be
    read is skipped.
    """
    out = []
    pairs = dict(_pairs(compared))
    for name, (a, b) in pairs.items():
        if isinstance(a, TraceSet) and isinstance(b, TraceSet):
            out.append(_traces(compared, name, a, b, harmful_text))
        elif isinstance(a, Continuations) and isinstance(b, Continuations):
            out.append(_continuations(compared, name, a, b, harmful_text))
    return [*out, *_samples(compared, pairs, harmful_text)]


def _pairs(compared: RunComparison) -> Iterator[tuple[str, tuple[Record, Record]]]:
    first = _folders(compared.first.folder)
    for name, folder in _folders(compared.second.folder).items():
        if name in first:
            a, b = _loaded(first[name]), _loaded(folder)
            if a is not None and b is not None and type(a) is type(b):
                yield name, (a, b)


def _folders(run: Path) -> dict[str, Path]:
    return {p.parent.name: p.parent for p in sorted(run.glob("records/*/record.json"))}


def _loaded(folder: Path) -> Record | None:
    try:
        return load(folder, Record)
    except RecordError:
        return None  # of another version, or damaged: results.json has its numbers


def _key(response: Response) -> tuple[Any, ...]:
    r = response
    return r.prompt_id, r.trajectory, r.prefix_tokens if r.trajectory == "free_running" else None, r.segment


def _traces(compared: RunComparison, name: str, a: TraceSet, b: TraceSet, harmful_text: HarmfulText) -> Section:
    where = {_key(r): i for i, r in enumerate(b.responses)}
    both = [(i, where[_key(r)]) for i, r in enumerate(a.responses) if _key(r) in where]
    lengths = a.lengths(), b.lengths()
    texts, scores = [], []
    for i, j in both:
        n, m = int(lengths[0][i]), int(lengths[1][j])
        if not np.array_equal(a.token_ids[i, :n], b.token_ids[j, :m]):
            texts.append((i, j))
        elif not np.allclose(a.excess_mass[i, :n], b.excess_mass[j, :m], atol=1e-3, equal_nan=True):
            scores.append((i, j))
    parts = []
    for i, j in [*texts, *scores][:MOST]:
        for run, traces, at in ((compared.first, a, i), (compared.second, b, j)):
            made = token_view(traces, at, harmful_text=harmful_text)
            heading = f'<h3 style="margin: 1.8rem 0 .3rem; font-size: 16px">{html_text(label(run.name))}</h3>'
            parts.append(replace(made, title=f"{run.name}: {made.title}", body=heading + made.body))
    return Section(
        title=f"Through the lens: {name}",
        text=(
            "The runs have no response in common, so no text is shown."
            if not both
            else f"{len(both)} responses are in both runs; {len(texts)} have other tokens, and {len(scores)} the same "
            f"tokens with excess mass that differs by over 0.001 somewhere. {len(parts) // 2} are shown, each twice.",
        ),
        parts=tuple(parts),
    )


def _continuations(
    compared: RunComparison, name: str, a: Continuations, b: Continuations, harmful_text: HarmfulText
) -> Section:
    if [(c.name, c.prompt) for c in a.continuations] != [(c.name, c.prompt) for c in b.continuations]:
        return Section(title=f"Continuations: {name}", text=("The two runs continued other prompts.",))
    changed = [n for n, (x, y) in enumerate(zip(a.continuations, b.continuations, strict=True)) if x.text != y.text]
    arms = {compared.first.name: a, compared.second.name: b}
    parts = tuple(
        replace(side_by_side(arms, harmful_text=harmful_text, response=n), title="One prompt, both runs")
        for n in changed[:MOST]
    )
    return Section(
        title=f"Continuations: {name}",
        text=(f"{len(changed)} of {len(a.continuations)} continuations differ; {len(parts)} are shown.",),
        parts=parts,
    )


def _samples(
    compared: RunComparison, pairs: Mapping[str, tuple[Record, Record]], harmful_text: HarmfulText
) -> list[Section]:
    """Return the answers that differ, as samples of two arms: of equal arm, attack, setting, prompt and sample."""
    done: list[CompletionSet] = []
    attacks: list[AttackSet] = []
    judged: list[JudgementSet] = []
    changed = total = 0
    for pair in pairs.values():
        both = [e for e in pair if isinstance(e, Evaluation)]
        if len(both) < 2:
            continue
        asked = {t.attempt_id: (t.where, t.prompt_id, t.sample) for e in both for s in e.attacks for t in s.attempts}
        texts = [{(s.arm, *asked[c.attempt_id]): c.text for s in e.answers for c in s.completions} for e in both]
        shared = texts[0].keys() & texts[1].keys()
        other = {k for k in shared if texts[0][k] != texts[1][k]}
        total, changed = total + len(shared), changed + len(other)
        for run, e in zip((compared.first, compared.second), both, strict=True):
            attacks += e.attacks
            judged += [replace(j, arm=f"{j.arm} in {run.name}") for j in e.judgements]
            for s in e.answers:
                kept = tuple(c for c in s.completions if (s.arm, *asked[c.attempt_id]) in other)
                done += [replace(s, arm=f"{s.arm} in {run.name}", completions=kept)] if kept else []
    if not total:
        return []
    parts = (samples_view(attacks, done, judged, most=MOST, harmful_text=harmful_text),) if done else ()
    said = f"{changed} of {total} answers to the same prompt under the same attack differ."
    return [Section(title="Answers", text=(said,), parts=parts)]
