"""The model card: results, sources of the data, w_t, start, what it is for; names stay text, and its line loads."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import mistune
import pytest
import torch
import yaml

from tests.errors import refuses
from tests.hostile_texts import HOSTILE_TEXTS, check_each
from tests.test_train_loop import config, ids, texts
from tests.tiny_pair import save_model, tiny_models, tiny_pair, tiny_tokenizer
from tests.trace_makers import run_record
from workbench.core.errors import ParameterError
from workbench.core.legible import sentence
from workbench.core.records import Estimate
from workbench.core.store import Store
from workbench.display import views
from workbench.evaluation.arms import CompareConfig, compare_arms
from workbench.evaluation.card import card_results
from workbench.evaluation.metrics import METRICS
from workbench.evaluation.records import ArmComparison, Score, Scorecard
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.models.sources import quiet_libraries
from workbench.prompts.loading import PromptConfig, PromptSet, load_prompts
from workbench.training import card
from workbench.training.adapter import export
from workbench.training.config import ARMS, FURTHER, TrainConfig, WatchSettings
from workbench.training.data import TrainingDataConfig, training_texts
from workbench.training.distil import distil, training_key
from workbench.training.launch import Job
from workbench.training.records import Adapter
from workbench.training.rows import TrainingTexts, prepared
from workbench.training.student import ADAPTER_WEIGHTS

HOSTILE = 'evil_*set* <script>x()</script> [a](javascript:x) | b | ![i](https://e.invalid/i.png)\n\n## Results\n\n"`'
ARMS_ASKED = ("aligned", "recovery", "refusal_sft")


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return tiny_pair("llama")


@pytest.fixture(scope="module")
def trained(pair: ModelPair, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    given = replace(texts(), sources=("Prompts: made up.",))
    return distil(pair, given, config(steps=1, seed=3), out=tmp_path_factory.mktemp("trained") / "a")


def card_of(adapter: Adapter) -> str:
    return (Path(adapter.path) / "README.md").read_text("utf-8")


def section(text: str, name: str) -> str:
    """Return what stands under a heading of a card."""
    return re.split(r"\n## ", text.partition(f"\n## {name}\n")[2])[0].strip()


def numbers(arms: tuple[str, ...] = ARMS_ASKED) -> tuple[Score, ...]:
    """Return made-up numbers of every kind that a comparison has, each arm's and place's another."""
    asked: list[tuple[str, str, Any]] = [("asr", "none", 0), *(("asr", "prefill", k) for k in (5, 20, "full"))]
    asked += [("refusal", "prefill", 5), ("refusal", "prefill", 20)]
    asked += [("over_refusal", "none", 0), ("harmless_right", "none", 0)]
    asked += [("continued", "harmless_prefill", k) for k in (5, 20)]
    made = []
    for a, arm in enumerate(arms):
        found = [(m, at, c, judge) for judge in ("exact", "refusal") for m, at, c in asked]
        found += [("gibberish", "prefill", c, "gibberish") for c in (5, 20)]
        for n, (metric, attack, given, judge) in enumerate(found):
            value = (n + 1 + 0.25 * a) / 40
            estimate = Estimate(value=value, low=value / 2, high=min(1.0, value * 1.5), n=30 + n, unit="1")
            kind: dict[str, Any] = dict(arm=arm, metric=metric, attack=attack, given=given, judge=judge)
            kind |= dict(label=METRICS[metric].label, setting=None, worst_of=None)
            made.append(Score(**kind, category=None, estimate=estimate, unscored={}))
    return tuple(made)


def scorecard(scores: tuple[Score, ...]) -> Scorecard:
    return Scorecard(run=run_record(), scores=scores, comparisons=(), sentences=(), notes=())


def comparison(adapter: Adapter, **changes: Any) -> ArmComparison:
    """Return a made-up comparison in which an adapter was asked."""
    fields: dict[str, Any] = dict(
        run=replace(run_record("compare_arms"), fingerprint=adapter.fingerprint), prompt_set="made up",
        classroom_safe=True, arms=ARMS_ASKED, seeds=(3,),
        budgets={arm: f"{n} steps" for n, arm in enumerate(ARMS_ASKED)},
        adapters={"recovery": (adapter.path,), "refusal_sft": ("elsewhere",)},
        evaluations=(),
        scorecard=scorecard(numbers()),
        leaks=(),
        notes=(),
    )  # fmt: skip
    return ArmComparison(**{**fields, **changes})


def table(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """Return a card's table of results by what was measured and judge; each line by its headings."""
    head, _, *lines = (
        [c.strip().replace("\\", "") for c in x.strip("|").split(" | ")] for x in text.splitlines() if x[:1] == "|"
    )
    rows = [dict(zip(head, line, strict=True)) for line in lines]
    return {(row["measured"], row["judge"]): row for row in rows}


