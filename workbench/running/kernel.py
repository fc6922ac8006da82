"""Execute a notebook cell by cell in a kernel of its own, and report its progress."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workbench.core import errors
from workbench.core.errors import NotebookFailed, WorkbenchError
from workbench.core.files import atomic_file
from workbench.core.progress import NOTE
from workbench.running.parameters import import_papermill, read_notebook

Say = Callable[[str], None]
PROGRESS_SECONDS = 5.0
"""A progress bar inside a cell is reported as a line this often."""


def execute(
    source: Path,
    executed: Path,
    parameters: Mapping[str, Any],
    *,
    say: Say,
    start_seconds: int | None = 120,
    cell_seconds: int | None = None,
    kept: Kept | None = None,
) -> None:
    """Execute a notebook with parameters and write it, with its outputs, to `executed`.

    The kernel runs this Python in the caller's folder; it is a new one, or `kept`. Raises NotebookFailed when a cell
    raises or takes over `cell_seconds`, or its kernel dies; `executed` then holds the notebook as far as it ran.
    """
    papermill = import_papermill()
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.engines import papermill_engines
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    cells = _Cells(source, say)
    # a unique folder: sockets under the default name collide
    scratch = Path(tempfile.mkdtemp(prefix="workbench-")) if kept is None else kept.folder
    transport = {"transport": "ipc", "ip": str(scratch / "k")} if hasattr(socket, "AF_UNIX") else {}
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else each kernel prints a debugger's warning
    papermill_engines.register("workbench", _engine(cells, scratch / "stderr", kept))
    started, ended = time.perf_counter(), False
    try:
        papermill.execute_notebook(
            *(str(path).replace("{", "{{").replace("}", "}}") for path in (source, executed)),  # papermill formats them
            parameters=dict(parameters),
            engine_name="workbench",
            kernel_name="python3",
            language="python",
            progress_bar=False,
            timeout=cell_seconds,
            startup_timeout=start_seconds,
            config=Config({"KernelManager": transport}),
        )
        ended = True
    except PapermillExecutionError as error:
        failed = NotebookFailed(_message(source, cells, error.ename, error.evalue))
        failed.exit_code = getattr(_own_error(error.ename), "exit_code", failed.exit_code)
        raise failed from error
    except CellTimeoutError as error:
        raise NotebookFailed(f"{source} stopped in {cells.where()}: it took over {cell_seconds} seconds") from error
    except DeadKernelError as error:
        last = (scratch / "stderr").read_text("utf-8", "replace").strip().rpartition("\n")[2]
        why = f" and last wrote: {last[:300]}" if last else ", most often because memory ran out"
        raise NotebookFailed(f"{source} stopped in {cells.where()}: its kernel died{why}") from error
    except RuntimeError as error:
        raise NotebookFailed(f"{source} did not run: {error}") from error
    finally:
        if kept is None:
            shutil.rmtree(scratch, ignore_errors=True)
        elif not ended:
            kept.stop()
    say(f"ran {cells.total} cells in {time.perf_counter() - started:.1f} s")


class Kept:
    """A kernel kept from notebook to notebook; after a failure or its death the next notebook gets a new one.

    `before` is code that runs in it before each notebook and must remove every name of earlier notebooks.
    """

    def __init__(self, before: str) -> None:
        self.before = before
        self.folder = Path(tempfile.mkdtemp(prefix="workbench-"))
        self._former: Any = None

    @property
    def used(self) -> bool:
        """Tell whether the kernel has run a notebook."""
        return self._former is not None

    def lend(self, client: Any) -> None:
        """Give a notebook's client the former notebook's kernel, where it is still alive."""
        from jupyter_core.utils import run_sync

        former, self._former = self._former, client
        if former is not None and run_sync(former.km.is_alive)():
            client.km, client.kc = former.km, former.kc

    def stop(self) -> None:
        """Stop the kernel; the next notebook gets a new one."""
        if self._former is not None and self._former.km is not None:
            self._former._cleanup_kernel()
        self._former = None


class _Cells:
    """The cells of a notebook; they report which one starts, what it writes to stderr, and its progress bars."""

    def __init__(self, source: Path, say: Say) -> None:
        self.say, self.number = say, 0
        self._heading_of: dict[str, str] = {}
        self._line, self._last, heading = "", 0.0, ""
        cells = [(c, "".join(c["source"]).strip()) for c in read_notebook(source)["cells"]]
        for cell, text in cells:
            if cell["cell_type"] == "markdown" and text:
                heading = text.splitlines()[0].strip("#*_ ")
            self._heading_of[cell.get("id", "")] = heading
        self.total = sum(c["cell_type"] == "code" and bool(text) for c, text in cells)

    def where(self) -> str:
        return f"cell {self.number} of {self.total}"

    def start(self, cell: Any, cell_index: int) -> None:
        injected = "injected-parameters" in cell.metadata.get("tags", [])
        if cell.cell_type == "code" and cell.source.strip() and not injected:
            self.number += 1
            self.say(f"cell {self.number}/{self.total}  {self._heading_of.get(cell.get('id', ''), '')}".rstrip())

    def hear(self, message: Mapping[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream" and content["name"] == "stderr":
            *lines, self._line = re.split(r"[\r\n]+", self._line + content["text"])
            for line in filter(str.strip, lines):
                self.say(f"    {line.rstrip()}")
        elif message["msg_type"] in ("display_data", "update_display_data"):
            due = time.monotonic() - self._last >= PROGRESS_SECONDS
            shown, said = (content["data"].get(f"text/{kind}", "") for kind in ("html", "plain"))
            if NOTE in shown:
                self.say(f"    {said}")
            elif due and "<progress" in shown:
                self._last = time.monotonic()
                self.say(f"    {said}")


def _engine(cells: _Cells, stderr: Path, kept: Kept | None) -> type:
    """Return a papermill engine that reports to `cells` and starts this Python, whatever kernels are installed.

    It uses the kernel that is `kept`, if any. The file `stderr` gets what the kernel's process itself, not a cell,
    writes.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import Engine

    class OwnKernel(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="Python 3", language="python")

    class Client(PapermillNotebookClient):
        def process_message(self, message: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            cells.hear(message)
            return super().process_message(message, *args, **kwargs)

        def papermill_execute_cells(self) -> None:
            try:
                if kept is not None:
                    reply = self.wait_for_reply(self.kc.execute(kept.before, silent=True, store_history=False))
                    if (said := reply["content"])["status"] != "ok":
                        raise RuntimeError(f"its kernel could not be reset: {said.get('evalue', said['status'])}")
                super().papermill_execute_cells()
            except KeyboardInterrupt:
                logging.getLogger("asyncio").disabled = True  # it would report every unfinished task
                raise

    class CellEngine(Engine):
        @classmethod
        def execute_managed_notebook(
            cls, nb_man: Any, kernel_name: str, *, timeout: int | None, startup_timeout: int, config: Any, **rest: Any
        ) -> Any:
            limits = {"timeout": timeout, "startup_timeout": startup_timeout, "config": config}
            kernel = {"kernel_name": kernel_name, "kernel_manager_class": OwnKernel}
            client = Client(nb_man, on_cell_start=cells.start, **kernel, **limits)
            nb_man.save = lambda **changed: _save(nb_man)
            if kept is not None:
                kept.lend(client)
            with stderr.open("ab") as log:
                return client.execute(stdout=log, stderr=log, cleanup_kc=kept is None)

    return CellEngine


def _save(manager: Any) -> None:
    """Write the notebook as far as it ran; papermill does so twice a cell, and its own way is slow."""
    with atomic_file(manager.output_path) as partial:
        partial.write_text(json.dumps(manager.nb), "utf-8")


def _message(source: Path, cells: _Cells, name: str, said: str) -> str:
    said = re.sub(r"^\[Errno \d+\] ", "", " ".join(said.split()))
    if _own_error(name) is not None:
        return said
    return f"{source} stopped in {cells.where()} with {name}: {said[:500]}".rstrip(": ")


def _own_error(name: str) -> type[WorkbenchError] | None:
    kind = getattr(errors, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, WorkbenchError) else None
