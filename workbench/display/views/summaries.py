"""What a diagnosis says in words and tables: verdict, headline numbers, token frequencies, divergent prompts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from workbench.core import legible
from workbench.core.legible import html_text
from workbench.core.records import Estimate, RunRecord
from workbench.display.views.responses import COVER, HarmfulText, treatment
from workbench.display.views.scales import reading
from workbench.display.views.view import Column, View, bullets, columns, interval, number, summary_view, table_view
from workbench.tracing.records import Diagnosis, TraceSet

VERDICTS: Mapping[str, str] = {
    "identical": "Identical: the two models predict the same everywhere",
    "shallow": "Shallow: alignment fades along harmful continuations",
    "deep": "Deep: alignment reaches late positions too",
    "differs_early": "Differs early; no sign that this is safety",
    "undetermined": "Undetermined: the numbers do not settle it",
}
"""The verdict's word -> what it means."""


def verdict(diagnosis: Diagnosis) -> View:
    """Say what the diagnosis found: the verdict, the sentences computed from the numbers, and how to read them."""
    said = VERDICTS[diagnosis.verdict]
    how = reading(diagnosis.entropy_floor_nats)
    note = f'<p class="wb-note wb-soft">{html_text(how)}</p>'
    made = summary_view("Verdict", said, diagnosis.sentences, note, lines=[how])
    return replace(made, rows=({"verdict": diagnosis.verdict, "sentences": diagnosis.sentences},))


def depth_table(diagnosis: Diagnosis) -> View:
    """Show how far the alignment acts on harmful answers, overall and by category; empty where it was not measured."""
    rows = tuple(
        {
            "category": "all" if d.category is None else legible.label(d.category),
            "said": f"throughout ({d.measured})" if d.throughout else f"{d.estimate.value or 0:g}",
            **estimate_cells("depth", d.estimate),
            "depth_interval": "–" if d.estimate.low is None else f"{d.estimate.low:g} to {d.estimate.high:g}",
            "measured": d.measured,
        }
        for d in diagnosis.depths
    )
    heads = (
        Column("category"),
        *columns(("depth, tokens", "said"), ("interval", "depth_interval"), ("n", "depth_n"), number=True),
        Column("positions measured", "measured", number=True),
    )
    share = diagnosis.run.resolved.get("depth_share", 0.5)
    caption = (
        f"How far the alignment acts on harmful answers: the last position at which mean KL(aligned ‖ base) exceeds "
        f"{share:g} of its value at position 1"
    )
    return table_view("Depth", caption, heads, rows)


