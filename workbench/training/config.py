"""The settings of a training: its losses (LossConfig), its arm (ARMS, FURTHER), and the training itself."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from workbench.core.configs import Range, above, at_least, between, check_fields, from_to
from workbench.core.errors import ParameterError, UnknownName, nearest

Direction = Literal["reverse", "forward", "jsd"]
Completion = Literal["squared", "centred", "one_sided", "logprob_hinge", "unlikelihood"]
SetRanking = Literal["logit", "mass", "random", "aligned_favored"]
HarmfulUse = Literal["nothing", "refusal", "recovery_labels", "completion", "teacher", "recovery", "compliance"]
UtilityUse = Literal["nothing", "labels", "teacher", "constrain"]
RowTeacher = Literal["aligned", "base", "label"]

HARMFUL_USES: dict[HarmfulUse, str] = {
    "nothing": "harmful rows are not trained on",
    "refusal": "the refusal itself, as labels, right after the prompt",
    "recovery_labels": "the refusal as labels after a harmful prefix (arXiv 2406.05946)",
    "completion": "L_completion at every position of the harmful response (arXiv 2511.12155)",
    "teacher": "L_KL to the hybrid teacher at every position of the harmful response",
    "recovery": "the aligned model's own refusal, distilled into the position after a harmful prefix (context "
    "distillation of the rows of arXiv 2406.05946; kin to DeRTa, arXiv 2407.09121, and Backtracking, arXiv 2409.14586)",
    "compliance": "the harmful response itself, as labels: what an attacker would do, to measure what withstands it",
}
"""Each use of harmful rows, in words."""

PERTURBING = (4, 20)
"""Fewest and most random tokens in a perturbed prompt."""
FINITE = Range(-math.inf, math.inf, "a finite number", with_low=False, with_high=False)
BELOW_ONE = Range(0, 1, "at least 0 and below 1", with_high=False)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The settings of the losses; the defaults are the paper's (arXiv 2511.12155).

    teacher_lambda   z_teacher = lambda z_a + (1 - lambda) z_b; 1 is the aligned model itself
    temperature      tau of L_KL, whose value is multiplied by tau^2
    direction        reverse: KL(student || teacher), as printed; forward: KL(teacher || student); jsd
    completion       the penalty of a token of M, see `losses.completion`; squared raises a token with a negative logit
    set_size         tokens in M
    ranking          M: largest z_b - z_a (logit), p_b - p_a (mass), z_a - z_b (aligned_favored), or random tokens
    lambda_reg       weight of the completion term
    alpha_base, gamma   alpha_adaptive = alpha_base (1 + gamma |B_t| / |V|)
    hinge_margin     m of logprob_hinge, nats
    clip_percentile  per-token KL of RECOVERY is clipped at this percentile of the optimizer step's; 100 clips nothing
    label_weight, teacher_weight, ...   of the losses by role; 0 switches one off. transition_weight is w of L_trans
    """

    teacher_lambda: float = 1.2
    temperature: float = 2.0
    direction: Direction = "reverse"
    completion: Completion = "squared"
    set_size: int = 100
    ranking: SetRanking = "logit"
    lambda_reg: float = 0.01
    alpha_base: float = 0.01
    gamma: float = 2.0
    hinge_margin: float = 0.0
    clip_percentile: float = 95.0
    label_weight: float = 1.0
    teacher_weight: float = 1.0
    recovery_weight: float = 1.0
    transition_weight: float = 0.1
    completion_weight: float = 1.0
    constraint_weight: float = 1.0

    def __post_init__(self) -> None:
        check_fields(
            self,
            direction=get_args(Direction),
            completion=get_args(Completion),
            ranking=get_args(SetRanking),
            teacher_lambda=FINITE,
            temperature=above(0, finite=True),
            set_size=at_least(1),
            hinge_margin=FINITE,
            clip_percentile=above(0, 100),
            **dict.fromkeys(("lambda_reg", "alpha_base", "gamma"), at_least(0, finite=True)),
            **{name: at_least(0, finite=True) for name in vars(self) if name.endswith("_weight")},
        )

    @property
    def base_weight(self) -> float:
        """The weight of utility rows whose teacher is base, like that of the others."""
        return self.teacher_weight


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The adapter that is trained: rank, alpha (the update is scaled by alpha / rank), dropout, and its layers.

    `targets` are names of linear layers, "all-linear" for all of them but the head; None is PEFT's own choice for the
    architecture. Not used where the pair is one model with an adapter: its student is a copy of that adapter.
    """

    rank: int = 32
    alpha: float = 8.0
    dropout: float = 0.0
    targets: tuple[str, ...] | Literal["all-linear"] | None = None

    def __post_init__(self) -> None:
        check_fields(
            self,
            (self.targets == (), "targets", "None, 'all-linear' or at least one layer name"),
            rank=at_least(1),
            alpha=above(0, finite=True),
            dropout=BELOW_ONE,
        )


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings:
    """The settings of AdamW: rates rise linearly over `warmup_share` of the steps, then follow `decay`."""

    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    warmup_share: float = 0.0
    decay: Literal["linear", "cosine", "constant"] = "linear"

    def __post_init__(self) -> None:
        check_fields(
            self,
            weight_decay=at_least(0, finite=True),
            **dict.fromkeys(("learning_rate", "clip_norm"), above(0, finite=True)),
            warmup_share=BELOW_ONE,
            decay=("linear", "cosine", "constant"),
        )


@dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """One arm of a comparison: its use of each kind of row, its loss and its optimiser.

    harmful           see HARMFUL_USES
    utility           labels: cross-entropy on the response; teacher: L_KL to the (hybrid) teacher; constrain: labels,
                      weighted less where the student leaves aligned (arXiv 2406.05946), those of "compliance" too
    harmless_share    share of the utility rows that continue a harmless prefix of a harmless request
    penalise_rest     recovery: also L_completion on the harmful tokens after the prefix
    perturbed         share of the rows, harmful and safe alike, in which the student reads PERTURBING random tokens at
                      the end of the user's turn, while its teacher reads the clean prompt
    transition        also transition distillation L_trans along each drawn harmful response h: at every depth of it the
                      student is drawn to aligned's own first distribution, KL(p_a(. | x) || p_s(. | x, h_<t))
    harmful_weight    weight of the labels on harmful rows; those on utility rows weigh 1 - harmful_weight
    match_arm         scale L_completion so that its first gradient is as long as that of this arm's token set
    retention         w_t: retention on harmful texts by position, normalised to mean 1; () weighs all alike,
                      "measured": `distil` measures it on the training's own harmful texts
    """

    name: str
    harmful: HarmfulUse
    utility: UtilityUse = "teacher"
    harmless_share: float = 0.0
    penalise_rest: bool = False
    transition: bool = False
    perturbed: float = 0.0
    harmful_weight: float = 0.5
    match_arm: SetRanking | None = None
    retention: tuple[float, ...] | Literal["measured"] = ()
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)

    def __post_init__(self) -> None:
        shares = (1.0,) if self.retention in ("measured", ()) else self.retention
        bad = isinstance(shares, str) or not any(shares) or any(r not in from_to(0, 1) for r in shares)
        check_fields(
            self,
            (not self.name.strip(), "name", "a word"),
            (bad, "retention", "'measured', or numbers from 0 to 1, not all 0"),
            harmful=get_args(HarmfulUse),
            utility=get_args(UtilityUse),
            harmless_share=from_to(0, 1),
            perturbed=from_to(0, 1),
            harmful_weight=between(0, 1),
            match_arm=get_args(SetRanking),
        )
        if self.harmful == "nothing" and self.utility == "nothing":
            raise ParameterError(f"arm {self.name!r} uses neither harmful nor utility rows, so it has no loss: use one")
        if self.transition and self.harmful in ("nothing", "compliance"):
            raise ParameterError(
                f"arm {self.name!r} has transition, and its harmful rows are {self.harmful!r}: choose a use that "
                "completes an alignment, such as harmful='recovery'"
            )
        if self.penalise_rest and self.harmful != "recovery":
            raise ParameterError(f"arm {self.name!r} has penalise_rest, which needs harmful='recovery': set both")

    @property
    def needs_refusals(self) -> bool:
        """Tell whether harmful rows need refusals of the aligned model."""
        return self.harmful in ("refusal", "recovery_labels", "recovery")

    def weight_at(self, position: int) -> float:
        """Return w_t at a 1-based position of the student's response, 1 without retention."""
        if not self.retention:
            return 1.0
        if isinstance(self.retention, str):
            raise ParameterError(
                f"the retention of arm {self.name!r} is not measured yet: call `distil`, which measures it"
            )
        mean = math.fsum(self.retention) / len(self.retention)
        return self.retention[min(position, len(self.retention)) - 1] / mean


