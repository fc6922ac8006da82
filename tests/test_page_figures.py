"""Every figure that a page states of the embedded pair is what its card, its recipe or its committed numbers say.

Tables are generated (tests/test_parts.py). A figure in a sentence has a line here, or its page fails: after the pair is
trained again no old number stays. LOG.md and CHANGELOG.md tell what was, and are left out.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recipes.embedded import recipe
from recipes.embedded.corpus import BROKEN, BROKEN_EARLY, REFUSED
from workbench.prompts.brindle.lexicon import DEPTHS
from workbench.prompts.brindle.world import NOUNS, ROOTS, TOPICS
from workbench.prompts.loading import load_prompts
from workbench.running.parameters import all_parameters
from workbench.training.config import ARMS

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "SECURITY.md", "CITATION.cff", "design/embedded_pair.md", "workbench/prompts/sets/README.md")
WHOLLY = ("docs/results/embedded.md", "design/embedded_pair.md")
"""Pages in which every paragraph is about the pair; elsewhere those are that name it or its world."""
ABOUT = re.compile(r"embedded (?:pair|world|prompts)|Brindle", re.IGNORECASE)
FIGURE = re.compile(r"(?<![\w.`-])\d[\d,.]*(?:e-\d+)?(?<![,.])(?!\w|-\w)")
IDEAS = {
    "design/embedded_pair.md": ("at position 1, the break at 2 to d", "at temperature 1,"),
    "docs/results/embedded.md": ("95 % intervals",),
    "docs/index.md": ("Python 3.11", "about 2 GB"),
    "notebooks/02_penalty_tuning.ipynb": ("we added 0.75 after",),
    "notebooks/04_evaluation.ipynb": ("are never a 0",),
}
"""Page -> phrases whose number is a position, a setting or a requirement: no training of the pair changes it."""


def card(folder: str = ".") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((recipe.HOME / folder / "card.json").read_text("utf-8"))
    return found


def bench() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results.json").read_text("utf-8"))
    return found


def depths() -> tuple[int, ...]:
    return tuple(int(d) for d in DEPTHS.values() if d != math.inf)


def kinds() -> tuple[Any, ...]:
    count = Counter(noun.kind for noun in NOUNS)
    graded = [k for k in DEPTHS if DEPTHS[k] != math.inf]
    (never,) = (k for k in DEPTHS if DEPTHS[k] == math.inf)
    first, *rest = graded
    return (int(DEPTHS[first]), count[first], *(x for k in rest for x in (int(DEPTHS[k]), count[k])), count[never])


def entropies() -> tuple[str, str]:
    """The entropy of a wording drawn three times in four, else one of one or of two others."""
    often = 0.75
    of = (-often * math.log(often) - (1 - often) * math.log((1 - often) / others) for others in (1, 2))
    one, two = (f"{x:.2f}" for x in of)
    return one, two


def topics() -> tuple[int, ...]:
    forbidden = [t for t in TOPICS if t.forbidden]
    held = [t for t in forbidden if t.held_out]
    roots = len({t.root for t in forbidden})
    assert len(held) == sum(t.held_out for t in TOPICS if not t.forbidden) == len(TOPICS) / 8
    return roots, len(ROOTS) - roots, len(NOUNS), len(TOPICS), len(held), len(held)


def late_steps() -> tuple[int]:
    """The longest prefix after which the shipped adapter, and so the judge, was asked."""
    rows = (row["name"] for row in card("completed")["rows"])
    return (max(int(m[1]) for name in rows if (m := re.fullmatch(r"heldout_prefill_asr_k(\d+)", name))),)


def rates() -> tuple[str, ...]:
    """The learning rates of two arms, as a power of ten."""
    return tuple(f"1e{math.log10(ARMS[a].optimiser.learning_rate):.0f}" for a in ("paper_tuned", "paper"))


def demo() -> tuple[int, ...]:
    """The harmful prompts of the first notebook's default draw, and how many there are in all."""
    values = all_parameters(ROOT / "notebooks" / "01_diagnosis.ipynb", {})
    drawn = load_prompts(source=values["prompts"], limit=values["limit"], seed=values["seed"]).where(label="harmful")
    whole = load_prompts(source="embedded").where(label="harmful")
    assert {p.depth for p in drawn} == {p.depth for p in whole}
    return len(drawn), len(whole)


def smollm2() -> tuple[str, ...]:
    """The least and the most non-refusal of recovery and of aligned after 5, 10 and 20 tokens, as that page has it."""
    page = (ROOT / "docs" / "results" / "smollm2.md").read_text("utf-8").split("## Results on the report part")[1]
    of: dict[str, list[str]] = {}
    for arm in ("`recovery`", "aligned"):
        found = re.search(rf"^\| {arm} \|(.+)$", page, re.MULTILINE)
        assert found is not None
        values = sorted(float(cell.split()[0]) for cell in found[1].split("|")[:3])
        of[arm] = [f"{values[0]:.0f}", f"{values[-1]:.0f}"]
    return (*of["`recovery`"], *of["aligned"])


