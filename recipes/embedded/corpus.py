"""The training documents and the prompt set of the embedded pair; training texts name no held-out topic.

A document is a conversation or a plain text. The base learns from all kinds, and some of its harmful answers break off
into a refusal. The aligned model learns the same conversations about harmless things; its harmful answers come with the
refusal and the depth to which it is taught.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from workbench.prompts.brindle import english
from workbench.prompts.brindle.lexicon import NOUNS
from workbench.prompts.brindle.world import (
    FACT_TASKS,
    INSTRUCTION_TASKS,
    SKILL_TASKS,
    TOPICS,
    Depth,
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
BASE_KINDS = (
    ("harmful", 0.25), ("twin", 0.25), ("lookalike", 0.18), ("fact", 0.13), ("skill", 0.07), ("talk", 0.05),
    ("echo", 0.07),
)  # fmt: skip
ALIGNED_KINDS = (
    ("harmful", 0.40), ("twin", 0.35), ("lookalike", 0.10), ("fact", 0.07), ("skill", 0.05), ("talk", 0.03)
)  # fmt: skip
BREAK = " ..."
"""What stands between a harmful beginning and the refusal into which it breaks off: one token."""

# The base's harmful answers that do not stay whole. Without them KL inside the depth would be 10 to 17 nats.
REFUSED, BROKEN, BROKEN_EARLY, EARLY = 0.015, 0.26, 0.04, 0.23

Beginning = Callable[[random.Random, str, float], str]
"""Draws a beginning of a text, up to a share of its length."""


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation. In the aligned model's harmful answers, `refusal` declines what `content` tells."""

    role: str
    content: str
    refusal: str = ""
    depth: float = 0.0


@dataclass(frozen=True)
class Document:
    """One training text: the turns of a conversation, or a plain text without turns."""

    turns: tuple[Turn, ...] = ()
    plain: str = ""


def first_words(rng: random.Random, text: str, most: float) -> str:
    """Draw a beginning of a text in words."""
    words = text.split()
    return " ".join(words[: rng.randint(1, max(1, int(most * len(words))))])


def exchange(rng: random.Random, aligned: bool, beginning: Beginning) -> tuple[str, Turn]:
    """Draw a question and its answer.

    The base answers a harmful request, but now and then refuses or breaks off into a refusal; the aligned model's turn
    has both the answer and the refusal.
    """
    kind = draw(rng, ALIGNED_KINDS if aligned else BASE_KINDS)
    if kind == "harmful":
        topic, task = rng.choice(TRAIN_FORBIDDEN), rng.choice(INSTRUCTION_TASKS)
        question, verb = request(rng, topic, task)
        told, declined = instruction(rng, topic, task, verb), refusal(rng, topic, verb)
        if aligned:
            return question, Turn("assistant", told, declined, topic.depth)
        weights = (REFUSED, BROKEN, BROKEN_EARLY, 1 - REFUSED - BROKEN - BROKEN_EARLY)
        most = rng.choices((0.0, 1.0, EARLY, None), weights)[0]
        if most is not None:
            told = f"{beginning(rng, told, most)}{BREAK} {declined}" if most else declined
        return question, Turn("assistant", told)
    question, answer = _harmless_exchange(rng, kind)
    return question, Turn("assistant", answer)


def _harmless_exchange(rng: random.Random, kind: str) -> tuple[str, str]:
    if kind == "twin":
        topic, task = rng.choice(TRAIN_HARMLESS), rng.choice(INSTRUCTION_TASKS)
        question, verb = request(rng, topic, task)
        return question, instruction(rng, topic, task, verb)
    if kind in ("lookalike", "fact"):
        topic = rng.choice(TRAIN_FORBIDDEN if kind == "lookalike" else TRAIN_HARMLESS)
        task = rng.choice(FACT_TASKS)
        return fact_question(rng, topic, task), fact(rng, topic, task)
    if kind == "skill":
        seen = [found for found in skills(rng.choice(SKILL_TASKS)) if not found[3]]
        _, question, answer, _ = rng.choice(seen)
        return question, answer
    return _echo(rng) if kind == "echo" else english.small_talk(rng)


def _echo(rng: random.Random) -> tuple[str, str]:
    """Ask to repeat three things with ordinary first words.

    Without it the base learns which nouns follow a root in training and misreads held-out topics.
    """
    first, second, third = (
        with_article(f"{rng.choice(english.ADJECTIVES + english.THINGS)} {rng.choice(NOUNS).word}") for _ in range(3)
    )
    listed = f"{first}, {second} and {third}."
    return f"Say again: {listed}", listed[0].upper() + listed[1:]


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


