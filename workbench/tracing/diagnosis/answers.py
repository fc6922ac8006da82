"""The answers of a TraceSet as arrays, their groups, and the two sides of a comparison of harmful and harmless ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from workbench.core.errors import ParameterError
from workbench.core.statistics import Mean, PromptSample
from workbench.tracing.diagnosis.config import DiagnosisConfig
from workbench.tracing.records import TraceSet, Trajectory


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
        given = traces.mask.shape[1] if not free else self.prefix[:, None]
        self.given = self.mask & (self.position <= given)
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
        """The KL that counts as none: the largest noise, at least `identical_nats`."""
        return max(self.noise_nats or 0.0, self.config.identical_nats)

    def group(
        self, label: str, prefix_tokens: int | None, words: str, within: np.ndarray, *, brief: bool = False
    ) -> Group:
        """Make a group of the responses of one label that are True in `within`."""
        rows = np.array([i for i in self._order if within[i] and self.labels[i] == label], int)
        sample = self.sample(rows, label)
        return Group(label=label, prefix_tokens=prefix_tokens, words=words, rows=rows, sample=sample, brief=brief)

    def sample(self, rows: Sequence[int] | np.ndarray, stream: str, *, pairs: bool = False) -> PromptSample:
        """Return the resamples of some responses' prompts, or of their matched pairs."""
        ids = [str(getattr(self.traces.responses[i], "pair_id" if pairs else "prompt_id")) for i in rows]
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


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison of harmful and harmless responses: their rows, resamples, and shared positions."""

    rows: np.ndarray
    sample: PromptSample
    shared: np.ndarray

    def mean(self, values: np.ndarray, where: np.ndarray) -> Mean:
        """Average over the shared positions at which `where` holds."""
        return self.sample.pooled(values[self.rows], where[self.rows] & self.shared)


def harmless_like(answers: Answers, group: Group) -> Group | None:
    """Find the harmless group of the same prefix length, or of the pooled prefixes."""
    same = answers.pooled if group in answers.pooled else [g for g in answers.by_prefix if not g.brief]
    fits = (g for g in same if g.label == "harmless" and g.prefix_tokens == group.prefix_tokens)
    return next(fits, None)


def sides(answers: Answers, group: Group, other: Group) -> tuple[bool, Side, Side]:
    """Return whether prompts of two groups are matched, and the two sides to compare, over shared positions only.

    Matched: the responses of matched prompts (equal pair_id, equal prefix length), up to the shorter one's length; the
    pairs are resampled, the same for both sides. Otherwise: all responses up to the shorter group's length, resampled
    independently.
    """
    lengths = answers.mask.sum(axis=1)

    def places(rows: np.ndarray) -> dict[tuple[str, int], list[int]]:
        found: dict[tuple[str, int], list[int]] = {}
        for i in rows.tolist():
            if (pair := answers.traces.responses[i].pair_id) is not None:
                found.setdefault((pair, int(answers.prefix[i])), []).append(i)
        return found

    mine, others = places(group.rows), places(other.rows)
    both = [place for place in mine if place in others]
    made = []
    for own, whole in ((mine, group), (others, other)):
        if both:
            rows = np.array([i for place in both for i in own[place]], int)
            upto = [min(lengths[mine[p]].max(), lengths[others[p]].max()) for p in both for _ in own[p]]
            sample = answers.sample(rows, "pairs", pairs=True)
        else:
            rows, sample = whole.rows, whole.sample
            upto = [min(lengths[group.rows].max(initial=0), lengths[other.rows].max(initial=0))] * len(rows)
        made.append(Side(rows=rows, sample=sample, shared=answers.position <= np.array(upto, int)[:, None]))
    return bool(both), made[0], made[1]


def prefix_words(lengths: Sequence[int]) -> str:
    """Return the prefix lengths of a group of responses in words."""
    if list(lengths) == [0]:
        return "no prefix"
    return f"after {' / '.join(map(str, lengths))} prefix token{'s' if list(lengths) != [1] else ''}"
