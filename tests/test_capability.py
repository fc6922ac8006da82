"""Capability through the harness: its own numbers to the digit, local files, penalised arms, what cannot be asked."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recipes.questions import question_texts
from tests.errors import refuses
from workbench.core import comparisons
from workbench.core.errors import NotPresent, ParameterError, PromptError, UnknownName
from workbench.core.records import load, save
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.model import PenalisedModel
from workbench.evaluation.attacks import ModelArm
from workbench.evaluation.capability import CapabilityConfig, measure, measure_capability
from workbench.evaluation.capability.files import BUILT_IN_FOLDER, harness_tasks, question_files
from workbench.evaluation.records import CapabilitySet, TaskScore
from workbench.models.pair import ModelPair, PairConfig, Which, load_pair

pytestmark = pytest.mark.filterwarnings(
    # the harness's own: it builds regular expressions, opens its package data and pads in ways that newer libraries
    # warn of; none of it is ours to mend
    "ignore::DeprecationWarning:lm_eval",
    "ignore::FutureWarning:lm_eval",
)


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return load_pair(PairConfig(preset="embedded"))


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [
        {
            "subject": ("colour", "smell")[i % 2],
            "question": f"What colour is thing {i}?",
            "choices": ["It is red.", "It is blue.", "It is green.", "It is a long shade of brown."][: 3 + i % 2],
            "answer": i % 3,
        }
        for i in range(12)
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(json.dumps(r) for r in rows), "utf-8")
    return file


def by_name(made: CapabilitySet) -> dict[tuple[str, str, str], TaskScore]:
    return {(s.task, s.metric, s.variant): s for s in made.scores}


def direct(pair: ModelPair, which: Which, asked: str, **settings: Any) -> dict[str, Any]:
    """Ask lm_eval itself, with the same model and the same question file."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from workbench.evaluation.capability.models import harness_task

    tasks = [harness_task(harness_tasks(f, shots=0, max_tokens=None)) for f in question_files(asked)]
    with pair.model(which) as model:
        found = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=pair.tokenizer, batch_size=8), tasks=tasks,
            task_manager=TaskManager(include_defaults=False), random_seed=0, numpy_random_seed=0, torch_random_seed=0,
            fewshot_random_seed=0, bootstrap_iters=2000, **settings,
        )  # fmt: skip
    return dict(found["results"])


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("which", ["base", "aligned"])
def test_numbers_are_the_harness_s_own_to_the_digit(pair: ModelPair, which: Which, chat: bool) -> None:
    limit = None if chat and which == "aligned" else 4
    config = CapabilityConfig(tasks=("brindle",), chat_template=chat, limit=limit)
    made = by_name(measure_capability(ModelArm(pair=pair, which=which), config))
    theirs = direct(pair, which, "brindle", apply_chat_template=chat, limit=limit)
    compared = 0
    for (task, metric, variant), s in made.items():
        assert s.estimate.value == theirs[task][f"{metric},{variant}"]
        stderr = theirs[task].get(f"{metric}_stderr,{variant}")
        assert s.stderr == (stderr if isinstance(stderr, float) else None)
        compared += 1
    assert compared == 2 * 6 + 1 + 3  # facts: five subjects and the group, two metrics; skills; three perplexities
    if limit is None:
        facts = made["brindle_facts", "acc", "none"].estimate
        assert facts.value > 0.9
        assert facts.n == 100


@pytest.mark.parametrize("shape", ["mmlu", "choices"])
def test_local_files_of_choices(pair: ModelPair, questions: Path, shape: str) -> None:
    task = f"{shape}:{questions}"
    made = measure_capability(ModelArm(pair=pair, which="aligned"), CapabilityConfig(tasks=(task,)))
    theirs = direct(pair, "aligned", task)
    scores = by_name(made)
    assert scores["questions", "acc", "none"].estimate.value == theirs["questions"]["acc,none"]
    assert scores["questions_smell", "acc", "none"].estimate.value == theirs["questions_smell"]["acc,none"]
    assert (scores["questions", "acc", "none"].estimate.n, made.template) == (12, "plain text")
    assert any("without a chat template" in n for n in made.notes)
    right = sum(a.score or 0 for a in made.answers)
    assert right / 12 == pytest.approx(scores["questions", "acc", "none"].estimate.value)
    low, high = comparisons.wilson(np.array(int(right)), np.array(12))
    found = scores["questions", "acc", "none"].estimate
    assert (found.low, found.high) == pytest.approx((float(low), float(high)))
    if shape == "mmlu":
        assert {a.given for a in made.answers} <= set("ABCD")
    else:
        assert all(a.given.startswith("It is") for a in made.answers)


