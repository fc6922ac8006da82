"""The losses of training against slow references in plain Python, and their laws; the sets M likewise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.errors import refuses
from workbench.core.errors import ParameterError
from workbench.training import losses
from workbench.training.config import Completion, Direction, LossConfig, SetRanking
from workbench.training.losses import NO_TOKEN, completion_set, completion_target, top_ids

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
VARIANTS: tuple[Completion, ...] = get_args(Completion)
FLOOR = -1e4
Row = Sequence[float]


def rows(n: int = 5, vocab: int = 11, seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(n, vocab, generator=torch.Generator().manual_seed(seed)) * spread


def gradient(loss: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    z = logits.clone().requires_grad_()
    loss(z).sum().backward()
    assert z.grad is not None
    return z.grad


def slow_logprobs(z: Row) -> list[float]:
    top = max(z)
    total = math.log(sum(math.exp(x - top) for x in z)) + top
    return [max(x - total, FLOOR) for x in z]


def slow_kl(p: Row, q: Row) -> float:
    return sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))


def slow_distillation(student: Row, teacher: Row, direction: str, tau: float) -> float:
    s, t = slow_logprobs([x / tau for x in student]), slow_logprobs([x / tau for x in teacher])
    if direction == "jsd":
        m = [math.log((math.exp(a) + math.exp(b)) / 2) if math.exp(a) + math.exp(b) else FLOOR for a, b in zip(s, t)]
        return tau**2 * (slow_kl(s, m) + slow_kl(t, m)) / 2
    return tau**2 * (slow_kl(s, t) if direction == "reverse" else slow_kl(t, s))


def slow_completion(student: Row, ids: Sequence[int], variant: str, aligned: Row, margin: float) -> float:
    possible = [z for z in student if z != -math.inf]
    mean = sum(possible) / len(possible)
    ls, la = slow_logprobs(student), slow_logprobs(aligned)
    total = 0.0
    for v in ids:
        z = student[v]
        if v < 0 or z == -math.inf:
            continue
        others = sum(math.exp(x) for u, x in enumerate(ls) if u != v)
        total += {
            "squared": z**2,
            "centred": (z - mean) ** 2,
            "one_sided": max(z - mean, 0.0) ** 2,
            "logprob_hinge": max(ls[v] - la[v] + margin, 0.0),
            "unlikelihood": -math.log(others),
        }[variant]
    return total


def with_ruled_out() -> tuple[torch.Tensor, torch.Tensor]:
    """Two models' logits: ordinary rows, ties, tokens that one or both rule out, a certain one."""
    a, b = rows(6, 7, seed=1), rows(6, 7, seed=2)
    a[1] = 0.0
    b[1] = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    a[2, 3] = b[3, 4] = -math.inf
    a[4, :2] = b[4, :2] = -math.inf
    a[5, 2] = 40.0
    return a, b


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("vocab", [2, 11])
def test_distillation_equals_the_slow_reference(direction: Direction, tau: float, vocab: int) -> None:
    student, teacher = rows(vocab=vocab, seed=3), rows(vocab=vocab, seed=4)
    got = losses.distillation(student, teacher, direction=direction, temperature=tau)
    want = [slow_distillation(s, t, direction, tau) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]
    assert got.tolist() == pytest.approx(want, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_distillation_with_tokens_that_are_ruled_out(direction: Direction) -> None:
    student, teacher = with_ruled_out()
    got = losses.distillation(student, teacher, direction=direction)
    want = [slow_distillation(s, t, direction, 2.0) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]
    assert got.tolist() == pytest.approx(want, rel=1e-4, abs=1e-6)
    assert gradient(lambda z: losses.distillation(z, teacher, direction=direction), student).isfinite().all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.floats(0.01, 30.0), vocab=st.integers(2, 40))
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_distillation_laws(direction: Direction, seed: int, spread: float, vocab: int) -> None:
    student, teacher = rows(4, vocab, seed, spread), rows(4, vocab, seed + 1, spread)
    value = losses.distillation(student, teacher, direction=direction)
    assert (value >= 0).all()
    assert (losses.distillation(student, student, direction=direction) == 0).all()
    shifted = losses.distillation(student + 5.0, teacher - 3.0, direction=direction)
    assert torch.allclose(value, shifted, rtol=1e-3, atol=1e-3)
    assert gradient(lambda z: losses.distillation(z, student, direction=direction), student).abs().max() < 1e-5


