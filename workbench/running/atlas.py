"""An atlas of saved runs: their diagnoses on one page, each linked to its report; no model is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from workbench.core.errors import ParameterError, RecordError
from workbench.core.files import atomic_file
from workbench.core.provenance import Stopwatch
from workbench.core.records import load
from workbench.display.report import Section, page
from workbench.display.views.atlas import atlas
from workbench.tracing.records import Diagnosis


def write_atlas(runs: Sequence[str | Path], out: str | Path) -> Path:
    """Write the diagnoses of these runs side by side as one page and return its path.

    A run is named by its folder. Raises RecordError for a folder without a diagnosis, ParameterError for two runs of
    one name, StorageFull when the disk is full.
    """
    watch = Stopwatch("atlas", {"runs": [str(r) for r in runs]})
    out, found, links = Path(out), dict[str, Diagnosis](), dict[str, str]()
    for run in map(Path, runs):
        name = run.resolve().name
        if name in found:
            raise ParameterError(f"two runs are called {name!r}: an atlas names a run by its folder, so rename one")
        if not (run / "records" / "diagnosis").is_dir():
            raise RecordError(f"{str(run)!r} is not the folder of a diagnosis: it has no records/diagnosis")
        found[name] = load(run / "records" / "diagnosis", Diagnosis)
        if (run / "report.html").exists():
            links[name] = quote(os.path.relpath(run / "report.html", out.resolve().parent))
    view = atlas(found, links)
    sections = [Section(title="How deep each alignment goes", parts=(view,))]
    with atomic_file(out) as partial:
        partial.write_text(page(f"Atlas of {len(found)} runs", sections, [[view]], watch.record()), "utf-8")
    return out
