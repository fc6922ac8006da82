"""Inside a kept kernel: forget the former notebook, and keep the pairs that it loaded and did not change.

Each notebook starts without the names of the former one, and with the SETTINGS of the first. Any other change by a
notebook (a patched module, say) stays until its worker ends: omit `--warm` where cells must not share a process.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from workbench.core.configs import takes_fields
from workbench.models import pair as room
from workbench.models.pair import ModelPair, PairConfig

SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (os.getcwd, os.chdir),
    (lambda: (dict(os.environ), list(sys.path), list(warnings.filters)), lambda kept: _put_back(*kept)),
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (torch.get_rng_state, torch.set_rng_state),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
)
"""Settings of the process that a notebook may change: how to read and how to restore each."""
_first: list[Any] = []
_load = room.load_pair
_pairs: dict[str, tuple[ModelPair, tuple[Any, ...]]] = {}


def _put_back(environment: dict[str, str], path: list[str], filters: list[Any]) -> None:
    for name in {*os.environ} - {*environment}:
        del os.environ[name]
    os.environ.update(environment)
    sys.path[:], warnings.filters[:] = path, filters  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


def keep_pairs() -> None:
    """Make `load_pair` of this process return the pair that it loaded before for an equal config."""

    @takes_fields(PairConfig)
    def kept(config: PairConfig) -> ModelPair:
        key = repr(config)
        if key not in _pairs:
            loaded = _load(config)
            _pairs[key] = loaded, _state(loaded)
        return _pairs[key][0]

    room.load_pair = kept


def _state(pair: ModelPair) -> tuple[Any, ...]:
    """Return what changes when a notebook changes a pair: its tensors' versions and flags, adapters, hooks."""
    found: list[Any] = [pair.tokenizer.chat_template, len(pair.tokenizer)]
    for which in ("base", "aligned"):
        with pair.model(which) as model:
            tensors = [*model.named_parameters(), *model.named_buffers()]
            found += [(n, t.data_ptr(), t._version, t.requires_grad, t.grad is None) for n, t in tensors]
            modules = model.named_modules()
            found += [(n, m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in modules]
    return tuple(found)


def fresh() -> None:
    """Restore this kernel's state before the first notebook, and drop every pair that a notebook has changed."""
    sys.modules["IPython"].get_ipython().reset(new_session=True)
    if not _first:
        keep_pairs()
        _first.extend(read() for read, _ in SETTINGS)
    for (_, put_back), value in zip(SETTINGS, _first, strict=True):
        put_back(value)
    gc.unfreeze()
    for key in [k for k, (pair, state) in _pairs.items() if _state(pair) != state]:
        del _pairs[key]
    gc.collect()
    gc.freeze()  # later collections skip modules and kept pairs, which saves half a second each
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
