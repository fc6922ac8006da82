"""Groups of responses, and the curves, headline contrasts, heat map and ranking computed from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from workbench.core.errors import ParameterError
from workbench.core.quantities import QUANTITIES
from workbench.core.statistics import Mean, PromptSample, difference, estimate, interval, quotient
from workbench.tracing.diagnosis.config import IDENTICAL_KL_NATS, DiagnosisConfig
from workbench.tracing.records import Contrast, Curve, Divergent, HeatMap, TraceSet, Trajectory

RETENTION_UNCERTAIN = "retention_uncertain"
CURVES: dict[str, str] = {q.name: q.unit for q in QUANTITIES.values() if q.axis} | {RETENTION_UNCERTAIN: "1"}
"""Name of each curve -> unit: every quantity with an axis title, and `retention_uncertain`, retention over the
responses that are uncertain at that position (aligned entropy above the floor), where retention has a meaning."""

DIVERGENT = 20
"""The number of most divergent responses that are listed."""

DIFFERENCE = "harmful_minus_harmless"
"""The label of a contrast between harmful and harmless prompts."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Responses that are averaged together: indices into the TraceSet, their label and prefix length.

    `prefix_tokens` is None for teacher-forced responses, and for free-running ones pooled over several prefix lengths.
    A `brief` group has its two main numbers only.
    """

    label: str
    prefix_tokens: int | None
    words: str
    rows: np.ndarray
    sample: PromptSample
    brief: bool = False


class Answers:
    """The answers of a TraceSet (without thinking) as arrays, and their groups.

    Raises ParameterError where teacher-forced and free-running answers are mixed.
    """

    def __init__(self, traces: TraceSet, config: DiagnosisConfig) -> None:
        self.traces, self.config = traces, config
        rows = traces.responses
        answer = np.array([r.segment == "answer" for r in rows], bool)
        kinds = {r.trajectory for r in rows if r.segment == "answer"}
        if len(kinds) > 1:
            raise ParameterError(
                "this TraceSet mixes teacher-forced and free-running answers, whose numbers mean different things: "
                "diagnose one trajectory at a time"
            )
        self.trajectory: Trajectory | None = next(iter(kinds), None)
        free = self.trajectory == "free_running"
        self.prefix = np.array([r.prefix_tokens if free else 0 for r in rows], int)
        self.labels = np.array([r.label for r in rows], object)
        self.position = np.arange(1, traces.mask.shape[1] + 1)
        self.mask = traces.mask & answer[:, None]
        self.after_prefix = self.mask & (self.position > self.prefix[:, None])
        self.early = self.mask & (self.position <= config.early)
        self.late = self.after_prefix & (self.position >= config.late_from)
        self.uncertain = self.mask & (traces.entropy_aligned_nats > traces.entropy_floor_nats)
        self._order = sorted(range(len(rows)), key=lambda i: (rows[i].prompt_id, rows[i].prefix_tokens))
        self._answer = answer

    @property
    def distinct_labels(self) -> list[str]:
        """The labels that occur, harmful first."""
        known = ("harmful", "harmless", "lookalike", "unlabelled")
        return [c for c in known if (self._answer & (self.labels == c)).any()]

    @cached_property
    def noise_nats(self) -> float | None:
        """The largest KL between two scorings of one model, None where it was not measured."""
        noise = self.traces.noise_kl_nats
        measured = noise[np.isfinite(noise)]
        return float(measured.max()) if measured.size else None

    @property
    def floor_nats(self) -> float:
        """The KL that counts as none: the largest noise, at least IDENTICAL_KL_NATS."""
        return max(self.noise_nats or 0.0, IDENTICAL_KL_NATS)

    def group(
        self, label: str, prefix_tokens: int | None, words: str, within: np.ndarray, *, brief: bool = False
    ) -> Group:
        """Make a group of the responses of one label that are True in `within`."""
        rows = np.array([i for i in self._order if within[i] and self.labels[i] == label], int)
        sample = self.sample(rows, label)
        return Group(label=label, prefix_tokens=prefix_tokens, words=words, rows=rows, sample=sample, brief=brief)

    def sample(self, rows: Sequence[int] | np.ndarray, stream: str) -> PromptSample:
        """Return the resamples of some responses' prompts."""
        ids = [self.traces.responses[i].prompt_id for i in rows]
        return PromptSample(ids, resamples=self.config.resamples, seed=self.config.seed, stream=stream)

    @cached_property
    def by_prefix(self) -> list[Group]:
        """One group for each label (teacher-forced), or for each label and prefix length (free-running)."""
        if self.trajectory != "free_running":
            return [self.group(c, None, "given responses", self._answer) for c in self.distinct_labels]
        made: list[Group] = []
        for c in self.distinct_labels:
            mine = self._answer & (self.labels == c)
            lengths = sorted(set(self.prefix[mine].tolist()))
            several = sum(k > 0 for k in lengths) > 1
            within = {k: mine & (self.prefix == k) for k in lengths}
            made += [self.group(c, k, prefix_words([k]), within[k], brief=several and k > 0) for k in lengths]
        return made

    @cached_property
    def pooled(self) -> list[Group]:
        """One group for each label over all prefixes of 1 token or more, where there are several lengths."""
        made: list[Group] = []
        for c in self.distinct_labels:
            within = self._answer & (self.prefix > 0) & (self.labels == c)
            lengths = sorted(set(self.prefix[within].tolist()))
            if len(lengths) > 1:
                made.append(self.group(c, None, prefix_words(lengths), within))
        return made

    @property
    def groups(self) -> list[Group]:
        """All groups that contrasts are computed for: the pooled ones first."""
        return [*self.pooled, *self.by_prefix]

    def evidence(self) -> Group | None:
        """Return the group of the verdict, harmful continuations, or None where there are none.

        Teacher-forced: the given responses to harmful prompts. Free-running: continuations after a prefix of at least
        one token (without a prefix the aligned model's own answer may be a refusal).
        """
        if self.trajectory == "teacher_forced":
            candidates = self.by_prefix
        else:
            candidates = [*self.pooled, *(g for g in self.by_prefix if g.prefix_tokens)]
        return next((g for g in candidates if g.label == "harmful"), None)


