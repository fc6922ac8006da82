"""The wheel: everything a user needs is in it, and it works outside the repository with an environment of its own."""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of what git tracks, with the build tools that are installed."""
    root = Path(__file__).resolve().parents[1]
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    names = subprocess.run(("git", "ls-files", "-co", "--exclude-standard"), cwd=root, capture_output=True, text=True)
    for name in filter(lambda name: (root / name).is_file(), names.stdout.splitlines()):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((root / name).read_bytes())
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), str(tree))
    subprocess.run(pip, check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    return next(out.glob("*.whl"))


def run(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"WORKBENCH_CACHE": str(folder / "cache"), "JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter")}
    return subprocess.run((str(python), "-m", "workbench", *words), cwd=folder, env=env, capture_output=True, text=True)


def test_the_wheel_holds_every_module_and_data_file_and_no_recipe(wheel: Path, root: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(("git", "ls-files", "workbench", "widgets"), cwd=root, capture_output=True, text=True)
    wanted = {n for n in tracked.stdout.splitlines() if not n.endswith(".md") and (root / n).is_file()}
    assert wanted - held == set()
    assert {f"workbench/{p.relative_to(root)}" for p in (root / "notebooks").glob("*.ipynb")} <= held
    assert {n.split("/")[0] for n in held if not n.startswith("deep_alignment")} == {"workbench", "widgets"}


def test_the_dependencies_are_ranges_so_that_a_torch_that_is_there_stays(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
    said = email.message_from_bytes(archive.read(metadata)).get_all("Requires-Dist") or []
    plain = [r for r in said if "extra ==" not in r]
    assert any(r.startswith("torch") for r in plain)
    assert [r for r in plain if "==" in r] == []


def test_the_installed_wheel_copies_and_runs_notebooks_by_name(wheel: Path, tmp_path: Path) -> None:
    """An environment with the wheel alone; its dependencies are those of this one."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    (work := tmp_path / "work").mkdir()
    copied = run(python, work, "notebooks", "mine")
    assert (copied.returncode, (work / "mine" / "lessons").is_dir()) == (0, True), copied.stderr
    done = run(python, work, "run", "01_diagnosis", "--smoke", "--out", "runs/one")
    assert done.returncode == 0, done.stderr
    assert json.loads((work / "runs" / "one" / "results.json").read_text("utf-8"))["rows"]
    refused = run(python, work, "diagnose", "embedded", "--prompts", "nowhere.csv", "--out", "runs/two")
    assert refused.returncode == 2, refused.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_pip_installs_the_wheel_into_an_empty_environment(wheel: Path, tmp_path: Path, root: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = (str(python), "-m", "pip", "install", "-q", "-c", str(root / "constraints.txt"), str(wheel))
    subprocess.run(pip, check=True)
    for verb in ("diagnose", "evaluate"):
        done = run(python, tmp_path, verb, "--smoke", "--out", f"runs/{verb}")
        assert done.returncode == 0, done.stderr
