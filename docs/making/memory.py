"""How much memory each preset needs: weights, scoring and training, from the models' shapes; see `rows`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

from workbench.models.presets import PRESETS

Norms = Literal["plain", "bias", "qk", "gemma", "olmo"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Hold what decides a decoder's size, from its published config. `extra` is what it has beside the plain layers."""

    hidden: int
    layers: int
    inner: int
    heads: int
    kv_heads: int
    head_width: int
    vocab: int
    tied: bool
    extra: Norms = "plain"

    @property
    def linear(self) -> tuple[tuple[int, int], ...]:
        """Return (in, out) of a layer's linear maps: query, key, value, output, gate, up, down."""
        q, kv = self.heads * self.head_width, self.kv_heads * self.head_width
        h, i = self.hidden, self.inner
        return ((h, q), (h, kv), (h, kv), (q, h), (h, i), (h, i), (i, h))

    @property
    def in_layers(self) -> int:
        """Return the parameters of all linear maps inside the layers: what 8-bit and 4-bit loading shrinks."""
        return self.layers * sum(a * b for a, b in self.linear)

    @property
    def parameters(self) -> int:
        """Return all parameters; a test holds this against the preset's own count, so a wrong shape is found."""
        q, kv = self.heads * self.head_width, self.kv_heads * self.head_width
        beside: Mapping[Norms, int] = {
            "plain": 0,
            "bias": q + 2 * kv,
            "qk": 2 * self.head_width,
            "gemma": 2 * self.hidden + 2 * self.head_width,
            "olmo": q + kv,
        }
        tables = self.vocab * self.hidden * (1 if self.tied else 2)
        return tables + self.in_layers + self.layers * (2 * self.hidden + beside[self.extra]) + self.hidden

    def adapter(self, rank: int) -> int:
        """Return the numbers of a LoRA adapter on all linear maps of the layers."""
        return self.layers * rank * sum(a + b for a, b in self.linear)


def _shape(sizes: str, *, tied: bool, extra: Norms = "plain") -> Shape:
    hidden, layers, inner, heads, kv, width, vocab = map(int, sizes.split())
    return Shape(
        hidden=hidden,
        layers=layers,
        inner=inner,
        heads=heads,
        kv_heads=kv,
        head_width=width,
        vocab=vocab,
        tied=tied,
        extra=extra,
    )


SHAPES: Mapping[str, Shape] = {
    "smollm2": _shape("576 30 1536 9 3 64 49152", tied=True),
    "gemma-3-270m": _shape("640 18 2048 4 1 256 262144", tied=True, extra="gemma"),
    "smollm2-135m": _shape("576 30 1536 9 3 64 49152", tied=True),
    "smollm2-360m": _shape("960 32 2560 15 5 64 49152", tied=True),
    "smollm2-1.7b": _shape("2048 24 8192 32 32 64 49152", tied=True),
    "qwen2.5-0.5b": _shape("896 24 4864 14 2 64 151936", tied=True, extra="bias"),
    "qwen2.5-1.5b": _shape("1536 28 8960 12 2 128 151936", tied=True, extra="bias"),
    "qwen2.5-7b": _shape("3584 28 18944 28 4 128 152064", tied=False, extra="bias"),
    "qwen3-0.6b": _shape("1024 28 3072 16 8 128 151936", tied=True, extra="qk"),
    "qwen3-8b": _shape("4096 36 12288 32 8 128 151936", tied=False, extra="qk"),
    "llama-2-7b": _shape("4096 32 11008 32 32 128 32000", tied=False),
    "llama-3.1-8b": _shape("4096 32 14336 32 8 128 128256", tied=False),
    "llama-3.2-1b": _shape("2048 16 8192 32 8 64 128256", tied=True),
    "gemma-3-1b": _shape("1152 26 6912 4 1 256 262144", tied=True, extra="gemma"),
    "olmo-2-1b": _shape("2048 16 8192 16 16 128 100352", tied=False, extra="olmo"),
}
"""hidden, layers, inner, heads, key-value heads, head width, vocabulary."""

