"""Whether a model's files held all that the model needs, and nothing that it would have ignored.

transformers fills a tensor that the files lack with random numbers, and skips one that it does not know; both only as a
warning. Here they are an error, except for what models compute themselves or do not use as a language model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from workbench.core.errors import PairError

_UNUSED = re.compile(
    r"(^|[._])(inv_freq|masked_bias|position_ids|num_batches_tracked)$|\.(attn|attention)\.bias$"  # old buffers
    r"|(^|\.)(mtp|v_head|pooler|nsp|visual|vision\w*|audio\w*|\w*projector)\."  # prediction heads, other modalities
)
_MERGE = "it was saved inside PEFT, so merge the adapter first (`merge_and_unload`) and save the result"
_WRAPPERS: Mapping[str, str] = {
    "_orig_mod.": "it was saved while compiled, so save the module inside it (`model._orig_mod`)",
    "module.": "it was saved inside DataParallel, so save the module inside it (`model.module`)",
    "_fsdp_wrapped_module.": "it was saved inside FSDP, so save its full state dict",
    "base_model.model.": _MERGE,
    "base_layer.": _MERGE,
}


def check_whole(source: object, model: PreTrainedModel, found: Mapping[str, Collection[Any]]) -> None:
    """Raise PairError where `found`, what transformers reports of a load, names missing, unknown or misshapen tensors.

    A classifier may have tensors beside it (a language model's head). A wrapper that renamed all tensors is named.
    """
    kind = type(model).__name__
    missing = sorted(found["missing_keys"])
    unknown = sorted(k for k in found["unexpected_keys"] if not _UNUSED.search(k))
    check_prefixes(source, kind, missing, unknown)
    if kind.endswith("ForSequenceClassification"):
        unknown = []
    shapes = sorted((k, list(a), list(b)) for k, a, b in found["mismatched_keys"])
    wrong = [f"stores {k!r} as {a}, and its config asks for {b}" for k, a, b in shapes[:1]]
    if missing:
        wrong.append(f"has no {missing[0]!r}{_more(missing)}, which {kind} needs and would fill with random numbers")
    if unknown:
        wrong.append(f"has {unknown[0]!r}{_more(unknown)}, which {kind} would ignore")
    if wrong:
        saved = (getattr(model.config, "architectures", None) or [kind])[0]
        advice = "copy or download all of it again, or" if saved == kind else f"it was saved as {saved}, so"
        raise PairError(f"{source} {', and '.join(wrong)}: {advice} give another model")


def check_named_alike(source: object, kind: str, missing: Sequence[str], unknown: Sequence[str]) -> None:
    """Raise PairError where an adapter's file lacks tensors, or the model lacks layers for some of them."""
    check_prefixes(source, kind, missing, unknown)
    for names, why in ((missing, "has no"), (unknown, f"does not fit {kind}, which has no layer for its")):
        if names:
            raise PairError(f"{source} {why} {names[0]!r}{_more(names)}: use the model that it was trained on")


def check_prefixes(source: object, kind: str, missing: Sequence[str], unknown: Sequence[str]) -> None:
    """Raise PairError where unknown tensors are missing ones under another name."""
    if missing and (renamed := _renamed(missing, unknown)):
        prefix, name, why = renamed
        raise PairError(f"{source} names its tensors with {prefix!r} (such as {name!r}), which {kind} does not: {why}")


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _renamed(missing: Sequence[str], unknown: Sequence[str]) -> tuple[str, str, str] | None:
    """Return what was put into the names of all missing tensors, one such name, and the remedy."""
    lacked = set(missing)
    for wrapper, why in _WRAPPERS.items():
        inside = re.compile(rf"(^|\.){re.escape(wrapper)}")
        for name in unknown:
            if inside.search(name) and inside.sub(r"\1", name, count=1) in lacked:
                return wrapper, name, why
    for name in unknown:
        if wanted := next((m for m in missing if name.endswith(m)), None):
            return name.removesuffix(wanted), name, "remove it from the names of the tensors"
    return None
