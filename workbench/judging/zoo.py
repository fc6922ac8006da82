"""A judge of the package judgezoo (HarmBench, StrongREJECT, Llama Guard and others), by our contract.

The package is an extra (`pip install 'deep-alignment-workbench[judges]'`) and loads its judges' weights from the hub
itself. Control tokens in the judged texts are broken up first.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.core.errors import NotPresent, ParameterError
from workbench.core.passages import Sample
from workbench.judging.config import JudgeConfig
from workbench.judging.contract import scored, unscored
from workbench.judging.questions import GENERIC_TOKENS, conversation_of
from workbench.judging.records import Judgement, Measures, Verdict

CATEGORIES: Mapping[str, Verdict] = {
    "direct_answer": "compliance",
    "direct_refusal": "refusal",
    "indirect_refusal": "refusal",
}
"""A category of its judge of refusals (xstest) -> the verdict."""
OF_REFUSALS = frozenset({"xstest"})
"""Its judges that only look for refusals."""


@dataclass(frozen=True, kw_only=True)
class ZooJudge:
    """A judge by judgezoo's normalised `p_harmful`, or by its category of answers; else a sample is unscored."""

    name: str
    version: str
    inner: Any = field(repr=False)
    measures: Measures = "attack success"
    at_once: int = 16

    @classmethod
    def load(cls, config: JudgeConfig) -> ZooJudge:
        """Load the judge that judgezoo names `config.model`.

        Raises NotPresent where the package or the judge's weights are missing, ParameterError for an unknown name.
        """
        asked = str(config.model)
        try:
            import judgezoo
        except ImportError as error:
            raise NotPresent(
                f"judge 'judgezoo' needs the package judgezoo ({error}): pip install "
                "'deep-alignment-workbench[judges]', or take judge 'classifier' or 'guard' with the same weights"
            ) from error
        try:
            inner = judgezoo.Judge.from_name(asked)
        except (ValueError, OSError) as error:
            if "Unknown judge" in str(error):
                unknown = f"judgezoo {_version()} has no judge {asked!r}"
                raise ParameterError(f"{unknown}: use a name from its README") from error
            why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise NotPresent(f"judgezoo could not load its judge {asked!r}: {why}") from error
        measures: Measures = "non-refusal" if asked in OF_REFUSALS else "attack success"
        return cls(name=f"judgezoo:{asked}", version=f"1.{_version()}", inner=inner, measures=measures)

    def judge(self, batch: Sequence[Sample]) -> list[Judgement]:
        """Return one judgement for each sample; judgezoo's log about a batch is the reason for a missing score."""
        tokens = (*GENERIC_TOKENS, *getattr(getattr(self.inner, "tokenizer", None), "added_tokens_encoder", ()))
        return self._judged(batch, [conversation_of(sample, tokens) for sample in batch])

    def _judged(self, samples: Sequence[Sample], chats: Sequence[Any]) -> list[Judgement]:
        """Judge chats together, and one by one where judgezoo fails on them together."""
        with _heard() as said:
            try:
                found = self.inner(list(chats))
            except (MemoryError, OSError):
                raise
            except Exception as error:
                if "out of memory" in str(error):
                    raise
                if len(chats) == 1:
                    return [unscored(samples[0], f"judgezoo failed ({type(error).__name__})")]
                return [j for s, c in zip(samples, chats, strict=True) for j in self._judged([s], [c])]
        reason = "judgezoo gives no score" + (f" ({said[0]})" if said else "")
        if "p_harmful" in found:
            return [
                scored(s, p_harmful=min(1.0, max(0.0, float(p)))) if _is_score(p) else unscored(s, reason)
                for s, p in zip(samples, found["p_harmful"], strict=True)
            ]
        if "category" in found:
            return [
                scored(s, verdict=CATEGORIES[c]) if c in CATEGORIES else unscored(s, reason)
                for s, c in zip(samples, found["category"], strict=True)
            ]
        raise ParameterError(f"{self.name} gives neither p_harmful nor a category, but {', '.join(found)}")


def _is_score(p: Any) -> bool:
    return isinstance(p, int | float) and math.isfinite(p) and -1e-3 <= p <= 1 + 1e-3


def _version() -> str:
    try:
        return importlib.metadata.version("judgezoo")
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect the warnings and errors that are logged meanwhile."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage().splitlines()[0][:120])

    listener = Listener(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(listener)
    try:
        yield said
    finally:
        root.removeHandler(listener)
