"""Key-value caches for generation: room for all tokens is made at once, and no mask is read back from the device."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedConfig, PreTrainedModel, StaticCache
from transformers.cache_utils import DynamicLayer, StaticLayer


class RoomyCache(DynamicCache):
    """transformers' growing cache, whose layers of full attention have room for `room` tokens from the start.

    `padded` says whether some row has padding. transformers otherwise finds out by reading the mask at every step.
    """

    def __init__(self, config: PreTrainedConfig, room: int) -> None:
        super().__init__()
        self.padded = True
        grown: Any = DynamicCache(config=config)
        self.layers = [_Roomy(room) if type(layer) is DynamicLayer else layer for layer in grown.layers]

    @property
    def is_compileable(self) -> bool:
        """True where the mask of one token must be made and cannot be left out, which is what transformers asks."""
        return self.padded


class _Roomy(DynamicLayer):
    """A growing layer that writes into one buffer: a token costs its own size, not a copy of all before it."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Float[Tensor, "batch head new size"], value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            made = [x.new_empty(*x.shape[:2], max(self._room, end), x.shape[-1]) for x in (key_states, value_states)]
            self._buffers = (made[0], made[1])
        assert self._buffers is not None
        if end > self._buffers[0].shape[-2]:
            return super().update(key_states, value_states)  # beyond the room it grows as any other
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Int[Tensor, "kept"]) -> None:
        if self._buffers is not None:
            length = self.get_seq_length()
            self._buffers = (self._buffers[0][indices], self._buffers[1][indices])
            self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)


def can_be_static(model: PreTrainedModel) -> bool:
    """Tell whether a model runs on transformers' static cache: one device, full attention only, known to compile."""
    if any(hasattr(module, "_hf_hook") for module in model.modules()):  # offloaded, or on several devices
        return False
    every = [type(layer) for layer in DynamicCache(config=model.config).layers]
    return bool(every) and set(every) == {DynamicLayer} and bool(getattr(model, "_can_compile_fullgraph", False))


def keep_rows(cache: Cache, kept: Int[Tensor, "kept"]) -> None:
    """Continue a cache with these rows only."""
    if not isinstance(cache, StaticCache):
        cache.batch_select_indices(kept)
        return
    for layer in cache.layers:
        assert isinstance(layer, StaticLayer)
        layer.keys, layer.values, layer.batch_size = layer.keys[kept], layer.values[kept], len(kept)


def on_device(values: list[int] | list[float], device: torch.device) -> Tensor:
    """Copy numbers to a device without waiting for it."""
    return torch.tensor(values).to(device, non_blocking=True)
