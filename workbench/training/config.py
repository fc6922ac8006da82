"""What to train on and how: the losses' settings (LossConfig), the arms of a comparison, and TrainConfig."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from workbench.core.errors import ParameterError, UnknownName, nearest

Direction = Literal["reverse", "forward", "jsd"]
Completion = Literal["squared", "centred", "one_sided", "logprob_hinge", "unlikelihood"]
SetRanking = Literal["logit", "mass", "random", "aligned_favored"]
HarmfulUse = Literal["nothing", "refusal", "recovery_labels", "completion", "teacher", "recovery", "compliance"]
UtilityUse = Literal["nothing", "labels", "distil", "constrain"]

HARMFUL_USES: dict[HarmfulUse, str] = {
    "nothing": "harmful rows are not trained on",
    "refusal": "the refusal itself, as labels, right after the prompt",
    "recovery_labels": "the refusal as labels after a harmful prefix (arXiv 2406.05946)",
    "completion": "L_completion at every position of the harmful response (arXiv 2511.12155)",
    "teacher": "L_KL to the hybrid teacher at every position of the harmful response",
    "recovery": "the aligned model's own refusal, distilled into the position after a harmful prefix (ours)",
    "compliance": "the harmful response itself, as labels: what an attacker would do, to measure what withstands it",
}
"""What an arm does with a harmful row -> in words."""


def _refuse(config: Any, bad: list[tuple[bool, str, str]]) -> None:
    for wrong, name, want in bad:
        if wrong:
            raise ParameterError(f"{name} is {getattr(config, name)!r}; it must be {want}")


def _are_shares(given: Any) -> bool:
    if isinstance(given, str):
        return given == "measured"
    return all(isinstance(r, int | float) and 0.0 <= r <= 1.0 for r in given) and (not given or any(given))


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weigh each part of the loss by its role; 0 leaves it out. `complete` multiplies alpha_adaptive * lambda_reg."""

    label: float = 1.0
    distil: float = 1.0
    recover: float = 1.0
    complete: float = 1.0
    constrain: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0.0 <= value < math.inf:
                raise ParameterError(f"the weight of {name} is {value!r}; it must be finite and at least 0")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Say what the losses of METHOD section 3 are; the defaults are the paper's (arXiv 2511.12155).

    teacher_lambda   z_teacher = lambda z_a + (1 - lambda) z_b; 1 is the aligned model itself
    temperature      tau of L_KL, whose value is multiplied by tau^2
    direction        reverse: KL(student || teacher), as printed; forward: KL(teacher || student); jsd
    completion       what is paid for a token of M, see METHOD section 3
    set_size         tokens in M
    ranking          M: largest z_b - z_a (logit), p_b - p_a (mass), z_a - z_b (aligned_favored), or random tokens
    lambda_reg       weight of the completion term
    alpha_base, gamma   alpha_adaptive = alpha_base (1 + gamma |B_t| / |V|)
    hinge_margin     m of logprob_hinge, nats
    clip_percentile  per-token KL of RECOVER is clipped at this percentile of the optimizer step's; 100 clips nothing
    weights          of each part

    Raises ParameterError for a value out of range.
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
    weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        for name, known in {"direction": Direction, "completion": Completion, "ranking": SetRanking}.items():
            if getattr(self, name) not in get_args(known):
                raise ParameterError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(get_args(known))}"
                )
        bad = [
            (not math.isfinite(self.teacher_lambda), "teacher_lambda", "a finite number"),
            (not 0.0 < self.temperature < math.inf, "temperature", "finite and above 0"),
            (self.set_size < 1, "set_size", "at least 1 token"),
            (not 0.0 <= self.lambda_reg < math.inf, "lambda_reg", "finite and at least 0"),
            (not 0.0 <= self.alpha_base < math.inf, "alpha_base", "finite and at least 0"),
            (not 0.0 <= self.gamma < math.inf, "gamma", "finite and at least 0"),
            (not math.isfinite(self.hinge_margin), "hinge_margin", "a finite number of nats"),
            (not 0.0 < self.clip_percentile <= 100.0, "clip_percentile", "above 0 and at most 100"),
        ]
        _refuse(self, bad)


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Say what is trained: rank, alpha (the update is scaled by alpha / rank), dropout, and in which layers.

    `targets` are names of linear layers, "all-linear" for every one of them but the head; None is PEFT's own choice for
    the architecture. Ignored where the pair is one model with an adapter: its student is a copy of that adapter.
    """

    rank: int = 32
    alpha: float = 8.0
    dropout: float = 0.0
    targets: tuple[str, ...] | Literal["all-linear"] | None = None

    def __post_init__(self) -> None:
        bad = [
            (self.rank < 1, "rank", "at least 1"),
            (not 0.0 < self.alpha < math.inf, "alpha", "finite and above 0"),
            (not 0.0 <= self.dropout < 1.0, "dropout", "at least 0 and below 1"),
            (self.targets == (), "targets", "None, 'all-linear' or at least one layer name"),
        ]
        _refuse(self, bad)


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings:
    """Say how AdamW moves: rates rise linearly over `warmup_share` of the steps, then decay as `decay` says."""

    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    warmup_share: float = 0.0
    decay: Literal["linear", "cosine", "constant"] = "linear"

    def __post_init__(self) -> None:
        bad = [
            (not 0.0 < self.learning_rate < math.inf, "learning_rate", "finite and above 0"),
            (not 0.0 <= self.weight_decay < math.inf, "weight_decay", "finite and at least 0"),
            (not 0.0 < self.clip_norm < math.inf, "clip_norm", "finite and above 0"),
            (not 0.0 <= self.warmup_share < 1.0, "warmup_share", "at least 0 and below 1"),
            (self.decay not in ("linear", "cosine", "constant"), "decay", "linear, cosine or constant"),
        ]
        _refuse(self, bad)


@dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """Say what one arm of a comparison does with each kind of row, and with which loss and optimiser.

    name              as in results
    harmful           see HARMFUL_USES
    utility           labels: cross-entropy on the response; distil: L_KL to the (hybrid) teacher; constrain: labels,
                      held back where the student leaves aligned (arXiv 2406.05946), those of "compliance" too
    harmless_share    share of the utility rows that are a harmless request with a harmless prefix, to be continued
    penalise_rest     recovery: also L_completion on the harmful tokens after the prefix
    harmful_weight    weight of the labels on harmful rows; those on utility rows weigh 1 - harmful_weight
    match_arm         scale L_completion so that its first gradient is as long as that of this arm's token set
    retention         w_t: retention on harmful texts by position, normalised to mean 1; () weighs all alike,
                      "measured" stands for what `distil` measures on the training's own harmful texts

    Raises ParameterError for an arm that could not train anything.
    """

    name: str
    harmful: HarmfulUse
    utility: UtilityUse = "distil"
    harmless_share: float = 0.0
    penalise_rest: bool = False
    harmful_weight: float = 0.5
    match_arm: SetRanking | None = None
    retention: tuple[float, ...] | Literal["measured"] = ()
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)

    def __post_init__(self) -> None:
        for name, known in {"harmful": HarmfulUse, "utility": UtilityUse}.items():
            if getattr(self, name) not in get_args(known):
                raise ParameterError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(get_args(known))}"
                )
        bad = [
            (not self.name.strip(), "name", "a word that results can carry"),
            (not 0.0 <= self.harmless_share <= 1.0, "harmless_share", "from 0 to 1"),
            (not 0.0 < self.harmful_weight < 1.0, "harmful_weight", "between 0 and 1"),
            (not _are_shares(self.retention), "retention", "'measured', or numbers from 0 to 1, not all 0"),
            (self.match_arm is not None and self.match_arm not in get_args(SetRanking), "match_arm", "a token ranking"),
        ]
        _refuse(self, bad)
        if self.harmful == "nothing" and self.utility == "nothing":
            raise ParameterError(f"arm {self.name!r} trains on neither harmful nor utility rows: there is no loss")
        if self.penalise_rest and self.harmful != "recovery":
            raise ParameterError(f"penalise_rest belongs to harmful='recovery', and arm {self.name!r} has another use")

    @property
    def needs_refusals(self) -> bool:
        """Tell whether harmful rows need refusals of the aligned model."""
        return self.harmful in ("refusal", "recovery_labels", "recovery")

    @property
    def teacher_acts_on_harmful(self) -> bool:
        """Tell whether safety comes from what the hybrid teacher says on harmful rows."""
        return self.harmful == "teacher"

    def weight_at(self, position: int) -> float:
        """Return w_t at a 1-based position of the student's response, 1 where retention was not given."""
        if not self.retention:
            return 1.0
        if isinstance(self.retention, str):
            raise ParameterError(f"the retention of arm {self.name!r} is still to be measured: `distil` does it")
        mean = math.fsum(self.retention) / len(self.retention)
        return self.retention[min(position, len(self.retention)) - 1] / mean


