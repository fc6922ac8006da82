"""Notebooks as pages for an audience: Voila on this machine only, behind a token, on copies of the notebooks.

`python -m widgets.dashboard` (or `make voila`) serves notebooks 01 and 04. Each visitor gets a kernel of their own;
what a page writes goes into a temporary folder that is deleted at the end.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from workbench.core.errors import NotebookFailed, NotPresent
from workbench.running.terminate import terminate_as_interrupt

SHOWN = ("notebooks/01_diagnosis.ipynb", "notebooks/04_evaluation.ipynb")
"""What is served: the views of a diagnosis and of an evaluation."""

PORT = 8866
LOOPBACK = "127.0.0.1"
_FETCHED = re.compile(r"""<(?:link|script)[^>]*(?:href|src)="https?://[^>]*>(?:</script>)?""")
IDLE_SECONDS = 1800
"""A kernel whose page has been gone for so long is stopped."""


def serve(notebooks: Sequence[str | Path] = SHOWN, *, seconds_to_start: float = 60.0) -> None:
    """Serve notebooks until Ctrl-C or SIGTERM; print the address of each, and of the page that lists them.

    Raises NotPresent where Voila or a notebook is missing, NotebookFailed when the server does not start.
    """
    if importlib.util.find_spec("voila") is None:
        raise NotPresent("Voila is not installed: `make voila` installs it, or `pip install voila`")
    sources = [Path(n) for n in notebooks]
    if missing := [str(s) for s in sources if not s.is_file()]:
        raise NotPresent(f"no notebook at {missing[0]!r}: run this from the repository's root, as `make voila` does")
    token, port = secrets.token_urlsafe(24), _free_port()
    with tempfile.TemporaryDirectory(prefix="workbench-voila-") as folder:
        shown, data = Path(folder, "notebooks"), Path(folder, "jupyter")
        shown.mkdir()
        for source in sources:
            shutil.copy(source, shown)
        write_pages(data)
        # the token goes by the environment: arguments can be read by every user of the machine
        server = subprocess.Popen(_command(shown, port), env=_environment(token, data))
        try:
            with terminate_as_interrupt():
                _wait(server, port, seconds_to_start)
                for line in addresses(sources, port, token):
                    print(line, flush=True)
                server.wait()
        except KeyboardInterrupt:
            pass
        finally:
            server.terminate()
            server.wait()


def addresses(notebooks: Sequence[Path], port: int, token: str) -> list[str]:
    """Return a line for each notebook's page, then one for the page that lists them."""
    at, key = f"http://{LOOPBACK}:{port}", f"?token={token}"
    pages = [f"{n.stem + ':':<16}{at}/voila/render/{n.name}{key}" for n in notebooks]
    dark = "In the dark: add &theme=dark. Ctrl-C stops it; a page takes about a minute to compute."
    return [*pages, f"{'both:':<16}{at}/{key}", dark]


def write_pages(data: Path) -> None:
    """Write Voila's pages into a Jupyter data folder, without the icon fonts that they would fetch from elsewhere."""
    from jupyter_core.paths import jupyter_path

    for root in map(Path, reversed(jupyter_path("voila", "templates"))):
        for page in (*root.glob("*/*.html"), *root.glob("*/*.j2")):
            text = page.read_text("utf-8")
            if (kept := _FETCHED.sub("", text)) != text:
                target = data / "voila" / "templates" / page.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(kept, "utf-8")


def _command(folder: Path, port: int) -> list[str]:
    options = {
        "Voila.ip": LOOPBACK,
        "port": port,
        "classic_tree": True,
        "VoilaConfiguration.allow_theme_override": "YES",
        "VoilaConfiguration.file_denylist": ".*",
        "MappingKernelManager.cull_idle_timeout": IDLE_SECONDS,
        "MappingKernelManager.cull_interval": 60,
        "Application.log_level": "WARN",
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "voila", str(folder), "--token", "--no-browser", *words]


def _environment(token: str, data: Path) -> dict[str, str]:
    paths = {"PYTHONPATH": Path.cwd(), "JUPYTER_PATH": data}
    first = {name: os.pathsep.join(filter(None, (str(p), os.environ.get(name)))) for name, p in paths.items()}
    return {**os.environ, **first, "JUPYTER_TOKEN": token}


def _free_port() -> int:
    for port in (PORT, 0):
        with closing(socket.socket()) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(tried.getsockname()[1])
    raise NotebookFailed(f"no port is free on {LOOPBACK}")


def _wait(server: subprocess.Popen[bytes], port: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if server.poll() is not None:
            raise NotebookFailed(f"Voila stopped before it served anything (exit code {server.returncode})")
        with closing(socket.socket()) as tried:
            if tried.connect_ex((LOOPBACK, port)) == 0:
                return
        time.sleep(0.2)
    raise NotebookFailed(f"Voila did not answer on port {port} within {seconds:.0f} seconds")


if __name__ == "__main__":
    from workbench.core.errors import WorkbenchError

    try:
        serve()
    except WorkbenchError as error:
        sys.exit(f"workbench: {error}")
