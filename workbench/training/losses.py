"""The losses as formulas: logits in, one number a row out; and M, the tokens that the completion loss pushes down.

Pure and differentiable: no model, no state. Every loss takes float32 logits over one vocabulary and returns nats a row
unless its docstring names another unit; the objective takes the mean over positions. l = log_softmax(z); a token that a
model rules out (-inf) counts as LOGPROB_FLOOR, so that losses stay finite and gradients are never NaN.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.errors import ParameterError
from workbench.tracing.metrics import LOGPROB_FLOOR, base_favored, js_nats, kl_nats, largest
from workbench.training.config import Completion, Direction, LossConfig, SetRanking

BETAS = (0.5, 2.0, 2.0, 2.0, 2.0, 0.1)
"""beta_t of constrained fine-tuning at positions 1, 2, ... from arXiv 2406.05946; the last one holds beyond."""
NO_TOKEN = -1
"""Id that fills a set where fewer than k tokens qualify."""


def log_probabilities(logits: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
    """Return log_softmax with -inf raised to LOGPROB_FLOOR."""
    return logits.log_softmax(-1).clamp(min=LOGPROB_FLOOR)


def hybrid_teacher(
    aligned: Float[Tensor, "row vocab"], base: Float[Tensor, "row vocab"], teacher_lambda: float
) -> Float[Tensor, "row vocab"]:
    """Return the teacher's logits lambda z_a + (1 - lambda) z_b; exactly z_a at lambda = 1 and z_b at 0.

    A token that one model rules out (-inf) is ruled out where that model's share is positive. Where its share is
    negative (base beyond lambda = 1), the token keeps the other model's logit.
    """
    if teacher_lambda in (0.0, 1.0):
        return aligned if teacher_lambda else base
    mixed = torch.lerp(base, aligned, teacher_lambda)
    mixed = torch.where(base.isneginf(), aligned if teacher_lambda > 1.0 else base, mixed)
    return torch.where(aligned.isneginf(), base if teacher_lambda < 0.0 else aligned, mixed)


def distillation(
    student: Float[Tensor, "row vocab"],
    teacher: Float[Tensor, "row vocab"],
    *,
    direction: Direction = "reverse",
    temperature: float = 2.0,
) -> Float[Tensor, "row"]:
    """Return tau^2 D(softmax(z_s / tau), softmax(z_teacher / tau)), 0 where the two are equal.

    D is KL(student || teacher) (`reverse`, as in arXiv 2511.12155), KL(teacher || student) (`forward`) or JSD (`jsd`).
    """
    s, t = (log_probabilities(z if temperature == 1.0 else z / temperature) for z in (student, teacher))
    divergence = {"reverse": lambda: kl_nats(s, t), "forward": lambda: kl_nats(t, s), "jsd": lambda: js_nats(s, t)}
    return temperature**2 * divergence[direction]()


def completion(
    student: Float[Tensor, "row vocab"],
    ids: Int[Tensor, "row k"],
    *,
    variant: Completion = "squared",
    aligned: Float[Tensor, "row vocab"] | None = None,
    margin: float = 0.0,
) -> Float[Tensor, "row"]:
    """Return the penalty summed over the tokens of M = `ids`; an id of -1 is no token.

    squared        z^2, logits squared: arXiv 2511.12155. Pulls towards 0, so a token with a negative logit is *raised*;
                   changes when a constant is added to all logits, as no distribution does
    centred        (z - mean_V z)^2, the same with respect to the mean logit
    one_sided      relu(z - mean_V z)^2: only down
    logprob_hinge  relu(l_s - l_a + margin), nats: down to `margin` below the aligned model, which must be given
    unlikelihood   -log(1 - p_s), nats

    The mean is over the tokens that the student does not rule out; one that it rules out costs nothing.
    Raises ParameterError for logprob_hinge without `aligned`.
    """
    at = ids.clamp(min=0)
    z = student.gather(-1, at)
    counts = (ids >= 0) & ~z.isneginf()
    match variant:
        case "squared":
            each = z.masked_fill(~counts, 0.0).square()
        case "centred" | "one_sided":
            above = (z - _mean(student)).masked_fill(~counts, 0.0)
            each = (above.relu() if variant == "one_sided" else above).square()
        case "logprob_hinge":
            if aligned is None:
                raise ParameterError("the completion loss logprob_hinge needs the aligned model's logits: give aligned")
            reference = _logprobs_at(aligned, at)
            each = (_logprobs_at(student, at) - reference + margin).relu()
        case "unlikelihood":
            each = -_log_of_rest(student, at)
    return each.masked_fill(~counts, 0.0).sum(-1)


def _mean(logits: Float[Tensor, "row vocab"]) -> Float[Tensor, "row 1"]:
    out = logits.isneginf()
    return logits.masked_fill(out, 0.0).sum(-1, keepdim=True) / (~out).sum(-1, keepdim=True)


def _logprobs_at(logits: Float[Tensor, "row vocab"], ids: Int[Tensor, "row k"]) -> Float[Tensor, "row k"]:
    return (logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True)).clamp(min=LOGPROB_FLOOR)


def _log_of_rest(logits: Float[Tensor, "row vocab"], ids: Int[Tensor, "row k"]) -> Float[Tensor, "row k"]:
    """Return log(1 - p) at ids; for the likeliest token from all others, which is exact where its p rounds to 1."""
    everything = logits.logsumexp(-1, keepdim=True)
    top = logits.argmax(-1, keepdim=True)
    others = logits.scatter(-1, top, -math.inf).logsumexp(-1, keepdim=True) - everything
    p = (logits.gather(-1, ids) - everything).exp()
    is_top = ids == top
    return torch.where(is_top, others, torch.log1p(-p.masked_fill(is_top, 0.0)))


def base_favored_share(base: Float[Tensor, "row vocab"], aligned: Float[Tensor, "row vocab"]) -> Float[Tensor, "row"]:
    """Return |B_t| / |V| of two models' logits: the share of the vocabulary with p_b > p_a, in [0, 1)."""
    return base_favored(log_probabilities(base), log_probabilities(aligned)).float().mean(-1)


