"""One copy of a model's weights: its body, its head, and the adapters that switch on and off."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from workbench.core.errors import NotPresent, PairError
from workbench.models.presets import safetensors_header
from workbench.models.sources import Source, content_hash, quiet_libraries

Adapters = tuple[str, ...]
"""Names of the adapters that are on; () is the model without any."""


class Weights:
    """One model and its adapters. Several pairs may share it; each switches on its own adapters."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap a transformers model, or a PEFT model over one. Raises PairError for any other module."""
        from peft import PeftModel

        self.peft: PeftModel | None = model if isinstance(model, PeftModel) else None
        inside = model.get_base_model() if isinstance(model, PeftModel) else model
        if not isinstance(inside, PreTrainedModel):
            raise PairError(f"{type(inside).__name__} is not a transformers model: give a PreTrainedModel")
        self.model = inside
        self._switching = threading.RLock()
        self._found: tuple[Adapters, list[Any]] = ((), [])
        if isinstance(model, PeftModel):
            _check_inside_layers("the adapter", model.active_peft_config)

    def on(self) -> Adapters:
        """Return the adapters that are on now."""
        return () if self.peft is None else tuple(self.peft.active_adapters)

    def add(self, source: Source) -> str:
        """Load a saved adapter beside the active ones and return its name.

        Raises PairError where it does not fit this model, is a pickle, or would change the model itself.
        """
        from peft import PeftModel

        file = adapter_file(source)
        name = f"adapter-{adapter_identity(source)[:12]}"
        if self.peft is not None and name in self.peft.peft_config:
            return name
        _check_adapter_keys(source, file)
        try:
            with quiet_libraries():
                warnings.filterwarnings("error", message="Found missing adapter keys")
                if self.peft is None:
                    self.peft = PeftModel.from_pretrained(self.model, source.folder, adapter_name=name)
                else:
                    self.peft.load_adapter(str(source.folder), adapter_name=name)
        except (ValueError, RuntimeError, KeyError, TypeError, OSError, UserWarning) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = " ".join(str(error).split())[:300]
            raise PairError(
                f"the adapter {source} does not fit {type(self.model).__name__} "
                f"{self.model.config.name_or_path or '(in memory)'!r}: {reason}"
            ) from None
        return name

    @contextlib.contextmanager
    def active(self, adapters: Adapters) -> Iterator[PreTrainedModel]:
        """Yield the model in eval mode with exactly these adapters on, then restore the former ones.

        A model with adapters admits one thread at a time: a widget's thread runs beside the cells of a notebook.
        """
        with contextlib.nullcontext() if self.peft is None else self._switching:
            yield from self._active(adapters)

    def _active(self, adapters: Adapters) -> Iterator[PreTrainedModel]:
        training = self.model.training
        former = [(layer, layer.disable_adapters, list(layer.active_adapters)) for layer in self.layers()]
        as_wanted = all(off if not adapters else not off and on == list(adapters) for _, off, on in former)
        try:
            if training:
                self.model.eval()
            if not as_wanted:
                self._switch(adapters)
            yield self.model
        finally:
            if not as_wanted:
                with _grad_flags_kept(self.layers()):
                    for layer, off, on in former:
                        if on:
                            layer.set_adapter(on)
                        layer.enable_adapters(not off)
            if training:
                self.model.train()

    def head_switches(self) -> bool:
        """Tell whether the output head has an adapter."""
        head = self.model.get_output_embeddings()
        return any(layer is head for layer in self.layers())

    def _switch(self, adapters: Adapters) -> None:
        from peft.tuners.tuners_utils import set_adapter

        layers = self.layers()
        with _grad_flags_kept(layers):
            if adapters:
                set_adapter(self.model, list(adapters), inference_mode=True)
            for layer in layers:
                layer.enable_adapters(bool(adapters))

    def layers(self) -> list[Any]:
        """List the modules that hold adapters."""
        if self.peft is None:
            return []
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import AuxiliaryTrainingWrapper

        known = tuple(self.peft.peft_config)
        if self._found[0] != known:  # searching all modules for every token would cost more than switching
            wanted = (BaseTunerLayer, AuxiliaryTrainingWrapper)
            self._found = known, [m for m in self.model.modules() if isinstance(m, wanted)]
        return self._found[1]


