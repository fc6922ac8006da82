"""The site: what is generated says what the code does, its examples run, and its links lead somewhere."""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
import yaml

import workbench
from docs.making import memory, reference, tutorials
from docs.making.links import broken
from docs.making.notebooks import Tutorial
from docs.making.notebooks import tutorials as all_tutorials
from workbench.models.presets import PRESETS

pytestmark = pytest.mark.slow  # .ci/run builds the site and checks its links by itself

HOW_TO = Path(__file__).resolve().parent.parent / "docs" / "how-to"
PAGES = [HOW_TO.parents[1] / "README.md", *sorted(HOW_TO.glob("*.md"))]
EXAMPLES = {p.name: p for p in PAGES if "```python" in p.read_text("utf-8")}
NOT_RUN = ("colab-vscode.md",)
"""Pages whose code needs what is not here; each says so."""


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n not in NOT_RUN])
def test_the_python_of_a_page_runs(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", EXAMPLES[name].read_text("utf-8"), re.DOTALL | re.MULTILINE)
    code = "\n".join(re.sub(r"^    ", "", b, flags=re.MULTILINE) if b.startswith("    ") else b for b in blocks)
    monkeypatch.chdir(root)
    page = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)  # where a dataclass looks for its module
    exec(compile(code, name, "exec"), vars(page))


@pytest.mark.parametrize("name", NOT_RUN)
def test_what_cannot_be_run_here_is_marked(name: str) -> None:
    assert re.search(r'!!! warning "Not (run|verified)', (HOW_TO / name).read_text("utf-8"))


