"""The student: a LoRA adapter on the aligned model's own weights, or a trainable copy of the adapter that is on them.

The weights are not copied: with the student's adapter off the same weights are aligned, and for a pair that is one
model with an adapter, base too. Training leaves them unchanged.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from workbench.core.errors import NotPresent, PairError
from workbench.models import weights
from workbench.models.pair import ModelPair
from workbench.models.sources import quiet_libraries
from workbench.models.weights import Weights
from workbench.training.config import LoraSettings

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_ADAPTER = re.compile(r"\.(lora_|modules_to_save|token_adapter\.trainable)")
_NUMBERS = itertools.count(1)


def weights_file(folder: str | Path) -> Path:
    """Return the file of a saved adapter's weights. Raises NotPresent where the folder holds none."""
    file = Path(folder) / ADAPTER_WEIGHTS
    for name in (ADAPTER_WEIGHTS, "adapter_config.json"):
        if not file.with_name(name).is_file():
            raise NotPresent(f"{str(folder)!r} holds no adapter to start from: it has no {name}")
    return file


@dataclass(frozen=True, kw_only=True, eq=False)
class Student:
    """The trained adapter, in the PEFT model of `one`; `copied`: it started as the pair's own adapter."""

    name: str
    copied: bool
    one: Weights

    @property
    def peft(self) -> Any:
        """Return the PEFT model that contains the adapter."""
        return self.one.peft

    def hidden(
        self, ids: Int[Tensor, "batch context"], rows: Int[Tensor, "row"], columns: Int[Tensor, "row"]
    ) -> Float[Tensor, "row hidden"]:
        """Return the hidden states at (row, column) of sequences that are padded on the right, so need no mask."""
        return weights.body_hidden(self.one.model, ids).to(ids.device)[rows, columns]

    def train(self, on: bool) -> None:
        """Switch dropout on or off."""
        self.one.model.train(on)

    @contextlib.contextmanager
    def checkpointed(self, on: bool) -> Iterator[None]:
        """Keep each layer's input alone for the backward pass while it trains; it runs the layer again.

        Raises PairError for a model whose layers cannot.
        """
        layers = [m for m in self.one.model.modules() if isinstance(m, GradientCheckpointingLayer)] if on else []
        if on and not layers:
            raise PairError(
                f"{type(self.one.model).__name__} has no gradient checkpointing: train with checkpointing=False, or "
                "with a smaller micro_batch"
            )
        for layer in layers:
            layer._gradient_checkpointing_func = functools.partial(checkpoint, use_reentrant=False)
            layer.gradient_checkpointing = True
        try:
            yield
        finally:
            for layer in layers:
                layer.gradient_checkpointing = False

    def parameters(self) -> list[nn.Parameter]:
        """List the weights that are trained."""
        return [p for n, p in self.peft.named_parameters() if f".{self.name}." in f"{n}."]

    def reach(self) -> float:
        """Return the share of the model's own weights that are in the adapted layers, 0 to 1."""
        own = {id(p): p for n, p in self.one.model.named_parameters() if not _ADAPTER.search(n)}
        reached: dict[int, int] = {}
        for layer in self.one.layers():
            if self.name in layer.active_adapters:
                inside = [layer.get_param()] if hasattr(layer, "get_param") else layer.get_base_layer().parameters()
                reached |= {id(p): p.numel() for p in inside if id(p) in own}
        return sum(reached.values()) / sum(p.numel() for p in own.values())

    def state(self) -> dict[str, Tensor]:
        """Return the adapter's weights by the names under which PEFT saves them."""
        from peft import get_peft_model_state_dict

        found = get_peft_model_state_dict(self.peft, adapter_name=self.name, save_embedding_layers=False)
        return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in found.items()}

    def save(self, folder: Path) -> None:
        """Write the adapter as PEFT reads it: adapter_config.json and safetensors."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state(), folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        (folder / ADAPTER_WEIGHTS).chmod(0o644)
        settings = copy.deepcopy(self.peft.peft_config[self.name])
        settings.inference_mode = True
        settings.base_model_name_or_path = self.one.model.config.name_or_path or None
        settings.save_pretrained(str(folder))

    def load(self, folder: Path) -> None:
        """Take the weights of a saved adapter. Raises PairError, with both values, where rank or layers differ."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        state = load_file(weights_file(folder))
        there, here = ({k: tuple(v.shape) for k, v in one.items()} for one in (state, self.state()))
        if odd := sorted(there.items() ^ here.items()):
            key = odd[0][0]
            raise PairError(
                f"the adapter in {str(folder)!r} does not fit this training: {key} is {there.get(key, 'no layer')} "
                f"there and {here.get(key, 'no layer')} here. Give the arm the same rank and layers, or another adapter"
            )
        set_peft_model_state_dict(self.peft, state, adapter_name=self.name)

    def begin_at(self, folder: Path) -> None:
        """Take the weights of an adapter to start from.

        Raises PairError, with both values, where it has another rank, scale (which changes the model) or layers.
        """
        from peft import PeftConfig

        weights_file(folder)
        theirs, own = PeftConfig.from_pretrained(str(folder)), self.peft.peft_config[self.name]
        for name in ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern"):
            a, b = (getattr(c, name, None) or None for c in (theirs, own))
            if a != b:
                raise PairError(
                    f"the adapter to start from ({str(folder)!r}) has {name} = {a}, and this arm trains {name} = {b}: "
                    "give the arm the same rank, alpha and layers, or another adapter"
                )
        self.load(folder)