@contextlib.contextmanager
def _grad_flags_kept(layers: list[Any]) -> Iterator[None]:
    flags = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            if parameter.requires_grad != flag:
                parameter.requires_grad_(flag)


# --------------------------------------------------------------------------------------------- adapter files


def adapter_file(source: Source) -> Path:
    """Return the file of an adapter's weights. Raises PairError for a pickle, NotPresent where there is none."""
    file = source.folder / "adapter_model.safetensors"
    if file.is_file():
        return file
    if (source.folder / "adapter_model.bin").is_file():
        raise PairError(
            f"the adapter {source} has its weights as a pickle (adapter_model.bin), which can run code when it is "
            "opened: save it again as safetensors"
        )
    raise NotPresent(f"the adapter {source} has no weights: put adapter_model.safetensors into {str(source.folder)!r}")


def adapter_identity(source: Source) -> str:
    """Hash an adapter's config and weights."""
    digest = hashlib.sha256()
    for file in (source.folder / "adapter_config.json", adapter_file(source)):
        digest.update(f"{file.name}:{content_hash(file)}\n".encode())
    return digest.hexdigest()


def _check_inside_layers(name: str, config: Any) -> None:
    if config.is_prompt_learning:
        raise PairError(
            f"{name} is a {config.peft_type} adapter, whose prompt vectors cannot be switched off: use an adapter "
            "inside the layers, such as LoRA"
        )


def _check_adapter_keys(source: Source, file: Path) -> None:
    """Refuse an adapter that would overwrite the model's own tensors, which switching it off would not restore."""
    from peft import PeftConfig
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    try:
        config = PeftConfig.from_pretrained(str(source.folder))
        keys = list(safetensors_header(file))
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise PairError(f"the adapter {source} cannot be read: {error}") from None
    _check_inside_layers(f"the adapter {source}", config)
    prefix = PEFT_TYPE_TO_PREFIX_MAPPING[config.peft_type]
    saved = getattr(config, "modules_to_save", None) or ()
    adapted = (prefix, "trainable_tokens", *(f".{m}." for m in saved))
    if own := [key for key in keys if not any(part in key for part in adapted)]:
        raise PairError(
            f"the adapter {source} also stores {len(own)} of the model's own tensors (such as {own[0]!r}), so "
            "switching it off would not restore the base model: save it again with save_embedding_layers=False"
        )


# ------------------------------------------------------------------------------------------------ body, head


def body_of(model: PreTrainedModel) -> nn.Module:
    """Return the part of a model that ends with the final norm, before the output head."""
    decoder = model.get_decoder()
    body = decoder if decoder is not model else model.base_model
    if body is model:
        raise PairError(f"{type(model).__name__} has no body apart from its head: use a causal language model")
    return body


def head_rows(model: PreTrainedModel) -> int:
    """Count the vocabulary rows of a model's output head. Raises PairError for a model without a head."""
    head = model.get_output_embeddings()
    if head is None:
        raise PairError(f"{type(model).__name__} has no output head: use a causal language model")
    rows = getattr(head, "out_features", None)
    return int(rows if rows is not None else head.weight.shape[0])


def body_hidden(
    model: PreTrainedModel,
    input_ids: Int[Tensor, "batch context"],
    *,
    attention_mask: Int[Tensor, "batch total"] | Bool[Tensor, "batch total"] | None = None,
    position_ids: Int[Tensor, "batch context"] | None = None,
    cache: Cache | None = None,
    compiled: bool = False,
) -> Float[Tensor, "batch context hidden"]:
    """Return the last hidden state after the final norm; without `position_ids`, positions are counted in the mask."""
    if position_ids is None and attention_mask is not None:
        counted = attention_mask.long().cumsum(dim=1) - 1
        position_ids = counted.clamp(min=0)[:, -input_ids.shape[1] :]
    body = body_of(model)
    options: dict[str, Any] = {} if position_ids is None else {"position_ids": position_ids}
    run = _compiled(body) if compiled else body
    output = run(input_ids=input_ids, attention_mask=attention_mask, **with_cache(body, cache), **options)
    hidden: Tensor = output.last_hidden_state
    return hidden


