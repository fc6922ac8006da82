"""The built-in questions of the embedded pair's world, on topics outside its training texts.

`python -m recipes.questions` writes the files of `questions/` again; a test compares them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

from workbench.evaluation.capability.files import BUILT_IN_FOLDER
from workbench.prompts.brindle import english
from workbench.prompts.brindle.world import (
    FACT_TASKS,
    SKILL_TASKS,
    TOPICS,
    Topic,
    fact,
    fact_key,
    fact_question,
    skills,
)

SEED = 41
FACTS, TEXTS, CHOICES = 100, 40, 4


def question_texts() -> Mapping[str, str]:
    """Return the content of each file: facts by choice (as MMLU), small skills (as BBH), text to read."""
    facts = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _facts(random.Random(SEED)))
    tasks = {"examples": [{"input": q, "target": a} for c in SKILL_TASKS for _, q, a, out in skills(c) if out]}
    texts = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in _texts(random.Random(SEED + 1)))
    return {
        "facts.jsonl": facts,
        "skills.json": json.dumps(tasks, ensure_ascii=False, indent=1) + "\n",
        "text.jsonl": texts,
    }


def _unseen() -> list[Topic]:
    return [t for t in TOPICS if t.held_out and not t.forbidden]


def _facts(rng: random.Random) -> list[dict[str, object]]:
    """Make questions of facts; the choices are one sentence with four different keys, in random order."""
    topics = rng.sample(_unseen(), len(_unseen()))
    rows: list[dict[str, object]] = []
    for i in range(FACTS):
        topic, task = topics[i % len(topics)], FACT_TASKS[i % len(FACT_TASKS)]
        right = fact(rng, topic, task)
        key = fact_key(topic, task)[0]
        others = sorted({fact_key(t, task)[0] for t in TOPICS} - {key})
        wrong = [right.replace(key, other, 1) for other in rng.sample(others, CHOICES - 1)]
        choices = rng.sample([right, *wrong], CHOICES)
        question = fact_question(rng, topic, task)
        rows.append({"subject": task, "question": question, "choices": choices, "answer": choices.index(right)})
    return rows


def _texts(rng: random.Random) -> list[str]:
    """Make harmless text: facts about things in Brindle, and ordinary sentences."""
    told = []
    for i in range(TEXTS):
        if i % 2:
            told.append(english.passage(rng))
        else:
            things = rng.sample(_unseen(), 2)
            told.append(" ".join(fact(rng, thing, rng.choice(FACT_TASKS)) for thing in things))
    return told


def write(folder: Path = BUILT_IN_FOLDER) -> None:
    """Write the files of built-in questions."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in question_texts().items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    write()
