"""Placement of a large model's weights: over several devices, in 8 or 4 bits, or in memory beside the device."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from workbench.core.configs import check_fields
from workbench.core.errors import NotPresent, ParameterError
from workbench.models import sources
from workbench.models.planning import plan
from workbench.models.sources import Source

BYTES: Mapping[str, float] = {"8bit": 1.0, "4bit": 0.5}
"""Approximate bytes of a quantised number; norms and embeddings are not quantised."""


def check(config: Any) -> None:
    """Raise ParameterError where the fields of a PairConfig that place weights contradict each other."""
    where, quantised, offload = config.device_map, config.experimental_quantised, config.offload_base
    mapped = where is not None
    check_fields(
        config,
        (
            mapped and where != "auto" and not (isinstance(where, Mapping) and where),
            "device_map",
            "'auto', or where each module goes ({'': 'cpu'} is all of it), or None",
        ),
        (mapped and config.device != "auto", "device", "'auto' where a device_map is given"),
        (mapped and offload, "device_map", "left out with offload_base: both say where base goes"),
        (quantised is not None and offload, "experimental_quantised", "left out with offload_base"),
        experimental_quantised=tuple(BYTES),
    )


def first_device(device: str, device_map: str | Mapping[str, str | int] | None) -> torch.device:
    """Return the device that decides the precision: the given one, the first GPU of a device_map, or a CPU."""
    if not isinstance(device_map, Mapping):
        return sources.choose_device(device)
    places = [f"cuda:{p}" if isinstance(p, int) else p for p in device_map.values()]
    return sources.choose_device(next((p for p in places if p not in ("cpu", "disk")), "cpu"))


def check_quantised(quantised: str, device: torch.device, found: Sequence[Source]) -> None:
    """Raise ParameterError without an NVIDIA GPU or for a GGUF file, NotPresent without bitsandbytes."""
    if device.type != "cuda":
        raise ParameterError(
            f"experimental_quantised={quantised!r} needs an NVIDIA GPU, and the models go to {device}: leave it out"
        )
    if named := [s.asked for s in found if s.gguf is not None]:
        raise ParameterError(
            f"experimental_quantised={quantised!r} cannot take the GGUF file {named[0]!r}: leave it out"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        needs = f"experimental_quantised={quantised!r} needs bitsandbytes"
        raise NotPresent(f"{needs}, which is not installed: install the extra `quantised`")


def quantisation(quantised: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return the loading arguments that make transformers quantise; it computes in `dtype`."""
    from transformers import BitsAndBytesConfig

    four: dict[str, Any] = dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": BitsAndBytesConfig(**({"load_in_8bit": True} if quantised == "8bit" else four))}


def spread(needs: Sequence[int], device_map: str | Mapping[str, str | int]) -> tuple[tuple[dict[str, Any], ...], str]:
    """Return loading arguments for models of these sizes (bytes), and the decision in a sentence.

    A mapping is used unchanged; "auto" gives each its share of every GPU's free memory, then of this machine's.
    """
    if isinstance(device_map, Mapping):
        where = ", ".join(str(d) for d in dict.fromkeys(device_map.values()))
        return tuple({"device_map": dict(device_map)} for _ in needs), f"weights are on {where}, as given"
    free = _free()
    on = f"{len(free)} GPUs" if free else "no GPU (there is none): this machine's memory"
    return sources.shares(needs, free), f"weights are spread over {on}"


def over_all(configs: Sequence[PretrainedConfig], dtype: torch.dtype) -> tuple[tuple[dict[str, Any], ...], str]:
    """Return loading arguments that put models on all GPUs, then in memory and on disk, and the plan in a sentence."""
    made = plan(configs, dtype, {**_free(), "cpu": sources.free_memory(torch.device("cpu")) or 0})
    folders = (str(sources.offload_folder(i)) for i in range(len(configs)))
    each = zip(made.device_maps, folders, strict=True)
    return tuple({"device_map": dict(m), "offload_folder": folder} for m, folder in each), str(made)


def _free() -> dict[int | str, int]:
    gpus = range(torch.cuda.device_count())
    return {n: sources.free_memory(torch.device("cuda", n)) or 0 for n in gpus}


def offload(model: PreTrainedModel, device: torch.device) -> None:
    """Leave a model's weights in memory; each layer's move to the device while it runs. Outputs are the same."""
    from accelerate import cpu_offload

    cpu_offload(model, execution_device=device, offload_buffers=True)
    model.hf_device_map = {"": device}
