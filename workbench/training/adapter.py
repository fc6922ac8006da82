"""A finished adapter on disk: its record, a copy of it elsewhere, and a model with the adapter merged into it."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from workbench.core.errors import NotPresent, PairError, ParameterError, RecordError
from workbench.core.files import atomic_folder
from workbench.core.records import load
from workbench.models.pair import ModelPair
from workbench.models.sources import PROBES, Source, load_weights, quiet_libraries
from workbench.training.card import CARD, with_results
from workbench.training.records import Adapter
from workbench.training.student import weights_file

if TYPE_CHECKING:
    from peft import PeftModel

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

    A copy of the model is merged; the pair stays as it is. `out` appears only after the model, loaded again from its
    files, has given the adapter's logits on some probe texts, control tokens and trained tokens: to 0.1 % of the
    largest one, or eight roundings of a half-precision dtype. Raises ParameterError where `out` exists, NotPresent or
    PairError for an adapter that is missing, does not fit or cannot be merged, StorageFull where the disk is full.
    """
    out = Path(out)
    if out.exists():
        raise ParameterError(f"{str(out)!r} exists already: name a folder that does not, or remove it")
    completed = pair.with_aligned(str(adapter))
    with completed.model("aligned") as model, atomic_folder(out) as partial, quiet_libraries():
        side = completed._sides["aligned"]
        assert side.weights.peft is not None
        config = side.weights.peft.peft_config[side.adapters[0]]
        probes = _probes(completed, getattr(config, "trainable_token_indices", None))
        wanted = _logits(model, probes)
        try:
            _merged_copy(side.weights.peft).save_pretrained(partial)
        except (RuntimeError, ValueError, NotImplementedError, AttributeError, TypeError, KeyError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = " ".join(str(error).split())[:300]
            raise PairError(f"{config.peft_type.value} adapter {str(adapter)!r} cannot be merged: {reason}") from None
        pair.tokenizer.save_pretrained(partial)
        saved = Source(asked=f"the merged model of {adapter}", folder=partial)
        place = {} if model.device.type == "cpu" else {"device_map": {"": model.device}}
        found = _logits(load_weights(saved, model.dtype, placement=place), probes)
        _check_equal(wanted, found, model.dtype, str(adapter))
    return out


def _merged_copy(peft: PeftModel) -> PreTrainedModel:
    """Return a copy with the active adapter merged; head and embedding are tied only where they are still equal."""
    copied = copy.deepcopy(peft)
    inside = copied.get_base_model()
    head, embedding = inside.get_output_embeddings(), inside.get_input_embeddings()
    changed = any(m is head or m is embedding for m in inside.modules() if hasattr(m, "active_adapters"))
    parts = [m.get_base_layer() if hasattr(m, "get_base_layer") else m for m in (head, embedding)]
    tied = parts[0].weight is parts[1].weight
    if tied and changed:  # an adapter on one of them must not reach the other
        parts[0].weight = torch.nn.Parameter(parts[0].weight.detach().clone(), requires_grad=False)
    made: PreTrainedModel = copied.merge_and_unload(safe_merge=True)
    head, embedding = made.get_output_embeddings(), made.get_input_embeddings()
    if tied:
        still = torch.equal(head.weight, embedding.weight)
        for config in (made.config, made.config.get_text_config()):
            config.tie_word_embeddings = still
        if still:
            head.weight = embedding.weight
        else:
            made.all_tied_weights_keys = {}
    return made


def _probes(pair: ModelPair, trained: Sequence[int] | Mapping[str, Sequence[int]] | None) -> list[list[int]]:
    """Return token ids to compare two models on: texts, control tokens, tokens spread over the vocabulary."""
    lists = trained.values() if isinstance(trained, Mapping) else [trained or ()]
    spread = [*range(0, pair.vocab, max(1, pair.vocab // 64)), *pair.tokenizer.all_special_ids]
    probes = [list(pair.encode(text)) for text in PROBES] + [spread] + [list(ids) for ids in lists]
    return [kept for ids in probes if (kept := [i for i in ids if i < pair.vocab][: pair.context_length])]


def _logits(model: PreTrainedModel, probes: Sequence[list[int]]) -> list[Float[Tensor, "position rows"]]:
    with torch.inference_mode():
        return [model(torch.tensor([p], device=model.device), use_cache=False).logits[0].float().cpu() for p in probes]


def _check_equal(wanted: Sequence[Tensor], found: Sequence[Tensor], dtype: torch.dtype, adapter: str) -> None:
    allowed = max(1e-3, 8 * torch.finfo(dtype).eps) * max(w.abs().max().item() for w in wanted)
    worst = max((w - f).abs().max().item() for w, f in zip(wanted, found, strict=True))
    if not worst <= allowed:  # NaN too
        raise PairError(
            f"the model with {adapter!r} merged into it gives logits that differ by up to {worst:.3g} from those with "
            f"the adapter on (allowed {allowed:.2g}), so it was not written: use the adapter itself, or float32"
        )
