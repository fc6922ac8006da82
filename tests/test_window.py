"""What all widgets share: who gets a live view, what stands in the output, and what becomes of errors."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

import widgets
from tests.small_widget import Counter
from tests.trace_makers import make_traces
from widgets.window import WIDGET_VIEW, is_live
from workbench.core.records import save

ASK = "from widgets.window import is_live\nprint(is_live())"


def run_by_nbclient(root: Path, *cells: str) -> Any:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbclient.NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(root)}}).execute()
    return notebook


def test_a_headless_run_makes_the_static_form_unless_asked(root: Path) -> None:
    assert is_live() is False
    made = run_by_nbclient(
        root, "from tests.small_widget import Counter\ncounter = Counter(3)\ncounter", "counter._shown is None", ASK
    )
    shown, unmade, live = (cell["outputs"] for cell in made.cells)
    assert [(o["output_type"], sorted(o["data"])) for o in shown] == [("execute_result", ["text/html", "text/plain"])]
    assert shown[0]["data"]["text/plain"] == "counted 3"
    assert "wb-still" not in shown[0]["data"]["text/html"]
    assert (unmade[0]["data"]["text/plain"], live[0]["text"]) == ("True", "False\n")
    assert "widgets" not in made.metadata
    made = run_by_nbclient(root, "from tests.small_widget import Counter\nCounter(3, live=True)")
    static, view = made.cells[0]["outputs"]
    assert static["data"]["text/plain"] == "counted 3"
    assert "<p>counted 3</p>" in static["data"]["text/html"]
    assert view["data"].keys() == {WIDGET_VIEW, "text/html", "text/plain"}
    model = view["data"][WIDGET_VIEW]["model_id"]
    assert f"wb-live-{model}-still" in static["data"]["text/html"]
    assert (view["data"]["text/html"], view["data"]["text/plain"]) == ("<span></span>", "")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockingKernelClient]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(Path(__file__).parents[1]), env=dict(os.environ))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def ask(kernel: BlockingKernelClient, code: str, *, allow_stdin: bool) -> list[dict[str, Any]]:
    heard: list[dict[str, Any]] = []
    kernel.execute_interactive(code, allow_stdin=allow_stdin, output_hook=heard.append, timeout=60)
    return [m for m in heard if m["msg_type"] in ("stream", "error", "display_data", "execute_result")]


@pytest.mark.parametrize("person", [True, False])
def test_a_front_end_that_can_answer_has_a_person(kernel: BlockingKernelClient, person: bool) -> None:
    assert ask(kernel, ASK, allow_stdin=person)[0]["content"]["text"] == f"{person}\n"


def test_a_front_end_with_a_person_gets_the_view(kernel: BlockingKernelClient) -> None:
    ask(kernel, "from tests.small_widget import Counter", allow_stdin=True)
    shown = ask(kernel, "Counter(3)", allow_stdin=True)
    assert [WIDGET_VIEW in m["content"]["data"] for m in shown] == [False, True]
    shown = ask(kernel, "Counter(3, live=False)", allow_stdin=True)
    assert [sorted(m["content"]["data"]) for m in shown] == [["text/html", "text/plain"]]
    voila = f"import os\nos.environ['SERVER_SOFTWARE'] = 'voila/0.5.8'\n{ASK}\ndel os.environ['SERVER_SOFTWARE']"
    assert ask(kernel, voila, allow_stdin=False)[0]["content"]["text"] == "True\n"


def click(counter: Counter) -> None:
    counter.face.count += 1


def test_listeners_hear_until_stopped_and_errors_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    counter, heard = Counter(), []
    stop = counter.on_select(heard.append)
    click(counter)
    counter._select(1)
    assert (counter.selection, heard) == (1, [1])
    stop()
    click(counter)
    assert (counter.selection, heard) == (2, [1])
    counter, heard = Counter(), []

    def fail(count: int) -> None:
        if count == 1:
            raise ValueError("no such <token> \ud83d")

    counter.on_select(fail)
    counter.on_select(heard.append)
    with caplog.at_level(logging.ERROR, "widgets"):
        click(counter)
    assert (counter.face.error, heard) == ("ValueError: no such <token> ⟨U+D83D⟩", [1])
    assert "a listener of Counter raised" in caplog.text
    assert "Traceback" in caplog.text
    assert "no such <token> ⟨U+D83D⟩" in caplog.text
    click(counter)
    assert counter.face.error == ""
    counter = Counter()
    face = counter.face
    with caplog.at_level(logging.ERROR, "widgets"), counter._errors_shown():
        raise OSError("the disk is full")
    assert face.error == "OSError: the disk is full"
    assert "Traceback" in caplog.text
    with counter._errors_shown():
        pass
    assert face.error == ""
    counter.on_select(lambda count: 1 // 0)
    with counter._errors_shown():
        click(counter)
    assert face.error == "ZeroDivisionError: integer division or modulo by zero"


def test_public_names_are_documented_and_load_no_torch(tmp_path: Path, root: Path) -> None:
    for name in widgets.__all__:
        assert (getattr(widgets, name).__doc__ or "").strip(), name
    assert set(widgets.__all__) <= set(dir(widgets))
    with pytest.raises(AttributeError, match=r"'Nonsense'.*LinkedViews"):
        _ = widgets.Nonsense
    save(make_traces(), tmp_path / "traces")
    script = (
        "import sys, widgets\n"
        "from workbench.core.records import load; from workbench.tracing.records import TraceSet\n"
        "print([m for m in ('torch', 'IPython') if m in sys.modules])\n"
        "lens = widgets.TokenLens(load(sys.argv[1], TraceSet), 0)\n"
        "print(lens.to_html() != '', [m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    )
    words = (sys.executable, "-c", script, str(tmp_path / "traces"))
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "True []"], done.stderr