_TUNED = OptimiserSettings(learning_rate=1e-3, warmup_share=0.05)
_WIDE = LoraSettings(rank=32, alpha=32.0, targets="all-linear")
_PAPER = LossConfig()
_LABELS: dict[str, Any] = dict(utility="labels", optimiser=_TUNED, lora=_WIDE)
_RECOVERY = LossConfig(
    teacher_lambda=1.0,
    temperature=1.0,
    direction="forward",
    completion="unlikelihood",
    ranking="mass",
    lambda_reg=1.0,
    clip_percentile=100.0,
    teacher_weight=3.0,
)
_RATE = replace(_TUNED, learning_rate=2e-3)
_paper = ArmConfig(name="paper", harmful="completion", loss=_PAPER)
_tuned = replace(_paper, name="paper_tuned", optimiser=_TUNED, lora=_WIDE)
_recovery = ArmConfig(
    name="recovery", harmful="recovery", harmless_share=0.5, loss=_RECOVERY, optimiser=_RATE, lora=_WIDE
)
_benign = ArmConfig(
    name="benign_tuning",
    harmful="nothing",
    utility="labels",
    optimiser=OptimiserSettings(learning_rate=2e-4, decay="constant"),
    lora=_WIDE,
)


def _by_name(*arms: ArmConfig) -> Mapping[str, ArmConfig]:
    return MappingProxyType({a.name: a for a in arms})


