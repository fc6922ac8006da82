"""Running a notebook: parameters are checked first, a folder is whole or not there, a failure says what and where."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.errors import refuses
from tests.small_notebook import PARAMETERS, WRITE, write_notebook
from workbench.__main__ import main
from workbench.core.errors import NotebookFailed, NotPresent, ParameterError, StorageFull, UnknownName
from workbench.core.store import Store
from workbench.prompts.loading import load_prompts
from workbench.running.kernel import _Cells
from workbench.running.parameters import declared_parameters, resolve_parameters, smoke_parameters
from workbench.running.runs import RunConfig, RunPaths, notebook_html, run_notebook


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*cells: str, out: str = "runs/x", said: list[str] | None = None, **config: Any) -> RunPaths:
    write_notebook(Path("small.ipynb"), *cells, smoke={"limit": 1})
    say = None if said is None else said.append
    return run_notebook(RunConfig(notebook="small.ipynb", out=out, **config), say=say)


def names(folder: str) -> list[str]:
    return sorted(p.name for p in Path(folder).iterdir())


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("limit", "24", 24), ("limit", 24.0, 24), ("prefix_tokens", "[0,5,10]", [0, 5, 10]),
        ("prefix_tokens", "0, 5,10", [0, 5, 10]), ("prefix_tokens", "7", [7]), ("prefix_tokens", "[]", []),
        ("prefix_tokens", (0, 5), [0, 5]), ("pair", "none", None), ("pair", "null", None),
        ("pair", "smollm2", "smollm2"), ("pair", Path("a/b"), "a/b"), ("strength", "1e-3", 0.001),
        ("strength", "-2", -2.0), ("strength", 2, 2.0), ("thinking", "true", True), ("thinking", "False", False),
    ],
)  # fmt: skip
def test_values_are_converted_to_the_declared_type(name: str, given: Any, value: Any) -> None:
    resolved = resolve_parameters(write_notebook(Path("small.ipynb")), {name: given})
    assert resolved == {name: value}
    assert type(resolved[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("limit", "three", "a whole number"), ("limit", "3.5", "a whole number"), ("limit", 3.5, "a whole number"),
        ("limit", True, "a whole number"), ("limit", None, "a whole number"),
        ("prefix_tokens", "a,b", "a list, each a whole number"),
        ("prefix_tokens", "[0,5", "a list, each a whole number"),
        ("prefix_tokens", 5, "a list, each a whole number"), ("pair", 5, "text or none"),
        ("strength", "nan", "a number"), ("strength", "much", "a number"), ("thinking", "maybe", "true or false"),
        ("thinking", 1, "true or false"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_named_with_what_is_wanted(name: str, given: Any, wanted: str) -> None:
    notebook = write_notebook(Path("small.ipynb"))
    refuses(lambda: resolve_parameters(notebook, {name: given}), ParameterError, f"'{name}'", wanted, f"{given!r}")


def test_parameters_are_declared_converted_and_small_for_smoke() -> None:
    declared = declared_parameters(write_notebook(Path("small.ipynb")))
    assert list(declared) == ["limit", "prefix_tokens", "pair", "strength", "thinking", "out"]
    assert (declared["pair"].type, declared["limit"].default) == ("Optional[str]", "3")
    assert declared["limit"].help == "how many prompts"
    cell = "names: list[str] = ['a']  # names\nseed = 0  # whole\nplace = None  # any\nshares: list = [0.5]  # numbers"
    notebook = write_notebook(Path("small.ipynb"), parameters=cell)
    given = {"names": "[a, b c]", "seed": "7", "place": "x", "shares": "1,0.5"}
    resolved = resolve_parameters(notebook, given)
    assert resolved == {"names": ["a", "b c"], "seed": 7, "place": "x", "shares": [1.0, 0.5]}
    notebook = write_notebook(Path("small.ipynb"), smoke={"limit": 1, "prefix_tokens": [0]})
    assert smoke_parameters(notebook) == {"limit": 1, "prefix_tokens": [0]}
    assert resolve_parameters(notebook, {"limit": "9"}, smoke=True) == {"limit": 9, "prefix_tokens": [0]}
    assert resolve_parameters(notebook, {}) == {}


def test_unknown_parameters_and_files_are_refused_first() -> None:
    refuses(lambda: run("open('ran', 'w').close()", parameters={"limt": 3}), ParameterError, "'limt'", "'limit'")
    assert names(".") == ["small.ipynb"]
    notebook = write_notebook(Path("small.ipynb"), "1", parameters="")
    refuses(lambda: resolve_parameters(notebook, {"limit": 3}), ParameterError)
    refuses(lambda: resolve_parameters("none.ipynb", {}), NotPresent, "'none.ipynb'")
    Path("text.ipynb").write_text("hello")
    refuses(lambda: resolve_parameters("text.ipynb", {}), ParameterError)
    Path("list.ipynb").write_text("[]")
    refuses(lambda: resolve_parameters("list.ipynb", {}), ParameterError, "4")


def test_a_run_leaves_one_whole_folder() -> None:
    said: list[str] = []
    work = "import sys\nprint('half way', file=sys.stderr)\nprint(sys.executable)"
    made = run("# Work", work, WRITE, said=said, parameters={"prefix_tokens": "0,5"}, smoke=True)
    assert (names("runs"), names("runs/x")) == (["x"], ["results.json", "run.json", "small.html", "small.ipynb"])
    assert made.results == Path("runs/x/results.json")
    assert json.loads(made.results.read_text())["rows"] == [{"name": "limit", "value": 1}]
    assert said[:4] == ["cell 1/3", "cell 2/3  Work", "    half way", "cell 3/3  Work"]
    notebook = made.notebook.read_text()
    assert sys.executable in notebook
    assert "partial" not in notebook
    assert '"runs/x\\n"' in notebook
    record = json.loads((made.folder / "run.json").read_text())
    assert record["resolved"]["parameters"] == {"limit": 1, "prefix_tokens": [0, 5], "out": "runs/x"}


def test_a_run_is_whole_or_the_earlier_one_stays() -> None:
    with pytest.raises(NotebookFailed) as caught:
        run("print('reached')", "1/0", WRITE)
    assert str(caught.value) == (
        "small.ipynb stopped in cell 3 of 4 with ZeroDivisionError: division by zero "
        "(as far as it ran: runs/x.failed/small.ipynb)"
    )
    assert not Path("runs/x").exists()
    assert "reached" in Path("runs/x.failed/small.ipynb").read_text()
    with pytest.raises(NotebookFailed, match="'x'"):
        run("from workbench.core.errors import UnknownName\nraise UnknownName(\"no pair 'x'\")")
    with pytest.raises(NotebookFailed, match="disk"):
        run("from workbench.core.errors import StorageFull\nraise StorageFull(28, 'the disk is full')")
    run(WRITE)
    refuses(lambda: run("1/0"), NotebookFailed)
    assert names("runs") == ["x", "x.failed"]
    assert json.loads(Path("runs/x/results.json").read_text())["rows"][0]["value"] == 3
    run(WRITE, parameters={"limit": 5})
    assert (names("runs"), json.loads(Path("runs/x/results.json").read_text())["rows"][0]["value"]) == (["x"], 5)


def test_reaching_the_end_is_not_enough() -> None:
    for cell, says in [
        ("1", r"results\.json"),
        ("open(out + '/results.json', 'w').write('{')", r"results\.json"),
        ("open(out + '/results.json', 'w').write('{\"schema\": 2, \"rows\": []}')", "rows"),
        ("import os; os._exit(1)", "cell 2 of 2"),
        ("import os; os.write(2, b'Bus error'); os._exit(1)", "Bus error"),
    ]:
        with pytest.raises(NotebookFailed, match=says):
            run(cell)
        assert not Path("runs/x").exists()


def test_limits_and_notebooks_without_results() -> None:
    refuses(lambda: run("import time; time.sleep(60)", cell_seconds=1), NotebookFailed, "cell 2", "1 seconds")
    notebook = write_notebook(Path("plain.ipynb"), "1", parameters="")
    made = run_notebook(RunConfig(notebook=notebook, out="runs/plain"))
    assert made.results is None
    assert names("runs/plain") == ["plain.html", "plain.ipynb", "run.json"]


def test_a_folder_that_is_not_a_run_is_never_replaced() -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("irreplaceable")
    refuses(lambda: run(WRITE, out="mine"), ParameterError)
    for out, says in ((".", r"'\.'"), ("mine/thesis.txt", r"thesis\.txt"), ("mine/thesis.txt/x", r"thesis\.txt")):
        with pytest.raises(ParameterError, match=says):
            run(WRITE, out=out)
    Path("run.json").write_text("{}")
    refuses(lambda: run(WRITE, out=str(Path.cwd())), ParameterError)
    refuses(lambda: run(WRITE, parameters={"out": "elsewhere"}), ParameterError, "--out")
    assert Path("mine/thesis.txt").read_text() == "irreplaceable"


def test_a_full_disk_is_named_and_the_earlier_run_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    run(WRITE)

    def full(_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("workbench.running.runs.notebook_html", full)
    refuses(lambda: run(WRITE, parameters={"limit": 5}), StorageFull, "disk")
    assert (names("runs"), json.loads(Path("runs/x/results.json").read_text())["rows"][0]["value"]) == (["x"], 3)


def start_a_long_run() -> subprocess.Popen[str]:
    write_notebook(Path("small.ipynb"), "import os\nopen('kernel', 'w').write(str(os.getpid()))", "while True: pass")
    words = (sys.executable, "-m", "workbench", "run", "small.ipynb", "--out", "runs/x")
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    said = []
    while line := process.stderr.readline():
        said.append(line)
        if line.startswith("cell 3/3"):
            return process
    process.communicate()
    raise AssertionError(f"the run ended too early: {''.join(said)}")


def kernel_is_gone() -> bool:
    kernel = int(Path("kernel").read_text())
    for _ in range(100):
        try:
            os.kill(kernel, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_ctrl_c_leaves_nothing_and_paths_are_the_callers() -> None:
    process = start_a_long_run()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().startswith("workbench: stopped")
    assert (said.strip().count("\n"), names("runs")) == (0, [])
    assert kernel_is_gone()
    Path("prompts.txt").write_text("hello")
    made = run("print(open('prompts.txt').read())", WRITE)
    assert "hello" in made.notebook.read_text()


def test_a_killed_run_leaves_no_half_folder_and_the_next_one_clears_up() -> None:
    process = start_a_long_run()
    process.kill()
    process.communicate(timeout=60)
    assert not Path("runs/x").exists()
    assert len(names("runs")) == 1
    assert kernel_is_gone()
    run(WRITE)
    assert names("runs") == ["x"]


def test_partial_folders_of_the_living_stay_and_of_the_killed_come_back() -> None:
    run(WRITE)
    os.rename("runs/x", "runs/x.partial-999999999-0123abcd-old")
    refuses(lambda: run("1/0"), NotebookFailed)
    assert json.loads(Path("runs/x/results.json").read_text())["rows"][0]["value"] == 3
    other = Path(f"runs/x.partial-{os.getppid()}-0123abcd")
    other.mkdir(parents=True)
    run(WRITE)
    assert other.exists()


FETCHES = re.compile(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)\s*=\s*["']?(?!data:)[^"'>]+|import\(|@import""")


