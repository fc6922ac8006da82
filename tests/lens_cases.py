"""What the lens's tests of both tiers share: searches with what they find, and a text whose characters are split."""

from __future__ import annotations

import dataclasses

import numpy as np

from tests.trace_makers import make_response, traces_from_logprobs
from workbench.core.quantities import SEARCH_WORDS
from workbench.tracing.records import TraceSet

TEXTS = ("Sure", ",", " I", " CAN", "not", " he", "lp", "", "<|end|>", "é\n")
_SHIFT = [-1.5, 0.0, 0.25, float("nan"), -0.05, 2.0, 1e-7, -3.0, 0.5, 0.1]
_SEEDS = {name: i for i, name in enumerate(dict.fromkeys(SEARCH_WORDS.values()))}
VALUES: dict[str, np.ndarray] = {
    **{name: np.random.default_rng(seed).random(len(TEXTS)).round(3) for name, seed in _SEEDS.items()},
    "position": np.arange(1.0, len(TEXTS) + 1),
    "logprob_shift_nats": np.array(_SHIFT),
    "probability_base": np.array([0.9, 0.31, 0.3, 0.2, 0.5, 0.0, 1.0, 0.35, 0.04, 0.6]),
    "probability_aligned": np.array([0.01, 0.04, 0.0, 0.2, 0.6, 0.05, 1.0, 0.049, 0.3, 0.05]),
    "rank_base": np.array([1.0, 2, 3, 4, 1, 90, 1, 2, 8, 1]),
    "rank_aligned": np.array([7.0, 5, 80, 4, 1, 3, 1, 6, 1, 4]),
    "alternatives": np.array([3.0, 0, 1, 0, 0, 2, 0, 5, 0, 1]),
}


def searched_flags() -> dict[str, np.ndarray]:
    n = np.arange(len(TEXTS))
    return {"base-favored": VALUES["logprob_shift_nats"] < 0, "special": n == 8, "partial": n == 7, "given": n < 3}


SEARCHES: tuple[tuple[str, list[int]], ...] = (
    ("base p > 0.3 and aligned p < 0.05", [1, 2, 8]),
    ("BASE P > .3 AND aligned P<5e-2", [1, 2, 8]),
    ("base p > 0.3 or special", [1, 2, 5, 7, 8, 9, 10]),
    ("base rank = 1", [1, 5, 7, 10]),
    ("base rank == 1 and aligned rank != 1", [1, 10]),
    ("base rank ≠ 1 and aligned rank ≤ 4", [4, 6, 9]),
    ("aligned rank >= 7", [1, 3]),
    ("7 <= aligned rank", [1, 3]),
    ("2 < aligned rank <= 5", [2, 4, 6, 10]),
    ("base p > aligned p", [1, 2, 3, 8, 10]),
    ("shift < -0.05", [1, 8]),
    ("shift < −0.05", [1, 8]),
    ("shift = 0", [2]),
    ("shift >= -100", [1, 2, 3, 5, 6, 7, 8, 9, 10]),  # not where it is missing
    ("shift != 0", [1, 3, 5, 6, 7, 8, 9, 10]),  # nor here
    ("not shift >= -100", [4]),
    ("not (shift < 0) and not given", [4, 6, 7, 9, 10]),
    ("base-favored", [1, 5, 8]),
    ("not not base-favored", [1, 5, 8]),
    ("partial or given", [1, 2, 3, 8]),
    ("alternatives > 1", [1, 6, 8]),
    ("position > 3 and position < 6", [4, 5]),
    ("special or partial and base-favored", [8, 9]),  # and binds closer
    ("(special or given) and base-favored", [1]),
    ("'sure'", [1]),
    ('"i can"', [3, 4]),
    ('text contains "CANNOT"', [4, 5]),
    ('text contains " help"', [6, 7]),
    ("“help”", [6, 7]),
    ('text is "i"', [3]),
    ('text is " can "', [4]),
    ('"<|end|>"', [9]),
    ('"É"', [10]),
    ('"\n"', [10]),
    ('""', []),
    ('"nowhere"', []),
    ("0 = 0", list(range(1, 11))),
    ("position > 3 and 'i' or kl > 99", []),
)
_VALUE = "a value such as “base p”, “shift” or “kl”, or a text in quotes"
_READ = "the search cannot be read at character"
UNREADABLE: tuple[tuple[str, str], ...] = (
    ("base p >", f"{_READ} 9: expected a number or a value such as “base p”, found the end"),
    ("base p 0.3", f"{_READ} 8: expected a comparison (> >= < <= = !=), found “0.3”"),
    ("base", f"{_READ} 1: expected {_VALUE}, found “base”"),
    ("sure", f"{_READ} 1: expected {_VALUE}, found “sure”"),
    ("> 3", f"{_READ} 1: expected {_VALUE}, found “>”"),
    ("kl > 1 kl", f"{_READ} 8: expected “and”, “or” or the end, found “kl”"),
    ("(kl > 1", f"{_READ} 8: expected “)”, found the end"),
    ("kl > 1)", f"{_READ} 7: expected “and”, “or” or the end, found “)”"),
    ("text has 'x'", f"{_READ} 6: expected “contains” or “is”, found “has”"),
    ("text contains x", f"{_READ} 15: expected a text in quotes, found “x”"),
    ("kl > 1 and", f"{_READ} 11: expected {_VALUE}, found the end"),
    ("kl ~ 1", f"{_READ} 4: “~” means nothing here"),
    ("😀 kl", f"{_READ} 1: “😀” means nothing here"),
    ("'😀' ;", f"{_READ} 5: “;” means nothing here"),
    ('text contains "open', f'{_READ} 15: “"” means nothing here'),
    ("alert(1)", f"{_READ} 1: expected {_VALUE}, found “alert”"),
    ("constructor > 1", f"{_READ} 1: expected {_VALUE}, found “constructor”"),
    ("kl > __proto__", f"{_READ} 6: “_” means nothing here"),
    ("(" * 41 + "kl > 1" + ")" * 41, "the search has more than 40 brackets and “not”s: make it simpler"),
)

SPLIT = ("Hi", "", "", "😀", "\n", "<|end|>", "a", "\ufffd")
"""An emoji over three tokens, a line break, a special token, and a character that the length limit cut in two."""


def split_traces() -> TraceSet:
    """Return a response of the pieces SPLIT with their labels and marks."""
    base = np.log(np.random.default_rng(0).dirichlet(np.ones(8), 8))
    made = traces_from_logprobs([base], [base], [range(8)], [make_response("p", "harmless")], pieces=SPLIT)
    labels = ("Hi", "⟨F0⟩", "⟨9F 98⟩", "😀", "↵", "<|end|>", "a⟨E2⟩", "⟨82⟩")
    part, special = (np.array([flags], bool) for flags in ([0, 1, 1, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1, 0, 0]))
    return dataclasses.replace(made, partial=part, special=special, labels=labels)
