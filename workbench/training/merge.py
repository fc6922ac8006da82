"""Write a model with its adapter merged into the weights: a folder that loads with transformers alone."""

from __future__ import annotations

from pathlib import Path

from workbench.core.errors import ParameterError
from workbench.core.files import atomic_folder
from workbench.models.pair import ModelPair
from workbench.models.sources import quiet_libraries


def merge(pair: ModelPair, adapter: str | Path, out: str | Path) -> Path:
    """Write the pair's aligned model with this adapter in the place of its own, merged, and the tokenizer, into `out`.

    The pair and its weights stay as they are. Raises ParameterError where `out` exists, NotPresent or PairError for an
    adapter that is not there or does not fit, StorageFull where the disk is full.
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
            for parameter, value in kept:  # unmerging rounds; what was there comes back bit for bit
                parameter.data.copy_(value)
    return out


def _plain(model: object) -> dict[str, object]:
    """Return a model's weights under their own names, those of adapters left out."""
    state = model.state_dict()  # type: ignore[attr-defined]
    return {k.replace(".base_layer.", "."): v for k, v in state.items() if ".lora_" not in k}
