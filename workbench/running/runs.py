"""Run a notebook without a screen: parameters in, one folder out.

A run writes its folder under a temporary name and renames it when it is complete. A failed run leaves `<out>.failed`
with the notebook as far as it ran; a stopped or killed one leaves a temporary folder, which the next run removes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.core.configs import takes_fields
from workbench.core.errors import NotebookFailed, ParameterError, RecordError
from workbench.core.files import FULL, storage_errors, sync
from workbench.core.provenance import Stopwatch
from workbench.core.results import read_rows
from workbench.core.threads import thread_settings
from workbench.running.kernel import Kept, Say, execute
from workbench.running.parameters import declared_parameters, resolve_parameters
from workbench.running.shipped import notebook_named


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run: its notebook, parameters and folder.

    `smoke` takes the small settings from the notebook's metadata; `parameters` overrides them. `cell_seconds` limits
    one cell (None: no limit), `start_seconds` the kernel's start. `page`: also write the executed notebook as a page;
    None: only where the notebook writes no report.html of its own.
    """

    notebook: str | Path
    out: str | Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    smoke: bool = False
    cell_seconds: int | None = None
    start_seconds: int = 120
    page: bool | None = True


@dataclass(frozen=True, kw_only=True)
class RunPaths:
    """The paths of a run: its folder, the executed notebook, and its page, results and report, None without them."""

    folder: Path
    notebook: Path
    html: Path | None
    results: Path | None
    report: Path | None


@takes_fields(RunConfig)
def run_notebook(config: RunConfig, *, say: Say | None = None, kept: Kept | None = None) -> RunPaths:
    """Run a notebook in a kernel of its own, or in one that is kept, and return the paths of its files.

    A notebook that declares the parameter `out` gets the folder to write into and must write `results.json` there.
    Relative paths are relative to the caller's working directory. `say` takes a line whenever a cell starts.

    Raises ParameterError before anything runs, NotebookFailed when the notebook does not reach its end with results,
    StorageFull when the disk is full. In each case an earlier run in `out` stays as it was.
    """
    source, out = notebook_named(config.notebook), _target(config.out)
    watch = Stopwatch("run", config)
    takes_out = "out" in declared_parameters(source)
    if "out" in config.parameters:
        raise ParameterError("the run sets the parameter 'out': name the folder as the run's own `out` (--out)")
    parameters = resolve_parameters(source, config.parameters, smoke=config.smoke)
    _check_target(out, source)
    with _partial_folder(out) as partial:
        if takes_out:
            parameters["out"] = str(partial)
        executed = partial / f"{source.stem}.ipynb"
        try:
            limits = {"start_seconds": config.start_seconds, "cell_seconds": config.cell_seconds}
            execute(source, executed, parameters, say=say or (lambda line: None), kept=kept, **limits)
            _check_results(partial, source, required=takes_out)
        except NotebookFailed as error:
            failed = _keep_failed(partial, out, executed)
            left = f" (as far as it ran: {failed / executed.name})" if (failed / executed.name).exists() else ""
            said = NotebookFailed(f"{error}{left}")
            said.exit_code = error.exit_code
            raise said from error.__cause__
        _strip_widgets(executed)
        if config.page or (config.page is None and not (partial / "report.html").exists()):
            (partial / f"{source.stem}.html").write_text(notebook_html(executed), "utf-8")
        if not (partial / "run.json").exists():
            record = dataclasses.asdict(watch.record(resolved={"parameters": parameters, "threads": thread_settings()}))
            (partial / "run.json").write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", "utf-8")
        _write_final_name(partial, out)
        _replace(partial, out)
    html, results, report = (
        path if path.exists() else None
        for path in (out / f"{source.stem}.html", out / "results.json", out / "report.html")
    )
    return RunPaths(folder=out, notebook=out / f"{source.stem}.ipynb", html=html, results=results, report=report)


def _target(out: str | Path) -> Path:
    """Return the folder to write; a link stays, and what it points to is written. Raises ParameterError for none."""
    try:
        path = Path(out)
        path.exists()  # refuses a name that is too long
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError) as error:  # the latter: links in a circle
        said = getattr(error, "strerror", None) or str(error)
        raise ParameterError(f"--out {str(out)[:80]!r} cannot be made: {said}") from error


