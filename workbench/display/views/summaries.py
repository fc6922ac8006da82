"""What a diagnosis says in words and tables: verdict, headline numbers, token frequencies, divergent prompts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from workbench.core import legible
from workbench.core.legible import html_text
from workbench.core.records import Estimate, RunRecord
from workbench.display.views.responses import COVER, HarmfulText, treatment
from workbench.display.views.scales import reading
from workbench.display.views.view import Column, View, interval, number, plain_table, section, table
from workbench.tracing.records import Diagnosis, TraceSet

VERDICTS: Mapping[str, str] = {
    "identical": "Identical: the two models predict the same everywhere",
    "shallow": "Shallow: alignment fades along harmful continuations",
    "deep": "Deep: alignment reaches late positions too",
    "undetermined": "Undetermined: the numbers do not settle it",
}
"""The verdict's word -> what it means."""


def _table_view(title: str, caption: str, columns: tuple[Column, ...], rows: tuple[dict[str, Any], ...]) -> View:
    if not rows:
        return View(
            title=title, body=section("table", title, f"<p>{html_text(caption)}: none.</p>"), text=f"{title}: none"
        )
    body = section("table", title, table(caption, columns, rows, tall=len(rows) > 40))
    return View(title=title, body=body, text=f"{caption}\n{plain_table(columns, rows)}", rows=rows)


def verdict(diagnosis: Diagnosis) -> View:
    """Say what the diagnosis found: the verdict, the sentences computed from the numbers, and how to read them."""
    said = VERDICTS[diagnosis.verdict]
    sentences = [legible.sentence(s, 2_000) for s in diagnosis.sentences]
    items = "".join(f"<li>{html_text(s)}</li>" for s in sentences)
    body = section(
        "summary",
        "Verdict",
        f'<div class="wb-verdict"><p class="wb-word">{html_text(said)}</p><ul>{items}</ul></div>',
        f'<p class="wb-note wb-soft">{html_text(reading(diagnosis.entropy_floor_nats))}</p>',
    )
    text = "\n".join([said, *(f"- {s}" for s in sentences), reading(diagnosis.entropy_floor_nats)])
    rows = ({"verdict": diagnosis.verdict, "sentences": tuple(sentences)},)
    return View(title="Verdict", body=body, text=text, rows=rows)


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
            "condition": c.condition,
            "name": c.name,
            **estimate_cells("value", c.estimate),
        }
        for c in diagnosis.contrasts
    )
    columns = (
        Column(heading="what", key="title"),
        Column(heading="prompts", key="condition"),
        Column(heading="value", key="value", number=True),
        Column(heading="interval", key="value_interval", number=True),
        Column(heading="n", key="value_n", number=True),
        Column(heading="unit", key="value_unit"),
    )
    level = diagnosis.run.resolved.get("confidence")
    share = f"{float(level):.0%} " if isinstance(level, int | float) else ""
    caption = f"Headline numbers, with {share}bootstrap intervals over prompts"
    return _table_view("Headline numbers", caption, columns, rows)


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
    columns = (
        Column(heading="token", key="token", token=True),
        Column(heading="kind", key="kind"),
        Column(heading="harmful, share of positions", key="harmful", number=True),
        Column(heading="interval", key="harmful_interval", number=True),
        Column(heading="n", key="harmful_n", number=True),
        Column(heading="harmless, share of positions", key="harmless", number=True),
        Column(heading="interval", key="harmless_interval", number=True),
        Column(heading="n", key="harmless_n", number=True),
        Column(heading="difference", key="difference", number=True),
        Column(heading="interval", key="difference_interval", number=True),
        Column(heading="summed p(base) − p(aligned)", key="mass", number=True),
    )
    caption = (
        f"Most frequent base-favored tokens, {len(rows)} of {len(diagnosis.frequencies)}: share of positions at which "
        "each is base-favored. safety: likelier so on harmful prompts; style: on both alike; undecided: cannot tell"
    )
    return _table_view("Base-favored tokens", caption, columns, rows)


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
    columns = (
        Column(heading="rank", key="rank", number=True),
        Column(heading="response", key="response", number=True),
        Column(heading="prompts", key="label"),
        Column(heading="prompt", key="prompt"),
        Column(heading="given tokens", key="prefix_tokens", number=True),
        Column(heading="tokens, n", key="tokens", number=True),
        Column(heading="mean KL, nats", key="mean_kl_nats", number=True),
        Column(heading="peak KL, nats", key="peak_kl_nats", number=True),
        Column(heading="at position", key="peak_position", number=True),
        Column(heading="text at the peak", key="around"),
    )
    caption = "Responses on which the models differ most: KL(aligned ‖ base), mean over the response's tokens"
    return _table_view("Most divergent responses", caption, columns, tuple(rows))


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
    columns = (
        Column(heading="prompts", key="label"),
        Column(heading="trajectory", key="trajectory"),
        Column(heading="segment", key="segment"),
        Column(heading="given tokens", key="given", number=True),
        Column(heading="responses, n", key="responses", number=True),
        Column(heading="tokens, n", key="tokens", number=True),
    )
    prompts = len({r.prompt_id for r in traces.responses})
    caption = (
        f"Prompt set {legible.sentence(traces.prompt_set)}: {prompts} prompts, {len(traces.responses)} responses, "
        f"{int(lengths.sum()):,} tokens; template mode {traces.template_mode}"
    )
    warnings = [f"Warning: {legible.sentence(w)}" for w in traces.warnings]
    notes = "".join(f"<li>{html_text(w)}</li>" for w in warnings)
    body = section("table", "What was traced", table(caption, columns, rows), f"<ul>{notes}</ul>" if notes else "")
    text = "\n".join([caption, plain_table(columns, rows), *warnings])
    return View(title="What was traced", body=body, text=text, rows=rows)


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
    columns = (
        Column(heading="what", key="name"),
        Column(heading="used", key="value"),
        Column(heading="asked", key="asked"),
    )
    title = f"Method: {run.verb}"
    caption = "Settings as asked and as used, versions and provenance: enough to make this again"
    return _table_view(title, caption, columns, tuple(rows))
