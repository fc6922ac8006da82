"""Files and folders that are written whole or not at all, file names, and the cache folder."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

from workbench.core.errors import StorageFull


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn any library's error about a full disk into StorageFull, which names the target."""
    try:
        yield
    except Exception as error:
        if isinstance(error, StorageFull) or not _is_full(error):
            raise
        said = f"the disk is full: could not write {str(target)!r}. Free some space and run again; older files stay"
        raise StorageFull(errno.ENOSPC, said) from error


FULL = (errno.ENOSPC, errno.EDQUOT)
"""The numbers of errors about a full disk or quota."""


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in FULL
    return any(f"(os error {number})" in str(error) for number in FULL)  # safetensors' own error has no number


def _partial_name(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial-{uuid.uuid4().hex[:8]}")


@contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Yield an empty folder that replaces the target when the block ends without an error. Raises StorageFull."""
    target = Path(target)
    partial = _partial_name(target)
    with storage_errors(target):
        partial.mkdir(parents=True)
        try:
            yield partial
            old = _partial_name(target)
            if target.exists():
                os.replace(target, old)
            os.replace(partial, target)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def atomic_file(target: str | Path) -> Iterator[Path]:
    """Yield a path to write; the file replaces the target when the block ends without an error. Raises StorageFull."""
    target = Path(target)
    partial = _partial_name(target)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)


def sync(*paths: Path) -> None:
    """Wait until files, and the names in folders, are on the disk; links are skipped."""
    for path in paths:
        if not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


_RESERVED = {"con", "prn", "aux", "nul", *(f"{device}{n}" for device in ("com", "lpt") for n in range(1, 10))}


def legal_names(texts: Iterable[str]) -> list[str]:
    """Return a file name for each text; all are legal on every system and differ even where case does not count."""
    names: list[str] = []
    taken: set[str] = set()
    for text in texts:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:100].rstrip("-.") or "unnamed"
        if name.partition(".")[0].lower() in _RESERVED:
            name = f"_{name}"
        free = next(n for n in chain([name], (f"{name}--{i}" for i in count(2))) if n.lower() not in taken)
        taken.add(free.lower())
        names.append(free)
    return names


def cache_folder() -> Path:
    """Return the folder for downloads and stored results: $WORKBENCH_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("WORKBENCH_CACHE"):
        return Path(chosen).expanduser()
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "deep-alignment-workbench"


def sha256_of(path: Path) -> str:
    """Return a file's sha256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