def _check_target(out: Path, source: Path) -> None:
    if not out.name or out.name == "..":
        raise ParameterError(f"--out {str(out)!r} is not the name of a folder to make: give one, such as runs/first")
    if not out.exists():
        return
    if not out.is_dir():
        raise ParameterError(f"--out {str(out)!r} is a file, not a folder")
    here = out.resolve()
    if any(here == p or here in p.parents for p in (Path.cwd(), source.resolve())):
        raise ParameterError(f"--out {str(out)!r} holds the notebook or the working directory: name another folder")
    names = {p.name for p in out.iterdir()}
    if names and not {"run.json", "results.json"} & names:
        raise ParameterError(
            f"--out {str(out)!r} exists and is not an earlier run (no run.json in it): name another folder"
        )


@contextmanager
def _partial_folder(out: Path) -> Iterator[Path]:
    """Yield the temporary sibling that becomes `out`; remove those of runs that have ended."""
    _clear_stale(out)
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        with storage_errors(out):
            try:
                partial.mkdir(parents=True)
            except OSError as error:
                if error.errno in FULL:
                    raise
                raise ParameterError(f"--out {str(out)!r} cannot be made: {error.strerror}") from error
            yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _clear_stale(out: Path) -> None:
    for stale in out.parent.iterdir() if out.parent.is_dir() else ():
        found = re.fullmatch(re.escape(out.name) + r"\.partial-(\d+)-[0-9a-f]{8}(-old)?", stale.name)
        if found is None or _is_alive(int(found[1])):
            continue
        if found[2] and not out.exists():
            os.replace(stale, out)  # killed between the two renames: restore the earlier run
        else:
            shutil.rmtree(stale, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return process != os.getpid()


def _replace(partial: Path, out: Path) -> None:
    old = partial.with_name(f"{partial.name}-old")
    sync(*partial.rglob("*"), partial)  # everything is on the disk before the folder gets its name
    if out.exists():
        os.replace(out, old)
    os.replace(partial, out)
    sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(out.with_name(f"{out.name}.failed"), ignore_errors=True)


def _keep_failed(partial: Path, out: Path, executed: Path) -> Path:
    failed = out.with_name(f"{out.name}.failed")
    shutil.rmtree(failed, ignore_errors=True)
    if executed.exists():
        _write_final_name(partial, failed)
    os.replace(partial, failed)
    return failed


def _write_final_name(partial: Path, final: Path) -> None:
    """Write the folder's final name wherever the run wrote its temporary one."""
    for path in partial.iterdir():
        if path.suffix in (".ipynb", ".html", ".json"):
            text = path.read_text("utf-8")
            if partial.name in text:
                path.write_text(text.replace(partial.name, final.name), "utf-8")


def _check_results(partial: Path, source: Path, *, required: bool) -> None:
    path = partial / "results.json"
    if not path.exists():
        if required:
            raise NotebookFailed(f"{source} finished, but wrote no results.json into its folder `out`")
        return
    try:
        rows = read_rows(path)
    except RecordError as error:
        raise NotebookFailed(f"{source} finished, but {error}") from error
    if not rows:
        raise NotebookFailed(f"{source} wrote a results.json with no rows")


_WIDGET = "application/vnd.jupyter.widget-view+json"
_OFFLINE_TEMPLATE = """\
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
"""


def _strip_widgets(notebook: Path) -> None:
    """Remove saved widget state, which can be large and shows nothing without a kernel."""
    body = json.loads(notebook.read_text("utf-8"))
    body["metadata"].pop("widgets", None)
    for cell in body["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(_WIDGET, None)
    notebook.write_text(json.dumps(body, ensure_ascii=False, indent=1) + "\n", "utf-8")


def notebook_html(notebook: str | Path) -> str:
    """Return an executed notebook as one HTML page that needs no network."""
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(raw_template=_OFFLINE_TEMPLATE, embed_images=True)
    resources = {"metadata": {"name": Path(notebook).stem, "path": str(Path(notebook).parent)}}
    page: str
    page, _ = exporter.from_notebook_node(nbformat.read(str(notebook), as_version=4), resources)
    return page
