"""A penalised continuation while it is written: as decoded, stopped, branched; its tree; what truncation leaves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from tests.errors import refuses
from tests.fakes import counting_model, prompt_set
from tests.hostile_texts import EXECUTABLE
from tests.tiny_pair import tiny_adapter, tiny_pair, tiny_tokenizer
from workbench.core.errors import ContextOverflow, NonFiniteLogits, ParameterError
from workbench.core.passages import Passage
from workbench.core.records import load, save
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.contexts import DecodeConfig
from workbench.decoding.live import Writing, write
from workbench.decoding.penalised import decode
from workbench.decoding.records import Branch, BranchTree, Continuations, SamplingSurface
from workbench.decoding.truncation import surviving_excess_mass
from workbench.display import figures, views
from workbench.evaluation.branching import Candidate, candidates
from workbench.models.generation import GenerateConfig, truncated
from workbench.models.pair import ModelPair
from workbench.tracing import metrics

STRONG = PenaltyConfig(strength=3.0, gamma=1.0, shape="ramp", m=8)
START = Passage(name="one", aligned=(0, 41, 52, 63), response=(74, 85))


def config(penalty: PenaltyConfig = STRONG, **generation: Any) -> DecodeConfig:
    return DecodeConfig(penalty=penalty, generation=GenerateConfig(**{"max_tokens": 12, **generation}))


def assert_same(one: Continuations, other: Continuations) -> None:
    for f in dataclasses.fields(one):
        if f.name not in ("run", "prompt_set", "classroom_safe"):
            a, b = getattr(one, f.name), getattr(other, f.name)
            same = np.array_equal(a, b, equal_nan=a.dtype.kind == "f") if isinstance(a, np.ndarray) else a == b
            assert same, f.name


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> ModelPair:
    """Make a pair that is one model with an adapter."""
    pair = tiny_pair(shift=0.2)
    with pair.model("aligned") as aligned:
        adapter = tiny_adapter(tmp_path_factory.mktemp("adapter") / "safety", aligned, scale=0.3)
    return pair.with_expert(str(adapter))


@pytest.mark.parametrize("kind", ["two models", "adapter"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_written_is_what_decode_makes(kind: str, temperature: float, adapted: ModelPair) -> None:
    pair = adapted if kind == "adapter" else tiny_pair(shift=0.2)
    how = config(temperature=temperature, seed=3)
    seen: list[tuple[int, ...]] = []
    written = write(pair, START, how, on_token=lambda w: seen.append(w.ids))
    assert_same(written.record(), decode(pair, [START], how))
    assert seen == [written.ids[: n + 1] for n in range(len(written.ids))]


def test_it_is_a_record_at_every_token_and_stops_when_asked(tmp_path: Path) -> None:
    pair = tiny_pair(shift=0.2)
    whole = write(pair, START, config())
    stopped: list[Continuations] = []
    made = write(
        pair, START, config(), on_token=lambda w: stopped.append(w.record()), cancelled=lambda: len(stopped) == 4
    )
    assert (made.ids, [int(r.mask.sum()) for r in stopped]) == (whole.ids[:4], [1, 2, 3, 4])
    assert {r.continuations[0].stop for r in stopped} == {"stopped"} == {made.stop}
    save(stopped[2], tmp_path / "r")
    assert load(tmp_path / "r", Continuations) == stopped[2]
    nothing = write(pair, START, config(), cancelled=lambda: True)
    assert nothing.ids == ()
    assert nothing.record().token_ids.shape == (1, 0)


@pytest.mark.parametrize("count_from", ["response", "generated"])
def test_a_branch_keeps_what_was_before_and_goes_on_as_if_it_had_been_given(count_from: Any) -> None:
    pair = tiny_pair(shift=0.2)
    how = config(dataclasses.replace(STRONG, count_from=count_from))
    root = write(pair, START, how)
    other = 99
    made = write(pair, START, how, branch_of=root, position=6, token_id=other)
    assert made.ids[:4] == (*root.ids[:3], other)
    assert len(made.ids) <= 12
    record, before = made.record(), root.record()
    for name in ("strength", "leverage", "rank_base", "logprob_penalised_nats", "plain_ids", "position"):
        assert getattr(record, name)[0, :3].tolist() == getattr(before, name)[0, :3].tolist()
    # at the branching place the distributions are those of the root; only the token is another one
    for name in ("strength", "risk", "excess_mass", "leverage"):
        assert getattr(record, name)[0, 3] == pytest.approx(getattr(before, name)[0, 3], abs=1e-5)
    assert record.plain_ids[0, 3] == before.plain_ids[0, 3]
    # and what follows is what the models say after exactly these tokens, at those positions
    seen = dataclasses.replace(START, response=(*START.response, *made.ids[:4]))
    there = decode(pair, [seen], config(dataclasses.replace(STRONG, count_from="response"), max_tokens=8))
    if count_from == "response":
        assert made.ids[4:] == tuple(there.token_ids[0][there.mask[0]].tolist())
        assert np.allclose(record.strength[0, 4:], there.strength[0], atol=1e-5)
    else:
        alpha = 3.0 * (1 + record.risk[0]) * np.minimum(1.0, (np.arange(len(made.ids)) + 1) / 8)
        assert np.allclose(record.strength[0], alpha, atol=1e-4)


def test_a_branch_of_a_loaded_record_is_that_of_what_was_written() -> None:
    pair = tiny_pair(shift=0.2)
    root = write(pair, START, config())
    again = Writing.of(pair, START, config(), decode(pair, [START], config()))
    assert (again.ids, again.stop) == (root.ids, root.stop)
    assert_same(again.record(), root.record())
    one, two = (write(pair, START, config(), branch_of=w, position=5, token_id=7) for w in (root, again))
    assert_same(one.record(), two.record())


def test_what_cannot_be_written_is_refused_and_the_pair_stays_clean(adapted: ModelPair) -> None:
    pair = adapted
    root = write(pair, START, config())
    refuses(lambda: write(pair, START, config(PenaltyConfig(strength=-1.5))), ParameterError)
    for position in (None, 2, 2 + len(root.ids) + 1):
        with pytest.raises(ParameterError):
            write(pair, START, config(), branch_of=root, position=position, token_id=7)
    with pytest.raises(ParameterError, match="vocabulary"):
        write(pair, START, config(), branch_of=root, position=4, token_id=10**6)
    refuses(lambda: write(pair, Passage(name="long", aligned=(5,) * pair.context_length), config()), ContextOverflow)
    refuses(lambda: write(pair, START, config(), on_token=lambda w: 1 / 0), ZeroDivisionError)
    assert write(pair, START, config()).ids == root.ids


def test_nan_half_way_is_named_and_what_was_there_is_kept() -> None:
    bad = counting_model(320)
    with torch.no_grad():
        bad.model.embed_tokens.weight[63] = torch.nan
    pair = ModelPair.from_models(counting_model(320), bad, tiny_tokenizer())
    kept: list[Writing] = []
    with pytest.raises(NonFiniteLogits, match="aligned"):
        write(pair, Passage(name="n", aligned=(59,)), config(), on_token=kept.append)
    assert kept[-1].record().token_ids.tolist() == [[60, 61, 62, 63]]


def branch(parent: int | None, position: int | None = None, **more: Any) -> Branch:
    return Branch(**{**dict(
        parent=parent, position=position, token="·a", instead="·b", token_ids=(1, 2, 3), text="a b c", tail="b c",
        changed=1, stop="end",
    ), **more})  # fmt: skip


def small_tree(**more: Any) -> BranchTree:
    return BranchTree(**{**dict(
        name="p", prompt="Ask", label="harmful", classroom_safe=True, system_prompt=None, prefix="Sure",
        prefix_tokens=2, penalty="one_sided 1", judge="exact",
    ), **more})  # fmt: skip


def test_a_tree_grows_by_branches_and_is_read_from_its_root(tmp_path: Path) -> None:
    tree = small_tree().with_branch(branch(None, verdict="compliance", p_harmful=1.0))
    before = tree
    tree = tree.with_branch(
        branch(0, 4, verdict="refusal", p_harmful=0.0, probability_base=0.2, probability_aligned=0.1)
    )
    tree = tree.with_branch(branch(0, 3)).with_branch(branch(1, 5, unscored="not English"))
    assert len(before.branches) == 1, "a tree is frozen"
    assert tree.ordered() == ((0, 0), (2, 1), (1, 1), (3, 2))
    assert tree.children(0) == (2, 1)
    assert [b.base_favored for b in tree.branches] == [None, True, None, None]
    frame = tree.to_frame()
    assert (frame["depth"].tolist(), frame["tokens"].tolist()) == ([0, 1, 1, 2], [3] * 4)
    save(tree, tmp_path / "tree")
    assert load(tmp_path / "tree", BranchTree) == tree
    refuses(lambda: tree.with_branch(branch(9, 3)), ParameterError, "branch 9")
    for position in (2, 6, None):
        with pytest.raises(ParameterError, match="position"):
            tree.with_branch(branch(0, position))
    refuses(lambda: tree.with_branch(branch(None)), ParameterError, "root")
    refuses(lambda: small_tree().with_branch(branch(0, 3)), ParameterError, "parent")


def test_a_view_covers_harm_and_its_text_is_text() -> None:
    tree = small_tree().with_branch(branch(None, verdict="compliance", p_harmful=1.0, tail="secret root"))
    tree = tree.with_branch(branch(0, 4, unscored="not English", tail="secret branch", token="·word"))
    shown = views.branch_tree(tree)
    for word in (
        "secret root", "secret branch", "·word", "compliance", "unscored", "not English", "position 4",
        "judged by",
    ):  # fmt: skip
        assert word in shown.html, word
    assert [r["verdict"] for r in shown.rows] == ["compliance", "unscored"]
    hidden = views.branch_tree(dataclasses.replace(tree, classroom_safe=False))
    for form in (hidden.html, hidden.text, str(hidden.rows)):
        assert "secret" not in form
        assert "·word" not in form
    assert "compliance" in hidden.text
    assert "secret" in views.branch_tree(dataclasses.replace(tree, classroom_safe=False), harmful_text="blur").html
    assert "No continuation yet" in views.branch_tree(small_tree()).html
    for text in EXECUTABLE[:6]:
        tree = small_tree(prompt=text, penalty=text).with_branch(branch(None, tail=text, token=text))
        tree = tree.with_branch(branch(0, 3, tail=text, token=text, instead=text, unscored=text))
        html = views.branch_tree(tree).html
        assert "<img src=x" not in html
        assert "window.tripped = 1</script>" not in html


def test_candidates_come_by_their_likelihood_and_the_exact_judge_answers_one_text() -> None:
    pair, prompts = tiny_pair(shift=0.2), prompt_set("tell me")
    made = decode(pair, prompts, config())
    found = candidates(made, 1)
    assert all(isinstance(c, Candidate) for c in found)
    assert [c.likeliest for c in found] == sorted((c.likeliest for c in found), reverse=True)
    assert int(made.token_ids[0, 0]) in [c.token_id for c in found]
    (prompt,) = prompts
    answer = wb.TextJudge.of("exact", prompts)(prompt, "", "words")
    assert (answer.unscored, wb.TextJudge.of(None, prompts).name) == ("not a prompt of the embedded world", "refusal")


GRID = dict(temperatures=(0.0, 0.4, 1.0, 2.5), top_ps=(0.2, 0.7, 0.95, 1.0), top_ks=(1, 3, 10, 0))


def logprobs(seed: int, rows: int = 5, vocab: int = 30, scale: float = 2.0) -> torch.Tensor:
    return (torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale).log_softmax(-1)


def slowly(base: torch.Tensor, aligned: torch.Tensor, sampled: torch.Tensor) -> np.ndarray:
    """What `generate` can draw, token by token, and the excess mass that stands there."""
    out = np.zeros((4, 4, 4, len(base)))
    for i, t in enumerate(GRID["temperatures"]):
        for j, p in enumerate(GRID["top_ps"]):
            for n, k in enumerate(GRID["top_ks"]):
                for row in range(len(base)):
                    if t == 0.0:
                        left = [int(sampled[row].argmax())]
                    else:
                        how = GenerateConfig(temperature=t, top_p=p, top_k=int(k))
                        weights = truncated(sampled[row : row + 1], how)[0]
                        left = [v for v, w in enumerate(weights.tolist()) if w > 0.0]
                    out[i, j, n, row] = sum(max(0.0, float(base[row, v].exp() - aligned[row, v].exp())) for v in left)
    return out


def test_truncation_leaves_what_generate_draws_by_its_laws() -> None:
    base, aligned, sampled = logprobs(0), logprobs(1), logprobs(2)
    for q in (aligned, sampled):
        made = surviving_excess_mass(base, aligned, q, **GRID)  # type: ignore[arg-type]
        assert np.allclose(made.numpy(), slowly(base, aligned, q), atol=1e-6)
    base, aligned = logprobs(3, rows=40), logprobs(4, rows=40)
    made = surviving_excess_mass(base, aligned, aligned, **GRID)  # type: ignore[arg-type]
    whole = metrics.excess_mass(base, aligned)
    assert torch.allclose(made[1:, -1, -1], whole.expand(3, -1), atol=1e-6), "nothing cut off: the excess mass"
    assert (made[1:].diff(dim=1) >= -1e-6).all(), "more top-p leaves more"
    assert (made[1:].diff(dim=2) >= -1e-6).all(), "more top-k leaves more"
    assert (made[1:].diff(dim=0) >= -1e-6).all(), "a higher temperature leaves more"
    assert torch.equal(made[0], made[0, :1, :1].expand(4, 4, -1)), "greedy draws one token whatever is cut off"
    assert not surviving_excess_mass(base, base, base, **GRID).any()  # type: ignore[arg-type]
    ruled_out = aligned.masked_fill(base > aligned, -torch.inf)
    assert not surviving_excess_mass(base, aligned, ruled_out, **GRID).any()  # type: ignore[arg-type]
    for change, said in [
        (dict(temperatures=(-1.0,)), "temperature.*-1.0"),
        (dict(top_ps=(0.0,)), "top_p.*0.0"),
        (dict(top_ks=(-1,)), "top_k.*-1"),
        (dict(top_ks=()), "one"),
    ]:
        with pytest.raises(ParameterError, match=said):
            surviving_excess_mass(logprobs(0), logprobs(1), logprobs(1), **{**GRID, **change})


def test_the_surface_along_a_response_and_its_figure(tmp_path: Path) -> None:
    pair, prompts = tiny_pair(shift=0.2), prompt_set("tell me")
    arms = wb.continue_three_ways(pair, prompts, STRONG, prefix_tokens=3, max_tokens=6)
    surface = wb.sampling_surface(pair, arms["aligned"], prompts, STRONG, temperatures=(0.0, 1.0), top_ks=(4, 0))
    assert surface.arms == ("aligned", STRONG.title)
    assert surface.positions == int(arms["aligned"].mask.sum())
    assert surface.excess_mass == pytest.approx(float(arms["aligned"].excess_mass[0].mean()), abs=1e-5)
    assert surface.surviving_excess_mass[:, 1, -1, -1] == pytest.approx(surface.excess_mass, abs=1e-5)
    save(surface, tmp_path / "s")
    assert load(tmp_path / "s", SamplingSurface) == surface
    figure = figures.sampling_surface(surface)
    assert len(figure.data) == 4
    view = views.figure_view(figure)
    assert len(view.rows) == 2 * 2 * 5 * 2
    assert "0 to 1" in view.html
    one = wb.sampling_surface(pair, arms["aligned"], prompts, top_ks=(0,))
    assert len(figures.sampling_surface(one).data) == 1
    refuses(lambda: wb.sampling_surface(pair, arms["aligned"], prompt_set(), STRONG), ParameterError)
