"""The report: one page that needs nothing, results for programs, all of it complete or not there."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import plotly.graph_objects as go
import plotly.io
import pytest

from tests.errors import refuses
from tests.hostile_texts import EXECUTABLE, HOSTILE_TEXTS
from tests.record_makers import make_diagnosis
from tests.test_views import every_view, hostile_diagnosis, hostile_traces
from tests.trace_makers import make_traces, run_record
from workbench.core import files
from workbench.core.errors import ParameterError
from workbench.core.records import Row, load
from workbench.display import figures, views
from workbench.display.report import Report, ReportPaths, Section, write_report
from workbench.tracing.diagnosis import diagnosis_rows
from workbench.tracing.records import Diagnosis, TraceSet

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def report(folder: Path, **changes: object) -> ReportPaths:
    traces = make_traces(prefixes=(0, 5), tokens=24)
    diagnosis = make_diagnosis(traces)
    sections = (
        Section(title="What it found", text=("Two models, compared.",), parts=(views.verdict(diagnosis),)),
        Section(
            title="By position",
            parts=(figures.panel(diagnosis), figures.curves(diagnosis), views.token_view(traces, 0)),
        ),
        Section(title="By position", parts=(figures.retention_heat_map(diagnosis),)),
    )
    rows = [Row(name="retention", position=1, value=0.5, low=0.4, high=0.6, n=6, unit="1", label="harmful")]
    asked = dict(title="A report", sections=sections, rows=rows, records={"diagnosis": diagnosis, "traces": traces})
    return write_report(folder, **{**asked, "run": run_record("diagnose"), **changes})  # type: ignore[arg-type]


def test_one_call_writes_the_page_the_rows_the_run_the_records_and_the_figures(tmp_path: Path) -> None:
    paths = report(tmp_path / "run")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "report.html",
        "results.json",
        "run.json",
        "records",
        "figures",
    }
    row = json.loads(paths.results.read_text("utf-8"))["rows"][0]
    assert (row["name"], row["position"], row["value"], row["n"], row["unit"]) == ("retention", 1, 0.5, 6, "1")
    assert row["arm"] is None
    run = json.loads(paths.run.read_text("utf-8"))
    assert (run["verb"], run["fingerprint"]) == ("diagnose", "fake-pair")
    assert load(paths.records / "diagnosis", Diagnosis) == make_diagnosis(make_traces(prefixes=(0, 5), tokens=24))
    assert load(paths.records / "traces", TraceSet).lengths().sum() > 0
    drawn = sorted(paths.figures.glob("*.json"))
    assert len(drawn) == 3
    assert all(isinstance(plotly.io.read_json(p), go.Figure) for p in drawn)
    assert str(paths.results) in str(paths)


def test_a_page_draws_its_figures_without_a_library_and_fetches_nothing(tmp_path: Path) -> None:
    html = report(tmp_path).html.read_text("utf-8")
    assert html.count('<svg class="wb-drawn"') == 3
    assert "Plotly" not in html
    assert len(html.encode()) < 1_000_000
    outside = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"https?://|//cdn|@import|url\(", outside)
    assert outside.count("<style>") == 1
    assert 'href="#by-position-2"' in outside
    assert 'id="by-position-2"' in outside
    assert "fake-pair" in outside
    html = report(tmp_path, sections=(Section(title="Words", text=("Only words.",)),)).html
    assert html.stat().st_size < 60_000


def test_a_report_replaces_the_old_one_only_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report(tmp_path)
    assert "Another" in report(tmp_path, title="Another").html.read_text("utf-8")
    paths = report(tmp_path)
    before = paths.html.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    refuses(lambda: report(tmp_path, title="Another"), files.StorageFull, "disk")
    assert paths.html.read_bytes() == before
    assert not list(tmp_path.rglob("*.partial-*"))
    refuses(lambda: report(tmp_path, records={"../up": make_traces()}), ParameterError, "../up")


def made(folder: Path, **changes: object) -> Report:
    """A report as a notebook makes it: parameters annotated, a view, a figure and records."""
    namespace = {"__annotations__": {"seed": int, "out": str, "later": int}, "seed": 3, "out": str(folder), "other": 1}
    made = Report("Diagnosis", namespace | changes)
    traces = make_traces()
    diagnosis = make_diagnosis(traces)
    made.show(figures.panel(diagnosis), None, section="By position")
    made.show(views.verdict(diagnosis))
    made.keep(traces=traces, diagnosis=diagnosis)
    return made


def test_a_report_reads_parameters_alone_and_writes_what_was_shown_and_kept(tmp_path: Path) -> None:
    report = made(tmp_path / "run")
    assert report.parameters == {"seed": 3, "out": str(tmp_path / "run")}
    paths = report.write(more=tmp_path / "more.json")
    rows = json.loads(paths.results.read_text("utf-8"))["rows"]
    assert [r["name"] for r in rows] == [r.name for r in diagnosis_rows(load(paths.records / "diagnosis", Diagnosis))]
    run = json.loads(paths.run.read_text("utf-8"))
    assert (run["verb"], run["seed"], run["asked"]["seed"]) == ("diagnosis", 3, 3)
    assert "other" not in run["asked"]
    page = paths.html.read_text("utf-8")
    assert page.index("<h2>By position<") < page.index("<h2>Method<")
    assert load(paths.records / "traces", TraceSet) == make_traces()
    shown = paths._repr_mimebundle_()["text/html"]
    assert "more.json" in shown
    assert "report.html" in shown


def test_a_cell_that_runs_again_replaces_what_it_showed_and_kept(tmp_path: Path) -> None:
    once, twice = made(tmp_path / "once"), made(tmp_path / "twice")
    diagnosis = make_diagnosis(make_traces())
    shown = twice.show(figures.panel(diagnosis), section="By position")
    assert isinstance(shown, views.FigureView)
    twice.keep(diagnosis=diagnosis)
    assert len(twice.rows) == len(once.rows)
    html = [r.write().html.read_text("utf-8").count("<figure>") for r in (once, twice)]
    assert html == [1, 1]


def test_rows_are_written_once_and_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    report = made(tmp_path)
    before = report.rows
    report.keep(continued=make_diagnosis(make_traces()))
    assert report.rows == before
    refuses(lambda: Report("Diagnosis", {"limit": 3}), ParameterError)
    refuses(lambda: made(tmp_path).show("words"), ParameterError, "str")
    refuses(lambda: made(tmp_path).keep(text="words"), ParameterError, "text")
    refuses(lambda: Report("D", {"__annotations__": {"n": int}, "n": 1}).write(), ParameterError, "out")


def test_what_a_run_is_about_names_the_report_and_stands_before_the_method(tmp_path: Path) -> None:
    report = made(tmp_path)
    pair = SimpleNamespace(name="<b>a pair", fingerprint="f1", device="cpu", notes=("a note",))
    assert "a note" in report.about(pair).text
    paths = report.write()
    page = paths.html.read_text("utf-8")
    assert "Diagnosis of &lt;b&gt;a pair" in page
    assert page.index("<h2>Method") < page.index("a note")
    assert json.loads(paths.run.read_text("utf-8"))["fingerprint"] == "f1"


def test_parts_of_one_cell_are_displayed_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, seen = made(tmp_path), []
    diagnosis = make_diagnosis(make_traces())
    both = report.show(views.verdict(diagnosis), views.contrasts_table(diagnosis), section="What it means")
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=lambda *parts: seen.extend(parts)))
    both._ipython_display_()
    assert [v.title for v in seen] == [views.verdict(diagnosis).title, views.contrasts_table(diagnosis).title]


DETECTOR = """() => ({
  tripped: window.tripped || 0,
  foreign: document.querySelectorAll("img, iframe, object, embed, base, link, body meta, body style, svg script")
    .length,
  handlers: [...document.querySelectorAll("*")]
    .filter((e) => [...e.attributes].some((a) => a.name.startsWith("on"))).length,
})"""


def _visit(chromium: str, page_file: Path, *, act: bool) -> dict[str, object]:
    """Open a page, act on it, and return what a hostile text could have done, with every request and error."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            page = browser.new_page()
            requests: list[str] = []
            errors: list[str] = []
            page.on("request", lambda r: requests.append(r.url))
            page.on("pageerror", lambda e: errors.append(str(e)))
            page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
            page.goto(page_file.as_uri(), wait_until="load")
            page.wait_for_timeout(500)
            seen: dict[str, object] = {}
            if act:
                page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
                tokens = page.locator(".wb-text").first.locator(".t")
                seen["count"] = tokens.count()
                tokens.first.focus()
                cards = []
                for _ in range(tokens.count()):
                    cards.append(page.locator(".wb-card").inner_text())
                    page.keyboard.press("ArrowRight")
                seen["cards"] = cards
            seen |= page.evaluate(DETECTOR)
            seen["requests"] = [u for u in requests if u != page_file.as_uri()]
            seen["errors"] = errors
            return seen
        finally:
            browser.close()


