"""Training with two processes of this machine: the same curve, the same adapter, and what goes wrong is said."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.errors import refuses
from workbench.core.errors import NonFiniteLoss, ParameterError, ProcessFailed
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.prompts.loading import PromptConfig, load_prompts
from workbench.training.config import ARMS, TrainConfig, WatchSettings
from workbench.training.data import TrainingDataConfig, training_texts
from workbench.training.distil import distil
from workbench.training.launch import Job
from workbench.training.records import Adapter
from workbench.training.rows import TrainingTexts
from workbench.training.student import ADAPTER_WEIGHTS


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return load_pair(PairConfig(preset="embedded"))


@pytest.fixture(scope="module")
def texts(pair: ModelPair) -> TrainingTexts:
    prompts = load_prompts(PromptConfig(source="embedded", split="train", limit=12))
    return training_texts(pair, prompts, TrainingDataConfig(refusals=2, max_tokens=48))


def config(arm: str = "augmentation", **settings: Any) -> TrainConfig:
    watch = WatchSettings(film_every=3, checkpoint_every=2, preflight=False)
    chosen = ARMS[arm]
    if arm == "recovery":  # clipped, so that its level has to be agreed upon
        chosen = replace(chosen, loss=replace(chosen.loss, clip_percentile=60.0))
    return TrainConfig(**{"arm": chosen, "steps": 6, "batch_size": 4, "watch": watch, **settings})


def assert_alike(alone: Adapter, together: Adapter) -> None:
    """Compare the curves in nats; Adam makes full-sized steps of gradients near 0, so single weights differ more."""
    for one, other in zip(alone.history, together.history, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-4, abs=3e-5)
        assert (other.parts, other.positions) == (pytest.approx(one.parts, rel=1e-4, abs=3e-5), one.positions)
        assert other.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-2, abs=5e-5)
    torch.testing.assert_close(
        torch.tensor(alone.film.retention), torch.tensor(together.film.retention), rtol=1e-2, atol=1e-3, equal_nan=True
    )
    first, second = (load_file(Path(a.path) / ADAPTER_WEIGHTS) for a in (alone, together))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0.05, atol=3e-3)


@pytest.mark.timeout(600)
def test_two_processes_train_what_one_does(pair: ModelPair, texts: TrainingTexts, tmp_path: Path) -> None:
    alone = distil(pair, texts, config(), out=tmp_path / "alone")
    together = distil(pair, texts, config(processes=2), out=tmp_path / "together")
    assert_alike(alone, together)
    assert not (tmp_path / "together.training").exists()
    assert distil(pair, texts, config(processes=2), out=tmp_path / "alone") == alone, "how many is not what is trained"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_shared_out_weights_train_the_same(pair: ModelPair, texts: TrainingTexts, tmp_path: Path) -> None:
    watch = WatchSettings(film_every=3, checkpoint_every=2, preflight=True)
    alone = distil(pair, texts, config(watch=watch), out=tmp_path / "alone")
    sharded = distil(pair, texts, config(processes=2, experimental_sharded=True, watch=watch), out=tmp_path / "sharded")
    assert_alike(alone, sharded)
    assert sharded.preflight.flip_rate == alone.preflight.flip_rate


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("arm", ["paper_tuned", "recovery"])
def test_other_losses_and_small_passes_too(arm: str, pair: ModelPair, texts: TrainingTexts, tmp_path: Path) -> None:
    alone = distil(pair, texts, config(arm), out=tmp_path / "alone")
    together = distil(pair, texts, config(arm, processes=2, micro_batch=1), out=tmp_path / "together")
    assert_alike(alone, together)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_dead_process_ends_all_and_the_rest_is_gone_on_with(pair, texts, tmp_path, monkeypatch) -> None:
    long = config(processes=2, steps=8)
    monkeypatch.setenv("WORKBENCH_TEST_DIE_AT", "5")
    killed = tmp_path / "sitecustomize.py"
    killed.write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1' and os.environ.get('WORKBENCH_TEST_DIE_AT'):\n"
        "    import threading, time\n"
        "    from pathlib import Path\n"
        "    def watch():\n"
        f"        while not Path({str(tmp_path / 'out.training' / 'checkpoint-4')!r}).exists():\n"
        "            time.sleep(0.02)\n"
        "        os.kill(os.getpid(), 9)\n"
        "    threading.Thread(target=watch, daemon=True).start()\n",
        "utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    refuses(lambda: distil(pair, texts, long, out=tmp_path / "out"), ProcessFailed)
    assert (tmp_path / "out.training" / "checkpoint-4").is_dir()
    monkeypatch.delenv("WORKBENCH_TEST_DIE_AT")
    again = distil(pair, texts, long, out=tmp_path / "out")
    assert_alike(distil(pair, texts, config(steps=8), out=tmp_path / "alone"), again)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_the_repositorys_accelerate_files_launch_the_same_training(kind, pair, texts, tmp_path, root) -> None:
    alone = distil(pair, texts, config(), out=tmp_path / "alone")
    how = config(processes=2, experimental_sharded=kind == "fsdp")
    job = Job(
        pair=PairConfig(preset="embedded", device="cpu"), texts=texts, config=how, out=str(tmp_path / kind),
        store=None, start=None,
    )  # fmt: skip
    job.save(tmp_path / "job.json")
    words = ["--config_file", str(root / "configs" / "accelerate" / f"{kind}.yaml"), "--main_process_port", "0"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *words, "-m", "workbench.training.worker"]
    done = subprocess.run([*command, str(tmp_path / "job.json")], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_alike(alone, distil(pair, texts, how, out=tmp_path / kind))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_notebook_leaves_no_training_process(texts: TrainingTexts, tmp_path: Path) -> None:
    Job(
        pair=PairConfig(preset="embedded"), texts=texts, config=config(processes=2, steps=200),
        out=str(tmp_path / "out"), store=None, start=None,
    ).save(tmp_path / "job.json")  # fmt: skip
    script = (
        "import sys; from pathlib import Path; from workbench.models.pair import load_pair;"
        "from workbench.training.launch import Job; from workbench.training.distil import distil;"
        "job = Job.load(Path(sys.argv[1])); distil(load_pair(job.pair), job.texts, job.config, out=job.out)"
    )
    notebook = subprocess.Popen((sys.executable, "-c", script, str(tmp_path / "job.json")))

    def training() -> list[int]:
        return [
            p.pid
            for p in psutil.process_iter(["cmdline"])
            if str(tmp_path / "out.training") in " ".join(p.info["cmdline"] or ())
        ]

    while not list(tmp_path.glob("out.training/checkpoint-*")):
        assert notebook.poll() is None
        time.sleep(0.2)
    assert len(training()) >= 2
    notebook.kill()
    notebook.wait()
    end = time.monotonic() + 60
    while training() and time.monotonic() < end:
        time.sleep(0.5)
    assert training() == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_error_of_a_process_comes_back_as_it_was(pair: ModelPair, texts: TrainingTexts, tmp_path: Path) -> None:
    arm = ARMS["refusal_sft"]
    wild = replace(arm, optimiser=replace(arm.optimiser, learning_rate=1e30, warmup_share=0.0))
    refuses(lambda: distil(pair, texts, replace(config(processes=2), arm=wild), out=tmp_path / "wild"), NonFiniteLoss)


def test_what_cannot_work_is_refused_first(pair, texts, tmp_path, monkeypatch) -> None:
    refuses(lambda: config(processes=3), ParameterError, "processes is 3", "batch_size", "4")
    refuses(lambda: config(processes=2, micro_batch=4), ParameterError, "micro_batch", "4")
    refuses(lambda: config(processes=0), ParameterError, "processes is 0")
    in_memory = dataclasses.replace(pair, config=None)
    refuses(lambda: distil(in_memory, texts, config(processes=2), out=tmp_path / "x"), ParameterError, "memory")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    refuses(lambda: distil(pair, texts, config(), out=tmp_path / "x"), ParameterError, "FSDP")
    monkeypatch.setenv("WORLD_SIZE", "2")
    refuses(lambda: distil(pair, texts, config(), out=tmp_path / "y"), ParameterError, "processes is 1", "2")


@pytest.mark.parametrize("arm", list(ARMS))
def test_a_job_comes_back_as_it_was(arm: str, texts: TrainingTexts, tmp_path: Path) -> None:
    how = config(arm, processes=2)
    job = Job(
        pair=PairConfig(preset="embedded"), texts=texts, config=how, out="out", store=None, start="somewhere"
    )  # fmt: skip
    job.save(tmp_path / "job.json")
    assert Job.load(tmp_path / "job.json") == job