_TUNED = OptimiserSettings(learning_rate=1e-3, warmup_share=0.05)
_WIDE = LoraSettings(rank=32, alpha=32.0, targets="all-linear")
_PAPER = LossConfig()


def _arms() -> dict[str, ArmConfig]:
    paper = ArmConfig(name="paper", harmful="completion", loss=_PAPER)
    tuned = replace(paper, name="paper_tuned", optimiser=_TUNED, lora=_WIDE)
    labels = dict(utility="labels", optimiser=_TUNED, lora=_WIDE)
    only = replace(_PAPER, weights=LossWeights(distil=0.0))
    recovery = LossConfig(
        teacher_lambda=1.0,
        temperature=1.0,
        direction="forward",
        completion="unlikelihood",
        ranking="mass",
        lambda_reg=1.0,
        clip_percentile=100.0,
        weights=LossWeights(distil=3.0),
    )
    return {
        a.name: a
        for a in (
            ArmConfig(name="refusal_sft", harmful="refusal", **labels),  # type: ignore[arg-type]
            ArmConfig(name="augmentation", harmful="recovery_labels", harmful_weight=0.2, **labels),  # type: ignore[arg-type]
            paper,
            tuned,
            replace(tuned, name="completion_only", utility="nothing", loss=only),
            replace(tuned, name="teacher_only", harmful="teacher"),
            replace(tuned, name="random_tokens", match_arm="logit", loss=replace(_PAPER, ranking="random")),
            replace(tuned, name="aligned_favored", match_arm="logit", loss=replace(_PAPER, ranking="aligned_favored")),
            ArmConfig(
                name="recovery",
                harmful="recovery",
                harmless_share=0.5,
                loss=recovery,
                optimiser=replace(_TUNED, learning_rate=2e-3),
                lora=_WIDE,
            ),
        )
    }