@contextlib.contextmanager
def student_of(pair: ModelPair, lora: LoraSettings, seed: int) -> Iterator[Student]:
    """Yield a student that starts as the aligned model (a fresh LoRA has B = 0), and restore the pair afterwards.

    Raises PairError where aligned has several adapters on, or the settings name layers that the model does not have.
    """
    side = pair._sides["aligned"]
    with pair.model("aligned"):
        one, on = side.weights, side.adapters
    if len(on) > 1:
        raise PairError(
            f"aligned of {pair.name} has {len(on)} adapters on ({', '.join(on)}), and only one can be trained further: "
            "merge them into one model first"
        )
    name, alone = f"student-{next(_NUMBERS)}", one.peft is None
    flags = [(p, p.requires_grad) for p in one.model.parameters()]
    buffers = one.model.training
    try:
        with quiet_libraries(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _put_on(one, name, on, lora, pair.name)
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        with _left_as_found(one, name):
            made = Student(name=name, copied=bool(on), one=one)
            for p in made.parameters():
                p.requires_grad_(True)
            yield made
    finally:
        if one.peft is not None and name in one.peft.peft_config:
            if alone:
                one.peft.unload()
                one.peft = None
            else:
                with quiet_libraries():
                    one.peft.delete_adapter(name)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        one.model.train(buffers)


def _put_on(one: Weights, name: str, on: tuple[str, ...], lora: LoraSettings, pair_name: str) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

    if on:
        assert one.peft is not None
        settings = copy.deepcopy(one.peft.peft_config[on[0]])
        settings.inference_mode = False
        one.peft.add_adapter(name, settings)
        state = get_peft_model_state_dict(one.peft, adapter_name=on[0], save_embedding_layers=False)
        set_peft_model_state_dict(one.peft, {k: v.clone() for k, v in state.items()}, adapter_name=name)
        return
    targets = list(lora.targets) if isinstance(lora.targets, tuple) else lora.targets
    shape: dict[str, Any] = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    settings = LoraConfig(
        task_type="CAUSAL_LM", target_modules=targets, exclude_modules=weights.beside_text(one.model), **shape
    )
    try:
        if one.peft is None:
            one.peft = PeftModel(one.model, settings, adapter_name=name)
        else:
            one.peft.add_adapter(name, settings)
    except ValueError as error:
        reason = " ".join(str(error).split())[:300]
        raise PairError(f"no LoRA of these settings fits the aligned model of {pair_name}: {reason}") from None


@contextlib.contextmanager
def _left_as_found(one: Weights, name: str) -> Iterator[None]:
    """Switch the student's adapter on for the block, and the former state on again after it."""
    former = [(layer, layer.disable_adapters, list(layer.active_adapters)) for layer in one.layers()]
    for layer, _, _ in former:
        layer.set_adapter([name])
        layer.enable_adapters(True)
    try:
        yield
    finally:
        for layer, off, on in former:
            kept = [a for a in on if a != name]
            if kept:
                layer.set_adapter(kept)
            layer.enable_adapters(not off)
