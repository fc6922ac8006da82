"""Sources of models (a folder, a hub repository, a GGUF file): their location, description, memory and weights.

Every source becomes a folder on this machine first. Weights are read from safetensors (or a GGUF file, dequantised),
never from a pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from workbench.core.errors import NotPresent, PairError, ParameterError, nearest
from workbench.core.files import atomic_file, cache_folder, sha256_of
from workbench.models.presets import parameters_in, weight_names
from workbench.models.whole import check_whole

_DESCRIPTION_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
_ADAPTER = "adapter_config.json"
_HUB_ID = re.compile(r"^[\w-][\w.-]*(/[\w.-]+)?$")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_PLAIN_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
PROBES = (
    "The quick brown fox, 12345 times: isn't it?",
    "  two spaces\n\n\ttab and line\r\n",
    "def f(x):\n    return x ** 2  # naïve café",
    "日本語 русский العربية 😀",
    "Since 2024 I can't, 1234567 of THEM'LL\u00a0go.",
)
"""Texts on which tokenizers and models are compared: digits, contractions, white space, code, several scripts."""
_HASH_AT_ONCE = 64 * 1024 * 1024
_USABLE = 0.9
"""Share of the free memory that weights may take: the rest is for activations."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The place of one model. `revision` is the commit of a hub repository, None for a local file or folder."""

    asked: str
    folder: Path
    gguf: str | None = None
    revision: str | None = None

    @property
    def place(self) -> tuple[Path, str | None, str | None]:
        """Return what two sources of the same model have in common."""
        return self.folder.resolve(), self.gguf, self.revision

    def __str__(self) -> str:
        return f"{self.asked} at {self.revision[:12]}" if self.revision else self.asked


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the progress bars and advice of transformers and peft."""
    from transformers import modeling_gguf_pytorch_utils  # its bar has no switch
    from transformers.utils import logging as library

    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(logging.ERROR)
    library.disable_progress_bar()
    gguf_bar, modeling_gguf_pytorch_utils.tqdm = modeling_gguf_pytorch_utils.tqdm, lambda items, **_: items
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"peft\.")  # what matters of it is checked, and then an error
            # peft 0.21 asks transformers 5 for a property under its old name
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = gguf_bar
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()


# ------------------------------------------------------------------------------------------------ locating


def locate(asked: str, revision: str | None = None, *, remote_code: bool = False, adapter: bool = False) -> Source:
    """Find a model's (or adapter's) description on this machine, or download it (without weights) from the hub.

    Raises NotPresent where there is neither a folder nor a reachable hub repository of that name, ParameterError for a
    revision of a local folder.
    """
    path = Path(asked).expanduser()
    if path.exists():
        if revision is not None:
            raise ParameterError(f"{asked!r} is a local path and has no revision {revision!r}: leave the revision out")
        return _local(asked, path, adapter)
    if asked.endswith(".gguf") and asked.count("/") >= 2 and not asked.startswith(("/", ".", "~")):
        return _hub_gguf(asked, revision)
    if not _HUB_ID.match(asked) or asked.endswith(".gguf"):
        looked = str(path.absolute().parent)
        raise NotPresent(f"there is no {asked!r} on this machine (looked in {looked!r}): check the path")
    patterns = (*_DESCRIPTION_FILES, *(("*.py",) if remote_code else ()))
    folder = _snapshot(asked, revision, patterns)
    _check_kind(asked, folder, adapter)
    return Source(asked=asked, folder=folder, revision=folder.name)


def _local(asked: str, path: Path, adapter: bool) -> Source:
    description = _ADAPTER if adapter else "config.json"
    if path.is_file():
        if path.suffix != ".gguf":
            raise NotPresent(f"{asked!r} is a file: give a folder with a {description}, or a .gguf file")
        return Source(asked=asked, folder=path.parent, gguf=path.name)
    _check_kind(asked, path, adapter)
    if (path / description).is_file():
        return Source(asked=asked, folder=path)
    files = sorted(p.name for p in path.glob("*.gguf"))
    if len(files) == 1 and not adapter:
        return Source(asked=asked, folder=path, gguf=files[0])
    inside = sorted((p.parent.name for p in path.glob(f"*/{description}")), key=lambda n: (len(n), n))
    advice = f"give the folder of {'an adapter' if adapter else 'a model'}"
    if inside:  # a trainer's folder of checkpoints
        advice = f"give one of the folders inside it ({', '.join(inside)})"
    elif files:
        advice = f"name one of its GGUF files ({', '.join(files)})"
    raise NotPresent(f"the folder {asked!r} has no {description}: {advice}")


def _check_kind(asked: str, folder: Path, adapter: bool) -> None:
    """Refuse an adapter where a model is asked for, and the other way round."""
    is_model, is_adapter = (folder / "config.json").is_file(), (folder / _ADAPTER).is_file()
    if not adapter and is_adapter:  # transformers would load the adapter's own base model under it
        both = "both a model and an adapter: remove one" if is_model else "an adapter, not a model: give it"
        how = f"({_ADAPTER})" if is_model else "as the parameter adapter, and its base model as base"
        raise PairError(f"{asked!r} holds {both} {how}")
    if adapter and is_model and not is_adapter:
        raise PairError(f"{asked!r} holds a model, not an adapter: give it as the parameter aligned or base")


def _hub_gguf(asked: str, revision: str | None) -> Source:
    from huggingface_hub import hf_hub_download

    owner, name, file = asked.split("/", 2)
    with _hub_errors(asked):
        path = Path(hf_hub_download(f"{owner}/{name}", file, revision=revision))
    commit = next(c.name for p, c in zip(path.parents[1:], path.parents, strict=False) if p.name == "snapshots")
    return Source(asked=asked, folder=path.parent, gguf=path.name, revision=commit)


def _snapshot(repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    ignored = ["*/*", "consolidated*"]
    with _hub_errors(repo):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns), ignore_patterns=ignored))


@contextlib.contextmanager
def _hub_errors(asked: str) -> Iterator[None]:
    from huggingface_hub.errors import GatedRepoError, HFValidationError

    try:
        yield
    except GatedRepoError:
        raise NotPresent(
            f"{asked!r} is gated: accept its licence on its page on the hub, run `hf auth login`, and try again"
        ) from None
    except (OSError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NotPresent(
            f"{asked!r} is neither a folder on this machine nor available on the hub ({reason}): check the name and "
            "the network, give a local folder, or use the pair 'embedded' or 'smollm2'"
        ) from None


def with_weights(source: Source, *, adapter: bool = False) -> Source:
    """Return the source with its weights on this machine, downloading safetensors from the hub where needed.

    Raises PairError where all weights are pickles, NotPresent where there are none.
    """
    if source.revision is not None and source.gguf is None:
        described = ("*.json",) if adapter else _DESCRIPTION_FILES
        _snapshot(source.asked, source.revision, (*described, "*.safetensors"))
    if not adapter:
        weight_files(source)
    return source


def weight_files(source: Source) -> tuple[Path, ...]:
    """Return a model's weight files. Raises PairError for pickles, NotPresent where there are none."""
    if source.gguf is not None:
        return (source.folder / source.gguf,)
    names = weight_names(source.folder)
    missing = [name for name in names if not (source.folder / name).is_file()]
    if not missing:
        return tuple(source.folder / name for name in names)
    pickles = [p.name for p in (*source.folder.glob("*.bin"), *source.folder.glob("*.pt*")) if p.is_file()]
    if pickles:
        raise PairError(
            f"{source} has its weights as a pickle ({pickles[0]}), which can run code when it is opened: convert them "
            f"to safetensors ({missing[0]}) first"
        )
    raise NotPresent(f"{source} has no weights: put {missing[0]!r} into {str(source.folder)!r}")


