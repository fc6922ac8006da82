"""The house rules: who may import whom, what loads no torch, how long a file may be, what may not stand in one."""

from __future__ import annotations

import importlib.metadata
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import workbench

BIN = Path(sys.executable).parent


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)


def tracked(root: Path, *kinds: str) -> list[Path]:
    """Return the files that are in git or would be added; where there is no git, all but the hidden ones."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=root)
    if listed.returncode == 0:
        paths = [root / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [p for p in root.rglob("*") if not re.search(r"/(\.|runs/|build/)", f"/{p.relative_to(root)}")]
    return sorted(p for p in paths if p.is_file() and (not kinds or p.suffix in kinds))


@pytest.mark.parametrize(
    "script",
    [
        "import workbench",
        "import workbench; workbench.WorkbenchError; workbench.load; workbench.TraceSet",
        "import widgets",
        "import workbench.__main__, workbench.models.presets, workbench.running.runs, workbench.running.parameters",
        "import widgets.live_probe, widgets.linked, widgets.penalty_dial; sys.modules.pop('IPython', None)",
        "import workbench.core.passages, workbench.judging, workbench.models.pieces, workbench.tracing.diagnosis",
        "import workbench.display.views, workbench.display.figures, workbench.display.report, workbench.evaluation",
        "from workbench.prompts.loading import *; load_prompts(PromptConfig(source='everyday'));"
        "assert not {'pandas', 'datasets'} & set(sys.modules)",
    ],
)
def test_this_loads_no_torch(script: str, root: Path) -> None:
    heavy = "[m for m in ('torch', 'transformers', 'peft', 'IPython') if m in sys.modules]"
    done = run(sys.executable, "-c", f"import sys; {script}; print({heavy})", cwd=root)
    assert done.stdout == "[]\n", done.stderr


def test_public_names_version_and_files_keep_the_rules(root: Path) -> None:
    assert len(" ".join(workbench._VERBS.values()).split()) <= 50
    modules = {m.name for m in pkgutil.iter_modules(workbench.__path__)}
    assert not modules & set(workbench.__all__), "a module of this name would hide the public one"
    for name in workbench.__all__:
        doc = getattr(workbench, name).__doc__ or ""
        assert re.match(r"[A-Z].*[.:]", doc), f"{name} has no docstring of its own: {doc!r}"
    with pytest.raises(AttributeError, match="'nonsense'"):
        _ = workbench.nonsense
    assert importlib.metadata.version("deep-alignment-workbench") == workbench.__version__
    files = [p for p in tracked(root, ".py", ".js", ".css") if p.relative_to(root).parts[0] in ("workbench", "widgets")]
    lengths = {str(p.relative_to(root)): len(p.read_text("utf-8").splitlines()) for p in files}
    assert {name: n for name, n in lengths.items() if n > 700} == {}
    bad = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [p for p in tracked(root, ".py") if p.stem in bad] == []
    getters = [p.name for p in tracked(root / "workbench", ".py") if re.search(r"def get_", p.read_text("utf-8"))]
    assert getters == []


_ROOTS = (r"work/", r"root/", r"home/[a-z]", r"Users/", r"opt/(pypi|wheels)")
_HOSTS = ("pypi", "pythonhosted")
PLACES = re.compile("|".join([f"/{r}" for r in _ROOTS] + [rf"{h}\.org" for h in _HOSTS] + [r"C:\\Users"]))


def test_no_machines_path_and_no_registrys_host_in_any_file(root: Path) -> None:
    found = []
    for path in tracked(root):
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # weights
        found += [f"{path.relative_to(root)}: {m[0]}" for m in PLACES.finditer(text)]
    assert found == []


def test_imports_packages_and_requirements_keep_the_rules(root: Path) -> None:
    done = run(str(BIN / "lint-imports"), "--no-logo", "--no-cache", cwd=root)
    assert done.returncode == 0, done.stdout
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    lines = [line for group in project["project"]["optional-dependencies"].values() for line in group]
    lines += (root / "requirements.txt").read_text("utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith(("#", "deep-alignment-workbench["))]
    assert "torch==2.13.0" in (root / "constraints.txt").read_text("utf-8").splitlines()
    assert [line for line in lines if not re.search(r">=.*,<", line)] == []
    assert [p.name for p in root.glob("requirements*.txt")] == ["requirements.txt"]
    listed = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    there = {p.parent.relative_to(root) for p in tracked(root, ".py") if p.name == "__init__.py"}
    there = {".".join(p.parts) for p in there if p.parts and p.parts[0] in ("workbench", "widgets")}
    assert set(listed) - {"workbench.notebooks"} == there


def test_the_readme_and_the_axes_name_what_is_there(root: Path) -> None:
    readme = (root / "README.md").read_text("utf-8")
    ci = (root / ".ci" / "run").read_text("utf-8")
    assert "The tests: `make test`" in readme
    assert len(readme.split()) <= 1300
    assert re.search(r"^make test\b", ci, re.MULTILINE)
    assert re.search(r"^make check$", ci, re.MULTILINE)
    targets = re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"`?make ([a-z][a-z-]*)", readme))
    assert {"demo", "lab", "test"} <= named <= set(targets)
    table = (root / "CONTRIBUTING.md").read_text("utf-8").split("## Where to change what")[1].split("## Words")[0]
    named = re.findall(r"`(workbench/[a-z_/.0-9]+)`", table)
    assert len(named) > 8
    assert [n for n in named if not (root / n).exists()] == []
    from workbench.core import shapes

    legend = re.findall(r"^    ([a-z]+(?:, [a-z]+)*)  ", shapes.__doc__ or "", re.MULTILINE)
    table = (root / "CONTRIBUTING.md").read_text("utf-8").split("## Axes")[1]
    for names in legend:
        assert f"| {names} |" in table, names


def test_no_name_is_undefined(root: Path) -> None:
    """mypy and ruff's own run leave undefined names out, because the axis names of jaxtyping look like them."""
    folders = ("workbench", "widgets", "recipes", "benchmarks", "tests", "docs")
    said = run(str(BIN / "ruff"), "check", "--select", "F821", "--output-format", "json", *folders, cwd=root).stdout
    found = json.loads(said)
    lines = [(f, Path(f["filename"]).read_text("utf-8").splitlines()[f["location"]["row"] - 1]) for f in found]
    axes = re.compile(r'(ndarray|Tensor), *"|^\s*"[\w *]+"\]')
    assert [f"{f['filename']}: {f['message']}" for f, line in lines if not axes.search(line)] == []
