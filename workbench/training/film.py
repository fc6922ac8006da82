"""The film of a training: the student's distributions along fixed texts, at regular steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.core.records import Label
from workbench.models.pair import ModelPair, Which
from workbench.models.pieces import Pieces
from workbench.tracing.metrics import entropy_nats, excess_mass, kl_nats
from workbench.tracing.scoring import passage_rows
from workbench.training.losses import log_probabilities
from workbench.training.objective import Heads
from workbench.training.records import FilmText, TrainingFilm
from workbench.training.rows import TrainingText, TrainingTexts
from workbench.training.student import Student

QUANTITIES = ("kl_student_base_nats", "retention", "kl_aligned_student_nats", "entropy_student_nats")
TEXT_TOKENS = 64
"""A film shows this many positions of a text."""


def scenes_of(texts: TrainingTexts, context_length: int, *, each: int = 4) -> tuple[TrainingText, ...]:
    """Return the first harmful and the first harmless texts (else utility ones), labelled, at most `each` of both.

    Every arm has the same ones, whatever it trains on; a text that does not fit into the context is skipped.
    """

    def fitting(some: Sequence[TrainingText], label: Label) -> list[TrainingText]:
        cut = [replace(t, response=t.response[:TEXT_TOKENS], label=label) for t in some if t.response]
        return [t for t in cut if t.length <= context_length][:each]

    calm = fitting(texts.harmless, "harmless") or fitting(texts.utility, "harmless")
    return (*fitting(texts.harmful, "harmful"), *calm)


class Camera:
    """The frames of a film: the student's distributions along the scenes, against base and aligned."""

    def __init__(self, pair: ModelPair, student: Student, heads: Heads, scenes: Sequence[TrainingText]) -> None:
        self._pair, self._student, self._heads = pair, student, heads
        self._scenes = tuple(scenes)
        self._steps: list[int] = []
        self._frames: list[np.ndarray] = []
        which: tuple[Which, Which] = ("aligned", "base")
        with torch.no_grad():  # shared-out weights cannot train against inference tensors
            self._aligned, self._base = ([passage_rows(pair, w, [s]) for s in self._scenes] for w in which)

    def take(self, step: int) -> None:
        """Take the frame of a step."""
        width = max((len(s.response) for s in self._scenes), default=0)
        frame = np.full((len(QUANTITIES), len(self._scenes), width), np.nan, np.float32)
        training = self._student.one.model.training
        self._student.train(False)
        try:
            with torch.no_grad():  # shared-out weights cannot train against inference tensors
                for n, scene in enumerate(self._scenes):
                    frame[:, n, : len(scene.response)] = self._look(n, scene)
        finally:
            self._student.train(training)
        self._steps.append(step)
        self._frames.append(frame)

    def _look(self, n: int, scene: TrainingText) -> np.ndarray:
        before, response = len(scene.aligned) - 1, scene.response
        ids = torch.tensor([scene.aligned + response[:-1]], device=self._pair.device)
        columns = torch.arange(before, before + len(response), device=self._pair.device)
        hidden = self._student.hidden(ids, torch.zeros_like(columns), columns)
        heads = self._heads
        sides = ((heads.student, hidden), (heads.aligned, self._aligned[n]), (heads.base, self._base[n]))
        student, aligned, base = (log_probabilities(head(states)) for head, states in sides)
        retention = 1.0 - excess_mass(base, student)
        found = (kl_nats(student, base), retention, kl_nats(aligned, student), entropy_nats(student))
        return torch.stack(found).float().cpu().numpy()

    def looks(self) -> list[tuple[int, float, float]]:
        """Return each frame's step, mean retention on harmful texts and KL(aligned || student) on harmless ones.

        The KL is in nats per token; both are NaN without such texts.
        """
        rows = {k: [n for n, s in enumerate(self._scenes) if s.label == k] for k in ("harmful", "harmless")}

        def mean(frame: np.ndarray, name: str, label: str) -> float:
            values = frame[QUANTITIES.index(name), rows[label]]
            return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

        return [
            (step, mean(frame, "retention", "harmful"), mean(frame, "kl_aligned_student_nats", "harmless"))
            for step, frame in zip(self._steps, self._frames, strict=True)
        ]

    def film(self) -> TrainingFilm:
        """Return all frames as a record."""
        display = Pieces(self._pair.tokenizer)
        pieces = [tuple(p.text for p in display.sequence(s.response, context=s.aligned)) for s in self._scenes]
        texts = tuple(
            FilmText(name=s.name, label=s.label, prompt=s.prompt, pieces=own)
            for s, own in zip(self._scenes, pieces, strict=True)
        )
        shots = np.stack(self._frames, 1) if self._frames else np.zeros((len(QUANTITIES), 0, len(texts), 0), np.float32)
        quantities: dict[str, Any] = {name: np.ascontiguousarray(shots[i]) for i, name in enumerate(QUANTITIES)}
        return TrainingFilm(texts=texts, steps=np.array(self._steps, np.int32), **quantities)

    def save(self, file: Path) -> None:
        """Write the frames so far."""
        from safetensors.numpy import save_file

        frames = np.stack(self._frames) if self._frames else np.zeros(0, np.float32)
        save_file({"steps": np.array(self._steps, np.int32), "frames": frames}, file)

    def load(self, file: Path) -> None:
        """Read the frames of a checkpoint."""
        from safetensors.numpy import load_file

        held = load_file(file)
        self._steps, self._frames = held["steps"].tolist(), list(held["frames"])