def _compiled(body: nn.Module) -> Callable[..., Any]:
    """Return a body's compiled forward pass, which the body itself holds, so that both go together."""
    if "compiled_forward" not in vars(body):
        vars(body)["compiled_forward"] = torch.compile(body.forward)
    run: Callable[..., Any] = vars(body)["compiled_forward"]
    return run


def with_cache(body: nn.Module, cache: Cache | None) -> dict[str, Any]:
    """Return a body's arguments for a cache, which transformers before 5.24 calls `past_key_values`."""
    if cache is None:
        return {"use_cache": False}
    name = "cache" if "cache" in inspect.signature(body.forward).parameters else "past_key_values"
    return {"use_cache": True, name: cache}


def head_logits(
    model: PreTrainedModel,
    hidden: Float[Tensor, "*position hidden"],
    rows: int,
    *,
    out: Float[Tensor, "room vocab"] | None = None,
) -> Float[Tensor, "*position vocab"]:
    """Run the output head for the first `rows` vocabulary rows, with the model's own scaling and soft-capping.

    An ordinary linear head is cut before it is multiplied (a view, no copy) and writes into the first rows of `out`
    where that is given. Where hidden states are wider than the weights (float32 over bfloat16), an ordinary head
    computes in their precision, any other in its own.
    """
    head: Any = model.get_output_embeddings()
    own = hasattr(head, "_hf_hook") or head._forward_hooks or "forward" in vars(head)
    ordinary = type(head) is nn.Linear and not own
    if ordinary and out is not None and head.bias is None:
        logits = torch.mm(hidden, head.weight[:rows].T, out=out[: len(hidden)])
    elif ordinary:
        bias = None if head.bias is None else head.bias[:rows].to(hidden.dtype)
        logits = nn.functional.linear(hidden, head.weight[:rows].to(hidden.dtype), bias)
    else:  # an adapter on the head, an offloaded head, or one with its own forward (decoding.mixed)
        logits = head(hidden.to(model.dtype))[..., :rows]
    config = model.config.get_text_config()
    if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
        logits = logits * scale
    if (divisor := getattr(config, "logits_scaling", None)) is not None:  # Granite
        logits = logits / divisor
    if (multiplier := getattr(config, "lm_head_multiplier", None)) is not None:  # Falcon-H1
        logits = logits * multiplier
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma
        logits = torch.tanh(logits / cap) * cap
    return logits


def check_split(model: PreTrainedModel, rows: int, name: str, device: torch.device) -> None:
    """Compare body and head, run apart on a few tokens, with the model's own forward pass.

    Raises PairError, with both values at the worst place, where they differ by more than rounding.
    """
    ids = (torch.arange(8, device=device) % rows)[None]
    with torch.no_grad():
        own = model(input_ids=ids, use_cache=False).logits[..., :rows]
        ours = head_logits(model, body_hidden(model, ids), rows)
    difference = torch.nan_to_num((own - ours).abs().float())
    allowed = (64 if own.dtype == torch.float32 else 4) * torch.finfo(own.dtype).eps
    allowed *= max(1.0, torch.nan_to_num(own.float()).abs().max().item())
    if (own.isnan() == ours.isnan()).all() and difference.max().item() <= allowed:
        return
    worst = int(difference.argmax())
    raise PairError(
        f"{name} ({type(model).__name__}) computes its logits in an unknown way: its forward pass gives "
        f"{own.flatten()[worst].item():.6g} where body and head, run apart, give {ours.flatten()[worst].item():.6g} "
        f"(allowed difference {allowed:.2g}). It cannot be scored: use another model"
    )


def parameter_hash(model: nn.Module) -> str:
    """Hash the names, dtypes and bytes of a model's saved parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