def test_pages_fetch_nothing_and_need_no_library() -> None:
    kinds = '{"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/html": "<b>bold</b>"}'
    made = run("# Heading $x$", f"display({kinds}, raw=True)", WRITE)
    page = made.html.read_text()
    assert "<b>bold</b>" in page
    assert "Heading" in page
    assert FETCHES.findall(page) == []
    notebook = json.loads(made.notebook.read_text())
    assert "widgets" not in notebook["metadata"]
    outputs = [o for c in notebook["cells"] for o in c.get("outputs", [])]
    assert [list(o["data"]) for o in outputs if "data" in o] == [["text/html"]]
    assert "plotly.js v" not in page
    assert made.notebook.stat().st_size < 100_000
    plain = write_notebook(Path("plain.ipynb"), "# Nothing", parameters="")
    assert len(notebook_html(plain)) < 1_000_000


def test_progress_and_notes_reach_the_terminal() -> None:
    said: list[str] = []
    cells = _Cells(write_notebook(Path("small.ipynb")), said.append)
    bar = {"data": {"text/html": "<progress value=1>", "text/plain": "scoring: 1/8"}}
    for _ in range(100):
        cells.hear({"msg_type": "update_display_data", "content": bar})
    assert said == ["    scoring: 1/8"]
    assert PARAMETERS.startswith("from typing")
    cell = (
        "from workbench.core.progress import Progress\n"
        "with Progress(None, 0, '') as bar:\n    bar.note('gcg is <left> out')"
    )
    source = write_notebook(Path("noted.ipynb"), cell, WRITE)
    said: list[str] = []
    made = run_notebook(RunConfig(notebook=source, out="runs/noted"), say=said.append)
    assert "    gcg is <left> out" in said
    outputs = [o for c in json.loads(made.notebook.read_text("utf-8"))["cells"] for o in c.get("outputs", [])]
    assert not [o for o in outputs if o.get("name") == "stderr"]
    assert [o for o in outputs if "gcg is &lt;left&gt; out" in "".join(o.get("data", {}).get("text/html", ""))]


