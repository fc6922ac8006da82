"""A throw-away Jupyter server, and a notebook in it as its reader drives it: open, run, save, reload."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from tests.browser.pages import watched

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
TOKEN = "test"
NOTEBOOK = "@jupyterlab/notebook-extension:tracker"
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    NOTEBOOK: {"windowingMode": "none"},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}


@dataclass(frozen=True, kw_only=True)
class Server:
    """Hold a running server: its address (it ends in /), the folder that it serves, its settings and its process."""

    url: str
    folder: Path
    settings: Path
    process: subprocess.Popen[bytes]

    def set(self, plugin: str, values: Mapping[str, Any]) -> None:
        """Set what a user would set in a plugin; it holds for pages that are opened from then on."""
        write_settings(self.settings, {plugin: values})


def write_settings(folder: Path, plugins: Mapping[str, Mapping[str, Any]]) -> None:
    for plugin, values in plugins.items():
        path = folder / f"{plugin.replace(':', '/')}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), "utf-8")


@contextmanager
def server(folder: Path, scratch: Path, *, python: str = sys.executable) -> Iterator[Server]:
    """Serve a folder in JupyterLab, and in Notebook and Voila where `python` has them, on a free loopback port.

    Settings, caches and keys lie in `scratch`; nothing of the user's is read. Stopped by process id.
    """
    settings = scratch / "settings"
    write_settings(settings, SETTINGS)
    env = dict(os.environ, JUPYTER_PLATFORM_DIRS="1", PYDEVD_DISABLE_FILE_VALIDATION="1", OMP_NUM_THREADS="1")
    env |= {f"JUPYTER_{name}_DIR": str(scratch / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    env |= {"IPYTHONDIR": str(scratch / "ipython"), "WORKBENCH_CACHE": str(scratch / "cache"), "PYTHONPATH": str(ROOT)}
    env |= {"JUPYTERLAB_SETTINGS_DIR": str(settings), "JUPYTERLAB_WORKSPACES_DIR": str(scratch / "workspaces")}
    command = (
        *(python, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--ServerApp.port=0"),
        *(f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={TOKEN}", "--LabApp.news_url=None"),
        *("--LabApp.extension_manager=readonly", "--LabApp.expose_app_in_browser=True"),
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    )
    said = scratch / "server.log"
    with said.open("wb") as log:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        url = _answering(process, scratch / "runtime" / f"jpserver-{process.pid}.json", said)
        yield Server(url=url, folder=folder, settings=settings, process=process)
    finally:
        process.terminate()  # the server ends its kernels
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answering(process: subprocess.Popen[bytes], info: Path, said: Path) -> str:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}:\n{said.read_text()[-3000:]}")
        try:
            url = str(json.loads(info.read_text("utf-8"))["url"])
            urllib.request.urlopen(f"{url}api/status?token={TOKEN}", timeout=5).close()
            return url
        except (OSError, ValueError):
            time.sleep(0.1)
    raise RuntimeError(f"the server did not answer within a minute:\n{said.read_text()[-3000:]}")


_IDLE = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
_OPEN = """async path => { const opened = await window.jupyterapp.commands.execute('docmanager:open',
    {path, kernelPreference: {shouldStart: false, autoStartDefault: false}});
    await opened.context.ready; }"""  # an empty cell is shown before the document is ready
_RUN = """async code => {
    const app = window.jupyterapp, notebook = app.shell.currentWidget.content, cells = notebook.model.sharedModel;
    cells.insertCell(cells.cells.length, {cell_type: 'code', source: code});
    notebook.activeCellIndex = notebook.widgets.length - 1;
    await app.commands.execute('notebook:run-cell');
    return notebook.widgets.at(-1).model.outputs.toJSON(); }"""
_DIE = """() => { const context = window.jupyterapp.shell.currentWidget.sessionContext;
    context.session.kernel.requestExecute({code: 'import os; os._exit(9)', store_history: false}); }"""


@dataclass(frozen=True, kw_only=True)
class LabPage:
    """Drive one notebook of a server in JupyterLab, one document to the page."""

    page: Page
    server: Server

    def open(self, name: str) -> None:
        """Open a notebook and wait for its kernel."""
        self.page.goto(f"{self.server.url}doc/tree/{name}?token={TOKEN}&reset")
        self.page.wait_for_function(_IDLE)

    def open_without_kernel(self, name: str) -> None:
        """Open a notebook as one who only reads it."""
        self.page.goto(f"{self.server.url}doc?token={TOKEN}&reset")
        self.page.wait_for_function("() => window.jupyterapp?.commands.hasCommand('docmanager:open')")
        self.page.evaluate(_OPEN, name)
        expect(self.page.locator(".jp-Notebook .jp-Cell").first).to_be_attached()

    def run_all(self) -> None:
        """Run every cell and wait for the last."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def run(self, code: str) -> str:
        """Run code in a new cell at the end and return what it printed, or the result's plain text."""
        outputs = self.page.evaluate(_RUN, code)
        errors = [o["evalue"] for o in outputs if o["output_type"] == "error"]
        assert not errors, errors
        return "".join(_text(o.get("text") or o.get("data", {}).get("text/plain", "")) for o in outputs).strip()

    def reads(self, expression: str, expected: str) -> None:
        """Assert that Python prints `expected` for an expression, soon: the page is heard beside the cells that run."""
        for _ in range(30):
            if (said := self.run(f"print({expression})")) == expected:
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{expression} is {said}, not {expected}")

    def save(self) -> dict[str, Any]:
        """Save the notebook and return what lies on the disk."""
        path = self.page.evaluate(
            """async () => { const app = window.jupyterapp; await app.commands.execute('docmanager:save');
            return app.shell.currentWidget.context.path; }"""
        )
        body: dict[str, Any] = json.loads((self.server.folder / path).read_text("utf-8"))
        return body

    def kill_kernel(self) -> None:
        """End the kernel's process under it, as a lack of memory would."""
        code = {"code": "import os; os._exit(9)", "store_history": False}
        self.page.evaluate(
            "code => { window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute(code); }",
            code,
        )

    def shut_down_kernel(self) -> None:
        """End the kernel; the page stays."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)


@contextmanager
def ran(server: Server, browser: Browser, name: str) -> Iterator[LabPage]:
    """Open a notebook of the server in a page, all of it rendered, and run all its cells."""
    server.set(NOTEBOOK, {"windowingMode": "none"})
    with watched(browser, height=1000) as w:
        lab = LabPage(page=w.page, server=server)
        w.page.set_default_timeout(60_000)
        lab.open(name)
        lab.run_all()
        w.page.set_default_timeout(15_000)
        yield lab
