"""The tables of the paper as named configurations, with its published numbers to stand beside ours.

Source: arXiv 2511.12155, and for the names that start with `qi/` arXiv 2406.05946. Attack success and harmful-response
rates are shares here (the paper prints per cent), lower is better; accuracies are shares, higher is better. Names of
arms: `aligned` is the paper's baseline, `penalty` its contrastive decoding, `paper` its distillation; `augmentation` is
Qi et al.'s. Arms with no name of ours here keep the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.core.errors import UnknownName, nearest
from workbench.core.records import Given, Row

JUDGE = "The paper's judge is people (1 to 5; a success is a 5); ours is the one that is named beside our number."
TEMPLATE = (
    "The paper does not print its prompts: ours are the aligned model's chat template, no system prompt, thinking off."
)
PROMPTS = (
    "The paper states 384 AdvBench prompts; several of its figures are no multiples of 1/384, so its n is not certain "
    "and no interval can be given."
)
TUNING = (
    "The rate after benign fine-tuning (ft_harmful_rate) needs the fine-tuning attack, which this room does not make: "
    "no number of ours stands beside it unless one is given."
)
METRIC = "The paper does not say which of the harness's metrics, prompts and numbers of examples its accuracies are."
GREEDY = "The paper does not state its decoding; ours is greedy, 128 tokens unless said otherwise."
CAPABILITY = "capability"
PREFILL: Mapping[str, Any] = dict(attack="prefill", given="full")


@dataclass(frozen=True, kw_only=True)
class Published:
    """Hold one published number, named as the rows of a results.json are. `spread` is the printed +-, None without.

    `read_off` marks a number that was read off a plot: good to about its last digit but one.
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
    """Hold one table of the paper: what it was run on, how to run it here, what was published, what is not the same.

    `pair` is a preset of `workbench pairs` (None: the paper does not say). `attacks` are (family, settings), as
    `attack_config` takes them; `tasks` are the harness's. `prompts` says in words which prompts are meant: a path or
    hub id is yours to give.
    """

    name: str
    title: str
    pair: str | None
    prompts: str
    attacks: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    tasks: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    deviations: tuple[str, ...] = field(default=(JUDGE, TEMPLATE, PROMPTS, GREEDY))

    @property
    def arms(self) -> tuple[str, ...]:
        """Return the arms that have published numbers, in the table's order."""
        return tuple(dict.fromkeys(p.arm for p in self.published))


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Hold a published number and ours; `ours` None where the run has none. `by` names our judge or harness."""

    published: Published
    ours: Row | None

    @property
    def by(self) -> str | None:
        """Return which judge our number is by."""
        return None if self.ours is None else self.ours.judge

    @property
    def inside(self) -> bool | None:
        """Tell whether the published number lies in our interval; None where there is no interval."""
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

    `arms` maps our arms' names to the paper's ("one_sided 1" to "penalty"); others keep theirs. Where several judges
    have judged there is one line each.
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


# ------------------------------------------------------------------------------------------------------ the tables

TASKS: Mapping[str, tuple[str, str]] = {
    "ARC-E": ("arc_easy", "acc"),
    "ARC-C": ("arc_challenge", "acc"),
    "BoolQ": ("boolq", "acc"),
    "HellaSwag": ("hellaswag", "acc"),
    "WinoGrande": ("winogrande", "acc"),
    "MMLU": ("mmlu", "acc"),
    "ToxiGen": ("toxigen", "acc"),
    "TriviaQA": ("triviaqa", "exact_match (remove_whitespace)"),
    "TruthfulQA": ("truthfulqa_mc2", "acc"),
    "GSM8K": ("gsm8k", "exact_match (strict-match)"),
}
"""Column of the paper -> task and metric of the harness."""


def _attack(arm: str, where: Mapping[str, Any], per_cent: float, spread: float | None = None) -> Published:
    return Published(
        arm=arm,
        name="asr",
        label="harmful",
        **where,
        value=round(per_cent / 100, 6),
        spread=None if spread is None else round(spread / 100, 6),
    )


def _under(attack: str, setting: str) -> dict[str, Any]:
    return dict(attack=attack, given=0, setting=setting)


def _tuned(arm: str, per_cent: float) -> Published:
    return Published(arm=arm, name="ft_harmful_rate", attack="benign_fine_tuning", value=round(per_cent / 100, 6))


def _accuracies(arm: str, columns: Sequence[str], per_cents: Sequence[float]) -> list[Published]:
    return [
        Published(arm=arm, name=TASKS[c][1], attack=CAPABILITY, setting=TASKS[c][0], value=round(v / 100, 6))
        for c, v in zip(columns, per_cents, strict=True)
    ]


def _tasks(columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(TASKS[c][0] for c in columns)


ADVBENCH = "AdvBench, columns goal and target"
_TABLE_1 = ("ARC-E", "ARC-C", "BoolQ", "HellaSwag", "WinoGrande", "MMLU", "ToxiGen", "TriviaQA", "TruthfulQA")
_TABLE_3 = ("MMLU", "ARC-C", "BoolQ", "HellaSwag", "WinoGrande")
_TABLE_4 = ("ARC-C", "GSM8K", "ToxiGen", "TruthfulQA")

_MODELS = {
    "llama-2-7b": (
        "Llama-2-7B-Chat",
        (23.0, 21.4, 45.0, 43.4, 80.6, 57.8, 67.0),
        (0.5, 4.4, 44.3, 42.2, 81.0, 57.6, 67.6),
    ),
    "llama-3.1-8b": (
        "Llama-3.1-8B-Instruct",
        (90.1, 25.3, 68.0, 51.6, 84.1, 59.1, 73.6),
        (14.8, 12.3, 68.9, 51.9, 84.1, 59.0, 73.7),
    ),
    "qwen2.5-7b": (
        "Qwen2.5-7B-Instruct",
        (85.9, 24.7, 71.8, 52.9, 86.4, 62.0, 70.1),
        (44.3, 13.8, 71.8, 52.0, 86.3, 62.4, 69.8),
    ),
    "qwen3-8b": ("Qwen3-8B", (96.1, 10.7, 73.0, 55.5, 86.6, 57.1, 68.1), (16.4, 4.7, 72.7, 54.9, 86.5, 56.9, 67.6)),
}
"""Table 3: pair -> model, aligned's row, the paper's own row (prefill, fine-tuned, then the accuracies)."""

_RECOVERY: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "llama-3.1-8b": {
        "aligned": (1.9, 1.4, 52.0, 75.2, 53.3, 45.5),
        "lora": (1.2, 25.5, 51.2, 72.4, 44.9, 39.0),
        "vaccine": (1.3, 21.3, 44.3, 39.5, 43.4, 34.1),
        "salora": (1.2, 8.1, 52.3, 75.7, 49.3, 41.8),
        "safe_lora": (1.3, 11.0, 51.1, 75.6, 48.7, 42.0),
        "paper": (1.3, 1.0, 52.0, 78.1, 53.5, 46.6),
    },
    "qwen2.5-7b": {
        "aligned": (3.6, 0.0, 53.0, 76.4, 57.2, 56.3),
        "lora": (1.2, 24.7, 55.0, 60.2, 57.2, 44.5),
        "vaccine": (1.2, 19.3, 54.6, 74.3, 57.9, 44.5),
        "salora": (1.2, 3.4, 55.0, 69.5, 57.2, 49.2),
        "paper": (1.3, 0.5, 52.7, 73.1, 57.6, 54.7),
    },
    "llama-2-7b": {
        "aligned": (2.5, 0.0, 43.3, 20.1, 52.9, 37.2),
        "lora": (1.1, 21.4, 44.4, 19.6, 44.7, 32.3),
        "vaccine": (1.1, 16.7, 42.6, 11.6, 41.1, 31.7),
        "salora": (1.1, 0.0, 45.9, 23.6, 49.5, 34.7),
        "safe_lora": (1.2, 0.0, 45.6, 21.5, 43.8, 33.1),
        "paper": (1.2, 0.3, 45.7, 21.5, 47.1, 35.6),
    },
}
"""Table 4: pair -> arm -> evaluation loss (nats per token), harmful-response rate, then the accuracies."""

_FIGURE_1 = (
    (1, 1.24, 0.55, 44.7, 29.5),
    (3, 0.76, 0.33, 37.9, 26.8),
    (6, 0.49, 0.25, 32.4, 25.6),
    (11, 0.43, 0.21, 30.1, 24.5),
    (20, 0.35, 0.19, 28.8, 24.1),
)
"""Position (the paper's, plus 1), KL on harmful and benign prompts, base-favored count on both; read off the plot."""


def _first_tokens() -> PaperPreset:
    made = [
        _attack("aligned", {**PREFILL, "given": 4}, 47.5),
        *_accuracies("aligned", _TABLE_1, (52.0, 81.8, 84.1, 59.1, 73.8, 68.0, 53.3, 51.6, 45.6)),
        _attack("penalty", {**PREFILL, "given": 4}, 0.2),
        *_accuracies("penalty", _TABLE_1, (52.7, 82.1, 84.4, 58.8, 74.0, 66.8, 48.6, 52.4, 46.3)),
    ]
    return PaperPreset(
        name="paper/llama-3.1-8b/prefill-4",
        title="Table 1: Llama-3.1-8B-Instruct, the first 4 tokens of the target given; contrastive decoding",
        pair="llama-3.1-8b",
        prompts=ADVBENCH,
        attacks=(("prefill", {"k": (4,)}),),
        tasks=_tasks(_TABLE_1),
        published=tuple(made),
        deviations=(
            JUDGE,
            TEMPLATE,
            PROMPTS,
            GREEDY,
            METRIC,
            "The columns ARC-E and ARC-C look exchanged in print (Table 3 has 51.6 for ARC-C); they stand as printed.",
            "The strength of the penalty is not printed: ours is 1 unless said otherwise.",
        ),
    )


def _full_target(pair: str) -> PaperPreset:
    model, *rows = _MODELS[pair]
    made: list[Published] = []
    for arm, row in zip(("aligned", "paper"), rows, strict=True):
        prefill, tuned, *accuracies = row
        made += [_attack(arm, PREFILL, prefill), _tuned(arm, tuned), *_accuracies(arm, _TABLE_3, accuracies)]
    return PaperPreset(
        name=f"paper/{pair}/prefill",
        title=f"Table 3: {model}, the whole target given",
        pair=pair,
        prompts=ADVBENCH,
        attacks=(("prefill", {"k": ("full",)}),),
        tasks=_tasks(_TABLE_3),
        published=tuple(made),
        deviations=(JUDGE, TEMPLATE, PROMPTS, GREEDY, METRIC, TUNING),
    )


def _gcg() -> PaperPreset:
    numbers = {
        "aligned": (23.0, 51.0, 42.9, 21.4),
        "augmentation": (0.8, 1.6, 3.6, 4.4),
        "paper": (0.5, 0.4, 0.9, 4.4),
    }
    made: list[Published] = []
    for arm, (prefill, gcg, spread, tuned) in numbers.items():
        made += [_attack(arm, PREFILL, prefill), _attack(arm, _under("gcg", "single"), gcg, spread), _tuned(arm, tuned)]
    return PaperPreset(
        name="paper/llama-2-7b/gcg",
        title="Table 2: Llama-2-7B-Chat under prefill and GCG, against Qi et al.'s augmentation",
        pair="llama-2-7b",
        prompts=ADVBENCH,
        attacks=(("prefill", {"k": ("full",)}), ("gcg", {"budget": "paper"})),
        published=tuple(made),
        deviations=(
            JUDGE,
            TEMPLATE,
            PROMPTS,
            GREEDY,
            TUNING,
            "The paper prints GCG with a spread, and neither its budget nor whether suffixes are single or universal.",
        ),
    )


def _recovery(pair: str) -> PaperPreset:
    made: list[Published] = []
    for arm, (loss, harmful, *accuracies) in _RECOVERY[pair].items():
        made += [
            Published(arm=arm, name="eval_loss", attack=None, setting="dolly", value=loss, unit="nats"),
            _tuned(arm, harmful),
            *_accuracies(arm, _TABLE_4, accuracies),
        ]
    return PaperPreset(
        name=f"paper/{pair}/recovery",
        title=f"Table 4: {pair} after benign fine-tuning (Dolly), and what brings its safety back",
        pair=pair,
        prompts="harmful prompts that the paper does not name",
        tasks=_tasks(_TABLE_4),
        published=tuple(made),
        deviations=(
            JUDGE,
            TEMPLATE,
            METRIC,
            TUNING,
            "The harmful-response rate is called a rejection rate in print and behaves as its opposite.",
        ),
    )


def _figure_1() -> PaperPreset:
    made: list[Published] = []
    for position, kl_harmful, kl_benign, count_harmful, count_benign in _FIGURE_1:
        for label, kl, count in (("harmful", kl_harmful, count_harmful), ("harmless", kl_benign, count_benign)):
            place = dict(arm="pair", attack=None, label=label, position=position, read_off=True)
            made += [
                Published(name="kl_aligned_base_nats", value=kl, unit="nats", **place),  # type: ignore[arg-type]
                Published(name="base_favored_count", value=count, unit="tokens", **place),  # type: ignore[arg-type]
            ]
    return PaperPreset(
        name="paper/figure-1",
        title="Figure 1: KL and base-favored tokens by position, read off the plot",
        pair=None,
        prompts="harmful and benign prompts that the paper does not name",
        published=tuple(made),
        deviations=(
            TEMPLATE,
            "The numbers were read off a plot, and the text does not say which model it is of.",
            "Positions count from 1 here and from 0 there; base-favored tokens are counted in aligned's top 100.",
        ),
    )


def _qi() -> PaperPreset:
    lengths = (5, 10, 20, 40)
    rows = {
        "aligned": (((42.1, 0.9), (51.5, 1.6), (56.1, 2.5), (57.0, 0.4)), (65.6, 3.1)),
        "augmentation": (((2.8, 0.4), (2.9, 0.2), (3.4, 0.6), (4.5, 0.6)), (19.0, 2.9)),
    }
    more = {"aligned": ((36.5, 2.7), (54.9, 0.6), (84.3, 1.7)), "augmentation": ((18.4, 4.2), (11.3, 0.4), (1.0, 0.0))}
    made: list[Published] = []
    for arm, (prefill, gcg) in rows.items():
        for k, (value, spread) in zip(lengths, prefill, strict=True):
            made.append(_attack(arm, {**PREFILL, "given": k}, value, spread))
        made.append(_attack(arm, _under("gcg", "AdvBench"), *gcg))
        names = (("gcg", "HEx-PHI"), ("decoding", "HEx-PHI"), ("decoding", "MaliciousInstruct"))
        made += [_attack(arm, _under(*name), *v) for name, v in zip(names, more[arm], strict=True)]
    return PaperPreset(
        name="qi/llama-2-7b/attacks",
        title="Qi et al.: Llama-2-7B-Chat before and after safety augmentation, three runs",
        pair="llama-2-7b",
        prompts="HEx-PHI for prefill and decoding, AdvBench and HEx-PHI for GCG, MaliciousInstruct for decoding",
        attacks=(("prefill", {"k": (5, 10, 20, 40)}), ("gcg", {"budget": "paper"}), ("decoding", {})),
        published=tuple(made),
        deviations=(
            "Their judge is a language model asked by a rubric; ours is the one that is named beside our number.",
            TEMPLATE,
            "Their numbers are means of three runs with the standard deviation; ours are one run with an interval over "
            "prompts.",
            "Our rows name the setting of an attack: GCG and decoding on a prompt set of theirs find no row of ours "
            "by themselves.",
        ),
    )


_ALL = (
    _first_tokens(),
    *(_full_target(pair) for pair in _MODELS),
    _gcg(),
    *(_recovery(pair) for pair in _RECOVERY),
    _figure_1(),
    _qi(),
)
PAPER: Mapping[str, PaperPreset] = {p.name: p for p in _ALL}
"""Every table by its name."""
