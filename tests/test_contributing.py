"""CONTRIBUTING's recipes, done: their blocks go into a copy of the repository, and what they say is run there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.test_house import tracked

BLOCK = re.compile(
    r"^(?:`(?P<file>[^`]+)`, (?:new file|after the line `(?P<after>[^\n]+)`):\n\n)?```\w+\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A section of CONTRIBUTING, done in `tree`: the files that it touched, and the Python that uses the result."""

    tree: Path
    touched: tuple[str, ...]
    use: str

    def run(self, *words: str) -> str:
        """Run Python in the tree and return what it prints."""
        environment = {**os.environ, "PYTHONPATH": str(self.tree), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run((sys.executable, *words), cwd=self.tree, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    def uses(self, more: str) -> None:
        """Run the section's last block, and `more` after it, which asserts."""
        self.run("-c", f"{self.use}\n{more}")

    def passes(self, *tests: str) -> None:
        """Lint what was touched, and run these tests."""
        python = [name for name in self.touched if name.endswith(".py")]
        subprocess.run((str(Path(sys.executable).parent / "ruff"), "check", "-q", *python), cwd=self.tree, check=True)
        self.run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests)


def done(heading: str, root: Path, tree: Path) -> Recipe:
    """Apply a section's blocks to a new copy of the repository."""
    for path in tracked(root):
        place = tree / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    page = (root / "CONTRIBUTING.md").read_text("utf-8")
    section = re.split(r"^##? ", page.split(f"## {heading}\n")[1], flags=re.MULTILINE)[0]
    touched, use = [], ""
    for block in BLOCK.finditer(section):
        file, after, text = block["file"], block["after"], block["text"]
        if file is None:
            use = text
            continue
        touched.append(file)
        place = tree / file
        assert place.exists() == (after is not None), f"{file}: is it new?"
        if after is None:
            place.write_text(text, "utf-8")
            continue
        lines = place.read_text("utf-8").splitlines(keepends=True)
        (at,) = (n for n, line in enumerate(lines, 1) if line.strip() == after)
        place.write_text("".join([*lines[:at], text, *lines[at:]]), "utf-8")
    return Recipe(tree=tree, touched=tuple(dict.fromkeys(touched)), use=use)


def test_a_metric_takes_three_files_and_is_traced_drawn_and_searched(root: Path, tmp_path: Path) -> None:
    recipe = done("Add a metric", root, tmp_path)
    assert len(recipe.touched) == 3
    recipe.passes("tests/test_metrics.py", "tests/test_scoring.py", "-m", "not slow and not matrix")
    recipe.uses("""
from widgets import TokenLens, payload
from workbench.tracing.diagnosis.rows import diagnosis_rows
name = "renyi_aligned_base_nats"
assert (traces.scalars[name] >= traces.kl_aligned_base_nats - 1e-4)[traces.mask].all()
assert any(row.name == name and row.value > 0 for row in diagnosis_rows(diagnosis))
assert "Rényi" in wb.figures.curves(diagnosis).to_json(ensure_ascii=False)
assert name in payload.SENT and name.encode() in payload.column(traces, 0, name="a", treatment="show", covered=False)
lens = TokenLens(traces, 0, quantity=name, search="renyi > 0.5")
assert "Rényi, order 2" in lens.to_html()
""")


def test_a_judge_takes_two_files_and_judges_by_its_name(root: Path, tmp_path: Path) -> None:
    recipe = done("Add a judge", root, tmp_path)
    assert len(recipe.touched) == 2
    recipe.passes("tests/test_judges.py", "-k", "contract")
    recipe.uses("""
assert [j.p_harmful for j in judged.judgements] == [0.8, None] and judged.judgements[1].unscored
from workbench.judging.config import JudgeConfig
assert JudgeConfig.named("length").judge == judged.judge == "length"
""")


def test_an_attack_takes_two_files_and_makes_attempts_by_its_name(root: Path, tmp_path: Path) -> None:
    recipe = done("Add an attack", root, tmp_path)
    assert len(recipe.touched) == 2
    recipe.passes("tests/test_attacks.py", "-k", "capitals or by_name")
    recipe.uses("""
assert {a.attack for a in made.attempts} == {"capitals"}
assert all(a.messages[-1] == ("user", a.request.upper()) and a.label == "harmful" for a in made.attempts)
""")


def test_a_view_takes_three_files_and_its_export(root: Path, tmp_path: Path) -> None:
    recipe = done("Add a widget view", root, tmp_path)
    view = [name for name in recipe.touched if not name.startswith("tests/")]
    assert view == ["widgets/peaks.py", "widgets/peaks.js", "widgets/peaks.css", "widgets/__init__.py"]
    recipe.passes("tests/test_peaks.py", "tests/test_window.py", "-k", "peaks or public_names")
    recipe.uses("assert len(peaks.to_frame()) == 5 and 'excess mass' in peaks.static().text")
