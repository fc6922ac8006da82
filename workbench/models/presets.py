"""Pairs by name: their models, sizes and licences, and whether they are on this machine.

Importing this module and listing the presets use neither torch nor the network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from workbench.core.errors import UnknownName, nearest
from workbench.core.files import cache_folder

Kind = Literal["embedded", "fetched", "hub"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One named pair. `aligned` is None for a preset of a single model, which may take an adapter.

    `adapter` is the package folder of an adapter that is on for aligned; `ships` maps names to the folders of others,
    which a config may ask for. `stated` counts parameters per model (None: read from the weights' headers). `note` says
    how the weights differ from those published. `gated` models need their licence accepted on the hub. `thinking` says
    whether the chat template can switch a thinking block on.
    """

    name: str
    base: str
    aligned: str | None
    stated: int | None
    licence: str = "Apache-2.0"
    gated: bool = False
    thinking: bool = False
    adapter: str | None = None
    ships: Mapping[str, str] = field(default_factory=dict)
    kind: Kind = "hub"
    note: str = ""

    @property
    def shown(self) -> str:
        """Return the name that pairs carry: with the note on how the weights differ from their publisher's."""
        return f"{self.name} ({self.note})" if self.note else self.name

    def folders(self) -> tuple[Path, ...]:
        """Return the folders of the models of an embedded or fetched preset."""
        return tuple(local_folder(m, self.kind) for m in (self.base, self.aligned) if m is not None)

    @property
    def present(self) -> bool:
        """Tell, without the network, whether every file of the weights is on this machine."""
        if self.kind == "hub":
            return all(_in_hub_cache(m) for m in (self.base, self.aligned) if m is not None)
        return all(map(_weights_complete, self.folders()))

    @property
    def parameters(self) -> int | None:
        """Count the parameters of one model; None where it is not on this machine and they are not stated."""
        if self.stated is not None or not self.present:
            return self.stated
        return sum(parameters_in(file) for file in self.folders()[0].glob("*.safetensors"))

    @property
    def how(self) -> str:
        """Return a clause on how to get a preset that is not present."""
        if self.kind == "fetched":
            return f"`workbench pairs fetch {self.name}`"
        if self.kind == "embedded":
            return "`make embedded` rebuilds it"
        licence = "; accept the licence on the model's page and run `hf auth login`" if self.gated else ""
        return f"downloaded from the hub on first use{licence}"

    def row(self) -> dict[str, Any]:
        """Return the preset as `workbench pairs --json` prints it."""
        fields = ("name", "base", "aligned", "parameters", "licence", "gated", "thinking", "present")
        how = "" if self.present else self.how
        return {**{f: getattr(self, f) for f in fields}, "how": how, "adapted": self.adapter is not None}


def _family(prefix: str, base: str, aligned: str, sizes: dict[str, int], **more: Any) -> list[Preset]:
    """List the pairs of one family: size -> parameters; `{}` in a name is the size."""
    return [
        Preset(name=f"{prefix}-{s.lower()}", base=base.format(s), aligned=aligned.format(s), stated=n, **more)
        for s, n in sizes.items()
    ]


_SMOLLM2 = {"135M": 134_515_008, "360M": 361_821_120, "1.7B": 1_711_376_384}
_QWEN25 = {"0.5B": 494_032_768, "1.5B": 1_543_714_304, "7B": 7_615_616_512}
_QWEN3 = {"0.6B": 596_049_920, "8B": 8_190_735_360}
_FETCHED = Preset(name="smollm2", kind="fetched", base="smollm2-135m-instruct", aligned=None, stated=_SMOLLM2["135M"])

