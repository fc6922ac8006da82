"""Batches: a grid is checked whole before it starts, what is finished stays finished, whoever is killed."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from tests.errors import refuses
from tests.small_notebook import write_notebook
from workbench import __main__ as cli
from workbench.core.errors import NotPresent, ParameterError, UnknownName, WorkbenchError
from workbench.running.batch import BatchConfig, BatchPaths, Plan, dry_run, plan_of, read_grid, run_batch
from workbench.running.batch.pools import visible_gpus

PARAMETERS = """\
from typing import Optional
number: int = 3  # a number
word: str = "a"  # a word
numbers: list[int] = [1]  # some numbers
place: Optional[str] = None  # a folder or file
out: str = "runs/small"  # the folder to write into"""

ADD = """\
import json, os
from pathlib import Path
rows = [{"name": "sum", "label": "harmful", "position": None, "value": number + 1.0, "low": 0.5, "high": 9.5,
         "n": 4, "unit": "nats"}, {"name": "sum", "label": "harmful", "position": 1, "value": 0.0}]
with open("ran.txt", "a") as ran:
    ran.write(f"{word}{number} {os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getpid()}\\n")
Path(out, "made").mkdir()
Path(out, "made", "number.txt").write_text(str(number))
Path(out, "results.json").write_text(json.dumps({"schema": 2, "rows": rows}))"""
"""Compute a sum, leave a folder for later stages, and a line for each time that the cell has really run."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    write_notebook(tmp_path / "add.ipynb", ADD, parameters=PARAMETERS, smoke={"number": 7})
    return tmp_path


def grid(text: str) -> Plan:
    Path("grid.yaml").write_text(text, "utf-8")
    return plan_of(read_grid("grid.yaml"))


def batch(text: str, **config: Any) -> tuple[BatchPaths, str]:
    Path("grid.yaml").write_text(text, "utf-8")
    said = io.StringIO()
    return run_batch(BatchConfig(grid="grid.yaml", out="out", **{"workers": 1, "threads": 1, **config}), stream=said), (
        said.getvalue()
    )


def ran() -> list[str]:
    """Return which cells have really run, in order."""
    path = Path("ran.txt")
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def records() -> list[dict[str, Any]]:
    """Return how cells ran: finished ones, failed ones, or both."""
    return [json.loads(p.read_text()) for p in sorted(Path("out").glob("cells/*/cell.json"))]


def test_a_stage_has_a_cell_for_each_combination() -> None:
    plan = grid(
        "stages: {add: {notebook: add.ipynb, parameters: {word: b}, grid: {number: [1, 2], numbers: [[1], []]}}}"
    )
    assert [dict(c.parameters) for c in plan.cells] == [
        {"word": "b", "number": 1, "numbers": [1]},
        {"word": "b", "number": 1, "numbers": []},
        {"word": "b", "number": 2, "numbers": [1]},
        {"word": "b", "number": 2, "numbers": []},
    ]
    assert (plan.out, [dict(c.axes) for c in plan.cells][1]) == (Path("runs/grid"), {"number": 1, "numbers": []})


CHAIN = """
stages:
  last:
    notebook: add.ipynb
    needs: [second]
    parameters: {place: "${first.out}/made", numbers: ["${second.number}", "${first.number}"]}
  second:
    notebook: add.ipynb
    needs: [first]
    inherit: [word]
    grid: {number: [10, 20]}
  first:
    notebook: add.ipynb
    grid: {word: [p, q]}
