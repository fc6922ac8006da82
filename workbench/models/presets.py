"""Pairs by name: which models they are, how large, under which licence, and whether they are on this machine.

Importing this module, and listing the presets, loads no torch and asks no network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workbench.core.errors import UnknownName, nearest
from workbench.core.files import cache_folder

Kind = Literal["embedded", "fetched", "hub"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Name one pair. `aligned` is None for a preset of a single model, to which an adapter may be added.

    `adapter` is a folder inside the package: an adapter that is on for aligned and comes with the workbench.
    `parameters` is per model (None: read from the weights' header where they are present). `gated` models need their
    licence accepted on the hub. `thinking` says whether the chat template can switch a thinking block on.
    """

    name: str
    kind: Kind
    base: str
    aligned: str | None
    parameters: int | None
    licence: str
    gated: bool = False
    thinking: bool = False
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True)
class PresetRow:
    """Describe one preset on this machine; `parameters` is per model, None where nobody knows before it is there.

    `adapted` tells whether an adapter that comes with the workbench makes its aligned model.
    """

    name: str
    base: str
    aligned: str | None
    parameters: int | None
    licence: str
    gated: bool
    thinking: bool
    present: bool
    how: str
    adapted: bool = False


def _hub(
    name: str, base: str, aligned: str, parameters: int, licence: str, *, gated: bool = False, thinking: bool = False
) -> Preset:
    return Preset(
        name=name,
        kind="hub",
        base=base,
        aligned=aligned,
        parameters=parameters,
        licence=licence,
        gated=gated,
        thinking=thinking,
    )


_APACHE = "Apache-2.0"
_SMOL = "HuggingFaceTB/SmolLM2-"

