"""The wording of errors: the messages of mistakes that people make, in every room, as tests/messages.txt has them.

Everywhere else tests check an error's type, names and numbers. `python -m tests.test_messages` writes the file anew:
read its difference as an editor would.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import plotly.graph_objects as go

import workbench as wb
from tests.fakes import prompt_set
from tests.small_notebook import write_notebook
from tests.tiny_pair import tiny_models, tiny_pair, tiny_tokenizer
from workbench.core.records import Estimate, RunRecord, save
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.penalised import decode
from workbench.display.figures import save_figure
from workbench.evaluation.attacks import Prefill, attack, attack_config
from workbench.evaluation.capability import CapabilityConfig
from workbench.evaluation.metrics import EvaluateConfig
from workbench.evaluation.paper import paper_preset
from workbench.judging.calibration import calibrate
from workbench.judging.config import JudgeConfig
from workbench.judging.makers import check_name
from workbench.running.batch import plan_of, read_grid
from workbench.running.cache import chosen
from workbench.running.parameters import resolve_parameters
from workbench.training.config import values_of

SNAPSHOT = Path(__file__).with_name("messages.txt")


def written(name: str, content: str) -> str:
    Path(name).write_text(content, "utf-8")
    return name


def prompts_of(name: str, content: str, **settings: object) -> object:
    return wb.load_prompts(wb.PromptConfig(source=written(name, content), **settings))  # type: ignore[arg-type]


def grid_of(stage: str) -> object:
    return plan_of(read_grid(written("grid.yaml", f"stages: {{add: {{notebook: small.ipynb, {stage}}}}}")))


def mistakes() -> Mapping[str, Callable[[], object]]:
    """Return what people get wrong, each with a call that is refused, in the order of the rooms."""
    pair, some = tiny_pair(), prompt_set("the cat", "the dog")
    notebook = write_notebook(Path("small.ipynb"), "1")
    one = save(Estimate(value=1.0, low=None, high=None, n=1, unit="nats"), Path("record"))
    body = (shutil.copytree(one, "other") and Path("other/record.json")).read_text("utf-8")
    Path("other/record.json").write_text(json.dumps({**json.loads(body), "schema": 99}), "utf-8")
    Path("empty").mkdir()
    penalty = PenaltyConfig.family(-0.5)
    return {
        "no such record": lambda: wb.load(Path("nowhere"), Estimate),
        "another schema": lambda: wb.load(Path("other"), Estimate),
        "another record": lambda: wb.load(Path("record"), RunRecord),
        "a set's name": lambda: wb.load_prompts(wb.PromptConfig(source="everydey")),
        "a file's name": lambda: wb.load_prompts(wb.PromptConfig(source="promts.csv")),
        "broken lines": lambda: prompts_of("a.jsonl", '{"prompt": "a"}\n[1]\n{"prompt": 3}\n'),
        "a quote": lambda: prompts_of("b.csv", 'prompt,label\na,safe\n"b,safe\n'),
        "a label": lambda: prompts_of("c.csv", "prompt,label\na,safe\nb,maybe\n"),
        "a column": lambda: prompts_of("d.csv", "question,label\na,safe\n", prompt_column="qestion"),
        "no prompt left": lambda: prompts_of("e.csv", 'prompt\n" "\n""\n'),
        "a split": lambda: prompts_of("f.csv", "prompt,split\na,train\n", split="test"),
        "a preset": lambda: wb.PairConfig(preset="embeded"),
        "a model alone": lambda: wb.PairConfig(base="x"),
        "an empty folder": lambda: wb.load_pair(wb.PairConfig(base="empty", aligned="empty")),
        "a dtype": lambda: wb.load_pair(wb.PairConfig(preset="embedded", dtype="flot32")),
        "two vocabularies": lambda: wb.ModelPair.from_models(*tiny_models("llama", 300), tiny_tokenizer(320)),
        "a judge's name": lambda: JudgeConfig.named("refusals"),
        "a judge without model": lambda: JudgeConfig.named("classifier"),
        "a class that is no judge": lambda: check_name("json:JSONDecoder"),
        "a class that is not there": lambda: check_name("refusl:Judge"),
        "labels": lambda: calibrate(written("g.csv", "prompt,completion,label\nQ?,No.,what\n"), "refusal"),
        "responses": lambda: wb.trace(pair, prompt_set("a", response=None)),
        "a long prompt": lambda: wb.trace(pair, prompt_set("z" * 600)),
        "a layer": lambda: wb.probe_gradients(pair, some, wb.GradientConfig(layer=9), responses=[(7,)] * 2),
        "a strength": lambda: PenaltyConfig(strength=float("nan")),
        "a shape": lambda: PenaltyConfig(m=3),
        "an attack by penalty": lambda: decode(pair, some, DecodeConfig(penalty=penalty)),
        "prefix and prefill": lambda: DecodeConfig(prefix_tokens=2, prefill="Sure"),
        "an arm's name": lambda: wb.TrainConfig(arm="recovry"),
        "a batch": lambda: wb.TrainConfig(batch_size=8, micro_batch=3),
        "an arm's value": lambda: values_of(["gamma: 1", "gamma: 1"]),
        "an attack's name": lambda: attack_config("prefil"),
        "an attack's setting": lambda: attack_config("prefill", ks=[1]),
        "no prompt to attack": lambda: attack(pair, prompt_set("a", label="lookalike"), Prefill(k=(1,))),
        "a metric": lambda: EvaluateConfig(compared=("assr",)),
        "a task": lambda: CapabilityConfig(tasks=("mmmlu:file.jsonl",)),
        "a published table": lambda: paper_preset("paper/llama-3-8b/prefill"),
        "a figure's file": lambda: save_figure(go.Figure(), Path("x.gif")),
        "a parameter's name": lambda: resolve_parameters(notebook, {"limt": 3}),
        "a parameter's value": lambda: resolve_parameters(notebook, {"limit": "three"}),
        "a grid's key": lambda: grid_of("girds: {}"),
        "a grid's value": lambda: grid_of("grid: {limit: [1, two]}"),
        "a cell twice": lambda: grid_of("grid: {limit: [1, 1]}"),
        "a circle of stages": lambda: grid_of("needs: [add]"),
        "an age": lambda: chosen((), older_than="7 years"),
    }


def messages() -> str:
    """Return every mistake with the type and the message of its error; the working directory is a scratch folder."""
    lines = []
    for name, call in mistakes().items():
        try:
            call()
            lines.append(f"{name}\n    NOT REFUSED")
        except Exception as error:
            lines.append(f"{name}\n    {type(error).__name__}: {error}")
    return "\n".join(lines).replace(str(Path.cwd()), "HERE") + "\n"


def in_scratch(call: Callable[[], str]) -> str:
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return call()
        finally:
            os.chdir(here)


def test_messages_are_worded_as_in_the_snapshot() -> None:
    made, kept = in_scratch(messages), SNAPSHOT.read_text("utf-8")
    change = "\n".join(difflib.unified_diff(kept.splitlines(), made.splitlines(), "messages.txt", "now", lineterm=""))
    assert made == kept, f"python -m tests.test_messages writes it anew:\n{change}"
    assert "NOT REFUSED" not in made


if __name__ == "__main__":
    SNAPSHOT.write_text(in_scratch(messages), "utf-8")
