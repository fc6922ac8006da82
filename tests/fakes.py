"""Models with known answers, and a meter for the memory that tensors hold."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.prompts.loading import Prompt, PromptSet


def counting_model(vocab: int) -> LlamaForCausalLM:
    """Make a real Llama that predicts id + 1 (mod vocab) with certainty: its one layer adds nothing."""
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=vocab, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=256, tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.zero_()
        model.model.norm.weight.fill_(1.0)
        model.model.embed_tokens.weight.copy_(torch.eye(vocab))
        # the final norm makes the one-hot vector sqrt(vocab) long
        model.lm_head.weight.copy_(torch.eye(vocab).roll(1, 0) * 1000.0 / math.sqrt(vocab))
    return model


def interrupted_after(tokens: int) -> Callable[..., None]:
    """Return a listener that presses Ctrl-C when it hears one token more."""
    heard = count(1)

    def listen(*_: object) -> None:
        if next(heard) > tokens:
            raise KeyboardInterrupt

    return listen


def at_token(widget: Any, number: int, seconds: float) -> tuple[threading.Event, threading.Event]:
    """Return two events: the widget's text has its n-th token and waits; it may go on."""
    there, go_on = threading.Event(), threading.Event()

    def heard(now: Any) -> None:
        if now.state == "running" and now.tokens == number and not there.is_set():
            there.set()
            assert go_on.wait(seconds)

    widget.on_select(heard)
    return there, go_on


def prompt_set(*texts: str, response: str | None = " sat on the mat", label: str = "harmful") -> PromptSet:
    """Make a prompt set in memory; `response` None leaves the prompts without one."""
    prompts = tuple(
        Prompt(
            id=f"p{i}", prompt=t, label=label, response=response and response + " again" * i,  # type: ignore[arg-type]
            category=None, pair_id=None, split=None, messages=None, line=i + 1,
        )
        for i, t in enumerate(texts)
    )  # fmt: skip
    return PromptSet(name="in memory", source="test", prompts=prompts, dropped=(), columns={}, classroom_safe=True)


class LiveBytes(TorchDispatchMode):
    """Measure the peak of bytes held by tensors that torch makes and whose shape `counts` accepts."""

    def __init__(self, counts: Any) -> None:
        super().__init__()
        self.counts, self.peak = counts, 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, tuple | list) else (out,):
            if isinstance(made, torch.Tensor) and self.counts(made):
                self._note(made.untyped_storage())
        return out

    def _note(self, storage: Any) -> None:
        import weakref

        key = storage._cdata
        if key not in self._live:
            self._live[key] = storage.nbytes()
            weakref.finalize(storage, self._live.pop, key, None)
        self.peak = max(self.peak, sum(self._live.values()))

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
