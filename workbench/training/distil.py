"""`distil`: train an adapter on judged texts, and write it into a folder; called again after a kill, it resumes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from workbench.core.configs import takes_fields
from workbench.core.errors import ParameterError
from workbench.core.files import atomic_file, atomic_folder, cache_folder
from workbench.core.progress import Progress
from workbench.core.provenance import Stopwatch
from workbench.core.records import save
from workbench.core.store import Store, key_of
from workbench.models.pair import ModelPair
from workbench.models.sources import quiet_libraries
from workbench.training import group
from workbench.training.adapter import RECORD, load_adapter, weights_hash
from workbench.training.card import CARD, card_text, place
from workbench.training.config import TrainConfig
from workbench.training.film import Camera, scenes_of
from workbench.training.launch import train_together
from workbench.training.loop import Loop
from workbench.training.objective import Heads
from workbench.training.preflight import look_before
from workbench.training.records import Adapter, Preflight
from workbench.training.references import References, measured_retention
from workbench.training.rows import Sampler, TrainingTexts, prepared
from workbench.training.step import StepLoss, matching_scale
from workbench.training.student import student_of

KEY = "training.json"
"""The file with the key of the training that a folder belongs to."""


@takes_fields(TrainConfig)
def distil(
    pair: ModelPair,
    texts: TrainingTexts,
    config: TrainConfig,
    *,
    out: str | Path | None = None,
    store: Store | None = None,
    what: str | None = None,
    start: str | Path | None = None,
) -> Adapter:
    """Train one arm and write its adapter into the folder `out`: PEFT's files, a model card, and this record.

    Without `out` the folder is in the user's cache, named by the training's key; `export` copies it elsewhere. The last
    checkpoints are in `<out>.training`: after a kill or an interrupt the same call resumes from the newest one and ends
    with the same adapter. Where `out` holds the finished adapter of the same call, `distil` returns that. `store` keeps
    what the frozen pair computes. `start` is the folder of an adapter, shaped as the arm's, that the student begins
    with in place of aligned (a fine-tuned model to pull back, say); references stay those of the pair.

    Raises PromptError where the arm is left without rows, ParameterError where the pre-flight finds that the training
    cannot work, or the folder belongs to another training, NonFiniteLoss naming step and rows, PairError where no
    adapter of these settings fits, StorageFull where the disk is full; checkpoints stay.
    """
    arm = config.chosen
    given = texts
    scenes = scenes_of(given, pair.context_length)
    if config.watch.kl_budget_nats is not None and not any(s.label == "harmless" for s in scenes):
        raise ParameterError(
            f"kl_budget_nats is {config.watch.kl_budget_nats:g}, but there is no harmless text to measure: give "
            "utility or harmless texts, or set kl_budget_nats to None"
        )
    config = dataclasses.replace(config, max_tokens=min(config.max_tokens, pair.context_length))
    texts = prepared(texts, config)
    if arm.retention == "measured":
        arm = dataclasses.replace(arm, retention=measured_retention(pair, texts.harmful, store=store))
        config = dataclasses.replace(config, arm=arm)
    key = training_key(pair, texts, config, start)
    out = Path(out) if out is not None else cache_folder() / "trainings" / f"{arm.name}-{key[:12]}"
    if (out / RECORD).is_dir():
        return _finished(out, key)
    work = out.with_name(out.name + ".training")
    _claim(work, key)
    label = f"training {arm.name}" if what is None else what
    if config.processes > 1 and group.size() == 1:
        train_together(pair, given, config, out=out, work=work, store=store, start=start, what=label)
        shutil.rmtree(work, ignore_errors=True)
        return _finished(out, key)
    _check_group(config)
    watch, notes = Stopwatch("distil", dataclasses.asdict(config)), list(texts.notes)
    resolved: dict[str, Any] = {"pair": pair.name, "template_mode": pair.template_mode}
    if start is not None:
        resolved |= {"start": place(str(start)), "start_sha256": weights_hash(start)}
    gpus = list(range(torch.cuda.device_count()))
    draws, products = torch.random.fork_rng(devices=gpus), _products(config)
    made_of = student_of(pair, arm.lora, config.seed)
    with draws, products, made_of as student, student.checkpointed(config.checkpointing):
        if start is not None:
            student.begin_at(Path(start))
        if config.experimental_sharded:
            group.share_out(pair, student, config)
        heads = Heads.of(pair, student.peft)
        references = References(pair, texts, config, store, keep_all=config.experimental_sharded)
        loss, sampler = StepLoss(heads, references, config, pair.device), Sampler(texts, config)
        if arm.match_arm is not None:
            loss.complete_scale = matching_scale(student, loss, sampler, config)
            scale = (
                f"{loss.complete_scale:.4g}, so that its first gradient is as long as that of the {arm.match_arm!r} set"
            )
            notes.append(f"L_completion is multiplied by {scale}.")
        flight: Preflight | None = None
        if config.watch.preflight:
            flight = look_before(pair, student, heads, texts, loss, sampler, config, scenes, begun=start is not None)
        films = config.watch.film_every and (group.is_first() or config.experimental_sharded)
        camera = Camera(pair, student, heads, scenes) if films else None
        loop = Loop(pair, student, loss, sampler, config, camera)
        with Progress(label if group.is_first() else None, config.steps, "steps") as progress, quiet_libraries():
            for sentence in flight.sentences if flight else ():
                progress.note(sentence)
            loop.run(work, progress)
        resolved["student_copied"] = student.copied
        device, fingerprint = str(pair.device), pair.fingerprint
        made = Adapter(
            run=watch.record(resolved=resolved, seed=config.seed, device=device, fingerprint=fingerprint),
            path=str(out),
            arm=arm.name,
            settings=dataclasses.asdict(config),
            fingerprint=fingerprint,
            history=tuple(loop.history),
            film=camera.film() if camera is not None else None,
            preflight=flight,
            stopped=loop.stopped,
            notes=tuple(notes),
        )
        if group.is_first():
            with atomic_folder(out) as partial:
                student.save(partial)
                (partial / CARD).write_text(card_text(made, pair, texts), "utf-8")
                (partial / KEY).write_text(json.dumps({"key": key}), "utf-8")
                save(made, partial / RECORD)
        group.wait()
    if group.size() == 1:
        shutil.rmtree(work, ignore_errors=True)
    return made


def training_key(pair: ModelPair, texts: TrainingTexts, config: TrainConfig, start: str | Path | None = None) -> str:
    """Return the hash of everything that the adapter depends on; settings that only watch are excluded."""
    unlike = ("watch", "chunk_rows", "checkpointing", "processes", "experimental_sharded")
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in unlike}
    settings["kl_budget_nats"] = config.watch.kl_budget_nats
    settings["film_every"] = config.watch.film_every if config.watch.kl_budget_nats is not None else None
    kinds = {k: [dataclasses.astuple(t) for t in getattr(texts, k)] for k in ("harmful", "utility", "harmless")}
    begun = () if start is None else (weights_hash(start),)
    return key_of("training 4", pair.fingerprint, pair.template_date, settings, kinds, *begun)


@contextlib.contextmanager
def _products(config: TrainConfig) -> Iterator[None]:
    """Let float32 products be TF32 for the block where the config allows it."""
    former = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if config.tf32 else former)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(former)


def _check_group(config: TrainConfig) -> None:
    if group.size() != config.processes:
        raise ParameterError(
            f"processes is {config.processes}, but the launcher started {group.size()}: give both the same number"
        )
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true"):
        raise ParameterError(
            "the launcher turns on FSDP, which would cut weights that base, aligned, student and heads share: launch "
            "workbench.training.worker (configs/accelerate/fsdp.yaml), or set TrainConfig.experimental_sharded"
        )


def _finished(out: Path, key: str) -> Adapter:
    if _key_in(out) != key:
        raise ParameterError(
            f"{str(out)!r} holds the adapter of another training (other data, pair or settings): name another folder, "
            "or remove that one"
        )
    return load_adapter(out)


def _claim(work: Path, key: str) -> None:
    """Mark the folder of checkpoints as this training's."""
    found = _key_in(work)
    if found is None:
        with atomic_file(work / KEY) as partial:
            partial.write_text(json.dumps({"key": key}), "utf-8")
    elif found != key:
        raise ParameterError(
            f"{str(work)!r} holds checkpoints of another training (other data, pair or settings): remove the "
            "folder to start again, or call with the settings of the first run"
        )


def _key_in(folder: Path) -> str | None:
    file = folder / KEY
    return str(json.loads(file.read_text("utf-8"))["key"]) if file.is_file() else None
