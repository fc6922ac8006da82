"""One Chromium and one Jupyter server for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.lab import FLAGS, Server, server


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Start the one Chromium of this folder; it ends before the tests of other folders begin."""
    from tests.conftest import CHROMIUM

    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: install the package `chromium` to run the browser tests")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve an empty folder."""
    with server(tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("server")) as running:
        yield running
