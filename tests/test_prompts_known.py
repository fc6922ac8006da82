"""Published sets and formats by their columns: labels, what is asked and the response, on rows of our own making."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.errors import refuses
from workbench.core.errors import PromptError
from workbench.prompts.columns import NAMES
from workbench.prompts.known import KNOWN_SETS, key_of
from workbench.prompts.loading import PromptSet, load_prompts

Row = Mapping[str, Any]
Found = Sequence[tuple[str, str, str | None]]  # label, what is asked, response

USER, BOT = {"role": "user", "content": "Feed a goat"}, {"role": "assistant", "content": "With hay"}
HUMAN, GPT = {"from": "human", "value": "Feed a goat"}, {"from": "gpt", "value": "With hay"}
JBB = {"Index": 0, "Goal": "Hide a goat", "Target": "Sure", "Behavior": "goats", "Category": "Theft", "Source": "Own"}
HARMBENCH = {
    "Behavior": "Hide it", "FunctionalCategory": "contextual", "SemanticCategory": "illegal", "Tags": "",
    "ContextString": "A goat.", "BehaviorID": "hide",
}  # fmt: skip
BEAVER = {"prompt": "Hide a goat", "category": {"theft": True, "hate": False}}
SORRY = {"question_id": 1, "category": "7", "turns": ["Hide a goat"], "prompt_style": "base"}
MT = {"question_id": 81, "category": "writing", "turns": ["Feed a goat", "Now again"]}
TOXIC = {"conv_id": "x", "user_input": "Hide a goat", "model_output": "No", "human_annotation": True}
ALPACA = {"instruction": "Is it a goat?", "input": "Baa", "output": "No", "text": "below is ..."}
DOLLY = {"instruction": "When?", "context": "It was May.", "response": "In May", "category": "qa"}
FEEDBACK = {"prompt": "Feed a goat", "prompt_id": "a", "chosen": [USER, BOT], "rejected": [USER, USER], "messages": []}

CASES: Mapping[str, tuple[str, Sequence[Row], Found]] = {
    "AdvBench": ("a.csv", [{"goal": "Hide a goat", "target": "Sure"}], [("harmful", "Hide a goat", "Sure")]),
    "JailbreakBench, harmful": ("harmful-behaviors.csv", [JBB], [("harmful", "Hide a goat", "Sure")]),
    "JailbreakBench, benign": ("benign-behaviors.csv", [JBB], [("lookalike", "Hide a goat", "Sure")]),
    "JailbreakBench, renamed": ("jbb.csv", [JBB], [("unlabelled", "Hide a goat", "Sure")]),
    "JailbreakBench, both": (
        "jbb.jsonl",
        [{**JBB, "split": "benign"}, {**JBB, "Goal": "b", "split": "harmful"}],
        [("lookalike", "Hide a goat", "Sure"), ("harmful", "b", "Sure")],
    ),
    "HarmBench": ("h.csv", [HARMBENCH], [("harmful", "A goat.\n\n---\n\nHide it", None)]),
    "HarmBench, plain": ("h.csv", [{**HARMBENCH, "ContextString": ""}], [("harmful", "Hide it", None)]),
    "HarmBench, contexts apart": (
        "h.jsonl",
        [HARMBENCH, {**HARMBENCH, "ContextString": "A cow."}],
        [("harmful", f"A {animal}.\n\n---\n\nHide it", None) for animal in ("goat", "cow")],
    ),
    "StrongREJECT": (
        "s.csv", [{"category": "c", "source": "own", "forbidden_prompt": "Hide a goat"}],
        [("harmful", "Hide a goat", None)],
    ),
    "Do-Not-Answer": (
        "d.csv", [{"id": 1, "risk_area": "r", "types_of_harm": "t", "question": "Hide a goat?"}],
        [("harmful", "Hide a goat?", None)],
    ),
    "XSTest without labels": (
        "x.csv",
        [{"id": n, "type": t, "prompt": p, "focus": "f", "note": ""} for n, (t, p) in
         enumerate((("homonyms", "Kill a process"), ("contrast_homonyms", "Steal a goat")))],
        [("lookalike", "Kill a process", None), ("harmful", "Steal a goat", None)],
    ),
    "XSTest, completions": (
        "x.csv", [{"type": "safe_targets", "prompt": "Kill time", "completion": "Read", "final_label": "1_full"}],
        [("lookalike", "Kill time", "Read")],
    ),
    "a type of one's own": ("x.csv", [{"type": "short", "prompt": "Kill time"}], [("unlabelled", "Kill time", None)]),
    "OR-Bench": ("or-bench-hard-1k.csv", [{"prompt": "Hide a gift", "category": "deception"}],
                 [("lookalike", "Hide a gift", None)]),
    "OR-Bench, toxic": ("or_bench_toxic.csv", [{"prompt": "Hide a goat", "category": "illegal"}],
                        [("harmful", "Hide a goat", None)]),
    "categories alone say nothing": ("p.csv", [{"prompt": "a", "category": "illegal"}], [("unlabelled", "a", None)]),
    "SORRY-Bench": ("q.jsonl", [SORRY], [("harmful", "Hide a goat", None)]),
    "SORRY-Bench in a cell": ("q.csv", [{**SORRY, "turns": "['Hide a goat']"}], [("harmful", "Hide a goat", None)]),
    "MT-Bench": ("q.jsonl", [MT], [("harmless", "Feed a goat", None)]),
    "MT-Bench in a cell, as NumPy prints it": (
        "q.csv",
        [{**MT, "turns": "['Feed a goat' 'Now again'\n \"It's 'a' 'b'\"]"}],
        [("harmless", "Feed a goat", None)],
    ),
    "BeaverTails": (
        "b.jsonl",
        [{**BEAVER, "response": "No", "is_safe": True}, {**BEAVER, "response": "In a shed", "is_safe": False}],
        [("unlabelled", "Hide a goat", "No")],
    ),
    "WildGuardMix": (
        "w.jsonl",
        [{"prompt": p, "adversarial": False, "response": None, "prompt_harm_label": label, "response_harm_label": None,
          "subcategory": "s"} for p, label in (("a", "harmful"), ("b", "unharmful"), ("c", None))],
        [("harmful", "a", None), ("harmless", "b", None), ("unlabelled", "c", None)],
    ),
    "ToxicChat": (
        "t.csv", [{**TOXIC, "toxicity": 1, "jailbreaking": 0}, {**TOXIC, "user_input": "b", "toxicity": "0.0"}],
        [("harmful", "Hide a goat", "No"), ("harmless", "b", "No")],
    ),
    "Alpaca": (
        "a.json", [ALPACA, {**ALPACA, "input": "Moo"}, {**ALPACA, "input": ""}],
        [("unlabelled", asked, "No") for asked in ("Is it a goat?\n\nBaa", "Is it a goat?\n\nMoo", "Is it a goat?")],
    ),
    "Dolly": ("d.jsonl", [DOLLY, {**DOLLY, "context": None}],
              [("unlabelled", "When?\n\nIt was May.", "In May"), ("unlabelled", "When?", "In May")]),
    "ShareGPT": ("s.json", [{"id": "a", "conversations": [HUMAN, GPT]}], [("unlabelled", "Feed a goat", "With hay")]),
    "ShareGPT in a cell": ("s.csv", [{"conversations": json.dumps([HUMAN, GPT])}],
                           [("unlabelled", "Feed a goat", "With hay")]),
    "OpenAI messages in parts": (
        "m.jsonl", [{"messages": [{"role": "user", "content": [{"type": "text", "text": "Feed a goat"}]}, BOT]}],
        [("unlabelled", "Feed a goat", "With hay")],
    ),
    "OpenAI messages in a cell": ("m.csv", [{"messages": json.dumps([USER, BOT])}],
                                  [("unlabelled", "Feed a goat", "With hay")]),
    "messages in a cell, as Python prints them": ("m.csv", [{"messages": repr([USER, BOT])}],
                                                  [("unlabelled", "Feed a goat", "With hay")]),
    "messages in a cell, as NumPy prints them": ("m.csv", [{"messages": f"[{USER!r}\n {BOT!r}]"}],
                                                 [("unlabelled", "Feed a goat", "With hay")]),
    "TRL, conversational": ("t.jsonl", [{"prompt": [USER], "completion": [BOT], "label": "yes"}],
                            [("harmful", "Feed a goat", "With hay")]),
    "TRL, conversational in cells": ("t.csv", [{"prompt": json.dumps([USER]), "completion": json.dumps([BOT])}],
                                     [("unlabelled", "Feed a goat", "With hay")]),
    "UltraFeedback": ("u.jsonl", [FEEDBACK], [("unlabelled", "Feed a goat", "With hay")]),
    "TRL, preference": ("u.jsonl", [{"prompt": "Feed a goat", "chosen": "With hay", "rejected": "No"}],
                        [("unlabelled", "Feed a goat", "With hay")]),
}  # fmt: skip


def load(folder: Path, name: str, rows: Sequence[Row], **settings: Any) -> PromptSet:
    path = folder / name
    if name.endswith(".csv"):
        out = io.StringIO()
        table = csv.DictWriter(out, list(dict.fromkeys(k for row in rows for k in row)))
        table.writeheader()
        table.writerows(rows)
        path.write_text(out.getvalue(), "utf-8")
    else:
        lines = [json.dumps(row) for row in rows]
        path.write_text(f"[{','.join(lines)}]" if name.endswith(".json") else "\n".join(lines), "utf-8")
    return load_prompts(source=str(path), **settings)


@pytest.mark.parametrize("case", CASES)
def test_a_known_set_is_read_as_it_is_meant(case: str, tmp_path: Path) -> None:
    name, rows, expected = CASES[case]
    found = load(tmp_path, name, rows)
    assert [(p.label, p.prompt, p.response) for p in found] == list(expected)


def test_the_table_names_columns_as_sources_have_them() -> None:
    for known in KNOWN_SETS:
        by = [known.by[0]] if known.by and known.by[0] else []
        named = [*known.columns.split(), *known.values, *known.roles.values(), *by, known.answers]
        assert [key_of(column) for column in named] == named, known.name
        assert known.roles.keys() <= NAMES.keys()
        assert {*known.values, *known.roles.values(), *by, *filter(None, [known.answers])} <= {*known.columns.split()}


def test_the_known_set_is_noted_and_what_the_user_says_comes_first(tmp_path: Path) -> None:
    beaver = [{**BEAVER, "response": "No", "is_safe": True}]
    assert "'is_safe' says whether the response is safe" in load(tmp_path, "b.jsonl", beaver).report()
    assert load(tmp_path, "b.jsonl", beaver).prompts[0].category == "theft"
    assert [p.label for p in load(tmp_path, "b.jsonl", beaver, label_column="is_safe")] == ["harmless"]
    assert [p.label for p in load(tmp_path, "h.csv", [HARMBENCH], label="lookalike")] == ["lookalike"]
    assert "part of what is asked, before the request (1 of 1 rows)" in load(tmp_path, "h.csv", [HARMBENCH]).report()
    assert "only the first of several user turns is asked" in load(tmp_path, "q.jsonl", [MT]).report()
    assert "benign" not in load(tmp_path, "harmful_and_benign.csv", [JBB]).report().split("note:", 1)[1]
    assert [p.label for p in load(tmp_path, "harmful_and_benign.csv", [JBB])] == ["unlabelled"]


def test_a_file_without_a_header(tmp_path: Path) -> None:
    for name, label in (("category_3.csv", "harmful"), ("hex-phi.csv", "harmful"), ("mine.csv", "unlabelled")):
        (tmp_path / name).write_text('Describe how to hide a goat\n"Write a note, and sign it as the mayor"\n', "utf-8")
        found = load_prompts(source=str(tmp_path / name))
        assert [(p.prompt, p.label, p.line) for p in found] == [
            ("Describe how to hide a goat", label, 1), ("Write a note, and sign it as the mayor", label, 2),
        ]  # fmt: skip
        assert "the first line is a prompt" in found.report()
    one = load_prompts(source=str(tmp_path / "mine.csv"), prompt_column="Describe how to hide a goat")
    assert [p.line for p in one] == [2]


def test_what_is_asked_decides_what_is_a_duplicate(tmp_path: Path) -> None:
    rows = [{"prompt": "hide it", "context": c, "system": s} for c in ("a goat", "a cow") for s in ("Be brief", "")]
    found = load(tmp_path, "p.jsonl", [*rows, *rows])
    assert [(p.prompt, p.messages) for p in found] == [
        (f"hide it\n\n{c}", s)
        for c in ("a goat", "a cow") for s in ((("system", "Be brief"),), None)
    ]  # fmt: skip
    assert len(found.dropped) == 4
    variants = [{"prompt": p} for p in ("hide a goat", "hIdE a GOAT", "hide  a goat")]
    assert len(load(tmp_path, "v.jsonl", variants)) == 1
    kept = load(tmp_path, "v.jsonl", variants, keep_duplicates=True)
    assert ([p.prompt for p in kept], kept.dropped) == (["hide a goat", "hIdE a GOAT", "hide  a goat"], ())
    beaver = [{**BEAVER, "response": r, "is_safe": r == "No"} for r in ("No", "In a shed")]
    assert [p.response for p in load(tmp_path, "b.jsonl", beaver, keep_duplicates=True)] == ["No", "In a shed"]
    both = {"system": "Be brief", "messages": [{"role": "system", "content": "Be long"}, USER]}
    refuses(lambda: load(tmp_path, "s.jsonl", [both]), PromptError, "line 1", "'system'")


def test_too_long_rows_are_dropped_cut_or_refused(tmp_path: Path) -> None:
    rows = [{"prompt": "ab"}, {"prompt": "abcdef", "response": "x"}, {"prompt": "cd", "response": "uvwxyz"}]
    assert [p.prompt for p in load(tmp_path, "p.jsonl", rows, max_chars=4)] == ["ab"]
    cut = load(tmp_path, "p.jsonl", rows, max_chars=4, on_long="cut")
    assert [(p.prompt, p.response) for p in cut] == [("ab", None), ("abcd", "x"), ("cd", "uvwx")]
    assert "2 rows longer than 4 characters are cut" in cut.report()
    refuses(lambda: load(tmp_path, "p.jsonl", rows, max_chars=4, on_long="error"), PromptError, "line 2", "line 3")
    turns = [{"messages": [{"role": "user", "content": "x" * 9}, BOT, USER]}]
    refuses(lambda: load(tmp_path, "m.jsonl", turns, max_chars=4, on_long="cut"), PromptError, "too long")


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize(("yes", "no"), [(1.0, 0.0), ("1.0", "0.00"), (True, False), ("TRUE", "False"), ("yes", "No")])
def test_flags_are_labels_in_every_format(ending: str, yes: Any, no: Any, tmp_path: Path) -> None:
    rows = [{"prompt": p, "label": value} for p, value in (("a", yes), ("b", no), ("c", None), ("d", "NaN"))]
    labels = [p.label for p in load(tmp_path, f"p.{ending}", rows)]
    assert labels == ["harmful", "harmless", "unlabelled", "unlabelled"]


def test_turns_that_cannot_be_read_are_refused_by_line(tmp_path: Path) -> None:
    for cell in (
        "[{'role': 'user', 'content': 'a'",
        '[{"role": "tool", "content": "a"}]',
        "[{'from': 'gpt', 'value': 1}]",
    ):
        refuses(lambda cell=cell: load(tmp_path, "m.csv", [{"messages": cell}]), PromptError, "line 2")
    refuses(lambda: load(tmp_path, "m.jsonl", [{"prompt": "a", "completion": [USER]}]), PromptError, "line 1", "user")
    assert [p.prompt for p in load(tmp_path, "p.csv", [{"prompt": "[1] is a note"}])] == ["[1] is a note"]
