"""What every test stands on: a cache of its own, no hub; and a sentence for what this machine cannot run."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before any model library is imported, and for every process that a test starts.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["JUPYTER_PLATFORM_DIRS"] = "1"

# Two tests run at a time, each with one thread. The order of sums depends on it, so it is the same everywhere.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

# A shell that starts the tests behind itself ignores Ctrl-C for them, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty workbench cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session", autouse=True)
def quiet_jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's own Jupyter and IPython settings out of the kernels that tests start."""
    folder = tmp_path_factory.mktemp("jupyter")
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(name, str(folder / name.lower()))
        yield


@pytest.fixture
def root() -> Path:
    """Return the repository's root."""
    return ROOT


@pytest.fixture
def chromium() -> str:
    """Return the path of a Chromium; skip with a sentence where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: install the package `chromium` to run the browser tests")
    return CHROMIUM


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Iterator[Any]:
    """Escape lone surrogates in what a test printed, logged or failed with: no process can send them to another."""
    return _sendable((yield))


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_sendable(key): _sendable(item) for key, item in value.items()}
    return type(value)(map(_sendable, value)) if type(value) in (list, tuple) else value


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with a sentence, what needs a browser or an accelerator that is not there."""
    no_browser = pytest.mark.skip(reason="no Chromium on this machine: install the package `chromium`")
    no_gpu = pytest.mark.skip(reason="no accelerator on this machine")
    for item in items:
        if item.get_closest_marker("browser") and CHROMIUM is None:
            item.add_marker(no_browser)
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(no_gpu)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