def assert_says(cell: str, estimate: Estimate) -> None:
    """Compare a cell with a number, its bounds and n, to the decimal that is printed."""
    assert estimate.value is not None
    found = re.match(r"([\d.]+) % \[([\d.]+), ([\d.]+)\] \(n = (\d+)\)", cell)
    assert found, cell
    expected = [100 * x for x in (estimate.value, estimate.low or 0.0, estimate.high or 0.0)]
    assert ([float(x) for x in found.groups()[:3]], int(found[4])) == (pytest.approx(expected, abs=0.051), estimate.n)


def test_an_exported_card_has_every_arms_numbers_with_interval_n_judge_and_direction(trained, tmp_path) -> None:
    made = comparison(trained)
    kept = export(trained, tmp_path / "out", results=card_results(made, trained))
    said = section(card_of(kept), "Results")
    rows = table(said)
    singles = {
        "attack success rate, no attack": ("asr", "none", 0, "lower"),
        "attack success rate, prefill, 5 tokens given": ("asr", "prefill", 5, "lower"),
        "attack success rate, prefill, 20 tokens given": ("asr", "prefill", 20, "lower"),
        "attack success rate, prefill, whole target given": ("asr", "prefill", "full", "lower"),
        "refusal rate, prefill, 5 tokens given": ("refusal", "prefill", 5, "higher"),
        "refusal rate, prefill, 20 tokens given": ("refusal", "prefill", 20, "higher"),
        "over-refusal on look-alikes, no attack": ("over_refusal", "none", 0, "lower"),
        "harmless prompts answered, no attack": ("harmless_right", "none", 0, "higher"),
        "harmless prefixes continued, least after any prefix": ("continued", "harmless_prefill", 5, "higher"),
    }
    for judge in ("exact", "refusal"):
        for title, (metric, attack, given, better) in singles.items():
            row = rows.pop((title, judge))
            assert list(row)[3:] == ["recovery", "aligned", "refusal_sft"]  # this arm first
            assert row["better"] == better
            for arm in ARMS_ASKED:
                assert_says(row[arm], made.scorecard.estimate(metric, arm=arm, attack=attack, given=given, judge=judge))
    row = rows.pop(("gibberish rate, most after any prefix", "gibberish"))
    assert row["better"] == "lower"
    assert row["recovery"].endswith(" under prefill, 20 tokens given")
    assert_says(row["recovery"], made.scorecard.estimate("gibberish", arm="recovery", given=20))
    assert not rows
    for words in (
        "Prompt set: made up",
        "95 % interval",
        "Number of seeds: 1 (3). It is this adapter's own.",
        "2 steps",
    ):
        assert words in said.replace("\n", " "), words
    assert "None of them was trained on" in said.replace("\n", " ")
    assert card.NO_RESULTS not in card_of(kept)
    assert card_of(trained).partition("\n## Results\n")[0] == card_of(kept).partition("\n## Results\n")[0]


def test_leaks_missing_numbers_and_other_arms_are_said(trained: Adapter) -> None:
    said = card_results(comparison(trained, notes=("dropped: 2",), leaks=("LEAK: 3 of 9 prompts <b>",)), trained)
    assert said.startswith("**LEAK: 3 of 9 prompts &lt;b&gt;**")
    assert "None of them was trained on" not in said
    assert "dropped" not in said
    empty = Estimate(value=None, low=None, high=None, n=0, unit="1")
    kept = [x for x in numbers() if (x.arm, x.metric, x.given) != ("aligned", "asr", 5)]
    kept = [replace(x, estimate=empty) if (x.arm, x.metric) == ("recovery", "asr") else x for x in kept]
    row = table(card_results(comparison(trained, scorecard=scorecard(tuple(kept))), trained))
    assert row["attack success rate, prefill, 5 tokens given", "exact"]["recovery"] == "no data (n = 0)"
    assert row["attack success rate, prefill, 5 tokens given", "exact"]["aligned"] == "not measured"
    with pytest.raises(ParameterError, match="'recovery'"):
        card_results(comparison(trained, arms=("aligned", "refusal_sft")), trained)
    refuses(lambda: card_results(comparison(trained, run=run_record()), trained), ParameterError)


