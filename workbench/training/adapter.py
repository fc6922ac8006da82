"""A finished adapter on disk: its record, a copy of it elsewhere, and a model with the adapter merged into it."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

from workbench.core.errors import NotPresent, ParameterError, RecordError
from workbench.core.files import atomic_folder
from workbench.core.records import load
from workbench.models.pair import ModelPair
from workbench.models.sources import quiet_libraries
from workbench.training.card import CARD, with_results
from workbench.training.records import Adapter
from workbench.training.student import weights_file

RECORD = "record"
"""The folder of an adapter's record, beside its weights."""


def load_adapter(folder: str | Path) -> Adapter:
    """Return the record of a finished training. Raises NotPresent where the folder holds none."""
    if not (Path(folder) / RECORD).is_dir():
        raise NotPresent(f"{str(folder)!r} holds no finished training: it has no folder {RECORD!r}")
    return dataclasses.replace(load(Path(folder) / RECORD, Adapter), path=str(folder))


def export(adapter: Adapter, folder: str | Path, *, results: str | None = None) -> Adapter:
    """Copy a finished adapter, with its card and record, into a folder, and return its record there.

    `results` is Markdown for the card's section Results, as `evaluation.card` makes it of a comparison of arms. The
    copy, once complete, replaces an earlier adapter of the workbench in that folder, unless this one was trained from
    it. Raises ParameterError where the folder holds something else, NotPresent where the adapter is gone, StorageFull.
    """
    folder = Path(folder)
    load_adapter(adapter.path)
    if folder.exists():
        _check_replaceable(folder, adapter)
    with atomic_folder(folder) as partial:
        shutil.copytree(adapter.path, partial, dirs_exist_ok=True)
        if results is not None:
            card = partial / CARD
            card.write_text(with_results(card.read_text("utf-8"), results), "utf-8")
    return load_adapter(folder)


def _check_replaceable(folder: Path, adapter: Adapter) -> None:
    try:
        load_adapter(folder)
        ours = (folder / "training.json").is_file()
    except (NotPresent, RecordError):
        ours = False
    if not ours:
        raise ParameterError(
            f"{str(folder)!r} exists and holds no adapter that the workbench wrote: name another folder, or remove it"
        )
    if adapter.run.resolved.get("start_sha256") == weights_hash(folder):
        raise ParameterError(
            f"{str(folder)!r} holds the adapter that this one was trained from, which is kept: name another folder"
        )


def weights_hash(folder: str | Path) -> str:
    """Return the sha256 of a saved adapter's weights."""
    with weights_file(folder).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def merge(pair: ModelPair, adapter: str | Path, out: str | Path) -> Path:
    """Write the pair's aligned model, with this adapter merged in place of its own, and the tokenizer into `out`.

    The pair and its weights stay as they are. Raises ParameterError where `out` exists, NotPresent or PairError for an
    adapter that is missing or does not fit, StorageFull where the disk is full.
    """
    out = Path(out)
    if out.exists():
        raise ParameterError(f"{str(out)!r} exists already: name a folder that does not, or remove it")
    completed = pair.with_aligned(str(adapter))
    with completed.model("aligned") as model, atomic_folder(out) as partial, quiet_libraries():
        layers = [m for m in model.modules() if hasattr(m, "merge") and hasattr(m, "unmerge")]
        kept = [(p, p.detach().clone()) for m in layers for p in m.get_base_layer().parameters()]
        try:
            for layer in layers:
                layer.merge(safe_merge=True)
            model.save_pretrained(partial, state_dict=_plain(model))
            pair.tokenizer.save_pretrained(partial)
        finally:
            for layer in layers:
                layer.unmerge()
            for parameter, value in kept:  # unmerging rounds; the former values come back bit for bit
                parameter.data.copy_(value)
    return out


def _plain(model: object) -> dict[str, object]:
    """Return a model's weights under their own names, without those of adapters."""
    state = model.state_dict()  # type: ignore[attr-defined]
    return {k.replace(".base_layer.", "."): v for k, v in state.items() if ".lora_" not in k}