ARMS: Mapping[str, ArmConfig] = MappingProxyType(_arms())
"""Every trained arm of METHOD section 3 by its name in results; `aligned` is the one that is not trained."""


def _further() -> dict[str, ArmConfig]:
    tuning = OptimiserSettings(learning_rate=2e-4, decay="constant")
    benign = ArmConfig(name="benign_tuning", harmful="nothing", utility="labels", optimiser=tuning, lora=_WIDE)
    back = LossConfig(teacher_lambda=1.0, temperature=1.0)
    return {
        a.name: a
        for a in (
            benign,
            replace(benign, name="few_harmful_tuning", harmful="compliance"),
            replace(benign, name="benign_tuning_constrained", utility="constrain"),
            replace(benign, name="few_harmful_tuning_constrained", harmful="compliance", utility="constrain"),
            replace(benign, name="pull_back", utility="distil", loss=back),
        )
    }


FURTHER: Mapping[str, ArmConfig] = MappingProxyType(_further())
"""What is no way to complete an alignment: fine-tuning that undoes one, plainly or constrained, and `pull_back`, which
draws a model that was fine-tuned back to aligned on utility rows (the paper's recovery variant, before its completion).
"""


def arm_named(name: str) -> ArmConfig:
    """Return an arm of ARMS or FURTHER. Raises UnknownName, which names the nearest one."""
    known = {**ARMS, **FURTHER}
    if name not in known:
        raise UnknownName(f"there is no training arm {name!r}: {nearest(name, tuple(known))}")
    return known[name]


