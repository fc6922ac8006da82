"""A part of what a training changed: an adapter whose merged weights are aligned's and a share of the difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.core.errors import PairError, ParameterError
from workbench.core.files import atomic_folder
from workbench.models.pair import ModelPair
from workbench.training.student import ADAPTER_WEIGHTS, weights_file

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_ODD = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "trainable_token_indices")


def scaled_adapter(pair: ModelPair, adapter: str | Path, share: float, out: str | Path) -> Path:
    """Write the adapter with W = W_aligned + share (W_adapter - W_aligned) in every layer, and return its folder.

    So arms can be compared at equal over-refusal. The difference of the merged weights is scaled, not the two factors
    of LoRA. Where the pair is one model with an adapter, W_aligned has that adapter, and the result has both beside
    each other (ranks add up), to be loaded on base like the trained one. An earlier result in `out` is replaced.

    Raises ParameterError for a share outside 0 to 1, NotPresent for a missing adapter, and PairError for one that is no
    plain LoRA or is in other layers than the pair's own.
    """
    from peft import PeftConfig, get_peft_model_state_dict
    from safetensors.torch import load_file, save_file

    if not 0.0 <= share <= 1.0:
        raise ParameterError(f"share is {share:g}; it must be from 0 (aligned) to 1 (the adapter as it is)")
    file = weights_file(adapter)
    settings: Any = PeftConfig.from_pretrained(str(file.parent))
    parts = [(share, settings, load_file(file))]
    side = pair._sides["aligned"]
    if side.adapters:
        own: Any = side.weights.peft
        state = get_peft_model_state_dict(own, adapter_name=side.adapters[0], save_embedding_layers=False)
        parts.append((1.0 - share, own.peft_config[side.adapters[0]], state))
    layers = [_layers(str(adapter), config, state) for _, config, state in parts]
    if odd := sorted(layers[0] ^ layers[-1]):
        raise PairError(
            f"the adapter in {str(adapter)!r} and the pair's own are in different layers ({odd[0]} is in one alone): "
            "train the adapter on this pair"
        )
    made: dict[str, Tensor] = {}
    for layer in sorted(layers[0]):
        made[layer + _DOWN] = torch.cat([s[layer + _DOWN].cpu().float() for _, _, s in parts])
        ups = [w * c.lora_alpha / c.r * s[layer + _UP].cpu().float() for w, c, s in parts]
        made[layer + _UP] = torch.cat(ups, dim=1)
    settings.r = settings.lora_alpha = sum(c.r for _, c, _ in parts)
    settings.inference_mode = True
    out = Path(out)
    with atomic_folder(out) as partial:
        save_file({k: v.contiguous() for k, v in made.items()}, partial / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        (partial / ADAPTER_WEIGHTS).chmod(0o644)
        settings.save_pretrained(str(partial))
    return out


def _layers(name: str, config: Any, state: dict[str, Tensor]) -> set[str]:
    """Return the layers of a plain LoRA, each with both factors. Raises PairError for another adapter."""
    odd = [f for f in _ODD if getattr(config, f, None)] + [k for k in state if not k.endswith((_DOWN, _UP))]
    if config.peft_type.value != "LORA" or odd:
        what = odd[0] if odd else config.peft_type.value
        raise PairError(f"the adapter {name!r} is no plain LoRA ({what}), so its change cannot be scaled: give another")
    return {k.removesuffix(_DOWN) for k in state if k.endswith(_DOWN)}