ARMS = _by_name(
    ArmConfig(name="refusal_sft", harmful="refusal", **_LABELS),
    ArmConfig(name="augmentation", harmful="recovery_labels", harmful_weight=0.2, **_LABELS),
    _paper,
    _tuned,
    replace(_tuned, name="completion_only", utility="nothing", loss=replace(_PAPER, teacher_weight=0.0)),
    replace(_tuned, name="teacher_only", harmful="teacher"),
    replace(_tuned, name="random_tokens", match_arm="logit", loss=replace(_PAPER, ranking="random")),
    replace(_tuned, name="aligned_favored", match_arm="logit", loss=replace(_PAPER, ranking="aligned_favored")),
    _recovery,
    replace(_recovery, name="transition", transition=True),
)
"""Every arm that completes an alignment, by its name in results; the arm `aligned` is not trained."""

FURTHER = _by_name(
    _benign,
    replace(_benign, name="few_harmful_tuning", harmful="compliance"),
    replace(_benign, name="benign_tuning_constrained", utility="constrain"),
    replace(_benign, name="few_harmful_tuning_constrained", harmful="compliance", utility="constrain"),
    replace(_benign, name="pull_back", utility="teacher", loss=LossConfig(teacher_lambda=1.0, temperature=1.0)),
)
"""Arms that do not complete an alignment: fine-tuning that undoes one, plainly or constrained, and `pull_back`, which
pulls a fine-tuned model back to aligned on utility rows (the paper's recovery variant, before its completion).
"""


def arm_named(name: str) -> ArmConfig:
    """Return an arm of ARMS or FURTHER. Raises UnknownName."""
    known = {**ARMS, **FURTHER}
    if name not in known:
        raise UnknownName(f"there is no training arm {name!r}: {nearest(name, tuple(known))}")
    return known[name]


def arm_with(name: str, values: Sequence[str] = (), **settings: Any) -> ArmConfig:
    """Return a named arm with some of its values changed, at any depth; None keeps a value.

    arm_with("recovery", learning_rate=1e-3, rank=8), or as texts: arm_with("recovery", ["learning_rate: 1e-3"]); see
    `values_of`. Raises UnknownName for an unknown arm, ParameterError for an unknown value.
    """
    arm = arm_named(name)
    changed = values_of(values, **settings)
    parts: dict[str, Any] = {"": arm, "loss": arm.loss, "optimiser": arm.optimiser, "lora": arm.lora}
    known = {f.name: part for part, config in reversed(parts.items()) for f in fields(config)}
    known = {value: part for value, part in known.items() if value not in ("name", *parts)}
    found: dict[str, dict[str, Any]] = {part: {} for part in parts}
    for key in {**settings, **changed}:
        if key not in known:
            raise ParameterError(f"arm {name!r} has no value {key!r}: {nearest(key, tuple(known))}")
    for key, value in changed.items():
        found[known[key]][key] = _of_kind(key, getattr(parts[known[key]], key), value)
    changes = {part: replace(parts[part], **own) for part, own in found.items() if part}
    return replace(arm, **found[""], **changes)


_KINDS: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number"}


def _of_kind(name: str, now: Any, value: Any) -> Any:
    """Return a value in the type of the arm's own value; the config checks texts and lists. Raises ParameterError."""
    kind = type(now)
    if kind not in _KINDS:
        return value
    if kind is float and isinstance(value, str):  # YAML takes 1e-3 for a text
        with contextlib.suppress(ValueError):
            value = float(value)
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise ParameterError(f"{name} is {value!r}; it must be {_KINDS[kind]}: the arm's own value is {now!r}")
    return kind(value)