@pytest.fixture(scope="module")
def embedded() -> ModelPair:
    return load_pair(PairConfig(preset="embedded"))


@pytest.fixture(scope="module")
def asked() -> PromptSet:
    """Return training prompts that came from a file whose name is markup."""
    made = load_prompts(PromptConfig(source="embedded", split="train", limit=9))
    return replace(made, name=HOSTILE, source="/srv/somebody/prompts.jsonl")


DATA = TrainingDataConfig(refusals=2, temperature=0.6, max_tokens=40, opening="Sure,", judge="exact", seed=4)


@pytest.fixture(scope="module")
def sourced(embedded: ModelPair, asked: PromptSet) -> TrainingTexts:
    return training_texts(
        embedded, asked, DATA, utility=load_prompts(PromptConfig(source="questions", limit=2, label="harmless"))
    )


def test_a_real_comparison_stands_in_the_card_as_in_the_table_and_nothing_is_quoted(embedded, sourced, asked, tmp_path):
    watch = WatchSettings(film_every=0, checkpoint_every=0)
    how = CompareConfig(
        arms=("recovery",), train=TrainConfig(steps=1, watch=watch), prefix_tokens=(5, 9), max_tokens=24
    )
    store = Store(tmp_path / "store")
    adapter = distil(embedded, sourced, replace(how.train, arm="recovery"), store=store)
    held_out = load_prompts(PromptConfig(source="embedded", limit=6))
    made = compare_arms(embedded, sourced, held_out, how, store=store)
    kept = export(adapter, tmp_path / "out", results=card_results(made, adapter))
    text = card_of(kept)
    rows = table(section(text, "Results"))
    shown = {r["arm"]: r for r in views.arms_comparison(made).rows}
    both = {
        "attack success, 5 given": "attack success rate, prefill, 5 tokens given",
        "attack success, 9 given": "attack success rate, prefill, 9 tokens given",
        "refused, 9 given": "refusal rate, prefill, 9 tokens given",
        "over-refusal": "over-refusal on look-alikes, no attack",
        "harmless answered": "harmless prompts answered, no attack",
        "harmless prefix continued, least": "harmless prefixes continued, least after any prefix",
    }
    for arm in ("recovery", "aligned"):
        for heading, title in both.items():
            assert rows[title, "exact"][arm].partition(" under ")[0] == shown[arm][heading]
        assert (
            rows["gibberish rate, most after any prefix", "gibberish"][arm].partition(" under ")[0]
            == (shown[arm]["gibberish, most"])
        )
    assert "It is this adapter's own." in text

    data = section(text, "Data").replace("\\", "")
    for said in (
        "source prompts.jsonl, 9 of them: 3 harmful, 3 harmless, 3 lookalike (",
        "More utility prompts: questions, source built in (questions.jsonl), 2 of them: 2 harmless",
        "the base model's own greedy ones, begun with 'Sure,', at most 40 tokens; kept where judge 'exact', version ",
        "Refusals: 2 drawn from the aligned model for each harmful prompt, the first greedily, the others at "
        "temperature 0.6, seed 4",
        "the aligned model's own greedy ones, at most 40 tokens; the response given with the prompt where the judge",
    ):
        assert said in data, said
    assert "somebody" not in text
    for prompt in asked:
        assert prompt.prompt not in text
    for one in (*sourced.harmful, *sourced.utility):
        assert embedded.decode(one.response)[:24] not in text
    assert not {"script", "img", "a"} & set(tags(text))
    assert tags(text).count("h1") == 1
    assert tags(text).count("h2") == len(re.findall(r"(?m)^## ", text)) == 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"harmful_from": "given"}, "Harmful responses: those given with the prompts; kept"),
        ({"harmful_from": "continued"}, "those given with the prompts, continued greedily by the base model"),
        ({"refusals": 1, "opening": ""}, "the first greedily, at most 40 tokens"),
        ({"utility_from": "given"}, "Harmless and utility answers: those given with the prompts."),
        ({"system_prompt": "Be kind."}, "A system prompt of 8 characters came before every prompt."),
    ],
)
def test_sources_follow_the_settings(changes: dict[str, Any], said: str, embedded: ModelPair, asked: PromptSet) -> None:
    found = " ".join(training_texts(embedded, asked, replace(DATA, **changes)).sources)
    assert said in found
    assert "Be kind" not in found


