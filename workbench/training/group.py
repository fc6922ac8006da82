"""The processes that train together: their number, what they exchange, and which weights each one keeps.

A launcher (accelerate, torch.distributed.run) sets the environment; without one there is a single process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from workbench.core.errors import ParameterError
from workbench.models.pair import ModelPair
from workbench.models.weights import body_of
from workbench.training.config import TrainConfig
from workbench.training.student import Student

T = TypeVar("T")


def size() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return this process's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Tell whether this is the process that writes, films and reports."""
    return rank() == 0


def all_of(own: T) -> list[T]:
    """Return the value of every process, in their order; all of them must call this."""
    if size() == 1:
        return [own]
    from torch import distributed

    found: list[T] = [own] * size()
    distributed.all_gather_object(found, own)
    return found


def add_up(parameters: Sequence[nn.Parameter], scale: float = 1.0) -> None:
    """Give every process the gradients of all of them, added up and divided by `scale`."""
    if size() > 1:
        from torch import distributed

        there = [any(own) for own in zip(*all_of([p.grad is not None for p in parameters]), strict=True)]
        trained = [p for p, one in zip(parameters, there, strict=True) if one]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained])
        distributed.all_reduce(flat)
        for p, gradient in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            p.grad = gradient.view_as(p)
    if scale != 1.0:
        for p in parameters:
            if p.grad is not None:
                p.grad /= scale


def wait() -> None:
    """Wait until every process is here."""
    all_of(None)


def share_out(pair: ModelPair, student: Student, config: TrainConfig) -> None:
    """Leave each process its part of every decoder layer's frozen weights; a layer is whole only while it runs (FSDP2).

    The adapter, the embedding and the output head stay whole. Afterwards every process must run every model equally
    often, and the pair of this process stays cut. Raises ParameterError for weights that cannot be cut (quantised,
    offloaded, no list of layers) and for an arm that compares gradients before training.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if config.chosen.match_arm is not None:
        raise ParameterError(
            f"arm {config.chosen.name!r} compares gradients before it trains, which shared-out weights do not allow: "
            "train it with experimental_sharded=False"
        )
    bodies: dict[nn.Module, None] = {}
    for which in ("base", "aligned"):
        with pair.model(which) as model:
            if getattr(model, "is_quantized", False) or len(set(getattr(model, "hf_device_map", {}).values())) > 1:
                raise ParameterError(
                    f"{which} of {pair.name} is quantised or spread over devices, so processes cannot share out its "
                    "weights: load it plainly, or train with experimental_sharded=False"
                )
            bodies[body_of(model)] = None
    mesh = init_device_mesh(pair.device.type, (size(),))
    trained = set(student.parameters())
    for body in bodies:
        lists = [list(m) for m in body.children() if isinstance(m, nn.ModuleList)]
        if not lists:
            raise ParameterError(
                f"{type(body).__name__} has no list of layers to share out: train with experimental_sharded=False"
            )
        for layer in max(lists, key=len):
            fully_shard(layer, mesh=mesh, ignored_params={p for p in layer.parameters() if p in trained})
