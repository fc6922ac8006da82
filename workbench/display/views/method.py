"""How an evaluation was made, in a page ready for a paper's appendix; and the paper's numbers beside ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from workbench.core import legible
from workbench.core.records import Estimate, RunRecord, where_words
from workbench.display.views.scorecard import in_full
from workbench.display.views.view import NO_VALUE, View, bullets, columns, number, table_view
from workbench.evaluation.metrics import CAPABILITY, title_of
from workbench.evaluation.records import Evaluation

if TYPE_CHECKING:
    from workbench.core.records import Row
    from workbench.evaluation.paper import Beside, PaperPreset

SHARED = ("family", "labels", "seed", "system_prompt", "max_tokens", "pair", "template_mode")


def card_rows(evaluation: Evaluation) -> tuple[dict[str, str], ...]:
    """Return every setting of an evaluation as (part, what, value) in words: what a reader needs to make it again."""
    rows: list[dict[str, str]] = []
    scorecard = evaluation.scorecard

    def add(part: str, what: str, value: Any) -> None:
        rows.append({"part": part, "what": what, "value": _plain(value)})

    for s in evaluation.attacks:
        asked = s.run.resolved
        add("prompts", s.prompt_set, f"{len({a.prompt_id for a in s.attempts})} prompts under {s.attack}")
        settings = {k: v for k, v in asked.items() if k not in SHARED and v is not None}
        add(f"attack {s.attack}", "settings", "; ".join(f"{k} = {_plain(v)}" for k, v in settings.items()) or "none")
        for what in ("system_prompt", "max_tokens", "seed"):
            add(f"attack {s.attack}", what.replace("_", " "), asked.get(what, s.run.seed if what == "seed" else None))
        add(f"attack {s.attack}", "cost", ", ".join(f"{number(v)} {k}" for k, v in s.cost.items() if v))
    for arm in dict.fromkeys(c.arm for c in evaluation.answers):
        run = next(c.run for c in evaluation.answers if c.arm == arm)
        add(f"arm {arm}", "pair", run.resolved.get("pair"))
        add(f"arm {arm}", "template", run.resolved.get("template_mode"))
        add(f"arm {arm}", "device and fingerprint", f"{run.device}, {run.fingerprint}")
    versions: dict[str, dict[str, None]] = {}
    for who, version in (
        *((j.judge, j.version) for j in evaluation.judgements),
        *(("gibberish", g.version) for g in evaluation.gibberish),
    ):
        versions.setdefault(who, {})[version] = None
    for who, found in versions.items():
        add("judge", who, f"version {', '.join(found)}")
    if evaluation.capability:
        first = evaluation.capability[0]
        tasks = ", ".join(dict.fromkeys(f"{t.group} ({t.shots} shots)" for t in first.scores if t.task == t.group))
        add("capability", first.harness, f"{tasks}; {first.template}")
    resolved = scorecard.run.resolved
    for what in ("success", "test", "confidence", "power", "resamples", "seed"):
        add("statistics", what, resolved.get(what, scorecard.run.seed if what == "seed" else None))
    add("statistics", "comparisons", f"{len(scorecard.comparisons)}, in {_plain(resolved.get('compared', ()))}")
    add("made", "started, commit", f"{scorecard.run.started}, {_commit(scorecard.run)}")
    for name, version in scorecard.run.versions.items():
        add("software", name, version)
    return tuple(row for row in rows if row["value"])


def _commit(run: RunRecord) -> str:
    if run.commit is None:
        return "not in a checkout"
    return run.commit[:12] + (" with local changes" if run.dirty else "")


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple | list):
        return ", ".join(_plain(v) for v in value) or "none"
    if isinstance(value, Mapping):  # of long texts (templates, say) the names
        names = any(isinstance(v, str) and len(v) > 80 for v in value.values())
        return ", ".join(str(k) if names else f"{k} = {_plain(v)}" for k, v in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def evaluation_card(evaluation: Evaluation) -> View:
    """Show how an evaluation was made: prompts, attacks and their cost, arms, judges, statistics, versions, seeds."""
    rows = [{k: legible.sentence(v, 600) for k, v in row.items()} for row in card_rows(evaluation)]
    title = "How this was made"
    caption = f"{title}: prompts, attacks, arms, judges, statistics and software, enough to make it again"
    return table_view(title, caption, columns("part", "what", "value"), rows)


# ------------------------------------------------------------------------------------------------- the paper's numbers


def paper_table(preset: PaperPreset | str, found: Evaluation | Iterable[Row]) -> View:
    """Show a table of the paper beside ours: published and our number with interval and judge, and every deviation.

    Raises UnknownName for the name of no table.
    """
    from workbench.evaluation.paper import beside, paper_preset  # loads torch
    from workbench.evaluation.rows import rows_of

    preset = paper_preset(preset)
    ours = rows_of(found, None) if isinstance(found, Evaluation) else found
    rows = [_line(b) for b in beside(preset, ours)]
    heads = (
        *columns("arm", "number"),
        *columns("published", "ours", number=True),
        *columns("by", ("published inside our interval", "inside")),
    )
    caption = f"{preset.title}. Published numbers beside ours; a dash is what this run did not measure."
    differs = f'<p class="wb-title">What is not the same</p>{bullets(preset.deviations)}'
    lines = [f"- {d}" for d in preset.deviations]
    return table_view(f"Beside the paper: {preset.name}", caption, heads, rows, differs, lines=lines)


def _line(b: Beside) -> dict[str, Any]:
    p = b.published
    attack = None if p.attack == CAPABILITY else p.attack
    position = None if p.position is None else f"position {p.position}"
    where = [x for x in (where_words(attack, p.given, p.setting, None), p.label, position) if x]
    published = Estimate(value=p.value, low=None, high=None, n=0, unit=p.unit)
    spread = "" if p.spread is None else f" ± {100 * p.spread:g}" if p.unit == "1" else f" ± {p.spread:g}"
    value = in_full(published).removesuffix(" (n = 0)") + spread + (" (read off a plot)" if p.read_off else "")
    inside = {None: NO_VALUE, True: "yes", False: "no"}[b.inside]
    return {
        "arm": p.arm,
        "number": f"{title_of(p.name)}: {', '.join(where)}",
        "published": value,
        "ours": None if b.ours is None else in_full(b.ours.estimate),
        "by": b.by,
        "inside": inside,
    }