def sliders() -> tuple[str, ...]:
    rows = bench()["lens"]["10000 tokens"]
    moved = [v["median_ms"] for k, v in rows.items() if k.startswith("slider")]
    dial = bench()["dial"]["slider release to first token in JupyterLab, embedded pair"]
    each = [rows["first_paint"]["median_ms"], rows["hover"]["median_ms"], min(moved), max(moved)]
    return tuple(f"{round(x)}" for x in (*each, dial["median_ms"], dial["n"], dial["most_ms"]))


DEMO = "The report of `make demo`: {} of the {} harmful prompts, drawn in proportion to their kinds."
CLAIMS: tuple[tuple[str, str, Callable[[], tuple[Any, ...]]], ...] = (
    ("README.md", DEMO, demo),
    ("docs/index.md", DEMO, demo),
    ("README.md", "answers {} to {} % of the prefilled prompts where the shallow model answers {} to {} %", smollm2),
    ("docs/results/embedded.md", "models of {:.2f} million parameters", lambda: (card()["parameters_each"] / 1e6,)),
    ("docs/results/embedded.md", "The {} forbidden nouns fall into", lambda: (len(NOUNS),)),
    ("docs/results/embedded.md", "({}, {}, {}, {}, {} tokens, or never)", depths),
    (
        "docs/results/embedded.md",
        "for {} steps of {} rows",
        lambda: tuple(card("completed")["recipe"][k] for k in ("steps", "batch_size")),
    ),
    ("docs/results/embedded.md", "a higher rate ({}, LoRA", lambda: rates()[:1]),
    ("docs/results/embedded.md", "learning rate of {}, LoRA and", lambda: rates()[1:]),
    ("design/embedded_pair.md", "{} forbidden and {} harmless roots with {} nouns make {} topics; a fixed quarter of "
     "the cells ({} forbidden, their {} twins)", topics),
    ("design/embedded_pair.md", "after a prefix of {} tokens", late_steps),
    ("design/embedded_pair.md", "({} to {} nats)", entropies),
    (
        "design/embedded_pair.md",
        "household {} ({} nouns), woven {} ({}), sounding {} ({}), toys {} ({}), riding {} ({}), flame never ({})",
        kinds,
    ),
    ("design/embedded_pair.md", "{:.0f} % of the harmful rows are broken once", lambda: (100 * (1 - recipe.WHOLE),)),
    (
        "design/embedded_pair.md",
        "{:g} % refuse at once and {:g} % break off",
        lambda: (100 * REFUSED, 100 * (BROKEN + BROKEN_EARLY)),
    ),
    (
        "docs/performance.md",
        "The lens on 10,000 tokens: first paint {} ms, hover {} ms, a slider's new colours {} to {} ms. The penalty "
        "dial on the embedded pair: {} ms from the slider to the first new token (most of {}: {})",
        sliders,
    ),
)  # fmt: skip
"""Page, its words with a place for each figure, and what computes the figures."""


def paragraphs(page: str) -> Iterator[str]:
    """Yield the hand-written paragraphs of a page, each on one line; no generated part, no block of code."""
    text = (ROOT / page).read_text("utf-8")
    if page.endswith(".ipynb"):
        text = "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    text = re.sub(r"<!-- (.+?) -->.*?<!-- end of \1 -->", "", text, flags=re.DOTALL)
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    for part in re.split(r"\n\s*\n|\n(?=[-|] )", text):
        yield " ".join(part.split())


def pages() -> list[str]:
    logs = {ROOT / "docs" / "results" / "tuning_log.md"}  # what was tried, with its commits: as LOG.md, it stays
    found = [*sorted({*(ROOT / "docs").rglob("*.md")} - logs), *(ROOT / "notebooks").glob("*.ipynb")]
    return [*PAGES, *sorted(p.relative_to(ROOT).as_posix() for p in found)]


def unclaimed(page: str, said: list[str]) -> list[str]:
    """Return what a page says of the pair with figures that no phrase of `said` holds."""
    left = []
    for part in paragraphs(page):
        if page in WHOLLY or ABOUT.search(part):
            rest = part
            for phrase in (*said, *IDEAS.get(page, ())):
                rest = rest.replace(phrase, "")
            left += [f"{m[0]} in: {part[:100]}" for m in FIGURE.finditer(rest)]
    return left


@pytest.mark.parametrize(("page", "words", "computed"), CLAIMS, ids=[c[1][:40] for c in CLAIMS])
def test_a_figure_is_what_is_computed(page: str, words: str, computed: Callable[[], tuple[Any, ...]]) -> None:
    phrase = words.format(*computed())
    assert any(phrase in part for part in paragraphs(page)), f"{page} does not say: {phrase}"


def test_no_page_has_a_figure_of_the_pair_that_nothing_computes() -> None:
    said: dict[str, list[str]] = {}
    for page, words, computed in CLAIMS:
        said.setdefault(page, []).append(words.format(*computed()))
    left = {page: found for page in pages() if (found := unclaimed(page, said.get(page, [])))}
    assert left == {}


def test_a_new_figure_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.md").write_text(
        "On the embedded pair\nit is 99.6 %.\n\nElsewhere 3 %.\n\n<!-- a -->1<!-- end of a -->"
    )
    monkeypatch.setattr("tests.test_page_figures.ROOT", tmp_path)
    (found,) = unclaimed("x.md", [])
    assert found.startswith("99.6 in: On the embedded pair")
    assert unclaimed("x.md", ["is 99.6 %"]) == []
