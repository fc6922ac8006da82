"""The workbench's cache folder: list what it holds by kind, and clear known kinds that are not in use.

All of it can be restored: downloads from the network, the rest by computing it again.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.core.errors import ParameterError, UnknownName, nearest
from workbench.core.files import cache_folder
from workbench.core.legible import aligned

KINDS = {
    "models": "fetched models",
    "downloads": "unfinished downloads of models",
    "store": "results by content: answers, judgements, traces, hidden states",
    "trainings": "adapters, and unfinished trainings with their checkpoints",
    "hashes": "hashes of large files",
    "offload": "weights that did not fit into memory",
}
"""The folders that are listed and cleared, and what they hold; other folders in the cache stay."""
QUIET_SECONDS, UNFINISHED_SECONDS = 600, 86_400
"""A thing that changed more recently may be in use and is not cleared; an unfinished training, whose checkpoints may be
far apart, has the longer limit."""
_SPAN = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, kw_only=True)
class Item:
    """One stored thing: `size` in bytes, `changed` in seconds since the epoch, `in_use` why it must stay."""

    kind: str
    name: str
    path: Path
    size: int
    changed: float
    in_use: str | None = None


def cached(folder: Path | None = None, *, now: float | None = None) -> tuple[Item, ...]:
    """List everything of the known kinds in the cache folder, by kind and name; links are not followed."""
    folder = cache_folder() if folder is None else folder
    now = time.time() if now is None else now
    mapped = _open_paths()
    found = []
    for kind in KINDS:
        place = folder / kind
        if place.is_symlink() or not place.is_dir():
            continue
        inside = [_item(kind, p) for p in sorted(place.iterdir())]
        newest = max((i.changed for i in inside), default=0.0)
        found += [_judged(i, newest if kind == "store" else i.changed, now, mapped) for i in inside]
    return tuple(found)


def _item(kind: str, path: Path) -> Item:
    size, changed = 0, 0.0
    for each in (path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())):
        with contextlib.suppress(OSError):  # gone meanwhile
            about = each.lstat()
            changed = max(changed, about.st_mtime)
            size += about.st_size if not each.is_dir() else 0
    return Item(kind=kind, name=path.name, path=path, size=size, changed=changed)


def _judged(item: Item, changed: float, now: float, mapped: frozenset[str]) -> Item:
    unfinished = item.name.endswith(".training")
    why = None
    if now - changed < (UNFINISHED_SECONDS if unfinished else QUIET_SECONDS):
        why = f"changed {said_age(now - changed)} ago" + (", an unfinished training" if unfinished else "")
    elif any(f"{p}{os.sep}".startswith(f"{item.path}{os.sep}") for p in mapped):
        why = "open in a process"
    return replace(item, in_use=why)


def _open_paths() -> frozenset[str]:
    """Return the files in the cache that processes of this machine have mapped, as far as Linux reports them."""
    here, found = str(cache_folder().resolve()), set[str]()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            found.update(line.split(None, 5)[5].strip() for line in maps.read_text().splitlines() if here in line)
    return frozenset(found)


def chosen(
    items: Iterable[Item],
    *,
    kinds: Sequence[str] = (),
    names: Sequence[str] = (),
    older_than: str | None = None,
    now: float | None = None,
) -> tuple[Item, ...]:
    """Return the items of these kinds whose name matches one of these patterns, unchanged for `older_than` (7d).

    Without kinds, names or an age every item matches. Raises UnknownName for a kind, ParameterError for an age.
    """
    now = time.time() if now is None else now
    for kind in kinds:
        if kind not in KINDS:
            raise UnknownName(f"the cache has no kind {kind!r}: {nearest(kind, tuple(KINDS))}")
    least = 0.0 if older_than is None else _seconds(older_than)
    return tuple(
        i
        for i in items
        if (not kinds or i.kind in kinds)
        and (not names or any(fnmatch.fnmatchcase(i.name, pattern) for pattern in names))
        and now - i.changed >= least
    )


def clear(items: Iterable[Item], folder: Path | None = None) -> tuple[int, list[str]]:
    """Remove items and return the freed bytes, and sentences about the items that stay.

    An item stays where it is in use, or is not directly in a known kind's folder of the cache. Of a link only the link
    is removed.
    """
    folder = (cache_folder() if folder is None else folder).resolve()
    freed, left = 0, []
    for item in items:
        place = item.path.parent
        if item.in_use is not None:
            left.append(f"{item.kind}/{item.name} stays: {item.in_use}")
        elif item.kind not in KINDS or place.is_symlink() or place.resolve() != folder / item.kind:
            left.append(f"{item.kind}/{item.name} stays: it is not in the cache folder {str(folder)!r}")
        else:
            try:
                if item.path.is_dir() and not item.path.is_symlink():
                    shutil.rmtree(item.path)
                else:
                    item.path.unlink(missing_ok=True)
                freed += item.size
            except OSError as error:
                left.append(f"{item.kind}/{item.name} stays: {error.strerror or error}")
    return freed, left


def listing(items: Sequence[Item], *, every: bool = False, now: float | None = None) -> str:
    """Return a table of kinds with their sizes and ages, and of things: of small kinds, of all with `every`."""
    now = time.time() if now is None else now
    lines = [("kind", "name", "size", "last change", "")]
    for kind, what in KINDS.items():
        own = [i for i in items if i.kind == kind]
        if not own:
            continue
        size, youngest = sum(i.size for i in own), max(i.changed for i in own)
        lines.append((kind, f"{len(own)} of: {what}", said_size(size), f"{said_age(now - youngest)} ago", ""))
        if every or kind in ("models", "downloads", "trainings"):
            lines += [
                ("", i.name, said_size(i.size), f"{said_age(now - i.changed)} ago", "in use?" if i.in_use else "")
                for i in own
            ]
    lines.append(("all", f"{len(items)} in {cache_folder()}", said_size(sum(i.size for i in items)), "", ""))
    return aligned(lines, right=(2, 3))


def said_size(size: int) -> str:
    """Return bytes as text: 1.5 GB, 12 MB, 3 kB; powers of ten."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}" if size < 10 * unit else f"{size / unit:.0f} {name}"
    return f"{size} B"


def said_age(seconds: float) -> str:
    """Return a span of time as text, rounded down: 3 d, 5 h, 12 min."""
    for span, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= span:
            return f"{int(seconds // span)} {name}"
    return "under a minute"


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", text.strip())
    if found is None:
        raise ParameterError(f"an age is {text!r}; it must be a number with m, h, d or w, such as 30m, 12h, 7d or 2w")
    return float(found[1]) * _SPAN[found[2]]
