"""CONTRIBUTING's recipes, done: their blocks go into a copy of the repository, and what they say is run there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_house import tracked

BLOCK = re.compile(
    r"^(?:`(?P<file>[^`]+)`, (?:new file|after the line `(?P<after>[^\n]+)`):\n\n)?```\w+\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
MOST = {"Add a metric": 3, "Add a judge": 2, "Add an attack": 2, "Add a widget view": 4}
"""How many files a recipe may touch; the view's own tests come on top of its three files and its export."""
TESTS = (
    "test_metrics",
    "test_scoring",
    "test_judges",
    "test_attacks",
    "test_peaks",
    "test_window",
    "test_messages",
    "test_uses",
)
CHOSEN = "test_metrics or test_scoring or contract or capitals or by_name or peaks or public_names or snapshot or uses"
SEEN: Mapping[str, str] = {
    "Add a metric": """
from widgets import TokenLens, payload
from workbench.tracing.diagnosis.rows import diagnosis_rows
name = "renyi_aligned_base_nats"
assert (traces.scalars[name] >= traces.kl_aligned_base_nats - 1e-4)[traces.mask].all()
assert any(row.name == name and row.value > 0 for row in diagnosis_rows(diagnosis))
assert "Rényi" in str(wb.figures.curves(diagnosis, name).to_dict())
assert name in payload.SENT and name.encode() in payload.column(traces, 0, name="a", treatment="show", covered=False)
assert "Rényi, order 2" in TokenLens(traces, 0, quantity=name, search="renyi > 0.5").to_html()
""",
    "Add a judge": """
assert [j.p_harmful for j in judged.judgements] == [0.8, None] and judged.judgements[1].unscored
assert (judged.judge, judged.version) == ("length", "1")
""",
    "Add an attack": """
assert {a.attack for a in made.attempts} == {"capitals"}
assert all(a.messages[-1] == ("user", a.request.upper()) and a.label == "harmful" for a in made.attempts)
""",
    "Add a widget view": """
assert len(peaks.to_frame()) == 5 and "excess mass" in peaks.static().text
""",
}
"""What is true after each recipe's last block, which uses what was added."""


@dataclass(frozen=True)
class Done:
    """The copy with every recipe done, and the files that each one touched."""

    tree: Path
    touched: Mapping[str, list[str]]


def apply(section: str, tree: Path) -> tuple[list[str], str]:
    """Apply a recipe's blocks to a tree; return the files that it touched and the block that names no file."""
    touched, use = [], ""
    for block in BLOCK.finditer(section):
        file, after, text = block["file"], block["after"], block["text"]
        if file is None:
            use = text
            continue
        touched.append(file)
        place = tree / file
        assert place.exists() == (after is not None), f"{file}: is it new?"
        lines = place.read_text("utf-8").splitlines(keepends=True) if after else []
        at = [n for n, line in enumerate(lines, 1) if line.strip() == after] or [0]
        assert [bool(n) for n in at] == [after is not None], f"{file}: {after!r} is not one line of it"
        place.write_text("".join([*lines[: at[0]], text, *lines[at[0] :]]), "utf-8")
    return list(dict.fromkeys(touched)), use


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    tree = tmp_path_factory.mktemp("copy")
    for path in tracked(ROOT):
        place = tree / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    touched, uses = {}, []
    for n, (heading, seen) in enumerate(SEEN.items()):
        section = re.split(r"^##? ", page.split(f"## {heading}\n")[1], flags=re.MULTILINE)[0]
        touched[heading], use = apply(section, tree)
        uses.append(f"def test_uses_{n}():\n{textwrap.indent(use + seen, '    ')}")
    (tree / "tests" / "test_uses.py").write_text("\n\n".join(uses), "utf-8")
    return Done(tree, touched)


@pytest.mark.parametrize("heading", MOST)
def test_a_recipe_touches_few_files_and_passes_the_linter(heading: str, done: Done) -> None:
    own_tests = ["tests/test_peaks.py"] if heading == "Add a widget view" else []
    assert len(set(done.touched[heading]) - set(own_tests)) == MOST[heading]
    python = [name for name in done.touched[heading] if name.endswith(".py")]
    subprocess.run((str(Path(sys.executable).parent / "ruff"), "check", "-q", *python), cwd=done.tree, check=True)


@pytest.mark.slow
def test_what_the_recipes_say_runs(done: Done) -> None:
    files = [f"tests/{name}.py" for name in TESTS]
    words = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files, "-k", CHOSEN)
    environment = {**os.environ, "PYTHONPATH": str(done.tree), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(words, cwd=done.tree, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-4000:]
    skipped = re.findall(r"^SKIPPED .*", ran.stdout, re.MULTILINE)
    assert all("no Chromium" in line for line in skipped), skipped
