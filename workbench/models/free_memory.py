"""What a device has free and what work on it needs, as batches ask: only where the device itself says it."""

from __future__ import annotations

import torch

from workbench.core.batching import Memory


class CudaMemory:
    """One NVIDIA GPU's memory, by torch's own counts; what its allocator keeps for later counts as free."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0

    def start(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def used(self) -> int:
        return torch.cuda.max_memory_allocated(self._device) - self._before

    def free(self) -> int:
        kept = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return torch.cuda.mem_get_info(self._device)[0] + kept


def memory_of(device: torch.device) -> Memory | None:
    """Return a device's memory; None for a CPU, where larger batches gain nothing, and for devices that do not say."""
    return CudaMemory(device) if device.type == "cuda" else None
