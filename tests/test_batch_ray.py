"""The same grid on Ray: fake GPUs on this machine, and a cluster of two nodes that are processes of it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.small_notebook import write_notebook

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed here: the extra `ray`"),
]

SEE = """\
import json, os, time
from pathlib import Path
time.sleep(1)
with open("ran.txt", "a") as ran:
    ran.write(f"{number} {os.environ['CUDA_VISIBLE_DEVICES']}\\n")
results = {"schema": 2, "rows": [{"name": "number", "value": number}]}
Path(out, "results.json").write_text(json.dumps(results))"""
PARAMETERS = 'number: int = 3  # a number\nout: str = "runs/small"  # the folder'
GRID = """\
gpus: 1
stages:
  one: {notebook: see.ipynb, grid: {number: [1, 2, 3]}}
  half: {notebook: see.ipynb, grid: {number: [4, 5]}, gpus: 0.5}
  none: {notebook: see.ipynb, grid: {number: [6]}, gpus: 0, needs: []}
"""
TRIED = """
from ray.cluster_utils import Cluster
for trial in range(3):
    try:
        {start}
        break
    except Exception as error:
        said = error
        ray.shutdown()
else:
    print("too slow", said)
    sys.exit(99)
"""
LOCAL = "address='local', num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False"
ONE_MACHINE = TRIED.format(start=f"ray.init({LOCAL})")
TWO_NODES = TRIED.format(
    start="cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=2, num_gpus=1)); "
    "other = cluster.add_node(num_cpus=2, num_gpus=1); ray.init(address=cluster.address, log_to_driver=False)"
)
RUN = """
from workbench.__main__ import main
code = main(["batch", "grid.yaml", "--out", "out", "--executor", "ray", "--threads", "1"])
"""
END = """
if "cluster" in globals():
    cluster.shutdown()
"""


def run(here: Path, *parts: str) -> tuple[int, str]:
    script = "\n".join(("import sys, os, time, ray", *parts, "ray.shutdown()", END, "sys.exit(code)"))
    environment = {n: v for n, v in os.environ.items() if n != "CUDA_VISIBLE_DEVICES"}
    environment |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        (sys.executable, "-c", script), cwd=here, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode == 99:
        pytest.skip(f"Ray's own processes do not start within its 15 seconds on this machine: {done.stdout[-200:]}")
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_notebook(tmp_path / "see.ipynb", SEE, parameters=PARAMETERS)
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path


def records(here: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in here.glob("out/*/*/cell.json")]


def check_gpus(here: Path) -> None:
    """Check that each cell, in its kernel, saw exactly the GPU that its record names."""
    inside = dict(line.split(" ") for line in (here / "ran.txt").read_text().splitlines())
    lines = {str(x["axes"]["number"]): x for x in records(here)}
    assert sorted(inside) == sorted(lines) == list("123456"), "each cell ran once"
    assert {k: x["gpu"] for k, x in lines.items()} == inside
    assert all(x["executor"] == "ray" and not x["cause"] for x in lines.values())
    assert all(len(inside[k].split(",")) == 1 and inside[k] != "" for k in "12345")
    assert inside["6"] == ""


def test_two_fake_gpus_each_cell_sees_exactly_its_own_and_a_second_batch_repeats_none(here: Path) -> None:
    code, said = run(here, ONE_MACHINE, RUN, RUN)
    assert code == 0, said
    check_gpus(here)
    assert {x["gpu"] for x in records(here)} == {"0", "1", ""}
    assert "6 done (6 before)" in said


def test_more_gpus_than_any_machine_has_is_said_before_the_start(here: Path) -> None:
    (here / "grid.yaml").write_text(GRID.replace("gpus: 1", "gpus: 3"))
    code, said = run(here, ONE_MACHINE, RUN)
    assert code == 2, said
    assert "asks for 3 GPUs a cell, and no machine of the cluster has more than 2" in said
    assert not (here / "out").exists()


def test_two_nodes_share_a_batch_and_a_node_that_goes_away_loses_no_cell(here: Path) -> None:
    leave = """
import threading
def leave():
    while not os.path.exists("ran.txt"):
        time.sleep(0.2)
    cluster.remove_node(other, allow_graceful=False)
threading.Thread(target=leave, daemon=True).start()
"""
    code, said = run(here, TWO_NODES, leave, RUN)
    assert code == 0, said
    lines = records(here)
    assert sorted(x["axes"]["number"] for x in lines if not x["cause"]) == [1, 2, 3, 4, 5, 6]


def test_two_nodes_are_both_used(here: Path) -> None:
    code, said = run(here, TWO_NODES, RUN)
    assert code == 0, said
    check_gpus(here)
    assert len({x["host"] for x in records(here) if x["gpu"]}) == 2
