"""An adapter that training made is a pair to the other notebooks, and notebook 03 stands settings at its edges."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from workbench.core.records import load
from workbench.evaluation.records import ArmComparison
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.prompts.loading import PromptConfig, load_prompts
from workbench.running.parameters import smoke_parameters
from workbench.running.runs import RunConfig, run_notebook
from workbench.training.adapter import export
from workbench.training.config import ARMS, TrainConfig, WatchSettings
from workbench.training.data import TrainingDataConfig, training_texts
from workbench.training.distil import distil
from workbench.training.records import Adapter

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return load_pair(PairConfig(preset="embedded"))


@pytest.fixture(scope="module")
def adapter(pair: ModelPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    prompts = load_prompts(PromptConfig(source="embedded", split="train", limit=9))
    texts = training_texts(pair, prompts, TrainingDataConfig(refusals=1, max_tokens=48))
    watch = WatchSettings(film_every=0, checkpoint_every=0, preflight=False)
    made = distil(pair, texts, TrainConfig(arm=replace(ARMS["recovery"]), steps=2, watch=watch), out=folder / "made")
    return Path(export(made, folder / "ours").path)


@pytest.mark.parametrize(
    ("notebook", "parameter"),
    [("01_diagnosis", "adapter"), ("02_penalty_tuning", "adapter"), ("04_evaluation", "adapters")],
)
@pytest.mark.timeout(180)
def test_the_adapter_is_a_pair_to_the_other_notebooks(notebook, parameter, adapter, pair, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    given: dict[str, Any] = {parameter: str(adapter) if parameter == "adapter" else [str(adapter)]}
    made = run_notebook(
        RunConfig(notebook=NOTEBOOKS / f"{notebook}.ipynb", out=tmp_path / "run", parameters=given, smoke=True)
    )
    rows = json.loads(made.results.read_text("utf-8"))["rows"]
    assert any(r["value"] is not None for r in rows)
    if parameter == "adapters":
        assert {"aligned", "ours"} <= {r["arm"] for r in rows}
    else:
        run = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
        ours = pair.with_aligned(str(adapter)).fingerprint
        assert ours in json.dumps(run)
        assert pair.fingerprint not in json.dumps(run)


@pytest.mark.timeout(180)
def test_prompts_without_responses_no_film_and_a_start(adapter, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    prompts = load_prompts(PromptConfig(source="embedded", limit=18))
    lines = [json.dumps({"prompt": p.prompt, "label": p.label}) for p in prompts]
    (tmp_path / "asked.jsonl").write_text("\n".join(lines), "utf-8")
    given = {
        "prompts": str(tmp_path / "asked.jsonl"), "film_every": 0, "compared": [], "utility_from": "aligned",
        "start": str(adapter), "arm_values": ["clip_percentile: 95", "penalise_rest: true", "retention: measured"],
    }  # fmt: skip
    made = run_notebook(
        RunConfig(notebook=NOTEBOOKS / "03_distillation.ipynb", out=tmp_path / "run", parameters=given, smoke=True)
    )
    page = made.html.read_text("utf-8")
    assert "No film was taken" in page
    card = (tmp_path / "run" / "adapter" / "README.md").read_text("utf-8")
    assert "clipped at its 95th percentile" in card
    assert "begun with the weights of an adapter (folder ours" in card
    made_here = load(tmp_path / "run" / "records" / "training", Adapter)
    settings: Any = made_here.settings
    assert settings["arm"]["penalise_rest"] is True
    assert len(settings["arm"]["retention"]) > 10
    compared = load(tmp_path / "run" / "records" / "comparison", ArmComparison)
    assert compared.arms == ("aligned", "start", "recovery")


def test_the_small_settings_reach_the_papers_arm_and_the_given_answers(tmp_path: Path) -> None:
    """What the smoke run of tests/test_notebooks.py passes to notebook 03 is what its records say."""
    smoke = smoke_parameters(NOTEBOOKS / "03_distillation.ipynb")
    assert (smoke["paper_steps"], smoke["utility_from"]) == (1, "given")
    made = run_notebook(
        RunConfig(
            notebook=NOTEBOOKS / "03_distillation.ipynb",
            out=tmp_path / "run",
            parameters={"compared": ["paper"], "film_every": 0},
            smoke=True,
        )
    )
    compared = load(made.folder / "records" / "comparison", ArmComparison)
    assert compared.budgets["paper"].startswith("1 steps of 32 rows")
    card = (made.folder / "adapter" / "README.md").read_text("utf-8")
    assert "Harmless and utility answers: those given with the prompts" in card
