"""The film of a training: what the student says along fixed texts, every so many steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workbench.core.records import Label
from workbench.models.pair import ModelPair
from workbench.models.pieces import Pieces
from workbench.tracing.metrics import LOGPROB_FLOOR, excess_mass, kl_nats
from workbench.tracing.scoring import response_rows
from workbench.training.heads import Heads
from workbench.training.records import FilmText, TrainingFilm
from workbench.training.rows import PlainText, TrainingTexts
from workbench.training.student import Student

QUANTITIES = ("kl_student_base_nats", "retention", "kl_aligned_student_nats")
TEXT_TOKENS = 64
"""A film shows this many positions of a text."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Hold one fixed text of the film and its label."""

    text: PlainText
    label: Label


def scenes_of(texts: TrainingTexts, context_length: int, *, each: int = 4) -> tuple[Scene, ...]:
    """Return the first harmful and the first harmless texts (else utility ones) as scenes, at most `each` of both.

    Whatever the arm trains on, and so the same for every arm; a text that a model has no room for is passed over.
    """

    def fitting(some: Sequence[PlainText]) -> list[PlainText]:
        def length(t: PlainText) -> int:
            return max(len(t.aligned), len(t.base)) + min(len(t.response), TEXT_TOKENS)

        return [t for t in some if t.response and length(t) <= context_length][:each]

    calm = fitting(texts.harmless) or fitting(texts.utility)
    chosen: list[tuple[PlainText, Label]] = [(t, "harmful") for t in fitting(texts.harmful)]
    chosen += [(t, "harmless") for t in calm]
    return tuple(Scene(text=replace(t, response=t.response[:TEXT_TOKENS]), label=label) for t, label in chosen)


class Camera:
    """Take frames: the student's distributions along the scenes, against base and aligned."""

    def __init__(self, pair: ModelPair, student: Student, heads: Heads, scenes: Sequence[Scene]) -> None:
        self._pair, self._student, self._heads = pair, student, heads
        self._scenes = tuple(scenes)
        self._steps: list[int] = []
        self._frames: list[np.ndarray] = []
        with torch.no_grad():  # inference tensors could not be trained against where weights are shared out
            self._aligned = [self._states("aligned", s.text.aligned, s) for s in self._scenes]
            self._base = [self._states("base", s.text.base, s) for s in self._scenes]

    def _states(self, which: str, context: tuple[int, ...], scene: Scene) -> Tensor:
        return response_rows(self._pair, which, [context], [scene.text.response])  # type: ignore[arg-type]

    def take(self, step: int) -> None:
        """Take the frame of a step."""
        width = max((len(s.text.response) for s in self._scenes), default=0)
        frame = np.full((len(QUANTITIES), len(self._scenes), width), np.nan, np.float32)
        body = self._student.body
        training = body.training
        body.eval()
        try:
            with torch.no_grad():  # inference tensors could not be trained against where weights are shared out
                for n, scene in enumerate(self._scenes):
                    frame[:, n, : len(scene.text.response)] = self._look(n, scene)
        finally:
            body.train(training)
        self._steps.append(step)
        self._frames.append(frame)

    def _look(self, n: int, scene: Scene) -> np.ndarray:
        before, response = len(scene.text.aligned) - 1, scene.text.response
        ids = torch.tensor([scene.text.aligned + response[:-1]], device=self._pair.device)
        columns = torch.arange(before, before + len(response), device=self._pair.device)
        hidden = self._student.body(ids, torch.zeros_like(columns), columns)
        student, aligned, base = (
            head(states).log_softmax(-1).clamp(min=LOGPROB_FLOOR)
            for head, states in (
                (self._heads.student, hidden),
                (self._heads.aligned, self._aligned[n]),
                (self._heads.base, self._base[n]),
            )
        )
        found = (kl_nats(student, base), 1.0 - excess_mass(base, student), kl_nats(aligned, student))
        return torch.stack(found).float().cpu().numpy()

    def harmless_nats(self) -> float:
        """Return KL(aligned || student) on the harmless texts in the last frame, nats per token; NaN without any."""
        looks = self.looks()
        return looks[-1][2] if looks else float("nan")

    def looks(self) -> list[tuple[int, float, float]]:
        """Return for each frame its step, mean retention on harmful texts, and KL as `harmless_nats` does."""
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
        texts = tuple(
            FilmText(
                name=s.text.name,
                label=s.label,
                prompt=s.text.prompt,
                pieces=tuple(p.text for p in display.sequence(s.text.response, context=s.text.aligned)),
            )
            for s in self._scenes
        )
        shots = np.stack(self._frames, 1) if self._frames else np.zeros((len(QUANTITIES), 0, len(texts), 0), np.float32)
        quantities = {name: np.ascontiguousarray(shots[i]) for i, name in enumerate(QUANTITIES)}
        return TrainingFilm(texts=texts, steps=np.array(self._steps, np.int32), **quantities)

    def save(self, file: Path) -> None:
        """Write the frames so far."""
        from safetensors.numpy import save_file

        frames = np.stack(self._frames) if self._frames else np.zeros(0, np.float32)
        save_file({"steps": np.array(self._steps, np.int32), "frames": frames}, file)

    def load(self, file: Path) -> None:
        """Take up the frames of a checkpoint."""
        from safetensors.numpy import load_file

        held = load_file(file)
        self._steps, self._frames = held["steps"].tolist(), list(held["frames"])
