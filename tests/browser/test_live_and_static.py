"""A live widget and its static form in a real JupyterLab: one sees one of them, whatever becomes of the kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.lab import NOTEBOOK, LabPage, Server
from tests.browser.pages import watched
from tests.small_notebook import write_notebook

pytestmark = pytest.mark.browser

NO_MODEL = ("widget model not found", "reading .kernel.")
"""What ipywidgets says to the console where a saved view has no kernel."""
DEAD_KERNEL = ("Cannot send", "Canceled future")
"""What JupyterLab says to the console when a kernel dies under it."""
COUNTERS = (
    "from tests.small_widget import Counter\nfailing = Counter(95)\ncounter = Counter()\ncounter",
    "print('between')",
    "failing",
)


def live(page: Page, text: str) -> None:
    """Assert that the widget is seen, and its static form is not."""
    expect(page.get_by_role("button", name=text)).to_be_visible()
    expect(page.get_by_text("counted 0", exact=True)).to_be_hidden()
    expect(page.get_by_text("between", exact=True)).to_be_visible()


def static(page: Page) -> None:
    """Assert that the static form is read, and nothing beside it."""
    expect(page.get_by_text("counted 0", exact=True)).to_be_visible()
    for line in page.get_by_text("displaying widget").or_(page.get_by_text("Loading widget")).all():
        expect(line).to_be_hidden()
    expect(page.get_by_text("between", exact=True)).to_be_visible()


@pytest.fixture(scope="module")
def counters(jupyter: Server, browser: Browser) -> Iterator[LabPage]:
    """Open a notebook with two small widgets, run, in the notebook's default windowing mode."""
    write_notebook(jupyter.folder / "counters.ipynb", *COUNTERS, parameters="")
    jupyter.set(NOTEBOOK, {})
    with watched(browser, but=("this module fails before it draws", *DEAD_KERNEL)) as w:
        lab = LabPage(page=w.page, server=jupyter)
        lab.open("counters.ipynb")
        lab.run_all()
        yield lab


def test_the_widget_covers_its_static_form_shows_errors_and_comes_back(counters: LabPage) -> None:
    live(counters.page, "clicked 0 times")
    counters.page.get_by_role("button", name="clicked 0 times").click()
    live(counters.page, "clicked 1 times")
    counters.reads("counter.selection", "1")
    expect(counters.page.get_by_text("counted 95")).to_be_visible()  # its module failed: its static form stays
    counters.run("stop = counter.on_select(lambda count: 1 / 0)")
    button, alert = counters.page.get_by_role("button", name="clicked"), counters.page.locator(".wb-counter .wb-alert")
    expect(alert).to_be_hidden()
    button.click()
    expect(alert).to_have_text("ZeroDivisionError: division by zero")
    expect(alert).to_have_role("alert")
    counters.run("stop()")
    button.click()
    expect(alert).to_be_hidden()
    counters.run("print('\\n' * 5_000)")
    counters.page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0; }")
    live(counters.page, "clicked")


def test_a_killed_kernel_leaves_the_picture(counters: LabPage) -> None:
    saved = counters.save()
    assert [len(c["outputs"]) for c in saved["cells"][:3]] == [2, 1, 2]
    assert "widgets" not in saved["metadata"]
    counters.kill_kernel()
    expect(counters.page.get_by_role("dialog", name="Kernel Restarting")).to_be_visible()
    live(counters.page, "clicked")
    counters.page.get_by_role("button", name="Ok", exact=True).click()
    counters.shut_down_kernel()
    live(counters.page, "clicked")


@pytest.mark.parametrize("with_kernel", [False, True], ids=["no kernel", "a new kernel"])
def test_a_saved_notebook_is_read_in_its_static_form(counters, jupyter, browser, with_kernel) -> None:
    counters.save()
    counters.shut_down_kernel()
    with watched(browser, but=NO_MODEL) as w:
        reader = LabPage(page=w.page, server=jupyter)
        (reader.open if with_kernel else reader.open_without_kernel)("counters.ipynb")
        expect(w.page.get_by_text("Error displaying widget" if with_kernel else "Loading widget")).to_have_count(2)
        static(w.page)