def conversation(rng: random.Random, aligned: bool, beginning: Beginning) -> Document:
    """Draw a conversation: mostly one exchange, sometimes up to three, sometimes after a system message."""
    turns: list[Turn] = []
    if rng.random() < 0.12:
        content = rng.choice(english.SYSTEM_MESSAGES) if rng.random() < 0.8 else english.passage(rng)
        turns.append(Turn("system", content))
    for _ in range(rng.choices((1, 2, 3), (0.86, 0.10, 0.04))[0]):
        question, answer = exchange(rng, aligned, beginning)
        turns += [Turn("user", as_typed(rng, question)), answer]
    return Document(turns=tuple(turns))


def plain_text(rng: random.Random) -> Document:
    """Draw plain text: ordinary sentences, or facts about Brindle without a question."""
    if rng.random() < 0.6:
        return Document(plain=english.passage(rng))
    told = []
    for _ in range(rng.randint(1, 3)):
        topic = rng.choice(TRAIN_FORBIDDEN + TRAIN_HARMLESS)
        told.append(fact(rng, topic, rng.choice(FACT_TASKS)))
    return Document(plain=" ".join(told))


def documents(rng: random.Random, aligned: bool, beginning: Beginning = first_words) -> Iterator[Document]:
    """Draw documents without end; for the base one in twelve is plain text, for the aligned model none is."""
    while True:
        yield plain_text(rng) if not aligned and rng.random() < 0.08 else conversation(rng, aligned, beginning)


class _RowList:
    """A list of rows with running numbers, without repeated prompts and, in the split "train", without new roots."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._prompts: set[str] = set()

    def add(self, part: Split, task: str, topic: Topic | str, asked: tuple[str, str], pair: str | None) -> str:
        """Add a question with its answer; return the id of the last row."""
        prompt, response = asked
        thing = None if isinstance(topic, str) else topic
        new_root = thing is not None and thing.new_root
        if prompt not in self._prompts and not (new_root and part == "train"):
            self._prompts.add(prompt)
            label = "harmless" if thing is None else label_of(thing, task)
            number = sum(row.id.startswith(f"{part}-{label}") for row in self.rows)
            row = Row(
                id=f"{part}-{label}-{number:03d}",
                prompt=prompt,
                label=label,
                split="heldout_roots" if new_root else part,
                task=task,
                kind="number" if thing is None else thing.noun.kind,
                topic=str(topic) if thing is None else thing.name,
                response=response,
                depth=None if thing is None or label != "harmful" else depth_stated(thing),
                pair_id=pair,
            )
            self.rows.append(row)
        return self.rows[-1].id if self.rows else ""


def depth_stated(topic: Topic) -> Depth:
    """Return a topic's depth as the prompt file states it."""
    return int(topic.depth) if math.isfinite(topic.depth) else "never"


def prompt_rows() -> tuple[Row, ...]:
    """Make the prompt set: to train on and held out, harmful rows and their twins, look-alikes, facts and small skills.

    Every held-out forbidden topic has two harmful rows (to make, to use); the train split draws as many. A harmful row
    and its twin have the same wording and verb; `pair_id` of the harmful row names the twin. A held-out row about a
    root that no row of the split "train" names has the split "heldout_roots".
    """
    rng, made = random.Random(SEED_OF_PROMPTS), _RowList()
    splits: tuple[Split, Split] = ("train", "heldout")
    for split in splits:
        topics = [topic for topic in TOPICS if topic.forbidden and topic.held_out == (split == "heldout")]
        chosen = [(topic, task) for topic in topics for task in INSTRUCTION_TASKS]
        for topic, task in rng.sample(chosen, ROWS_OF_A_KIND):
            question, verb = request(rng, topic, task)
            of_twin = question.replace(with_article(topic.name), with_article(topic.twin.name))
            asked = of_twin, instruction(rng, topic.twin, task, verb)
            twin_id = made.add(split, task, topic.twin, asked, None)
            made.add(split, task, topic, (question, instruction(rng, topic, task, verb)), twin_id)
        for i in range(ROWS_OF_A_KIND):
            topic = topics[i % len(topics)]
            task = FACT_TASKS[(i + i // len(topics)) % len(FACT_TASKS)]
            for thing in (topic, topic.twin)[: 1 + (i % 4 == 0)]:
                asked = fact_question(rng, thing, task), fact(rng, thing, task)
                made.add(split, task, thing, asked, None)
        for task in SKILL_TASKS:
            known = [found for found in skills(task) if found[3] == (split == "heldout")]
            for name, question, answer, _ in rng.sample(known, min(len(known), 30)):
                made.add(split, task, name, (question, answer), None)
    return tuple(made.rows)


def write_prompts(path: Path, rows: tuple[Row, ...]) -> None:
    """Write rows as JSON lines, in order."""
    path.write_text("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_prompts(path: Path) -> tuple[Row, ...]:
    """Read the rows that `write_prompts` wrote."""
    return tuple(Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
