"""Every notebook of the repository: its form, and that it runs to its end with its own small settings."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import workbench
from tests.errors import refuses
from tests.test_results import results_pivot
from workbench.core.errors import WorkbenchError
from workbench.models.pair import PairConfig
from workbench.prompts.loading import PromptConfig
from workbench.running.parameters import declared_parameters, resolve_parameters, smoke_parameters
from workbench.running.runs import RunConfig, run_notebook

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LESSONS = sorted((ROOT / "notebooks" / "lessons").rglob("*.ipynb"))
SIMPLE = r"(str|int|float|bool|list\[(str|int|float)\])"
LINE = re.compile(rf"\w+: ({SIMPLE}|Optional\[{SIMPLE}\]) = [^#]+  # \S.*")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT / "notebooks"))


each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
each_one = pytest.mark.parametrize(
    "path", [p for p in (*NOTEBOOKS, *LESSONS) if ".ipynb_checkpoints" not in p.parts], ids=name_of
)


def read(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return body


def code(path: Path) -> list[str]:
    return ["".join(c["source"]) for c in read(path)["cells"] if c["cell_type"] == "code"]


def parameters_cell(path: Path) -> str:
    tagged = [c for c in read(path)["cells"] if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1, "one cell is tagged `parameters`"
    return "".join(tagged[0]["source"])


def test_outputs_are_stripped() -> None:
    words = (str(Path(sys.executable).parent / "nbstripout"), "--keep-id", "--verify")
    done = subprocess.run([*words, *map(str, (*NOTEBOOKS, *LESSONS))], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert {read(path)["metadata"]["kernelspec"]["name"] for path in (*NOTEBOOKS, *LESSONS)} == {"python3"}


@each_one
def test_parameters_are_simple_typed_and_explained(path: Path) -> None:
    lines = [s for s in parameters_cell(path).splitlines() if s.strip() and not s.startswith(("from ", "import ", "#"))]
    assert [s for s in lines if not LINE.fullmatch(s)] == []
    written = [n.target.id for n in ast.parse(parameters_cell(path)).body if isinstance(n, ast.AnnAssign)]  # type: ignore[union-attr]
    declared = declared_parameters(path)
    assert list(declared) == written, "papermill does not see every parameter"
    assert path in LESSONS or declared["out"].type == "str"
    defaults = {name: ast.literal_eval(p.default) for name, p in declared.items()}
    assert resolve_parameters(path, defaults) == defaults


@each_one
def test_smoke_settings_are_declared_parameters(path: Path) -> None:
    smoke = smoke_parameters(path)
    assert smoke
    assert resolve_parameters(path, {}, smoke=True) == smoke


@each_one
def test_cells_are_calls(path: Path) -> None:
    for source in code(path):
        if source == parameters_cell(path):
            continue
        assert len(source.splitlines()) <= 6, source
        assert not re.search(r"^\s*(async |def |class |for |while )", source, re.MULTILINE), source


@each_one
def test_of_this_project_a_notebook_imports_the_public_names_and_widgets(path: Path) -> None:
    nodes = [node for source in code(path) for node in ast.walk(ast.parse(source))]
    imported = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    more = {"numpy", "torch"} if path in LESSONS else set()
    assert imported <= {"workbench", "widgets", "typing", *more}
    used = {n.attr for n in nodes if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "wb"}
    assert used <= set(workbench.__all__)


def named_in_errors() -> set[str]:
    """Return the fields of the pair's and the prompts' configs that any error of the workbench names."""
    fields = {f.name for kind in (PairConfig, PromptConfig) for f in dataclasses.fields(kind)}
    found: set[str] = set()
    for path in (ROOT / "workbench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            refusing = called.endswith(("Error", "refuse", "Overflow"))
            if refusing or isinstance(node, ast.Raise):
                said = " ".join(str(c.value) for c in ast.walk(node) if isinstance(c, ast.Constant))
                found |= fields & set(re.findall(r"\b[a-z_]+\b(?==)|\b[a-z]+_[a-z_]+\b|(?<=give )label\b", said))
    return found


@each_notebook
def test_what_an_error_tells_to_set_is_a_parameter(path: Path) -> None:
    named = named_in_errors()
    assert {"label", "prompt_column", "response_column", "label_column", "on_long", "thinking", "dtype"} <= named
    from_python = {"source", "trust_remote_code", "offload_base"}  # `source` is `prompts`; the others are set in code
    also = {"adapter", "device_map", "experimental_quantised", "keep_duplicates", "template_mode"}
    assert (named | also) - from_python <= declared_parameters(path).keys()


def test_little_of_the_notebooks_is_assembly() -> None:
    """Imports, and making, filling and writing the report, are less than a tenth of the code (parameters aside)."""
    assembly = re.compile(r"(import|from) |report(\.keep\(|\.write\(| = )")
    lines = spent = 0
    for path in NOTEBOOKS:
        for source in code(path):
            if source != parameters_cell(path):
                lines += sum(bool(line.strip()) for line in source.splitlines())
                found = [node for node in ast.parse(source).body if assembly.match(ast.unparse(node))]
                spent += sum((node.end_lineno or 0) - node.lineno + 1 for node in found)
    assert spent < lines / 10, f"{spent} of {lines}"


@each_notebook
@pytest.mark.timeout(120)
def test_it_runs_headless_with_its_small_settings(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    made = run_notebook(RunConfig(notebook=path, out=tmp_path / "run", smoke=True, cell_seconds=60))
    assert results_pivot(made.results) > 0
    assert made.notebook.stat().st_size < 1_000_000
    assert "application/vnd.jupyter.widget-view+json" not in made.notebook.read_text("utf-8")
    page = made.html.read_text("utf-8")
    fetched = re.findall(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)\s*=\s*["']?(?!data:)(\w+:)?//[^"'>]+""", page)
    assert fetched == []