def test_names_may_hold_braces_and_be_links() -> None:
    Path("set{1}").mkdir()
    notebook = write_notebook(Path("set{1}") / "small{limit}.ipynb", WRITE)
    made = run_notebook(RunConfig(notebook=notebook, out="run_{limit}{"))
    assert sorted(p.name for p in made.folder.iterdir()) == [
        "results.json", "run.json", "small{limit}.html", "small{limit}.ipynb",
    ]  # fmt: skip
    run_notebook(RunConfig(notebook=notebook, out=Path("scratch/a")))
    for name, target in (("link", "scratch/a"), ("dangling", "scratch/none")):
        Path(name).symlink_to(target)
        run_notebook(RunConfig(notebook=notebook, out=Path(name), parameters={"limit": 8}))
        assert Path(name).is_symlink()
        assert json.loads(Path(target, "results.json").read_text("utf-8"))["rows"][0]["value"] == 8
    assert [p.name for p in Path().iterdir() if "partial" in p.name] == []
    Path("circle").symlink_to("circle")
    refuses(lambda: run_notebook(RunConfig(notebook=notebook, out="circle")), ParameterError, "circle")
    for long in (300, 250):  # the second is too long with the temporary folder's ending only
        refuses(lambda long=long: run_notebook(RunConfig(notebook=notebook, out="x" * long)), ParameterError, "xxx")