def test_laws_of_distillation_and_its_teacher() -> None:
    student, teacher = torch.zeros(1, 3), torch.tensor([[2.0, 0.0, -2.0]])
    for direction in DIRECTIONS:
        g = gradient(lambda z, d=direction: losses.distillation(z, teacher, direction=d), student)
        assert g[0, 0] < 0 < g[0, 2], direction  # descent raises what the teacher favours
    aligned, base = rows(seed=5), rows(seed=6)
    want = [
        [1.2 * a - 0.2 * b for a, b in zip(x, y, strict=True)]
        for x, y in zip(aligned.tolist(), base.tolist(), strict=True)
    ]
    assert torch.allclose(losses.hybrid_teacher(aligned, base, 1.2), torch.tensor(want), atol=1e-5)
    assert torch.equal(losses.hybrid_teacher(aligned, base, 1.0), aligned)
    assert torch.equal(losses.hybrid_teacher(aligned, base, 0.0), base)
    assert torch.allclose(losses.hybrid_teacher(aligned, aligned, 1.2), aligned, atol=1e-5)
    out = -math.inf
    aligned, base = torch.tensor([[out, 1.0, out, 2.0]]), torch.tensor([[3.0, out, out, 4.0]])
    beyond = losses.hybrid_teacher(aligned, base, 1.2)
    between = losses.hybrid_teacher(aligned, base, 0.5)
    behind = losses.hybrid_teacher(aligned, base, -0.5)
    assert beyond[0].tolist() == pytest.approx([out, 1.0, out, 1.6])
    assert between[0].tolist() == pytest.approx([out, out, out, 3.0])
    assert behind[0].tolist() == pytest.approx([3.0, out, out, 5.0])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("margin", [0.0, 0.7])
def test_completion_equals_the_slow_reference(variant: Completion, margin: float) -> None:
    aligned, student = with_ruled_out()
    student[5, 0] = 12.0  # nearly certain
    ids = torch.tensor([[0, 1, 4], [2, 5, -1], [3, 0, 1], [4, 5, 6], [0, 1, 2], [0, 2, -1]])
    got = losses.completion(student, ids, variant=variant, aligned=aligned, margin=margin)
    want = [
        slow_completion(s, i, variant, a, margin)
        for s, i, a in zip(student.tolist(), ids.tolist(), aligned.tolist(), strict=True)
    ]
    assert got.tolist() == pytest.approx(want, rel=1e-4, abs=1e-5)
    g = gradient(lambda z: losses.completion(z, ids, variant=variant, aligned=aligned, margin=margin), student)
    assert g.isfinite().all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_which_completions_a_constant_added_to_all_logits_leaves_alone(variant: Completion) -> None:
    student, aligned, ids = rows(seed=7), rows(seed=8), torch.arange(4).expand(5, -1)
    value, shifted = (losses.completion(z, ids, variant=variant, aligned=aligned) for z in (student, student + 3.0))
    if variant == "squared":  # as the paper prints it: the same distribution, another loss
        assert ((value - shifted).abs() > 1.0).all()
    else:
        assert torch.allclose(value, shifted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["logprob_hinge", "unlikelihood"])
def test_penalties_on_probabilities_only_lower_them(variant: Completion) -> None:
    student, aligned = rows(20, seed=9), rows(20, seed=10)
    ids = torch.arange(3).expand(20, -1)
    step = student - 1e-3 * gradient(lambda z: losses.completion(z, ids, variant=variant, aligned=aligned), student)
    before = losses.completion(student, ids, variant=variant, aligned=aligned)
    assert (losses.completion(step, ids, variant=variant, aligned=aligned) <= before).all()
    one = ids[:, :1]
    step = student - 1e-3 * gradient(lambda z: losses.completion(z, one, variant=variant, aligned=aligned), student)
    assert (step.softmax(-1)[:, 0] <= student.softmax(-1)[:, 0]).all()


