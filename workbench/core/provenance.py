"""The provenance of records: settings asked and resolved, versions, commit, device, seconds."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.core.records import RunRecord

PACKAGES = (
    "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy", "scipy", "statsmodels",
    "plotly", "papermill", "lm_eval", "judgezoo",
)  # fmt: skip


@functools.cache
def package_versions() -> Mapping[str, str]:
    """Return the installed version of every package that a result depends on."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("deep-alignment-workbench", *PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def source_commit() -> tuple[str | None, bool | None]:
    """Return the commit of the workbench's own source and whether it is dirty; (None, None) outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(("git", "-C", str(here), *words), capture_output=True, text=True, check=True).stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()) != here.parents[1]:
            return None, None
        return git("rev-parse", "HEAD").strip(), bool(git("status", "--porcelain").strip())
    except (OSError, subprocess.CalledProcessError):
        return None, None


def settings_of(config: Any) -> dict[str, Any]:
    """Return a config's fields, or a mapping of settings, as plain values that survive saving (lists become tuples)."""
    if isinstance(config, Mapping):
        return {str(k): _plain(v) for k, v in config.items()}
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(_plain(v) for v in value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


class Stopwatch:
    """The clock of one verb or notebook, started with its settings; `record` makes the RunRecord at the end."""

    def __init__(self, verb: str, config: Any) -> None:
        self.verb = verb
        self.asked = settings_of(config)
        self._started = datetime.now(UTC)
        self._clock = time.perf_counter()

    def record(
        self,
        pair: Any = None,
        *,
        resolved: Mapping[str, Any] | None = None,
        seed: int | None = None,
        device: str = "cpu",
        fingerprint: str | None = None,
    ) -> RunRecord:
        """Return the RunRecord, with the device and fingerprint of `pair` where one is given.

        `resolved` holds settings that differ from those asked, or were decided later.
        """
        if pair is not None:
            device, fingerprint = str(pair.device), pair.fingerprint
        commit, dirty = source_commit()
        return RunRecord(
            verb=self.verb,
            asked=self.asked,
            resolved={**self.asked, **{k: _plain(v) for k, v in (resolved or {}).items()}},
            versions=dict(package_versions()),
            commit=commit,
            dirty=dirty,
            seed=seed,
            device=device,
            started=self._started.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - self._clock, 3),
            fingerprint=fingerprint,
        )
