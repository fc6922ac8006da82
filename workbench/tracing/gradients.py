"""Gradient magnitudes along a response, which show whether the training signal weakens with position.

arXiv 2511.12155 argues that alignment training is incomplete because gradients weaken at late positions. It defines
GradMag(t) = ||d log p(y_t) / d theta||_2, Influence(i->t) = ||d log p(y_t) / d h_i||_2 and
Error(t) = sum_{i<t} KL_i(p_a || p_b) Influence(i->t), but measures none of them; this module does.

Each response has one forward pass with its graph kept, then backward passes from a few positions at a time, through
activations only. The gradient of a weight W of a linear map y = W x is sum_r g_r x_r^T over sequence rows r
(g = d log p / d y), and its norm is computed from g and x (||.||^2 = sum_rs (g_r . g_s)(x_r . x_s)), so no weight
gradient is stored and no parameter's `requires_grad` or `.grad` is touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from workbench.core.configs import at_least, check_fields, takes_fields
from workbench.core.errors import NonFiniteLogits, PairError, ParameterError, PromptError
from workbench.core.passages import Passage, check_room
from workbench.core.progress import Progress
from workbench.core.provenance import Stopwatch
from workbench.core.records import Row
from workbench.core.statistics import PromptSample, interval
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair, Which
from workbench.models.pieces import padded
from workbench.models.weights import body_of
from workbench.prompts.loading import Prompt, PromptSet
from workbench.tracing.records import GradientProbe

_BLOCK = re.compile(r"^(?P<block>(?:.*\.)?(?:layers|h|blocks|block|layer)\.(?P<layer>\d+))\.(?P<inside>.+)$")
_ATTENTION_OR_MLP = re.compile(r"attn|attention|mlp|feed_forward|moe|experts", re.IGNORECASE)

QUANTITIES: dict[str, str] = {
    "grad_norm": "nats",
    "output_error": "1",
    "grad_norm_per_error": "nats",
    "context_asymmetry": "nats",
    "influence": "nats",
    "error": "nats^2",
    "error_per_term": "nats^2",
}
"""Name of each quantity by position of a GradientProbe -> unit (a gradient counts as nats per unit of weight)."""

BATCH_TARGETS = 8
"""Most positions in one backward pass."""
BATCH_BYTES = 256 * 2**20
"""Most memory of one backward pass's gradients with respect to activations."""


@dataclass(frozen=True, kw_only=True)
class GradientConfig:
    """The settings of a gradient probe.

    `limit` prompts are drawn, seeded, from the harmful ones (from all where none is harmful). The output of `layer`
    (1 = first, None = the middle one) is the hidden state h of influence and asymmetry.
    """

    model: Which = "base"
    limit: int = 4
    max_tokens: int = 24
    layer: int | None = None
    system_prompt: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        once = at_least(1)
        check_fields(self, model=("base", "aligned"), limit=once, max_tokens=once, layer=once, seed=at_least(0))