def arm_with(name: str, values: Sequence[str] = (), **settings: Any) -> ArmConfig:
    """Return a named arm with some of its values changed, wherever they are in it; None leaves a value as it is.

    arm_with("recovery", learning_rate=1e-3, rank=8), or as texts: arm_with("recovery", ["learning_rate: 1e-3"]); see
    `values_of`. Raises UnknownName for an arm, ParameterError for a value, that does not exist.
    """
    arm = arm_named(name)
    changed = values_of(values, **settings)
    parts: dict[str, Any] = {
        "": arm,
        "loss": arm.loss,
        "optimiser": arm.optimiser,
        "lora": arm.lora,
        "weights": arm.loss.weights,
    }
    found: dict[str, dict[str, Any]] = {part: {} for part in parts}
    known = {f.name: part for part, config in reversed(parts.items()) for f in fields(config)}
    for key, value in changed.items():
        if key not in known or key in ("name", "loss", "optimiser", "lora", "weights"):
            raise ParameterError(f"arm {name!r} has no value {key!r}: {nearest(key, tuple(known))}")
        found[known[key]][key] = _of_kind(key, getattr(parts[known[key]], key), value)
    loss = replace(arm.loss, **found["loss"], weights=replace(arm.loss.weights, **found["weights"]))
    optimiser, lora = replace(arm.optimiser, **found["optimiser"]), replace(arm.lora, **found["lora"])
    return replace(arm, **found[""], loss=loss, optimiser=optimiser, lora=lora)


_KINDS: tuple[tuple[type, tuple[type, ...], str], ...] = (
    (bool, (bool,), "true or false"),
    (int, (int,), "a whole number"),
    (float, (int, float), "a number"),
)
"""Type of an arm's own value, first match first, and the types that may take its place; a truth value is no number.
What is text or a list is checked by the config that it belongs to."""


