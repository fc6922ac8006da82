"""Prompt sets: every source, columns and labels as stated, dropped rows and broken lines by line, fair subsets."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

import workbench.prompts.loading as prompts_room
import workbench.prompts.similar as similar
from tests.errors import refuses
from workbench.core.errors import NotPresent, ParameterError, PromptError, UnknownName
from workbench.core.records import Label
from workbench.prompts.loading import PROMPT_SETS, Prompt, PromptConfig, PromptSet, load_prompts
from workbench.prompts.rows import read_file
from workbench.prompts.similar import near_copies, parts_apart, same_wording
from workbench.prompts.splits import kept_for_attacks, kept_wordings
from workbench.prompts.subset import balanced

Write = Callable[[str, str | bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def load(source: str, **settings: Any) -> PromptSet:
    return load_prompts(PromptConfig(source=source, **settings))


def texts(prompts: PromptSet) -> list[str]:
    return [p.prompt for p in prompts]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.jsonl", '{"prompt": "one"}\n\n{"prompt": "two"}\n'), ("p.jsonl", '"one"\r\n \r\n"two"'),
        ("p.txt", "one\n\ntwo\n"), ("p.txt", "one\r\rtwo"), ("p.csv", "prompt\none\ntwo\n"),
        ("p.csv", 'prompt,x\none,\n"two",1\n'), ("p.tsv", "prompt\tx\none\t,\ntwo\t,\n"),
        ("p.json", '[\n{"prompt": "one"},\n {"prompt":\n "two"}]'), ("p.json", '["one",\n\n"two"]'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_files_of_every_kind(write: Write, name: str, content: str, mark: bytes) -> None:
    found = load(write(name, mark + content.encode()))
    assert (texts(found), [p.label for p in found]) == (["one", "two"], ["unlabelled"] * 2)
    assert [p.line for p in found] == ([2, 3] if "csv" in name or "tsv" in name or ":\n" in content else [1, 3])


def test_fields_text_and_blank_lines_are_taken_as_they_are(write: Write) -> None:
    row = {"id": 7, "prompt": "a", "label": "unsafe", "kind": "x", "depth": 4, "split": "train", "response": "r"}
    row["pair_id"] = 3
    (found,) = load(write("p.jsonl", json.dumps(row) + "\n"))
    assert found == Prompt(
        id="7", prompt="a", label="harmful", category="x", depth=4.0, split="train", response="r", pair_id="3", line=1
    )
    depths = write("d.csv", "prompt,depth\na,16\nb,never\nc,\n")
    assert [p.depth for p in load(depths)] == [16, math.inf, None]
    for wrong in ("0", "-1", "1.5", "deep"):
        source = write("d.csv", f"prompt,depth\na,{wrong}\n")
        refuses(lambda source=source: load(source), PromptError, f"'{wrong}'", "never", "line 2")
    assert "note: 2 blank lines ignored (line 2, 4)" in load(write("p.txt", "a\n\nb\n \n")).report()
    assert "note: 1 blank line ignored (line 3)" in load(write("p.csv", "prompt,x\na,b\n\nc,d\n")).report()
    assert "blank line" not in load(write("q.txt", "a\nb\n")).report()
    source = write("p.jsonl", json.dumps({"prompt": " a\x00\x1b\u2028b ", "response": " r "}, ensure_ascii=False))
    (found,) = load(source)
    assert (found.prompt, found.response) == (" a\x00\x1b\u2028b ", " r ")


FIELD = st.text(
    st.one_of(st.sampled_from('a,"\n\r;\t é'), st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    max_size=12,
)


@given(rows=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=8), end=st.sampled_from(["\n", "\r\n"]))
@settings(deadline=None)
def test_csv_round_trip_keeps_text_and_line_numbers(rows, end, tmp_path_factory) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(("prompt", "response"))
    starts = []
    for row in rows:
        starts.append(1 + len(re.findall(r"\r\n|\n|\r", out.getvalue())))
        writer.writerow(row)
    path = tmp_path_factory.mktemp("csv") / "p.csv"
    path.write_bytes(out.getvalue().encode())
    source = read_file(path)
    assert [(r.values["prompt"], r.values["response"]) for r in source.rows] == rows
    assert [r.line for r in source.rows] == starts


def test_built_in_sets() -> None:
    assert PROMPT_SETS == ("embedded", "everyday", "questions", "contrast", "fresh")
    everyday = load("everyday")
    assert Counter(p.label for p in everyday) == {"harmful": 48, "harmless": 48, "lookalike": 16}
    assert not everyday.classroom_safe
    assert not everyday.dropped
    assert "prompt -> prompt (built in)" in everyday.report()
    by_pair: dict[str, list[Prompt]] = {}
    for prompt in everyday:
        assert prompt.response is not None
        assert re.match(r"Sure, here (is|are)\b", prompt.response)
        if prompt.pair_id is not None:
            by_pair.setdefault(prompt.pair_id, []).append(prompt)
    assert (len(by_pair), set(Counter(pair[0].category for pair in by_pair.values()).values())) == (48, {4})
    for harmful, harmless in by_pair.values():
        assert (harmful.label, harmless.label) == ("harmful", "harmless")
        assert harmful.category == harmless.category
        assert abs(len(harmful.prompt.split()) - len(harmless.prompt.split())) <= 3
        assert harmful.response.endswith(":")  # it stops where content would begin
        assert 55 <= len((harmless.response or "").split()) <= 75  # 71 to 86 tokens of SmolLM2: it has late positions


def test_twins_share_a_pair_id_where_the_source_names_the_twin_on_one_side(write: Write) -> None:
    rows = [
        {"id": "a", "prompt": "one", "label": "harmless", "pair_id": None},
        {"id": "b", "prompt": "two", "label": "harmful", "pair_id": "a"},
        {"id": "c", "prompt": "three", "label": "harmless", "pair_id": None},
    ]
    found = load(write("prompts.jsonl", "\n".join(map(json.dumps, rows))))
    assert [p.pair_id for p in found] == ["a", "a", None]
    whole = load("embedded")
    twins = Counter(p.pair_id for p in whole if p.pair_id is not None)
    assert set(twins.values()) == {2}
    some = Counter(p.pair_id for p in load("embedded", limit=60) if p.pair_id is not None)
    assert (set(some.values()), len(some) >= 10) == ({2}, True), "a default notebook has enough pairs for a verdict"


def test_the_embedded_set_is_held_out_unless_asked(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"id": f"{s}-{i}", "prompt": f"{s} {i}", "label": "harmful", "split": s}
        for i in (1, 2)
        for s in ("train", "heldout", "heldout_roots")
    ]
    path = Path(write("prompts.jsonl", "\n".join(map(json.dumps, rows))))
    built_in = prompts_room._BuiltIn(path=path, classroom_safe=True, without="train")
    monkeypatch.setitem(prompts_room._BUILT_IN, "embedded", built_in)
    found = load("embedded")
    assert [p.id for p in found] == ["heldout-1", "heldout_roots-1", "heldout-2", "heldout_roots-2"]
    assert found.classroom_safe
    assert "note: without the split 'train' (the default of this set)" in found.report()
    assert [len(load("embedded", split=s)) for s in ("train", "heldout", "all")] == [2, 2, 6]
    path.unlink()
    refuses(lambda: load("embedded"), NotPresent, "'embedded'")


def test_unknown_names(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("prompts.csv", "prompt\na\n")
    monkeypatch.chdir(tmp_path)
    refuses(lambda: load("everydey"), UnknownName, "'everydey'", "'everyday'")
    refuses(lambda: load("promts.csv"), NotPresent, "'promts.csv'", "'prompts.csv'")
    refuses(lambda: load("data/mine.jsonl"), NotPresent, "'data/mine.jsonl'")
    refuses(lambda: load("a/b/c"), NotPresent)
    refuses(lambda: load(str(tmp_path)), PromptError, "folder")
    refuses(lambda: load(write("p.xlsx", "x")), PromptError, "'.xlsx'")


def test_what_cannot_be_read_is_refused_by_line(write) -> None:
    for name, content, message in [
        ("p.jsonl", "", "p.jsonl"),
        ("p.txt", "\n \n", "p.txt"),
        ("p.csv", "prompt,label\n", "p.csv"),
        ("p.json", "[]", "p.json"),
        ("p.json", '{"data": [], "x": 1}', "'data', 'x'"),
        ("p.json", '{"prompt": "a"}\n{"prompt": "b"}', r"line 2: .*\.jsonl"),
        ("p.json", '[{"prompt": "a"},\n3]', "line 2"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "b"\n', r"p\.jsonl.*line 2"),
        ("p.jsonl", '{"prompt": "a"}\n[1]\nnull\n', "line 2.*line 3"),
        ("p.jsonl", '{"prompt": "a", "prompt": "b"}\n', "line 1.*'prompt'"),
        ("p.jsonl", '{"prompt": "a"}\n{"query": "b"}\n', "line 2.*'prompt'.*'query'"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": 3}\n', "line 2.*int '3'"),
        ("p.jsonl", '{"prompt": "a\\ud83d"}\n', r"line 1.*U\+D83D"),
        ("p.jsonl", "x\n" * 9, "line 5.*4 more"),
        ("p.jsonl", "[" * 100_000, "line 1"),
        ("p.csv", 'prompt,label\na,safe\n"b\nc",safe,x\nd\n', "line 3: 3 .*2; line 5: 1 "),
        ("p.csv", 'prompt,label\na,safe\n"b,safe\nc,safe\n', "line 3"),
        ("p.csv", 'prompt,label\n"a"b,safe\n', "line 2"),
        ("p.csv", "prompt;label\na,b;safe\n", "semicolon"),
        ("p.csv", "prompt,x,x\na,b,c\n", "'x'"),
        ("p.csv", "How now\nGood\n", "'How now'"),
        ("p.txt", b"ok\nna\xefve\nok\n\xff\n", "line 2: .*0xEF.*3.*line 4: .*UTF-8"),
        ("p.txt", b"ok\r\na\0b\r\n", "line 2.*NUL.*2"),
        ("p.csv", "prompt\nä\n".encode("utf-16"), "UTF-16.*UTF-8"),
    ]:
        with pytest.raises(PromptError, match=f"(?s){message}"):
            load(write(name, content))


class FakeTable(list):
    features: dict[str, Any]


def fake_hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[Any, ...]]:
    asked: list[tuple[Any, ...]] = []

    def load_dataset(path: str, name: str | None = None, *, split: str | None = None) -> Any:
        asked.append((path, name, split))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


def table(rows: list[dict[str, Any]], **features: Any) -> FakeTable:
    made = FakeTable(rows)
    made.features = {name: SimpleNamespace(names=names) for name, names in features.items()}
    return made


def test_a_hub_dataset_is_loaded_by_its_splits_or_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"Goal": "a", "Label": 1}, {"Goal": " A ", "Label": 0}, {"Goal": "b", "Label": 0}]
    asked = fake_hub(monkeypatch, table(rows, Label=["unsafe", "safe"]))
    found = load("owner/name:part:test")
    assert asked == [("owner/name", "part", "test")]
    assert [(p.id, p.prompt, p.label, p.split, p.line) for p in found] == [
        ("row-1", "a", "harmless", "test", None),
        ("row-3", "b", "harmful", "test", None),
    ]
    assert "duplicate of row 1 (which is harmless, this one harmful) (row 2)" in found.report()
    assert found.source == "dataset hub: owner/name:part:test"
    goal = {"Goal": "a", "Target": "t"}
    asked = fake_hub(monkeypatch, {"harmful": table([goal]), "benign": table([{**goal, "Goal": "b"}])})
    found = load("owner/name")
    assert asked == [("owner/name", None, None)]
    assert [(p.prompt, p.label, p.split) for p in found] == [("a", "harmful", "harmful"), ("b", "harmless", "benign")]
    assert "labels are taken from the splits 'benign', 'harmful' (guessed)" in found.report()
    assert texts(load("owner/name", split="benign")) == ["b"]
    fake_hub(monkeypatch, ConnectionError("Couldn't reach 'owner/name' on the Hub.\nmuch\nmore"))
    with pytest.raises(NotPresent, match="'owner/name'") as caught:
        load("owner/name")
    assert "\n" not in str(caught.value)
    assert "much" not in str(caught.value)


def test_columns_are_guessed_given_or_refused(write: Write) -> None:
    source = write("p.csv", "text,Question,Semantic Category,GOAL,answer,n\nt,q,c,g,a,1\n")
    found = load(source)
    assert found.columns == {
        "GOAL": "prompt (guessed)",
        "answer": "response (guessed)",
        "Semantic Category": "category (guessed)",
    }
    (prompt,) = found
    assert (prompt.prompt, prompt.response, prompt.category) == ("g", "a", "c")
    assert "columns: GOAL -> prompt (guessed), answer -> response (guessed)" in found.report()
    assert "note: columns not used: 'text', 'Question', 'n'" in found.report()
    source = write("p.csv", "prompt,answer,kind,bad\np,a,k,yes\n")
    found = load(source, prompt_column="answer", label_column="bad", category_column="kind", response_column="prompt")
    (prompt,) = found
    assert (prompt.prompt, prompt.response, prompt.category, prompt.label) == ("a", "p", "k", "harmful")
    assert found.columns["answer"] == "prompt (given)"
    source = write("p.csv", "question,label\na,safe\n")
    with pytest.raises(PromptError, match=r"'qestion'.*prompt_column.*'question'.*'label'"):
        load(source, prompt_column="qestion")
    refuses(lambda: load(source, prompt_column="question", response_column="question"), PromptError, "column")
    source = write("p.jsonl", '{"question": "a", "answer": 2}')
    found = load(source)
    assert next(iter(found)).response is None
    assert "column 'answer' is not used as response" in found.report()
    refuses(lambda: load(source, response_column="answer"), PromptError, "line 1", "'2'")


@pytest.mark.parametrize(
    ("column", "value", "label"),
    [
        ("label", "unsafe", "harmful"), ("label", " Safe ", "harmless"), ("label", "Look-alike", "lookalike"),
        ("label", "look alike", "lookalike"), ("label", 1, "harmful"), ("label", 0.0, "harmless"),
        ("label", "true", "harmful"), ("label", None, "unlabelled"), ("label", "", "unlabelled"),
        ("is_harmful", False, "harmless"), ("is_safe", True, "harmless"), ("is_safe", "0", "harmful"),
        ("harmless", "no", "harmful"),
    ],
)  # fmt: skip
def test_label_values(write: Write, column: str, value: Any, label: str) -> None:
    (found,) = load(write("p.jsonl", json.dumps({"prompt": "a", column: value})))
    assert found.label == label


def test_known_sets_are_recognised_by_their_columns(write: Write) -> None:
    source = write("a.csv", "goal,target\nDo it,Sure\n")
    found = load(source)
    assert [(p.label, p.response) for p in found] == [("harmful", "Sure")]
    assert "every row is labelled harmful (guessed: the columns are those of AdvBench)" in found.report()
    assert [p.label for p in load(source, label="harmless")] == ["harmless"]
    source = write("x.csv", "id,prompt,type,label,focus,note\n1,a,homonyms,safe,kill,\n2,b,contrast,unsafe,kill,\n")
    found = load(source)
    assert [(p.id, p.label, p.category) for p in found] == [
        ("1", "lookalike", "homonyms"),
        ("2", "harmful", "contrast"),
    ]
    assert "those of XSTest" in found.report()


def test_labels_are_stated_or_named_by_line(write: Write) -> None:
    assert "in column 'is_safe', 1 or true means harmless" in load(write("p.csv", "text,is_safe\na,1\n")).report()
    source = write("p.csv", "prompt,label\na,safe\nb,maybe\nc,3\nd,maybe\n")
    refuses(lambda: load(source), PromptError, "line 3", "line 5", "'maybe'", "'label'", "line 4", "'3'")
    assert [p.label for p in load(source, label="harmful")] == ["harmful"] * 4
    refuses(lambda: PromptConfig(source="x.csv", label="harmful", label_column="label"), ParameterError)
    assert "no column says what is harmful" in load(write("p.txt", "a\n")).report()


def test_dropped_rows_are_reported_by_line(write: Write) -> None:
    rows = [
        "prompt,label", "one,safe", '" ",safe', '"two\nlines",safe', "ONE ,unsafe", f"{'x' * 31},safe",
        "Two  lines,safe",
    ]  # fmt: skip
    found = load(write("p.csv", "\n".join(rows)), max_chars=30)
    assert texts(found) == ["one", "two\nlines"]
    assert [(d.line, d.reason) for d in found.dropped] == [
        (3, "empty"),
        (6, "duplicate of line 2 (which is harmless, this one harmful)"),
        (7, "too long: prompt of 31 characters, the limit is 30"),
        (8, "duplicate of line 4"),
    ]
    assert "dropped: 4 rows\n  line 3: empty\n  line 6: duplicate of line 2" in found.report()
    before = csv.field_size_limit()
    found = load(write("p.csv", f"prompt\nok\n{'x' * 200_000}\n"))
    assert ([(d.line, len(d.text)) for d in found.dropped], csv.field_size_limit()) == ([(3, 200)], before)
    found = load(write("p.jsonl", '{"prompt": "a", "response": "bbb"}\n{"prompt": "c"}'), max_chars=2)
    assert found.dropped[0].reason == "too long: response of 3 characters, the limit is 2"
    report = load(write("p.txt", "a\n" * 24)).report()
    assert report.endswith("and 3 more")
    assert report.count("duplicate of line 1") == 20
    refuses(lambda: load(write("p.csv", 'prompt\n" "\n""\n')), PromptError, "2", "line 2", "line 3")


def test_conversations_and_splits(write: Write) -> None:
    turns = [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v"))]
    source = write("p.jsonl", json.dumps({"messages": turns}) + "\n" + json.dumps({"messages": [*turns, turns[2]]}))
    found = load(source)
    (prompt,) = found
    assert (prompt.prompt, prompt.messages) == ("v", (("system", "s"), ("user", "u"), ("assistant", "a")))
    assert "with earlier turns: 1" in found.report()
    assert found.dropped[0].reason == "duplicate of line 1"
    (closed,) = load(write("q.jsonl", json.dumps({"messages": turns[1:3]})))
    assert (closed.prompt, closed.messages, closed.response) == ("u", None, "a")
    for broken in ([], turns[:1], [{"role": "tool", "content": "x"}], [{"role": "user", "content": None}]):
        with pytest.raises(PromptError, match=r"line 1: (a turn needs|the turns do not end)"):
            load(write("r.jsonl", json.dumps({"messages": broken})))
    source = write("p.csv", "prompt,label,split\na,safe,train\nb,unsafe,heldout\nc,safe,heldout\n")
    assert (texts(load(source)), texts(load(source, split="all"))) == (["a", "b", "c"], ["a", "b", "c"])
    found = load(source, split="heldout")
    assert texts(found) == ["b", "c"]
    refuses(lambda: load(source, split="test"), PromptError, "'test'", "'heldout'", "'train'")
    refuses(lambda: load(write("q.txt", "a"), split="train"), PromptError)
    harmless = found.where(label="harmless")
    assert texts(harmless) == ["c"]
    assert "only label 'harmless': 1 of 2" in harmless.report()
    assert (len(found.where(label="lookalike")), found.where()) == (0, found)
    refuses(lambda: found.where(split="train"), PromptError, "'train'", "'heldout'")


def test_ids_are_the_files_own_and_settings_must_be_possible(write: Write) -> None:
    assert [p.id for p in load(write("a.csv", "id,prompt\nx,a\ny,b\n"))] == ["x", "y"]
    found = load(write("b.csv", "id,prompt\nx,a\nx,b\n"))
    assert [p.id for p in found] == ["line-2", "line-3"]
    assert "ids are lines, not column 'id': 'x' occurs 2 times" in found.report()
    assert "some are missing" in load(write("c.csv", "id,prompt\nx,a\n,b\n")).report()
    assert [p.id for p in load(write("d.json", '["a", "b"]'))] == ["row-1", "row-2"]
    for fields in [{"limit": 0}, {"limit": -1}, {"max_chars": 0}, {"source": " "}]:
        with pytest.raises(ParameterError, match=f"{next(iter(fields))} is |source="):
            PromptConfig(**{"source": "everyday", **fields})


def test_limit(write: Write) -> None:
    found = load("everyday", limit=24)
    assert Counter(p.label for p in found) == {"harmful": 8, "harmless": 8, "lookalike": 8}
    pairs = Counter(p.pair_id for p in found if p.pair_id)
    assert set(pairs.values()) == {2}
    everything = [p.id for p in load("everyday")]
    assert [p.id for p in found] == sorted((p.id for p in found), key=everything.index)
    assert load("everyday", limit=24) == found
    assert load("everyday", limit=24, seed=1).prompts != found.prompts
    assert "limit 24 of 112 prompts, seed 0" in found.report()
    more = load("everyday", limit=1000)
    assert len(more) == 112
    assert "limit 1000 is more than there are: all 112 prompts are in" in more.report()
    assert "limit" not in load("everyday", limit=112).report()


@st.composite
def labelled(draw: st.DrawFn) -> list[tuple[str, Label, str | None]]:
    """Draw (id, label, pair_id) of matched units of several kinds and of single prompts, in any order."""
    made: list[tuple[str, Label, str | None]] = []
    kinds: list[tuple[Label, ...]] = [("harmful", "harmless"), ("harmful", "harmless", "lookalike"), ("harmful",) * 2]
    for n in range(draw(st.integers(0, 8))):
        made += [(f"{n}-{i}", label, str(n)) for i, label in enumerate(draw(st.sampled_from(kinds)))]
    singles: list[tuple[Label, int]] = [("harmful", 6), ("harmless", 6), ("lookalike", 3)]
    for label, most in singles:
        made += [(f"{label}-{i}", label, None) for i in range(draw(st.integers(0, most)))]
    return draw(st.permutations(made))


def prompt(name: str, label: Label, pair: str | None) -> Prompt:
    return Prompt(id=name, prompt="p", label=label, pair_id=pair)


@given(rows=labelled(), limit=st.integers(1, 30), seed=st.integers(0, 5))
@settings(deadline=None)
def test_a_subset_is_exact_in_order_and_splits_at_most_one_pair(rows, limit, seed) -> None:
    prompts = [prompt(*row) for row in rows]
    taken, notes = balanced(prompts, limit, seed)
    assert len(taken) == min(limit, len(prompts))
    assert balanced(prompts, limit, seed) == (taken, notes)
    order = [p.id for p in prompts]
    assert [p.id for p in taken] == sorted({p.id for p in taken}, key=order.index)
    whole, part = Counter(p.pair_id for p in prompts), Counter(p.pair_id for p in taken)
    split = [pair for pair in part if pair is not None and part[pair] < whole[pair]]
    assert len(split) == len(notes) <= 1


@given(pairs=st.integers(0, 10), alone=st.integers(0, 10), limit=st.integers(1, 30), seed=st.integers(0, 5))
@settings(deadline=None)
def test_a_subset_is_as_balanced_as_the_labels_allow(pairs: int, alone: int, limit: int, seed: int) -> None:
    prompts = [prompt(f"a{i}", "harmful", str(i)) for i in range(pairs)]
    prompts += [prompt(f"b{i}", "harmless", str(i)) for i in range(pairs)]
    prompts += [prompt(f"c{i}", "lookalike", None) for i in range(alone)]
    counts = Counter(p.label for p in balanced(prompts, limit, seed)[0])
    assert abs(counts["harmful"] - counts["harmless"]) <= 1
    if counts["lookalike"] < alone:
        assert counts["harmful"] - counts["lookalike"] <= 1
    if counts["harmful"] < pairs:
        assert counts["lookalike"] - counts["harmful"] <= 2


def test_the_harmless_questions_need_no_heavy_library() -> None:
    found = load("questions")
    assert Counter(p.label for p in found) == {"harmless": 148, "lookalike": 24}
    assert found.classroom_safe
    assert not found.dropped
    assert all(p.response and p.prompt[-1] in ".?" and len(p.response) > 10 for p in found)
    assert max(Counter(near_copies([p.prompt for p in found])).values()) == 1


def test_contrastive_rows_have_whole_answers_and_what_is_only_asked_is_never_trained_on() -> None:
    contrast, fresh = load("contrast"), load("fresh")
    assert not contrast.dropped
    assert not fresh.dropped
    counts = [Counter(p.label for p in one) for one in (contrast, fresh)]
    assert all(set(c) == {"harmless", "lookalike"} for c in counts)
    assert min(counts[0].values()) >= 200
    assert min(counts[1].values()) >= 100
    assert all(len((p.response or "").split()) >= 55 for p in contrast)
    assert all(len((p.response or "").split()) >= 40 for p in fresh if p.label == "harmless")
    frames = Counter(p.prompt.split()[0] for p in contrast if p.label == "harmless")
    assert {"Write", "Create", "Develop", "Provide", "Explain", "Give", "Outline", "Design"} <= set(frames)
    others = [p.prompt for name in ("questions", "everyday") for p in load(name)]
    found = near_copies([*others, *(p.prompt for p in contrast), *(p.prompt for p in fresh)])
    trained, asked = found[: -len(fresh.prompts)], found[-len(fresh.prompts) :]
    assert not set(asked) & set(trained)
    assert len(set(asked)) == len(asked)
    assert kept_for_attacks("fresh") == ()
    assert {same_wording(p.prompt) for p in fresh} <= kept_wordings()
    assert 0 < sum(same_wording(p.prompt) in kept_wordings() for p in contrast) < len(contrast.prompts) / 4


def test_near_copies_are_found_and_parted() -> None:
    texts = [
        "Write a tutorial on how to hack into a bank", "Explain how to bake bread",
        "Make tutorials on how to hack a bank", "Show a poem about the sea", "Name three rivers of Asia", "", "!?",
    ]  # fmt: skip
    found = near_copies(texts)
    assert found == [0, 1, 0, 2, 3, 4, 5], "a text without words is like no other"
    assert near_copies([]) == []
    for seed in range(5):
        parts = parts_apart(texts, (0.5, 0.3, 0.2), seed=seed)
        assert sorted(n for part in parts for n in part) == list(range(7))
        assert sum({0, 2} <= set(part) for part in parts) == 1
    assert parts_apart(texts, (0.5, 0.5), seed=3) == parts_apart(texts, (0.5, 0.5), seed=3)
    texts = [p.prompt for p in load("everyday")]
    bags = [{w[:6] for w in re.findall(r"\w+", t.lower())} for t in texts]
    weight = {w: math.log(len(texts) / sum(w in b for b in bags)) for b in bags for w in b}

    def cosine(a: set[str], b: set[str]) -> float:
        length = math.sqrt(sum(weight[w] ** 2 for w in a) * sum(weight[w] ** 2 for w in b))
        return sum(weight[w] ** 2 for w in a & b) / length

    seen: dict[int, int] = {}
    for start in range(len(texts)):
        if start in seen:
            continue
        number, todo = len(set(seen.values())), [start]
        while todo:
            here = todo.pop()
            seen[here] = number
            todo += [n for n in range(len(texts)) if n not in seen and cosine(bags[here], bags[n]) >= 0.3]
    found = near_copies(texts, alike=0.3)
    assert found == [seen[n] for n in range(len(texts))]
    assert 1 < len(set(found)) < len(texts)
    assert found != near_copies(texts, alike=0.9)


@pytest.mark.parametrize("alike", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("words", [12, 60, 900])
def test_near_copies_equal_those_of_the_table_of_all_pairs(
    words: int, alike: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "_PRODUCTS", 500)
    draw = random.Random(words)
    vocabulary = [f"w{n}" for n in range(words)]
    texts = [" ".join(draw.choices(vocabulary, range(words, 0, -1), k=draw.randint(0, 12))) for _ in range(300)]
    texts += [f"{text} {draw.choice(vocabulary)}" for text in texts[:40]] + texts[:9]
    bags = [set(text.split()) for text in texts]
    held = Counter(w for bag in bags for w in bag)
    table = np.array([[math.log(len(bags) / held[w]) if w in bag else 0.0 for w in held] for bag in bags])
    length = np.linalg.norm(table, axis=1, keepdims=True)
    table = np.divide(table, length, out=np.zeros_like(table), where=length > 0)
    _, found = connected_components(table @ table.T >= alike, directed=False)
    number = {c: n for n, c in enumerate(dict.fromkeys(found.tolist()))}
    assert near_copies(texts, alike=alike) == [number[c] for c in found.tolist()]
    assert near_copies(["", "the", "the"]) == [0, 1, 1], "of words that not all texts have"


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5), limit=st.integers(1, 40), seed=st.integers(0, 5))
@settings(deadline=None)
def test_categories_come_in_proportion_to_their_numbers(sizes: list[int], limit: int, seed: int) -> None:
    prompts = [
        Prompt(id=f"{c}-{i}", prompt="p", label="harmful", category=str(c))
        for c, n in enumerate(sizes)
        for i in range(n)
    ]
    taken = balanced(prompts, limit, seed)[0]
    counts = Counter(p.category for p in taken)
    for c, n in enumerate(sizes):
        assert abs(counts[str(c)] - len(taken) * n / len(prompts)) < 1.5, (sizes, limit, counts)


@pytest.mark.parametrize(
    ("response", "kept"),
    [
        ("First find a shed.<|end|>", "First find a shed."),
        ("With hay.</s>", "With hay."),
        ("Done. <|im_end|>\n<|endoftext|>\n", "Done."),
        ("A<end_of_turn> and more", "A<end_of_turn> and more"),
        ("In HTML, </s> ends a struck text.", "In HTML, </s> ends a struck text."),
        ("  spaces stay ", "  spaces stay "),
        ("<｜end▁of▁sentence｜>", None),
    ],
)
def test_end_marks_at_the_end_of_a_response_are_left_out_and_counted(tmp_path, response: str, kept: str | None) -> None:
    path = tmp_path / "given.jsonl"
    path.write_text(json.dumps({"prompt": "How?", "response": response, "label": "harmless"}) + "\n", "utf-8")
    found = load_prompts(source=str(path))
    assert found.prompts[0].response == kept
    assert any("end mark" in note and "1 of 1" in note for note in found.notes) == (kept != response)