def test_a_card_says_what_is_not_in_it(trained: Adapter, tmp_path: Path, pair: ModelPair) -> None:
    plain = export(trained, tmp_path / "plain")
    assert section(card_of(plain), "Results") == card.NO_RESULTS
    first = export(plain, tmp_path / "first", results="first | time")
    second = export(first, tmp_path / "second", results="second time")
    assert (section(card_of(first), "Results"), section(card_of(second), "Results")) == ("first | time", "second time")
    assert "first" not in card_of(second)
    both = comparison(trained, seeds=(0, 3), adapters={"recovery": ("gone", trained.path)})
    said = card_results(both, trained).replace("\n", " ")
    assert "Number of seeds: 2 (0, 3). This adapter is that of seed 3; those of the other seeds are in" in said
    assert "mean over seeds" in said
    moved = export(trained, tmp_path / "moved")
    assert "This adapter is that of seed 3" in card_results(both, moved)
    other = card_results(comparison(trained, adapters={"recovery": ("gone",)}), trained)
    assert "This very adapter was not evaluated" in other
    assert "adapter's own" not in other
    assert "- Prompts: made up." in section(card_of(trained), "Data")
    assert "not recorded" in section(card.card_text(trained, pair, texts()), "Data")


def test_the_training_is_described_as_it_was(pair: ModelPair, tmp_path: Path, trained: Adapter) -> None:
    arm = replace(ARMS["recovery"], retention=(0.1, 0.2, 0.6, 0.9, 1.0, 0.8, 0.4))
    said = section(card_of(distil(pair, texts(), config(arm, steps=1), out=tmp_path / "a")), "What was minimised")
    first = ", ".join(f"{arm.weight_at(t):.4g}" for t in range(1, 6))
    assert f"w_t = r_t / {4 / 7:.4g} at position t of the response on harmful rows" in said
    assert f"at 7 positions, {4 / 7:.4g} its mean, so that w_t has mean 1 over them: {first}, ...; " in said
    assert f"{arm.weight_at(1000):.4g} beyond them; w_t = 1 on all other rows" in said
    measured = distil(pair, texts(), config(replace(arm, retention="measured"), steps=1), out=tmp_path / "b")
    found = measured.settings["arm"]["retention"]
    assert f"at {len(found)} positions" in section(card_of(measured), "What was minimised")
    assert "- w_t = 1 at every position" in section(card_of(trained), "What was minimised")
    unused = replace(FURTHER["few_harmful_tuning"], retention=(0.1, 0.9))  # its rows are not weighed
    assert "- w_t = 1 at every position" in card.equations(asdict(unused))
    arm = FURTHER["few_harmful_tuning_constrained"]
    made = distil(pair, texts(), config(arm, steps=1), out=tmp_path / "c")
    assert "beta_t = 0.5, 2, 2, 2, 2, 0.1 at positions 1 to 6, the last one beyond" in card_of(made)
    assert card.INSTRUMENT in card_of(made)
    assert card.DEFENCE not in card_of(made)


def test_the_card_names_models_start_and_use(pair: ModelPair, trained: Adapter, tmp_path: Path) -> None:
    kept = export(trained, tmp_path / "drawn *back*")
    made = distil(pair, texts(), config(steps=1), out=tmp_path / "b", start=kept.path)
    digest = hashlib.sha256((Path(kept.path) / ADAPTER_WEIGHTS).read_bytes()).hexdigest()
    assert (made.run.resolved["start"], made.run.resolved["start_sha256"]) == ("drawn *back*", digest)
    said = card_of(made)
    assert rf"begun with the weights of an adapter (folder drawn \*back\*, sha256 `{digest}`)." in said
    assert str(tmp_path) not in said
    assert "start" not in trained.run.resolved
    assert "begun with" not in card_of(trained)
    base, aligned = tiny_models("llama")
    folders = [save_model(tmp_path / n, m, tiny_tokenizer()) for n, m in (("its_base", base), ("its_aligned", aligned))]
    local = load_pair(PairConfig(base=str(folders[0]), aligned=str(folders[1])))
    said = card.card_text(trained, local, texts())
    assert "completes the alignment of its_base \\| its_aligned\n" in said
    made = section(said, "Made with")
    for which in ("base", "aligned"):
        assert f"- {which}: its_{which}, {local._identity[which]}" in made
    assert local._identity["base"].startswith("content:")
    assert said.count(str(tmp_path)) == 1  # the line that loads it

    hub = replace(local, _identity={"base": "hub:some/base@0a1b", "aligned": "hub:some/chat@2c3d"})
    said = card.card_text(trained, hub, texts())
    assert "from_pretrained('some/chat', revision='2c3d'), '.')" in said
    assert "- aligned: its_aligned, hub:some/chat@2c3d" in said
    assert str(tmp_path) not in said
    said = section(card_of(trained), "Intended use and limits")
    for words in ("defence adapter", "was not measured", "It promises no protection against other attacks"):
        assert words in said


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def seen(markdown: str) -> _Seen:
    """Render Markdown with markup let through, as a careless page would, and return what a browser would make of it."""
    found = _Seen()
    plugins = ["table", "strikethrough", "url", "footnotes"]
    found.feed(str(mistune.create_markdown(escape=False, plugins=plugins)(markdown)))
    found.close()
    return found