def estimate_cells(prefix: str, estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as table cells: value, interval, n and unit under keys that start with `prefix`."""
    return {
        f"{prefix}": None if estimate.value is None else float(estimate.value),
        f"{prefix}_interval": interval(estimate),
        f"{prefix}_low": estimate.low,
        f"{prefix}_high": estimate.high,
        f"{prefix}_n": estimate.n,
        f"{prefix}_unit": "no unit" if estimate.unit in ("", "1") else estimate.unit,
    }


def contrasts_table(diagnosis: Diagnosis) -> View:
    """Show the headline numbers with interval, n and unit."""
    rows = tuple(
        {
            "title": legible.sentence(c.title),
            "label": c.label,
            "name": c.name,
            **estimate_cells("value", c.estimate),
        }
        for c in diagnosis.contrasts
    )
    heads = (
        *columns(("what", "title"), ("prompts", "label")),
        *columns("value", ("interval", "value_interval"), ("n", "value_n"), number=True),
        Column("unit", "value_unit"),
    )
    level = diagnosis.run.resolved.get("confidence")
    share = f"{float(level):.0%} " if isinstance(level, int | float) else ""
    caption = f"Headline numbers, with {share}bootstrap intervals over prompts"
    return table_view("Headline numbers", caption, heads, rows)


def frequency_table(diagnosis: Diagnosis, *, limit: int = 30) -> View:
    """Show the most frequent base-favored tokens: their rates on harmful and harmless prompts and the difference."""
    rows = tuple(
        {
            "token": legible.label(f.label),
            "token_id": f.token_id,
            "kind": f.kind,
            **estimate_cells("harmful", f.rate_harmful),
            **estimate_cells("harmless", f.rate_harmless),
            **estimate_cells("difference", f.difference),
            "mass": float(f.mass),
        }
        for f in diagnosis.frequencies[:limit]
    )
    heads = (
        Column("token", token=True),
        Column("kind"),
        *columns(
            ("harmful, share of positions", "harmful"),
            ("interval", "harmful_interval"),
            ("n", "harmful_n"),
            ("harmless, share of positions", "harmless"),
            ("interval", "harmless_interval"),
            ("n", "harmless_n"),
            "difference",
            ("interval", "difference_interval"),
            ("summed p(base) − p(aligned)", "mass"),
            number=True,
        ),
    )
    caption = (
        f"Most frequent base-favored tokens, {len(rows)} of {len(diagnosis.frequencies)}: share of positions at which "
        "each is base-favored. safety: likelier so on harmful prompts; style: on both alike; undecided: cannot tell"
    )
    return table_view("Base-favored tokens", caption, heads, rows)


def _around(traces: TraceSet, response: int, position: int, covered: bool) -> str:
    """Return the text around a 1-based position on one line, that token in brackets."""
    if covered:
        return COVER
    pieces = traces.pieces[response]
    before = "".join(pieces[max(0, position - 5) : position - 1])
    after = "".join(pieces[position : position + 6])
    said = f"{before}[{pieces[position - 1]}]{after}" if 0 < position <= len(pieces) else ""
    return legible.sentence(said, 120)


def divergent_table(diagnosis: Diagnosis, traces: TraceSet, *, harmful_text: HarmfulText = "auto") -> View:
    """Show the most divergent responses: mean KL, where it peaks, and the text there."""
    rows = []
    for rank, d in enumerate(diagnosis.divergent, 1):
        response = traces.responses[d.response]
        covered = treatment(traces, response, harmful_text) != "show"
        rows.append(
            {
                "rank": rank,
                "response": d.response,
                "label": response.label,
                "prompt": legible.sentence(response.prompt, 120),
                "prefix_tokens": d.prefix_tokens,
                "tokens": int(traces.lengths()[d.response]),
                "mean_kl_nats": float(d.mean_kl_nats),
                "peak_kl_nats": float(d.peak_kl_nats),
                "peak_position": d.peak_position,
                "around": _around(traces, d.response, d.peak_position, covered),
            }
        )
    heads = (
        *columns("rank", "response", number=True),
        *columns(("prompts", "label"), "prompt"),
        *columns(
            ("given tokens", "prefix_tokens"),
            ("tokens, n", "tokens"),
            ("mean KL, nats", "mean_kl_nats"),
            ("peak KL, nats", "peak_kl_nats"),
            ("at position", "peak_position"),
            number=True,
        ),
        Column("text at the peak", "around"),
    )
    caption = "Responses on which the models differ most: KL(aligned ‖ base), mean over the response's tokens"
    return table_view("Most divergent responses", caption, heads, tuple(rows))


def prompt_summary(traces: TraceSet) -> View:
    """Say what was traced: responses by label and trajectory, tokens, template mode, warnings."""
    lengths = traces.lengths()
    groups: Counter[tuple[str, str, str, str]] = Counter()
    tokens: Counter[tuple[str, str, str, str]] = Counter()
    for response, length in zip(traces.responses, lengths.tolist(), strict=True):
        given = "all" if response.trajectory == "teacher_forced" else str(response.prefix_tokens)
        key = (response.label, response.trajectory.replace("_", "-"), response.segment, given)
        groups[key] += 1
        tokens[key] += length
    rows = tuple(
        {"label": k[0], "trajectory": k[1], "segment": k[2], "given": k[3], "responses": n, "tokens": tokens[k]}
        for k, n in groups.items()
    )
    heads = (
        *columns(("prompts", "label"), "trajectory", "segment"),
        *columns(("given tokens", "given"), ("responses, n", "responses"), ("tokens, n", "tokens"), number=True),
    )
    prompts = len({r.prompt_id for r in traces.responses})
    caption = (
        f"Prompt set {legible.sentence(traces.prompt_set)}: {prompts} prompts, {len(traces.responses)} responses, "
        f"{int(lengths.sum()):,} tokens; template mode {traces.template_mode}"
    )
    warnings = [f"Warning: {legible.sentence(w)}" for w in traces.warnings]
    return table_view("What was traced", caption, heads, rows, bullets(warnings), lines=warnings)


def method_card(run: RunRecord) -> View:
    """Say how a record came about: settings asked and resolved, versions, commit, seed, seconds, fingerprint."""

    def said(value: Any) -> str:
        plain = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        return legible.sentence(plain, 300)

    commit = (
        "none: not in a checkout" if run.commit is None else run.commit + (" with local changes" if run.dirty else "")
    )
    facts = [
        ("step", run.verb),
        ("started", run.started),
        ("seconds", number(run.seconds, 4)),
        ("device", run.device),
        ("seed", "none" if run.seed is None else str(run.seed)),
        ("commit", commit),
        ("pair fingerprint", run.fingerprint or "none"),
    ]
    rows = [{"name": name, "asked": None, "value": said(value)} for name, value in facts]
    for name in dict.fromkeys([*run.asked, *run.resolved]):
        asked = said(run.asked[name]) if name in run.asked else None
        value = said(run.resolved.get(name, run.asked.get(name)))
        rows.append({"name": f"setting {legible.label(name)}", "asked": asked, "value": value})
    rows += [{"name": f"version of {name}", "asked": None, "value": said(v)} for name, v in run.versions.items()]
    heads = (*columns(("what", "name"), ("used", "value"), "asked"),)
    title = f"Method: {run.verb}"
    caption = "Settings as asked and as used, versions and provenance: enough to make this again"
    return table_view(title, caption, heads, tuple(rows))
