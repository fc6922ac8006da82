"""A tree of branches: one response, what would have come with another token in one place, and what a judge says."""

from __future__ import annotations

from typing import Any

from workbench.core import legible
from workbench.core.legible import html_text
from workbench.decoding.records import Branch, BranchTree
from workbench.display.views.responses import COVER, HarmfulText, as_treated, label_of, treatment_of
from workbench.display.views.view import Column, View, columns, notes, number, plain_table, quoted, section, titled
from workbench.judging.contract import is_harmful
from workbench.judging.records import Judgement

VERDICTS = {
    "compliance": ("●", "does what was asked"),
    "partial": ("◐", "does part of it"),
    "refusal": ("○", "refuses"),
    "other": ("◌", "neither"),
    "harmful": ("●", "scored as harmful, p(harmful) at least 0.5: the judge gives no verdict"),
    "not harmful": ("○", "p(harmful) below 0.5: the judge gives no verdict"),
    "unscored": ("?", "not scored"),
    "not judged": ("–", "not judged"),
}
"""The verdict on a branch -> its sign and meaning."""

_COLUMNS = (
    *columns("branch", ("leaves", "parent"), "position", number=True),
    Column("token", token=True),
    Column("in place of", "instead", token=True),
    *columns(
        ("p(base)", "probability_base"),
        ("p(aligned)", "probability_aligned"),
        ("p(penalised)", "probability_penalised"),
        number=True,
    ),
    Column("verdict"),
    *columns(("p(harmful)", "p_harmful"), "tokens", number=True),
    Column("from there on", "tail"),
)


def said_of(branch: Branch) -> str:
    """Return the verdict on a branch as one word of VERDICTS: its verdict, or that it has none, or a score's side."""
    if branch.verdict is not None:
        return branch.verdict
    harmful = is_harmful(Judgement(attempt_id="", p_harmful=branch.p_harmful, verdict=None, unscored=None))
    if harmful is not None:
        return "harmful" if harmful else "not harmful"
    return "not judged" if branch.unscored is None else "unscored"


def branch_tree(tree: BranchTree, *, harmful_text: HarmfulText = "auto") -> View:
    """Show a tree of branches as nested text: where each leaves its parent, how it goes on, and its verdict."""
    treat = treatment_of(tree.label, tree.classroom_safe, harmful_text)
    covered = treat != "show"
    rows = tuple(_row(row, tree.branches[row["branch"]], covered) for row in tree.rows())
    written = bool(tree.branches)
    drawn = as_treated(treat, lambda c: _list(tree, 0, c), "text") if written else "<p>No continuation yet.</p>"
    title = "Did this token matter?"
    who = "not judged" if tree.judge is None else f"judged by {tree.judge!r}"
    said = (
        f"One response under the penalty {tree.penalty}, after {tree.prefix_tokens} given tokens, and the same "
        f"response with another token in one place, continued under the same penalty; {who}. Only what was "
        "generated is judged."
    )
    signs = "; ".join(f"{sign} {word}: {means}" for word, (sign, means) in VERDICTS.items())
    body = section(
        "table",
        title,
        titled(title, tree.label),
        notes(said, css="wb-note"),
        quoted("prompt", tree.prompt),
        drawn,
        notes(f"{signs}. Underlined: base-favored, likelier under base."),
    )
    lines = [f"prompt: {legible.sentence(tree.prompt)}", said, plain_table(_COLUMNS, rows)]
    return View(title=title, body=body, text="\n".join(lines), rows=rows)


def _row(row: dict[str, Any], branch: Branch, covered: bool) -> dict[str, Any]:
    label = {n: label_of(row[n], covered) for n in ("token", "instead") if row[n] is not None}
    text = {n: COVER if covered else legible.sentence(row[n]) for n in ("text", "tail")}
    return {**row, **label, **text, "verdict": said_of(branch)}


def _list(tree: BranchTree, branch: int, covered: bool) -> str:
    inner = "".join(_list(tree, i, covered) for i in tree.children(branch))
    nested = f'<ul style="list-style:none;padding-inline-start:1.6rem">{inner}</ul>' if inner else ""
    item = f'<li style="max-width:none">{_head(tree, branch, covered)}{nested}</li>'
    root = tree.branches[branch].parent is None
    return f'<ul style="list-style:none;padding:0">{item}</ul>' if root else item


def _head(tree: BranchTree, number_of: int, covered: bool) -> str:
    b = tree.branches[number_of]
    word = said_of(b)
    sign, _ = VERDICTS[word]
    verdict = f'<span class="wb-tag">{sign} {html_text(word)}</span>'
    where, facts = "<b>as it was written</b>", []
    if b.position is not None:
        kind = ' class="wb-tok wb-favored"' if b.base_favored else ' class="wb-tok"'
        token, instead = (label_of(t, covered) for t in (b.token, b.instead))
        where = (
            f"<b>position {b.position}</b>: <span{kind}>{html_text(token)}</span> in place of "
            f'<span class="wb-tok">{html_text(instead)}</span>'
        )
        names = ("base", "aligned", "penalised")
        facts = [f"p({n}) {number(getattr(b, f'probability_{n}'))}" for n in names]
    facts += [] if b.p_harmful is None else [f"p(harmful) {number(b.p_harmful)}"]
    facts += [] if b.unscored is None else [b.unscored]
    said = f' <span class="wb-soft">{html_text(", ".join(facts))}</span>'
    tail = COVER if covered else legible.prose(b.tail)
    ends = "" if b.stop == "end" else f' <span class="wb-soft">[{b.stop}]</span>'
    text = (
        '<div class="wb-text" style="font-size:14px;line-height:1.6;margin:.2rem 0 .5rem;padding-block:.1rem">'
        f"{html_text(tail)}{ends}</div>"
    )
    return f"{verdict} {where}{said}{text}"
