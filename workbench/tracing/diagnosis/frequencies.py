"""The vocabulary elements that are base-favored most often, on harmful and on harmless prompts."""

from __future__ import annotations

from typing import Literal

import numpy as np

from workbench.core.records import Estimate
from workbench.core.statistics import Mean, difference, estimate
from workbench.tracing.diagnosis.answers import Answers
from workbench.tracing.diagnosis.config import DiagnosisConfig
from workbench.tracing.records import TokenFrequency


def frequencies(answers: Answers) -> tuple[TokenFrequency, ...]:
    """Return the most frequent detected base-favored tokens with their rate on harmful and on harmless answers.

    A rate is the share of all answer positions of that label (all prefix lengths together) at which the token was
    detected; it is missing where the label does not occur. The list is ordered by the larger of the two rates (by the
    rate over all answers where neither label occurs), ties by token id. `mass` is the token's p_b - p_a summed over the
    answer positions, of any label, where it was detected. The difference is bootstrapped over prompts, the two labels
    independently.
    """
    traces, config = answers.traces, answers.config
    is_answer = answers.mask.any(axis=1)
    entry = is_answer[traces.detected_response]
    owner, token = traces.detected_response[entry], traces.detected_token[entry]
    count, mass = traces.detected_count[entry], traces.detected_mass[entry]
    vocabulary, column = np.unique(token, return_inverse=True)
    if not len(vocabulary) or config.tokens == 0:
        return ()
    lengths = answers.mask.sum(axis=1)
    column = column.reshape(-1)
    rates = [_rate(answers, label, owner, column, count, len(vocabulary)) for label in ("harmful", "harmless")]
    if all(np.isnan(r).all() for r in rates):
        rates = [np.bincount(column, count, len(vocabulary)) / lengths.sum()]
    largest = np.fmax.reduce(rates)
    chosen = np.lexsort((vocabulary, -largest))[: config.tokens]
    masses = np.bincount(column, mass, len(vocabulary))
    means = {label: _means(answers, label, vocabulary[chosen]) for label in ("harmful", "harmless")}
    apart = difference(means["harmful"], means["harmless"])
    names = traces.label_of()
    found = []
    for at, which in enumerate(chosen.tolist()):
        harmful, harmless, gap = (_estimate(m, at, config) for m in (means["harmful"], means["harmless"], apart))
        token_id = int(vocabulary[which])
        found.append(
            TokenFrequency(
                token_id=token_id,
                label=names.get(token_id, f"#{token_id}"),
                rate_harmful=harmful,
                rate_harmless=harmless,
                difference=gap,
                mass=float(masses[which]),
                kind=kind_of(gap, harmless, config),
            )
        )
    return tuple(found)


def kind_of(gap: Estimate, harmless: Estimate, config: DiagnosisConfig) -> Literal["safety", "style", "undecided"]:
    """Classify a token by how much more often it is base-favored on harmful prompts.

    With `gap` = rate on harmful minus rate on harmless answers, [low, high] its interval, and margin = style_margin x
    harmless rate:
    safety     low > margin: more often on harmful answers, by half the harmless rate at least. (Words of the harmful
               topic count too, and thirty tokens are thirty tests.)
    style      high <= margin: equal, more often on harmless answers, or more often on harmful ones by less than that.
               (A small excess can come from a difference in length alone, since rates are per position.)
    undecided  the interval contains the margin, or a label has fewer than least_prompts prompts.
    """
    if gap.n < config.least_prompts or gap.low is None or gap.high is None or harmless.value is None:
        return "undecided"
    margin = config.style_margin * harmless.value
    if gap.low > margin:
        return "safety"
    return "style" if gap.high <= margin else "undecided"


def _rate(
    answers: Answers, label: str, owner: np.ndarray, column: np.ndarray, count: np.ndarray, size: int
) -> np.ndarray:
    positions = answers.mask[answers.labels == label].sum()
    if positions == 0:
        return np.full(size, np.nan)
    mine = answers.labels[owner] == label
    return np.bincount(column[mine], count[mine], size) / positions


def _means(answers: Answers, label: str, vocabulary: np.ndarray) -> Mean:
    """Return the pooled rate of each token of a short list on one label's answers."""
    traces = answers.traces
    group = answers.group(label, None, "all answers", answers.mask.any(axis=1))
    row_of = np.full(len(traces.responses), -1)
    row_of[group.rows] = np.arange(len(group.rows))
    order = np.argsort(vocabulary)
    at = np.clip(np.searchsorted(vocabulary, traces.detected_token, sorter=order), 0, len(vocabulary) - 1)
    at = order[at]
    use = (vocabulary[at] == traces.detected_token) & (row_of[traces.detected_response] >= 0)
    seen = np.zeros((len(group.rows), len(vocabulary)))
    np.add.at(seen, (row_of[traces.detected_response[use]], at[use]), traces.detected_count[use])
    positions = np.broadcast_to(answers.mask[group.rows].sum(axis=1)[:, None], seen.shape)
    return group.sample.ratio(group.sample.sums(seen), group.sample.sums(positions.astype(float)))


def _estimate(mean: Mean, at: int, config: DiagnosisConfig) -> Estimate:
    one = Mean(value=np.asarray(mean.value[at]), draws=mean.draws[:, at], n=np.asarray(mean.n[at]))
    return estimate(one, unit="1", confidence=config.confidence)