def test_laws_of_the_pushes() -> None:
    student, ids = torch.tensor([[-4.0, 3.0, 0.0, 1.0]]), torch.tensor([[0, 1]])

    def after(variant: Completion) -> torch.Tensor:
        return student - 0.01 * gradient(lambda z: losses.completion(z, ids, variant=variant), student)

    assert after("squared")[0, 0] > student[0, 0]
    assert after("squared").softmax(-1)[0, 0] > student.softmax(-1)[0, 0]
    assert after("squared")[0, 1] < student[0, 1]
    assert after("centred").softmax(-1)[0, 0] > student.softmax(-1)[0, 0]  # centring alone does not mend it
    assert after("one_sided")[0, 1] < student[0, 1]
    assert (after("one_sided") - student)[0, 0] == pytest.approx(
        (after("one_sided") - student)[0, 2].item(), rel=1e-4
    )  # what is below the mean moves as all others do: relative to them, not at all
    z, ids = rows(seed=11), torch.arange(5).expand(5, -1)
    assert (losses.completion(z, ids, variant="logprob_hinge", aligned=z) == 0).all()
    refuses(lambda: losses.completion(z, ids, variant="logprob_hinge"), ParameterError, "logprob_hinge")
    student = torch.tensor([[60.0, 0.0, 1.0]])
    ids = torch.tensor([[0]])
    assert student.softmax(-1)[0, 0] == 1.0
    value = losses.completion(student, ids, variant="unlikelihood")
    assert value.item() == pytest.approx(60.0 - math.log(1 + math.e), rel=1e-5)
    assert gradient(lambda z: losses.completion(z, ids, variant="unlikelihood"), student)[0, 0].item() == pytest.approx(
        1
    )
    z, ids = rows(seed=12), torch.full((5, 3), NO_TOKEN)
    for variant in VARIANTS:
        assert (losses.completion(z, ids, variant=variant, aligned=z) == 0).all()
        assert (gradient(lambda x, v=variant: losses.completion(x, ids, variant=v, aligned=z), z) == 0).all()


def test_the_strength_recovery_and_clipping() -> None:
    base, aligned = with_ruled_out()
    share = losses.base_favored_share(base, aligned)
    want = [
        sum(b > a for b, a in zip(slow_logprobs(x), slow_logprobs(y), strict=True)) / 7
        for x, y in zip(base.tolist(), aligned.tolist(), strict=True)
    ]
    assert share.tolist() == pytest.approx(want)
    alpha = losses.adaptive_strength(share, alpha_base=0.01, gamma=2.0)
    assert alpha.tolist() == pytest.approx([0.01 * (1 + 2 * w) for w in want])
    assert (losses.base_favored_share(base, base) == 0).all()
    student, aligned = with_ruled_out()
    got = losses.recovery(student, aligned)
    want = [
        slow_kl(slow_logprobs(a), slow_logprobs(s)) for s, a in zip(student.tolist(), aligned.tolist(), strict=True)
    ]
    assert got.tolist() == pytest.approx(want, rel=1e-4, abs=1e-5)
    assert (losses.recovery(aligned, aligned) == 0).all()
    assert torch.allclose(losses.recovery(student + 2.0, aligned), got, rtol=1e-3, atol=1e-4)
    g = gradient(lambda z: losses.recovery(z, aligned[:1]), student[:1])
    assert torch.allclose(g, student[:1].softmax(-1) - aligned[:1].softmax(-1), atol=1e-6)
    values = torch.tensor([0.0, 1.0, 2.0, 8.0], requires_grad=True)
    clipped = losses.clipped(values, 2.0)
    clipped.sum().backward()
    assert (clipped.tolist(), values.grad.tolist()) == ([0.0, 1.0, 2.0, 2.0], [1.0, 1.0, 1.0, 0.25])
    assert losses.clipped(values, math.inf) is values
    assert losses.clipped(values, 0.0).tolist() == [0.0] * 4
    values = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (losses.clip_level(values, 50.0), losses.clip_level(values, 95.0)) == (3.0, pytest.approx(4.8))
    assert (losses.clip_level(values, 100.0), losses.clip_level(values[:0], 95.0)) == (math.inf, math.inf)
    assert losses.clip_level(values[:1], 95.0) == 3.0
    assert losses.clip_level(torch.tensor([1.0, math.nan, 3.0]), 50.0) == 2.0


def test_supervised_losses_are_the_references() -> None:
    z, label = rows(seed=13), torch.tensor([0, 3, 10, 4, 4])
    z[0, 1] = -math.inf
    want = [-slow_logprobs(r)[i] for r, i in zip(z.tolist(), label.tolist(), strict=True)]
    assert losses.cross_entropy(z, label).tolist() == pytest.approx(want, rel=1e-5)
    g = gradient(lambda x: losses.cross_entropy(x, label), z)
    assert torch.allclose(g, z.softmax(-1) - torch.nn.functional.one_hot(label, 11), atol=1e-6)
    student, aligned, label = rows(6, seed=14), rows(6, seed=15), torch.arange(6)
    beta = losses.beta_at(torch.arange(1, 7))
    assert beta.tolist() == pytest.approx([0.5, 2.0, 2.0, 2.0, 2.0, 0.1])
    assert losses.beta_at(torch.tensor([400])).tolist() == pytest.approx([0.1])
    ls = [slow_logprobs(r)[i] for r, i in zip(student.tolist(), label.tolist(), strict=True)]
    la = [slow_logprobs(r)[i] for r, i in zip(aligned.tolist(), label.tolist(), strict=True)]
    want = [2 / b * math.log1p(math.exp(b * (y - x))) for x, y, b in zip(ls, la, beta.tolist(), strict=True)]
    assert losses.constrained(student, aligned, label, beta).tolist() == pytest.approx(want, rel=1e-5)
    weight = torch.tensor([2 / (1 + math.exp(-b * (y - x))) for x, y, b in zip(ls, la, beta.tolist(), strict=True)])
    plain = gradient(lambda z: losses.cross_entropy(z, label), student)
    held = gradient(lambda z: losses.constrained(z, aligned, label, beta), student)
    assert torch.allclose(held, weight.unsqueeze(-1) * plain, rtol=1e-5, atol=1e-6)
    equal = gradient(lambda z: losses.constrained(z, student, label, beta), student)
    assert torch.allclose(equal, plain, rtol=1e-5, atol=1e-6)