# ---------------------------------------------------------------------------------------- description, weights


def load_config(source: Source, *, remote_code: bool = False) -> PretrainedConfig:
    """Return a model's config. Raises PairError where transformers does not know its kind."""
    from transformers import AutoConfig

    with quiet_libraries(), _load_errors(source, "config"):
        config: PretrainedConfig = AutoConfig.from_pretrained(
            source.folder, gguf_file=source.gguf, trust_remote_code=remote_code, local_files_only=True
        )
    return config


def load_tokenizer(source: Source, *, remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Return a model's own tokenizer, as `read_tokenizer` does."""
    return read_tokenizer(source, remote_code=remote_code)[0]


def read_tokenizer(source: Source, *, remote_code: bool = False) -> tuple[PreTrainedTokenizerBase, str | None]:
    """Return a model's own tokenizer, and a note where its class gives other ids than its tokenizer.json.

    The ids are then those of tokenizer.json, which the model was trained with: since transformers 5, many classes put
    their own splitting in its place. Raises PairError where there is no tokenizer or it cannot be read.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    file = source.folder / "tokenizer.json"
    with quiet_libraries(), _load_errors(source, "tokenizer"):
        if source.gguf is None and _is_plain_tokenizer(source.folder):
            return PreTrainedTokenizerFast.from_pretrained(source.folder), None
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source.folder, gguf_file=source.gguf, trust_remote_code=remote_code, local_files_only=True
        )
        if source.gguf is not None or not file.is_file():
            return tokenizer, None
        raw = Tokenizer.from_file(str(file))
        wanted = [raw.encode(text, add_special_tokens=False).ids for text in PROBES]

        def unlike(one: PreTrainedTokenizerBase) -> str | None:
            found = ((t, one(t, add_special_tokens=False)["input_ids"]) for t in PROBES)
            return next((t for (t, ids), want in zip(found, wanted, strict=True) if list(ids) != want), None)

        if (text := unlike(tokenizer)) is None:
            return tokenizer, None
        kind, plain = type(tokenizer).__name__, PreTrainedTokenizerFast.from_pretrained(source.folder)
    if unlike(plain) is not None:
        raise PairError(
            f"the tokenizer of {source} gives other ids for {text!r} as {kind} than its tokenizer.json says: correct "
            "tokenizer_class in its tokenizer_config.json"
        )
    return (
        plain,
        f"The tokenizer's class, {kind}, gives other ids than its tokenizer.json (for {text!r}), which is used.",
    )


def tokenizer_key(source: Source) -> str:
    """Hash all files that a model's tokenizer is made of: two models with one key have one tokenizer."""
    if source.gguf is not None:
        return str(source.place)
    names = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.jinja", "*.model")
    files = sorted({f for name in names for f in source.folder.glob(name) if f.is_file()})
    config = source.folder / "config.json"
    kind = json.loads(config.read_text("utf-8")).get("model_type") if config.is_file() else None
    return repr((kind, [(f.name, content_hash(f)) for f in files]))


def _is_plain_tokenizer(folder: Path) -> bool:
    settings = folder / "tokenizer_config.json"
    if not (settings.is_file() and (folder / "tokenizer.json").is_file()):
        return False
    return json.loads(settings.read_text("utf-8")).get("tokenizer_class") in _PLAIN_TOKENIZERS


def load_weights(
    source: Source,
    dtype: torch.dtype,
    *,
    remote_code: bool = False,
    placement: dict[str, Any] | None = None,
    classifier: bool = False,
) -> PreTrainedModel:
    """Return a causal language model (or a sequence classifier) in eval mode with frozen weights.

    `placement` are the loading arguments of `place`. Raises PairError where the files do not fit the config, or hold
    more or fewer tensors than the model.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    with quiet_libraries(), _load_errors(source, "weights"):
        model: PreTrainedModel
        model, found = kind.from_pretrained(
            source.folder,
            gguf_file=source.gguf,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check_whole` names the tensor, transformers a report that is not shown
            dtype=dtype,
            use_safetensors=None if source.gguf else True,
            trust_remote_code=remote_code,
            local_files_only=True,
            **(placement or {}),
        )
    check_whole(source, model, found)
    if source.gguf is not None:  # dequantised: its weights are ordinary tensors, and it can be saved
        model.hf_quantizer = None
        model.is_quantized = False
        for holder, name in ((model, "quantization_method"), (model.config, "quantization_config")):
            if hasattr(holder, name):
                delattr(holder, name)
    return model.eval().requires_grad_(False)


@contextlib.contextmanager
def _load_errors(source: Source, what: str) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        text = str(error)
        if "trust_remote_code" in text:
            raise PairError(
                f"{source} needs its own code to run: set trust_remote_code=True only if you trust its authors"
            ) from None
        if "Unrecognized configuration class" in text:  # LLaVA and its like
            kind = load_config(source).model_type
            raise PairError(
                f"{source} is a {kind!r} model, and transformers has no causal language model of that kind: give a "
                "model that continues text"
            ) from None
        reason = " ".join(text.split())[:300] or type(error).__name__
        raise PairError(f"could not read the {what} of {source}: {reason}") from None


# ------------------------------------------------------------------------------------------- device and memory


def choose_device(asked: str) -> torch.device:
    """Return the device of "auto", "cpu", "cuda", "cuda:1" or "mps"; raise ParameterError where there is none."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        near = nearest(asked, ("auto", "cpu", "cuda", "mps"))
        raise ParameterError(f"there is no device {asked!r}: {near}") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False) or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ParameterError(f"device {asked!r} is not on this machine: use auto (here {choose_device('auto')})")
    return device


