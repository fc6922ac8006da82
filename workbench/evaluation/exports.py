"""A Scorecard for other programs and for papers: CSV of the tidy rows, and a LaTeX table."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from workbench.core.files import atomic_file
from workbench.core.records import Row
from workbench.evaluation.formats import write_completions
from workbench.evaluation.metrics import title_of
from workbench.evaluation.records import Evaluation, Score, Scorecard, select
from workbench.evaluation.rows import by_place, evaluation_rows

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def csv_text(rows: Iterable[Row]) -> str:
    """Return tidy rows as CSV, the columns those of results.json; what does not apply is an empty field."""
    out = io.StringIO(newline="")
    names = [f.name for f in dataclasses.fields(Row)]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({n: "" if (v := getattr(row, n)) is None else v for n in names})
    return out.getvalue()


def latex_text(text: str) -> str:
    """Escape text for LaTeX."""
    return re.sub(r"[\\&%$#_{}~^]", lambda m: _LATEX[m[0]], text)


def latex_table(scorecard: Scorecard, metric: str = "asr", *, judge: str | None = None) -> str:
    """Return one metric as a LaTeX table (package booktabs): arms by attacks, per cent with interval, n in the caption.

    `judge` None: the first that has the metric. A cell that was not measured is a dash.
    """
    named = judge or next((s.judge for s in scorecard.scores if s.metric == metric), None)
    found = select(scorecard.scores, metric, judge=named)
    arms = list(dict.fromkeys(s.arm for s in found))
    counts = sorted({s.estimate.n for s in found})
    n = "n" if not counts else f"$n = {counts[0]}$" if len(counts) == 1 else f"$n = {counts[0]}$ to ${counts[-1]}$"
    left = sum(sum(s.unscored.values()) for s in found)
    unscored = f" {left} unscored prompts are left out." if left else ""
    level = 100 * float(scorecard.run.resolved.get("confidence", 0.95))
    title = title_of(metric)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(title[0].upper() + title[1:])} in per cent with {level:g}\,\% intervals, judged by "
        rf"{latex_text(named or 'no judge')}; {n} prompts.{unscored}}}",
        rf"\begin{{tabular}}{{l{'r' * len(arms)}}}",
        r"\toprule",
        " & ".join(["attack", *map(latex_text, arms)]) + r" \\",
        r"\midrule",
    ]
    for group in by_place(found):
        cells = {s.arm: s for s in group}
        line = [latex_text(group[0].where), *(_cell(cells.get(arm)) for arm in arms)]
        lines.append(" & ".join(line) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _cell(score: Score | None) -> str:
    if score is None or score.estimate.value is None:
        return "--"
    e = score.estimate
    inside = "" if e.low is None or e.high is None else rf" {{\scriptsize [{100 * e.low:.1f}, {100 * e.high:.1f}]}}"
    return f"{100 * score.estimate.value:.1f}{inside}"


def latex_card(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a method card (`views.method.card_rows`) as a LaTeX longtable (packages booktabs, longtable)."""
    lines = [r"\begin{longtable}{p{0.2\textwidth}p{0.22\textwidth}p{0.5\textwidth}}", r"\toprule"]
    lines += [" & ".join(latex_text(row[k]) for k in ("part", "what", "value")) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{longtable}", ""])


def export_evaluation(
    folder: str | Path, evaluation: Evaluation, card: Sequence[Mapping[str, str]] = ()
) -> tuple[Path, ...]:
    """Write an evaluation's tables into a folder, see `write_exports`, and all answers below it, in `completions/`."""
    tables = write_exports(folder, evaluation.scorecard, card)
    sets = (evaluation.attacks, evaluation.answers, evaluation.judgements)
    return (*tables, *write_completions(Path(folder) / "completions", *sets))


def write_exports(folder: str | Path, scorecard: Scorecard, card: Sequence[Mapping[str, str]] = ()) -> tuple[Path, ...]:
    """Write a scorecard's CSV, one LaTeX table a judge, and the method card where it is given; return the paths.

    Raises StorageFull when the disk is full.
    """
    texts = {"results.csv": csv_text(evaluation_rows(scorecard))}
    for judge in dict.fromkeys(s.judge for s in scorecard.scores if s.metric == "asr"):
        name = re.sub(r"[^a-z0-9]+", "-", judge.lower()).strip("-") or "judge"
        texts[f"asr-{name}.tex"] = latex_table(scorecard, judge=judge)
    if card:
        texts["method.tex"] = latex_card(card)
    paths = []
    for name, text in texts.items():
        path = Path(folder) / name
        with atomic_file(path) as partial:
            partial.write_text(text, "utf-8")
        paths.append(path)
    return tuple(paths)