PRESETS: tuple[Preset, ...] = (
    Preset(name="embedded", kind="embedded", base="base", aligned="aligned", parameters=None, licence="MIT"),
    Preset(
        name="smollm2",
        kind="fetched",
        base="smollm2-135m-instruct",
        aligned=None,
        parameters=134_515_008,
        licence=_APACHE,
    ),
    Preset(
        name="smollm2-safe",
        kind="fetched",
        base="smollm2-135m-instruct",
        aligned=None,
        parameters=134_515_008,
        licence=_APACHE,
        adapter="smollm2_safe/adapter",
    ),
    _hub("smollm2-135m", f"{_SMOL}135M", f"{_SMOL}135M-Instruct", 134_515_008, _APACHE),
    _hub("smollm2-360m", f"{_SMOL}360M", f"{_SMOL}360M-Instruct", 361_821_120, _APACHE),
    _hub("smollm2-1.7b", f"{_SMOL}1.7B", f"{_SMOL}1.7B-Instruct", 1_711_376_384, _APACHE),
    _hub("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B-Instruct", 494_032_768, _APACHE),
    _hub("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304, _APACHE),
    _hub("qwen2.5-7b", "Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B-Instruct", 7_615_616_512, _APACHE),
    _hub("qwen3-0.6b", "Qwen/Qwen3-0.6B-Base", "Qwen/Qwen3-0.6B", 596_049_920, _APACHE, thinking=True),
    _hub("qwen3-8b", "Qwen/Qwen3-8B-Base", "Qwen/Qwen3-8B", 8_190_735_360, _APACHE, thinking=True),
    _hub(
        "llama-2-7b",
        "meta-llama/Llama-2-7b-hf",
        "meta-llama/Llama-2-7b-chat-hf",
        6_738_415_616,
        "Llama 2 Community",
        gated=True,
    ),
    _hub(
        "llama-3.1-8b",
        "meta-llama/Llama-3.1-8B",
        "meta-llama/Llama-3.1-8B-Instruct",
        8_030_261_248,
        "Llama 3.1 Community",
        gated=True,
    ),
    _hub(
        "llama-3.2-1b",
        "meta-llama/Llama-3.2-1B",
        "meta-llama/Llama-3.2-1B-Instruct",
        1_235_814_400,
        "Llama 3.2 Community",
        gated=True,
    ),
    _hub("gemma-3-1b", "google/gemma-3-1b-pt", "google/gemma-3-1b-it", 999_885_952, "Gemma Terms of Use", gated=True),
    _hub("olmo-2-1b", "allenai/OLMo-2-0425-1B", "allenai/OLMo-2-0425-1B-Instruct", 1_484_916_736, _APACHE),
)

PRESET_NAMES: tuple[str, ...] = tuple(p.name for p in PRESETS)


def preset(name: str) -> Preset:
    """Return the preset of that name. Raises UnknownName, which names the nearest one."""
    for known in PRESETS:
        if known.name == name:
            return known
    raise UnknownName(f"there is no pair {name!r}: {nearest(name, PRESET_NAMES)} (`workbench pairs` lists them)")


def local_folder(name: str, kind: Kind) -> Path:
    """Return where a model of an embedded or fetched preset lies, or would lie."""
    if kind == "embedded":
        return Path(__file__).resolve().parent / "embedded" / name
    return cache_folder() / "models" / name


def adapter_folder(row: Preset) -> Path | None:
    """Return where the adapter that comes with a preset lies, None where none does."""
    return None if row.adapter is None else Path(__file__).resolve().parent / row.adapter


def how_to_have(row: Preset) -> str:
    """Say in a clause how a preset that is not present can be had."""
    if row.kind == "fetched":
        return f"`workbench pairs fetch {row.name}`"
    if row.kind == "embedded":
        return "`make embedded` rebuilds it"
    licence = "; accept the licence on the model's page and run `hf auth login`" if row.gated else ""
    return f"downloaded from the hub on first use{licence}"


def is_present(row: Preset) -> bool:
    """Tell whether every file of a preset's weights is on this machine, without asking the network."""
    models = [m for m in (row.base, row.aligned) if m is not None]
    if row.kind == "hub":
        return all(_in_hub_cache(m) for m in models)
    return all(_weights_complete(local_folder(m, row.kind)) for m in models)


def preset_rows(presets: Iterable[Preset] = PRESETS) -> tuple[PresetRow, ...]:
    """Describe the presets as they stand on this machine, in the table's order."""
    return tuple(_row(p) for p in presets)


def _row(p: Preset) -> PresetRow:
    present = is_present(p)
    parameters = p.parameters
    if parameters is None and present:
        folder = local_folder(p.base, p.kind)
        parameters = sum(parameters_in(file) for file in folder.glob("*.safetensors"))
    return PresetRow(
        name=p.name,
        base=p.base,
        aligned=p.aligned,
        parameters=parameters,
        licence=p.licence,
        gated=p.gated,
        thinking=p.thinking,
        present=present,
        how="" if present else how_to_have(p),
        adapted=p.adapter is not None,
    )


def safetensors_header(path: Path) -> dict[str, dict[str, object]]:
    """Read the tensors' names, shapes and dtypes of a safetensors file, not the tensors.

    Raises ValueError when the file is not safetensors or is cut off.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= min(100_000_000, path.stat().st_size - 8):
            raise ValueError(f"{str(path)!r} is not a complete safetensors file")
        header: dict[str, dict[str, object]] = json.loads(file.read(size))
    header.pop("__metadata__", None)
    ends = [v["data_offsets"][1] for v in header.values()]  # type: ignore[index]
    if path.stat().st_size != 8 + size + max(ends, default=0):
        raise ValueError(
            f"{str(path)!r} has {path.stat().st_size:,} bytes, its header promises {8 + size + max(ends, default=0):,}"
        )
    return header


def parameters_in(path: Path) -> int:
    """Count the numbers that a safetensors file holds, from its header."""
    return sum(math.prod(v["shape"]) for v in safetensors_header(path).values())  # type: ignore[call-overload]


def _weights_complete(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    try:
        names = (
            set(json.loads(index.read_text("utf-8"))["weight_map"].values())
            if index.is_file()
            else {"model.safetensors"}
        )
        for name in names:
            safetensors_header(folder / name)
    except (OSError, ValueError, KeyError):
        return False
    return True


def _in_hub_cache(repo: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repo, "config.json")
    return isinstance(config, str) and _weights_complete(Path(config).parent)