PRESETS: tuple[Preset, ...] = (
    Preset(name="embedded", kind="embedded", base="base", aligned="aligned", stated=None, licence="MIT",
           ships={"completed": "embedded/completed"}),
    _FETCHED,
    replace(_FETCHED, name="smollm2-safe", adapter="smollm2_safe/adapter"),
    Preset(name="gemma-3-270m", kind="fetched", base="gemma-3-270m", aligned=None, stated=268_098_176,
           licence="Gemma Terms of Use", note="4-bit, dequantised"),
    *_family("smollm2", "HuggingFaceTB/SmolLM2-{}", "HuggingFaceTB/SmolLM2-{}-Instruct", _SMOLLM2),
    *_family("qwen2.5", "Qwen/Qwen2.5-{}", "Qwen/Qwen2.5-{}-Instruct", _QWEN25),
    *_family("qwen3", "Qwen/Qwen3-{}-Base", "Qwen/Qwen3-{}", _QWEN3, thinking=True),
    *_family("llama-2", "meta-llama/Llama-2-{}-hf", "meta-llama/Llama-2-{}-chat-hf", {"7b": 6_738_415_616},
             licence="Llama 2 Community", gated=True),
    *_family("llama-3.1", "meta-llama/Llama-3.1-{}", "meta-llama/Llama-3.1-{}-Instruct", {"8B": 8_030_261_248},
             licence="Llama 3.1 Community", gated=True),
    *_family("llama-3.2", "meta-llama/Llama-3.2-{}", "meta-llama/Llama-3.2-{}-Instruct", {"1B": 1_235_814_400},
             licence="Llama 3.2 Community", gated=True),
    *_family("gemma-3", "google/gemma-3-{}-pt", "google/gemma-3-{}-it", {"1b": 999_885_952},
             licence="Gemma Terms of Use", gated=True),
    *_family("olmo-2", "allenai/OLMo-2-0425-{}", "allenai/OLMo-2-0425-{}-Instruct", {"1B": 1_484_916_736}),
)  # fmt: skip

PRESET_NAMES: tuple[str, ...] = tuple(p.name for p in PRESETS)


def preset(name: str) -> Preset:
    """Return the preset of that name. Raises UnknownName, which names the nearest one."""
    for known in PRESETS:
        if known.name == name:
            return known
    raise UnknownName(f"there is no pair {name!r}: {nearest(name, PRESET_NAMES)} (`workbench pairs` lists them)")


def local_folder(name: str, kind: Kind) -> Path:
    """Return the folder of a model of an embedded or fetched preset."""
    if kind == "embedded":
        return Path(__file__).resolve().parent / "embedded" / name
    return cache_folder() / "models" / name


def adapter_folder(row: Preset, named: str | None = None) -> Path | None:
    """Return the folder of a preset's own adapter, or of the one that ships with it by this name; None: no such one."""
    inside = row.adapter if named is None else row.ships.get(named)
    return None if inside is None else Path(__file__).resolve().parent / inside


def safetensors_header(path: Path) -> dict[str, dict[str, object]]:
    """Read the tensors' names, shapes and dtypes of a safetensors file; raise ValueError where it is damaged."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= min(100_000_000, path.stat().st_size - 8):
            raise ValueError(f"{str(path)!r} is not a complete safetensors file")
        header: dict[str, dict[str, object]] = json.loads(file.read(size))
    header.pop("__metadata__", None)
    promised = 8 + size + max((v["data_offsets"][1] for v in header.values()), default=0)  # type: ignore[index]
    if path.stat().st_size != promised:
        raise ValueError(f"{str(path)!r} has {path.stat().st_size:,} bytes, its header promises {promised:,}")
    return header


def parameters_in(path: Path) -> int:
    """Count the numbers in a safetensors file from its header."""
    return sum(math.prod(v["shape"]) for v in safetensors_header(path).values())  # type: ignore[call-overload]


def weight_names(folder: Path) -> list[str]:
    """List the weight files of a model's folder by its index; without one, `model.safetensors`."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return ["model.safetensors"]
    return sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))


def _weights_complete(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    try:
        for name in weight_names(folder):
            safetensors_header(folder / name)
    except (OSError, ValueError, KeyError):
        return False
    return True


def _in_hub_cache(repo: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repo, "config.json")
    return isinstance(config, str) and _weights_complete(Path(config).parent)
