"""The formulas against slow, obvious references and scipy; the one-pass comparison against the formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.quantities import QUANTITIES
from workbench.tracing import metrics


def logits(rows: int = 6, vocab: int = 257, seed: int = 0, spread: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, vocab, generator=g) * spread
    return base, base + torch.randn(rows, vocab, generator=g)


def both(**kwargs: float) -> tuple[torch.Tensor, torch.Tensor]:
    base, aligned = logits(**kwargs)  # type: ignore[arg-type]
    return base.log_softmax(-1), aligned.log_softmax(-1)


def test_three_tokens_by_hand_and_scipys_numbers() -> None:
    base = torch.tensor([[0.5, 0.3, 0.2]]).log()
    aligned = torch.tensor([[0.2, 0.3, 0.5]]).log()
    kl = 0.2 * math.log(0.4) + 0.5 * math.log(2.5)
    m = [0.35, 0.3, 0.35]
    js = 0.5 * sum(p * math.log(p / q) for p, q in zip([0.5, 0.3, 0.2], m, strict=True)) * 2
    assert metrics.kl_nats(aligned, base).item() == pytest.approx(kl, abs=1e-6)
    assert metrics.js_nats(aligned, base).item() == pytest.approx(js, abs=1e-6)
    assert metrics.excess_mass(base, aligned).item() == pytest.approx(0.3, abs=1e-6)
    entropy = -(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2))
    assert metrics.entropy_nats(base).item() == pytest.approx(entropy, abs=1e-6)
    assert metrics.base_favored(base, aligned).tolist() == [[True, False, False]]
    assert metrics.rank(base, torch.tensor([2])).item() == 3
    base, aligned = both(vocab=5000)
    p, q = aligned.exp().double().numpy(), base.exp().double().numpy()
    assert np.allclose(metrics.kl_nats(aligned, base), scipy.stats.entropy(p, q, axis=-1), atol=1e-5)
    assert np.allclose(metrics.entropy_nats(base), scipy.stats.entropy(q, axis=-1), atol=1e-5)
    ours = metrics.kl_nats(aligned, base)
    theirs = torch.nn.functional.kl_div(base, aligned, log_target=True, reduction="none").sum(-1)
    assert torch.allclose(ours, theirs, atol=1e-5)
    js = (scipy.stats.entropy(p, (p + q) / 2, axis=-1) + scipy.stats.entropy(q, (p + q) / 2, axis=-1)) / 2
    assert np.allclose(metrics.js_nats(base, aligned), js, atol=1e-5)
    tv = 0.5 * np.abs(p - q).sum(-1)
    assert np.allclose(metrics.excess_mass(base, aligned), tv, atol=1e-5)
    ranks = scipy.stats.rankdata(-base.numpy(), axis=-1)
    observed = torch.tensor([0, 17, 256, 4, 5, 6])
    assert metrics.rank(base, observed).tolist() == [int(ranks[i, o]) for i, o in enumerate(observed.tolist())]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.floats(0.01, 60.0), vocab=st.integers(2, 300))
def test_laws_hold_for_any_two_distributions(seed: int, spread: float, vocab: int) -> None:
    base, aligned = both(rows=4, vocab=vocab, seed=seed, spread=spread)
    assert (metrics.kl_nats(base, base) == 0).all()
    assert (metrics.js_nats(base, base) == 0).all()
    assert (metrics.excess_mass(base, base) == 0).all()
    assert (metrics.kl_nats(aligned, base) >= 0).all()
    js = metrics.js_nats(base, aligned)
    assert ((js >= 0) & (js <= math.log(2))).all()
    assert torch.allclose(js, metrics.js_nats(aligned, base), atol=2e-6)
    tv = 0.5 * (base.exp() - aligned.exp()).abs().sum(-1)
    assert torch.allclose(metrics.excess_mass(base, aligned), tv, atol=1e-5)


def slow(
    base: torch.Tensor, aligned: torch.Tensor, observed: torch.Tensor, **options: object
) -> dict[str, torch.Tensor]:
    """Every scalar in float64 from the definitions."""
    lb, la = base.double().log_softmax(-1), aligned.double().log_softmax(-1)
    pb, pa = lb.exp(), la.exp()
    m = ((pb + pa) / 2).log()
    tv = (pb - pa).abs().sum(-1) / 2
    at = observed.unsqueeze(-1)
    space = str(options.get("space", "aligned_topk"))
    k = int(options.get("top_k", 100))  # type: ignore[call-overload]
    count = []
    for b, a in zip(lb.tolist(), la.tolist(), strict=True):
        order = {"a": sorted(range(len(a)), key=lambda v: -a[v]), "b": sorted(range(len(b)), key=lambda v: -b[v])}
        inside = {
            "aligned_topk": set(order["a"][:k]),
            "base_topk": set(order["b"][:k]),
            "union": set(order["a"][:k]) | set(order["b"][:k]),
            "full": set(range(len(a))),
        }[space]
        count.append(sum(b[v] > a[v] for v in inside))
    return {
        "kl_aligned_base_nats": (pa * (la - lb)).sum(-1),
        "kl_base_aligned_nats": (pb * (lb - la)).sum(-1),
        "js_nats": ((pa * (la - m)).sum(-1) + (pb * (lb - m)).sum(-1)) / 2,
        "excess_mass": tv,
        "retention": 1 - tv,
        "base_favored_count": torch.tensor(count),
        "entropy_base_nats": -(pb * lb).sum(-1),
        "entropy_aligned_nats": -(pa * la).sum(-1),
        "logprob_base_nats": lb.gather(-1, at).squeeze(-1),
        "logprob_aligned_nats": la.gather(-1, at).squeeze(-1),
        "logprob_shift_nats": (la - lb).gather(-1, at).squeeze(-1),
        "rank_base": 1 + (lb > lb.gather(-1, at)).sum(-1),
        "rank_aligned": 1 + (la > la.gather(-1, at)).sum(-1),
    }


@pytest.mark.parametrize("space", ["aligned_topk", "base_topk", "union", "full"])
@pytest.mark.parametrize("vocab", [7, 300, 20_011])
def test_one_pass_equals_the_slow_reference(space: str, vocab: int) -> None:
    base, aligned = logits(rows=8, vocab=vocab, seed=vocab)
    observed = torch.arange(8) % vocab
    want = slow(base, aligned, observed, space=space)
    got = metrics.compare(base.clone(), aligned.clone(), observed, count_space=space)  # type: ignore[arg-type]
    assert set(got.scalars) == set(QUANTITIES)
    ties = ((base.double().log_softmax(-1) - aligned.double().log_softmax(-1)).abs() < 5e-6).sum(-1)
    for name, values in want.items():
        off = (got.scalars[name].double() - values.double()).abs()
        # which of two values is larger is not known where they are equal to float32 rounding
        allowed = ties if name == "base_favored_count" else 1e-5 * (1 + values.double().abs())
        assert (off <= allowed).all(), name
    assert ties.sum() <= 5


@pytest.mark.parametrize("vocab", [100, 12_800, 12_837, 49_152])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_the_largest_entries_are_those_of_topk(vocab: int, k: int) -> None:
    g = torch.Generator().manual_seed(vocab)
    scores = torch.randn(6, vocab, generator=g)
    scores[1, -5:] = 9.0  # in the part that fills no whole block
    scores[2] = 0.0  # all equal
    scores[3, 20:84] = torch.arange(64.0)  # many of the largest in one block
    scores[4, :] = -torch.inf
    scores[4, 7] = 1.0
    found = scores.gather(-1, metrics.largest(scores, k))
    assert torch.equal(found, scores.topk(k, -1).values)
    assert all(len(set(row)) == k for row in metrics.largest(scores, k).tolist())


def test_one_pass_equals_the_single_formulas() -> None:
    base, aligned = logits(rows=5, vocab=900, seed=3)
    lb, la = base.log_softmax(-1), aligned.log_softmax(-1)
    observed = torch.tensor([1, 2, 3, 4, 5])
    for space in ("aligned_topk", "base_topk", "union", "full"):
        got = metrics.compare(base.clone(), aligned.clone(), observed, count_space=space, top_k=50)  # type: ignore[arg-type]
        count = metrics.base_favored_count(lb, la, space=space, top_k=50)  # type: ignore[arg-type]
        assert got.scalars["base_favored_count"].tolist() == count.tolist()
    assert torch.allclose(got.scalars["js_nats"], metrics.js_nats(lb, la), atol=1e-6)
    assert torch.allclose(got.scalars["kl_base_aligned_nats"], metrics.kl_nats(lb, la), atol=1e-5)


@pytest.mark.parametrize("ranking", ["mass", "log_ratio"])
@pytest.mark.parametrize("floor", [0.0, 1e-3, 1e-2])
@pytest.mark.parametrize(("vocab", "k"), [(400, 20), (5_000, 100)])
def test_detection_equals_its_definition(ranking: str, floor: float, vocab: int, k: int) -> None:
    """At 5,000 tokens more than k lie under the floor with a larger p_b - p_a than some above it."""
    base, aligned = logits(rows=5, vocab=vocab, seed=9)
    lb, la = base.log_softmax(-1), aligned.log_softmax(-1)
    allowed = (lb > la) & (lb.exp() >= floor)
    score = (lb.exp() - la.exp() if ranking == "mass" else lb - la).masked_fill(~allowed, -torch.inf)
    marked = torch.zeros_like(allowed).scatter(-1, score.topk(k).indices, True) & allowed
    got = metrics.compare(
        base.clone(),
        aligned.clone(),
        torch.zeros(5, dtype=torch.int64),
        ranking=ranking,
        top_k=k,
        base_floor=floor,  # type: ignore[arg-type]
    )
    gap = base.softmax(-1) - aligned.softmax(-1)
    for row in range(5):
        ids = [i for i in got.detected[row].tolist() if i >= 0]
        assert set(ids) == set(marked[row].nonzero().flatten().tolist())
        assert 0 < len(ids) == min(k, int(allowed[row].sum()))
        mass = [m for i, m in zip(got.detected[row].tolist(), got.detected_mass[row].tolist(), strict=True) if i >= 0]
        assert np.allclose(mass, gap[row, ids], atol=1e-6)


def test_one_model_with_itself_is_zero_and_offsets_do_not_matter() -> None:
    base, _ = logits(rows=6, vocab=20_011, seed=4)
    base[0, 3] = -torch.inf
    base[1, 5] = 200.0
    got = metrics.compare(base.clone(), base.clone(), torch.zeros(6, dtype=torch.int64))
    for name in ("kl_aligned_base_nats", "kl_base_aligned_nats", "js_nats", "excess_mass", "base_favored_count"):
        assert (got.scalars[name] == 0).all(), name
    base, _ = logits(vocab=1000)
    s = metrics.compare(base.clone(), base.clone(), torch.zeros(6, dtype=torch.int64), count_space="full").scalars
    for name in ("kl_aligned_base_nats", "kl_base_aligned_nats", "js_nats", "excess_mass", "base_favored_count"):
        assert (s[name] == 0).all(), name
    assert (s["logprob_shift_nats"] == 0).all()
    assert (s["retention"] == 1).all()
    base, aligned = logits()
    observed = torch.zeros(6, dtype=torch.int64)
    one = metrics.compare(base.clone(), aligned.clone(), observed).scalars
    two = metrics.compare(base + 100.0, aligned - 37.0, observed).scalars
    for name in QUANTITIES:
        assert torch.allclose(one[name].float(), two[name].float(), atol=1e-3), name


def test_divergences_stay_finite_and_nan_visible() -> None:
    base, aligned = torch.zeros(3, 500), torch.zeros(3, 500)
    base[0, 1], aligned[0, 2] = 300.0, 300.0  # certain of different tokens
    base[1, :250], aligned[1, 250:] = -torch.inf, -torch.inf  # nothing in common
    base[2, :] = torch.linspace(-200.0, 0.0, 500)
    got = metrics.compare(base.clone(), aligned.clone(), torch.zeros(3, dtype=torch.int64)).scalars
    assert all(torch.isfinite(v.double()).all() for v in got.values())
    assert torch.allclose(got["js_nats"][:2], torch.full((2,), math.log(2)), atol=1e-6)
    lb, la = base.double().log_softmax(-1), aligned.double().log_softmax(-1)
    m = ((lb.exp() + la.exp()) / 2).log()
    want = ((la.exp() * (la - m)).sum(-1) + (lb.exp() * (lb - m)).sum(-1)) / 2
    assert torch.allclose(got["js_nats"][2].double(), want[2], atol=1e-6)
    base, aligned = logits(rows=3, vocab=40)
    base[0, 3], aligned[0, 3] = -math.inf, 5.0
    aligned[1, 5] = math.nan
    base[2, 0] = math.inf
    s = metrics.compare(base, aligned, torch.zeros(3, dtype=torch.int64)).scalars
    assert all(s[n][0].isfinite() for n in QUANTITIES)
    assert s["kl_aligned_base_nats"][0] > 1
    assert s["logprob_aligned_nats"][1].isnan()
    assert s["logprob_base_nats"][1].isfinite()
    assert s["logprob_base_nats"][2].isnan()


def test_detections_and_shown_tokens_are_the_models_own() -> None:
    base = torch.zeros(1, 50)
    aligned = torch.zeros(1, 50)
    base[0, 7] = 1.0
    got = metrics.compare(base, aligned, torch.tensor([0]))
    assert [i for i in got.detected[0].tolist() if i >= 0] == [7]
    base, aligned = logits(rows=4, vocab=500, seed=2)
    got = metrics.compare(base.clone(), aligned.clone(), torch.zeros(4, dtype=torch.int64), shown_k=5)
    assert got.topk_base.tolist() == base.topk(5).indices.tolist()
    assert got.topk_aligned.tolist() == aligned.topk(5).indices.tolist()
    lb, la = base.log_softmax(-1), aligned.log_softmax(-1)
    assert torch.allclose(got.topk_base_logprobs[..., 0], lb.gather(-1, got.topk_base), atol=1e-5)
    assert torch.allclose(got.topk_base_logprobs[..., 1], la.gather(-1, got.topk_base), atol=1e-5)
    assert torch.allclose(got.topk_aligned_logprobs[..., 0], lb.gather(-1, got.topk_aligned), atol=1e-5)
