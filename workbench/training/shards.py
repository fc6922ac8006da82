"""Frozen weights shared out among the processes that train together (FSDP), for a pair too large for one device.

Only what is frozen is cut: the student's adapter stays whole in every process, where DDP adds up its gradients as
always. A layer brings its parts together whoever calls it, so student and references go on sharing one set of weights.
"""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from workbench.core.errors import ParameterError
from workbench.models.pair import ModelPair
from workbench.models.weights import body_of
from workbench.training import group
from workbench.training.config import TrainConfig
from workbench.training.student import Student


def share_out(pair: ModelPair, student: Student, config: TrainConfig) -> None:
    """Leave each process its part of every decoder layer's frozen weights; a layer is whole only while it runs (FSDP2).

    Embedding and output head stay whole. From here on every process has to run every model equally often. For good:
    the pair of this process cannot be put together again. Raises ParameterError for weights that cannot be cut
    (quantised, offloaded, no list of layers) and for an arm that looks at gradients before training.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if config.chosen.match_arm is not None:
        raise ParameterError(
            f"arm {config.chosen.name!r} compares gradients before it trains, which weights that are shared out "
            "cannot: train it with sharded=False"
        )
    bodies: dict[nn.Module, None] = {}
    for which in ("base", "aligned"):
        with pair.model(which) as model:
            if getattr(model, "is_quantized", False) or len(set(getattr(model, "hf_device_map", {}).values())) > 1:
                raise ParameterError(
                    f"{which} of {pair.name} is quantised or spread over devices already, so its weights cannot be "
                    "shared out among processes: load it plainly, or train with sharded=False"
                )
            bodies[body_of(model)] = None
    mesh = init_device_mesh(pair.device.type, (group.size(),))
    trained = set(student.parameters())
    for body in bodies:
        for layer in _layers(body):
            fully_shard(layer, mesh=mesh, ignored_params={p for p in layer.parameters() if p in trained})
    frozen = [n for n, p in student.body.named_parameters() if p not in trained]
    frozen += [n for n, _ in student.body.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(student.body, frozen)


def _layers(body: nn.Module) -> list[nn.Module]:
    lists = [list(m) for m in body.children() if isinstance(m, nn.ModuleList)]
    if not lists:
        raise ParameterError(f"{type(body).__name__} has no list of layers to share out: train with sharded=False")
    return max(lists, key=len)