def test_a_notebook_needs_no_kernel_in_its_metadata() -> None:
    notebook = write_notebook(Path("small.ipynb"), WRITE)
    for kept in ({"language_info": {"name": "python"}}, {}):
        body = json.loads(notebook.read_text("utf-8"))
        notebook.write_text(json.dumps({**body, "metadata": kept}), "utf-8")
        assert declared_parameters(notebook)["limit"].default == "3"
        made = run_notebook(RunConfig(notebook=notebook, out=f"run{len(kept)}", parameters={"limit": 5}))
        assert made.results is not None


def test_a_cache_that_cannot_be_written_is_named_and_not_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("", "utf-8")
    for folder in ("file/cache", "/sys/workbench"):
        monkeypatch.setenv("WORKBENCH_CACHE", folder)
        assert Store.default().folder is None
        said = capsys.readouterr().err
        assert folder in said
        assert "WORKBENCH_CACHE" in said
    monkeypatch.setenv("WORKBENCH_CACHE", "cache")
    assert Store.default().folder == Path("cache/store")
    assert capsys.readouterr().err == ""


def test_arguments_that_are_no_text_or_no_name_are_refused_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    notebook = str(write_notebook(Path("small.ipynb"), WRITE))
    run = ["run", notebook, "--out"]
    for words in ([*run, "r\udce9n"], ["run", "n\udcff.ipynb"], [*run, "x" * 300]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert said.startswith("workbench: ")
        assert "Traceback" not in said
    refuses(lambda: load_prompts(source="x" * 5000), UnknownName)
    refuses(lambda: load_prompts(source="x" * 5000 + ".csv"), NotPresent)
