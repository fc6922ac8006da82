"""The widgets elsewhere: Notebook 7, Voila, the oldest JupyterLab, an exported page, where styles are stripped."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import nbclient
import nbformat
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.first_notebook import write_first_notebook
from tests.browser.lab import ROOT, TOKEN, LabPage, Server, server
from tests.browser.pages import Watched, watched
from tests.errors import refuses
from tests.hostile_texts import EXECUTABLE
from tests.small_notebook import write_notebook
from workbench.running.runs import notebook_html

pytestmark = pytest.mark.browser

OTHERS = {
    "notebook": (r"reading 'schema'", r"'filebrowser:open-path' not registered"),
    "voila": (r"jsdelivr|cdnjs|ERR_NAME_NOT_RESOLVED|ERR_INTERNET_DISCONNECTED", r"shared module is not a function"),
}
"""What others do by themselves: Notebook starts things before what they need, Voila's page asks for fonts."""
IMPORTS = "from tests.trace_makers import make_traces\nfrom widgets import TokenLens\n"
LENS = (f"{IMPORTS}lens = TokenLens(make_traces(), 0)\nlens", "print('python reads', lens.selection.pinned)")


@pytest.fixture(scope="module")
def small(jupyter: Server) -> str:
    """Write a notebook with a lens into the served folder."""
    return write_notebook(jupyter.folder / "lens.ipynb", *LENS, parameters="").name


def lens_works(w: Watched) -> None:
    """Assert that one sees the lens and not its static form; that hover, arrow keys and pins work."""
    lens = w.page.locator(".wb-lens")
    expect(lens).to_be_visible(timeout=60_000)
    expect(w.page.locator(".wb-still")).to_be_hidden()
    lens.locator("[role=option][data-position='2']").hover()
    expect(lens.locator(".wb-lens-card")).to_contain_text("position 2 of")
    lens.locator("[role=option][data-position='2']").click()
    w.page.keyboard.press("ArrowRight")
    w.page.keyboard.press("Enter")
    expect(lens.locator(".wb-pin")).to_have_count(2)


