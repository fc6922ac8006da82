"""What a notebook cannot use is refused before weights are read: its cells run as a user runs them, up to there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.notebook_cells import run_cells
from tests.tiny_pair import save_model, tiny_model, tiny_tokenizer
from workbench.core import errors
from workbench.core.errors import WorkbenchError
from workbench.models import sources

NOTEBOOKS = ("01_diagnosis", "02_penalty_tuning", "03_distillation", "04_evaluation")
SHARED: tuple[dict[str, Any], ...] = (
    {"limit": 0}, {"max_tokens": 0}, {"prefix_tokens": []}, {"seed": -1}, {"out": ""}, {"thinking": True},
    {"template_mode": "sharde"}, {"template_date": "Monday"}, {"pair": "embeded"}, {"prompts": "no/such.jsonl"},
    {"adapter": "no/such"}, {"base": "no/such", "aligned": "nor/this"}, {"base": "no/such"}, {"label": "harmfull"},
    {"dtype": "float8"}, {"device_map": "cuda:9"}, {"harmful_text": "hide"}, {"experimental_quantised": "3bit"},
    {"on_long": "squeeze"}, {"prompts": "{harmless}", "label_column": "kind"}, {"prompts": "{harmless}", "limit": -1},
)  # fmt: skip
OWN: Mapping[str, tuple[dict[str, Any], ...]] = {
    "01_diagnosis": (
        {"prefix_tokens": [-1]}, {"max_tokens": 20}, {"max_tokens": 5}, {"opening_tokens": -1}, {"base_floor": 2.0},
        {"trajectory": "forced"}, {"prompts": "{unanswered}", "trajectory": "teacher_forced"}, {"ranking": "weight"},
    ),
    "02_penalty_tuning": (
        {"methods": []}, {"methods": ["one"]}, {"strengths": []}, {"strengths": [-1.0]}, {"m": 0}, {"gamma": -1.0},
        {"shapes": ["flat"]}, {"plausibility": 2.0}, {"asr_at_most": 20.0}, {"example": 0}, {"example": 1000},
        {"branches": -1}, {"position": 0}, {"expert": "no/such"}, {"prefix_tokens": [-1]}, {"judge": "refusl"},
        {"judge": "guard:no/such"}, {"prompts": "{harmless}"}, {"held_out_limit": 0},
    ),
    "03_distillation": (
        {"steps": 0}, {"arm": "recovry"}, {"arm_values": ["rank: 0"]}, {"arm_values": ["x: 1"]}, {"refusals": 0},
        {"compared": ["refusal_sft"] * 2}, {"micro_batch": 3}, {"harmful_share": 2.0}, {"processes": 0},
        {"film_every": -1}, {"scales": [0.0]}, {"start": "no/such"}, {"batch_size": 0}, {"kl_budget_nats": -1.0},
        {"seeds": []}, {"seeds": [1, 1]}, {"paper_steps": 0}, {"opening": "Sure", "harmful_from": "given"},
        {"prefix_tokens": [0]}, {"utility": "no/such"}, {"experimental_sharded": True}, {"prompts": "{harmless}"},
        {"prompts": "{unanswered}", "harmful_from": "given"}, {"refused_teacher": "me"}, {"harmful_from": "nowhere"},
    ),
    "04_evaluation": (
        {"adapters": ["no/such"]}, {"adapters": ["completed"] * 2}, {"penalties": [-2.0]}, {"penalties": [1.0] * 2},
        {"temperatures": [-1.0]}, {"temperatures": []}, {"samples": 0}, {"tuning_steps": 0}, {"attacks": []},
        {"attacks": ["prefil"]}, {"attacks": ["none"] * 2}, {"judges": []}, {"judges": ["refusal"] * 2},
        {"judges": ["guard"]}, {"judges": ["classifier:no/such"]}, {"capability": ["mmlu:no/such"]},
        {"capability_limit": 0}, {"prefix_tokens": ["-1"]}, {"prefix_tokens": ["five"]}, {"rate": True, "rater": ""},
        {"lookalikes": "no/such"}, {"engine": "experimental_vllm"}, {"engine": "vlm"}, {"against": "nobody"},
        {"gcg_budget": "long"}, {"paper": "paper/llama"},
    ),
}  # fmt: skip
AFTERWARDS = {
    "ContextOverflow": "context lengths are known with the models; `fit_prompts` asks them before anything is computed",
    "NonFiniteLogits": "a fault of the weights", "NonFiniteLoss": "a fault of the training", "ProcessFailed": "a crash",
    "RecordError": "notebooks load no saved record", "StorageFull": "a disk that fills up",
    "DownloadError": "a connection that breaks", "NotebookFailed": "what the command line makes of these errors",
}  # fmt: skip


class WeightsRead(BaseException):
    """Raised in place of reading weights."""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Prompt files by kind; weights cannot be read, and runs are written to a folder of their own."""

    def read(*_: Any, **__: Any) -> None:
        raise WeightsRead

    monkeypatch.setattr(sources, "load_weights", read)
    monkeypatch.chdir(tmp_path)
    labels = {"harmless": ("harmless",), "unanswered": ("harmful", "harmless")}
    for name, kinds in labels.items():
        rows = [{"prompt": f"How do I mend chair {i}?", "label": kinds[i % len(kinds)]} for i in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return {name: str(tmp_path / f"{name}.jsonl") for name in labels}


def refused(notebook: str, given: Mapping[str, Any], files: Mapping[str, str]) -> WorkbenchError | None:
    """Return the error that a notebook raises before weights are read, or None where they would be."""
    given = {k: v.format(**files) if isinstance(v, str) else v for k, v in {"out": "unwritten", **given}.items()}
    try:
        run_cells(notebook, given)
    except WeightsRead:
        return None
    except WorkbenchError as error:
        return error
    raise AssertionError("the notebook ended and read no weights")


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_impossible_values_are_refused_before_weights_are_read(notebook: str, files: dict[str, str]) -> None:
    assert refused(notebook, {}, files) is None
    late = [case for case in (*SHARED, *OWN[notebook]) if refused(notebook, case, files) is None]
    assert late == []


def test_every_error_of_a_user_is_met_before_weights_are_read(files: dict[str, str], tmp_path: Path) -> None:
    other = tiny_tokenizer(corpus=("quite another text about mountains, rivers and their valleys",))
    for name, tokenizer in (("one", tiny_tokenizer()), ("other", other), ("bare", tiny_tokenizer(chat=False))):
        save_model(tmp_path / name, tiny_model("llama", 320), tokenizer)
    save_model(tmp_path / "small", tiny_model("llama", 100), tiny_tokenizer())
    inputs: Mapping[str, dict[str, Any]] = {
        "ParameterError": {"limit": 0},
        "UnknownName": {"pair": "embeded"},
        "NotPresent": {"base": "no/such", "aligned": "one"},
        "PromptError": {"prompts": files["unanswered"], "trajectory": "teacher_forced"},
        "PairError": {"base": "one", "aligned": "small"},
        "TokenizerMismatch": {"base": "one", "aligned": "other"},
        "MissingChatTemplate": {"base": "one", "aligned": "bare"},
    }
    for name, given in inputs.items():
        error = refused("01_diagnosis", given, files)
        assert type(error).__name__ == name, (name, error)
    all_of_them = {n for n, e in vars(errors).items() if isinstance(e, type) and issubclass(e, WorkbenchError)}
    assert all_of_them - {"WorkbenchError"} == {*inputs, *AFTERWARDS}
