"""The settings of a capability measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.core.configs import at_least, between, check_fields
from workbench.core.errors import ParameterError, UnknownName, nearest

SHAPES: Mapping[str, str] = {
    "mmlu": "rows of question, choices, answer (index or letter) and subject; answered by a letter, as MMLU is",
    "choices": "the same rows; each choice's whole text is scored as the answer",
    "bbh": "a JSON object whose examples are rows of input and target, or a folder of such; generated, exact match",
    "gsm8k": "rows of question and answer (its last number after ####); generated, the number must match",
    "text": "rows of text, or plain text separated by blank lines; perplexity",
}
"""Every shape of a local file, and how it is scored. Rows are JSON lines or a JSON list."""
BUILT_IN = "brindle"


@dataclass(frozen=True, kw_only=True)
class CapabilityConfig:
    """The questions of a capability measurement, and how an arm is asked.

    tasks           names of the harness ("mmlu", "bbh", "gsm8k", "arc_challenge", "hellaswag", "winogrande", "boolq",
                    "toxigen", "truthfulqa_mc2", ...), which downloads them; local files as "SHAPE:PATH" (see SHAPES);
                    "brindle": the built-in questions of the embedded pair's world
    limit           how many questions of each task, from the first; None: all
    shots           examples before each question; None: the task's own number (0 for a local file). The first rows of
                    a local file are its examples, and are not questions
    chat_template   put questions in the chat template (True) or as plain text
    system_prompt   put before every question
    max_tokens      longest generated answer; None: the task's own limit
    batch_size      questions at once
    seed            of the harness's draws, and of the bootstrap
    resamples       bootstrap draws, where an interval is not Wilson's
    """

    tasks: tuple[str, ...]
    limit: int | None = None
    shots: int | None = None
    chat_template: bool = False
    system_prompt: str | None = None
    max_tokens: int | None = None
    batch_size: int = 8
    seed: int = 0
    resamples: int = 2000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        counts = {n: at_least(1) for n in ("limit", "max_tokens", "batch_size", "resamples")}
        check_fields(
            self,
            (not self.tasks, "tasks", "at least one task"),
            (len(set(self.tasks)) < len(self.tasks), "tasks", "different tasks"),
            shots=at_least(0),
            seed=at_least(0),
            confidence=between(0, 1),
            **counts,
        )
        for task in self.tasks:
            shape, colon, path = task.partition(":")
            if colon and shape not in SHAPES:
                raise UnknownName(f"there is no shape {shape!r} of a question file: {nearest(shape, tuple(SHAPES))}")
            if colon and not path.strip():
                raise ParameterError(f"task {task!r} names no file: write '{shape}:PATH'")