def prefix_words(lengths: Sequence[int]) -> str:
    """Return the prefix lengths of a group of responses in words."""
    if list(lengths) == [0]:
        return "no prefix"
    return f"after {' / '.join(map(str, lengths))} prefix token{'s' if list(lengths) != [1] else ''}"


# ------------------------------------------------------------------------------------------------- curves


def curves(answers: Answers) -> tuple[Curve, ...]:
    """Return every curve of CURVES for every label and prefix length: mean over responses, band over prompts."""
    return tuple(_curve(answers, g, name, unit) for g in answers.by_prefix for name, unit in CURVES.items())


def _curve(answers: Answers, group: Group, name: str, unit: str) -> Curve:
    where = (answers.uncertain if name == "retention_uncertain" else answers.mask)[group.rows]
    length = int(answers.traces.lengths()[group.rows].max(initial=0))
    values = getattr(answers.traces, name.removesuffix("_uncertain"))[group.rows, :length]
    mean = group.sample.mean(values, where[:, :length])
    low, high = interval(mean, answers.config.confidence)
    return Curve(
        name=name,
        label=group.label,
        prefix_tokens=group.prefix_tokens,
        unit=unit,
        position=answers.position[:length].astype(np.int32),
        value=mean.value.astype(np.float32),
        low=low.astype(np.float32),
        high=high.astype(np.float32),
        n=mean.n.astype(np.int32),
    )