def choose_dtype(asked: str, device: torch.device) -> torch.dtype:
    """Return the dtype of "auto", "float32", "bfloat16" or "float16" that the device computes in.

    auto: float32 on a CPU; on a GPU bfloat16 where it is supported, else float16. Raises ParameterError for others.
    """
    half_ok = device.type != "cuda" or torch.cuda.is_bf16_supported()
    if asked == "auto":
        return torch.float32 if device.type != "cuda" else torch.bfloat16 if half_ok else torch.float16
    if asked not in DTYPES:
        raise ParameterError(f"there is no dtype {asked!r}: {nearest(asked, ('auto', *DTYPES))}")
    dtype = DTYPES[asked]
    try:
        if dtype == torch.bfloat16 and not half_ok:
            raise RuntimeError("the GPU is older than bfloat16")
        torch.ones(2, 2, dtype=dtype, device=device) @ torch.ones(2, 2, dtype=dtype, device=device)
    except (RuntimeError, TypeError) as error:
        raise ParameterError(f"{asked} does not work on {device} ({error}): use float32, or dtype='auto'") from None
    return dtype


def parameter_count(source: Source) -> int:
    """Count a model's stored parameters from the headers of its files. Raises PairError for a damaged file."""
    if source.gguf is not None:
        from gguf import GGUFReader

        with _load_errors(source, "weights"):
            return sum(int(t.n_elements) for t in GGUFReader(source.folder / source.gguf).tensors)
    try:
        return sum(parameters_in(file) for file in weight_files(source))
    except ValueError as error:
        raise PairError(f"{source}: {error}; copy or download it again") from None