def _number(value: Any) -> Any:
    """Return a text such as 1e-3, which YAML takes for text, as the number that it is; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _of_kind(name: str, now: Any, value: Any) -> Any:
    """Return a value in the type of the one it replaces. Raises ParameterError where it is of another kind."""
    for own, allowed, want in _KINDS:
        if isinstance(now, own):
            value = _number(value) if own is float else value
            if not isinstance(value, allowed) or isinstance(value, bool) is not isinstance(now, bool):
                raise ParameterError(f"{name} is {value!r}; it must be {want}: the arm's own value is {now!r}")
            return own(value)
    return value


def values_of(given: Sequence[str], **named: Any) -> dict[str, Any]:
    """Return texts such as "clip_percentile: 95" or "retention: measured" (YAML) as values by name, for `arm_with`.

    `named` are values that are given by name already; None there is no value. Lists become tuples. Raises
    ParameterError for a text that is no name with a value, or a name that is given twice.
    """
    import yaml

    found = {name: value for name, value in named.items() if value is not None}
    for text in given:
        try:
            read = yaml.safe_load(text)
        except yaml.YAMLError:
            read = None
        if not isinstance(read, dict) or not all(isinstance(name, str) for name in read):
            raise ParameterError(f"{text!r} is no value of an arm: write name and value, as in 'clip_percentile: 95'")
        if twice := sorted(read.keys() & found.keys()):
            raise ParameterError(f"{twice[0]} is given twice, as {found[twice[0]]!r} and by {text!r}: leave one out")
        if nothing := [name for name, value in read.items() if value is None]:
            raise ParameterError(f"{nothing[0]} is nothing in {text!r}: give it a value, or leave it out")
        found |= {name: tuple(value) if isinstance(value, list) else value for name, value in read.items()}
    return found


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """Say what is looked at while training, every so many steps; 0 switches it off.

    film_every        KL and retention on the fixed texts
    checkpoint_every  a checkpoint that a killed run goes on from
    kl_budget_nats    training stops where KL(aligned || student) on the harmless texts exceeds it, nats per token
    preflight         look at the teacher, memory and time before the first step, and refuse what cannot work
    """

    film_every: int = 20
    checkpoint_every: int = 50
    kl_budget_nats: float | None = None
    preflight: bool = True

    def __post_init__(self) -> None:
        bad = [
            (self.film_every < 0, "film_every", "at least 0 steps"),
            (self.checkpoint_every < 0, "checkpoint_every", "at least 0 steps"),
            (self.kl_budget_nats is not None and not self.kl_budget_nats > 0.0, "kl_budget_nats", "above 0, or None"),
            (self.kl_budget_nats is not None and not self.film_every, "kl_budget_nats", "None where film_every is 0"),
        ]
        _refuse(self, bad)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Say what to train and for how long.

    arm            a name of ARMS or FURTHER, or an ArmConfig
    steps          optimizer steps
    batch_size     rows of one optimizer step; `micro_batch` of them go through the model at once (None: all)
    harmful_share  share of harmful rows in a batch; 0.4 of 8 is the cycle 3, 3, 3, 3, 4
    max_tokens     longest row, prompt and response; longer responses are cut and counted
    prefix_tokens  longest harmful prefix h of a recovery row, and longest harmless prefix
    processes      on this machine, one a GPU where there are GPUs; each takes its share of every batch
    sharded        several processes: each keeps a part of the frozen weights, for a pair too large for one GPU (FSDP)
    chunk_rows     positions that go through the output heads at once; None: as many as the buffers allow
    watch          film, checkpoints, stop rule, pre-flight
    seed           of the adapter's first weights and of every draw

    Raises ParameterError for a value out of range, UnknownName for an unknown arm.
    """

    arm: ArmConfig | str = "recovery"
    steps: int = 200
    batch_size: int = 8
    micro_batch: int | None = None
    harmful_share: float = 0.4
    max_tokens: int = 512
    prefix_tokens: int = 100
    processes: int = 1
    sharded: bool = False
    chunk_rows: int | None = None
    watch: WatchSettings = field(default_factory=WatchSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.arm, str):
            object.__setattr__(self, "arm", arm_named(self.arm))
        bad = [
            (self.steps < 1, "steps", "at least 1"),
            (self.batch_size < 1, "batch_size", "at least 1 row"),
            (self.micro_batch is not None and self.micro_batch < 1, "micro_batch", "at least 1 row, or None"),
            (self.processes < 1, "processes", "at least 1"),
            (self.sharded and self.processes == 1, "sharded", "False where there is one process"),
            (
                self.batch_size % ((self.micro_batch or 1) * max(self.processes, 1)) != 0,
                "micro_batch" if self.processes == 1 else "processes",
                f"a divisor of batch_size {self.batch_size}"
                + (f", with micro_batch {self.micro_batch} each" if self.processes > 1 and self.micro_batch else ""),
            ),
            (not 0.0 <= self.harmful_share <= 1.0, "harmful_share", "from 0 to 1"),
            (self.max_tokens < 2, "max_tokens", "at least 2"),
            (self.prefix_tokens < 1, "prefix_tokens", "at least 1"),
            (self.chunk_rows is not None and self.chunk_rows < 1, "chunk_rows", "at least 1 row, or None"),
            (self.seed < 0, "seed", "at least 0"),
        ]
        _refuse(self, bad)

    @property
    def chosen(self) -> ArmConfig:
        """Return the arm itself, by whichever way it was given."""
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