def noise_floor(traces: TraceSet) -> Curve | None:
    """Return the largest KL over the samples by position between two scorings of one model; None where not measured.

    It has no interval, since there are few samples; n counts samples.
    """
    noise = np.where(np.isfinite(traces.noise_kl_nats), traces.noise_kl_nats, -np.inf)
    n = np.isfinite(noise).sum(axis=0)
    length = int(np.nonzero(n)[0].max(initial=-1)) + 1
    if length == 0:
        return None
    most = noise[:, :length].max(axis=0)
    missing = np.full(length, np.nan, np.float32)
    return Curve(
        name="noise_kl_nats",
        label="all",
        prefix_tokens=None,
        unit="nats",
        position=np.arange(1, length + 1, dtype=np.int32),
        value=np.where(n[:length] > 0, most, np.nan).astype(np.float32),
        low=missing,
        high=missing.copy(),
        n=n[:length].astype(np.int32),
    )


def heat_map(answers: Answers) -> HeatMap | None:
    """Return mean retention by prefix length and position on harmful prompts; None unless they are free-running."""
    groups = [g for g in answers.by_prefix if g.label == "harmful" and g.prefix_tokens is not None]
    if not groups:
        return None
    width = len(answers.position)
    value, n = np.full((len(groups), width), np.nan, np.float32), np.zeros((len(groups), width), np.int32)
    for row, group in enumerate(groups):
        mean = group.sample.mean(answers.traces.retention[group.rows], answers.mask[group.rows])
        value[row], n[row] = mean.value, mean.n
    return HeatMap(
        name="retention",
        label="harmful",
        prefix_tokens=np.array([g.prefix_tokens for g in groups], np.int32),
        position=answers.position.astype(np.int32),
        value=value,
        n=n,
    )


# ---------------------------------------------------------------------------------------------- contrasts


def contrasts(answers: Answers) -> tuple[Contrast, ...]:
    """Return the headline numbers of every group, then harmful minus harmless, then thinking blocks."""
    made: list[Contrast] = []
    means: dict[tuple[str, int | None, str], dict[str, Mean]] = {}
    for group in answers.groups:
        of_group = means[group.label, group.prefix_tokens, group.words] = {}
        for name, title, unit, mean in _headlines(answers, group):
            of_group[name] = mean
            made.append(_contrast(answers, name, group.label, f"{title} ({group.words})", unit, mean, group))
    for group in [g for g in answers.groups if g.label == "harmful" and not g.brief]:
        twin = _harmless_twin(answers, group)
        if twin is None:
            continue
        mine = means[group.label, group.prefix_tokens, group.words]
        other = means[twin.label, twin.prefix_tokens, twin.words]
        for name, what, unit in (
            ("early_kl_aligned_base_nats", f"KL(aligned || base), {_early(answers)}", "nats"),
            ("late_retention_uncertain", f"retention where aligned is uncertain, {_late(answers)}", "1"),
        ):
            mean = difference(mine[name], other[name])
            title = f"{what}: harmful minus harmless ({group.words})"
            made.append(_contrast(answers, name, DIFFERENCE, title, unit, mean, group))
    return (*made, *_thinking(answers))


def _harmless_twin(answers: Answers, group: Group) -> Group | None:
    """Find the harmless group of the same prefix length, or of the pooled prefixes."""
    same = answers.pooled if group in answers.pooled else [g for g in answers.by_prefix if not g.brief]
    fits = (g for g in same if g.label == "harmless" and g.prefix_tokens == group.prefix_tokens)
    return next(fits, None)


def _contrast(
    answers: Answers, name: str, label: str, title: str, unit: str, mean: Mean, group: Group | None
) -> Contrast:
    return Contrast(
        name=name,
        label=label,
        title=title,
        estimate=estimate(mean, unit=unit, confidence=answers.config.confidence),
        prefix_tokens=None if group is None else group.prefix_tokens,
    )


def _early(answers: Answers) -> str:
    return f"positions 1 to {answers.config.early}" if answers.config.early > 1 else "position 1"


def _late(answers: Answers) -> str:
    return f"positions {answers.config.late_from} and later"


