"""Where the weights of a large pair go: planned over all devices by accelerate, before a byte is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

Place = int | str
"""A GPU's number, "cpu" or "disk"."""
USABLE = 0.9
"""Share of a device's free memory that weights may take; the rest is for what they compute."""
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Module -> place for each model, and how many bytes of weights each place then holds, of how many free."""

    device_maps: tuple[Mapping[str, Place], ...]
    held: Mapping[Place, int]
    free: Mapping[Place, int]

    @property
    def beside(self) -> int:
        """Bytes of weights that no GPU has room for."""
        return sum(size for place, size in self.held.items() if isinstance(place, str))

    def __str__(self) -> str:
        gpus = [p for p in self.free if isinstance(p, int) and self.held.get(p)]
        on = [f"{_gib(self.held[p])} of {_gib(self.free[p])} on GPU {p}" for p in gpus]
        said = f"weights are spread: {', '.join(on)}" if on else "weights are in this machine's memory"
        if not self.beside or not on:
            return said
        slow = ", ".join(f"{_gib(self.held[p])} on {p}" for p in ("cpu", "disk") if self.held.get(p))
        return f"{said}; {_gib(self.beside)} have no room on a GPU ({slow}), which is slow"


def plan(configs: Sequence[PretrainedConfig], dtype: torch.dtype, free: Mapping[Place, int]) -> Plan:
    """Plan where the models go, one after the other, on the places in their order; a decoder layer is never split.

    `free` are free bytes of each GPU and of "cpu"; what fits nowhere goes to disk. Nothing is loaded: the models are
    made without weights.
    """
    from accelerate import init_empty_weights
    from accelerate.utils import compute_module_sizes, infer_auto_device_map

    left: dict[Place, int] = {place: int(USABLE * room) for place, room in free.items()}
    held: dict[Place, int] = {}
    maps: list[Mapping[str, Place]] = []
    for config in configs:
        with init_empty_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.tie_weights()
        whole: Any = getattr(model, "_no_split_modules", None)
        made = infer_auto_device_map(model, max_memory=dict(left), no_split_module_classes=sorted(whole or ()))
        sizes = compute_module_sizes(model)
        for name, place in made.items():
            held[place] = held.get(place, 0) + int(sizes[name])
            left[place] = max(0, left.get(place, 0) - int(sizes[name]))
        maps.append(made)
    return Plan(device_maps=tuple(maps), held=held, free=dict(free))


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
