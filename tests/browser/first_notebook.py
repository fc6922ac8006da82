"""The first notebook with its small settings, as papermill would hand it to a kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat

from tests.browser.lab import ROOT
from workbench.running.parameters import import_papermill, resolve_parameters

FIRST = ROOT / "notebooks" / "01_diagnosis.ipynb"


def write_first_notebook(path: Path, **parameters: Any) -> Path:
    """Write a copy of notebook 01 with its smoke settings and `parameters` injected."""
    import_papermill()
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    chosen = resolve_parameters(FIRST, {"out": str(path.with_suffix("")), **parameters}, smoke=True)
    nbformat.write(parameterize_notebook(load_notebook_node(str(FIRST)), chosen), path)
    return path
