"""Where a large model's weights lie: over several devices, in 8 or 4 bits, or in memory with a device that computes."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from workbench.core.configs import check_fields
from workbench.core.errors import NotPresent, ParameterError
from workbench.models import sources
from workbench.models.sources import Source

BYTES: Mapping[str, float] = {"8bit": 1.0, "4bit": 0.5}
"""Bytes that a stored number takes about when quantised; norms and embeddings stay as they are."""


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
    """Return the device that decides the precision: the one asked for, or the first GPU of a device_map, else a CPU."""
    if not isinstance(device_map, Mapping):
        return sources.choose_device(device)
    places = [f"cuda:{p}" if isinstance(p, int) else p for p in device_map.values()]
    return sources.choose_device(next((p for p in places if p not in ("cpu", "disk")), "cpu"))


def check_quantised(quantised: str, device: torch.device, found: Sequence[Source]) -> None:
    """Raise where weights cannot be quantised here, before any is read.

    ParameterError without an NVIDIA GPU or for a GGUF file, NotPresent where bitsandbytes is not installed.
    """
    if device.type != "cuda":
        raise ParameterError(
            f"experimental_quantised={quantised!r} needs an NVIDIA GPU, and the models go to {device}: leave it out"
        )
    if named := [s.asked for s in found if s.gguf is not None]:
        raise ParameterError(
            f"experimental_quantised={quantised!r} was asked for and {named[0]!r} is a GGUF file: leave it out"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise NotPresent(
            f"experimental_quantised={quantised!r} needs bitsandbytes, which is not installed: install the extra "
            "`quantised`"
        )


def quantisation(quantised: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return how transformers is told to quantise while loading; it computes in `dtype`."""
    from transformers import BitsAndBytesConfig

    if quantised == "8bit":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": how}


def spread(needs: Sequence[int], device_map: str | Mapping[str, str | int]) -> tuple[tuple[dict[str, Any], ...], str]:
    """Return how models of these sizes (bytes) are loaded over devices, and the decision in a sentence.

    "auto" gives each its share of every GPU's free memory, then of this machine's; a mapping is taken as it is.
    """
    if isinstance(device_map, Mapping):
        where = ", ".join(str(d) for d in dict.fromkeys(device_map.values()))
        return tuple({"device_map": dict(device_map)} for _ in needs), f"weights lie on {where}, as asked"
    gpus = torch.cuda.device_count()
    free: dict[int | str, int] = {n: sources.free_memory(torch.device("cuda", n)) or 0 for n in range(gpus)}
    on = f"{gpus} GPUs" if gpus else "no GPU (there is none): this machine's memory"
    return sources.shares(needs, free), f"weights are spread over {on}"


def offload(model: PreTrainedModel, device: torch.device) -> None:
    """Leave a model's weights in memory; each layer's come to the device while it runs. Outputs are the same."""
    from accelerate import cpu_offload

    cpu_offload(model, execution_device=device, offload_buffers=True)
    model.hf_device_map = {"": device}
