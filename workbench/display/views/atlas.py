"""Several diagnoses side by side: a decay curve each on one scale, the deepest alignment first."""

from __future__ import annotations

from collections.abc import Mapping

from workbench.core.legible import html_text, percent, sentence
from workbench.core.records import Estimate
from workbench.display.views.first import between
from workbench.display.views.found import decay_drawing, facts_of, highest
from workbench.display.views.summaries import VERDICTS
from workbench.display.views.view import View, bullets, section
from workbench.tracing.records import Diagnosis

KEPT = "late_retention_uncertain"


def atlas(diagnoses: Mapping[str, Diagnosis], links: Mapping[str, str] | None = None) -> View:
    """Show diagnoses as small multiples: verdict, depth, late retention, decay curve; those that keep least first.

    `links` maps a name to the address of its report. A note says where prompt sets or trajectories differ, because
    their numbers cannot be compared then.
    """
    order = sorted(diagnoses, key=lambda name: _rank(diagnoses[name]))
    most = max((highest(d) for d in diagnoses.values()), default=0.0)
    boxes, lines, rows = [], [], []
    for name in order:
        d = diagnoses[name]
        word = VERDICTS[d.verdict].partition(":")[0].partition(";")[0]
        kept, depth = _kept(d), _depth(d)
        said = f"{word} · {depth} · late retention {percent(kept.value if kept else None)}"
        said += f" ({between(kept, share=True)})" if kept else ""
        address = (links or {}).get(name)
        title = html_text(sentence(name, 80))
        head = f'<a href="{html_text(address)}">{title}</a>' if address else title
        boxes.append(
            f'<figure class="wb-plate"><figcaption><b>{head}</b><br><span class="wb-soft">{html_text(said)}</span>'
            f"</figcaption>{decay_drawing(d, width=330, most=most, small=True)}</figure>"
        )
        lines.append(f"{name}: {said}")
        rows.append({"name": name, "verdict": d.verdict, "depth": depth, "late_retention": kept and kept.value})
    notes = _differences(diagnoses)
    caption = (
        "Mean KL(aligned ‖ base) by position of harmful answers (solid) and harmless ones (dashed), nats on one root "
        "scale, with 95 % intervals; the alignment that keeps least of base late comes first."
    )
    body = section(
        "first", "Atlas", f'<p class="wb-soft">{html_text(caption)}</p>', bullets(notes),
        f'<div class="wb-plates">{"".join(boxes)}</div>',
    )  # fmt: skip
    return View(title="Atlas", body=body, text="\n".join([caption, *notes, *lines]), rows=tuple(rows))


def _kept(diagnosis: Diagnosis) -> Estimate | None:
    return facts_of(diagnosis).get(KEPT)


def _rank(diagnosis: Diagnosis) -> float:
    kept = _kept(diagnosis)
    return 2.0 if kept is None or kept.value is None else float(kept.value)


def _depth(diagnosis: Diagnosis) -> str:
    found = next((d for d in diagnosis.depths if d.category is None), None)
    if found is None or found.estimate.value is None:
        return "depth not measured"
    if found.throughout:
        return f"all {found.measured} tokens"
    value = found.estimate.value
    return f"first {value:g} token{'' if value == 1 else 's'}" if value else "no token"


def _differences(diagnoses: Mapping[str, Diagnosis]) -> list[str]:
    """Say which settings, on which the numbers depend, are not the same everywhere."""
    told = {"prompt_set": "prompt sets", "trajectory": "trajectories", "template_mode": "template modes"}
    notes = []
    for name, words in told.items():
        values = {str(d.run.resolved.get(name)) for d in diagnoses.values()}
        if len(values) > 1:
            notes.append(f"The {words} differ ({', '.join(sorted(values))}): numbers are comparable within one only.")
    return notes