@pytest.mark.browser
def test_no_hostile_text_executes_in_a_browser_and_the_detector_sees_one_that_does(chromium, tmp_path) -> None:
    traces = hostile_traces()
    diagnosis = hostile_diagnosis(traces)
    title = " ".join(HOSTILE_TEXTS)
    sections = [Section(title=title, text=(title,), parts=tuple(every_view(traces, diagnosis)))]
    path = report(tmp_path, title=title, sections=sections, records={}).html
    seen = _visit(chromium, path, act=True)
    assert (seen["tripped"], seen["foreign"], seen["handlers"]) == (0, 0, 0)
    assert (seen["requests"], seen["errors"], seen["count"]) == ([], [], len(HOSTILE_TEXTS))
    cards = seen["cards"]
    assert isinstance(cards, list)
    assert "onerror" in cards[2]
    assert "retention" in cards[2]

    unsafe = tmp_path / "unsafe.html"
    unsafe.write_text(
        "<!doctype html><meta charset=utf-8><div>" + "</div><div>".join(EXECUTABLE[:10]) + "</div>", "utf-8"
    )
    control = _visit(chromium, unsafe, act=False)
    assert control["tripped"] == 1
    assert control["foreign"]
    assert control["handlers"]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 700])
def test_the_page_fits_and_reads_in_both_themes(chromium: str, tmp_path: Path, scheme: str, width: int) -> None:
    from playwright.sync_api import sync_playwright

    path = report(tmp_path).html
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            ink = page.evaluate("getComputedStyle(document.querySelector('.wb-drawn text')).fill")
            assert (paper, ink) == (
                ("rgb(255, 255, 255)", "rgb(27, 27, 31)")
                if scheme == "light"
                else ("rgb(17, 17, 17)", "rgb(233, 233, 236)")
            )
            assert page.evaluate("typeof Plotly") == "undefined"
        finally:
            browser.close()