"""


def test_cells_follow_stages_lists_and_what_they_need() -> None:
    plan = grid("{smoke: true, stages: {add: {notebook: add.ipynb, cells: [{word: x}, {word: y, number: '4'}]}}}")
    assert [dict(c.parameters) for c in plan.cells] == [{"number": 7, "word": "x"}, {"number": 4, "word": "y"}]
    same = grid("{smoke: true, stages: {add: {notebook: add.ipynb, list: [{word: x}, {word: y, number: 4}]}}}")
    assert [c.key for c in same.cells] == [c.key for c in plan.cells], "'4' and 4 are the same whole number"
    plan = grid(CHAIN)
    assert [c.stage for c in plan.cells] == ["first"] * 2 + ["second"] * 4 + ["last"] * 4
    first, second, last = plan.cells[0], plan.cells[2], plan.cells[6]
    assert second.needs == (first.key,)
    assert last.needs == (second.key,)
    assert dict(last.parameters) == {
        "word": "p",
        "number": 10,
        "place": f"runs/grid/cells/{first.name}/made",
        "numbers": [10, 3],
    }
    assert last.inputs == (f"runs/grid/cells/{first.name}/made",)
    assert last.said() == "word=p, number=10"
    assert [c.name for c in plan.after(plan.cells[1])] == [c.name for c in plan.cells if c.axes["word"] == "q"][1:]
    both = "{notebook: add.ipynb, grid: {number: [1, 2]}}"
    plan = grid(f"stages: {{a: {both}, b: {both}, c: {{notebook: add.ipynb, needs: [a, b]}}}}")
    joined = [c for c in plan.cells if c.stage == "c"]
    assert [c.parameters["number"] for c in joined] == [1, 2]
    assert [[plan.by_key[n].axes["number"] for n in c.needs] for c in joined] == [[1, 1], [2, 2]]


def test_a_key_changes_with_code_parameters_files_and_what_is_needed_and_with_nothing_else(tmp_path: Path) -> None:
    text = CHAIN.replace("grid: {word", "parameters: {place: adapter}\n    grid: {word")
    Path("adapter").mkdir()
    Path("adapter/weights").write_text("one")
    before = [c.key for c in grid(text).cells]
    moved = [c.key for c in plan_of(read_grid("grid.yaml"), "elsewhere").cells]
    assert moved == before
    write_notebook(tmp_path / "add.ipynb", "# Words change nothing", ADD, parameters=PARAMETERS)
    assert [c.key for c in grid(f"title: T\nseconds: 9{text}").cells] == before
    Path("adapter/weights").write_text("two")
    after = [c.key for c in grid(text).cells]
    assert not set(after) & set(before), "every cell stands on what the first one read"
    write_notebook(tmp_path / "add.ipynb", ADD + "\n1", parameters=PARAMETERS)
    assert not {c.key for c in grid(text).cells} & set(after)


ONE = "stages: {add: {notebook: add.ipynb, %s}}"


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", ParameterError, "grid.yaml"),
        ("stages: [", ParameterError, "YAML"),
        ("stages: {}", ParameterError, "stages"),
        ("stagse: {a: {}}", UnknownName, "'stagse'.*'stages'"),
        ("stages: {Add me: {}}", ParameterError, "'Add me'"),
        ("stages: {a: {}, a: {}}", ParameterError, "line 1: 'a'"),
        (ONE % "girds: {}", UnknownName, "'add'.*'girds'.*'grid'"),
        ("stages: {a: {notebook: ad.ipynb}}", NotPresent, "'ad.ipynb'.*'add.ipynb'"),
        (ONE % "parameters: {numbr: 1}", UnknownName, "add.ipynb.*'numbr'.*'number'"),
        (ONE % "grid: {numbr: [1]}", UnknownName, "add.ipynb.*'numbr'.*'number'"),
        (ONE % "grid: {number: [1, two]}", ParameterError, "number='two'"),
        (ONE % "parameters: {word: false}", ParameterError, "'word'.*False"),
        (ONE % "grid: {number: 1}", ParameterError, r"'number'.*\[1\]"),
        (ONE % "grid: {number: []}", ParameterError, "'number'"),
        (ONE % "cells: []", ParameterError, "cells"),
        (ONE % "cells: [1]", ParameterError, "list"),
        (ONE % "grid: {number: [1, 1]}", ParameterError, "number=1"),
        (ONE % "grid: {number: [1, '1']}", ParameterError, "number=1"),
        (ONE % "parameters: {number: 1}, grid: {number: [2]}", ParameterError, "'number'"),
        (ONE % "cells: [{number: 1}], grid: {number: [2]}", ParameterError, "'number'.*cells.*grid"),
        (ONE % "parameters: {out: x}", ParameterError, "out"),
        (ONE % "needs: [sub]", UnknownName, "'sub'.*add"),
        (ONE % "needs: [add]", ParameterError, "add needs add"),
        (ONE % "seconds: 0", ParameterError, "seconds.*0"),
        (ONE % "memory_gb: much", ParameterError, "memory_gb.*'much'"),
        (ONE % "gpus: 1.5", ParameterError, "GPUs.*1.5"),
        (ONE % "smoke: 'yes'", ParameterError, "smoke.*'yes'"),
        (ONE % "parameters: {word: '${add.out}'}", ParameterError, "'add'"),
        (ONE % "parameters: {word: '${sub.out}'}", UnknownName, "add"),
        (ONE % "parameters: {word: '${add}'}", ParameterError, r"\$\{STAGE.out\}"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_named_before_anything_starts(text: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        grid(text)
    assert isinstance(caught.value, WorkbenchError)


TWO = "stages: {a: {notebook: add.ipynb, grid: {number: [1, 2]}}, b: {notebook: add.ipynb, needs: [a], %s}}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TWO % "parameters: {word: '${a.wrd}'}", "'a'.*'wrd'.*'word'"),
        (TWO % "inherit: [numbr]", "'numbr'.*'number'"),
        ("stages: {a: {notebook: add.ipynb, needs: [b]}, b: {notebook: add.ipynb, needs: [c]}, "
         "c: {notebook: add.ipynb, needs: [a]}}", "circle"),
    ],
)  # fmt: skip
def test_so_is_one_between_stages(text: str, says: str) -> None:
    with pytest.raises(WorkbenchError, match=says):
        grid(text)


def test_grids_that_are_not_there_or_agree_on_nothing_are_refused() -> None:
    refuses(lambda: read_grid("none.yaml"), NotPresent, "'none.yaml'")
    with pytest.raises(ParameterError, match=r"'c'.*'a'.*'b'"):
        grid(
            "stages: {a: {notebook: add.ipynb, grid: {number: [1]}}, b: {notebook: add.ipynb, grid: {number: [2]}}, "
            "c: {notebook: add.ipynb, needs: [a, b]}}"
        )


def test_gpus_are_those_named_and_more_than_there_are_is_refused_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, names in (("0,3", ("0", "3")), ("", ()), ("-1", ()), (" 2 ,GPU-8f", ("2", "GPU-8f")), ("1,-1,0", ("1",))):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
        assert visible_gpus() == names
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    Path("grid.yaml").write_text(ONE % "gpus: 2")
    refuses(lambda: run_batch(BatchConfig(grid="grid.yaml", out="out")), ParameterError, "'add'", "2", "GPUs", "1")
    assert not Path("out").exists()
    Path("grid.yaml").write_text(ONE % "memory_gb: 1000000")
    refuses(lambda: run_batch(BatchConfig(grid="grid.yaml", out="out")), ParameterError, "'add'", "1e+06 GB")


FAILS = """\
import os
assert number != 2 or os.path.exists("mend"), "<img src=x onerror=alert(1)>"
"""
FLOW = """
title: Flow
stages:
  add: {notebook: add.ipynb, grid: {number: [1, 2]}}
  then: {notebook: add.ipynb, needs: [add], parameters: {word: z, place: "${add.out}/made"}}