def tags(text: str) -> list[str]:
    """Return the elements of a card, its front matter left away."""
    return seen(text.split("---\n", 2)[2]).tags


def test_sources_survive_and_any_text_is_shown_as_it_is(pair: ModelPair, tmp_path: Path) -> None:
    plain, how = texts(), config()
    named = replace(plain, sources=("Prompts: made up.", HOSTILE))
    job = Job(pair=PairConfig(preset="embedded"), texts=named, config=how, out="out", store=None, start=None)
    job.save(tmp_path / "job.json")
    assert (Job.load(tmp_path / "job.json"), prepared(named, how).sources) == (job, named.sources)
    assert training_key(pair, named, how) == training_key(pair, plain, how)

    def check(text: str) -> None:
        shown = card.markdown_text(text)
        assert "\n" not in shown
        item = seen(f"- {shown}")
        assert set(item.tags) <= {"ul", "li"}
        assert " ".join(item.text.split()) == " ".join(sentence(text, 600).split())
        cell = seen(f"| a | b |\n|---|---|\n| {shown} | c |")
        assert cell.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]

    check_each(check, (*HOSTILE_TEXTS, HOSTILE, "1. one", "- - -", "+ a", "1)", "===", "0.4", "snake_case"))


def test_hostile_names_of_arms_sets_judges_and_prompts_stay_text(pair: ModelPair, tmp_path: Path) -> None:
    arm = replace(ARMS["recovery"], name=HOSTILE)
    given = replace(texts(), sources=(HOSTILE,), notes=(HOSTILE,))
    adapter = distil(replace(pair, name=HOSTILE), given, config(arm, steps=1), out=tmp_path / "a")
    arms = ("aligned", HOSTILE)
    named = tuple(replace(x, judge=HOSTILE, setting=HOSTILE) for x in numbers(arms))
    made = comparison(
        adapter, arms=arms, scorecard=scorecard(named), prompt_set=HOSTILE, budgets={HOSTILE: HOSTILE},
        leaks=("LEAK " + HOSTILE,),
    )  # fmt: skip
    text = card_of(export(adapter, tmp_path / "out", results=card_results(made, adapter)))
    found = tags(text)
    assert not {"script", "img", "a"} & set(found)
    assert found.count("h1") == 1
    assert found.count("h2") == len(re.findall(r"(?m)^## ", text)) == 8
    assert found.count("table") == 3
    front = yaml.safe_load(text.split("---\n", 2)[1])
    assert front["tags"] == ["deep-alignment", sentence(HOSTILE)]


def test_the_line_of_an_exported_card_loads_the_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    base, aligned = tiny_models("llama")
    folder = tmp_path / "its ADAPTER's 'own' folder"
    aligned.save_pretrained(folder)
    own = ModelPair.from_models(base, AutoModelForCausalLM.from_pretrained(folder), tiny_tokenizer())
    adapter = distil(own, texts(), config(steps=2, seed=3), out=tmp_path / "a")
    kept = export(adapter, tmp_path / "out", results=card_results(comparison(adapter), adapter))
    program = section(card_of(kept), "Load").removeprefix("```python\n").removesuffix("```")
    monkeypatch.chdir(kept.path)
    names: dict[str, Any] = {}
    with quiet_libraries():
        exec(compile(program, "card", "exec"), names)
    again, prompt = own.with_aligned(kept.path), torch.tensor([ids(3, 9)])
    logits = again.logits("aligned", again.hidden("aligned", prompt))
    assert torch.allclose(names["model"](prompt).logits, logits, atol=1e-5)
    assert not torch.allclose(logits, own.logits("aligned", own.hidden("aligned", prompt)), atol=1e-4)
