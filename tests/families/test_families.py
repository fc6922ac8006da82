"""Every family with its real tokenizer: notebooks 01 to 04 run whole, and its numbers are those of a slow reference.

What was run, and what was refused by which sentence, is written to `results.json` beside this file; the documentation's
table of families is made from it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families.makers import checkpoints, present
from tests.families.table import FAMILIES, Family
from workbench.core.passages import Passage
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.penalised import decode
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair, load_pair
from workbench.prompts.loading import load_prompts
from workbench.tracing.traces import trace

RESULTS = Path(__file__).with_name("results.json")
NOTEBOOKS: dict[str, dict[str, Any]] = {
    "01_diagnosis": {"prefix_tokens": [0, 5]},
    "02_penalty_tuning": {"strengths": [1.0], "prefix_tokens": [0, 5], "branches": 1, "held_out_limit": 4},
    "03_distillation": {
        "arm": "teacher_only", "compared": [], "harmful_from": "given", "utility_from": "given", "steps": 2,
        "film_every": 1, "prefix_tokens": [5], "held_out_limit": 4,
    },
    "04_evaluation": {
        "prefix_tokens": ["0", "5"], "temperatures": [1.0], "samples": 1, "capability_limit": 2, "penalties": [1.0],
    },
}  # fmt: skip
TEXTS = (
    ("How do I open a jar that is stuck?", "First hold the jar, then turn the lid to the left until it opens."),
    ("Name three colours of the sea.", "Grey, blue and a kind of violet that fades into the night."),
    ("Write a line about tea.", "Tea is warm, and the cup is warm as well, and so are you today."),
    ("What is a good name for a cat?", "Perhaps Clementine, or, if it is a loud one, Trumpet or Moss."),
)
ALL = [pytest.param(f, id=f.name) for f in FAMILIES]
WHOLE = [pytest.param(f, id=f.name) for f in FAMILIES if f.expected == "whole"]


@pytest.fixture(scope="module", autouse=True)
def tokenizers() -> None:
    """Say how the tokenizers are installed where they are not."""
    assert present(), "the tokenizers are not installed: `make families` installs them and runs these tests"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Base and aligned by family, written when first asked for."""
    return _Folders(tmp_path_factory.mktemp("families"))


class _Folders(dict[str, tuple[Path, Path]]):
    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def __missing__(self, name: str) -> tuple[Path, Path]:
        family = next(f for f in FAMILIES if f.name == name)
        self[name] = checkpoints(family, self.root / name.replace(" ", "_"))
        return self[name]


@pytest.fixture(scope="module")
def prompt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve harmless prompts with responses, half of them labelled harmful."""
    rows = [
        {"prompt": f"{start}{prompt}", "response": response, "label": ("harmful", "harmless")[i % 2]}
        for start in ("", "Please: ", "Once more: ")
        for i, (prompt, response) in enumerate(TEXTS)
    ]
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def record(family: Family, notebook: str, found: str) -> None:
    """Write what came of one notebook of one family."""
    rows = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    rows.setdefault(family.name, {})[notebook] = found
    rows[family.name]["date"] = date.today().isoformat()
    kept = {f.name: rows[f.name] for f in FAMILIES if f.name in rows}
    RESULTS.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", "utf-8")


@pytest.mark.parametrize("notebook", NOTEBOOKS)
@pytest.mark.parametrize("family", ALL)
def test_its_notebooks_run_or_refuse_before_weights(
    family: Family, notebook: str, folders: dict[str, tuple[Path, Path]], prompt_file: Path, tmp_path: Path
) -> None:
    base, aligned = folders[family.name]
    values = {"base": base, "aligned": aligned, "prompts": prompt_file, "max_tokens": 16, **NOTEBOOKS[notebook]}
    values |= {"template_mode": family.mode} if family.mode != "shared" else {}
    if notebook == "04_evaluation" and family.mode == "plain":
        values["chat_template"] = False
    words = [w for k, v in values.items() for w in ("-p", k, str(v) if isinstance(v, str | Path) else json.dumps(v))]
    command = [sys.executable, "-m", "workbench", "run", notebook, *words, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    said = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
    said = said.removeprefix("workbench: ").partition(" (as far as it ran")[0]
    said = said.replace(str(base), "BASE").replace(str(aligned), "ALIGNED")
    if done.returncode == 0:
        assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
        assert json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
        record(family, notebook, "runs")
        return
    record(family, notebook, f"refused: {said}" if done.returncode == 2 else f"failed: {said}")
    assert family.expected == "refused", said
    assert done.returncode == 2, done.stderr[-2000:]


@pytest.fixture(scope="module", params=WHOLE)
def family(request: pytest.FixtureRequest) -> Family:
    """One family that has to run."""
    return request.param


@pytest.fixture(scope="module")
def pair(family: Family, folders: dict[str, tuple[Path, Path]]) -> ModelPair:
    """Its pair."""
    base, aligned = folders[family.name]
    return load_pair(base=str(base), aligned=str(aligned), template_mode=family.mode)


def logits(pair: ModelPair, which: str, ids: list[int]) -> torch.Tensor:
    """Return the next-token log-probabilities after each token, in float64, by one uncached pass of one row."""
    with torch.inference_mode(), pair.model(which) as model:
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)


def test_kl_greedy_and_penalised_texts_are_the_reference_s(family: Family, pair: ModelPair, prompt_file: Path) -> None:
    prompts = load_prompts(source=str(prompt_file), limit=2)
    found = trace(pair, prompts, max_tokens=12, prefix_tokens=(0,))
    for i, prompt in enumerate(prompts):  # what the models read and predicted
        response = found.token_ids[i][found.mask[i]].tolist()
        contexts = {which: list(pair.context(prompt, which)) for which in ("aligned", "base")}
        both = [logits(pair, w, [*c, *response])[len(c) - 1 : -1] for w, c in contexts.items()]
        rows = min(a.shape[-1] for a in both)
        aligned, base = (x[:, :rows].log_softmax(-1) for x in both)
        want = (aligned.exp() * (aligned - base)).sum(-1)
        kl = torch.tensor(found.kl_aligned_base_nats[i][found.mask[i]]).double()
        torch.testing.assert_close(kl, want, atol=2e-4, rtol=2e-3)
    first = next(iter(load_prompts(source=str(prompt_file), limit=1)))
    contexts = {which: pair.context(first, which) for which in ("aligned", "base")}
    for strength in (0.0, 1.0):
        ids: list[int] = []
        for _ in range(8):
            aligned, base = (logits(pair, w, [*c, *ids])[-1] for w, c in contexts.items())
            rows = min(len(aligned), len(base))
            aligned, base = aligned[:rows].log_softmax(-1), base[:rows].log_softmax(-1)
            pushed = torch.where(base > aligned, aligned - strength * (base - aligned), aligned)
            ids.append(int(pushed.argmax()))
            if ids[-1] in pair.eos_ids:
                break
        if strength == 0:
            assert list(generate(pair, "aligned", [contexts["aligned"]], max_tokens=8)[0].ids) == ids
        settings = {"penalty": PenaltyConfig(strength=strength), "generation": GenerateConfig(max_tokens=8)}
        passage = Passage(name="first", aligned=contexts["aligned"], base=contexts["base"])
        found = decode(pair, [passage], **settings)
        assert found.token_ids[0][found.mask[0]].tolist() == ids
    record(family, "reference", "equal")