def adaptive_strength(share: Float[Tensor, "row"], *, alpha_base: float, gamma: float) -> Float[Tensor, "row"]:
    """Return alpha_t = alpha_base (1 + gamma |B_t| / |V|) of the shares |B_t| / |V|."""
    return alpha_base * (1.0 + gamma * share)


def completion_set(
    base: Float[Tensor, "row vocab"],
    aligned: Float[Tensor, "row vocab"],
    *,
    ranking: SetRanking = "mass",
    size: int = 100,
    key: Int[Tensor, "row"] | None = None,
) -> Int[Tensor, "row k"]:
    """Return M of each row, best first, of `size` tokens (of the whole vocabulary where that is smaller).

    logit            TopK(z_b - z_a), on logits as arXiv 2511.12155 prints it; always k tokens, base-favored or not
    mass             TopK(p_b - p_a) among the tokens with p_b > p_a; NO_TOKEN beyond them, so equal models have none
    random           k different tokens drawn from all: the control of equal size
    aligned_favored  TopK(z_a - z_b): the control that pushes the wrong way

    Of equal scores the lower id comes first. A token that both models rule out comes last. `random` is a function of
    `key` alone, whatever the batch: a number made from seed, text and position.
    Raises ParameterError for `random` without `key`.
    """
    if ranking == "random":
        if key is None:
            raise ParameterError(
                "random sets are drawn by a key, so that every run draws the same ones, and key is None: give a number "
                "for each row"
            )
        return _random(key, base.shape[-1], size)
    if ranking == "mass":
        score = base.softmax(-1) - aligned.softmax(-1)
        ids = top_ids(score, size)
        return ids.masked_fill(score.gather(-1, ids) <= 0.0, NO_TOKEN)
    score = base - aligned if ranking == "logit" else aligned - base
    return top_ids(score.masked_fill(score.isnan(), -math.inf), size)


def completion_target(
    base: Float[Tensor, "row vocab"],
    aligned: Float[Tensor, "row vocab"],
    config: LossConfig,
    key: Int[Tensor, "row"] | None = None,
) -> tuple[Int[Tensor, "row k"], Float[Tensor, "row"]]:
    """Return the completion loss's data from the frozen pair: M as configured, and |B_t| / |V|."""
    ids = completion_set(base, aligned, ranking=config.ranking, size=config.set_size, key=key)
    return ids, base_favored_share(base, aligned)


