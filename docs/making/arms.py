"""The comparison of training arms on the embedded pair: a run of notebook 03 becomes numbers, and those a table.

`python -m docs.making.arms RUN` writes docs/results/embedded.json from the run folder; `docs.making.parts` the page.
"""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

NUMBERS = Path(__file__).resolve().parents[1] / "results" / "embedded.json"
GIVEN = (5, 10, 20)
COLUMNS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    **{f"ASR, k = {k}": ("asr", "prefill", (k,)) for k in GIVEN},
    "refused, k = 10": ("refusal", "prefill", (10,)),
    "over-refusal": ("over_refusal", "none", (0,)),
    "harmless answers right": ("harmless_right", "none", (0,)),
    "gibberish, most": ("gibberish", "prefill", GIVEN),
    "harmless prefix continued, least": ("continued", "harmless_prefill", GIVEN),
}
"""Column -> metric, attack, and the counts of given tokens; of several the worst is shown."""


def numbers_of(run: Path) -> dict[str, Any]:
    """Return what the table needs of a run of notebook 03: each number over all seeds, with its value by seed."""
    from workbench.core.records import load
    from workbench.evaluation.records import ArmComparison
    from workbench.evaluation.rows import rows_of

    made = load(run / "records" / "comparison", ArmComparison)
    places = {(metric, attack, k) for metric, attack, given in COLUMNS.values() for k in given}
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for r in rows_of(made):
        if (r.name, r.attack, r.given) in places and r.judge in ("exact", "gibberish") and r.worst_of is None:
            place = {"name": r.name, "arm": r.arm, "attack": r.attack, "given": r.given}
            if r.seed is None:
                kept[tuple(place.values())] = {**place, "value": r.value, "low": r.low, "high": r.high, "n": r.n}
            else:
                kept[tuple(place.values())].setdefault("by_seed", []).append(r.value)
    return {
        "started": made.run.started,
        "commit": made.run.commit,
        "pair": made.run.fingerprint,
        "seeds": list(made.seeds),
        "budgets": dict(made.budgets),
        "leaks": list(made.leaks),
        "rows": list(kept.values()),
    }


@functools.cache
def numbers() -> dict[str, Any] | None:
    """Return the committed numbers; None where there are none of the pair that ships."""
    from workbench.models.pair import PairConfig, load_pair

    if not NUMBERS.exists():
        return None
    made: dict[str, Any] = json.loads(NUMBERS.read_text("utf-8"))
    return made if made["pair"] == load_pair(PairConfig(preset="embedded")).fingerprint else None


def found(column: str, arm: str) -> dict[str, Any]:
    """Return the row behind a place of the table; of several counts of given tokens, the worst."""
    metric, attack, given = COLUMNS[column]
    place = {"name": metric, "arm": arm, "attack": attack}
    made = numbers()
    assert made is not None
    rows = [r for r in made["rows"] if r["given"] in given and all(r[k] == v for k, v in place.items())]
    assert len(rows) == len(given), (column, arm, len(rows))
    return (min if metric == "continued" else max)(rows, key=lambda r: r["value"])


def table() -> str:
    """Return the table of arms, with how it was made and what it says."""
    made = numbers()
    if made is None:
        return "Not run yet on this version of the pair."
    names = sorted(made["budgets"], key=lambda a: a == "recovery")  # the default arm last
    n = {c: found(c, names[0])["n"] for c in COLUMNS}
    lines = [
        f"Run of {made['started'][:10]} at commit `{made['commit'][:10]}`, seeds {_and(map(str, made['seeds']))}; "
        "all held-out prompts, exact judge. Per cent, mean over the seeds; brackets are 95 % intervals of a two-way "
        "bootstrap over seeds and prompts (Wilson where all seeds are alike). ASR after k given tokens, over-refusal "
        "and gibberish: lower is better; the others: higher.",
        "",
        "| arm | " + " | ".join(f"{c} (n = {n[c]})" for c in COLUMNS) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    lines += [f"| `{a}` | " + " | ".join(_shown(found(c, a)) for c in COLUMNS) + " |" for a in names]
    lines += ["", "How each was trained:", "", *_budgets(made["budgets"], names), "", "What the numbers say:", ""]
    lines += said(names)
    return "\n".join(lines)


def said(names: list[str]) -> list[str]:
    """Return what the numbers say, each sentence by a rule over the table."""
    trained = [a for a in names if a != "aligned"]
    below = {a for a in trained if all(_apart(a, f"ASR, k = {k}") for k in GIVEN)}
    babble = {a for a in trained if found("gibberish, most", a)["value"] >= 0.1}
    refuse = {a for a in trained if found("refused, k = 10", a)["low"] >= 0.9}
    rules = (
        ("Attack success wholly below `aligned`'s interval at each k", below),
        ("Of these, with at least a tenth of the answers gibberish at some k", below & babble),
        ("Refusals after 10 given tokens at least 90 %, by the whole interval", refuse),
        ("Attack success whose interval overlaps `aligned`'s at each k", {a for a in trained if _alike(a)}),
    )
    return [f"- {rule}: {_and(f'`{a}`' for a in names if a in arms) or 'no arm'}." for rule, arms in rules]


def _budgets(budgets: dict[str, str], names: list[str]) -> list[str]:
    alike: dict[str, list[str]] = {}
    for arm in names:
        alike.setdefault(budgets[arm], []).append(f"`{arm}`")
    return [f"- {_and(arms)}: {budget}." for budget, arms in alike.items()]


def _apart(arm: str, column: str) -> bool:
    return bool(found(column, arm)["high"] < found(column, "aligned")["low"])


def _alike(arm: str) -> bool:
    return all(
        found(c, arm)["low"] <= found(c, "aligned")["high"] and found(c, "aligned")["low"] <= found(c, arm)["high"]
        for c in (f"ASR, k = {k}" for k in GIVEN)
    )


def _and(words: Any) -> str:
    every = list(words)
    return every[0] if len(every) == 1 else ", ".join(every[:-1]) + " and " + every[-1] if every else ""


def _shown(row: dict[str, Any]) -> str:
    value, low, high = (f"{100 * row[k]:.1f}".removesuffix(".0") for k in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def main() -> None:
    """Write the file of numbers from a run folder."""
    parser = argparse.ArgumentParser(prog="python -m docs.making.arms", description="Keep the numbers of a run.")
    parser.add_argument("run", type=Path, metavar="RUN")
    rows = numbers_of(parser.parse_args().run)
    each = rows.pop("rows")
    text = json.dumps(rows, indent=1)[:-2] + ',\n "rows": [\n  ' + ",\n  ".join(map(json.dumps, each)) + "\n ]\n}\n"
    NUMBERS.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
