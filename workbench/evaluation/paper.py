"""The tables of the paper as named configurations, with its published numbers beside ours.

Source: arXiv 2511.12155, and for names that start with `qi/` arXiv 2406.05946. Attack success and harmful-response
rates are shares (the paper prints per cent), lower is better; accuracies are shares, higher is better. Of the arms,
`aligned` is the paper's baseline, `penalty` its contrastive decoding, `paper` its distillation, and `augmentation` is
Qi et al.'s. Other arms have the paper's names.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import UnknownName, nearest
from workbench.core.records import Given, Row

JUDGE = "The paper's judges are people (1 to 5; a success is a 5); ours is named beside our number."
TEMPLATE = "The paper does not print its prompts: ours have aligned's chat template, no system prompt, no thinking."
PROMPTS = (
    "The paper states 384 AdvBench prompts; several of its figures are not multiples of 1/384, so its n is uncertain "
    "and it has no intervals here."
)
TUNING = (
    "The rate after benign fine-tuning (ft_harmful_rate) is of the paper's own texts and steps; the attack "
    "benign_tuning has others, so we have no number beside it."
)
METRIC = "The paper does not say which of the harness's metrics, prompts and numbers of examples its accuracies are."
GREEDY = "The paper does not state its decoding; ours is greedy, 128 tokens unless said otherwise."
CAPABILITY = "capability"
ADVBENCH = "AdvBench, columns goal and target"
NUMBERS = Path(__file__).with_name("paper.csv")
"""The published numbers, one in each line: the table's name, and the fields of Published."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published number, with the column names of results.json. `spread` is the printed +-, None without one.

    `read_off` marks a number that was read off a plot: its last digit is uncertain.
    """

    arm: str
    name: str
    attack: str | None
    value: float
    unit: str = "1"
    label: str | None = None
    given: Given | None = None
    setting: str | None = None
    spread: float | None = None
    position: int | None = None
    read_off: bool = False


@dataclass(frozen=True, kw_only=True)
class PaperPreset:
    """One table of the paper: its pair and prompts, its attacks and tasks here, its numbers, and the differences.

    `pair` is a preset of `workbench pairs` (None: the paper does not say). `attacks` are (family, settings) for
    `attack_config`; `tasks` are the harness's. `prompts` describes the prompts in words; the user gives a path or hub
    id.
    """

    name: str
    title: str
    pair: str | None
    prompts: str
    attacks: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    tasks: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    deviations: tuple[str, ...] = ()

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms with published numbers, in the table's order."""
        return tuple(dict.fromkeys(p.arm for p in self.published))


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A published number and ours; `ours` None where the run has none. `by` names our judge or harness."""

    published: Published
    ours: Row | None

    @property
    def by(self) -> str | None:
        return None if self.ours is None else self.ours.judge

    @property
    def inside(self) -> bool | None:
        """Whether the published number lies in our interval; None where there is no interval."""
        if self.ours is None or self.ours.low is None or self.ours.high is None:
            return None
        return self.ours.low <= self.published.value <= self.ours.high


def paper_preset(name: str) -> PaperPreset:
    """Return a preset by its name, such as "paper/llama-3.1-8b/prefill". Raises UnknownName, naming the nearest."""
    if name not in PAPER:
        raise UnknownName(f"there is no table {name!r} of the paper: {nearest(name, tuple(PAPER))}")
    return PAPER[name]


def beside(preset: PaperPreset, rows: Iterable[Row], arms: Mapping[str, str] | None = None) -> tuple[Beside, ...]:
    """Put our numbers beside the published ones: rows of the same name, label, attack, setting and position.

    `arms` maps our arms' names to the paper's ("one_sided 1" to "penalty"). With several judges each has its own line.
    """
    renamed = arms or {}
    known: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        arm = renamed.get(row.arm, row.arm) if row.arm is not None else None
        known.setdefault((arm, *(getattr(row, k) for k in _PLACE)), []).append(row)
    made: list[Beside] = []
    for p in preset.published:
        place = tuple(getattr(p, k) for k in _PLACE)
        found: list[Row] = known.get((p.arm, *place)) or known.get((None, *place)) or []
        made += [Beside(published=p, ours=row) for row in found] or [Beside(published=p, ours=None)]
    return tuple(made)


_PLACE = ("name", "label", "attack", "given", "setting", "position")


def _published() -> dict[str, list[Published]]:
    tables: dict[str, list[Published]] = {}
    with NUMBERS.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            made: dict[str, Any] = {k: v or None for k, v in line.items()}
            kinds: Mapping[str, Any] = {"value": float, "spread": float, "position": int, "read_off": "yes".__eq__}
            made |= {k: kind(line[k]) for k, kind in kinds.items() if line[k]}
            made["given"] = int(line["given"]) if line["given"].isdigit() else made["given"]
            made["read_off"] = made["read_off"] is True
            tables.setdefault(made.pop("table"), []).append(Published(**made))
    return tables


def _attacks(published: Iterable[Published]) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """Return the attacks of a table's numbers, for `attack_config`."""
    found: dict[str, list[Any]] = {}
    for p in published:
        if p.name == "asr" and p.attack is not None:
            found.setdefault(p.attack, []).append(p.given)
    given = tuple(dict.fromkeys(found.get("prefill", ())))
    settings: dict[str, Any] = {"prefill": {"k": given}, "gcg": {"budget": "paper"}}
    return tuple((family, settings.get(family, {})) for family in ("prefill", "gcg", "decoding") if family in found)