def top_ids(scores: Float[Tensor, "row vocab"], k: int) -> Int[Tensor, "row k"]:
    """Return the ids of the k largest float32 scores of each row, best first; of equal ones the lower id comes first.

    A score's bits, made to sort as it does, and the id behind them are one whole number, so no two are equal.
    """
    bits = (scores + 0.0).view(torch.int32).long()  # -0.0 becomes 0.0
    bits ^= (bits >> 63) & 0x7FFFFFFF  # of negative numbers the larger bits are the smaller number
    bits = bits.mul_(2**32).sub_(torch.arange(scores.shape[-1], device=scores.device))
    return largest(bits, min(k, scores.shape[-1]))


ROUNDS = 128
"""Rounds of the shuffle that draws random sets; each halves what is left of the order."""


def _random(key: Int[Tensor, "row"], vocab: int, size: int) -> Int[Tensor, "row k"]:
    """Return the first `size` places of a shuffle of the vocabulary that `key` determines, on any device.

    Each round pairs every place x with (k - x) mod V and swaps the two, or not, by a bit of a hash (the swap-or-not
    shuffle of Hoang, Morris and Rogaway, 2012), so only the places asked for are computed.
    """
    places = torch.arange(min(size, vocab), device=key.device).expand(len(key), -1)
    for n in range(ROUNDS):
        of_round = _mixed(key * ROUNDS + n)[:, None]
        other = (of_round % vocab - places) % vocab
        swapped = _mixed(of_round + torch.maximum(places, other)) & 1
        places = torch.where(swapped == 1, other, places)
    return places


def _mixed(x: Int[Tensor, "*any"]) -> Int[Tensor, "*any"]:
    """Return a hash of whole numbers, at least 0 and below 2^62 (splitmix64's finaliser on 63 bits)."""
    for shift, factor in ((30, 0x3F58476D1CE4E5B9), (27, 0x14D049BB133111EB)):
        x = (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * factor
    return (x ^ ((x >> 31) & (2**33 - 1))) & (2**62 - 1)


def recovery(student: Float[Tensor, "row vocab"], aligned: Float[Tensor, "row vocab"]) -> Float[Tensor, "row"]:
    """Return KL(aligned || student), each in its own context, before clipping."""
    return kl_nats(log_probabilities(aligned), log_probabilities(student))


def clip_level(values: Float[Tensor, "row"], percentile: float) -> Float[Tensor, ""]:
    """Return the percentile (linear between neighbours) of the values, NaN excluded; inf at 100 and for no values."""
    if percentile >= 100.0 or not len(values):
        return values.new_full((), math.inf)
    return torch.nanquantile(values.detach().float(), percentile / 100.0)


def clipped(values: Float[Tensor, "row"], level: float | Float[Tensor, ""]) -> Float[Tensor, "row"]:
    """Return min(value, level) with the gradient scaled by the same factor, so that no position dominates.

    The gradient above the level is not 0: the largest divergence is often the very token that must change.
    """
    if isinstance(level, float) and math.isinf(level):
        return values
    return values * (level / values.detach().clamp(min=torch.finfo(values.dtype).tiny)).clamp(max=1.0)


def cross_entropy(student: Float[Tensor, "row vocab"], label: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
    """Return -l_s(label)."""
    return -_logprobs_at(student, label.unsqueeze(-1)).squeeze(-1)


def constrained(
    student: Float[Tensor, "row vocab"],
    aligned: Float[Tensor, "row vocab"],
    label: Int[Tensor, "row"],
    beta: Float[Tensor, "row"],
) -> Float[Tensor, "row"]:
    """Return constrained fine-tuning's (2 / beta) softplus(beta (l_a - l_s)) at the label (arXiv 2406.05946).

    Its gradient is that of the cross-entropy times the constant weight 2 sigmoid(beta (l_a - l_s)): 1 where student and
    aligned agree, towards 0 where the student exceeds aligned, at most 2. The value is (2 / beta) ln 2 where they
    agree; it is no likelihood.
    """
    at = label.unsqueeze(-1)
    behind = (_logprobs_at(aligned, at) - _logprobs_at(student, at)).squeeze(-1)
    return 2.0 / beta * torch.nn.functional.softplus(beta * behind)


def beta_at(position: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
    """Return constrained fine-tuning's beta_t at 1-based positions: BETAS, whose last value holds beyond."""
    return torch.tensor(BETAS, device=position.device)[(position - 1).clamp(0, len(BETAS) - 1)]