@pytest.mark.parametrize(
    "path", [NOTEBOOKS[0], *(pytest.param(p, marks=pytest.mark.slow) for p in NOTEBOOKS[1:])], ids=lambda p: p.stem
)
@pytest.mark.timeout(180)
def test_plain_papermill_runs_it_too(path: Path, tmp_path: Path) -> None:
    smoke = {**smoke_parameters(path), "out": str(tmp_path / "run")}
    given = [w for name, value in smoke.items() for w in ("-y", json.dumps({name: value}))]
    words = (sys.executable, "-m", "papermill", str(path), str(tmp_path / "out.ipynb"), *given, "--no-progress-bar")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "results.json").is_file()
    assert (tmp_path / "out.ipynb").stat().st_size < 1_000_000
    made = read(tmp_path / "out.ipynb")
    shown = [o["data"] for c in made["cells"] for o in c.get("outputs", []) if "data" in o]
    assert "widgets" not in made["metadata"], "a widget was made with nobody there to use it"
    assert [d for d in shown if "application/vnd.jupyter.widget-view+json" in d] == []
    figures = [d["application/vnd.plotly.v1+json"] for d in shown if "application/vnd.plotly.v1+json" in d]
    assert all(f["config"]["showSendToCloud"] is False for f in figures), "plotly offers to upload what it shows"


FREE = {"adapter", "adapters", "aligned", "arm_values", "base", "expert", "lookalikes", "opening", "out", "pair",
        "prefix_tokens", "prompts", "rater", "start", "system_prompt", "utility"}  # fmt: skip
"""Parameters that hold a path, a name of the user's own or a text of any kind (a preset's name is checked too)."""


@each_notebook
def test_every_word_is_checked_before_a_model_is_loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbench.ModelPair, "__init__", lambda *_: pytest.fail("a model was loaded"))
    declared = declared_parameters(path)
    first = code(path)[:2]
    assert "load" not in "".join(first)
    texts = {n for n, p in declared.items() if "str" in p.type}
    for name in sorted(texts - FREE | {"pair"}):
        wrong = ["exakt"] if declared[name].type.startswith(("list", "Optional[list")) else "exakt"
        run = {"__name__": name}
        exec(first[0], run)
        run[name] = wrong
        refuses(lambda run=run: exec(first[1], run), WorkbenchError, "exakt")  # type: ignore[misc]
    exec("\n".join(first), {"__name__": "as it is"})
