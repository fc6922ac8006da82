"""What a batch remembers: a file of finished and failed cells that only grows, and a lease per cell that runs.

A line is appended and synced to disk only after a cell's process has ended well and its folder stands in its place. A
line that a crash has torn is left alone: the next one starts on a line of its own. Several batches may use one folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]


class Manifest:
    """Read and append to `manifest.jsonl`. The last line of a cell counts; `status` in it is "ok" or "failed"."""

    def __init__(self, out: str | Path) -> None:
        self.path = Path(out) / "manifest.jsonl"
        self.lines: list[Line] = []
        self.last: dict[str, Line] = {}
        self._read = 0

    def refresh(self) -> None:
        """Read what was appended since, by this batch or another."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except FileNotFoundError:
            return
        whole, newline, _ = new.rpartition(b"\n")
        self._read += len(whole) + len(newline)
        for raw in whole.split(b"\n"):
            try:
                line = json.loads(raw)
            except ValueError:
                continue  # empty, or torn by a crash
            if isinstance(line, dict) and isinstance(line.get("key"), str):
                self.lines.append(line)
                self.last[line["key"]] = line

    def status(self, key: str) -> str | None:
        """Return "ok", "failed", or None for a cell that no line speaks of."""
        line = self.last.get(key)
        return None if line is None else str(line.get("status"))

    def append(self, line: Line) -> None:
        """Append one line and return when it is on the disk."""
        text = json.dumps(line, ensure_ascii=True, allow_nan=False, default=str).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                text = b"\n" + text
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self.refresh()


class Lease:
    """Hold the right to run one cell. The system takes it back when all who hold it are gone, however they ended.

    The lease is a lock on an open file; a process that inherits the file's descriptor holds it too. So it is free only
    when the batch that took it and the cell's own process have both ended.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def take(cls, out: str | Path, key: str) -> Lease | None:
        """Take the lease of a cell, or return None where another batch holds it."""
        folder = Path(out) / "leases"
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(descriptor)

    def give_back(self) -> None:
        """Close the file; the lease is free once no process holds it."""
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


def sync_folder(folder: Path) -> None:
    """Return when a folder's files, and their names, are on the disk."""
    for path in (*_under(folder), folder, folder.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _under(folder: Path) -> Iterator[Path]:
    yield from (p for p in folder.rglob("*") if not p.is_symlink())