"""


def test_a_batch_runs_keeps_what_failed_skips_what_is_finished_and_retries(here: Path) -> None:
    write_notebook(here / "add.ipynb", FAILS, ADD, parameters=PARAMETERS)
    made, said = batch(FLOW)
    assert (made.done, made.skipped, made.failed, made.blocked) == (2, 0, 1, 1)
    assert ran() == ["a1", "z1"]
    plan = plan_of(read_grid("grid.yaml"), "out")
    one, two = plan.cells[:2]
    assert (plan.folder(one) / "results.json").exists()
    assert not plan.folder(two).exists()
    assert "AssertionError" in (plan.failed(two) / "add.ipynb").read_text()
    assert "cell 2/3" in plan.log(two).read_text()
    assert f"failed {two.name}: add.ipynb stopped in cell 2 of 3 with AssertionError" in said
    assert "4 cells: 2 done, 1 failed, 1 blocked" in said
    line = next(x for x in records() if x["key"] == one.key)
    assert (line["cause"], line["stage"], line["axes"], line["gpu"]) == ("", "add", {"number": 1}, "")
    assert line["peak_gb"] > 0.05

    page = made.page.read_text("utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert f'<a href="cells/{one.name}/add.html">' in page
    assert f'href="cells/{two.name}.failed/add.ipynb"' in page
    for link in re.findall(r'href="([^#"][^"]*)"', page):
        assert (made.folder / link).exists()
    assert "2.00 [0.500, 9.50], n = 4" in page
    assert "sum (nats), harmful" in page

    table = pd.read_parquet(made.results)
    assert list(table.columns[:4]) == ["cell", "key", "stage", "grid_number"]
    assert table[table["position"].isna()][["stage", "grid_number", "value"]].to_numpy().tolist() == [
        ["add", 1, 2.0],
        ["then", 1, 2.0],
    ]

    again, said = batch(FLOW)
    assert (again.done, again.skipped, again.failed) == (2, 2, 1)
    assert "started" not in said
    Path("mend").touch()
    mended, _ = batch(FLOW, retry=True)
    assert (mended.done, mended.skipped, mended.failed, mended.blocked) == (4, 2, 0, 0)
    assert ran() == ["a1", "z1", "a2", "z2"]
    assert not plan.failed(two).exists()


def test_the_renamed_folder_alone_says_that_a_cell_is_finished() -> None:
    text = ONE % "grid: {number: [1]}"
    batch(text)
    for other in ("grid.yaml", *(str(p.relative_to("out")) for p in Path("out").glob("*/*/cell.json"))):
        Path("out", other).unlink()
    shutil.rmtree("out/logs")
    made, _ = batch(text)
    assert (made.done, made.skipped) == (1, 1)
    assert ran() == ["a1"]


def test_what_a_needed_cell_did_not_make_is_said_with_what_it_made() -> None:
    made, said = batch(FLOW.replace("/made", "/adapter").replace("[1, 2]", "[1]"))
    assert (made.done, made.failed) == (1, 1)
    assert re.search(
        r"made no 'out/cells/add-\w+/adapter'; .* holds: add.html, add.ipynb, cell.json, made, results.json", said
    )


def test_limits_are_contained_to_the_cell(here: Path) -> None:
    write_notebook(
        here / "add.ipynb",
        "import time\nif number == 1:\n    held = b'x' * 900_000_000\n    time.sleep(60)",
        "if number == 2:\n    time.sleep(60)",
        ADD,
        parameters=PARAMETERS,
    )
    text = (
        "stages: {big: {notebook: add.ipynb, grid: {number: [1, 3]}, memory_gb: 0.7}, "
        "late: {notebook: add.ipynb, parameters: {number: 2}, seconds: 6}}"
    )
    made, _ = batch(text, workers=3)
    assert (made.done, made.failed) == (1, 2)
    causes = {x["parameters"]["number"]: (x["cause"], x["error"]) for x in records()}
    assert causes[1][0] == "memory"
    assert re.match(r"exceeded its memory: \d\.\d\d of 0\.7 GB, after \d+ s", causes[1][1])
    assert re.search(r"\(as far as it ran: out/cells/big-\w+\.failed/add\.ipynb\)\)$", causes[1][1])
    assert causes[2][0] == "seconds"
    assert causes[2][1].startswith("exceeded its time: stopped after 6 s")
    assert causes[3] == ("", "")
    assert sorted(p.name[3:4] + p.suffix for p in Path("out/cells").iterdir()) == ["-", "-.failed", "e.failed"]
    assert len(list(Path("out/cells").glob("big-*.failed/add.ipynb"))) == 1


def test_a_dry_run_starts_nothing_and_guesses_from_what_is_known(root: Path) -> None:
    text = "stages: {add: {notebook: add.ipynb, grid: {number: [1, 2]}}}"
    Path("grid.yaml").write_text(text)
    said = dry_run(BatchConfig(grid="grid.yaml", out="out", workers=2))
    assert "2 of 2 cells to run, 2 at once, into out" in said
    assert "time and memory of add: unknown" in said
    assert not Path("out").exists()
    batch(text.replace("[1, 2]", "[1]"))
    Path("grid.yaml").write_text(text)
    said = dry_run(BatchConfig(grid="grid.yaml", out="out", workers=2))
    assert "1 of 2 cells to run" in said
    assert "finished, skipped" in said
    assert "time and memory of add: 1 finished cell of its stage" in said
    assert ran() == ["a1"]
    notebook = root / "notebooks" / "01_diagnosis.ipynb"
    Path("grid.yaml").write_text(f"stages: {{see: {{notebook: '{notebook}', grid: {{pair: [smollm2, embedded]}}}}}}")
    said = dry_run(BatchConfig(grid="grid.yaml", out="out", workers=1))
    assert "a guess from 2 x 135M parameters, time to an order of magnitude" in said
    assert "CPU worker hours: about" in said


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("grid.yaml").write_text(ONE % "grid: {number: [1]}")
    assert cli.main(["batch", "grid.yaml", "--out", "out", "--dry-run"]) == 0
    assert "1 of 1 cells to run" in capsys.readouterr().out
    assert cli.main(["batch", "grid.yaml", "--out", "out"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split(":")[1].strip() == "1 done (0 before), 0 failed, 0 blocked"
    assert "comparison:         out/index.html" in said.out
    for words, says in (
        (["batch", "none.yaml"], "no grid file at 'none.yaml'"),
        (["batch", "grid.yaml", "--workers", "0"], "workers is 0"),
        (["batch", "grid.yaml", "--address", "auto"], "an address is that of a Ray cluster"),
        (["batch", "grid.yaml", "--out", "add.ipynb"], "is a file, not a folder"),
        (["batch", "grid.yaml", "--out", "."], "is not an earlier batch"),
    ):
        assert cli.main(words) == 2
        assert says in capsys.readouterr().err


SLOW = "import time; time.sleep(1.5)"
SIX = "stages: {add: {notebook: add.ipynb, grid: {number: [1, 2, 3, 4, 5, 6]}}}"


def start(text: str, *more: str, until: str) -> subprocess.Popen[str]:
    """Start a batch as a process and return it when a line of what it says holds `until`."""
    Path("grid.yaml").write_text(text)
    words = (sys.executable, "-m", "workbench", "batch", "grid.yaml", "--out", "out", "--workers", "2", *more)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    said = []
    while line := process.stderr.readline():
        said.append(line)
        if until in line:
            return process
    process.communicate()
    raise AssertionError(f"the batch ended too early: {''.join(said)}")


def below(process: int) -> list[psutil.Process]:
    return psutil.Process(process).children(recursive=True)


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=15)
    assert alive == []


def finished() -> list[int]:
    return sorted(int(line[1:]) for line in ran())


@pytest.mark.slow
def test_a_killed_driver_loses_no_finished_cell_and_repeats_none(here: Path) -> None:
    write_notebook(here / "add.ipynb", SLOW, ADD, parameters=PARAMETERS)
    process = start(SIX, until="done add-")
    family = below(process.pid)
    process.kill()
    process.communicate(timeout=60)
    assert_gone(family)
    before = ran()
    kept = [x["key"] for x in records()]
    made, _ = batch(SIX, workers=2)
    assert (made.done, made.failed) == (6, 0)
    assert len(kept) >= 1
    assert made.skipped >= len(kept)
    assert len(ran()) <= 6 + max(0, len(before) - made.skipped), "only what ran when it was killed runs again"
    assert set(finished()) == set(range(1, 7))
    assert [p.name for p in Path("out/cells").iterdir() if "partial" in p.name] == []


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_the_others_go_on(here: Path) -> None:
    write_notebook(here / "add.ipynb", SLOW, ADD, parameters=PARAMETERS)
    process = start(SIX, until="started add-")
    time.sleep(0.5)
    next(p for p in psutil.Process(process.pid).children() if "spawn_main" in p.cmdline()[-2]).kill()
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert (said.count("its worker was killed"), finished()) == (1, [1, 2, 3, 4, 5, 6])
    assert "6 done" in out


@pytest.mark.slow
def test_a_worker_that_always_dies_fails_its_cell_alone(here: Path) -> None:
    write_notebook(here / "add.ipynb", "import os, signal\nif number == 1:\n    os.kill(os.getppid(), signal.SIGKILL)",
                   ADD, parameters=PARAMETERS)  # fmt: skip
    made, said = batch("stages: {add: {notebook: add.ipynb, grid: {number: [1, 2]}}}")
    assert (made.done, made.failed) == (1, 1)
    assert "its worker was killed (often: the system's memory ran out)" in said
    assert "(try 3 of 3)" in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_cells_keeps_what_is_finished_and_says_how_to_resume(here, number) -> None:
    write_notebook(here / "add.ipynb", SLOW, ADD, parameters=PARAMETERS)
    process = start(SIX, until="done add-")
    family = below(process.pid)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"stopped: \d of 6 cells are finished; the same command resumes", said)
    assert "Traceback" not in said
    assert_gone(family)
    assert [p.name for p in Path("out/cells").iterdir() if re.search("partial|failed", p.name)] == []
    done = {x["key"] for x in records()}
    made, _ = batch(SIX, workers=2)
    assert (made.done, made.skipped) == (6, len(done))


@pytest.mark.slow
def test_two_batches_on_one_folder_share_the_work(here: Path) -> None:
    write_notebook(here / "add.ipynb", SLOW, ADD, parameters=PARAMETERS)
    one = start(SIX, until="started add-")
    two = start(SIX, until="another batch runs it")
    ends = [p.communicate(timeout=120) for p in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], ends
    assert finished() == [1, 2, 3, 4, 5, 6], "no cell was run twice"
    assert sorted(x["axes"]["number"] for x in records()) == [1, 2, 3, 4, 5, 6]
    assert all("6 done" in out for out, _ in ends)


@pytest.mark.slow
def test_each_cell_sees_its_own_gpu_and_shares_pack(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    write_notebook(here / "add.ipynb", SLOW, ADD, parameters=PARAMETERS)
    text = (
        "stages: {one: {notebook: add.ipynb, grid: {number: [1, 2]}}, "
        "half: {notebook: add.ipynb, grid: {number: [3, 4]}, gpus: 0.5}, "
        "both: {notebook: add.ipynb, grid: {number: [5]}, gpus: 2}, none: {notebook: add.ipynb, gpus: 0}}"
    )
    made, _ = batch(text, workers=4)
    assert made.done == 6
    seen = {x["name"].partition("-")[0] + str(x["axes"].get("number", "")): x["gpu"] for x in records()}
    assert {seen["one1"], seen["one2"]} == {"0", "3"}
    assert {seen["half3"], seen["half4"]} <= {"0", "3"}
    assert (seen["both5"], seen["none"]) == ("0,3", "")
    inside = dict(re.findall(r"^(a\d) (\S*) \d+$", Path("ran.txt").read_text(), re.MULTILINE))
    assert inside["a5"] == "0,3", "the kernel sees what the record says"


LOAD = """\
import os, torch, workbench as wb
assert "left" not in globals() and "LEFT" not in os.environ, "an earlier notebook shows through"
assert torch.get_default_dtype() == torch.float32
pair = wb.load_pair(preset="embedded")
left, os.environ["LEFT"] = 1, "1"
torch.set_default_dtype(torch.float64)
with pair.model("aligned") as model:
    where = next(model.parameters())
    sound = float(where.sum())
    if number == 2:
        with torch.no_grad():
            where.add_(1.0)