def test_notebook_7_and_voila(jupyter: Server, browser: Browser, small: str) -> None:
    with watched(browser, but=OTHERS["notebook"]) as w:
        w.page.goto(f"{jupyter.url}notebooks/{small}?token={TOKEN}")
        # before the document has loaded the page shows an empty cell, an idle indicator and the words "No Kernel"
        expect(w.page.locator(".jp-CodeCell .cm-content").last).to_contain_text("python reads", timeout=60_000)
        expect(w.page.locator(".jp-Toolbar-kernelName")).to_contain_text("Python 3", timeout=60_000)
        expect(w.page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_visible(timeout=60_000)
        w.page.get_by_role("menuitem", name="Run", exact=True).click()
        w.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        lens_works(w)
        w.page.locator(".jp-CodeCell .cm-content").last.click()
        w.page.keyboard.press("Shift+Enter")
        expect(w.page.locator(".jp-Notebook")).to_contain_text("python reads (2, 3)")
    with watched(browser, but=OTHERS["voila"]) as w:
        w.page.goto(f"{jupyter.url}voila/render/{small}?token={TOKEN}")
        lens_works(w)


HOSTILE = (
    "from tests.test_views import every_view, hostile_diagnosis, hostile_traces\n"
    "from widgets import LinkedViews, TokenLens\n"
    "traces = hostile_traces()\ndiagnosis = hostile_diagnosis(traces)\nTokenLens(traces, 0)",
    "TokenLens(traces, 0, harmful_text='show', live=True)",
    "LinkedViews(traces, diagnosis)",
    "for view in every_view(traces, diagnosis):\n    display(view)",
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the page of an executed notebook that shows every hostile text in every view."""
    path = tmp_path_factory.mktemp("export") / "hostile.ipynb"
    notebook = nbformat.read(write_notebook(path, *HOSTILE, parameters=""), as_version=4)
    nbclient.NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    nbformat.write(notebook, path)
    return notebook_html(path)


def visit(page: Page, html: str, path: Path) -> None:
    path.write_text(html, "utf-8")
    page.goto(path.as_uri())
    for token in page.locator(".wb-tokens .t").all()[:60]:
        token.dispatch_event("mouseover")
        token.focus()


def test_an_exported_page_executes_no_text_and_reads_in_its_static_form(browser, exported, tmp_path) -> None:
    with watched(browser) as w:
        visit(w.page, exported, tmp_path / "page.html")
        expect(w.page.locator(".wb-tokens").first).to_be_visible()
        expect(w.page.locator(".wb-still .wb-tokens")).to_be_visible()
        expect(w.page.locator(".wb-drawn").first).to_be_visible()
        assert "Error displaying widget" not in w.page.inner_text("body")
        w.page.wait_for_timeout(500)


@pytest.mark.parametrize("text", [t for t in EXECUTABLE if "tripped" in t and re.search("onerror|<script>", t)][:4])
def test_the_same_page_would_be_caught_if_it_did(browser: Browser, exported: str, tmp_path: Path, text: str) -> None:
    careless = exported.replace("</body>", f"<p>{text}</p></body>")

    def look() -> None:
        with watched(browser, but=(".*",)) as w:
            visit(w.page, careless, tmp_path / "page.html")
            w.page.wait_for_function("() => window.tripped")

    refuses(lambda: look(), AssertionError, "a text was executed")


def test_where_styles_and_scripts_are_stripped_the_static_form_reads_in_order(browser: Browser, tmp_path: Path) -> None:
    """GitHub keeps neither: of an output it keeps the elements and their text."""
    cell = f"{IMPORTS}TokenLens(make_traces(), 0, live=True)"
    made = nbformat.read(write_notebook(tmp_path / "x.ipynb", cell, parameters=""), as_version=4)
    nbclient.NotebookClient(made, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [o["data"]["text/html"] for c in made.cells for o in c.get("outputs", []) if "data" in o]
    bare = re.sub(r"(?s)<(style|script)\b.*?</\1>|\s(?:class|style)=\"[^\"]*\"", "", "\n".join(outputs))
    with watched(browser) as w:
        visit(w.page, f"<!doctype html><title>bare</title><body>{bare}</body>", tmp_path / "bare.html")
        expect(w.page.locator("section mark").first).to_be_visible()
        w.page.get_by_text("tokens as a table").first.click()
        expect(w.page.locator("section").first.get_by_role("table").first).to_be_visible()
        assert re.fullmatch(r"(?s)<section.*</section>\s*</div>\s*<span></span>", bare.partition("<div>")[2])


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve from an environment of the oldest versions; what they do not name comes from this one."""
    folder = tmp_path_factory.mktemp("oldest")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    there = Path(subprocess.check_output([python, "-c", asked], text=True).strip())
    install = (str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check")
    subprocess.run([*install, "-r", str(Path(__file__).with_name("oldest.txt"))], check=True)
    (there / "zz_workbench.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    served = folder / "served"
    served.mkdir()
    with server(served, folder, python=str(python)) as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_notebook_in_the_oldest_versions(oldest: Server, browser: Browser) -> None:
    write_first_notebook(oldest.folder / "first.ipynb")
    with watched(browser, but=("table of contents.*isRunning", "reading 'isRunning'")) as w:  # JupyterLab 4.4's own
        w.page.set_default_timeout(120_000)
        lab = LabPage(page=w.page, server=oldest)
        lab.open("first.ipynb")
        versions = "import jupyterlab as lab, anywidget\nprint(lab.__version__, anywidget.__version__)"
        assert lab.run(versions) == "4.4.10 0.9.18"
        lab.run_all()
        lens = w.page.locator(".jp-OutputArea-output > .wb-live > .wb-lens")
        expect(lens).to_be_visible()
        for still in w.page.locator(".wb-still").all():
            expect(still).to_be_hidden()
        lens.locator("[role=option][data-position='2']").click()
        assert lab.run("print(lens.selection.pinned)") == "(2,)"
        w.page.locator(".wb-linked-panel td[data-prefix='5'][data-position='7']").click()
        assert lab.run("print(linked.selection.position)") == "7"
        w.page.locator(".wb-probe .wb-prompt-text").fill("How do I find the market?")
        w.page.locator(".wb-probe .wb-longest").fill("8")
        w.page.locator(".wb-probe .wb-start").click()
        expect(w.page.locator(".wb-probe")).to_have_attribute("data-state", "finished")
