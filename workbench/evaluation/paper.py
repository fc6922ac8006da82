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
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from workbench.core.errors import UnknownName, nearest
from workbench.core.records import Given, Row

CAPABILITY = "capability"
TABLES = Path(__file__).with_name("paper.csv")
"""Each line is a published number, or one table's `title`, `prompts` or `deviation`, of all tables that it names."""


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
    """One table of the paper: its prompts in words, its numbers, and what is not the same here.

    The user gives the prompts as a path or hub id.
    """

    name: str
    title: str
    prompts: str
    published: tuple[Published, ...] = ()
    deviations: tuple[str, ...] = ()

    @property
    def pair(self) -> str | None:
        """The preset of `workbench pairs`; None where the paper does not say which."""
        parts = self.name.split("/")
        return parts[1] if len(parts) == 3 else None

    @property
    def attacks(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """The attacks that can be run here, as (family, settings) for `attack_config`."""
        used = [p for p in self.published if p.name == "asr"]
        given = tuple(dict.fromkeys(p.given for p in used if p.attack == "prefill"))
        settings: dict[str, Any] = {"prefill": {"k": given}, "gcg": {"budget": "paper"}, "decoding": {}}
        return tuple((family, own) for family, own in settings.items() if family in {p.attack for p in used})

    @property
    def tasks(self) -> tuple[str, ...]:
        """The harness's tasks."""
        return tuple(dict.fromkeys(str(p.setting) for p in self.published if p.attack == CAPABILITY))


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


def paper_preset(name: str | PaperPreset) -> PaperPreset:
    """Return a preset by its name, such as "paper/llama-3.1-8b/prefill". Raises UnknownName, naming the nearest."""
    if isinstance(name, PaperPreset):
        return name
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


def _number(line: Mapping[str, str]) -> Published:
    fields: dict[str, Any] = {k: v for k, v in line.items() if v and k not in ("table", "text")}
    kinds: Mapping[str, Any] = {"value": float, "spread": float, "position": int, "read_off": "yes".__eq__}
    fields |= {k: kind(fields[k]) for k, kind in kinds.items() if k in fields}
    given = line["given"]
    return Published(**{"attack": None, **fields, "given": int(given) if given.isdigit() else given or None})


def _read() -> dict[str, PaperPreset]:
    with TABLES.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    made = {}
    for name in dict.fromkeys(line["table"] for line in lines if line["name"] == "title"):
        own = [line for line in lines if fnmatchcase(name, line["table"])]
        said = {line["name"]: line["text"] for line in own if line["text"]}
        made[name] = PaperPreset(
            name=name,
            title=said["title"],
            prompts=said["prompts"],
            published=tuple(_number(line) for line in own if line["value"]),
            deviations=tuple(line["text"] for line in own if line["name"] == "deviation"),
        )
    return made


PAPER: Mapping[str, PaperPreset] = _read()
"""Every table by its name."""
