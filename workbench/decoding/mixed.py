"""One forward pass for both models of an adapter pair: half of the batch's rows with the adapter, half without.

The adapter's branch of a LoRA layer is computed only for the rows that need it, so a mixed batch reads the weights
once. While the context manager is open, layers have their own forward, which acts as the layer's unless a mixed pass is
running; no weight is touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from workbench.models import weights
from workbench.models.pair import ModelPair, Which
from workbench.models.weights import Adapters, Weights

THIN_ROWS = 32
"""The most rows for which a product (weight x rows) reads the weights once (CPU, float32; see `thin`)."""

_Forward = Callable[..., Tensor]
_CHECKED: WeakKeyDictionary[Weights, dict[tuple[Adapters, Adapters], bool]] = WeakKeyDictionary()


class MixedPass:
    """A pass of base rows and aligned rows through one model together; made by `mixed`."""

    def __init__(self, model: PreTrainedModel, vocab: int) -> None:
        self._model, self._vocab = model, vocab
        self.running = False

    def logits(
        self,
        ids: Int[Tensor, "both context"],
        mask: Int[Tensor, "both total"] | None,
        position: Int[Tensor, "both context"],
        cache: Cache | None,
    ) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch vocab"]]:
        """Return (base, aligned) logits after the last column; base's rows come first, then as many of aligned's."""
        self.running = True
        try:
            hidden = weights.body_hidden(self._model, ids, attention_mask=mask, position_ids=position, cache=cache)
            made = weights.head_logits(self._model, hidden[:, -1], self._vocab)
        finally:
            self.running = False
        base, aligned = made.float().chunk(2)
        return base, aligned


@contextlib.contextmanager
def mixed(pair: ModelPair) -> Iterator[MixedPass | None]:
    """Yield a mixed pass over both models of a pair, or None where it is impossible; restore the model afterwards.

    Plain LoRA on linear layers can be mixed. Two models, DoRA and other variants, adapters on embeddings, fully trained
    modules, merged adapters and offloaded models cannot, nor pairs that compile, nor models whose rows influence each
    other (checked on a few tokens).
    """
    shared = None if pair.compile else pair.one_copy()
    if shared is None or not _can_mix(*shared):
        yield None
        return
    one, base, aligned = shared
    with one.active(aligned) as model:
        run = MixedPass(model, pair.vocab)
        patched: list[nn.Module] = []
        try:
            _patch(one, run, base, aligned, patched)
            checked = _CHECKED.setdefault(one, {})
            if (base, aligned) not in checked:
                checked[base, aligned] = _agrees(pair, run)
            yield run if checked[base, aligned] else None
        finally:
            run.running = False  # a layer that is still patched now acts as before
            for module in patched:
                module.__dict__.pop("forward", None)


def _can_mix(one: Weights, base: Adapters, aligned: Adapters) -> bool:
    from peft.tuners.lora import Linear

    if any(hasattr(module, "_hf_hook") for module in one.model.modules()):  # offloaded, or on several devices
        return False
    wanted = {*base, *aligned}
    for layer in one.layers():
        if not wanted & _adapters_of(layer):
            continue
        if type(layer) is not Linear or layer.merged or wanted & set(layer.lora_variant) or "forward" in vars(layer):
            return False
    return True


def _adapters_of(layer: Any) -> set[str]:
    """Return the names of the adapters with weights in a layer."""
    found: set[str] = set()
    for name in (*getattr(layer, "adapter_layer_names", ()), "modules_to_save"):
        held = getattr(layer, name, None)
        if isinstance(held, nn.ModuleDict | nn.ParameterDict):
            found |= set(held.keys())
    return found


def _patch(one: Weights, run: MixedPass, base: Adapters, aligned: Adapters, patched: list[nn.Module]) -> None:
    on_cpu = one.model.device.type == "cpu" and one.model.dtype == torch.float32
    layers = {id(layer): layer for layer in one.layers() if {*base, *aligned} & _adapters_of(layer)}
    inside = {id(layer.base_layer) for layer in layers.values()}
    for module in one.model.modules():
        if id(module) in layers:
            forward = _mixed_forward(module, run, base, aligned)
        elif on_cpu and type(module) is nn.Linear and id(module) not in inside and "forward" not in vars(module):
            forward = _thin_forward(module, run)
        else:
            continue
        patched.append(module)
        module.__dict__["forward"] = forward


def _mixed_forward(layer: Any, run: MixedPass, base: Adapters, aligned: Adapters) -> _Forward:
    """Make a LoRA layer's forward: the first half of the rows has base's adapters, the second half aligned's."""
    own: _Forward = layer.forward
    linear = thin if type(layer.base_layer) is nn.Linear else lambda x, module: module(x)
    branches = [
        (layer.lora_A[name], layer.lora_B[name], layer.scaling[name], name in base, name in aligned)
        for name in dict.fromkeys((*base, *aligned))
        if name in layer.lora_A
    ]

    def forward(x: Tensor, *args: Any, **options: Any) -> Tensor:
        if not run.running or args or options:
            return own(x, *args, **options)
        result: Tensor = linear(x, layer.base_layer)
        half = x.shape[0] // 2
        for a, b, scale, first, second in branches:
            rows = slice(0 if first else half, None if second else half)
            part, into = x[rows], result[rows]
            if b.bias is None and a.weight.dtype == b.weight.dtype == x.dtype == result.dtype:
                reduced = nn.functional.linear(part, a.weight).flatten(0, -2)
                into.view(-1, into.shape[-1]).addmm_(reduced, b.weight.T, alpha=scale)
            else:
                into.copy_(into + b(a(part.to(a.weight.dtype))) * scale)
        return result

    return forward


def _thin_forward(module: nn.Linear, run: MixedPass) -> _Forward:
    own = module.forward

    def forward(x: Tensor) -> Tensor:
        return thin(x, module) if run.running else own(x)

    return forward


def thin(x: Float[Tensor, "*rows in"], linear: nn.Linear) -> Float[Tensor, "*rows out"]:
    """Return linear(x), as (weight x rows) where there are 2 to THIN_ROWS rows on a CPU in float32.

    The usual order, (rows x weight), took twice the time of a single row (AMD EPYC, MKL), this one the time of one row.
    They are equal to rounding.
    """
    rows = x.numel() // x.shape[-1]
    if not 2 <= rows <= THIN_ROWS or x.dtype != torch.float32 or x.device.type != "cpu":
        return nn.functional.linear(x, linear.weight, linear.bias)
    made = torch.mm(linear.weight, x.reshape(rows, -1).T).T.contiguous()
    if linear.bias is not None:
        made += linear.bias
    return made.view(*x.shape[:-1], -1)


def _agrees(pair: ModelPair, run: MixedPass) -> bool:
    """Tell whether a mixed pass over a few tokens equals base and aligned alone, to rounding."""
    ids = (torch.arange(5, device=pair.device) % pair.vocab).expand(2, -1).contiguous()
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        try:
            together = run.logits(ids, mask, mask.cumsum(-1) - 1, None)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            return False
        models: tuple[Which, ...] = ("base", "aligned")
        for which, made in zip(models, together, strict=True):
            alone = pair.logits(which, pair.hidden(which, ids[:1])[:, -1]).float()
            allowed = (2048 if pair.dtype == torch.float32 else 16) * torch.finfo(pair.dtype).eps
            if not bool(((alone - made).abs() <= allowed * alone.abs().amax().clamp(min=1.0)).all()):
                return False
    return True
