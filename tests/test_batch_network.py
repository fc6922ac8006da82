"""A batch whose network goes away in the middle: of its own machine, and between two machines of a Ray cluster.

The machines are network namespaces, joined by a cable (veth) that is then cut.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.small_notebook import write_notebook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = """\
import json, os, time
from pathlib import Path
with open("ran.txt", "a") as ran:
    ran.write(f"{number}\\n")
time.sleep(seconds)
results = {"schema": 2, "rows": [{"name": "number", "value": number}]}
Path(out, "results.json").write_text(json.dumps(results))"""
PARAMETERS = 'number: int = 3  # a number\nseconds: int = 6  # that it takes\nout: str = "runs/small"  # the folder'
GRID = "stages:\n  count: {notebook: count.ipynb, grid: {number: [1, 2, 3, 4, 5, 6]}}\n"
ADDRESSES = {"wbA": "10.77.0.1", "wbB": "10.77.0.2"}
BIN = Path(sys.executable).parent


def ip(*words: str, check: bool = True) -> bool:
    return subprocess.run(("ip", *words), capture_output=True, check=check).returncode == 0


def inside(machine: str, *words: str | Path) -> tuple[str, ...]:
    return ("ip", "netns", "exec", machine, *map(str, words))


@pytest.fixture
def machines() -> Iterator[None]:
    """Two machines and a cable between them."""
    made = []
    try:
        for name in ADDRESSES:
            if not ip("netns", "add", name, check=False):
                pytest.skip("network namespaces cannot be made here: that needs Linux and root")
            made.append(name)
        ip("link", "add", "wb0", "netns", "wbA", "type", "veth", "peer", "name", "wb0", "netns", "wbB")
        for name, address in ADDRESSES.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "wb0")
            for device in ("lo", "wb0"):
                ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "route", "add", "default", "dev", "wb0")  # Ray finds its own address by it
        yield
    except FileNotFoundError:
        pytest.skip("there is no `ip` here")
    finally:
        for name in made:
            ip("netns", "del", name, check=False)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_notebook(tmp_path / "count.ipynb", COUNT, parameters=PARAMETERS)
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path


def environment() -> dict[str, str]:
    ray = {"AUTH_MODE": "disabled", "health_check_period_ms": "1000", "health_check_timeout_ms": "5000"}
    return {**os.environ, "OMP_NUM_THREADS": "1", **{f"RAY_{name}": value for name, value in ray.items()}}


def batch(here: Path, *words: str) -> subprocess.Popen[str]:
    command = inside("wbA", sys.executable, "-m", "workbench", "batch", "grid.yaml", "--out", "out", *words)
    return subprocess.Popen(
        command, cwd=here, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def cells(here: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in here.glob("out/cells/*/cell.json")]


def wait_until_two_are_finished_and_two_run(here: Path, running: subprocess.Popen[str]) -> None:
    while len(cells(here)) < 2 or len((here / "ran.txt").read_text().split()) - len(cells(here)) < 2:
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.1)


def join_ray(name: str, there: int) -> subprocess.Popen[bytes]:
    """Start a machine's part of the Ray cluster, thrice at most: Ray gives its own processes 15 seconds."""
    role = ("--address=10.77.0.1:6399",) if there > 1 else ("--head", "--port=6399", "--include-dashboard=false")
    command = inside(
        name, BIN / "ray", "start", "--block", "--num-cpus=1", f"--node-ip-address={ADDRESSES[name]}", *role
    )
    alive = (
        "import ray, sys; ray.init('10.77.0.1:6399'); sys.exit(sum(n['Alive'] for n in ray.nodes()) < int(sys.argv[1]))"
    )
    look = inside("wbA", sys.executable, "-c", alive, str(there))
    for _ in range(3):
        node = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while node.poll() is None:
            time.sleep(5)
            if subprocess.run(look, env=environment(), capture_output=True, check=False).returncode == 0:
                return node
    pytest.skip("Ray's own processes do not start within their 15 seconds on this machine")


def test_a_machine_without_network_goes_on(here: Path, machines: None) -> None:
    running = batch(here, "--workers", "2", "--threads", "1")
    wait_until_two_are_finished_and_two_run(here, running)
    ip("-n", "wbA", "link", "set", "wb0", "down")
    said, _ = running.communicate()
    assert running.returncode == 0, said
    assert sorted((here / "ran.txt").read_text().split()) == list("123456"), "each cell ran once"
    again = batch(here)
    said, _ = again.communicate()
    assert again.returncode == 0, said
    assert "6 done (6 before)" in said


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: the extra `ray`")
def test_a_machine_that_is_cut_off_loses_no_finished_cell_and_the_others_do_its_work(here, machines) -> None:
    (here / "grid.yaml").write_text(GRID.replace("grid: {", "parameters: {seconds: 20}, grid: {"))
    nodes = []
    try:
        for there, name in enumerate(ADDRESSES, 1):
            nodes.append(join_ray(name, there))
        running = batch(here, "--executor", "ray", "--address", "10.77.0.1:6399", "--threads", "1")
        wait_until_two_are_finished_and_two_run(here, running)
        finished = {c["name"] for c in cells(here)}
        ip("-n", "wbB", "link", "set", "wb0", "down")
        said, _ = running.communicate()
        assert running.returncode == 0, said
        lines = cells(here)
        assert len({c["host"] for c in lines} - {""}) == 2, "both machines had finished cells"
        assert sorted(c["axes"]["number"] for c in lines) == [1, 2, 3, 4, 5, 6]
        assert not any(c["cause"] for c in lines)
        ran = (here / "ran.txt").read_text().split()
        for cell in lines:
            if cell["name"] in finished:
                assert ran.count(str(cell["axes"]["number"])) == 1, "a finished cell was repeated"
        assert "its Ray worker died" in said, "a cell was on the lost machine"
    finally:
        for node in nodes:
            node.terminate()
            node.wait(60)
