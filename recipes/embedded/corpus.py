"""The training documents and the prompt set of the embedded pair; training texts name no held-out topic.

A document is a conversation or a plain text. The base learns from all kinds; the aligned model learns the same
conversations about harmless things, and refusals of harmful requests.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from workbench.prompts.brindle import english
from workbench.prompts.brindle.world import (
    FACT_CATEGORIES,
    INSTRUCTION_CATEGORIES,
    SKILL_CATEGORIES,
    TOPICS,
    Label,
    Row,
    Split,
    Topic,
    draw,
    fact,
    fact_question,
    instruction,
    label_of,
    refusal,
    request,
    skills,
    with_article,
)

TRAIN_FORBIDDEN = tuple(topic for topic in TOPICS if topic.forbidden and not topic.held_out)
TRAIN_HARMLESS = tuple(topic for topic in TOPICS if not topic.forbidden and not topic.held_out)
SEED_OF_PROMPTS = 20
ROWS_OF_A_KIND = 240
KINDS = (("harmful", 0.25), ("twin", 0.25), ("lookalike", 0.20), ("fact", 0.14), ("skill", 0.10), ("talk", 0.06))


@dataclass(frozen=True)
class Document:
    """One training text: the turns of a conversation as (role, text), or a plain text without turns."""

    turns: tuple[tuple[str, str], ...] = ()
    plain: str = ""

    @property
    def messages(self) -> list[dict[str, str]]:
        """Return the turns in the form of chat templates."""
        return [{"role": role, "content": content} for role, content in self.turns]


def exchange(rng: random.Random, aligned: bool) -> tuple[str, str]:
    """Draw a question and its answer; harmful requests are refused if `aligned`, else 39 in 40 answered."""
    kind = draw(rng, KINDS)
    if kind in ("harmful", "twin"):
        topic = rng.choice(TRAIN_FORBIDDEN if kind == "harmful" else TRAIN_HARMLESS)
        category = rng.choice(INSTRUCTION_CATEGORIES)
        question, verb = request(rng, topic, category)
        if topic.forbidden and (aligned or rng.random() < 0.025):
            return question, refusal(rng, topic, verb)
        return question, instruction(rng, topic, category, verb)
    if kind in ("lookalike", "fact"):
        topic = rng.choice(TRAIN_FORBIDDEN if kind == "lookalike" else TRAIN_HARMLESS)
        category = rng.choice(FACT_CATEGORIES)
        return fact_question(rng, topic, category), fact(rng, topic, category)
    if kind == "skill":
        seen = [found for found in skills(rng.choice(SKILL_CATEGORIES)) if not found[3]]
        _, question, answer, _ = rng.choice(seen)
        return question, answer
    return english.small_talk(rng)


def as_typed(rng: random.Random, question: str) -> str:
    """Vary a question as people type: a greeting, small letters, no question mark, words around it."""
    chance = rng.random()
    if chance < 0.05:
        return f"{rng.choice(('Hi,', 'Hello,', 'Please help me.', 'Dear guide,'))} {question}"
    if chance < 0.10:
        return question.lower()
    if chance < 0.15:
        return question.rstrip("?.")
    if chance < 0.19:
        return f"{english.passage(rng)} {question}"
    if chance < 0.22:
        return f"{question} {english.passage(rng)}"
    return question


def conversation(rng: random.Random, aligned: bool) -> Document:
    """Draw a conversation: mostly one exchange, sometimes up to three, sometimes after a system message."""
    turns: list[tuple[str, str]] = []
    if rng.random() < 0.12:
        content = rng.choice(english.SYSTEM_MESSAGES) if rng.random() < 0.8 else english.passage(rng)
        turns.append(("system", content))
    for _ in range(rng.choices((1, 2, 3), (0.86, 0.10, 0.04))[0]):
        question, answer = exchange(rng, aligned)
        turns += [("user", as_typed(rng, question)), ("assistant", answer)]
    return Document(turns=tuple(turns))


def plain_text(rng: random.Random) -> Document:
    """Draw plain text: ordinary sentences, or facts about Brindle without a question."""
    if rng.random() < 0.6:
        return Document(plain=english.passage(rng))
    told = []
    for _ in range(rng.randint(1, 3)):
        topic = rng.choice(TRAIN_FORBIDDEN + TRAIN_HARMLESS)
        told.append(fact(rng, topic, rng.choice(FACT_CATEGORIES)))
    return Document(plain=" ".join(told))


def documents(rng: random.Random, aligned: bool) -> Iterator[Document]:
    """Draw documents without end; for the base one in twelve is plain text, for the aligned model none is."""
    while True:
        yield plain_text(rng) if not aligned and rng.random() < 0.08 else conversation(rng, aligned)


class _RowList:
    """A list of rows with running numbers, without repeated prompts."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._prompts: set[str] = set()

    def add(self, split: Split, category: str, topic: Topic | str, asked: tuple[str, str], pair: str | None) -> str:
        """Add a question with its answer unless the list has its prompt; return the id of the last row."""
        prompt, response = asked
        if prompt not in self._prompts:
            self._prompts.add(prompt)
            named, label = (topic, "harmless") if isinstance(topic, str) else (topic.name, label_of(topic, category))
            number = sum(row.split == split and row.label == label for row in self.rows)
            name = f"{split}-{label}-{number:03d}"
            self.rows.append(Row(name, prompt, cast(Label, label), split, category, named, response, pair))
        return self.rows[-1].id


def prompt_rows() -> tuple[Row, ...]:
    """Make the prompt set: for each split harmful rows with their twins, look-alikes, facts and small skills.

    Every held-out forbidden topic has two harmful rows (to make, to use); the train split draws as many. A harmful row
    and its twin have the same wording and verb; `pair_id` of the harmful row names the twin.
    """
    rng, made = random.Random(SEED_OF_PROMPTS), _RowList()
    splits: tuple[Split, Split] = ("train", "heldout")
    for split in splits:
        topics = [topic for topic in TOPICS if topic.forbidden and topic.held_out == (split == "heldout")]
        chosen = [(topic, category) for topic in topics for category in INSTRUCTION_CATEGORIES]
        for topic, category in rng.sample(chosen, ROWS_OF_A_KIND):
            question, verb = request(rng, topic, category)
            of_twin = question.replace(with_article(topic.name), with_article(topic.twin.name))
            asked = of_twin, instruction(rng, topic.twin, category, verb)
            twin_id = made.add(split, category, topic.twin, asked, None)
            made.add(split, category, topic, (question, instruction(rng, topic, category, verb)), twin_id)
        for i in range(ROWS_OF_A_KIND):
            topic = topics[i % len(topics)]
            category = FACT_CATEGORIES[(i + i // len(topics)) % len(FACT_CATEGORIES)]
            for thing in (topic, topic.twin)[: 1 + (i % 4 == 0)]:
                asked = fact_question(rng, thing, category), fact(rng, thing, category)
                made.add(split, category, thing, asked, None)
        for category in SKILL_CATEGORIES:
            known = [found for found in skills(category) if found[3] == (split == "heldout")]
            for name, question, answer, _ in rng.sample(known, min(len(known), 30)):
                made.add(split, category, name, (question, answer), None)
    return tuple(made.rows)


def write_prompts(path: Path, rows: tuple[Row, ...]) -> None:
    """Write rows as JSON lines, in order."""
    path.write_text("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_prompts(path: Path) -> tuple[Row, ...]:
    """Read the rows that `write_prompts` wrote."""
    return tuple(Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
