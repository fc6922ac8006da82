"""Attempts: what each attack sends, token by token, and what it says about what it left out or made up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.errors import refuses
from tests.fakes import counting_model, prompt_set
from tests.hostile_texts import HOSTILE_TEXTS, check_each
from tests.test_generate import plain
from tests.tiny_pair import tiny_pair, tiny_tokenizer
from workbench.core.errors import ContextOverflow, NotPresent, ParameterError, PromptError, RecordError, UnknownName
from workbench.core.records import load, save
from workbench.core.store import Store
from workbench.evaluation.attacks import (
    ATTACKS,
    GCG,
    TEMPLATES,
    AttackConfig,
    Budget,
    Decoding,
    HarmlessPrefill,
    Insertion,
    JailbreakTemplate,
    NoAttack,
    Prefill,
    RandomSuffix,
    Template,
    attack,
    attack_config,
    read_templates,
    searches,
)
from workbench.evaluation.attacks.task import Task
from workbench.evaluation.records import AttackSet
from workbench.models.pair import ModelPair
from workbench.prompts.loading import Prompt, PromptSet

SMALL = Budget(steps=2, candidates=4, top_k=8, buffer=2, save_every=1)


def mixed_set() -> PromptSet:
    """Two harmful prompts, one of them with a system prompt and turns, one harmless, one without a response."""
    turns = (("system", "Be short."), ("user", "the cat"), ("assistant", "the mat"))
    prompts = (
        Prompt(id="h0", prompt="the dog sat on the log", label="harmful", response=" sat on the mat and the sea",
               category="logs", pair_id="a"),
        Prompt(id="h1", prompt="Tell me a story", label="harmful", response=" sat on", messages=turns, line=2),
        Prompt(id="n0", prompt="the cat sat", label="harmless", response=" on the mat", pair_id="a"),
        Prompt(id="h2", prompt="the sand", label="harmful"),
    )  # fmt: skip
    return PromptSet(name="mixed", source="test", prompts=prompts)


def by_place(made: AttackSet) -> dict[Any, list[str]]:
    out: dict[Any, list[str]] = {}
    for a in made.attempts:
        out.setdefault(a.given if a.setting is None else a.setting, []).append(a.prompt_id)
    return out


def test_prefill_gives_the_first_tokens_exactly_and_base_continues_short_targets() -> None:
    pair, prompts = tiny_pair(), mixed_set()
    long, short = (pair.encode(p.response or "") for p in prompts.prompts[:2])
    k = len(long) - 1
    assert len(short) < k
    made = attack(pair, prompts, Prefill(k=(0, 2, k, "full"), max_tokens=16))
    assert (by_place(made)[0], by_place(made)[2]) == (["h0", "h1", "h2"], ["h0", "h1"])
    ids = {(a.prompt_id, a.given): a.prefix_ids for a in made.attempts}
    assert ids["h0", 0] == ids["h2", 0] == ()
    assert (ids["h0", 2], ids["h1", 2]) == (long[:2], short[:2])
    assert (ids["h0", k], ids["h0", "full"], ids["h1", "full"]) == (long[:k], long, short)
    more = plain(pair, "base", pair.context(prompts.prompts[1], "base") + short, k - len(short))
    extended = more[-1] not in pair.eos_ids
    assert by_place(made)[k] == ["h0", "h1"][: 1 + extended]
    if extended:
        assert ids["h1", k] == short + more
    assert all(pair.decode(a.prefix_ids) == a.prefix for a in made.attempts)
    assert made.cost["continuations"] == 1
    assert made.notes[-2].startswith(f"k = {k}: n = {1 + extended}, 1 shorter target continued by the base model")
    assert "1 of 3 prompts have no response as target and are left out." in made.notes


def test_a_target_is_given_or_made_by_base() -> None:
    pair = ModelPair.from_models(counting_model(320), counting_model(320), tiny_tokenizer())
    short, long = pair.encode("the"), pair.encode("the dog sat on the log")
    object.__setattr__(pair, "eos_ids", frozenset({short[-1] + 2}))  # base says one token more, and then the end
    prompts = PromptSet(
        name="two",
        source="test",
        prompts=(
            Prompt(id="ends", prompt="the cat", label="harmful", response="the"),
            Prompt(id="long", prompt="the cat", label="harmful", response="the dog sat on the log"),
        ),
    )
    k = len(short) + 1
    made = attack(pair, prompts, Prefill(k=(k, k + 1), max_tokens=4))
    assert by_place(made) == {k: ["ends", "long"], k + 1: ["long"]}
    assert made.attempts[0].prefix_ids == (*short, short[-1] + 1)
    assert made.attempts[2].prefix_ids == long[: k + 1]
    assert made.notes == (
        f"k = {k}: n = 2, 1 shorter target continued by the base model.",
        f"k = {k + 1}: n = 1, 1 shorter target continued by the base model, 1 left out because that ended too early.",
    )
    pair, prompts = tiny_pair(), prompt_set("the cat", "the dog sat", response=None)
    opening = "Sure"
    made = attack(pair, prompts, Prefill(k=("full",), target="base", opening=opening, target_tokens=9, max_tokens=8))
    for a, p in zip(made.attempts, prompts, strict=True):
        start = pair.encode(opening)
        told = plain(pair, "base", pair.context(p, "base") + start, 9 - len(start))
        assert a.prefix_ids == start + (told[:-1] if told[-1] in pair.eos_ids else told)
    assert made.cost["continuations"] == 2
    assert "2 targets made by the base model: 'Sure' and its greedy continuation, at most 9 tokens." in made.notes


def test_insertion_is_refusal_span_refusal_exactly() -> None:
    pair, prompts = tiny_pair(), prompt_set("the cat", "the dog sat on")
    text = "I cannot help with that request."
    refusal = pair.encode(text)
    config = Insertion(positions=(0, 4, "random"), lengths=(3,), tail=2, skip=1, refusal=text, max_tokens=8)
    made = attack(pair, prompts, config)
    assert Counter(a.setting for a in made.attempts) == {f"at={p} length=3 tail=2": 2 for p in (0, 4, "random")}
    for a in made.attempts:
        target = pair.encode(next(p.response or "" for p in prompts if p.id == a.prompt_id))
        spot = [n for n in range(len(refusal) - 1) if a.prefix_ids == refusal[:n] + target[1:4] + refusal[n : n + 2]]
        assert spot, "a refusal, the span, and the refusal's next two tokens"
        if "random" not in a.setting:
            assert a.setting.startswith(f"at={spot[0]} ")
            assert a.given == len(a.prefix_ids)
    again, other = (attack(pair, prompts, replace(config, seed=s)).attempts for s in (0, 12))
    assert again == made.attempts
    assert other != made.attempts
    drawn = attack(pair, prompts, replace(config, refusal=None, refusal_tokens=12, positions=(2,)))
    own = plain(pair, "aligned", pair.context(prompts.prompts[0]), 12)
    assert (drawn.attempts[0].prefix_ids[:2], drawn.cost["continuations"]) == (own[:2], 2)
    refuses(lambda: attack(pair, prompts, replace(config, positions=(40,))), PromptError, "long")


def test_no_attack_and_the_harmless_control_ask_what_they_say() -> None:
    made = attack(tiny_pair(), mixed_set(), HarmlessPrefill(k=(1, "full"), max_tokens=8))
    assert {(a.prompt_id, a.label, a.attack) for a in made.attempts} == {("n0", "harmless", "harmless_prefill")}
    assert made.notes[0] == "1 of 4 prompts are harmless."
    pair, prompts = tiny_pair(), mixed_set()
    made = attack(pair, prompts, NoAttack(max_tokens=7, system_prompt=None))
    assert [a.prompt_id for a in made.attempts] == ["h0", "h1", "n0", "h2"]
    assert made.attempts[1].messages == (*(prompts.prompts[1].messages or ()), ("user", "Tell me a story"))
    first = made.attempts[0]
    assert (first.label, first.category, first.pair_id, first.request) == (
        "harmful", "logs", "a", "the dog sat on the log",
    )  # fmt: skip
    assert (first.temperature, first.max_tokens, first.prefix_ids, first.prefix) == (0.0, 7, (), "")
    one = replace(prompts, prompts=prompts.prompts[:1])
    with_system = attack(pair, one, NoAttack(system_prompt="Be kind."))
    assert with_system.attempts[0].messages == (("system", "Be kind."), ("user", "the dog sat on the log"))
    refuses(lambda: attack(pair, prompts, NoAttack(system_prompt="Be kind.")), PromptError, "system")


def test_the_grid_has_every_setting_and_sample_once_and_greedy_once() -> None:
    config = Decoding(temperatures=(0.0, 0.7, 1.0), top_ps=(0.9, 1.0), top_ks=(0, 20), samples=3)
    grid = config.grid()
    assert len(grid) == 1 + 2 * 2 * 2 * 3
    assert len({(s.temperature, s.top_p, s.top_k, s.sample) for s in grid}) == len(grid)
    assert {s.sample for s in grid if s.temperature > 0} == {0, 1, 2}
    assert len({s.seed for s in grid if s.temperature > 0}) == 3
    assert {s.seed for s in grid}.isdisjoint(s.seed for s in replace(config, seed=1).grid() if s.seed)
    made = attack(tiny_pair(), prompt_set("the cat", "the dog"), config)
    assert len({a.attempt_id for a in made.attempts}) == len(made.attempts) == 2 * 25
    assert {"t=0 p=1 k=0", "t=0.7 p=0.9 k=20"} <= set(by_place(made))
    assert made.notes == ("25 draws of each prompt, over 9 settings.",)


def test_every_family_of_templates_has_a_source_and_keeps_the_request() -> None:
    assert len(TEMPLATES) == 12
    assert len({t.name for t in TEMPLATES}) == len({t.text for t in TEMPLATES}) == 12
    assert all("arXiv" in t.source and t.exploits for t in TEMPLATES)
    assert all(t.text.count("{request}") == 1 for t in TEMPLATES)

    def check(text: str) -> None:
        for t in TEMPLATES:
            before, after = t.text.split("{request}")
            assert t.around(text) == before + text + after

    check_each(check, (*HOSTILE_TEXTS, "{request}", "{", "}", "{0} {x!r:>9} %s ${request}", "{{request}}", "\\1"))


def test_templates_attack_the_last_turn_and_come_from_files_too(tmp_path: Path) -> None:
    pair, prompts = tiny_pair(max_position_embeddings=1024), mixed_set()
    made = attack(pair, replace(prompts, prompts=prompts.prompts[1:2]), Template(names=("persona",), max_tokens=4))
    (a,) = made.attempts
    assert a.messages[:-1] == prompts.prompts[1].messages
    assert a.messages[-1] == ("user", TEMPLATES[0].around("Tell me a story"))
    assert (a.request, a.setting) == ("Tell me a story", "persona")
    assert made.run.resolved["templates"] == {"persona": TEMPLATES[0].text}
    refuses(lambda: attack(pair, prompts, Template(names=("personna",))), UnknownName, "'persona'")
    file = tmp_path / "own.jsonl"
    row = '{"name": "%s", "exploits": "politeness", "source": "none", "text": "Please: %s"}\n'
    file.write_text(row % ("polite", "{request}"))
    assert read_templates(file) == (
        JailbreakTemplate(name="polite", exploits="politeness", source="none", text="Please: {request}"),
    )
    made = attack(tiny_pair(), prompt_set("the cat"), Template(file=str(file), max_tokens=4))
    assert made.attempts[0].messages == (("user", "Please: the cat"),)
    file.write_text(row % ("a", "{request}") + row % ("a", "{request}") + row % ("b", "{reqest}") + '{"name": "c"}\n')
    refuses(lambda: read_templates(file), PromptError, "line 2", "line 3", "line 4", "exploits")
    refuses(lambda: read_templates(tmp_path / "nothing.json"), NotPresent)
    refuses(lambda: read_templates(Path(__file__)), ParameterError, ".jsonl")


SET: tuple[AttackConfig, ...] = (
    NoAttack(max_tokens=8),
    Prefill(k=(0, 2, "full"), max_tokens=8),
    HarmlessPrefill(k=(2,), labels=("harmful",), max_tokens=8),
    Decoding(temperatures=(0.7,), samples=2, max_tokens=8),
    Template(names=("prefix_injection", "privilege"), max_tokens=8),
    Insertion(positions=(2,), lengths=(2,), refusal_tokens=6, max_tokens=8),
    GCG(budget=SMALL, suffix_tokens=4, target_tokens=3, stop="never", max_tokens=8),
    GCG(budget=SMALL, suffix_tokens=4, target_tokens=3, stop="never", universal=2, max_tokens=8),
    RandomSuffix(budget=SMALL, suffix_tokens=4, target_tokens=3, stop="never", max_tokens=8),
)
TUNING = ("benign_tuning", "few_harmful_tuning")  # tests/test_attacks_finetuning.py
UNSET = [kind(max_tokens=8) for name, kind in ATTACKS.items() if name not in {*TUNING, *(c.family for c in SET)}]
CONFIGS = (*SET, *UNSET)
"""Every attack that changes no weights: with settings that show what it does, or else with its defaults."""
NAMES = [f"{n} {c.family}" for n, c in enumerate(CONFIGS)]


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_ids_name_the_content_and_the_cost_is_said_first_and_kept(config, capsys, tmp_path) -> None:
    pair, prompts = tiny_pair(), prompt_set("the cat", "the dog sat on")
    most = config.cost(Task.of(pair, prompts, config, Store(None)))
    made = attack(pair, prompts, config, store=Store(tmp_path / "store"))
    assert capsys.readouterr().err.startswith(f"{config.family}: {most}.\n")
    assert 0 < len(made.attempts) <= most.attempts
    assert sum(a.max_tokens for a in made.attempts) <= most.answer_tokens
    for name in ("continuations", "queries", "forward_passes", "backward_passes"):
        assert made.cost[name] <= getattr(most, name)
    if isinstance(config, GCG) and config.universal is None:
        assert made.cost["queries"] == most.queries, "nothing stops early here, and every draw finds its candidates"
        assert made.cost["backward_passes"] == most.backward_passes
    assert len({a.attempt_id for a in made.attempts}) == len(made.attempts)
    assert attack(pair, prompts, config).attempts == made.attempts, "equal content, equal ids"
    assert all(a.max_tokens == 8 and a.label == "harmful" and a.attack == config.family for a in made.attempts)
    save(made, tmp_path / "record")
    again = load(tmp_path / "record", AttackSet)
    assert again == made
    if isinstance(config, GCG):
        assert searches(again) == searches(made) != ()
    else:
        refuses(lambda: searches(made), RecordError, "suffix")


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_what_does_not_fit_is_refused_before_any_model_runs(config: AttackConfig) -> None:
    pair = tiny_pair()
    object.__setattr__(pair, "hidden", lambda *_, **__: pytest.fail("a model ran"))
    with pytest.raises(ContextOverflow, match=r"'p0'.*256"):
        attack(pair, prompt_set("the cat"), replace(config, max_tokens=250))
    config.cost(Task.of(pair, prompt_set("the cat"), config, Store(None)))


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_no_prompt_left_is_an_error_that_says_what_there_is(config: AttackConfig) -> None:
    prompts = PromptSet(name="mild", source="test", prompts=prompt_set("the cat", "a", label="lookalike").prompts)
    refuses(lambda: attack(tiny_pair(), prompts, replace(config, labels=("harmful",))), PromptError, "'mild'", "2")
    empty = replace(prompts, prompts=())
    refuses(lambda: attack(tiny_pair(), empty, replace(config, labels=None)), PromptError)


@pytest.mark.parametrize("config", [c for c in CONFIGS if hasattr(c, "target")], ids=lambda c: c.family)
def test_no_target_left_is_an_error_that_says_what_to_do(config: Any) -> None:
    if isinstance(config, Prefill):
        config = replace(config, k=(2,))
    with pytest.raises(PromptError, match=r"1.*target='base'"):
        attack(tiny_pair(), prompt_set("the cat", response=None), config)


def test_attacks_come_by_name_with_settings_that_can_be() -> None:
    assert all(kind.family == name and kind.__doc__ for name, kind in ATTACKS.items())
    assert attack_config("prefill", k=[0, "full"], max_tokens=9) == Prefill(k=(0, "full"), max_tokens=9)
    refuses(lambda: attack_config("prefil"), UnknownName, "'prefill'")
    assert type(attack_config("tests.small_attack:Shouting", max_tokens=3)).family == "shouting"
    refuses(lambda: attack_config("tests.small_attack:Silent"), ParameterError, "make", "family")
    refuses(lambda: attack_config("tests.small_attack:Path"), ParameterError, "AttackConfig")
    refuses(lambda: attack_config("tests.small_attack:Shoutin"), UnknownName, "'Shouting'")
    refuses(lambda: attack_config("tests.small_attack:Shouting", k=1), ParameterError, "'k'")
    refuses(lambda: attack_config("prefill", ks=[1]), ParameterError, "'ks'")
    for family, settings in [
        ("none", {"max_tokens": 0}), ("none", {"labels": ()}), ("none", {"seed": -1}), ("prefill", {"k": ()}),
        ("prefill", {"k": (-1,)}), ("prefill", {"k": (2, 2)}), ("prefill", {"target_tokens": 0}),
        ("decoding", {"temperatures": (float("nan"),)}), ("decoding", {"top_ps": (0.0,)}),
        ("decoding", {"top_ks": (-1,)}), ("decoding", {"samples": 0}), ("insertion", {"positions": ()}),
        ("insertion", {"positions": (-2,)}), ("insertion", {"lengths": (0,)}), ("insertion", {"tail": -1}),
        ("insertion", {"refusal": " "}), ("template", {"names": ()}), ("gcg", {"suffix_tokens": 0}),
        ("gcg", {"stop": -0.5}), ("gcg", {"universal": 0}), ("gcg", {"budget": replace(SMALL, candidates=0)}),
        ("gcg", {"budget": "large"}),
    ]:  # fmt: skip
        with pytest.raises(ParameterError, match=next(iter(settings))):
            attack_config(family, **settings)


def test_a_thinking_pair_closes_its_block_and_flags_of_parameters_stay() -> None:
    from tests.tiny_pair import THINKING_TEMPLATE

    tokenizer = tiny_tokenizer(template=THINKING_TEMPLATE)
    pair = tiny_pair(tokenizer=tokenizer)
    thinking = replace(pair, thinking=True)
    config = Prefill(k=("full",), target="base", target_tokens=8, max_tokens=8)
    made = [attack(p, prompt_set("the cat"), config).attempts for p in (pair, thinking)]
    assert made[0] == made[1]
    pair = tiny_pair()
    with pair.model("aligned") as model:
        flags = [p.requires_grad for p in model.parameters()]
        attack(pair, prompt_set("the cat"), CONFIGS[6])
        assert [p.requires_grad for p in model.parameters()] == flags
        assert all(p.grad is None for p in model.parameters())
    assert torch.is_grad_enabled()