class _GatedHub(http.server.BaseHTTPRequestHandler):
    """Answer as the hub does for a model whose licence was not accepted."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_gated_model_is_explained(root: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _GatedHub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        online = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HUB_OFFLINE": "0"}
        script = "import workbench as wb; wb.load_pair(wb.PairConfig(preset='llama-3.2-1b'))"
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=root, env={**os.environ, **online}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        hub.shutdown()
    assert "'meta-llama/Llama-3.2-1B' is gated: accept its licence" in done.stderr, done.stderr[-2000:]


def test_the_command_lines_of_the_pages_are_known(root: Path) -> None:
    from workbench.__main__ import _parser
    from workbench.running.parameters import declared_parameters

    known = {p.prog.removeprefix("workbench").strip() for p in reference._parsers(_parser())}
    pages = [root / "README.md", *(root / "docs").glob("*.md"), *HOW_TO.glob("*.md")]
    text = "\n".join(re.sub(r"\\\n\s*", "", p.read_text("utf-8")) for p in pages)
    asked = re.findall(r"(?:bin/python -m workbench|bin/workbench) ([a-z]+)", text)
    assert len(asked) > 6
    assert [a for a in asked if a not in known] == []
    for notebook, words in re.findall(r"workbench run (notebooks/\S+\.ipynb)([^\n]*)", text):
        names = re.findall(r"-p (\w+) ", words)
        assert [n for n in names if n not in declared_parameters(root / notebook)] == [], words


def test_memory_by_hand_is_the_computed_table(root: Path) -> None:
    counted = {p.name: p.parameters for p in PRESETS if p.kind != "embedded" and p.adapter is None}
    assert {name: memory.SHAPES[name].parameters for name in counted} == counted
    shape = memory.SHAPES["smollm2"]
    assert memory.weights_mib(shape, "float32", models=2) == pytest.approx(2 * 4 * 134_515_008 / 2**20)
    assert shape.in_layers == 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)
    inside, beside = shape.in_layers, 134_515_008 - shape.in_layers
    assert memory.weights_mib(shape, "8-bit", models=1) == pytest.approx((inside + 2 * beside) / 2**20)
    sizes = [memory.weights_mib(shape, kind, models=1) for kind in memory.BYTES]
    assert sizes == sorted(sizes, reverse=True)


def test_reference_pages_have_every_argument_parameter_and_record(root: Path) -> None:
    from workbench.__main__ import _parser

    page = reference.command_line()
    for parser in reference._parsers(_parser()):
        assert f"## {parser.prog}\n" in page
    for word in ("-p NAME VALUE", "--executor local/ray", "--smoke", "calibrate", "130 stopped with Ctrl-C"):
        assert word in page, word
    from workbench.running.parameters import declared_parameters

    page = reference.notebook_parameters()
    for each in all_tutorials():
        section = page.split(f"## {each.source.stem}\n")[1].split("\n## ")[0]
        for p in declared_parameters(each.source).values():
            assert f"| `{p.name}` |" in section
    rooms = {page.name for page in reference.rooms()}
    modules = {p.stem for p in (root / "workbench").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert {f"workbench.{m}" for m in modules if not m.startswith("_")} <= rooms
    page = reference.records()
    assert "### TraceSet\n" in page
    assert "| `logprob_shift_nats` |" in page


def test_aligned_lines_of_a_docstring_become_a_list() -> None:
    from docs.making.docstrings import as_markdown

    made = as_markdown("Say it.\n\nlone    what it is,\n        and more\nb, c    both <b>of</b> them\n\nx_i * y_i")
    assert made == "Say it.\n\n- `lone`: what it is, and more\n- `b`, `c`: both &lt;b>of&lt;/b> them\n\nx\\_i \\* y\\_i"
    formula = "With\n\n    a     b\n      c   d"
    assert as_markdown(formula).endswith("```text\na     b\n  c   d\n```")


def notebook(folder: Path, *cells: dict[str, object]) -> Path:
    import json

    path = folder / "01_x.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), "utf-8")
    return path


def test_notebooks_become_pages_without_instructors_copies(tmp_path: Path) -> None:
    hostile = {"output_type": "stream", "name": "stdout", "text": "<img src=x onerror=alert(1)>"}
    bar = {"output_type": "display_data", "data": {"text/html": "<div><progress value='1'></progress></div>"}}
    view = {"output_type": "execute_result", "data": {"text/html": "<b>a view</b>", "text/plain": "a view"}}
    path = notebook(
        tmp_path,
        {"cell_type": "markdown", "source": "# 1 · X: what is it?\n\nSee [that](../README.md)."},
        {"cell_type": "code", "source": "print(1)", "outputs": [hostile, bar, view], "metadata": {}},
    )
    page = tutorials._page(path, path, "tutorials/01_x.md", False)
    assert page.name == "1 · X"
    assert "# 1 · X: what is it?" in page.text
    assert "See that." in page.text
    assert page.outputs == {"output-1": "<pre>&lt;img src=x onerror=alert(1)&gt;</pre>\n<b>a view</b>"}
    placed = tutorials.with_outputs('<p><div class="output" id="output-1"></div>', page.path, [page])
    assert "<b>a view</b></div>" in placed
    (tmp_path / "notebooks" / "lessons").mkdir(parents=True)
    for name in ("01_two.ipynb", "01_two_instructor.ipynb"):
        (tmp_path / "notebooks" / "lessons" / name).write_text("{}")
    found = all_tutorials(tmp_path)
    assert ([t.source.name for t in found], found[0].page) == (["01_two.ipynb"], "tutorials/lessons/01_two.md")
    assert isinstance(found[0], Tutorial)


def test_links_lead_somewhere(tmp_path: Path, root: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "index.html").write_text('<h1 id="there">x</h1><a href="..">up</a>')
    (tmp_path / "index.html").write_text(
        '<a href="sub/#there">a</a><a href="sub/#gone">b</a><a href="none.html">c</a><a href="https://example.com/">d</a>'
        '<a href="http://example.com/">e</a><script src="https://example.com/x.js"></script><img src="data:image/png,">'
    )
    (tmp_path / "x.css").write_text("@import url(https://example.com/font.css); a { background: url(x.png) }")
    found = broken(tmp_path)
    assert len(found) == 5, found
    for part in ("'sub/#gone' leads to no anchor", "'none.html' leads to no file", "not an https", "x.js is fetched"):
        assert any(part in line for line in found), part
    assert any("fetches from example.com" in line for line in found)
    made = {"tutorials/index.md", "results/index.md", "security.md", "live/index.html"}
    made |= {page.path for page in reference.pages()}
    pages = [*root.glob("*.md"), *root.glob("design/*.md"), *(root / "docs").rglob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text("utf-8")):
            target = (page.parent / link).resolve()
            inside = target.is_relative_to(root / "docs") and str(target.relative_to(root / "docs")) in made
            assert inside or target.exists(), f"{page.relative_to(root)}: {link}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_without_a_broken_link(tmp_path: Path, root: Path) -> None:
    words = (sys.executable, "-m", "docs.making", "--plain", "--out", str(tmp_path / "site"))
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken links" in done.stdout


def test_the_citation_and_the_safety_page_say_what_is_so(root: Path) -> None:
    body = yaml.safe_load((root / "CITATION.cff").read_text("utf-8"))
    assert (body["cff-version"], body["version"], body["license"]) == ("1.2.0", workbench.__version__, "MIT")
    assert {"message", "title", "authors"} <= body.keys()
    assert any("2511.12155" in i["value"] for r in body["references"] for i in r["identifiers"])
    for folder in ("workbench", "widgets"):
        for path in (root / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            found = re.findall(r"torch\.(?:load|save)\(|\bimport (?:c?pickle|cloudpickle|joblib|dill)\b", text)
            assert found == [], f"{path}: {found}"
            assert re.search(r"trust_remote_code=True\s*[,)]", text) is None, path
    named = re.findall(r"`((?:workbench|widgets|tests)/[\w/.*-]+)`", (root / "SECURITY.md").read_text("utf-8"))
    assert len(named) > 15
    assert [n for n in named if not list(root.glob(n.rstrip("/")))] == []
