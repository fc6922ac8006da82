"""Count how often Python waits for a value of a tensor: on a GPU each such read waits for all work before it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

INSIDE = (
    "_local_scalar_dense",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
    "repeat_interleave.Tensor",
)
"""Operations that read a value of their input, or whose output's size depends on one."""
OUTSIDE = ("tolist", "cpu", "numpy")
"""Methods that copy to the host; on a CPU they run no operation. `.cpu().numpy()` is one read."""


class Reads:
    """A counter of reads inside a `with` block: `count`, and `names` of what read."""

    def __init__(self) -> None:
        self.names: Counter[str] = Counter()
        self._modes = (_Inside(self.names), _Outside(self.names))

    @property
    def count(self) -> int:
        return sum(self.names.values()) - min(self.names["cpu"], self.names["numpy"])

    def __enter__(self) -> Reads:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Inside(TorchDispatchMode):
    def __init__(self, names: Counter[str]) -> None:
        super().__init__()
        self._names = names

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        by_mask = name.startswith("index") and any(
            isinstance(i, torch.Tensor) and i.dtype == torch.bool
            for part in args
            if isinstance(part, list | tuple)
            for i in part
        )
        if by_mask or name in INSIDE or name.partition(".")[0] in INSIDE:
            self._names[name] += 1
        return func(*args, **(kwargs or {}))


class _Outside(TorchFunctionMode):
    def __init__(self, names: Counter[str]) -> None:
        super().__init__()
        self._names = names

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in OUTSIDE:
            self._names[name] += 1
        return func(*args, **(kwargs or {}))