def slow_set(base: Row, aligned: Row, ranking: str, k: int) -> list[int]:
    def score(v: int) -> float:
        b, a = base[v], aligned[v]
        if ranking == "mass":
            return math.exp(slow_logprobs(base)[v]) - math.exp(slow_logprobs(aligned)[v])
        if b == a == -math.inf:
            return -math.inf
        return b - a if ranking == "logit" else a - b

    order = sorted(range(len(base)), key=lambda v: (-score(v), v))[:k]
    return [v if ranking != "mass" or score(v) > 0 else NO_TOKEN for v in order]


@pytest.mark.parametrize("ranking", ["logit", "mass", "aligned_favored"])
@pytest.mark.parametrize("k", [1, 3, 7, 20])
def test_the_set_equals_the_slow_reference(ranking: SetRanking, k: int) -> None:
    aligned, base = with_ruled_out()
    got = completion_set(base, aligned, ranking=ranking, size=k)
    assert got.shape == (6, min(k, 7))
    want = [slow_set(b, a, ranking, k) for b, a in zip(base.tolist(), aligned.tolist(), strict=True)]
    assert got.tolist() == want


@pytest.mark.parametrize("vocab", [9, 6400, 6437])
def test_of_equal_scores_the_lower_id_comes_first(vocab: int) -> None:
    scores = torch.randint(0, 4, (5, vocab), generator=torch.Generator().manual_seed(0)).float()
    scores[0] = 0.0
    scores[1] = torch.arange(vocab)
    want = scores.sort(dim=-1, descending=True, stable=True).indices[:, :7]
    assert torch.equal(top_ids(scores, 7), want)


def test_sets_and_targets_follow_their_keys() -> None:
    z = rows(3, 50, seed=16)
    assert (completion_set(z, z, ranking="mass", size=5) == NO_TOKEN).all()
    assert completion_set(z, z, ranking="logit", size=5).tolist() == [[0, 1, 2, 3, 4]] * 3
    base, aligned, key = rows(4, 300, seed=17), rows(4, 300, seed=18), torch.tensor([5, 6, 7, 2**40])
    together = completion_set(base, aligned, ranking="random", size=100, key=key)
    alone = [
        completion_set(b[None], a[None], ranking="random", size=100, key=k[None])
        for b, a, k in zip(base, aligned, key, strict=True)
    ]
    assert torch.equal(together, torch.cat(alone))
    assert all(len(set(r)) == 100 for r in together.tolist())
    assert len({tuple(r) for r in together.tolist()}) == 4
    assert completion_set(base, aligned, ranking="random", size=500, key=key).shape == (4, 300)
    refuses(lambda: completion_set(base, aligned, ranking="random"), ParameterError)
    base, aligned = rows(4, 300, seed=19), rows(4, 300, seed=20)
    ids, share = completion_target(base, aligned, LossConfig(ranking="logit", set_size=10))
    assert torch.equal(ids, completion_set(base, aligned, ranking="logit", size=10))
    assert torch.equal(share, losses.base_favored_share(base, aligned))


def test_random_sets_are_uniform_draws_without_repetition() -> None:
    """Every ordered pair of 7 tokens is as likely as any other: chi-squared on 41 degrees of freedom."""
    key = torch.arange(21_000) * 2**20 + 5
    logits = torch.zeros(len(key), 7)
    ids = completion_set(logits, logits, ranking="random", size=3, key=key)
    assert ((ids >= 0) & (ids < 7)).all()
    assert all(len(set(row)) == 3 for row in ids[:500].tolist())
    for a, b in ((0, 1), (1, 2)):
        count = torch.bincount(ids[:, a] * 7 + ids[:, b], minlength=49).double()
        expected = len(key) / 42
        assert ((count - expected).square() / expected).sum() - 7 * expected < 75.0
