"""One copy of a model's weights: its body, its head, and the adapters that switch on and off."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from workbench.core.errors import NotPresent, PairError
from workbench.models.sources import Source, content_hash, identity, quiet_libraries
from workbench.models.whole import check_named_alike

if TYPE_CHECKING:
    from peft import PeftConfig

_SHARED = re.compile(r"vblora_vector_bank|tinylora_v|unilora_theta_d")  # one tensor, named in every layer
_SHAPES = re.compile(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\).*?torch\.Size\((.*?)\)")
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
        config = _adapter_config(source)
        _check_own_tensors(source, file, self.model, config)
        config.inference_mode = True
        made, kind = self.peft, type(self.model).__name__
        try:
            with quiet_libraries():
                if made is None:
                    made = PeftModel(self.model, config, adapter_name=name)
                read = made.load_adapter(str(source.folder), adapter_name=name)
            missing = [k.replace(f".{name}", "") for k in read.missing_keys if not _SHARED.search(k)]
            check_named_alike(f"the adapter {source}", kind, missing, read.unexpected_keys)
        except (ValueError, RuntimeError, KeyError, TypeError, OSError, PairError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            if made is not None and self.peft is None:
                made.unload()
            elif made is not None and name in made.peft_config:
                made.delete_adapter(name)
            if isinstance(error, PairError):
                raise
            reason = " ".join(str(error).split())
            if shapes := _SHAPES.search(reason):
                reason = "{} is {} in the file and {} in the model".format(*shapes.groups())
            raise PairError(
                f"the adapter {source} ({config.peft_type.value}) does not fit {kind} "
                f"{self.model.config.name_or_path or '(in memory)'!r}: {reason[:300]}"
            ) from None
        self.peft = made
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

    def trained_elsewhere(self, adapters: Adapters) -> list[str]:
        """Return a sentence for each adapter whose settings name another model than this one."""
        notes = []
        for name in adapters if self.peft is not None else ():
            stated = str(self.peft.peft_config[name].base_model_name_or_path or "")  # type: ignore[union-attr]
            there, here = _model_name(stated), _model_name(self.model.config.name_or_path)
            if there and here and not _same_model(there, here):
                put = f"it is put on {str(here)!r}"
                notes.append(f"The adapter's settings say that it was trained on {str(there)!r}, and {put}.")
        return notes

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


def _model_name(place: str) -> Path | None:
    """Return a model's folder, or the hub id of a folder in the hub's cache."""
    cached = re.search(r"models--(.+?)/snapshots/", f"{place}/")
    return Path(cached[1].replace("--", "/") if cached else place) if place else None


def _same_model(one: Path, two: Path) -> bool:
    if one.is_dir() and two.is_dir() and one.resolve() != two.resolve():
        with contextlib.suppress(NotPresent, PairError, OSError):
            return identity(Source(asked="", folder=one)) == identity(Source(asked="", folder=two))
    return one.name.lower() == two.name.lower()


def _check_inside_layers(name: str, config: Any) -> None:
    if config.is_prompt_learning:
        raise PairError(
            f"{name} is a {config.peft_type.value} adapter, whose prompt vectors cannot be switched off: use an "
            "adapter inside the layers, such as LoRA"
        )


def _adapter_config(source: Source) -> PeftConfig:
    """Return an adapter's settings. Raises PairError where they cannot be read or it cannot be switched off."""
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(str(source.folder))
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise PairError(f"the adapter {source} cannot be read: {error}") from None
    _check_inside_layers(f"the adapter {source}", config)
    return config


def _check_own_tensors(source: Source, file: Path, model: PreTrainedModel, config: PeftConfig) -> None:
    """Refuse an adapter that would change the model's own tensors, which switching it off would not restore.

    PEFT stores the embedding or head beside a LoRA on it: where they are the model's own, loading them changes nothing.
    """
    from safetensors import SafetensorError, safe_open

    saved = tuple(f".{m}." for m in getattr(config, "modules_to_save", None) or ())
    own = {k.replace(".base_layer.", "."): v for k, v in model.state_dict(keep_vars=True).items()}
    other = []
    try:
        with safe_open(file, "pt") as stored:
            for key in stored.keys():  # noqa: SIM118 - it is no mapping
                mine = own.get(key.removeprefix("base_model.model.").replace(".base_layer.", "."))
                if mine is None or any(part in key for part in saved):
                    continue
                theirs = stored.get_tensor(key).to(mine)
                if theirs.shape != mine.shape or not torch.equal(theirs, mine):
                    other.append(f"{key!r} of shape {list(theirs.shape)}")
    except (SafetensorError, OSError) as error:
        raise PairError(f"the adapter {source} cannot be read: {error}") from None
    if other:
        raise PairError(
            f"the adapter {source} also stores {len(other)} tensors of its model with other values than here (such as "
            f"{other[0]}), so switching it off would not restore the base model: if it was trained on this model, save "
            "it again with save_embedding_layers=False or train it with modules_to_save or bias='none'"
        )


# ------------------------------------------------------------------------------------------------ body, head


def body_of(model: PreTrainedModel) -> nn.Module:
    """Return the part of a model that ends with the final norm, before the output head."""
    decoder = model.get_decoder()
    body = decoder if decoder is not model else model.base_model
    if body is model:
        raise PairError(f"{type(model).__name__} has no body apart from its head: use a causal language model")
    return body


