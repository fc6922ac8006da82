"""What public data say of the product: people's labels, the paper's printed numbers, the benchmarks' real files.

The data lie beside the repository, in ../shared, and never in it: `make test-public` runs these tests, and fails where
the data are missing; `make test` runs none of them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workbench.evaluation.capability import CapabilityConfig, measure_capability
from workbench.evaluation.paper import PAPER
from workbench.judging.calibration import calibrate
from workbench.models.pair import PairConfig, load_pair
from workbench.prompts.loading import PromptConfig, load_prompts
from workbench.prompts.similar import near_copies

SHARED = Path(__file__).resolve().parents[3] / "shared"
DATA = SHARED / "data"


@pytest.mark.parametrize(("name", "least"), [("llama2orig", 0.95), ("mistralinstruct", 0.85)])
def test_the_refusal_rules_agree_with_peoples_labels(name: str, least: float) -> None:
    made = calibrate(DATA / f"xstest_completions_{name}.csv", "refusal")
    assert made.kappa.n == 450
    assert made.f1.value >= least
    assert made.unscored == {}


def test_every_published_number_stands_on_the_page_and_none_is_left_out() -> None:
    page = (SHARED / "design" / "PAPER_TABLES.md").read_text("utf-8")
    cells = [c for line in page.splitlines() if line.startswith("|") for c in line.strip("|").split("|")[1:]]
    numbers = [float(x) for c in cells for x in re.findall(r"(?<![\w-])\d+\.?\d*", c.replace("+-", " "))]
    shares = {round(n, 3) for n in numbers}
    for name, table in PAPER.items():
        for p in table.published:
            printed = p.value if p.unit != "1" else 100 * p.value
            assert round(printed, 3) in shares, (name, p)
    counts = {"paper/llama-3.1-8b/prefill-4": 20, "paper/qwen3-8b/prefill": 14, "paper/llama-2-7b/gcg": 9}
    counts |= {"paper/figure-1": 20, "qi/llama-2-7b/attacks": 16, "paper/llama-3.1-8b/recovery": 36}
    counts |= {"paper/qwen2.5-7b/recovery": 30, "paper/llama-2-7b/recovery": 36}
    assert {name: len(PAPER[name].published) for name in counts} == counts


@pytest.mark.filterwarnings("ignore::DeprecationWarning:lm_eval", "ignore::FutureWarning:lm_eval")
def test_the_benchmarks_real_files_are_of_the_known_shapes() -> None:
    from tests.test_capability import Plain, by_name

    tasks = (f"mmlu:{DATA / 'mmlu_redux.jsonl'}", f"bbh:{DATA / 'bbh'}", f"gsm8k:{DATA / 'gsm8k_dev.jsonl'}")
    pair = load_pair(PairConfig(preset="embedded"))
    made = measure_capability(Plain(pair, "base"), CapabilityConfig(tasks=tasks, limit=2, max_tokens=8))
    assert len({s.task for s in made.scores}) == 1 + 29 + 5 + 1
    assert by_name(made)["bbh_hyperbaton", "exact_match", "flexible-extract"].estimate.n == 2


def test_no_prompt_of_our_own_is_a_near_copy_of_a_benchmarks() -> None:
    names = ("advbench_dev.csv", "xstest_prompts.csv", "harmbench_prompts.txt")
    theirs = [p.prompt for name in names for p in load_prompts(PromptConfig(source=str(DATA / name)))]
    assert len(theirs) > 700
    ours = [p.prompt for name in ("contrast", "fresh") for p in load_prompts(PromptConfig(source=name))]
    found = near_copies([*theirs, *ours])
    there = set(found[: len(theirs)])
    assert [text for text, cluster in zip(ours, found[len(theirs) :], strict=True) if cluster in there] == []