def values_of(given: Sequence[str], **named: Any) -> dict[str, Any]:
    """Return texts such as "clip_percentile: 95" or "retention: measured" (YAML) as values by name, for `arm_with`.

    `named` adds values by name, without those that are None. Lists become tuples. Raises ParameterError for a text that
    is not a name with a value, and for a name that is given twice.
    """
    import yaml

    found = {name: value for name, value in named.items() if value is not None}
    for text in given:
        try:
            read = yaml.safe_load(text)
        except yaml.YAMLError:
            read = None
        if not isinstance(read, dict) or not all(isinstance(name, str) for name in read):
            raise ParameterError(f"{text!r} is not a name with a value: write it as in 'clip_percentile: 95'")
        if twice := sorted(read.keys() & found.keys()):
            raise ParameterError(f"{twice[0]} is given twice, as {found[twice[0]]!r} and by {text!r}: leave one out")
        if nothing := [name for name, value in read.items() if value is None]:
            raise ParameterError(f"{nothing[0]} has no value in {text!r}: give it one, or leave it out")
        found |= {name: tuple(value) if isinstance(value, list) else value for name, value in read.items()}
    return found


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """The observation of a training.

    film_every        steps between two looks at KL and retention on the fixed texts; 0 for none
    checkpoint_every  steps between two checkpoints, from which a killed run resumes; 0 for none
    kl_budget_nats    training stops where KL(aligned || student) on the harmless texts exceeds it, nats per token
    preflight         measure the teacher, memory and time before the first step, and refuse an arm that cannot work
    """

    film_every: int = 20
    checkpoint_every: int = 50
    kl_budget_nats: float | None = None
    preflight: bool = True

    def __post_init__(self) -> None:
        check_fields(
            self,
            (self.kl_budget_nats is not None and not self.film_every, "kl_budget_nats", "None where film_every is 0"),
            **dict.fromkeys(("film_every", "checkpoint_every"), at_least(0)),
            kl_budget_nats=above(0),
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training: its arm, its length and its batches.

    arm            a name of ARMS or FURTHER, or an ArmConfig
    batch_size     rows of one optimizer step; `micro_batch` of them go through the model at once (None: all)
    harmful_share  share of harmful rows in a batch; 0.4 of 8 is the cycle 3, 3, 3, 3, 4
    max_tokens     longest row, prompt and response; longer responses are cut and counted
    prefix_tokens  longest harmful prefix h of a recovery row, and longest harmless prefix
    processes      on this machine, one a GPU where there are GPUs; each takes its share of every batch; tested on CPUs
    experimental_sharded   each of several processes keeps a part of the frozen weights, for a pair too large for one
                   GPU (FSDP); tested on CPUs
    chunk_rows     positions that go through the output heads at once; None: as many as the buffers allow
    checkpointing  keep each layer's input alone for the backward pass, which runs the layer again: less memory, about a
                   third more time, the same gradients
    tf32           let an NVIDIA GPU round the factors of float32 products to TF32: several times faster, 3 digits each
    seed           of the adapter's first weights and of every draw
    """

    arm: ArmConfig | str = "recovery"
    steps: int = 200
    batch_size: int = 8
    micro_batch: int | None = None
    harmful_share: float = 0.4
    max_tokens: int = 512
    prefix_tokens: int = 100
    processes: int = 1
    experimental_sharded: bool = False
    chunk_rows: int | None = None
    checkpointing: bool = False
    tf32: bool = False
    watch: WatchSettings = field(default_factory=WatchSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.arm, str):
            object.__setattr__(self, "arm", arm_named(self.arm))
        each = f", with micro_batch {self.micro_batch} each" if self.processes > 1 and self.micro_batch else ""
        check_fields(
            self,
            (self.experimental_sharded and self.processes == 1, "experimental_sharded", "False for one process"),
            **dict.fromkeys(("steps", "batch_size", "micro_batch", "processes"), at_least(1)),
            **dict.fromkeys(("prefix_tokens", "chunk_rows"), at_least(1)),
            harmful_share=from_to(0, 1),
            max_tokens=at_least(2),
            seed=at_least(0),
        )
        which, size = "micro_batch" if self.processes == 1 else "processes", (self.micro_batch or 1) * self.processes
        check_fields(self, (self.batch_size % size != 0, which, f"a divisor of batch_size {self.batch_size}{each}"))

    @property
    def chosen(self) -> ArmConfig:
        """Return the arm."""
        assert isinstance(self.arm, ArmConfig)
        return self.arm

    @property
    def accumulation(self) -> int:
        """Return how many passes make one optimizer step in each process."""
        return self.batch_size // (self.rows_in_a_pass * self.processes)

    @property
    def rows_in_a_pass(self) -> int:
        """Return how many rows go through the model at once in each process."""
        return self.micro_batch or self.batch_size // self.processes
