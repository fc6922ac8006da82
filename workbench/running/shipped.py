"""The notebooks and lessons that come with the workbench: find one by name, or copy all into a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from workbench.core.errors import NotPresent, ParameterError, nearest

VERBS = {
    "diagnose": "01_diagnosis",
    "tune": "02_penalty_tuning",
    "complete": "03_distillation",
    "evaluate": "04_evaluation",
}
"""The notebook that each verb of the command line runs."""


def shipped_folder() -> Path:
    """Return the folder of the shipped notebooks: beside the package in a checkout, inside it in an installation."""
    package = Path(__file__).resolve().parents[1]
    folders = (package.parent / "notebooks", package / "notebooks")
    for folder in folders:
        if (folder / f"{VERBS['diagnose']}.ipynb").is_file():
            return folder
    where = " and ".join(map(str, folders))
    raise NotPresent(f"this installation has no notebooks in {where}: install the workbench again")


def notebook_named(name: str | Path) -> Path:
    """Return the notebook at a path, or the shipped one of that name, `.ipynb` optional. Raises NotPresent."""
    path = Path(name)
    if path.is_file() or path.parent != Path("."):
        return path
    known = {p.stem: p for p in _shipped(solutions=False)}
    if path.name.removesuffix(".ipynb") in known:
        return known[path.name.removesuffix(".ipynb")]
    near = nearest(path.stem, list(known))
    raise NotPresent(f"no notebook at {str(name)!r}, and no shipped one has that name: {near}")


def copy_notebooks(folder: str | Path, *, solutions: bool = False) -> list[Path]:
    """Copy the shipped notebooks and lessons into a folder and return the copies; `solutions` adds answered lessons.

    Raises ParameterError, before it copies anything, where the folder has such a file with other content.
    """
    folder, source = Path(folder), shipped_folder()
    pairs = [(p, folder / p.relative_to(source)) for p in _shipped(solutions=solutions)]
    changed = [str(to) for p, to in pairs if to.exists() and (not to.is_file() or to.read_bytes() != p.read_bytes())]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ParameterError(f"{changed[0]}{more} has other content, which a copy would overwrite: name another folder")
    for path, to in pairs:
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    return [to for _, to in pairs]


def _shipped(*, solutions: bool) -> list[Path]:
    folder = shipped_folder()
    patterns = ("*.ipynb", "lessons/*.ipynb", *(("lessons/instructor/*.ipynb",) if solutions else ()))
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]