def blocks_of(body: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of a body in order; none where it keeps no list of so many."""
    depth = getattr(body.config, "num_hidden_layers", None)
    lists = (m for m in body.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)
    return list(next(lists, ()))


def beside_text(model: PreTrainedModel) -> str | None:
    """Return a pattern of the modules beside body and head (a vision tower), None where there are none."""
    body, head = body_of(model), model.get_output_embeddings()
    names = {id(m): n for n, m in model.named_modules()}
    text = [re.escape(names[id(m)]) for m in (body, head) if m is not None]
    inside = re.compile(rf"({'|'.join(text)})(\..*)?")
    outside = (n for n, m in model.named_modules() if isinstance(m, nn.Linear) and not inside.fullmatch(n))
    return None if next(outside, None) is None else rf"(?!{inside.pattern}$).*"


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


class _Float32Product(torch.autograd.Function):
    """hidden @ weight.T of half-precision weights, added up and returned in float32 without a float32 copy of them.

    A GPU multiplies in the weights' own precision where the other factor has it; bfloat16 gradients are rounded to it.
    Everywhere else a few rows of the weights are float32 at a time.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, out: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.dtype = hidden.dtype
        out = hidden.new_empty(len(hidden), len(weight), dtype=torch.float32) if out is None else out
        if hidden.is_cuda and hidden.dtype == weight.dtype:
            return torch.mm(hidden, weight.T, out_dtype=torch.float32, out=out)
        wide = hidden.float()
        for rows in _rows_at_once(weight):
            torch.mm(wide, weight[rows].float().T, out=out[:, rows])
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,), (weight,) = gradients, ctx.saved_tensors
        if gradient.is_cuda and weight.dtype == torch.bfloat16:
            return torch.mm(gradient.bfloat16(), weight, out_dtype=torch.float32).to(ctx.dtype), None, None
        found = gradient.new_zeros(len(gradient), weight.shape[1])
        for rows in _rows_at_once(weight):
            found.addmm_(gradient[:, rows], weight[rows].float())
        return found.to(ctx.dtype), None, None


CONVERTED = 2**22
"""Numbers of a half-precision head that are float32 at once."""


def _rows_at_once(weight: Float[Tensor, "vocab hidden"]) -> list[slice]:
    size = max(1, CONVERTED // weight.shape[1])
    return [slice(start, start + size) for start in range(0, len(weight), size)]


def head_logits(
    model: PreTrainedModel,
    hidden: Float[Tensor, "*position hidden"],
    rows: int,
    *,
    float32: bool = False,
    out: Float[Tensor, "room vocab"] | None = None,
) -> Float[Tensor, "*position vocab"]:
    """Run the output head for the first `rows` vocabulary rows, with the model's own scaling and soft-capping.

    An ordinary linear head is cut before it is multiplied (a view, no copy) and writes rows of positions into the first
    rows of `out` where that is given. With `float32` one in half precision adds up and returns float32, and gives its
    own weights no gradient. Any other head computes in its own precision.
    """
    head: Any = model.get_output_embeddings()
    own = hasattr(head, "_hf_hook") or head._forward_hooks or "forward" in vars(head)
    ordinary = type(head) is nn.Linear and not own
    if ordinary:
        weight, bias = head.weight[:rows], None if head.bias is None else head.bias[:rows]
        room = None if out is None else out[: len(hidden)]
        if float32 and weight.dtype.itemsize < 4:
            flat: Tensor = _Float32Product.apply(hidden.flatten(0, -2), weight, room)
            logits = flat.view(*hidden.shape[:-1], len(weight))
            logits = logits if bias is None else logits + bias.float()
        elif room is not None and bias is None:
            logits = torch.mm(hidden, weight.T, out=room)
        else:
            logits = nn.functional.linear(hidden, weight, bias)
    else:  # an adapter on the head, an offloaded head, or one with its own forward (decoding.mixed)
        logits = head(hidden.to(model.dtype))[..., :rows]
        logits = logits.float() if float32 and logits.dtype.itemsize < 4 else logits
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


def check_cache(model: PreTrainedModel, cache: Cache, rows: int, name: str, device: torch.device) -> None:
    """Compare steps with a cache, of which a row is dropped between, with passes without one, padded and not.

    Batched generation needs exactly this. Raises PairError where the model cannot do it, or gives something else than
    in one pass: by more than 0.1 % of its hidden states' norm, or 25 % in half precision (experts are chosen by less).
    """
    ids = (torch.arange(24, device=device) * 7 % rows).view(3, 8)
    mask = torch.ones_like(ids)
    mask[0, :2], kept = 0, torch.tensor([0, 2], device=device)
    try:
        with torch.no_grad():
            body_hidden(model, ids[:, :6], attention_mask=mask[:, :6], cache=cache)
            cache.batch_select_indices(kept)
            ids, mask = ids[kept], mask[kept]
            steps = (slice(6, 7), slice(7, 8))
            made = [body_hidden(model, ids[:, s], attention_mask=mask[:, : s.stop], cache=cache) for s in steps]
            found = torch.cat(made, 1).float()
            alone = [body_hidden(model, r[None, m:])[:, -2:] for r, m in zip(ids, (2, 0), strict=True)]
            wanted = torch.cat(alone).float()
            off = (torch.nan_to_num(found - wanted).norm() / torch.nan_to_num(wanted).norm()).item()
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise PairError(
            f"{name} ({type(model).__name__}) cannot continue several texts at once with a cache "
            f"({type(error).__name__}: {reason}): use a model with an ordinary key-value cache"
        ) from None
    if off > (1e-3 if model.dtype == torch.float32 else 0.25):
        raise PairError(
            f"{name} ({type(model).__name__}) continues several texts with a cache otherwise than in one pass (its "
            f"hidden states differ by {100 * off:.1f} %): use a model with an ordinary key-value cache"
        )


def parameter_hash(model: nn.Module) -> str:
    """Hash the names, dtypes and bytes of a model's saved parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
