"""Every error that the workbench raises on purpose: one tree, each with a parent from the standard library.

A message says what was observed, why it is a problem and what to do; the command line prints it unchanged.
"""

from __future__ import annotations


class WorkbenchError(Exception):
    """The root of all errors that a user can cause or fix.

    `exit_code` is the command line's: 2 where the request was refused, 4 where work that had begun failed.
    """

    exit_code = 2


class ParameterError(WorkbenchError, ValueError):
    """A parameter or config field with an impossible value, the wrong type or an unknown name."""


class UnknownName(WorkbenchError, LookupError):
    """A preset, prompt set, metric or record type that does not exist; the message names the nearest one that does."""


class NotPresent(WorkbenchError, FileNotFoundError):
    """A file, folder or model that is not on this machine."""


class PromptError(WorkbenchError, ValueError):
    """A prompt file or prompt that cannot be used; the message names the lines."""


class PairError(WorkbenchError, ValueError):
    """Two models that cannot be compared, or a model that cannot be used for what was asked."""


class TokenizerMismatch(PairError):
    """Two models without a common tokenizer."""


class MissingChatTemplate(PairError):
    """A tokenizer without the chat template that the template mode needs."""


class ContextOverflow(PairError):
    """A prompt and response that are longer than the model's context."""


class NonFiniteLogits(WorkbenchError, ArithmeticError):
    """NaN or infinite logits of a model; the message names model, response and position."""

    exit_code = 4

    @classmethod
    def at(cls, which: str, where: str) -> NonFiniteLogits:
        """Return the error for base or aligned; `where` ends the sentence."""
        return cls(f"the {which} model returned NaN or infinite logits {where}: check the weights, or use float32")


class NonFiniteLoss(WorkbenchError, ArithmeticError):
    """A training loss that became NaN or infinite; the message names step and rows."""

    exit_code = 4


class RecordError(WorkbenchError, ValueError):
    """A saved record that cannot be read: another schema, another type, or damaged."""


class StorageFull(WorkbenchError, OSError):
    """A full disk. What was complete before stays as it was."""

    exit_code = 4


class DownloadError(WorkbenchError, OSError):
    """A download that was interrupted or does not have the expected checksum."""

    exit_code = 4


class NotebookFailed(WorkbenchError, RuntimeError):
    """A notebook that stopped before its end or ended without results; the message names the cell and its error.

    Its `exit_code` is 2 where a cell refused its parameters, 4 otherwise.
    """

    exit_code = 4


class ProcessFailed(WorkbenchError, RuntimeError):
    """A process that died at its work; the message says what it left behind."""

    exit_code = 4


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """Return a clause that names the nearest known name, or all of them where none is near."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)
