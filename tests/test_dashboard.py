"""Pages for an audience: Voila on loopback, nothing of ours without the token."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.errors import refuses
from tests.small_notebook import write_notebook
from widgets.dashboard import SHOWN, addresses, serve
from workbench.core.errors import NotPresent

pytestmark = pytest.mark.slow


def test_addresses_are_listed_and_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = addresses([Path(n) for n in SHOWN], 8866, "secret")
    assert lines[0] == "01_diagnosis:   http://127.0.0.1:8866/voila/render/01_diagnosis.ipynb?token=secret"
    assert lines[1].startswith("04_evaluation:  http://127.0.0.1:8866/voila/render/04_evaluation.ipynb?")
    assert lines[2] == "both:           http://127.0.0.1:8866/?token=secret"
    monkeypatch.chdir(tmp_path)
    refuses(lambda: serve(), NotPresent)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refuses(lambda: serve(), NotPresent, "Voila")


@contextlib.contextmanager
def served(notebooks: Sequence[Path], root: Path, stop: signal.Signals = signal.SIGINT) -> Iterator[dict[str, str]]:
    """Yield the printed addresses by name while the pages are served; stop as Ctrl-C does, or by another signal."""
    script = f"from widgets.dashboard import serve; serve({[str(n) for n in notebooks]!r})"
    env = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=root, env=env, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    )
    try:
        lines = [process.stdout.readline() for _ in range(len(notebooks) + 1)]
        yield dict(re.findall(r"^(\w+): +(http\S+)$", "".join(lines), re.MULTILINE))
    finally:
        process.send_signal(stop)
        process.wait(timeout=60)
        process.stdout.close()
    assert process.returncode == 0


def asked(url: str) -> tuple[int, str]:
    """Return the status and the text of the final answer, redirects followed."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.geturl() + "\n" + answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_without_the_token_nothing_of_ours_is_served(tmp_path: Path, root: Path) -> None:
    path = write_notebook(tmp_path / "shown.ipynb", "print('com' + 'puted')", parameters="")
    with served([path], root) as found:
        page = found["shown"]
        site, token = re.split(r"/voila.*token=", page)
        for what in ("/", "/voila/tree", "/voila/render/shown.ipynb", "/voila/render/shown.ipynb?token=wrong"):
            status, text = asked(site + what)
            assert status in (200, 403), what
            assert "/login" in text.partition("\n")[0] or status == 403, what
            assert "computed" not in text
            assert "shown" in what or "shown" not in text, what  # the login form repeats what was asked for
        kernel = "00000000-0000-0000-0000-000000000000"
        for what in (
            f"/api/kernels/{kernel}",
            f"/voila/api/shutdown/{kernel}",
            f"/voila/files/shown.ipynb?token={token}",
        ):
            assert asked(site + what)[0] == 403, what
        shown, both = asked(page)[1], asked(found["both"])[1]
        assert "computed" in shown
        assert "shown.ipynb" in both
        for text in (shown, both):
            assert re.search(r"<(?:link|script)[^>]*https?://", text) is None, "nothing is fetched from elsewhere"
        assert page.startswith("http://127.0.0.1:")


def test_a_terminated_dashboard_leaves_no_server(tmp_path: Path, root: Path) -> None:
    path = write_notebook(tmp_path / "shown.ipynb", "print('shown')", parameters="")
    with served([path], root, signal.SIGTERM) as found:
        assert asked(found["both"])[0] == 200
    with pytest.raises(urllib.error.URLError):
        asked(found["both"])
