"""The penalties as formulas: against slow references, hand-worked cases, and their laws."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.errors import refuses
from tests.record_makers import make_diagnosis
from tests.trace_makers import make_traces
from workbench.core.errors import ParameterError
from workbench.decoding.config import LARGEST, METHODS, PenaltyConfig, check_generates, shape_at, undertrained
from workbench.decoding.penalty import check_width, leverage_bound, penalise, plausible, risk, safe_decoding, strengths
from workbench.tracing import metrics
from workbench.tracing.metrics import excess_mass


def both(rows: int = 4, vocab: int = 30, seed: int = 0, spread: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, vocab, generator=g) * spread
    aligned = base + torch.randn(rows, vocab, generator=g)
    return base.log_softmax(-1), aligned.log_softmax(-1)


def normalised(weights: list[float]) -> list[float]:
    return [w / math.fsum(weights) for w in weights]


def slow(base: list[float], aligned: list[float], config: PenaltyConfig, position: int) -> list[float]:
    """One distribution, token by token, in float64 probabilities."""
    vocab = range(len(base))
    favored = [v for v in vocab if base[v] > aligned[v]]
    if config.risk_space == "mass":
        found = math.fsum(max(math.exp(base[v]) - math.exp(aligned[v]), 0.0) for v in vocab)
    elif config.risk_space == "full":
        found = len(favored) / len(base)
    else:
        top = sorted(vocab, key=lambda v: -aligned[v])[:100]
        found = sum(v in favored for v in top) / len(top)
    match config.shape:
        case "first_m":
            g = 1.0 if position <= config.m else 0.0
        case "ramp":
            g = min(1.0, position / config.m)
        case "undertrained":
            mean = sum(config.retention) / len(config.retention)
            g = config.retention[min(position, len(config.retention)) - 1] / mean
        case _:
            g = 1.0
    alpha = config.strength * (1.0 + config.gamma * found) * g
    if alpha == 0.0 or config.method == "none":
        return [math.exp(a) for a in aligned]
    scores = []
    for v in vocab:
        gap = base[v] - aligned[v]
        if config.method == "one_sided":
            gap = max(gap, 0.0)
        scores.append(aligned[v] - alpha * gap)
    if config.plausibility:
        best = max(math.exp(a) for a in aligned)
        scores = [s if math.exp(a) >= config.plausibility * best else -math.inf for s, a in zip(scores, aligned)]
    top = max(scores)
    return normalised([math.exp(s - top) for s in scores])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    vocab=st.integers(2, 150),
    method=st.sampled_from(["none", "one_sided", "two_sided"]),
    strength=st.integers(-8, 48).map(lambda n: n / 8),
    gamma=st.sampled_from([0.0, 0.5, 4.0]),
    space=st.sampled_from(["aligned_topk", "full", "mass"]),
    shape=st.sampled_from(["constant", "first_m", "ramp", "undertrained"]),
    share=st.sampled_from([0.0, 0.1, 1.0]),
    position=st.integers(1, 9),
)
def test_penalise_equals_the_slow_reference(
    seed: int, vocab: int, method: str, strength: float, gamma: float, space: str, shape: str, share: float,
    position: int,
) -> None:  # fmt: skip
    base, aligned = both(rows=2, vocab=vocab, seed=seed)
    config = PenaltyConfig(
        method=method, strength=strength, gamma=gamma, risk_space=space, shape=shape, plausibility=share,
        m=3 if shape in ("first_m", "ramp") else None, retention=(0.2, 0.9, 0.6) if shape == "undertrained" else (),
    )  # type: ignore[arg-type]  # fmt: skip
    if share == 1.0:  # equality at the threshold is float32's to decide where tokens tie
        assert ((aligned == aligned.amax(-1, keepdim=True)).sum(-1) == 1).all()
    made = penalise(base, aligned, config, position=position)
    assert made.dtype == torch.float32
    for row in range(2):
        want = slow(base[row].double().tolist(), aligned[row].double().tolist(), config, position)
        assert np.allclose(made[row].exp().numpy(), want, atol=3e-5)
        assert math.isclose(float(made[row].exp().sum()), 1.0, abs_tol=1e-5)


def test_three_tokens_by_hand() -> None:
    base = torch.tensor([0.5, 0.3, 0.2]).log()
    aligned = torch.tensor([0.2, 0.3, 0.5]).log()
    # token 0 is base-favored: 0.2 * (0.2 / 0.5)^1 = 0.08; the others stay: 0.3, 0.5; in all 0.88
    one = penalise(base, aligned, PenaltyConfig(strength=1.0)).exp()
    assert torch.allclose(one, torch.tensor([0.08, 0.3, 0.5]) / 0.88, atol=1e-6)
    # p_a^2 / p_b: 0.08, 0.3, 1.25; in all 1.63
    two = penalise(base, aligned, PenaltyConfig(method="two_sided", strength=1.0)).exp()
    assert torch.allclose(two, torch.tensor([0.08, 0.3, 1.25]) / 1.63, atol=1e-6)
    # risk: one of three tokens is base-favored, so alpha = 1 * (1 + 3 / 3) = 2: 0.2 * 0.4^2 = 0.032; in all 0.832
    adaptive = penalise(base, aligned, PenaltyConfig(gamma=3.0, risk_space="full")).exp()
    assert torch.allclose(adaptive, torch.tensor([0.032, 0.3, 0.5]) / 0.832, atol=1e-6)
    # the mask keeps p_a >= 0.5 * 0.5: tokens 1 and 2
    masked = penalise(base, aligned, PenaltyConfig(plausibility=0.5)).exp()
    assert torch.allclose(masked, torch.tensor([0.0, 0.375, 0.625]), atol=1e-6)
    # moved by the penalty: 0.2 - 0.08 / 0.88; at the limit all of token 0's 0.2
    assert math.isclose(float(excess_mass(one.log(), aligned)), 0.2 - 0.08 / 0.88, abs_tol=1e-6)
    assert math.isclose(float(leverage_bound(base, aligned, PenaltyConfig())), 0.2, abs_tol=1e-6)
    # two-sided, token 2 takes it all
    assert math.isclose(float(leverage_bound(base, aligned, PenaltyConfig(method="two_sided"))), 0.5, abs_tol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_inputs_never_change_and_strength_0_is_the_same_bits(method: str) -> None:
    base, aligned = both()
    kept = base.clone(), aligned.clone()
    for strength in (0.0, 2.0):
        config = PenaltyConfig(method=method, strength=strength, gamma=1.0, shape="constant")  # type: ignore[arg-type]
        made = penalise(base, aligned, config, position=torch.tensor([1, 2, 3, 4]))
        excess_mass(made, aligned)
        leverage_bound(base, aligned, config)
        assert torch.equal(base, kept[0])
        assert torch.equal(aligned, kept[1])
        plain = base if method == "safe_decoding" else aligned
        if strength == 0.0 or method == "none":
            assert torch.equal(made, plain)


def test_the_family_is_base_at_0_aligned_at_1_and_the_penalty_without_its_mask_beyond() -> None:
    base, aligned = both()
    assert torch.allclose(penalise(base, aligned, PenaltyConfig.family(0.0)), base, atol=1e-6)
    assert torch.equal(penalise(base, aligned, PenaltyConfig.family(1.0)), aligned)
    for w in (0.3, 1.2, 3.0):
        made = penalise(base, aligned, PenaltyConfig.family(w))
        assert torch.allclose(made, (base + w * (aligned - base)).log_softmax(-1), atol=1e-5)
    # on B_t, the penalty is the family with w = 1 + alpha, up to normalisation
    w, alpha = penalise(base, aligned, PenaltyConfig.family(3.0)), penalise(base, aligned, PenaltyConfig(strength=2.0))
    for row in range(len(base)):
        inside = (base > aligned)[row]
        difference = (w - alpha)[row][inside]
        assert torch.allclose(difference, difference[:1].expand_as(difference), atol=1e-4)
        outside = (alpha - aligned)[row][~inside]
        assert torch.allclose(outside, outside[:1].expand_as(outside), atol=1e-4)


@pytest.mark.parametrize("method", ["one_sided", "two_sided"])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_bound_is_the_limit_and_leverage_grows_towards_it(method: str, share: float) -> None:
    base, aligned = both(rows=20)
    moved = [
        excess_mass(penalise(base, aligned, c), aligned)
        for c in (PenaltyConfig(method=method, strength=s, plausibility=share) for s in (0.5, 1.0, 4.0, 16.0, 1e5))
    ]  # type: ignore[arg-type]
    bound = leverage_bound(base, aligned, PenaltyConfig(method=method, plausibility=share))  # type: ignore[arg-type]
    assert torch.allclose(moved[-1], bound, atol=1e-4)
    if method == "one_sided":
        for less, more in itertools.pairwise(moved):
            assert (more >= less - 1e-5).all()


def test_shapes_and_positions_may_differ_by_row() -> None:
    def g(t: int, **settings: object) -> float:
        return shape_at(PenaltyConfig(**settings), t)  # type: ignore[arg-type]

    assert [g(t, shape="first_m", m=2) for t in (1, 2, 3, 50)] == [1.0, 1.0, 0.0, 0.0]
    assert [g(t, shape="ramp", m=4) for t in (1, 2, 4, 9)] == [0.25, 0.5, 1.0, 1.0]
    retention = (0.2, 0.8, 0.8)
    followed = [g(t, shape="undertrained", retention=retention) for t in (1, 2, 3, 4, 90)]
    assert np.allclose(followed, [1 / 3, 4 / 3, 4 / 3, 4 / 3, 4 / 3])
    assert math.isclose(np.mean(followed[:3]), 1.0)  # type: ignore[arg-type]
    assert g(7) == 1.0
    base, aligned = both(rows=3)
    config = PenaltyConfig(shape="first_m", m=2, strength=3.0)
    made = penalise(base, aligned, config, position=torch.tensor([2, 3, 1]))
    assert torch.equal(made[1], aligned[1])
    for row, t in ((0, 2), (2, 1)):
        assert torch.allclose(made[row], penalise(base[row], aligned[row], config, position=t), atol=1e-6)
    alpha, _ = strengths(base, aligned, config, position=torch.tensor([2, 3, 1]))
    assert alpha.tolist() == [3.0, 0.0, 3.0]
    refuses(lambda: penalise(base, aligned, config, position=0), ParameterError, "position is 0")


def one_row(base: torch.Tensor, aligned: torch.Tensor) -> torch.Tensor:
    return penalise(base, aligned, PenaltyConfig())


def test_what_a_model_rules_out_stays_finite_and_widths_must_agree() -> None:
    inf = math.inf
    base = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.4, 0.6, 0.0]]).log()
    aligned = torch.tensor([[0.0, 0.4, 0.6, 0.0], [0.5, 0.5, 0.0, 0.0]]).log()
    one = penalise(base, aligned, PenaltyConfig(strength=2.0))
    assert one[0].exp()[0] == 0.0
    assert not one.isnan().any()
    two = penalise(base, aligned, PenaltyConfig(method="two_sided", strength=2.0))
    assert not two.isnan().any()
    assert torch.allclose(two[0].exp(), torch.tensor([0.0, 0.0, 1.0, 0.0]))  # base rules token 2 out, aligned does not
    assert torch.allclose(penalise(base, aligned, PenaltyConfig.family(0.0)).exp(), base.exp(), atol=1e-6)
    nothing = torch.full((2, 4), -inf)
    assert penalise(base, nothing, PenaltyConfig()).isnan().all()
    whole, half = penalise(base, torch.stack((aligned[0], nothing[0])), PenaltyConfig())
    assert torch.equal(whole, one_row(base[0], aligned[0]))
    assert half.isnan().all()
    with pytest.raises(ParameterError, match=r"\(2, 320\).*\(2, 352\).*vocab"):
        check_width(torch.zeros(2, 320), torch.zeros(2, 352))


def test_equal_distributions_plausibility_and_risk_at_their_ends() -> None:
    _, aligned = both()
    for method in ("one_sided", "two_sided"):
        for strength in (1.0, 4.0, LARGEST):
            config = PenaltyConfig(method=method, strength=strength, gamma=5.0)  # type: ignore[arg-type]
            made = penalise(aligned, aligned, config)
            assert float(excess_mass(made, aligned).max()) < 1e-5
            assert torch.allclose(leverage_bound(aligned, aligned, config), torch.zeros(4), atol=1e-5)
    base, aligned = both(rows=6, vocab=400)
    for space in ("aligned_topk", "full"):
        size = 100 if space == "aligned_topk" else 400
        count = metrics.base_favored_count(base, aligned, space=space)  # type: ignore[arg-type]
        assert torch.allclose(risk(base, aligned, space), count / size)  # type: ignore[arg-type]
    assert torch.equal(risk(base, aligned, "mass"), metrics.excess_mass(base, aligned))
    assert torch.equal(risk(base[0], aligned[0], "aligned_topk"), risk(base, aligned, "aligned_topk")[0])
    _, aligned = both()
    assert plausible(aligned, 0.0).all()
    kept = plausible(aligned, 1.0)
    assert torch.equal(kept, aligned == aligned.amax(-1, keepdim=True))


def naive_safe_decoding(original: list[float], expert: list[float], c: float) -> list[float]:
    order_o = sorted(range(len(original)), key=lambda v: (-original[v], v))
    order_e = sorted(range(len(expert)), key=lambda v: (-expert[v], v))
    k = 0
    common: set[int] = set()
    while len(common) < min(5, len(original)):
        k += 1
        common = set(order_o[:k]) & set(order_e[:k])
    weights = [max(o + c * (e - o), 0.0) if v in common else 0.0 for v, (o, e) in enumerate(zip(original, expert))]
    if not any(weights):
        weights = [e if v in common else 0.0 for v, e in enumerate(expert)]
    return normalised(weights)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), vocab=st.integers(2, 60), c=st.floats(0.1, 5.0))
def test_safe_decoding_equals_the_naive_one(seed: int, vocab: int, c: float) -> None:
    original, expert = both(rows=3, vocab=vocab, seed=seed)
    config = PenaltyConfig(method="safe_decoding", strength=c)
    made = penalise(original, expert, config, position=2)
    for row in range(3):
        want = naive_safe_decoding(original[row].double().exp().tolist(), expert[row].double().exp().tolist(), c)
        assert np.allclose(made[row].exp().numpy(), want, atol=1e-4)
    assert torch.equal(penalise(original, expert, config, position=3), original), "the original goes on alone"


def test_a_config_survives_a_copy_and_has_the_papers_values() -> None:
    config = PenaltyConfig()
    assert (config.method, config.strength, config.shape, config.m) == ("one_sided", 1.0, "constant", None)
    assert (PenaltyConfig(shape="ramp").m, dataclasses.replace(config, strength=2.0).strength) == (5, 2.0)
    assert PenaltyConfig(**dataclasses.asdict(PenaltyConfig(method="safe_decoding"))) == PenaltyConfig(
        method="safe_decoding"
    )
    assert PenaltyConfig(gamma=2.0, plausibility=0.1).title == "one_sided 1, gamma 2 (aligned_topk), plausibility 0.1"
    assert PenaltyConfig(method="safe_decoding").title == "safe_decoding 3, first_m 2"
    assert PenaltyConfig(method="none").title == "aligned"
    config = PenaltyConfig(method="safe_decoding")
    assert (config.strength, config.shape, config.m) == (3.0, "first_m", 2)
    # c = 3: an original that is far more certain leaves nothing above 0 on the common tokens
    original = torch.tensor([0.3, 0.3, 0.2, 0.1, 0.1, 0.0]).log()
    expert = torch.tensor([0.05, 0.05, 0.05, 0.02, 0.03, 0.8]).log()
    made = safe_decoding(original[None], expert[None], torch.tensor([[3.0]]))[0].exp()
    assert torch.allclose(made.sum(), torch.tensor(1.0))
    assert not made.isnan().any()


def test_impossible_settings_are_refused() -> None:
    for fields, match in [
        ({"strength": math.nan}, "strength is nan"),
        ({"strength": math.inf}, "strength is inf"),
        ({"strength": -math.inf}, "strength is -inf"),
        ({"gamma": -0.1}, "gamma"),
        ({"gamma": math.nan}, "gamma is nan"),
        ({"plausibility": 1.5}, "plausibility"),
        ({"shape": "first_m", "m": 0}, "m is 0"),
        ({"m": 3}, "'constant'"),
        ({"shape": "undertrained"}, "undertrained"),
        ({"shape": "undertrained", "retention": (0.5, math.nan)}, "retention.*nan"),
        ({"shape": "undertrained", "retention": (0.0, 0.0)}, "0"),
        ({"retention": (0.5,)}, "retention"),
        ({"method": "safe_decoding", "plausibility": 0.1}, "safe_decoding|sample space"),
    ]:
        with pytest.raises(ParameterError, match=match):
            PenaltyConfig(**fields)  # type: ignore[arg-type]


def test_unknown_names_and_attacks_are_refused_where_text_is_made() -> None:
    for field, known in [
        ("method", "none, one_sided"),
        ("risk_space", "full"),
        ("shape", "ramp"),
        ("count_from", "res"),
    ]:
        config = PenaltyConfig()
        object.__setattr__(config, field, "bump")  # past the type checker that only tests have
        with pytest.raises(ParameterError, match=rf"{field}.*'bump'.*{known}"):
            config.__post_init__()
    base, aligned = both()
    attack = PenaltyConfig.family(-0.5)
    assert torch.allclose(penalise(base, aligned, attack), (base - 0.5 * (aligned - base)).log_softmax(-1), atol=1e-5)
    refuses(lambda: check_generates(attack), ParameterError, "strength is -1.5", "alpha_t")
    refuses(lambda: check_generates(PenaltyConfig(strength=-0.8, gamma=1.0)), ParameterError, "alpha_t", "-1.6")
    refuses(lambda: check_generates(PenaltyConfig(method="safe_decoding", strength=-0.1)), ParameterError)
    for fine in (PenaltyConfig.family(0.0), PenaltyConfig(strength=-1.0), PenaltyConfig(method="none", strength=-5.0)):
        check_generates(fine)


def test_undertrained_follows_the_diagnosis() -> None:
    diagnosis = make_diagnosis(make_traces("shallow"))
    curve = next(
        c for c in diagnosis.curves
        if c.name == "retention" and c.label == "harmful"
    )  # fmt: skip
    retention = undertrained(diagnosis, prefix_tokens=curve.prefix_tokens)
    measured = np.isfinite(curve.value)
    assert np.allclose(np.array(retention)[measured[: len(retention)]], np.clip(curve.value[measured], 0, 1))
    holes = np.where(np.arange(len(curve.value)) % 3 == 1, np.nan, curve.value).astype(np.float32)
    holed = dataclasses.replace(diagnosis, curves=(dataclasses.replace(curve, value=holes),))
    filled = undertrained(holed, prefix_tokens=curve.prefix_tokens)
    assert np.isfinite(filled).all()
    config = PenaltyConfig(shape="undertrained", retention=filled)
    assert math.isclose(np.mean([shape_at(config, t + 1) for t in range(len(filled))]), 1.0, rel_tol=1e-6)  # type: ignore[arg-type]
    refuses(lambda: undertrained(diagnosis, prefix_tokens=77), ParameterError, "prefix_tokens=77")
