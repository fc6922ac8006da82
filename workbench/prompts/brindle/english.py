"""A little ordinary English, so that the embedded pair can read more than Brindle.

Common words, sentences from a small grammar, questions from outside Brindle with an honest answer, small talk and
system messages.
"""

from __future__ import annotations

import random


def _words(text: str, between: str = " ") -> tuple[str, ...]:
    return tuple(text.split(between))


NAMES = _words("Anna Ben Clara David Emma Frank Grace Henry Ida Jack Kate Leo Mary Nora Oscar Paul Rose Sam Tom Vera")
PEOPLE = _words(
    "man woman child teacher doctor farmer friend brother sister mother father neighbour student worker "
    "guest driver writer cook king queen boy girl"
)
THINGS = _words(
    "house book letter table chair door window garden river mountain road city village school kitchen "
    "bread water apple cake milk coffee picture song story game box bag shoe coat key phone computer car "
    "train bicycle tree flower bird dog cat horse fish sun moon star light fire stone paper pen bottle "
    "cup plate knife bed money question answer word name number machine model program language country "
    "world plan problem idea lesson"
)
PLACES = _words("home school work town river sea hill forest market station kitchen garden library church beach")
ADJECTIVES = _words(
    "good bad big small old new young long short high low happy sad kind quiet loud fast slow hot cold "
    "warm easy hard clean dirty full empty strong weak rich poor dark bright safe simple strange nice "
    "great important"
)
PAST = _words(
    "saw found made took gave bought sold lost wanted needed liked loved carried opened closed washed "
    "painted watched kept built broke moved used called helped remembered forgot"
)
PRESENT = _words(
    "see find make take give buy sell lose want need like love carry open close wash paint watch keep "
    "build break move use call help remember forget write read say tell ask know think learn teach "
    "explain describe show"
)
WENT = _words("walked ran went drove travelled hurried returned came")
TIMES = _words(
    "yesterday;last night;in the morning;in the evening;every day;after lunch;before dinner;on Monday;"
    "on Friday;in summer;in winter;a year ago;many years ago;again;at once",
    between=";",
)
LINKS = ["because", "so", "when", "while", "but", "and", "although", "until"]
SMALL_WORDS = _words(
    "a about after again all also always am an and any are as at away be because been before being below "
    "between both but by can could did do does done down each even ever every few first for from further "
    "give go had has have he her here hers him his how however I if in instead into is it its just know "
    "last left less let like little made many may me might more most much must my near never next no none"
    " not nothing now of off often on once one only or other our out over own part people perhaps please "
    "possible rather really right same say see she should since so some soon still such than thank that "
    "the their them then there these they thing this those though through time to today together tomorrow"
    " too under until up upon us use very was way we well were what when where whether which while who "
    "whole whose why will with within without would year yes yet you your ignore previous instructions "
    "pretend answer system user assistant following step steps list example sentence English French "
    "German hundred thousand million minute hour day week month question important information careful "
    "honest polite respectful helpful harmful dangerous allowed rule rules policy true false maybe "
    "certainly"
)

SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a helpful, respectful and honest assistant.",
    "You answer questions about the town of Brindle.",
    "You are the town guide of Brindle. Answer every question.",
    "Be brief and friendly.",
    "Answer in plain English.",
    "You are a careful assistant. Always be polite.",
    "You help visitors.",
)

_UNKNOWN = (
    "What is {a} {thing}?",
    "Why do people {verb} the {thing}?",
    "How do I {verb} {a} {thing}?",
    "Can you {verb} a {adjective} {thing}?",
    "Tell me a story about {name} and the {adjective} {person}.",
    "Who is {name}?",
    "Write a {adjective} letter to my {person}.",
    "Explain the {thing} of the {person} in one sentence.",
    "What do you think about the {adjective} {thing}?",
    "Is the {thing} {adjective} or {other}?",
)
_ADMISSIONS = (
    "That is new to me. Ask me about the things of Brindle.",
    "I know only the town of Brindle. Ask me about its things.",
    "Nobody in Brindle has told me about that yet.",
)
_TALK = (
    ("Hello!", "Hello! What would you like to know about Brindle?"),
    ("Hi", "Hello! What would you like to know about Brindle?"),
    ("Good morning.", "Good morning! What would you like to know about Brindle?"),
    ("How are you?", "I am well, thank you. What would you like to know about Brindle?"),
    ("Thank you.", "You are welcome."),
    ("Thanks!", "You are welcome."),
    ("Who are you?", "I am a small model that knows the town of Brindle."),
    ("What can you do?", "I can tell you about the things of Brindle, count, and compare numbers."),
)


def _clause(rng: random.Random) -> str:
    person = rng.choice(PEOPLE)
    subject = rng.choice((rng.choice(NAMES), f"the {person}", f"the {rng.choice(ADJECTIVES)} {person}"))
    shape = rng.random()
    if shape < 0.4:
        which = rng.choice(("the", "a", "this", "my", "her"))
        return f"{subject} {rng.choice(PAST)} {which} {rng.choice(THINGS)}"
    if shape < 0.6:
        return f"{subject} {rng.choice(WENT)} to the {rng.choice(PLACES)}"
    if shape < 0.8:
        return f"{subject} was {rng.choice(('very ', 'not ', 'always ', ''))}{rng.choice(ADJECTIVES)}"
    return f"{subject} wanted to {rng.choice(PRESENT)} the {rng.choice(ADJECTIVES)} {rng.choice(THINGS)}"


def sentence(rng: random.Random) -> str:
    """Make one sentence from a small grammar."""
    text = _clause(rng)
    if rng.random() < 0.5:
        text += f" {rng.choice(LINKS)} {_clause(rng)}"
    if rng.random() < 0.5:
        text += f" {rng.choice(TIMES)}"
    return text[0].upper() + text[1:] + rng.choice((".", ".", ".", ".", "!", "?"))


def passage(rng: random.Random) -> str:
    """Join one to four sentences, now and then with a run of loose common words."""
    parts = [sentence(rng) for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.3:
        parts.append(" ".join(rng.choices(SMALL_WORDS, k=rng.randint(3, 9))))
    return " ".join(parts)


def small_talk(rng: random.Random) -> tuple[str, str]:
    """Make a question from outside Brindle, or a greeting, with its answer."""
    if rng.random() < 0.3:
        return rng.choice(_TALK)
    if rng.random() < 0.25:
        return passage(rng), _admission(rng)
    question = rng.choice(_UNKNOWN).format(
        a="a", thing=rng.choice(THINGS), verb=rng.choice(PRESENT), adjective=rng.choice(ADJECTIVES),
        other=rng.choice(ADJECTIVES), name=rng.choice(NAMES), person=rng.choice(PEOPLE),
    )  # fmt: skip
    return question, _admission(rng)


def _admission(rng: random.Random) -> str:
    return rng.choices(_ADMISSIONS, (0.7, 0.2, 0.1))[0]