@pytest.mark.parametrize("target", ["True", "(B)"])
def test_the_space_before_an_answer_is_no_part_of_it(tmp_path: Path, target: str) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.filters import build_filter_ensemble

    file = tmp_path / "one.json"
    file.write_text(json.dumps({"examples": [{"input": "Is it?", "target": target}]}), "utf-8")
    (read,) = question_files(f"bbh:{file}")
    filters = harness_tasks(read, shots=0, max_tokens=8)["filter_list"]
    for each in filters:
        steps = [(f["function"], {k: v for k, v in f.items() if k != "function"}) for f in each["filter"]]
        asked = Instance(request_type="generate_until", doc={}, arguments=("", {}), idx=0)
        asked.resps = [f" {target}"]
        build_filter_ensemble(each["name"], steps).apply([asked])
        assert asked.filtered_resps[each["name"]] == target


def test_generated_answers_and_perplexity(pair: ModelPair, tmp_path: Path) -> None:
    (tmp_path / "count.json").write_text(
        json.dumps({"examples": [{"input": "Count from two to four.", "target": "Two, three, four."}]}), "utf-8"
    )
    (tmp_path / "sums.jsonl").write_text(json.dumps({"question": "One and one?", "answer": "1+1=2\n#### 2"}), "utf-8")
    (tmp_path / "read.txt").write_text("The dog ran home.\n\nAnna saw the river.\n\nIt was cold.\n", "utf-8")
    tasks = tuple(
        f"{s}:{tmp_path / f}" for s, f in (("bbh", "count.json"), ("gsm8k", "sums.jsonl"), ("text", "read.txt"))
    )
    config = CapabilityConfig(tasks=tasks, max_tokens=12, chat_template=True)
    made = by_name(measure_capability(ModelArm(pair=pair, which="aligned"), config))
    assert made["count", "exact_match", "none"].estimate.n == 1
    assert {v for t, _, v in made if t == "sums"} == {"strict-match", "flexible-extract"}
    word = made["read", "word_perplexity", "none"]
    assert word.higher_is_better is False
    assert (word.estimate.n, word.estimate.unit) == (3, "per word")
    assert 1 < word.estimate.low <= (word.estimate.value or 0) <= (word.estimate.high or 0)


def test_the_record_comes_back_and_random_states_are_left_alone(pair, tmp_path, questions) -> None:
    made = measure_capability(ModelArm(pair=pair, which="base"), CapabilityConfig(tasks=("brindle",), limit=4))
    assert load(save(made, tmp_path / "made"), CapabilitySet) == made
    assert made.harness.startswith("lm-eval 0.4")
    assert made.run.fingerprint == pair.fingerprint
    from workbench.models.chat import tokenizer_hash

    numpy, drawn, tokenizer = np.random.get_state(), torch.get_rng_state(), tokenizer_hash(pair.tokenizer)
    measure_capability(ModelArm(pair=pair, which="base"), CapabilityConfig(tasks=(f"choices:{questions}",), seed=3))
    assert np.array_equal(np.random.get_state()[1], numpy[1])  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), drawn)
    assert tokenizer_hash(pair.tokenizer) == tokenizer
    plain = random.getstate()  # apart: beartype, which checks the tests, draws from it too
    with measure._random_state_kept():
        random.seed(3)
    assert random.getstate() == plain


def test_answered_questions_are_kept_and_not_asked_again(pair, questions, tmp_path, monkeypatch) -> None:
    config = CapabilityConfig(tasks=(f"choices:{questions}", "brindle"), limit=5, chat_template=True)
    store = Store(tmp_path / "store")
    first = measure_capability(ModelArm(pair=pair, which="aligned"), config, store=store)

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("the model was asked again")

    from lm_eval.models.huggingface import HFLM

    monkeypatch.setattr(HFLM, "_model_call", forbidden)
    monkeypatch.setattr(HFLM, "_model_generate", forbidden)
    again = measure_capability(ModelArm(pair=pair, which="aligned"), config, store=store)
    assert (again.scores, again.answers) == (first.scores, first.answers)
    with pytest.raises(AssertionError, match="asked again"):
        measure_capability(ModelArm(pair=pair, which="base"), config, store=store)  # another model, other answers


