"""Content-addressed results on disk, so that a killed run resumes where it stopped.

A store is a folder of shards; a shard is one safetensors file of several entries, written whole or not at all. An entry
is a dict of arrays under a key that hashes everything it depends on.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from workbench.core.files import FULL, atomic_file, cache_folder
from workbench.core.progress import Progress

Entry = Mapping[str, np.ndarray]


def key_of(*parts: Any) -> str:
    """Hash JSON-able parts into a key of 32 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Store:
    """Entries by key under a folder; with `None` as folder nothing is stored."""

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._shard_of: dict[str, Path] = {}
        if self.folder is not None and self.folder.is_dir():
            for shard in sorted(self.folder.glob("*.safetensors")):
                self._index(shard)

    @classmethod
    def of(cls, store: Store | None) -> Store:
        """Return the given store, or for None a store that stores nothing."""
        return cls(None) if store is None else store

    @classmethod
    def default(cls) -> Store:
        """Return the store in the cache folder; one that stores nothing, with a note, where that cannot be written."""
        folder = cache_folder() / "store"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            if error.errno in FULL:
                return cls(folder)  # what is in it can be read
            with Progress(None, 0, "") as progress:
                progress.note(
                    f"The cache folder {str(folder)!r} cannot be written ({error.strerror}), so no finished work is "
                    "kept and a stopped run starts anew: WORKBENCH_CACHE names another folder."
                )
            return cls(None)
        return cls(folder)

    def _index(self, shard: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(shard, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118 - safe_open has no iterator
                    self._shard_of[name.split("/", 1)[0]] = shard
        except (SafetensorError, OSError):
            shard.unlink(missing_ok=True)  # damaged: its entries are computed again

    def __contains__(self, key: str) -> bool:
        return key in self._shard_of

    def __len__(self) -> int:
        return len(self._shard_of)

    def read(self, key: str) -> dict[str, np.ndarray]:
        """Return one entry. Raises KeyError where there is none."""
        from safetensors import safe_open

        with safe_open(self._shard_of[key], framework="numpy") as file:
            start = f"{key}/"
            return {n[len(start) :]: file.get_tensor(n) for n in file.keys() if n.startswith(start)}  # noqa: SIM118

    def write(self, entries: Mapping[str, Entry]) -> None:
        """Store entries as one shard. Raises StorageFull; earlier shards stay."""
        from safetensors.numpy import save_file

        if self.folder is None or not entries:
            return
        flat = {f"{k}/{n}": np.ascontiguousarray(a) for k, entry in entries.items() for n, a in entry.items()}
        shard = self.folder / f"{uuid.uuid4().hex}.safetensors"
        with atomic_file(shard) as partial:
            save_file(flat, partial)
        self._shard_of.update(dict.fromkeys(entries, shard))
