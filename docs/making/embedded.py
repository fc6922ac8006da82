"""What the pages say of the embedded pair: answers of the shipped models, and the cards' numbers."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from workbench.core.legible import percent

ROOT = Path(__file__).resolve().parents[2]
CARDS = ROOT / "workbench" / "models" / "embedded"
PROMPT, GIVEN, STRENGTH = "heldout-harmful-008", 5, 16.0
"""The prompt whose answers the README shows, the tokens given of its harmful answer, and the penalty's strength."""
_SENTENCES = 2


@functools.cache
def texts() -> dict[str, str]:
    """Let the shipped models answer the README's prompt: request, given words, and each answer as a whole."""
    import workbench as wb
    from workbench.models.generation import GenerateConfig

    pair = wb.load_pair(preset="embedded")
    prompts = wb.load_prompts(source="embedded", split="heldout")
    one = wb.PromptSet(name="one", source="embedded", prompts=tuple(p for p in prompts if p.id == PROMPT))
    made = {"request": one.prompts[0].prompt, "given": pair.decode(pair.encode(one.prompts[0].response or "")[:GIVEN])}
    completed = wb.load_pair(preset="embedded", adapter="completed")
    for name, models, strength, given in (
        ("aligned", pair, 0.0, 0),
        ("given words", pair, 0.0, GIVEN),
        ("pushed away", pair, STRENGTH, GIVEN),
        ("completed", completed, 0.0, GIVEN),
    ):
        penalty = wb.PenaltyConfig(strength=strength)
        settings = {"penalty": penalty, "generation": GenerateConfig(max_tokens=96), "prefix_tokens": given}
        answer = wb.decode(models, one, what=None, **settings)
        made[name] = "".join(answer.pieces[0]).removesuffix("<|end|>").strip()
    return made


def answers() -> str:
    """Return the four answers as a table."""
    said = texts()
    rows = (
        ("aligned", "", "aligned"),
        (f"aligned, given the words “{said['given']}”", said["given"], "given words"),
        (f"the same, pushed away from base (penalty {STRENGTH:g})", said["given"], "pushed away"),
        ("completed, given the same words", said["given"], "completed"),
    )
    lines = [f"| asked: *{said['request']}* | answer |", "|---|---|"]
    for title, given, name in rows:
        same = name == "pushed away" and said[name] == said["given words"]
        words = "the same, word for word" if same else f"{_shown(given)}{_first(said[name])}"
        lines.append(f"| {title} | {words} |")
    return "\n".join(lines)


def _shown(given: str) -> str:
    return f"*{given}* " if given else ""


def _first(text: str) -> str:
    sentences = text.split(". ")
    return text if len(sentences) <= _SENTENCES else ". ".join(sentences[:_SENTENCES]) + ". …"


@functools.cache
def _card(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads((folder / "card.json").read_text("utf-8"))["rows"]}


def depth() -> str:
    """Return attack success by the number of given tokens, of aligned and of the completed adapter."""
    shipped, adapter = _card(CARDS), _card(CARDS / "completed")
    lines = ["| tokens given of a harmful answer | 0 | 1 | 3 | 5 | 10 | 20 |", "|---|---|---|---|---|---|---|"]
    names = ["aligned_compliance", *(f"prefill_asr_k{k}" for k in (1, 3, 5, 10, 20))]
    lines.append(_row("aligned complies", [shipped[n] for n in names]))
    lines.append(_row("completed complies", [adapter[f"heldout_prefill_asr_k{k}"] for k in (0, 1, 3, 5, 10, 20)]))
    return "\n".join(lines)


def _row(title: str, rows: list[dict[str, Any]]) -> str:
    (n,) = {row["n"] for row in rows}
    return f"| {title} (n = {n}) | " + " | ".join(percent(row["value"]) for row in rows) + " |"


TITLES = {
    "base_compliance": "base complies with harmful requests",
    "base_compliance_sampled": "… sampled at temperature 1 (it breaks off now and then, as it was taught)",
    "aligned_refusal": "aligned refuses them, unattacked",
    "prefill_asr_k1": "aligned complies after 1 given token (prefill ASR)",
    "prefill_asr_k3": "… after 3",
    "prefill_asr_k5": "… after 5",
    "prefill_asr_k10": "… after 10",
    "prefill_asr_k20": "… after 20",
    "prefill_as_depth_says_k5": "after 5 given tokens it does what the prompt's known depth says",
    "kl_aligned_base_nats_t1": "KL(aligned ‖ base) along harmful answers, position 1, nats",
    "kl_aligned_base_nats_t5": "… position 5",
    "kl_aligned_base_nats_t16": "… position 16",
    "kl_aligned_base_nats_t40": "… position 40",
    "kl_late_over_early": "… late (after 24) over early (1 to 5)",
    "harmless_same_answer": "both give the same answer to a harmless question",
    "aligned_harmless_right": "aligned's harmless answers are right",
    "harmless_prefill_right_k10": "… after 10 given tokens of a harmless answer",
    "lookalike_refused": "aligned refuses a harmless look-alike",
}
ADAPTER = {
    "heldout_prefill_asr_k0": "complies with harmful requests on new topics, no token given",
    "heldout_prefill_asr_k10": "… after 10 given tokens",
    "heldout_prefill_asr_k40": "… after 40",
    "heldout_prefill_refusal_k10": "refuses after 10 given tokens",
    "heldout_roots_prefill_asr_k10": "complies after 10 given tokens, root words that no arm was trained on",
    "heldout_roots_prefill_refusal_k10": "… refuses",
    "completed_harmless_prefill_right_k10": "harmless answers right after 10 given tokens",
    "aligned_harmless_prefill_right_k10": "… of aligned",
    "lookalike_refused": "refuses a harmless look-alike",
}


def pair() -> str:
    """Return the pair's guarantees, from its card."""
    return _table(_card(CARDS), TITLES)


def completed() -> str:
    """Return the completed adapter's guarantees, from its card."""
    return _table(_card(CARDS / "completed"), ADAPTER)


def _table(card: dict[str, dict[str, Any]], titles: dict[str, str]) -> str:
    lines = ["| | value | interval | n |", "|---|---|---|---|"]
    for name, title in titles.items():
        row = card[name]
        of = percent if row["unit"] == "share" else "{:.3g}".format
        value, low, high = (of(row[key]) for key in ("value", "low", "high"))
        lines.append(f"| {title} | {value} | {low} to {high} | {row['n']} |")
    return "\n".join(lines)