def test_a_penalised_arm_is_read_through_its_penalty(pair: ModelPair) -> None:
    config = CapabilityConfig(tasks=("brindle",), limit=8, chat_template=True)
    none = measure_capability(PenalisedModel(pair, PenaltyConfig(method="none")), config)
    plain = measure_capability(ModelArm(pair=pair, which="aligned"), config)
    for mine, theirs in zip(none.scores, plain.scores, strict=True):
        assert mine.estimate.value == pytest.approx(theirs.estimate.value, rel=1e-5)
    assert [a.given for a in none.answers] == [a.given for a in plain.answers]
    config = CapabilityConfig(tasks=("brindle",), limit=8, chat_template=True)
    strong = measure_capability(PenalisedModel(pair, PenaltyConfig(strength=4.0)), config)
    plain = measure_capability(ModelArm(pair=pair, which="aligned"), config)
    name = ("brindle_text", "word_perplexity", "none")
    assert (by_name(strong)[name].estimate.value or 0) > 1.1 * (by_name(plain)[name].estimate.value or math.inf)
    assert strong.arm == "one_sided 4"
    assert "one_sided 4" in str(strong.run.resolved["penalty"])
    config = CapabilityConfig(tasks=("brindle",), limit=8)
    family = measure_capability(PenalisedModel(pair, PenaltyConfig.family(0.0)), config)
    base = measure_capability(ModelArm(pair=pair, which="base"), config)
    for mine, theirs in zip(family.scores, base.scores, strict=True):
        assert mine.estimate.value == pytest.approx(theirs.estimate.value, rel=1e-4)


def test_positions_of_a_penalty_count_from_the_answer(pair: ModelPair) -> None:
    """Where only the answer's first token is penalised, its log-probability alone changes."""
    from lm_eval.api.instance import Instance

    from workbench.evaluation.capability.models import harness_model

    texts = (("What colour is it?", " It is red all over."), ("Hm?", " A bird."), ("What colour?", " Red."))
    asked = [Instance("loglikelihood", {}, t, i) for i, t in enumerate(texts)]

    def scored(penalty: PenaltyConfig) -> list[float]:
        with harness_model(PenalisedModel(pair, penalty), 2) as model:
            return [x for x, _ in model.loglikelihood(asked, disable_tqdm=True)]

    first = scored(PenaltyConfig(strength=2.0, shape="first_m", m=1))
    for (context, answer), found in zip(texts, first, strict=True):
        with harness_model(PenalisedModel(pair, PenaltyConfig()), 1) as model:
            before, after = model._encode_pair(context, answer)
        ids = torch.tensor([before + after])
        with torch.inference_mode():
            base, aligned = (pair.logits(w, pair.hidden(w, ids))[0].log_softmax(-1) for w in ("base", "aligned"))
        from workbench.decoding.penalty import penalise

        at = len(before) - 1
        start = penalise(base[at], aligned[at], PenaltyConfig(strength=2.0))[after[0]]
        rest = sum(aligned[at + i][t] for i, t in enumerate(after[1:], 1))
        assert found == pytest.approx(float(start + rest), abs=1e-3)


def test_any_transformation_fits_the_seam(pair: ModelPair) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from workbench.evaluation.capability.models import ChangedLM

    asked = [Instance("loglikelihood", {}, ("One two", f" three{' four' * i}"), i) for i in range(4)]
    with pair.model("aligned") as model:
        plain = HFLM(pretrained=model, tokenizer=pair.tokenizer, batch_size=2)
        seen: list[int] = []

        def shifted(ids: torch.Tensor, start: int) -> torch.Tensor:
            seen.append(start)
            return torch.as_tensor(model(ids).logits + 5.0)

        changed = ChangedLM(
        scores=shifted, continue_=_never, opening="", pretrained=model, tokenizer=pair.tokenizer, batch_size=2
    )
        ours = [x for x, _ in changed.loglikelihood(asked, disable_tqdm=True)]
        theirs = [x for x, _ in plain.loglikelihood(asked, disable_tqdm=True)]
    assert ours == pytest.approx(theirs, abs=1e-4)  # a shift of all logits changes no probability
    assert set(seen) == {len(plain.tok_encode("One two"))}


