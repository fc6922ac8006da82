"""Attacks through the weights: rows, the arm that answers, what stays as it was, and the constrained loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.errors import refuses
from workbench.core.errors import NotPresent, PairError, ParameterError, PromptError
from workbench.core.records import load, save
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.model import PenalisedModel
from workbench.evaluation.attacks import BenignTuning, FewHarmfulTuning, ModelArm, answer, attack, attack_config
from workbench.evaluation.attacks.finetuning import fine_tuned
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.prompts.loading import PromptConfig, PromptSet, load_prompts
from workbench.training.config import TrainConfig, WatchSettings, arm_named
from workbench.training.distil import distil

SHORT: dict[str, Any] = dict(steps=2, batch_size=2, rank=4, max_tokens=8)


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return load_pair(PairConfig(preset="embedded"))


@pytest.fixture(scope="module")
def prompts() -> PromptSet:
    return load_prompts(PromptConfig(source="embedded", limit=6))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "tuning-cache"))


def test_every_arm_is_tuned_in_its_own_weights_and_left_as_it_was(pair: ModelPair, prompts: PromptSet) -> None:
    made = attack(pair, prompts, BenignTuning(learning_rate=5e-3, **SHORT))
    aligned = ModelArm(pair=pair, which="aligned")
    before = answer(aligned, made_plain(made))
    store = Store(None)
    tuned = fine_tuned(aligned, made, store)
    assert (tuned.name, tuned.which) == ("aligned", "aligned")
    assert tuned.pair.fingerprint != pair.fingerprint
    context = pair.context(prompts.prompts[0], "aligned")
    ids = torch.tensor([context])
    with torch.inference_mode():
        assert not torch.equal(tuned.pair.hidden("aligned", ids), pair.hidden("aligned", ids))
        assert torch.equal(tuned.pair.hidden("base", ids), pair.hidden("base", ids))
    assert answer(aligned, made).completions == answer(tuned, made_plain(made)).completions
    assert answer(aligned, made_plain(made)).completions == before.completions
    penalised = PenalisedModel(pair, PenaltyConfig(strength=1.0), name="penalty 1")
    under = fine_tuned(penalised, made, store)
    assert (under.name, under.penalty) == ("penalty 1", penalised.penalty)
    assert under.pair.fingerprint == tuned.pair.fingerprint
    base = ModelArm(pair=pair, which="base")
    assert fine_tuned(base, made, store) is base
    assert fine_tuned(aligned, made_plain(made), store) is aligned


def made_plain(made: Any) -> Any:
    """Return the same attempts as an attack that leaves weights alone."""
    return replace(made, attack="none")


def test_plain_prompts_are_asked_and_saved_attempts_answered_alike(pair, prompts, tmp_path) -> None:
    made = attack(pair, prompts, BenignTuning(**SHORT))
    asked = [p for p in prompts if p.label == "harmful"]
    assert [a.request for a in made.attempts] == [p.prompt for p in asked]
    assert {a.setting for a in made.attempts} == {"2 steps"}
    assert not any(a.prefix_ids for a in made.attempts)
    assert "harmless rows of 'embedded'" in " ".join(made.notes)
    few = attack(pair, prompts, FewHarmfulTuning(n_harmful=3, constrained=True, **SHORT))
    assert {a.setting for a in few.attempts} == {"2 steps, constrained, 3 harmful rows"}
    assert "and 3 harmful rows of 'embedded'" in " ".join(few.notes)
    made = attack(pair, prompts, FewHarmfulTuning(n_harmful=2, **SHORT))
    again = load(save(made, tmp_path / "attempts"), type(made))
    aligned = ModelArm(pair=pair, which="aligned")
    assert answer(aligned, again).completions == answer(aligned, made).completions


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (dict(steps=0), "steps"),
        (dict(rank=0), "rank"),
        (dict(learning_rate=float("nan")), "learning_rate"),
        (dict(batch_size=0), "batch_size"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ParameterError, match=word):
        attack_config("benign_tuning", **settings)
    refuses(lambda: FewHarmfulTuning(n_harmful=0), ParameterError, "n_harmful")
    refuses(lambda: FewHarmfulTuning(harmful_share=1.0), ParameterError, "harmful_share")


def test_rows_are_train_topics_and_must_be_there(pair: ModelPair, prompts: PromptSet) -> None:
    texts = FewHarmfulTuning(n_harmful=4).texts(pair, "embedded")
    asked = {p.prompt for p in load_prompts(PromptConfig(source="embedded"))}
    assert len(texts.harmful) == 4
    assert len(texts.utility) >= 40
    assert not asked & {t.prompt for t in (*texts.harmful, *texts.utility)}
    assert all(t.response[-1] in pair.eos_ids for t in texts.utility)
    ((source, other),) = BenignTuning().rows_of("my own prompts").values()
    assert (source, len(other)) == ("questions", 30)
    train = load_prompts(PromptConfig(source="embedded", split="train"))
    refuses(lambda: attack(pair, train, FewHarmfulTuning(**SHORT)), PromptError)
    refuses(lambda: attack(pair, prompts, BenignTuning(rows="rows.jsonl")), NotPresent, "'rows.jsonl'")
    with pytest.raises(PromptError, match=r"10.*n_harmful is 49"):
        attack(pair, prompts, FewHarmfulTuning(n_harmful=49, harmful_rows="everyday"))


def test_a_tuned_model_is_drawn_back_to_the_first_one(pair: ModelPair, tmp_path: Any) -> None:
    texts = BenignTuning().texts(pair, "embedded")
    few = replace(texts, utility=texts.utility[:24])
    watch = WatchSettings(film_every=0, preflight=False)
    how = TrainConfig(arm=arm_named("benign_tuning"), steps=6, batch_size=4, harmful_share=0.0, watch=watch)
    how = replace(how, arm=replace(how.chosen, optimiser=replace(how.chosen.optimiser, learning_rate=5e-3)))
    away = distil(pair, few, how, out=tmp_path / "away")
    gentle = replace(how.chosen.optimiser, learning_rate=2e-3)
    again = replace(how, arm=replace(arm_named("pull_back"), optimiser=gentle), steps=12)
    back = distil(pair, few, again, out=tmp_path / "back", start=away.path)
    losses = [s.loss for s in back.history]
    assert losses[0] > 0.003, "it begins away from aligned"
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    assert distil(pair, few, again, out=tmp_path / "fresh").history[0].loss == pytest.approx(0.0, abs=1e-5)
    refuses(lambda: distil(pair, few, again, out=tmp_path / "back"), ParameterError)
    refuses(lambda: distil(pair, few, again, out=tmp_path / "x", start=tmp_path), NotPresent, "adapter")
    narrow = replace(again, arm=replace(again.chosen, lora=replace(again.chosen.lora, rank=2)))
    refuses(lambda: distil(pair, few, narrow, out=tmp_path / "y", start=away.path), PairError, "r = 32", "r = 2")


def test_the_constrained_loss_holds_the_first_token_back(pair: ModelPair, tmp_path: Any) -> None:
    texts = FewHarmfulTuning(n_harmful=4).texts(pair, "embedded")
    few = replace(texts, utility=texts.utility[:8])
    context, opening = torch.tensor([few.harmful[0].aligned]), few.harmful[0].response[0]
    watch = WatchSettings(film_every=0, preflight=False)

    def opens_with(one: ModelPair) -> float:
        with torch.inference_mode():
            last = one.hidden("aligned", context)[0, -1]
            return float(one.logits("aligned", last[None]).log_softmax(-1)[0, opening])

    found = {}
    for name in ("few_harmful_tuning", "few_harmful_tuning_constrained"):
        arm = arm_named(name)
        arm = replace(arm, optimiser=replace(arm.optimiser, learning_rate=3e-4))
        made = distil(pair, few, TrainConfig(arm=arm, steps=12, batch_size=4, watch=watch), out=tmp_path / name)
        assert {"compliance", "utility"} == set(made.history[0].parts)
        found[name] = opens_with(pair.with_aligned(made.path))
    plain, held = found.values()
    assert opens_with(pair) + 1.0 < held < plain - 0.2, "nats: the attack works, and less where it is constrained"
