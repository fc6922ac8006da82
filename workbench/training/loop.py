"""The verb: judged texts and a config in, a trained adapter in a folder out; killed and called again it goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.core.configs import takes_fields
from workbench.core.errors import NotPresent, ParameterError, RecordError
from workbench.core.files import atomic_file, atomic_folder, cache_folder
from workbench.core.progress import Progress
from workbench.core.provenance import Stopwatch
from workbench.core.records import load, save
from workbench.core.store import Store, key_of
from workbench.models.pair import ModelPair
from workbench.models.sources import quiet_libraries
from workbench.training import group
from workbench.training.card import CARD, place, with_results, write_card
from workbench.training.config import TrainConfig
from workbench.training.film import Camera, scenes_of
from workbench.training.heads import Heads
from workbench.training.launch import train_together
from workbench.training.matching import matching_scale
from workbench.training.position_weights import measured_retention
from workbench.training.preflight import look_before
from workbench.training.records import Adapter, Preflight
from workbench.training.rows import TrainingTexts, prepared
from workbench.training.sampler import Sampler
from workbench.training.shards import share_out
from workbench.training.step import References, StepLoss
from workbench.training.student import student_of, weights_file
from workbench.training.trainer import DistilTrainer, Watcher, arguments, checkpoints

RECORD = "record"


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

    None is a folder of its own in the user's cache, named by what is trained on what; `export` copies it elsewhere.

    What is under way stands in a folder beside it, `<out>.training`, with the last checkpoints; where a run was killed
    or interrupted, the same call goes on from the newest one and ends with the adapter that it would have had. Where
    `out` holds the finished adapter of the same call it is returned as it is. `store` keeps what the frozen pair says.
    `start` is the folder of an adapter that the student begins with in place of aligned, as the arm would shape it:
    a model that was fine-tuned, say, to be drawn back; references stay those of the pair.

    Raises PromptError where the arm is left without rows, ParameterError where the pre-flight finds that the training
    cannot do what it is for, or the folder belongs to another training, NonFiniteLoss naming step and rows, PairError
    where no adapter of these settings fits, StorageFull where the disk is full; checkpoints stay.
    """
    arm = config.chosen
    given = texts
    scenes = scenes_of(given, pair.context_length)
    if config.watch.kl_budget_nats is not None and not any(s.label == "harmless" for s in scenes):
        raise ParameterError(
            f"kl_budget_nats is {config.watch.kl_budget_nats:g}, and there is no harmless text to measure it on: give "
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
    label = what if what is not None else f"training {arm.name}"
    if config.processes > 1 and group.size() == 1:
        train_together(pair, given, config, out=out, work=work, store=store, start=start, what=label)
        shutil.rmtree(work, ignore_errors=True)
        return _finished(out, key)
    _check_group(config)
    watch, begun = Stopwatch("distil", flat_settings(config)), _begun_with(start)
    notes = list(texts.notes)
    with _randomness_kept(), student_of(pair, arm.lora, config.seed) as student:
        if start is not None:
            student.begin_at(Path(start))
        if config.sharded:
            share_out(pair, student, config)
        heads = Heads.of(pair, student.peft)
        if heads.trained and group.size() > 1:
            raise ParameterError(
                "an adapter on the output head cannot be trained by several processes, whose gradients meet in the body"
                " alone: leave the head out of lora.targets, or set processes to 1"
            )
        references = References(pair, texts, config, store, keep_all=config.sharded)
        loss = StepLoss(heads, references, config, pair.device)
        sampler = Sampler(texts, config)
        if arm.match_arm is not None:
            loss.complete_scale = matching_scale(student, loss, sampler, config)
            notes.append(
                f"L_completion is multiplied by {loss.complete_scale:.4g}, so that its first gradient is as long as "
                f"that of the {arm.match_arm!r} set."
            )
        flight: Preflight | None = None
        if config.watch.preflight:
            flight = look_before(pair, student, heads, texts, loss, sampler, config, scenes, begun=start is not None)
        films = config.watch.film_every and (group.is_first() or config.sharded)
        camera = Camera(pair, student, heads, scenes) if films else None
        with Progress(label if group.is_first() else None, config.steps, "steps") as progress:
            for sentence in flight.sentences if flight else ():
                progress.note(sentence)
            watcher = Watcher(config, camera, progress)
            with quiet_libraries():
                args = arguments(config, work, pair.device, pair.dtype)
                trainer = DistilTrainer(student, loss, sampler, args, watcher)
                found = checkpoints(work)
                if found:
                    progress.note(f"Going on from {found[-1].name}.")
                    watcher.load(found[-1])
                if watcher.stopped:  # its budget was spent at the very step of the checkpoint
                    student.load(found[-1])
                else:
                    trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
        made = Adapter(
            run=watch.record(
                resolved={
                    "pair": pair.name,
                    "template_mode": pair.template_mode,
                    "student_copied": student.copied,
                    **begun,
                },
                seed=config.seed,
                device=str(pair.device),
                fingerprint=pair.fingerprint,
            ),
            path=str(out),
            arm=arm.name,
            settings=flat_settings(config),
            fingerprint=pair.fingerprint,
            history=tuple(watcher.history),
            film=camera.film() if camera is not None else None,
            preflight=flight,
            stopped=watcher.stopped,
            notes=tuple(notes),
        )
        if group.is_first():
            with atomic_folder(out) as partial:
                student.save(partial)
                write_card(partial / CARD, made, pair, texts)
                (partial / "training.json").write_text(json.dumps({"key": key}), "utf-8")
                save(made, partial / RECORD)
        group.wait()
    if group.size() == 1:
        shutil.rmtree(work, ignore_errors=True)
    return made


def load_adapter(folder: str | Path) -> Adapter:
    """Return the record of a finished training. Raises NotPresent where the folder holds none."""
    if not (Path(folder) / RECORD).is_dir():
        raise NotPresent(f"{str(folder)!r} holds no finished training: it has no folder {RECORD!r}")
    return dataclasses.replace(load(Path(folder) / RECORD, Adapter), path=str(folder))


def export(adapter: Adapter, folder: str | Path, *, results: str | None = None) -> Adapter:
    """Copy a finished adapter, with its card and record, into a folder, and return its record there.

    `results` is Markdown for the section Results of the card there, as `wb.card_results` makes it of a
    comparison of arms; None: the card goes on saying that they are not in it. An adapter of ours that is there already
    is replaced, once the copy is complete, unless this one was trained from it.

    Raises ParameterError where the folder holds something else, NotPresent where the adapter is gone, StorageFull.
    """
    folder = Path(folder)
    load_adapter(adapter.path)
    if folder.exists():
        _check_replaceable(folder, adapter)
    with atomic_folder(folder) as partial:
        shutil.copytree(adapter.path, partial, dirs_exist_ok=True)
        if results is not None:
            card = partial / CARD
            card.write_text(with_results(card.read_text("utf-8"), results), "utf-8")
    return load_adapter(folder)


def _check_replaceable(folder: Path, adapter: Adapter) -> None:
    try:
        load_adapter(folder)
        ours = (folder / "training.json").is_file()
    except (NotPresent, RecordError):
        ours = False
    if not ours:
        raise ParameterError(
            f"{str(folder)!r} exists, and what it holds is no adapter of ours: name another folder, or remove it"
        )
    if adapter.run.resolved.get("start_sha256") == _weights_of(folder):
        raise ParameterError(
            f"{str(folder)!r} holds the adapter that this one was trained from, and would lose it: name another folder"
        )


def flat_settings(config: TrainConfig) -> dict[str, Any]:
    """Return every value of a training as plain nested settings, the arm's own included."""
    return dataclasses.asdict(config)


def training_key(pair: ModelPair, texts: TrainingTexts, config: TrainConfig, start: str | Path | None = None) -> str:
    """Hash all that the adapter depends on; what is merely watched is left out."""
    settings = {
        k: v for k, v in flat_settings(config).items() if k not in ("watch", "chunk_rows", "processes", "sharded")
    }
    settings["kl_budget_nats"] = config.watch.kl_budget_nats
    settings["film_every"] = config.watch.film_every if config.watch.kl_budget_nats is not None else None
    kinds = {k: [dataclasses.astuple(t) for t in getattr(texts, k)] for k in ("harmful", "utility", "harmless")}
    begun = () if start is None else (_weights_of(Path(start)),)
    return key_of("training 1", pair.fingerprint, settings, kinds, *begun)


def _begun_with(start: str | Path | None) -> dict[str, str]:
    return {} if start is None else {"start": place(str(start)), "start_sha256": _weights_of(Path(start))}


def _weights_of(folder: Path) -> str:
    with weights_file(folder).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _check_group(config: TrainConfig) -> None:
    if group.size() != config.processes:
        raise ParameterError(
            f"processes is {config.processes}, and the launcher started {group.size()}: give both the same number"
        )
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true"):
        raise ParameterError(
            "the launcher asks for FSDP, which would cut weights that base, aligned and student share and that the "
            "output heads read outside of it: launch workbench.training.worker (configs/accelerate/fsdp.yaml), or set "
            "TrainConfig.sharded, where the frozen layers alone are cut"
        )


def _finished(out: Path, key: str) -> Adapter:
    file = out / "training.json"
    if not file.is_file() or json.loads(file.read_text("utf-8")).get("key") != key:
        raise ParameterError(
            f"{str(out)!r} holds the adapter of another training (other data, pair or settings): name another folder, "
            "or remove that one"
        )
    return load_adapter(out)


def _claim(work: Path, key: str) -> None:
    file = work / "training.json"
    if file.is_file():
        if json.loads(file.read_text("utf-8")).get("key") != key:
            raise ParameterError(
                f"{str(work)!r} holds checkpoints of another training (other data, pair or settings): remove the "
                "folder to begin anew, or call with the settings of the first run"
            )
        return
    with atomic_file(file) as partial:
        partial.write_text(json.dumps({"key": key}), "utf-8")


@contextlib.contextmanager
def _randomness_kept() -> Iterator[None]:
    """Leave the process's random numbers as they were: a trainer seeds them all."""
    python, numbers = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
