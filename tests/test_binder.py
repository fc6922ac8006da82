"""Binder's files: by repo2docker's rules, and an environment made from them that runs the lessons and notebook 01."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BINDER = ROOT / "binder"
MEMORY_MIB = 2048
"""What a Binder has at most."""


def lines(name: str) -> list[str]:
    text = (BINDER / name).read_text("utf-8").splitlines()
    return [line.strip() for line in text if line.strip() and not line.startswith("#")]


def notebooks() -> list[Path]:
    return [*sorted((ROOT / "notebooks" / "lessons").glob("*.ipynb")), ROOT / "notebooks" / "01_diagnosis.ipynb"]


def test_the_files_are_those_that_repo2docker_reads() -> None:
    assert {p.name for p in BINDER.iterdir()} == {"requirements.txt", "runtime.txt", "postBuild"}
    assert re.fullmatch(r"python-3\.1[1-9]", lines("runtime.txt")[0])
    assert os.access(BINDER / "postBuild", os.X_OK)
    assert (BINDER / "postBuild").read_text("utf-8").startswith("#!/bin/bash\n")
    assert "-r ../requirements.txt" in lines("requirements.txt")
    assert any(line.endswith("/whl/cpu") for line in lines("requirements.txt")), "the build with CUDA has gigabytes"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment, made in repo2docker's order: requirements, then postBuild in the root."""
    folder = tmp_path_factory.mktemp("binder")
    tree = folder / "repository"
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
            (tree / name).chmod((ROOT / name).stat().st_mode)
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    own = folder / "env" / "bin" / "python"
    pip = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "0"]
    subprocess.run([*pip, "-r", tree / "binder" / "requirements.txt"], check=True, cwd=tree)
    path = f"{own.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([tree / "binder" / "postBuild"], check=True, cwd=tree, env={**os.environ, "PATH": path})
    return own


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_fresh_environment_runs_the_lessons_and_notebook_01(python: Path, tmp_path: Path) -> None:
    tree = python.parent.parent.parent / "repository"
    assert len(notebooks()) == 8
    built_for = subprocess.check_output([python, "-c", "import torch; print(torch.version.cuda)"], text=True)
    assert built_for.strip() == "None", "gigabytes of CUDA in a small image"
    for source in notebooks():
        out = tmp_path / source.stem
        watched = (
            "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
            "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
        )
        command = [python, "-m", "workbench", "run", str(source.relative_to(ROOT)), "--out", str(out)]
        done = subprocess.run(
            [python, "-c", watched, *command],
            cwd=tree,
            capture_output=True,
            text=True,
            env={**os.environ, "WORKBENCH_CACHE": str(tmp_path / "cache")},
        )
        assert done.returncode == 0, f"{source.name}: {done.stderr[-2000:]}"
        peak = int(done.stdout.rsplit("peak", 1)[1]) / 1024
        assert peak < MEMORY_MIB, f"{source.name} needs {peak:.0f} MiB"