def context_length(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the longest context of a model, in tokens."""
    stated = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(stated or min(tokenizer.model_max_length, 1 << 20))


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes of a device (within a container's limit), None where unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(stat.get("inactive_file", 0))
        return max(0, min(free, limit - used))
    except (OSError, ValueError):
        return free


def place(needs: Sequence[int], device: torch.device) -> tuple[tuple[dict[str, Any], ...], str]:
    """Return loading arguments for models of these sizes (bytes), and the decision in a sentence.

    They go to the device one after the other where they fit; otherwise each gets its share and the rest is offloaded
    (from a GPU to memory, from memory to disk), which is slow.
    """
    free, need = free_memory(device), sum(needs)
    whole: dict[str, Any] = {"device_map": {"": device}} if device.type != "cpu" else {}
    said = f"weights need {_size(need)} on {device}"
    if free is None:
        return (whole,) * len(needs), f"{said}; the free memory is unknown"
    said += f", {_size(free)} are free"
    if need <= _USABLE * free:
        return (whole,) * len(needs), said
    room: dict[int | str, int] = {device.index or 0: free} if device.type == "cuda" else {}
    return shares(needs, room), f"{said}: what does not fit is offloaded, which is slow"


def shares(needs: Sequence[int], free: Mapping[int | str, int]) -> tuple[dict[str, Any], ...]:
    """Return loading arguments that give each model its share of the free memory of GPUs, this machine and disk."""
    free = {**free, "cpu": free_memory(torch.device("cpu")) or 0}
    return tuple(
        {
            "device_map": "auto",
            "max_memory": {place: int(0.8 * room * own / max(sum(needs), 1)) for place, room in free.items()},
            "offload_folder": str(offload_folder(i)),
        }
        for i, own in enumerate(needs)
    )


def offload_folder(i: int) -> Path:
    """Return where the i-th model's weights go that have no room in memory."""
    return cache_folder() / "offload" / f"{os.getpid()}-{i}"


def fits(needs: Sequence[int], device: torch.device) -> bool:
    """Tell whether weights of these sizes fit on a device; True where its free memory is unknown."""
    free = free_memory(device)
    return free is None or sum(needs) <= _USABLE * free


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


# ------------------------------------------------------------------------------------------------- identity


def identity(source: Source) -> str:
    """Return a model's identity: repository and commit on the hub, else a hash of config and weights."""
    if source.revision is not None:
        name = source.asked if source.gguf is None else f"{source.asked}#{source.gguf}"
        return f"hub:{name}@{source.revision}"
    digest = hashlib.sha256()
    config = source.folder / "config.json"
    for file in (*((config,) if source.gguf is None and config.is_file() else ()), *weight_files(source)):
        digest.update(f"{file.name}:{content_hash(file)}\n".encode())
    return f"content:{digest.hexdigest()}"


def content_hash(path: Path) -> str:
    """Return the sha256 of a file; that of a large file is cached by path, size and time of change."""
    about = path.stat()
    if about.st_size < _HASH_AT_ONCE:
        return sha256_of(path)
    name = hashlib.sha256(f"{path.resolve()}|{about.st_size}|{about.st_mtime_ns}".encode()).hexdigest()[:32]
    remembered = cache_folder() / "hashes" / name
    with contextlib.suppress(OSError):
        if re.fullmatch("[0-9a-f]{64}", found := remembered.read_text().strip()):
            return found
    found = sha256_of(path)
    with contextlib.suppress(OSError), atomic_file(remembered) as partial:
        partial.write_text(found)
    return found