BYTES = {"float32": (4.0, 4), "bfloat16": (2.0, 2), "8-bit": (1.0, 2), "4-bit": (0.5 + 4 / 64, 2)}
"""A weight inside the layers, in bytes (4-bit: half a byte and a float32 scale for each 64), and everything else."""

TOKENS = 192
PROMPT = 64
ROWS = 8


def weights_mib(shape: Shape, kind: str, *, models: int) -> float:
    """Return the weights of so many models, MiB. Tables, head and norms are never in fewer than 16 bits."""
    inside, beside = BYTES[kind]
    return models * (shape.in_layers * inside + (shape.parameters - shape.in_layers) * beside) / 2**20


def scoring_mib(shape: Shape, kind: str, *, models: int) -> float:
    """Return what scoring 8 responses of 192 tokens needs on a GPU, MiB: weights, one body's activations, buffers."""
    from workbench.tracing.scoring import BUFFER_MIB

    wide = BYTES[kind][1]
    activations = ROWS * TOKENS * (6 * shape.hidden + 3 * shape.inner) * wide / 2**20
    return weights_mib(shape, kind, models=models) + activations + BUFFER_MIB["cuda"]


def training_mib(shape: Shape, kind: str, *, models: int) -> float:
    """Return what the arm `recovery` needs on a GPU, MiB: the weights and the pre-flight's own estimate beside them.

    Rows of 192 tokens, 64 of them the prompt, 8 at a time, LoRA of rank 32 on all linear layers.
    """
    import torch

    from workbench.training.config import TrainConfig
    from workbench.training.memory import memory_mib
    from workbench.training.rows import TrainingText, TrainingTexts

    config = TrainConfig(arm="recovery", max_tokens=TOKENS, batch_size=ROWS)
    body = SimpleNamespace(intermediate_size=shape.inner, hidden_size=shape.hidden, num_hidden_layers=shape.layers)
    dtype = torch.float32 if kind == "float32" else torch.bfloat16
    asked, said = (0,) * PROMPT, (0,) * (TOKENS - PROMPT)
    refusal = (0,) * (TOKENS - PROMPT - config.prefix_tokens)
    harmful = TrainingText(name="", aligned=asked, base=asked, response=said, refusals=(refusal,))
    plain = TrainingText(name="", aligned=asked, base=asked, response=said)
    texts = TrainingTexts(harmful=(harmful,), utility=(plain,))
    pair: Any = _LikeAPair(body, dtype, shape.vocab)
    trained = shape.adapter(config.chosen.lora.rank)
    return weights_mib(shape, kind, models=models) + memory_mib(pair, trained, texts, config)


class _LikeAPair:
    """What the pre-flight asks of a pair: its body's sizes, data type, vocabulary and device. No weights."""

    def __init__(self, body: Any, dtype: Any, vocab: int) -> None:
        self._body, self.dtype, self.vocab, self.device = body, dtype, vocab, SimpleNamespace(type="cuda")

    @contextlib.contextmanager
    def model(self, which: str) -> Iterator[Any]:
        yield SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: self._body))


def rows(of: Callable[..., float]) -> list[list[str]]:
    """Return a table's rows: name, parameters, head width, then GiB by data type."""
    made = []
    for preset in PRESETS:
        if preset.kind == "embedded" or preset.adapter is not None:
            continue
        shape, models = SHAPES[preset.name], 2 if preset.aligned else 1
        sizes = [f"{of(shape, kind, models=models) / 1024:.1f}" for kind in BYTES]
        count = f"{models} x {shape.parameters / 1e9:.2f}"
        made.append([f"`{preset.name}`", count, f"{shape.vocab:,}", *sizes])
    return made


def table() -> str:
    """Return both tables as Markdown."""
    return "\n\n".join(
        f"## {title}, GiB\n\n{_markdown(rows(of))}"
        for title, of in (("Scoring", scoring_mib), ("Training", training_mib))
    )


def _markdown(lines: list[list[str]]) -> str:
    heads = ["pair", "10⁹ parameters", "head width", *BYTES]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---", *["---:"] * (len(heads) - 1)], *lines))