@takes_fields(GradientConfig)
def probe_gradients(
    pair: ModelPair, prompts: PromptSet, config: GradientConfig, *, responses: Sequence[Sequence[int]] | None = None
) -> GradientProbe:
    """Measure gradient magnitudes by position of the safe response to harmful prompts.

    The default is the signal at the start of alignment training: the negative log-likelihood, under the base model, of
    the aligned model's greedy answer (which is not judged). `responses` are other token ids, one sequence for each
    prompt; both are cut to `max_tokens`. Gradients are over all attention and MLP weight matrices (no biases, norms,
    embeddings or head), and by layer.

    Row t of every array is about response token t. h_i is the output of block `layer` at the sequence position that
    *predicts* token i (where token i - 1, or the last token of the context, is read). With L_t = -log p(y_t):

        grad_norm(t)            ||d log p(y_t) / d theta||_2
        output_error(t)         ||softmax - onehot||_2, the size of the loss's own signal at the logits
        grad_norm_per_error(t)  their ratio; NaN where the error is 0
        context_asymmetry(i)    ||d (sum_{t>=i} L_t) / d h_i|| ||h_i|| / (T - i + 1)
        influence(t)            mean over i < t of Influence(i->t) = ||d log p(y_t) / d h_i|| ||h_i||; NaN at t = 1
        error(t)                sum_{i<t} KL_i(aligned || base) Influence(i->t); 0 at t = 1 (an empty sum)
        error_per_term(t)       error(t) / (t - 1); NaN at t = 1

    A thinking model is probed with thinking off, so that position 1 is the first token of the visible answer. An empty
    response is a row without positions. Source: arXiv 2511.12155; the divisions by error, ||h_i|| and number of terms
    are ours.

    Raises ParameterError for a missing layer or another number of responses than prompts, PromptError without prompts,
    PairError for unknown attention and MLP weights, ContextOverflow where prompt and response exceed the context,
    NonFiniteLogits where a model returns NaN or infinity.
    """
    watch = Stopwatch("probe_gradients", config)
    if pair.thinking:
        pair = dataclasses.replace(pair, thinking=False)
    with pair.model(config.model) as model:
        weights = _weights_of(body_of(model))
    chosen = _choose(prompts, config, responses)
    bare = [pair.passage(p, (), system_prompt=config.system_prompt) for p in chosen]
    if responses is None:
        settings = GenerateConfig(max_tokens=config.max_tokens)
        made = generate(pair, "aligned", [p.aligned for p in bare], settings, what="drawing safe responses")
        targets = [g.ids for g in made]
    else:
        at = {p.id: tuple(int(i) for i in r) for p, r in zip(prompts, responses, strict=True)}
        targets = [at[p.id][: config.max_tokens] for p in chosen]
    passages = [dataclasses.replace(p, response=t) for p, t in zip(bare, targets, strict=True)]
    check_room(passages, pair.context_length)
    for p in passages:
        if outside := [i for i in p.response if not 0 <= i < pair.vocab]:
            ids = f"the response to {p} has token id {outside[0]}, and the vocabulary has {pair.vocab} entries"
            raise ParameterError(f"{ids}: encode it with this pair's tokenizer")
    layers = 1 + max(w.layer for w in weights)
    layer = config.layer or max(1, layers // 2)
    if layer > layers:
        raise ParameterError(f"layer is {layer}, and the {config.model} model of {pair.name} has {layers}: lower it")
    with Progress("probing gradients", sum(map(len, targets)), "positions") as progress:
        found = [_probe(pair, config.model, p, layer - 1, layers, progress) for p in passages]
    return GradientProbe(
        run=watch.record(
            resolved={**pair.settings(), "prompts": prompts.name, "layer": layer},
            seed=config.seed,
            device=str(pair.device),
            fingerprint=pair.fingerprint,
        ),
        model=config.model,
        loss="negative log-likelihood",
        response_kind="greedy aligned" if responses is None else "given",
        parameters="attention and MLP weights",
        layer=layer,
        prompt_ids=tuple(p.id for p in chosen),
        labels=tuple(p.label for p in chosen),
        **_arrays(found, layers),
    )


def probe_rows(
    probe: GradientProbe, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[Row, ...]:
    """Return every quantity by position as tidy rows: mean over responses, percentile bootstrap over prompts, n.

    A layer's gradient norm is `grad_norm`, with its 1-based `layer`.
    """
    rows: list[Row] = []
    values: dict[tuple[str, int | None], np.ndarray] = {(name, None): getattr(probe, name) for name in QUANTITIES}
    for n in range(probe.grad_norm_by_layer.shape[2]):
        values["grad_norm", n + 1] = probe.grad_norm_by_layer[:, :, n]
    for label in dict.fromkeys(probe.labels):
        mine = [i for i, own in enumerate(probe.labels) if own == label]
        ids = [probe.prompt_ids[i] for i in mine]
        sample = PromptSample(ids, resamples=resamples, seed=seed, stream=label)
        length = int(probe.mask[mine].sum(axis=1).max(initial=0))
        for (name, layer), value in values.items():
            mean = sample.mean(value[mine, :length], probe.mask[mine, :length])
            low, high = interval(mean, confidence)
            place: dict[str, Any] = dict(arm=probe.model, label=label, layer=layer, seed=probe.run.seed)
            rows += Row.by_position(name, mean.value, low, high, mean.n, unit=QUANTITIES[name], **place)
    return tuple(rows)


# ----------------------------------------------------------------------------------------------- what to probe


def _choose(prompts: PromptSet, config: GradientConfig, responses: Sequence[Sequence[int]] | None) -> list[Prompt]:
    if responses is not None and len(responses) != len(prompts):
        raise ParameterError(f"{len(responses)} responses were given for {len(prompts)} prompts: give one for each")
    candidates = [p for p in prompts if p.label == "harmful"] or list(prompts)
    if not candidates:
        raise PromptError(f"the prompt set {prompts.name!r} is empty: load some prompts to probe")
    if len(candidates) <= config.limit:
        return candidates
    drawn = np.random.default_rng(config.seed).choice(len(candidates), config.limit, replace=False)
    return [candidates[i] for i in sorted(drawn.tolist())]


# -------------------------------------------------------------------------------------------- one response


@dataclass
class _Weight:
    """One attention or MLP weight matrix: its module and, during a pass, the inputs and outputs of each call."""

    layer: int
    block: str
    module: nn.Module
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


def _weights_of(body: nn.Module) -> list[_Weight]:
    """Find the linear maps inside attention and MLP of every block of the text decoder, without adapters.

    Raises PairError where there are none, or where attention or MLP weights are outside linear maps.
    """
    found, owned = [], set()
    for name, module in body.named_modules():
        place = _BLOCK.match(name)
        weight = getattr(module, "weight", None)
        if place is None or not isinstance(weight, Tensor) or weight.ndim != 2 or "lora_" in name:
            continue
        linear = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        if linear and _ATTENTION_OR_MLP.search(place["inside"]):
            found.append(_Weight(layer=int(place["layer"]), block=place["block"], module=module))
            owned.add(id(weight))
    for name, parameter in body.named_parameters():
        place = _BLOCK.match(name)
        if place is None or parameter.ndim < 2 or "lora_" in name or not _ATTENTION_OR_MLP.search(place["inside"]):
            continue
        if id(parameter) not in owned:
            raise PairError(
                f"the gradient probe reads linear maps, and {name} of {type(body).__name__} is not one (a fused "
                "mixture of experts?): probe a model of another architecture"
            )
    if not found:
        none = f"no attention and MLP weights were found in {type(body).__name__}"
        raise PairError(f"{none}: probe a model of another architecture")
    return found


@contextlib.contextmanager
def _watched(model: PreTrainedModel, weights: Sequence[_Weight], layer: int, hidden: list[Tensor]) -> Iterator[None]:
    """Record the weights' inputs and outputs and the output of block `layer` (0-based) by hooks, removed at the end."""
    block = next(w.block for w in weights if w.layer == layer)
    with contextlib.ExitStack() as stack:

        def hook(module: nn.Module, call: object) -> None:
            stack.callback(module.register_forward_hook(call).remove)  # type: ignore[arg-type]

        def keep(weight: _Weight) -> None:
            def call(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
                weight.inputs.append(arguments[0].detach())
                weight.outputs.append(output)

            hook(weight.module, call)

        def keep_hidden(module: nn.Module, arguments: object, output: Tensor | tuple[Tensor, ...]) -> None:
            hidden.append(output if isinstance(output, Tensor) else output[0])

        def start_graph(module: nn.Module, arguments: object, output: Tensor) -> None:
            output.requires_grad_()  # builds a graph although every parameter is frozen

        hook(model.get_input_embeddings(), start_graph)
        hook(body_of(model).get_submodule(block), keep_hidden)
        for weight in weights:
            keep(weight)
        yield


def _probe(
    pair: ModelPair, which: Which, passage: Passage, layer: int, layers: int, progress: Progress
) -> dict[str, np.ndarray]:
    """Return the quantities of one response by position."""
    target, length = passage.response, len(passage.response)
    if length == 0:
        nothing = dict.fromkeys(("output_error", "context_asymmetry", "influence", "error"), np.zeros(0))
        return {"grad_norm_by_layer": np.zeros((0, layers)), **nothing}
    other: Which = "aligned" if which == "base" else "base"
    with torch.no_grad():
        on_other = _logprobs(pair, other, passage)
    captured: list[Tensor] = []
    with pair.model(which) as model, torch.inference_mode(False), torch.enable_grad():
        weights = _weights_of(body_of(model))
        # the fused attention has no batched backward
        with _watched(model, weights, layer, captured), sdpa_kernel(SDPBackend.MATH):
            logprobs = _logprobs(pair, which, passage)
        used = [w for w in weights if w.outputs]
        hidden = captured[0]
        before = len(passage.context(which)) - 1
        rows = slice(before, before + length)  # h_i: the row that predicts token i
        size = _wide(hidden.detach()[0, rows]).norm(dim=-1)
        observed = logprobs.gather(-1, torch.tensor(target, device=logprobs.device)[:, None])[:, 0]
        with torch.no_grad():
            base, aligned = (logprobs, on_other) if which == "base" else (on_other, logprobs)
            each_kl = torch.nn.functional.kl_div(base, aligned, log_target=True, reduction="none")
            kl = each_kl.sum(-1).clamp_min(0.0).double().cpu().numpy()
            off = logprobs.exp()
            off[torch.arange(length), list(target)] -= 1
            output_error = off.norm(dim=-1)
            del off, on_other, base, aligned, each_kl
        norms = [_WeightGradientNorm(_rows(w.inputs)) for w in used]
        outputs = [y for w in used for y in w.outputs]
        squares = np.zeros((length, layers))
        influence, error = np.full(length, np.nan), np.zeros(length)
        summed = torch.zeros_like(_wide(hidden.detach()[0, rows]))
        each = sum(y.numel() for y in outputs) * summed.element_size()
        step = max(1, min(BATCH_TARGETS, BATCH_BYTES // each))
        pick = torch.eye(length, dtype=observed.dtype, device=observed.device)
        for start in range(0, length, step):
            batch = range(start, min(start + step, length))
            gradients = torch.autograd.grad(
                observed,
                [hidden, *outputs],
                grad_outputs=pick[start : batch.stop],
                is_grads_batched=True,
                retain_graph=batch.stop < length,
                allow_unused=True,
            )
            to_outputs = iter(gradients[1:])
            for weight, norm in zip(used, norms, strict=True):
                mine = [(next(to_outputs), y) for y in weight.outputs]
                parts = [y.new_zeros(len(batch), *y.shape) if g is None else g for g, y in mine]
                calls = [_wide(g.reshape(len(batch), -1, g.shape[-1])) for g in parts]
                joined = calls[0] if len(calls) == 1 else torch.cat(calls, 1)
                squares[start : batch.stop, weight.layer] += norm.squares(joined)
            if gradients[0] is not None:
                here = _wide(gradients[0][:, 0, rows])
                summed -= here.sum(0)
                reach = (here.norm(dim=-1) * size).double().cpu().numpy()
                for t, of_target in zip(batch, reach, strict=True):
                    influence[t] = of_target[:t].mean() if t else np.nan
                    error[t] = (kl[:t] * of_target[:t]).sum()
            progress.advance(len(batch))
        terms = torch.arange(length, 0, -1, device=size.device)
        asymmetry = (summed.norm(dim=-1) * size / terms).double().cpu().numpy()
    found = {"grad_norm_by_layer": np.sqrt(squares), "output_error": output_error.double().cpu().numpy()}
    return {**found, "context_asymmetry": asymmetry, "influence": influence, "error": error}


def _logprobs(pair: ModelPair, which: Which, passage: Passage) -> Float[Tensor, "token vocab"]:
    """Return the log-probabilities that predict each response token; float32 at least."""
    ids = torch.tensor([passage.whole(which)[:-1]], device=pair.device)
    hidden = pair.hidden(which, ids)[0, len(passage.context(which)) - 1 :]
    logits = _wide(pair.logits(which, hidden))
    finite = logits.detach().amax(-1).isfinite()
    if not bool(finite.all()):
        position = int((~finite).nonzero()[0]) + 1
        raise NonFiniteLogits.at(which, f"at position {position} of the response to {passage}")
    return logits.log_softmax(-1)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _rows(parts: Sequence[Tensor]) -> Float[Tensor, "row width"]:
    return torch.cat([_wide(p.reshape(-1, p.shape[-1])) for p in parts])


class _WeightGradientNorm:
    """The norms ||sum_r g_r x_r^T||_F^2 for many g and one x, by products of rows or, if cheaper, by the matrix."""

    def __init__(self, inputs: Float[Tensor, "row input"]) -> None:
        self.by_rows = inputs.shape[0] < inputs.shape[1]
        self.inputs = inputs @ inputs.T if self.by_rows else inputs

    def squares(self, gradients: Float[Tensor, "target row output"]) -> Float64[np.ndarray, "target"]:
        if self.by_rows:
            found = (self.inputs * (gradients @ gradients.mT)).sum((1, 2)).clamp_min(0.0)
        else:
            found = torch.stack([(g.T @ self.inputs).square().sum() for g in gradients])
        return found.double().cpu().numpy()


def _arrays(found: Sequence[dict[str, np.ndarray]], layers: int) -> dict[str, np.ndarray]:
    """Return the arrays of a GradientProbe, padded on the right with NaN."""
    for f in found:
        f["grad_norm"] = np.sqrt((f["grad_norm_by_layer"] ** 2).sum(axis=1))
        f["grad_norm_per_error"] = _ratio(f["grad_norm"], f["output_error"])
        f["error_per_term"] = _ratio(f["error"], np.arange(len(f["error"]), dtype=float))
    return {
        "mask": padded([[True] * len(f["error"]) for f in found], False, np.bool_),
        "grad_norm_by_layer": padded([f["grad_norm_by_layer"] for f in found], np.nan, np.float32, layers),
        **{name: padded([f[name] for f in found], np.nan, np.float32) for name in QUANTITIES},
    }


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)