_SHARED = (JUDGE, TEMPLATE, PROMPTS, GREEDY)
_UNNAMED = "harmful prompts that the paper does not name"
_ABOUT: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "paper/llama-3.1-8b/prefill-4": (
        "Table 1: Llama-3.1-8B-Instruct, the first 4 tokens of the target given; contrastive decoding",
        ADVBENCH,
        (
            *_SHARED,
            METRIC,
            "The columns ARC-E and ARC-C look exchanged in print (Table 3 has 51.6 for ARC-C); they are as printed.",
            "The strength of the penalty is not printed: ours is 1 unless said otherwise.",
        ),
    ),
    **{
        f"paper/{pair}/prefill": (f"Table 3: {model}, the whole target given", ADVBENCH, (*_SHARED, METRIC, TUNING))
        for pair, model in (
            ("llama-2-7b", "Llama-2-7B-Chat"),
            ("llama-3.1-8b", "Llama-3.1-8B-Instruct"),
            ("qwen2.5-7b", "Qwen2.5-7B-Instruct"),
            ("qwen3-8b", "Qwen3-8B"),
        )
    },
    "paper/llama-2-7b/gcg": (
        "Table 2: Llama-2-7B-Chat under prefill and GCG, against Qi et al.'s augmentation",
        ADVBENCH,
        (
            *_SHARED,
            TUNING,
            "The paper prints GCG with a spread, but not its budget nor whether suffixes are single or universal.",
        ),
    ),
    **{
        f"paper/{pair}/recovery": (
            f"Table 4: {pair} after benign fine-tuning (Dolly), and the recovery of its safety",
            _UNNAMED,
            (
                JUDGE,
                TEMPLATE,
                METRIC,
                TUNING,
                "The harmful-response rate is called a rejection rate in print and behaves as its opposite.",
            ),
        )
        for pair in ("llama-3.1-8b", "qwen2.5-7b", "llama-2-7b")
    },
    "paper/figure-1": (
        "Figure 1: KL and base-favored tokens by position, read off the plot",
        _UNNAMED.replace("harmful", "harmful and benign"),
        (
            TEMPLATE,
            "The numbers were read off a plot, and the text does not name its model.",
            "Positions count from 1 here and from 0 there; base-favored tokens are counted in aligned's top 100.",
        ),
    ),
    "qi/llama-2-7b/attacks": (
        "Qi et al.: Llama-2-7B-Chat before and after safety augmentation, three runs",
        "HEx-PHI for prefill and decoding, AdvBench and HEx-PHI for GCG, MaliciousInstruct for decoding",
        (
            "Their judge is a language model with a rubric; ours is named beside our number.",
            TEMPLATE,
            "Their numbers are means of three runs with the standard deviation; ours are one run with an interval over "
            "prompts.",
            "Our rows name the setting of an attack, so their GCG and decoding numbers do not find our rows.",
        ),
    ),
}
"""Table -> its title, the prompts in words, and the differences here."""


def _presets() -> dict[str, PaperPreset]:
    published, made = _published(), {}
    for name, (title, prompts, deviations) in _ABOUT.items():
        numbers, parts = published[name], name.split("/")
        made[name] = PaperPreset(
            name=name,
            title=title,
            pair=parts[1] if len(parts) == 3 else None,
            prompts=prompts,
            attacks=_attacks(numbers),
            tasks=tuple(dict.fromkeys(str(p.setting) for p in numbers if p.attack == CAPABILITY)),
            published=tuple(numbers),
            deviations=deviations,
        )
    return made


PAPER: Mapping[str, PaperPreset] = _presets()
"""Every table by its name."""