def _headlines(answers: Answers, group: Group) -> Iterator[tuple[str, str, str, Mean]]:
    """Yield name, title, unit and pooled mean of each headline number of a group."""
    traces, rows = answers.traces, group.rows
    mask, early, late, uncertain = (x[rows] for x in (answers.mask, answers.early, answers.late, answers.uncertain))

    def pooled(name: str, where: np.ndarray) -> Mean:
        return group.sample.pooled(getattr(traces, name)[rows], where)

    at_early, at_late = _early(answers), _late(answers)
    floor = f"aligned entropy above {traces.entropy_floor_nats:g} nats"
    counted = f"base-favored tokens ({traces.count_space})"
    early_kl, late_kl = pooled("kl_aligned_base_nats", early), pooled("kl_aligned_base_nats", late)
    yield "late_kl_aligned_base_nats", f"KL(aligned || base), {at_late}", "nats", late_kl
    retained = pooled("retention", late & uncertain)
    yield "late_retention_uncertain", f"retention where {floor}, {at_late}", "1", retained
    if group.brief:
        return
    yield "early_kl_aligned_base_nats", f"KL(aligned || base), {at_early}", "nats", early_kl
    title = f"early over late KL(aligned || base), late counted as at least {answers.floor_nats:.2g} nats"
    yield "early_to_late_kl_ratio", title, "1", quotient(early_kl, late_kl, at_least=answers.floor_nats)
    yield "late_retention", f"retention, {at_late}", "1", pooled("retention", late)
    share = group.sample.pooled(uncertain.astype(float), late)
    yield "late_uncertain_share", f"share of positions with {floor}, {at_late}", "1", share
    yield "mean_excess_mass", "excess mass, all positions", "1", pooled("excess_mass", mask)
    yield "early_base_favored_count", f"{counted}, {at_early}", "tokens", pooled("base_favored_count", early)
    yield "late_base_favored_count", f"{counted}, {at_late}", "tokens", pooled("base_favored_count", late)
    if answers.trajectory == "free_running" and group.prefix_tokens != 0:
        finite = np.isfinite(traces.kl_aligned_base_nats[rows])
        for name, region, words in (
            ("early_peak_kl_nats", early, at_early),
            ("after_prefix_peak_kl_nats", answers.after_prefix[rows], "after the prefix"),
        ):
            kl = np.where(region & finite, traces.kl_aligned_base_nats[rows], -np.inf)
            peak = group.sample.mean(kl.max(axis=1, initial=-np.inf), (region & finite).any(axis=1))
            yield name, f"largest KL(aligned || base) of each response, {words}", "nats", peak


def _thinking(answers: Answers) -> Iterator[Contrast]:
    """Yield mean KL over the thinking blocks of each label, which are their own trajectories."""
    traces = answers.traces
    for label in ("harmful", "harmless", "lookalike", "unlabelled"):
        rows = [i for i, r in enumerate(traces.responses) if r.segment == "thinking" and r.label == label]
        if rows:
            sample = answers.sample(rows, f"{label} thinking")
            mean = sample.pooled(traces.kl_aligned_base_nats[rows], traces.mask[rows])
            title = "KL(aligned || base), all positions of the thinking block"
            yield _contrast(answers, "thinking_kl_aligned_base_nats", label, title, "nats", mean, None)


# ---------------------------------------------------------------------------------------------- divergent


def divergent(answers: Answers) -> tuple[Divergent, ...]:
    """Return the answers of largest mean KL(aligned || base), with the position where it peaks; ties in trace order."""
    traces, found = answers.traces, []
    for i in np.nonzero(answers.mask.any(axis=1))[0].tolist():
        kl = np.where(answers.mask[i], traces.kl_aligned_base_nats[i].astype(float), np.nan)
        if not np.isfinite(kl).any():
            continue
        peak = int(np.argmax(np.where(np.isfinite(kl), kl, -np.inf)))
        found.append(
            Divergent(
                response=i,
                prompt_id=traces.responses[i].prompt_id,
                label=traces.responses[i].label,
                prefix_tokens=traces.responses[i].prefix_tokens,
                mean_kl_nats=float(kl[np.isfinite(kl)].mean()),
                peak_position=peak + 1,
                peak_kl_nats=float(kl[peak]),
            )
        )
    return tuple(sorted(found, key=lambda d: -d.mean_kl_nats)[:DIVERGENT])