with open("pairs.txt", "a") as file:
    file.write(f"{number} {os.getpid()} {id(pair)} {sound:.3f}\\n")
torch.set_default_dtype(torch.float32) if number == 3 else None
"""


@pytest.mark.slow
def test_a_warm_worker_keeps_its_pair_and_forgets_the_notebook(here: Path) -> None:
    write_notebook(here / "add.ipynb", LOAD, ADD, parameters=PARAMETERS)
    text = "stages: {add: {notebook: add.ipynb, grid: {number: [0, 1, 2, 3]}}}"
    made, said = batch(text, warm=True)
    assert (made.done, made.failed) == (4, 0), said
    lines = [line.split() for line in Path("pairs.txt").read_text().splitlines()]
    assert len({kernel for _, kernel, _, _ in lines}) == 1, "one kernel for all"
    pairs = [pair for _, _, pair, _ in lines]
    assert pairs[0] == pairs[1] == pairs[2], "one loaded pair"
    assert pairs[3] != pairs[2], "one that a notebook has changed is loaded afresh"
    assert len({total for *_, total in lines}) == 1, "every notebook finds the pair as it was shipped"


def test_a_grid_over_seeds_has_a_page_with_a_number_for_each() -> None:
    write_notebook(
        Path("draw.ipynb"),
        "import json, pathlib\n"
        "rows = [{'name': 'drawn', 'seed': seed, 'value': seed + 0.25, 'n': 1}]\n"
        "pathlib.Path(out, 'results.json').write_text(json.dumps({'schema': 2, 'rows': rows}))",
        parameters='seed: int = 0  # of the draw\nout: str = "runs/x"  # folder',
    )
    made, said = batch("stages: {draw: {notebook: draw.ipynb, grid: {seed: [3, 8]}}}")
    assert (made.done, made.failed) == (2, 0), said
    page = made.page.read_text("utf-8")
    assert "3.25" in page
    assert "8.25" in page


@pytest.mark.slow
def test_a_warm_worker_survives_a_failing_and_a_dying_cell(here: Path) -> None:
    write_notebook(
        here / "add.ipynb", "import os\nif number == 2:\n    1 / 0\nif number == 3:\n    os._exit(1)", ADD,
        parameters=PARAMETERS,
    )  # fmt: skip
    made, said = batch("stages: {add: {notebook: add.ipynb, grid: {number: [1, 2, 3, 4]}}}", warm=True)
    assert (made.done, made.failed) == (2, 2)
    assert "ZeroDivisionError" in said
    assert "its kernel died" in said
    assert (finished(), len({x["worker"] for x in records()})) == ([1, 4], 1)


@pytest.mark.slow
def test_a_cell_that_is_too_large_beside_what_a_warm_kernel_keeps_gets_a_kernel_of_its_own(here: Path) -> None:
    write_notebook(
        here / "add.ipynb",
        "import sys, time\nif number == 1:\n    sys.left = b'x' * 500_000_000",
        "if number == 2:\n    held = b'x' * 600_000_000\n    time.sleep(2)",
        ADD,
        parameters=PARAMETERS,
    )
    text = "stages: {add: {notebook: add.ipynb, grid: {number: [1, 2]}, memory_gb: 1.5}}"
    made, said = batch(text, warm=True)
    assert (made.done, made.failed) == (2, 0), said
    kernels = [line.split()[-1] for line in Path("ran.txt").read_text().splitlines()]
    assert len(set(kernels)) == 2