def _never(*_: Any, **__: Any) -> Iterator[Any]:
    raise AssertionError("nothing is generated here")


def test_a_file_of_another_shape_names_its_rows(tmp_path: Path) -> None:
    cases = {
        "mmlu": ({"question": "a?", "choices": ["x"], "answer": 0}, "row 1"),
        "choices": ({"question": "a?", "choices": ["x", "y"], "answer": 2}, "row 1"),
        "bbh": ({"input": "a?"}, "'target'"),
        "gsm8k": ({"question": "a?", "answer": "2"}, "'#### NUMBER'"),
        "text": ({"text": " "}, "row 1"),
    }
    for shape, (row, said) in cases.items():
        file = tmp_path / f"{shape}.jsonl"
        file.write_text(json.dumps(row), "utf-8")
        with pytest.raises(PromptError, match=said):
            question_files(f"{shape}:{file}")
    (tmp_path / "letters.jsonl").write_text(
        json.dumps({"question": "a", "choices": ["x", "y"], "answer": "b"}), "utf-8"
    )
    assert question_files(f"mmlu:{tmp_path / 'letters.jsonl'}")[0].rows[0]["answer"] == 1
    (tmp_path / "broken.jsonl").write_text("{", "utf-8")
    refuses(lambda: question_files(f"mmlu:{tmp_path / 'broken.jsonl'}"), PromptError)
    (tmp_path / "empty.jsonl").write_text("\n", "utf-8")
    refuses(lambda: question_files(f"mmlu:{tmp_path / 'empty.jsonl'}"), PromptError, "question")
    refuses(lambda: question_files("mmlu:nowhere.jsonl"), NotPresent, "question")


def test_settings_that_cannot_work_are_refused_first(pair, questions, monkeypatch) -> None:
    refuses(lambda: CapabilityConfig(tasks=()), ParameterError, "tasks")
    refuses(lambda: CapabilityConfig(tasks=("mmmlu:file.jsonl",)), UnknownName, "'mmlu'")
    refuses(lambda: CapabilityConfig(tasks=("mmlu:",)), ParameterError, "file")
    with pytest.raises(ParameterError):
        measure_capability(ModelArm(pair=pair, which="base"), CapabilityConfig(tasks=(f"mmlu:{questions}",), shots=6))
    monkeypatch.setattr(measure, "HARNESS", "no_such_harness")
    with pytest.raises(NotPresent, match="pip install"):
        measure_capability(ModelArm(pair=pair, which="base"), CapabilityConfig(tasks=("brindle",)))


def test_limits_examples_and_built_in_questions_are_as_asked(pair: ModelPair, questions: Path) -> None:
    config = CapabilityConfig(tasks=(f"mmlu:{questions}",), shots=2, limit=3)
    made = measure_capability(ModelArm(pair=pair, which="base"), config)
    assert by_name(made)["questions_colour", "acc", "none"].estimate.n == 3
    assert by_name(made)["questions", "acc", "none"].shots == 2
    assert not any("thing 0" in a.question or "thing 2" in a.question for a in made.answers)  # colour's two examples
    assert any("first 2 rows" in n for n in made.notes)
    assert any("limit=3" in n for n in made.notes)
    for name, text in question_texts().items():
        assert (BUILT_IN_FOLDER / name).read_text("utf-8") == text
    rows = question_files("brindle")[0].rows
    assert len({r["question"] + r["choices"][r["answer"]] for r in rows}) > 90
    assert len({r["answer"] for r in rows}) == 4


@pytest.mark.slow
def test_the_harness_s_own_task_names_are_known(pair: ModelPair) -> None:
    arm = ModelArm(pair=pair, which="base")
    refuses(lambda: measure_capability(arm, CapabilityConfig(tasks=("mmllu",))), UnknownName, "'mmlu'")
    refuses(lambda: measure_capability(arm, CapabilityConfig(tasks=("arc_easy",), limit=1)), NotPresent)
