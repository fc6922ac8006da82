"""The keys of cells: equal notebook, parameters, versions and files give equal keys, anything else another key."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.core.provenance import package_versions
from workbench.running.batch.grid import with_texts
from workbench.running.parameters import read_notebook

VERSIONS = ("deep-alignment-workbench", "torch", "transformers", "peft")
"""The packages whose versions are part of a key."""
LARGE = 256 * 2**20
"""Bytes above which a file's hash is of its size and its first and last MiB, so that weights are not read whole."""


def versions() -> dict[str, str]:
    """Return the versions that are part of every key."""
    found = package_versions()
    return {name: found[name] for name in VERSIONS if name in found}


def code_of(notebook: str | Path) -> list[str]:
    """Return the source of a notebook's code cells; its text, outputs and metadata do not change a key."""
    cells = read_notebook(notebook)["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]


def cell_key(stage: str, code: list[str], parameters: Mapping[str, Any], needs: Mapping[str, str]) -> str:
    """Return a cell's key, 32 hexadecimal digits of a SHA-256.

    It hashes the stage's name, the notebook's code, the parameters given to it (`needs` maps the folders of the cells
    needed to their keys, so that the key does not depend on where the batch writes), VERSIONS, and the content of
    every file or folder that a parameter names.
    """

    def portable(text: str) -> str:
        for folder, key in needs.items():
            text = text.replace(folder, f"<{key}>")
        return text

    own = {n: v for n, v in parameters.items() if n != "out"}
    files = {
        portable(text): content_hash(path)
        for value in own.values()
        for text, path in _named_files(value)
        if not any(folder in text for folder in needs)  # what a cell of this batch makes is known by that cell's key
    }
    parts = [stage, code, with_texts(own, portable), sorted(needs.values()), versions(), files]
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _named_files(value: Any) -> Iterator[tuple[str, Path]]:
    """Yield the files and folders that a parameter names: whole, or after a name as in `guard:FOLDER`."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _named_files(item)
    elif isinstance(value, str) and len(value) < 4096:
        for text in dict.fromkeys((value, value.partition(":")[2], value.partition("=")[2])):
            if text.strip(" .") and "\0" not in text and _is_input(Path(text)):
                yield text, Path(text)


def _is_input(path: Path) -> bool:
    try:
        if path.is_file():
            return True
        here = Path.cwd()
        return path.is_dir() and path.resolve() not in (here, *here.parents)
    except OSError:  # too long to be a name
        return False


def content_hash(path: Path) -> str:
    """Return a hash of a file, or of all files of a folder with their names; hidden ones are left out."""
    if path.is_file():
        found = path.stat()
        return _file_hash(path.resolve(), found.st_size, found.st_mtime_ns)
    whole = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path)
        if not any(part.startswith(".") for part in name.parts):
            whole.update(f"{name}\0{content_hash(file)}\0".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


@functools.cache
def _file_hash(path: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size < LARGE:
            while block := file.read(2**20):
                digest.update(block)
        else:
            digest.update(file.read(2**20))
            file.seek(-(2**20), 2)
            digest.update(file.read())
    return digest.hexdigest()
